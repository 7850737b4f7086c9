//! W3C Trace Context: which span something came from, as text in headers.
//!
//! Level 1 of the recommendation, and what it says about higher versions: `traceparent` is read in every version but `ff`, by the
//! fields of version 00, and written in version 00. What can't be read counts as absent, because a trace is never a reason to refuse
//! an event. `tracestate` belongs to others: it is passed on as it came, or dropped whole above [`MAX_STATE_BYTES`].
//!
//! What is not here: new ids (they are chance, so they come from the runtime's clock), and any decision about sampling.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use crate::headers::Headers;

/// The most bytes of a `tracestate` that is passed on (W3C Trace Context, section 3.3.1.5: at least 512 should be).
pub const MAX_STATE_BYTES: usize = 512;
/// The bytes of a `traceparent` of version 00.
const PARENT_BYTES: usize = 55;
/// The flag that says that the span is recorded.
const SAMPLED: u8 = 1;

/// The id of a trace: 16 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(NonZeroU128);

/// The id of a span: 8 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// Of these bits; zero, which is no id, becomes one.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(NonZeroU128::new(bits).unwrap_or(NonZeroU128::MIN))
    }

    /// Its bits.
    #[must_use]
    pub fn bits(self) -> u128 {
        self.0.get()
    }
}

impl SpanId {
    /// Of these bits; zero, which is no id, becomes one.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// Its bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A `traceparent`: one span of one trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// The flags, as they came.
    pub flags: u8,
}

impl TraceParent {
    /// A span of ours.
    #[must_use]
    pub fn new(trace: TraceId, span: SpanId, sampled: bool) -> Self {
        Self { trace, span, flags: if sampled { SAMPLED } else { 0 } }
    }

    /// Reads one; none for text that is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let fields = bytes.get(..PARENT_BYTES)?;
        let lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let dash = |at: &usize| [2, 35, 52].contains(at);
        if !fields.iter().enumerate().all(|(at, byte)| if dash(&at) { *byte == b'-' } else { lower_hex(byte) }) {
            return None;
        }
        // A later version may say more behind another dash; version 00 may not.
        match (text.get(..2)?, bytes.get(PARENT_BYTES)) {
            ("ff", _) => return None,
            (_, None) => {}
            ("00", Some(_)) => return None,
            (_, Some(more)) if *more != b'-' => return None,
            _ => {}
        }
        Some(Self {
            trace: TraceId(NonZeroU128::new(u128::from_str_radix(text.get(3..35)?, 16).ok()?)?),
            span: SpanId(NonZeroU64::new(u64::from_str_radix(text.get(36..52)?, 16).ok()?)?),
            flags: u8::from_str_radix(text.get(53..55)?, 16).ok()?,
        })
    }

    /// Whether the span is recorded.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// A `traceparent` with the `tracestate` that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The span.
    pub parent: TraceParent,
    /// What others noted about it: printable ASCII, at most [`MAX_STATE_BYTES`].
    pub state: Option<String>,
}

impl TraceContext {
    /// Reads both. Without a `traceparent` that can be read there is none, and a `tracestate` that may not travel is dropped.
    #[must_use]
    pub fn parse(parent: Option<&str>, state: Option<&str>) -> Option<Self> {
        let parent = TraceParent::parse(parent?)?;
        Some(Self { parent, state: state.filter(|text| is_state(text)).map(str::to_owned) })
    }

    /// That of a record's sender, from its headers: for records without an envelope.
    #[must_use]
    pub fn of_headers<N: AsRef<str>, V: AsRef<[u8]>>(headers: &[(N, V)]) -> Option<Self> {
        Headers(headers).trace()
    }
}

impl From<TraceParent> for TraceContext {
    fn from(parent: TraceParent) -> Self {
        Self { parent, state: None }
    }
}

fn is_state(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_STATE_BYTES && text.bytes().all(|b| (0x20..=0x7e).contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_by_the_recommendation() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert_eq!((parent.span.bits(), parent.flags, parent.is_sampled()), (0x00f0_67aa_0ba9_02b7, 1, true));
        assert_eq!(parent.to_string(), GOOD);
        for bad in [
            String::new(),
            "00".to_owned(),
            GOOD[1..].to_owned(),
            format!("{GOOD}-00"),
            format!("{GOOD} "),
            GOOD.to_uppercase(),
            GOOD.replace('4', "x"),
            GOOD.replace('-', "_"),
            GOOD.replace("00-4", "+0-4"),
            GOOD.replace("00-4", "ff-4"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01".to_owned(),
        ] {
            assert_eq!(TraceParent::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_higher_version_is_read_by_the_fields_of_ours_and_written_in_ours() {
        for later in [GOOD.replace("00-4", "cc-4"), GOOD.replace("00-4", "01-4") + "-what.the-future"] {
            assert_eq!(TraceParent::parse(&later).map(|parent| parent.to_string()).as_deref(), Some(GOOD), "{later}");
        }
        assert_eq!(TraceParent::parse(&(GOOD.replace("00-4", "01-4") + ".future")), None);
    }

    #[test]
    fn a_state_travels_only_with_a_context_and_within_its_bound() {
        let state = |parent: &str, state: &str| TraceContext::parse(Some(parent), Some(state)).map(|it| it.state);
        assert_eq!(state(GOOD, "a=1,b=2"), Some(Some("a=1,b=2".to_owned())));
        assert_eq!(state(GOOD, &"x".repeat(512)), Some(Some("x".repeat(512))));
        for dropped in [String::new(), "x".repeat(513), "a=ä".to_owned(), "a=\n".to_owned()] {
            assert_eq!(state(GOOD, &dropped), Some(None), "{dropped}");
        }
        assert_eq!(state("no", "a=1"), None);
        assert_eq!(TraceContext::parse(None, Some("a=1")), None);
    }

    #[test]
    fn no_bits_are_no_id() {
        assert_eq!((TraceId::from_bits(0).bits(), SpanId::from_bits(0).bits()), (1, 1));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(trace in any::<u128>(), span in any::<u64>(), flags in any::<u8>()) {
            let parent = TraceParent { trace: TraceId::from_bits(trace), span: SpanId::from_bits(span), flags };
            prop_assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        }

        #[test]
        fn what_is_read_prints_the_same(text in "00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}") {
            if let Some(parent) = TraceParent::parse(&text) {
                prop_assert_eq!(parent.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,70}", parent in "[0-9a-f+-]{50,60}", state in ".{0,600}") {
            for text in [&text, &parent] {
                let read = TraceContext::parse(Some(text), Some(&state));
                prop_assert!(read.is_none_or(|read| read.state.is_none_or(|state| state.len() <= MAX_STATE_BYTES)));
            }
        }
    }
}
