//! Lines of a batch's output and error files.
//!
//! A line is `{"id","custom_id","response":{"status_code","request_id","body"},"error"}`. Three shapes say that a row
//! failed: an `error` object without a response (the row never ran: `batch_expired`, `batch_cancelled`, `request_timeout`), a
//! response with a status that is no success and an error in its body, and a response with status 0 or no body at all. A
//! success can still be a refusal, cut, or empty.
//!
//! Everything beside the row's id and its answer may be missing or of another type. A line that JSON does not allow
//! because of half a surrogate pair or a broken UTF-8 sequence is mended (the broken character becomes U+FFFD): the answer
//! is paid for.
//!
//! Lines are read in two ways. The [`usual`] one is read by hand, at a third of the cost; whatever is odd about a line, this
//! module decides with serde.

mod find;
mod pattern;
mod scan;
mod skip;
mod usual;

use std::borrow::Cow;
use std::fmt;

use model::{FailureKind, Tokens};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::errors::{ErrorBody, MAX_MESSAGE_CHARS, shortened};
use super::lenient::{List, Loose, LooseList, LooseObject, Text};
use super::wire::Usage;
use crate::provider::{Answer, BadLine, Outcome};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Line<'a> {
    #[serde(default)]
    custom_id: Text<'a>,
    #[serde(default)]
    response: LooseObject<'a, Response<'a>>,
    #[serde(default)]
    error: LooseObject<'a, ErrorBody<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Response<'a> {
    #[serde(default)]
    status_code: Text<'a>,
    #[serde(default)]
    body: LooseObject<'a, Body<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Body<'a> {
    #[serde(default)]
    model: Text<'a>,
    #[serde(default)]
    choices: LooseList<'a, LooseObject<'a, Choice<'a>>>,
    #[serde(default)]
    usage: LooseObject<'a, Usage<'a>>,
    #[serde(default)]
    error: LooseObject<'a, ErrorBody<'a>>,
    #[serde(default)]
    message: Text<'a>,
    #[serde(default)]
    detail: Text<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Choice<'a> {
    #[serde(default)]
    finish_reason: Text<'a>,
    #[serde(default)]
    message: LooseObject<'a, Message<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Message<'a> {
    #[serde(default)]
    content: Loose<'a, List<LooseObject<'a, Part<'a>>>>,
    #[serde(default)]
    refusal: Text<'a>,
    #[serde(default, borrow)]
    tool_calls: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Part<'a> {
    #[serde(default)]
    text: Text<'a>,
}

/// The custom id of a result line; `None` if it has none that can be read. It reads no further than the id, so a line that
/// breaks off behind it still tells its row.
#[must_use]
pub fn line_id(line: &[u8]) -> Option<Cow<'_, str>> {
    let mut found = None;
    // The visitor stops with an error once it has what it wants.
    let _ = serde_json::Deserializer::from_slice(line).deserialize_map(IdVisitor(&mut found));
    found
}

struct IdVisitor<'f, 'l>(&'f mut Option<Cow<'l, str>>);

impl<'l> Visitor<'l> for IdVisitor<'_, 'l> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a result line")
    }

    fn visit_map<A: MapAccess<'l>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Text<'l>>()? {
            if key.text() != Some("custom_id") {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if let Text::Text(id) = map.next_value()? {
                *self.0 = Some(id);
            }
            return Err(serde::de::Error::custom("found"));
        }
        Ok(())
    }
}

/// Decodes a line of an output or error file, without its line end.
///
/// # Errors
/// The line is no JSON object, or has no custom id.
pub fn decode_line(line: &[u8]) -> Result<Answer<'_>, BadLine> {
    usual::decode(line).map_or_else(|| decode_odd_line(line), Ok)
}

/// [`decode_line`] for any line, odd or usual: the two read a usual line alike. Public for the tests and benches that
/// compare them.
///
/// # Errors
/// The line is no JSON object, or has no custom id.
pub fn decode_odd_line(line: &[u8]) -> Result<Answer<'static>, BadLine> {
    let error = match decode(line) {
        Ok(answer) => return answer,
        Err(error) => error,
    };
    match mended(line).map(|line| decode(&line)) {
        Some(Ok(answer)) => answer,
        _ => Err(BadLine {
            custom_id: line_id(line).map(Cow::into_owned),
            message: format!("not JSON as documented, at column {} of {}", error.column(), line.len()),
        }),
    }
}

fn decode(line: &[u8]) -> Result<Result<Answer<'static>, BadLine>, serde_json::Error> {
    let line: Line<'_> = serde_json::from_slice(line)?;
    let Some(custom_id) = line.custom_id.text() else {
        return Ok(Err(BadLine { custom_id: None, message: "it has no custom_id".to_owned() }));
    };
    Ok(Ok(Answer { custom_id: Cow::Owned(custom_id.to_owned()), outcome: outcome(&line) }))
}

fn outcome(line: &Line<'_>) -> Outcome<'static> {
    let response = line.response.object();
    let status = response.and_then(|response| response.status_code.number()).unwrap_or(0);
    let body = response.and_then(|response| response.body.object());
    // A provider that gives bodies without a status means success by it.
    let answered =
        body.filter(|body| (200..300).contains(&status) || (status == 0 && !body.choices.items().is_empty()));
    if let (Some(body), None) = (answered, line.error.object()) {
        return answer(body);
    }
    let own = line.error.object();
    let inner = body.and_then(|body| body.error.object());
    let code = own.and_then(ErrorBody::code).or_else(|| inner.and_then(ErrorBody::code));
    let message = [
        own.and_then(|error| error.message.filled()),
        line.error.as_message(),
        inner.and_then(|error| error.message.filled()),
        body.and_then(|body| {
            body.error.as_message().or_else(|| body.message.filled()).or_else(|| body.detail.filled())
        }),
        response.and_then(|response| response.body.as_message()),
    ];
    let message = message.into_iter().flatten().next().unwrap_or_default();
    let reason = Reason {
        status,
        code: code.unwrap_or_default(),
        inner: inner.map_or("", |error| error.kind.text().unwrap_or_default()),
        message,
    };
    let tokens = body.and_then(|body| body.usage.object()).map(Usage::tokens);
    failed(reason.kind(), &reason.text(), body.and_then(|body| body.model.filled()), tokens)
}

/// A failed row as the provider describes it.
struct Reason<'a> {
    status: i64,
    code: &'a str,
    /// The error's type, which says more than the code for some servers.
    inner: &'a str,
    message: &'a str,
}

impl Reason<'_> {
    fn kind(&self) -> FailureKind {
        use FailureKind as K;
        let has = |word: &str| self.code.contains(word) || self.inner.contains(word);
        let says = |words: &str| self.message.to_ascii_lowercase().contains(words);
        match self.code {
            "batch_expired" => return K::Expired,
            "batch_cancelled" | "batch_canceled" => return K::Cancelled,
            "request_timeout" | "timeout" => return K::Timeout,
            _ => {}
        }
        match self.status {
            408 | 504 => K::Timeout,
            429 => K::RateLimited,
            0 | 500..=599 if has("rate_limit") => K::RateLimited,
            500..=599 => K::ServerError,
            413 => K::ContextTooLong,
            0 | 400..=499
                if has("context_length") || has("string_above_max_length") || says("maximum context length") =>
            {
                K::ContextTooLong
            }
            0 | 400..=499 if has("content_filter") || has("content_policy") || has("ResponsibleAIPolicyViolation") => {
                K::Refused
            }
            0 | 400..=499 if has("image") => K::InvalidImage,
            0 if has("invalid_request") || has("client_error") => K::InvalidRequest,
            400..=499 => K::InvalidRequest,
            // Status 0, no body, a redirect, a code that nobody knows: the provider failed, and may have billed.
            _ => K::ServerError,
        }
    }

    fn text(&self) -> String {
        let status = if self.status == 0 { "no response".to_owned() } else { format!("HTTP {}", self.status) };
        match (self.code, self.message) {
            ("", "") => format!("{status}, without an error"),
            ("", message) => format!("{status}: {message}"),
            (code, "") => format!("{code} ({status})"),
            (code, message) => format!("{code}: {message}"),
        }
    }
}

fn answer(body: &Body<'_>) -> Outcome<'static> {
    let model = body.model.filled();
    let tokens = body.usage.object().map(Usage::tokens);
    let Some(choice) = body.choices.items().iter().find_map(Loose::object) else {
        return failed(FailureKind::Malformed, "the response has no choices", model, tokens);
    };
    let finish_reason = choice.finish_reason.filled();
    let message = choice.message.object();
    let refusal = message.and_then(|message| message.refusal.filled());
    let said = message.and_then(content);
    if finish_reason == Some("content_filter") {
        return failed(
            FailureKind::Refused,
            refusal.unwrap_or("the provider's content filter stopped the answer"),
            model,
            tokens,
        );
    }
    let has_text = said.as_deref().is_some_and(|text| !text.is_empty());
    if let (Some(refusal), false) = (refusal, has_text) {
        return failed(FailureKind::Refused, refusal, model, tokens);
    }
    let calls = message
        .and_then(|message| message.tool_calls)
        .map(RawValue::get)
        .filter(|calls| calls.len() > 2 && calls.starts_with('['));
    let response = match (said, calls) {
        (Some(text), None) => text,
        (Some(text), Some(_)) if has_text => text,
        (_, Some(calls)) => calls.to_owned(),
        (None, None) if finish_reason == Some("length") => {
            return failed(
                FailureKind::Truncated,
                "the token limit was reached before the answer began",
                model,
                tokens,
            );
        }
        (None, None) => return failed(FailureKind::Malformed, "the response has no content", model, tokens),
    };
    if response.is_empty() && finish_reason == Some("length") {
        return failed(FailureKind::Truncated, "the token limit was reached before the answer began", model, tokens);
    }
    Outcome::Answered {
        response: Cow::Owned(response),
        finish_reason: owned(finish_reason),
        model: owned(model),
        tokens,
    }
}

fn owned(text: Option<&str>) -> Option<Cow<'static, str>> {
    text.map(|text| Cow::Owned(text.to_owned()))
}

/// What the model said; parts are joined.
fn content(message: &Message<'_>) -> Option<String> {
    match &message.content {
        Loose::None => None,
        Loose::Text(text) => Some(text.as_ref().to_owned()),
        Loose::Value(parts) => Some(parts.0.iter().filter_map(|part| part.object()?.text.text()).collect()),
    }
}

fn failed(kind: FailureKind, message: &str, model: Option<&str>, tokens: Option<Tokens>) -> Outcome<'static> {
    Outcome::Failed { kind, message: shortened(message, MAX_MESSAGE_CHARS).into(), model: owned(model), tokens }
}

/// The line with half surrogate pairs (`\ud83d` alone) and broken UTF-8 replaced; `None` if it has neither.
fn mended(line: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(line);
    let mut changed = matches!(text, Cow::Owned(_));
    let mut bytes = text.into_owned().into_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        match (surrogate(&bytes[at..]), bytes.get(at + 6..).and_then(surrogate)) {
            (None, _) => at += 2,
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(_), _) => {
                bytes[at + 2..at + 6].copy_from_slice(b"fffd");
                changed = true;
                at += 6;
            }
        }
    }
    changed.then_some(bytes)
}

/// The half of a surrogate pair that an escape at the start of these bytes stands for.
fn surrogate(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    let unit = u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (0xd800..=0xdfff).contains(&unit).then_some(unit)
}

#[cfg(test)]
mod alike;
#[cfg(test)]
mod tests;
