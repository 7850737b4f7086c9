//! Lies about whole batches.

use model::FailureKind as K;
use serde_json::{Value, json};

use crate::case::{Case, End, Ends, Sent};

fn first(mut rule: Value) -> Value {
    rule["when"] = json!({"nth": 1});
    json!([rule])
}

/// Seconds that a job has whose batch is stuck for good.
fn deadline() -> Value {
    json!({"deadline_seconds": 5})
}

/// All rows are sent and paid again, as the retry table orders it for `missing`.
const AGAIN: Sent = Sent::Rows(&[&[0, 1, 2, 3], &[0, 1, 2, 3]]);

pub(crate) fn table() -> Vec<Case> {
    [stuck(), failed(), ended()].into_iter().flatten().collect()
}

fn stuck() -> Vec<Case> {
    let stuck = |status: &str, rest: Value| {
        let mut rule = json!({"fault": "batch_stuck", "status": status});
        rule.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        first(rule)
    };
    let for_a_while =
        |status: &str| Case::new(format!("a batch stays {status} for a while"), stuck(status, json!({"for_ms": 300})));
    let dead = |says| End::Failed(K::Deadline, says);
    vec![
        Case::new("a batch stays validating for good: cancelled at the deadline", stuck("validating", json!({})))
            .job(deadline())
            .ends(Ends::All(dead("")))
            .paid([0; 4]),
        Case::new(
            "a batch stays in_progress for good: at the deadline what was answered is kept",
            stuck("in_progress", json!({"percent": 50})),
        )
        .job(deadline())
        .ends(Ends::Some(2, dead("")))
        .paid_if_answered(),
        Case::new("a batch stays finalizing for good and can't be cancelled: given up", stuck("finalizing", json!({})))
            .job(deadline())
            .ends(Ends::All(dead("did not end the batch (status \"finalizing\")")))
            .paid([0; 4]),
        Case::new(
            "a batch has an unknown status for good: at the deadline what it has is taken",
            json!([{"fault": "unknown_status"}]),
        )
        .job(deadline()),
        for_a_while("validating"),
        for_a_while("in_progress"),
        for_a_while("finalizing"),
        Case::new("a batch has an unknown status for a while", json!([{"fault": "unknown_status", "looks": 5}])),
    ]
}

/// `failed` after a create that was answered with 200, by the codes that OpenAI and Azure document. Nothing ran.
fn failed() -> Vec<Case> {
    let again = [
        "token_limit_exceeded",
        "too_many_tasks",
        "invalid_json_line",
        "duplicate_custom_id",
        "empty_batch",
        "empty_file",
        "file_not_found",
        "nobody_knows_this",
    ];
    let final_ones = [
        "mismatched_model",
        "model_mismatch",
        "model_not_found",
        "invalid_url",
        "url_mismatch",
        "missing_required_parameter",
        "invalid_request",
        "streaming_unsupported",
    ];
    let mut cases: Vec<Case> = again
        .iter()
        .map(|code| {
            Case::new(
                format!("a batch fails as {code}: sent again"),
                first(json!({"fault": "batch_failed", "code": code, "line": 2})),
            )
        })
        .collect();
    cases.extend(final_ones.iter().map(|code| {
        Case::new(format!("a batch fails as {code}: final"), first(json!({"fault": "batch_failed", "code": code})))
            .refused(K::BatchRejected, "the provider failed the batch (")
    }));
    cases.push(
        Case::new(
            "each batch fails: final after its tries",
            json!([{"fault": "batch_failed", "code": "x", "line": 3}]),
        )
        .job(json!({"retry": {"batch_failed": 2}}))
        .refused(K::BatchFailed, "the provider failed the batch (x, line 3): The fault script wants it so."),
    );
    cases
}

fn ended() -> Vec<Case> {
    vec![
        Case::new(
            "a batch expires: paid rows are kept, the others sent again",
            first(json!({"fault": "batch_expired"})),
        )
        .sent(Sent::Counts(&[4, 2])),
        Case::new("a batch expires before any row ran", first(json!({"fault": "batch_expired", "percent": 0})))
            .sent(AGAIN),
        Case::new(
            "somebody cancels the batch at the provider: paid rows are kept, the others are not sent again",
            first(json!({"fault": "batch_cancelled"})),
        )
        .ends(Ends::Some(2, End::Failed(K::Cancelled, "batch_cancelled: This request was not executed")))
        .paid_if_answered(),
        Case::new("completed, with null file ids: missing, sent again", first(json!({"fault": "null_file_ids"})))
            .sent(AGAIN)
            .paid([2; 4]),
        Case::new("completed, with empty file ids: missing, sent again", first(json!({"fault": "empty_file_ids"})))
            .sent(AGAIN)
            .paid([2; 4]),
        Case::new(
            "completed, with an empty error file id only",
            first(json!({"fault": "empty_file_ids", "which": "error"})),
        ),
        Case::new("each batch completes without files: final after its tries", json!([{"fault": "null_file_ids"}]))
            .job(json!({"retry": {"missing": 1}}))
            .ends(Ends::All(End::Failed(K::Missing, "without a word on this row")))
            .sent(AGAIN)
            .paid([2; 4]),
        Case::new("completed is seen before the file ids", json!([{"fault": "file_ids_late", "looks": 4}])),
        Case::new("counts lie: nothing done", json!([{"fault": "counts_lie"}])),
        Case::new("the batch's usage lies", json!([{"fault": "usage_lies", "input_tokens": 1_000_000}])),
        Case::new(
            "counts lie: too much done",
            json!([{"fault": "counts_lie", "total": 9, "completed": 7, "failed": 5}]),
        ),
    ]
}
