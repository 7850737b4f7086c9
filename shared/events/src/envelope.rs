//! What a `CloudEvents` message says about itself, beside the event: who made it, when, and under which id.
//!
//! Type, subject, schema and partition key are not here: they follow from the event, so they can't contradict it.
//! Nothing that decides about work is taken from an envelope; it is for tracing and for people.

use jiff::Timestamp;

use crate::trace::TraceContext;

/// The context of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Unique with `source`: a UUID in text form when batchmill makes it, any text in messages of others.
    pub id: String,
    /// Who made it, as a URI reference: `/batchmill/splitter`.
    pub source: String,
    /// When the event happened; messages of others may not say.
    pub time: Option<Timestamp>,
    /// The span that sent this message: the headers `traceparent` and `tracestate`, written anew by each sender.
    pub trace: Option<TraceContext>,
    /// The span with which it all began: the attributes `traceparent` and `tracestate` (`ce_traceparent` in the binary mode), the
    /// Distributed Tracing extension of `CloudEvents`. Passed on as it came.
    pub origin: Option<TraceContext>,
}

impl Envelope {
    /// An envelope without a trace.
    #[must_use]
    pub fn new(id: impl Into<String>, source: impl Into<String>, time: Timestamp) -> Self {
        Self { id: id.into(), source: source.into(), time: Some(time), trace: None, origin: None }
    }
}
