//! Kafka headers of a `CloudEvents` message: their names when we write, and a forgiving look when we read.
//!
//! We write what the Kafka protocol binding of `CloudEvents` 1.0 says: `ce_` and the attribute's name in lower case, values as
//! UTF-8. We also read other letter cases, and `ce-`, which bridges from HTTP leave behind. Of several headers with one name the last
//! counts, as in Kafka's own `lastHeader`.

use crate::poison::Poison;
use crate::trace::TraceContext;

/// The header with the media type; it alone has no `ce_` before it.
pub(crate) const CONTENT_TYPE: &str = "content-type";

/// The headers of one record.
pub(crate) struct Headers<'a, N, V>(pub(crate) &'a [(N, V)]);

impl<'a, N: AsRef<str>, V: AsRef<[u8]>> Headers<'a, N, V> {
    /// The bytes of a plain header.
    fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().rev().find(|(n, _)| n.as_ref().eq_ignore_ascii_case(name)).map(|(_, value)| value.as_ref())
    }

    /// A plain header as text.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<&'a str>, Poison> {
        self.bytes(name).map(|bytes| utf8(name, bytes)).transpose()
    }

    /// A `CloudEvents` attribute as text.
    pub(crate) fn attribute(&self, name: &'static str) -> Result<Option<&'a str>, Poison> {
        let found =
            self.0.iter().rev().find(|(n, _)| attribute_name(n.as_ref()).is_some_and(|n| n.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| utf8(name, value.as_ref())).transpose()
    }

    /// The trace context of the record's sender. Headers that can't be read count as absent.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        let text = |name| self.text(name).ok().flatten();
        TraceContext::parse(text("traceparent"), text("tracestate"))
    }

    /// The trace context with which it all began, from the attributes.
    pub(crate) fn origin(&self) -> Option<TraceContext> {
        let text = |name| self.attribute(name).ok().flatten();
        TraceContext::parse(text("traceparent"), text("tracestate"))
    }

    /// Whether there is any `CloudEvents` attribute: then the record is in binary mode.
    pub(crate) fn has_attributes(&self) -> bool {
        self.0.iter().any(|(name, _)| attribute_name(name.as_ref()).is_some())
    }
}

/// The attribute's name behind `ce_` or `ce-`.
fn attribute_name(header: &str) -> Option<&str> {
    let (prefix, name) = (header.get(..3)?, header.get(3..)?);
    (prefix.eq_ignore_ascii_case("ce_") || prefix.eq_ignore_ascii_case("ce-")).then_some(name)
}

fn utf8<'a>(name: &'static str, bytes: &'a [u8]) -> Result<&'a str, Poison> {
    std::str::from_utf8(bytes).map_err(|_| Poison::InvalidAttribute { name, message: "it is not UTF-8".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_in_any_case_and_the_last_of_a_name_counts() {
        let list = [("CE_Id", "1"), ("ce-source", "/a"), ("Content-Type", "x"), ("ce_id", "2"), ("é_id", "3")];
        let headers = Headers(&list);
        assert_eq!(headers.attribute("id"), Ok(Some("2")));
        assert_eq!(headers.attribute("source"), Ok(Some("/a")));
        assert_eq!(headers.attribute("time"), Ok(None));
        assert_eq!(headers.text(CONTENT_TYPE), Ok(Some("x")));
        assert!(headers.has_attributes());
        assert!(!Headers(&list[2..3]).has_attributes());
    }
}
