//! What a `CloudEvents` message says about itself, beside the event: who made it, when, and under which id.
//!
//! Type, subject, schema and partition key are not here: they follow from the event, so they can't contradict it.
//! Nothing that decides about work is taken from an envelope; it is for tracing and for people.

use jiff::Timestamp;

/// The context of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Unique with `source`: a UUID in text form when batchmill makes it, any text in messages of others.
    pub id: String,
    /// Who made it, as a URI reference: `/batchmill/splitter`.
    pub source: String,
    /// When the event happened; messages of others may not say.
    pub time: Option<Timestamp>,
    /// The W3C trace context, passed on as it came. Text that is none is dropped on both ways.
    pub traceparent: Option<String>,
    /// The W3C trace state, passed on as it came; dropped above 512 bytes, as the recommendation allows.
    pub tracestate: Option<String>,
}

impl Envelope {
    /// An envelope without a trace.
    #[must_use]
    pub fn new(id: impl Into<String>, source: impl Into<String>, time: Timestamp) -> Self {
        Self { id: id.into(), source: source.into(), time: Some(time), traceparent: None, tracestate: None }
    }

    /// The trace context if it is well formed (W3C Trace Context, section 3.2: `00-<32 hex>-<16 hex>-<2 hex>`).
    pub(crate) fn valid_traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref().filter(|text| is_traceparent(text))
    }

    /// The trace state if it may travel: with a trace context, printable ASCII, at most 512 bytes.
    pub(crate) fn valid_tracestate(&self) -> Option<&str> {
        self.valid_traceparent()?;
        self.tracestate.as_deref().filter(|text| is_tracestate(text))
    }

    /// The same envelope without a trace that would not be passed on.
    pub(crate) fn with_valid_trace(mut self) -> Self {
        self.tracestate = self.valid_tracestate().map(str::to_owned);
        self.traceparent = self.valid_traceparent().map(str::to_owned);
        self
    }
}

fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let fits = [2, 32, 16, 2].into_iter().all(|length| {
        parts
            .next()
            .is_some_and(|part| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    });
    fits && parts.next().is_none()
}

fn is_tracestate(text: &str) -> bool {
    !text.is_empty() && text.len() <= 512 && text.bytes().all(|b| (0x20..=0x7e).contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_is_passed_on() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in ["", "00", &good[1..], &format!("{good}-00"), &good.to_uppercase(), &good.replace('4', "x")] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        let envelope = Envelope {
            traceparent: Some("no".to_owned()),
            tracestate: Some("a=1".to_owned()),
            ..Envelope::new("1", "/x", Timestamp::UNIX_EPOCH)
        };
        let envelope = envelope.with_valid_trace();
        assert_eq!((envelope.traceparent, envelope.tracestate), (None, None));
    }
}
