//! Error replies: what they say, and what the caller does about them.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use serde::Deserialize;

use super::lenient::{Loose, LooseObject, Text};
use crate::provider::Error;

/// The most characters of a provider's message that are kept.
pub const MAX_MESSAGE_CHARS: usize = 1_000;
/// The longest wait that a provider may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// `{"message", "type", "param", "code"}`.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct ErrorBody<'a> {
    #[serde(default)]
    pub(super) message: Text<'a>,
    #[serde(default, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default)]
    pub(super) code: Text<'a>,
}

impl ErrorBody<'_> {
    /// The code, or the type where there is no code.
    pub(super) fn code(&self) -> Option<&str> {
        self.code.filled().or_else(|| self.kind.filled())
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Envelope<'a> {
    #[serde(default)]
    error: LooseObject<'a, ErrorBody<'a>>,
}

/// An error in the provider's own shape, `{"error":{"message":…}}`: proof that the provider itself answered, and not
/// something between it and us.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: String,
    pub(super) message: String,
}

/// Reads a body in the provider's error shape; `None` for any other.
pub(super) fn refused(body: &[u8]) -> Option<Refused> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    let error = envelope.error.object()?;
    let message = error.message.filled()?;
    Some(Refused { code: error.code().unwrap_or("error").to_owned(), message: shortened(message, MAX_MESSAGE_CHARS) })
}

/// What a reply that is no success means for a call that may be made again.
pub(super) fn error_of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let refused = refused(body);
    let own_words = refused.is_some();
    let retry_after = retry_after(headers);
    let Refused { code, message } = refused.unwrap_or_else(|| Refused {
        code: "no_error_body".to_owned(),
        message: "no error in the provider's shape".to_owned(),
    });
    match status.as_u16() {
        429 => Error::RateLimited { message, retry_after },
        401 | 403 => Error::Auth { status: status.as_u16(), message },
        404 if own_words => Error::NotFound { message },
        // Something on the way answered, or the address is wrong: no word about what was asked for.
        404 | 408 | 425 | 500..=599 => {
            Error::Retry { what: format!("HTTP {}: {message}", status.as_u16()), retry_after }
        }
        status @ 400..=499 => Error::Rejected { status, code, message },
        status => Error::Retry { what: format!("unexpected HTTP {status}"), retry_after },
    }
}

/// How long the provider asks to be left alone. A date is measured by the reply's own `Date`: no clock of ours is asked.
/// (RFC 9110, 10.2.3; `retry-after-ms` is OpenAI's.)
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text =
        |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok()).map(|text| text.trim().to_owned());
    if let Some(milliseconds) = text(headers.get("retry-after-ms")).and_then(|text| text.parse::<f64>().ok()) {
        return bounded(milliseconds / 1_000.0);
    }
    let after = text(headers.get(RETRY_AFTER))?;
    if let Ok(seconds) = after.parse::<f64>() {
        return bounded(seconds);
    }
    let date = |text: &str| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    let seconds = date(&after)?.as_second() - date(&text(headers.get(DATE))?)?.as_second();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(MAX_RETRY_AFTER))
}

fn bounded(seconds: f64) -> Option<Duration> {
    seconds.is_finite().then(|| Duration::from_secs_f64(seconds.clamp(0.0, MAX_RETRY_AFTER.as_secs_f64())))
}

/// Cuts a text to so many characters.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A network failure without the address, which may be signed.
pub(super) fn network(error: reqwest::Error) -> String {
    use std::error::Error as _;
    let what = match (error.is_timeout(), error.is_connect(), error.is_body() || error.is_decode()) {
        (_, true, _) => "can't connect to the provider",
        (true, ..) => "the provider took too long",
        (.., true) => "the reply broke off",
        _ => "the connection failed",
    };
    let error = error.without_url();
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    match cause {
        Some(cause) => format!("{what} ({})", shortened(&cause.to_string(), 200)),
        None => what.to_owned(),
    }
}

impl<T> Loose<'_, T> {
    /// A text that stands where an object was expected, as a message.
    pub(super) fn as_message(&self) -> Option<&str> {
        self.text().filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn retry_after_is_seconds_milliseconds_or_a_date() {
        let seconds =
            |pairs: &[(&'static str, &'static str)]| retry_after(&headers(pairs)).map(|wait| wait.as_secs_f64());
        assert_eq!(seconds(&[("retry-after", "7")]), Some(7.0));
        assert_eq!(seconds(&[("retry-after", "0.5")]), Some(0.5));
        assert_eq!(seconds(&[("retry-after-ms", "250"), ("retry-after", "7")]), Some(0.25));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(seconds(&[("retry-after", date), ("date", "Sun, 06 Nov 1994 08:49:07 GMT")]), Some(30.0));
        assert_eq!(seconds(&[("retry-after", date), ("date", "Sun, 06 Nov 1994 09:49:07 GMT")]), Some(0.0));
        assert_eq!(seconds(&[("retry-after", "999999999")]), Some(86_400.0));
        for nothing in [&[][..], &[("retry-after", "soon")], &[("retry-after", date)], &[("retry-after", "NaN")]] {
            assert_eq!(seconds(nothing), None, "{nothing:?}");
        }
        assert_eq!(seconds(&[("retry-after", "-3")]), Some(0.0));
    }

    #[test]
    fn only_the_providers_own_shape_is_a_refusal() {
        let body = br#"{"error":{"message":"No such File object: file-1","type":"invalid_request_error","param":"id","code":null}}"#;
        let expected =
            Refused { code: "invalid_request_error".to_owned(), message: "No such File object: file-1".to_owned() };
        assert_eq!(refused(body), Some(expected));
        assert_eq!(refused(br#"{"error":{"message":"m","code":42}}"#).unwrap().code, "42");
        for other in [
            &b""[..],
            b"<html>Bad Gateway</html>",
            b"{}",
            b"null",
            b"[]",
            br#"{"detail":"Not Found"}"#,
            br#"{"error":"busy"}"#,
            br#"{"error":null}"#,
            br#"{"error":{}}"#,
            br#"{"error":[]}"#,
            br#"{"error":{"message":""}}"#,
            br#"{"error":{"message":{"a":1}}}"#,
            br#"{"error":{"message":"m"#,
        ] {
            assert_eq!(refused(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn a_status_says_what_to_do() {
        let shaped = br#"{"error":{"message":"m","type":"t","code":"c"}}"#;
        let of = |status: u16, body: &[u8]| error_of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body);
        assert!(matches!(of(429, shaped), Error::RateLimited { .. }));
        assert!(matches!(of(401, b""), Error::Auth { status: 401, .. }));
        assert!(matches!(of(403, shaped), Error::Auth { status: 403, .. }));
        assert!(matches!(of(404, shaped), Error::NotFound { .. }));
        assert!(matches!(of(400, shaped), Error::Rejected { status: 400, code, .. } if code == "c"));
        for status in [404, 408, 425, 500, 502, 503, 504, 529, 302] {
            assert!(of(status, b"").is_transient(), "{status}");
        }
        assert!(!of(400, b"").is_transient() && !of(401, b"").is_transient() && of(429, b"").is_transient());
    }
}
