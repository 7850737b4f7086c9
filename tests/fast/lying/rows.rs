//! Lies about rows. Each is told of row 1, in the first batch only unless it says otherwise.

use model::FailureKind as K;
use serde_json::{Value, json};

use crate::case::{Case, End, Ends, ONCE, Sent};

const ROW: usize = 1;
/// Only the row that was lied about is sent again.
const AGAIN: Sent = Sent::Rows(&[&[0, 1, 2, 3], &[ROW]]);

/// The lie, always.
fn always(mut rule: Value) -> Value {
    rule["rows"] = json!({"prompt": "row 1"});
    json!([rule])
}

/// The lie, in the first batch.
fn first(rule: Value) -> Value {
    let mut script = always(rule);
    script[0]["when"] = json!({"nth": 1});
    script
}

fn fault(name: &str) -> Value {
    json!({"fault": name})
}

fn error(status: u16, code: &str) -> Value {
    json!({"fault": "row_error", "status": status, "code": code})
}

fn but(kind: K, says: &'static str) -> Ends {
    Ends::But(ROW, End::Failed(kind, says))
}

pub(crate) fn table() -> Vec<Case> {
    [lines(), errors(), answers()].into_iter().flatten().collect()
}

fn lines() -> Vec<Case> {
    let paid_again = [1, 2, 1, 1];
    vec![
        Case::new("a line stands there twice", first(fault("row_duplicate"))),
        Case::new("an error and an answer for one row", first(json!({"fault": "row_duplicate", "error_first": true}))),
        Case::new("a line is missing: sent again", first(fault("row_missing"))).sent(AGAIN).paid(paid_again),
        Case::new("a line is missing each time: final after its tries", always(fault("row_missing")))
            .job(json!({"retry": {"missing": 1}}))
            .ends(but(K::Missing, "completed the batch without a word on this row"))
            .sent(AGAIN)
            .paid(paid_again),
        Case::new("a line has an unknown id: missing, sent again", first(fault("row_unknown_id")))
            .sent(AGAIN)
            .paid(paid_again),
        Case::new(
            "a line has the id of another attempt: missing, sent again",
            first(json!({"fault": "row_unknown_id", "custom_id": "ffffffffffffffff-1"})),
        )
        .sent(AGAIN)
        .paid(paid_again),
        Case::new("a stray line besides the right one", first(json!({"fault": "row_unknown_id", "keep": true}))),
        Case::new("half a line: sent again", first(fault("row_malformed"))).sent(AGAIN).paid(paid_again),
        Case::new("half a line each time: final after its tries", always(fault("row_malformed")))
            .job(json!({"retry": {"malformed": 0}}))
            .ends(but(K::Malformed, "the provider's result line can't be read")),
        Case::new(
            "a line of which nothing can be read: sent again",
            first(json!({"fault": "row_malformed", "keep_bytes": 7})),
        )
        .sent(AGAIN)
        .paid(paid_again),
        Case::new("a line of 20 MB: sent again", first(fault("row_long"))).sent(AGAIN).paid(paid_again),
        Case::new("a line of 20 MB each time: final after its tries", always(fault("row_long")))
            .job(json!({"retry": {"malformed": 0}}))
            .ends(but(K::Malformed, "too long to be read")),
        Case::new("a bare U+2028 in an answer", first(fault("row_separator")))
            .ends(Ends::But(ROW, End::As("row 1\u{2028}and on"))),
    ]
}

/// Error rows were not executed, so not paid.
fn errors() -> Vec<Case> {
    let again = |name: &str, rule: Value| Case::new(format!("{name}: sent again"), first(rule)).sent(AGAIN);
    let last = |name: &str, rule: Value, kind: K, says: &'static str| {
        Case::new(format!("{name}: final"), first(rule)).ends(but(kind, says)).sent(ONCE).paid([1, 0, 1, 1])
    };
    let with = |mut rule: Value, name: &str, value: Value| {
        rule[name] = value;
        rule
    };
    let beside = |code: &str| with(error(0, code), "shape", json!("no_response"));
    vec![
        again("an error row with 429", error(429, "rate_limit_exceeded")),
        again("an error row with 500", error(500, "server_error")),
        again("an error row with 503", error(503, "overloaded")),
        again("an error row with 504", error(504, "timeout")),
        again("an error row with 408", error(408, "x")),
        again("an error row with status 0 and no body", with(error(0, "x"), "shape", json!("status_zero"))),
        again("a row that expired", beside("batch_expired")),
        again("a row that took the provider too long", beside("request_timeout")),
        again("a row with an unknown error", beside("nobody_knows_this")),
        again("an error row with 500 in the output file", with(error(500, "server_error"), "output_file", json!(true))),
        again("an error row with 400 and content_filter", error(400, "content_filter")),
        last(
            "an error row with 400",
            error(400, "invalid_value"),
            K::InvalidRequest,
            "invalid_value: The fault script",
        ),
        last("an error row with 401", error(401, "invalid_api_key"), K::InvalidRequest, "invalid_api_key"),
        last("an error row with 404", error(404, "model_not_found"), K::InvalidRequest, "model_not_found"),
        last("an error row with 413", error(413, "x"), K::ContextTooLong, ""),
        last(
            "an error row with a context that is too long",
            error(400, "context_length_exceeded"),
            K::ContextTooLong,
            "",
        ),
        last("an error row with a bad image", error(400, "invalid_image_url"), K::InvalidImage, ""),
        last("a row that the provider cancelled", beside("batch_cancelled"), K::Cancelled, ""),
        last(
            "an error row with 400 in the output file",
            with(error(400, "invalid_value"), "output_file", json!(true)),
            K::InvalidRequest,
            "",
        ),
    ]
}

/// Answers that are none. They were executed, so paid.
fn answers() -> Vec<Case> {
    vec![
        Case::new("a refusal: sent again", first(fault("row_refused"))).sent(AGAIN).paid([1, 2, 1, 1]),
        Case::new("a refusal each time: final after two tries more", always(fault("row_refused")))
            .ends(but(K::Refused, "I can't help with that."))
            .sent(Sent::Rows(&[&[0, 1, 2, 3], &[ROW], &[ROW]]))
            .paid([1, 3, 1, 1]),
        Case::new("a content filter each time, with no tries", always(fault("row_filtered")))
            .job(json!({"retry": {"refused": 0}}))
            .ends(but(K::Refused, "content filter")),
        Case::new("an answer cut before it began", first(fault("row_truncated")))
            .ends(but(K::Truncated, "token limit")),
        Case::new("an answer cut short is an answer", first(json!({"fault": "row_truncated", "characters": 3})))
            .ends(Ends::But(ROW, End::As("row"))),
    ]
}
