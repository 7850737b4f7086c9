//! The shapes that OpenAI's API has on the wire: error bodies, lists, page parameters, batch and file objects.
//!
//! Sources: OpenAI's API reference for Files and Batches, the types of the `openai` Python SDK, and published captures
//! of live replies. Everything a client sees is built here, so that the other modules speak of records, not of JSON.

use axum::{
    Json,
    extract::rejection::BytesRejection,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::records::{FileMeta, Record};

/// A batch may hold this many requests.
pub(crate) const MAX_ROWS: u64 = 50_000;
/// A batch's input may have this many bytes ("200 MB"; the service's own error text says 209,715,200).
pub(crate) const MAX_BATCH_BYTES: u64 = 209_715_200;
/// A single upload may have this many bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 512 * 1024 * 1024;
/// The completion window that exists, in seconds.
pub(crate) const WINDOW_SECONDS: u64 = 24 * 3600;
/// The endpoint whose requests the simulator can answer.
pub(crate) const ENDPOINT: &str = "/v1/chat/completions";

/// A refusal in OpenAI's error shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
}

impl ApiError {
    /// A 400: the request itself is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), param: None, code: None }
    }

    /// A 400 for a parameter that must be there and isn't.
    pub(crate) fn missing(param: &str) -> Self {
        Self::invalid(format!("Missing required parameter: '{param}'.")).param(param).code("missing_required_parameter")
    }

    /// A 404.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, ..Self::invalid(message) }
    }

    /// A 500. The cause goes to the log, not to the client.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!("request failed: {cause}");
        let message = "The server had an error while processing your request. The simulator's log says which.";
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, ..Self::invalid(message) }
    }

    pub(crate) fn param(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    pub(crate) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(crate) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The body, for a reply and for a row of an error file alike.
    pub(crate) fn body(&self) -> Value {
        let kind = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}

/// A reply's JSON, or a refusal.
pub(crate) type Reply = Result<Json<Value>, ApiError>;

/// The request body as a JSON object.
pub(crate) fn object(body: Result<Bytes, BytesRejection>) -> Result<serde_json::Map<String, Value>, ApiError> {
    let body = body.map_err(|rejection| ApiError::invalid(rejection.body_text()).status(rejection.status()))?;
    match serde_json::from_slice(&body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::invalid("The body of your request must be a JSON object.")),
        Err(error) => Err(ApiError::invalid(format!("We could not parse the JSON body of your request: {error}"))),
    }
}

/// What a listing asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    pub(crate) after: Option<String>,
    pub(crate) ascending: bool,
    pub(crate) purpose: Option<String>,
}

impl Page {
    /// Reads the query's parameters. Unknown ones are ignored, as OpenAI ignores them.
    pub(crate) fn parse(query: &[(String, String)], default: usize, most: usize) -> Result<Self, ApiError> {
        let mut page = Self { limit: default, after: None, ascending: false, purpose: None };
        for (key, value) in query {
            match key.as_str() {
                "limit" => page.limit = limit(value, most)?,
                "after" if !value.is_empty() => page.after = Some(value.clone()),
                "purpose" if !value.is_empty() => page.purpose = Some(value.clone()),
                "order" => match value.as_str() {
                    "asc" => page.ascending = true,
                    "desc" => page.ascending = false,
                    _ => {
                        let message = format!("Invalid value: '{value}'. Supported values are: 'asc' and 'desc'.");
                        return Err(ApiError::invalid(message).param("order").code("invalid_value"));
                    }
                },
                _ => {}
            }
        }
        Ok(page)
    }
}

fn limit(value: &str, most: usize) -> Result<usize, ApiError> {
    let refused = |message: String, code| Err(ApiError::invalid(message).param("limit").code(code));
    match value.parse::<i64>() {
        Err(_) => refused(format!("Invalid type for 'limit': expected an integer, but got '{value}'."), "invalid_type"),
        Ok(number) if number < 1 => {
            let message = format!("Invalid 'limit': expected a value >= 1, but got {number} instead.");
            refused(message, "integer_below_min_value")
        }
        Ok(number) => match usize::try_from(number) {
            Ok(number) if number <= most => Ok(number),
            _ => {
                let message = format!("Invalid 'limit': expected a value <= {most}, but got {number} instead.");
                refused(message, "integer_above_max_value")
            }
        },
    }
}

/// A list object. `data` must be the rendered items with their ids.
pub(crate) fn list(data: Vec<Value>, has_more: bool) -> Value {
    let id = |item: Option<&Value>| item.and_then(|item| item.get("id")).cloned().unwrap_or(Value::Null);
    let (first, last) = (id(data.first()), id(data.last()));
    json!({"object": "list", "data": data, "has_more": has_more, "first_id": first, "last_id": last})
}

/// A file as clients see it.
pub(crate) fn file(meta: &FileMeta) -> Value {
    json!({
        "id": meta.id, "object": "file", "bytes": meta.bytes, "created_at": meta.created_at,
        "expires_at": meta.expires_at, "filename": meta.filename, "purpose": meta.purpose,
        "status": "processed", "status_details": null,
    })
}

/// A batch as clients see it.
pub(crate) fn batch(record: &Record) -> Value {
    let errors = match record.errors.as_slice() {
        [] => Value::Null,
        _ if record.failed_at.is_none() => Value::Null,
        errors => json!({"object": "list", "data": errors}),
    };
    let usage = &record.usage;
    json!({
        "id": record.id, "object": "batch", "endpoint": record.endpoint, "model": record.model,
        "errors": errors, "input_file_id": record.input_file_id,
        "completion_window": "24h", "status": record.status,
        "output_file_id": record.output_file_id, "error_file_id": record.error_file_id,
        "created_at": record.created_at, "in_progress_at": record.in_progress_at,
        "expires_at": record.created_at + WINDOW_SECONDS, "finalizing_at": record.finalizing_at,
        "completed_at": record.completed_at, "failed_at": record.failed_at, "expired_at": record.expired_at,
        "cancelling_at": record.cancelling_at, "cancelled_at": record.cancelled_at,
        "request_counts": record.counts, "metadata": record.metadata,
        "usage": {
            "input_tokens": usage.input_tokens, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage.output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    })
}

/// A fault of a whole batch: an item of its `errors` list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    /// The input line, counted from 1; none for a fault of the file as a whole.
    pub(crate) line: Option<u64>,
}

/// Which part of a file a download asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// All of it: no range asked for, or one that a server may ignore (RFC 9110, section 14.2).
    Whole,
    /// These bytes, both ends inside.
    Part(u64, u64),
    /// Nothing of it is there: 416.
    Unsatisfiable,
}

impl Range {
    /// Reads a `Range` header for a file of `len` bytes. Several ranges at once are answered with the whole file.
    pub(crate) fn parse(headers: &axum::http::HeaderMap, len: u64) -> Self {
        let Some(value) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else { return Self::Whole };
        let Some((first, last)) = value.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Self::Whole;
        };
        match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
            (Ok(first), Ok(last)) if first > last => Self::Whole,
            (Ok(first), _) if first >= len && (last.trim().is_empty() || last.trim().parse::<u64>().is_ok()) => {
                Self::Unsatisfiable
            }
            (Ok(first), Ok(last)) => Self::Part(first, last.min(len - 1)),
            (Ok(first), Err(_)) if last.trim().is_empty() => Self::Part(first, len - 1),
            (Err(_), Ok(suffix)) if first.trim().is_empty() => {
                if suffix == 0 || len == 0 {
                    Self::Unsatisfiable
                } else {
                    Self::Part(len.saturating_sub(suffix), len - 1)
                }
            }
            _ => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(value: &'static str, len: u64) -> Range {
        let mut headers = axum::http::HeaderMap::new();
        headers.insert(header::RANGE, axum::http::HeaderValue::from_static(value));
        Range::parse(&headers, len)
    }

    #[test]
    fn ranges_follow_rfc_9110() {
        assert_eq!(range("bytes=0-4", 10), Range::Part(0, 4));
        assert_eq!(range("bytes=5-", 10), Range::Part(5, 9));
        assert_eq!(range("bytes=5-99", 10), Range::Part(5, 9));
        assert_eq!(range("bytes=-3", 10), Range::Part(7, 9));
        assert_eq!(range("bytes=-30", 10), Range::Part(0, 9));
        assert_eq!(range("bytes=10-", 10), Range::Unsatisfiable);
        assert_eq!(range("bytes=10-12", 10), Range::Unsatisfiable);
        assert_eq!(range("bytes=-0", 10), Range::Unsatisfiable);
        assert_eq!(range("bytes=0-", 0), Range::Unsatisfiable);
        for ignored in ["bytes=4-2", "bytes=0-1,3-4", "bytes=x-", "bytes=12-x", "lines=1-2", "bytes"] {
            assert_eq!(range(ignored, 10), Range::Whole, "{ignored}");
        }
    }

    #[test]
    fn a_limit_outside_its_bounds_is_refused() {
        let ask = |value: &str| Page::parse(&[("limit".into(), value.into())], 20, 100).map(|page| page.limit);
        assert_eq!(ask("1"), Ok(1));
        assert_eq!(ask("100"), Ok(100));
        for (wrong, code) in [
            ("0", "integer_below_min_value"),
            ("-1", "integer_below_min_value"),
            ("101", "integer_above_max_value"),
            ("ten", "invalid_type"),
        ] {
            assert_eq!(ask(wrong).unwrap_err().code, Some(code), "{wrong}");
        }
    }
}
