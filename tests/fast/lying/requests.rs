//! Lies about requests.

use std::time::Duration;

use model::FailureKind;
use serde_json::{Value, json};

use crate::case::{Case, Sent};

/// The fault at its n-th occasion only.
fn nth(nth: u64, mut rule: Value) -> Value {
    rule["when"] = json!({"nth": nth});
    rule
}

fn fault(name: &str) -> Value {
    json!({"fault": name})
}

fn late(after_ms: u64) -> Value {
    nth(1, json!({"fault": "create_late", "after_ms": after_ms}))
}

/// The same file twice: what the promise rests on is broken, and it shows.
const TWICE: Sent = Sent::Rows(&[&[0, 1, 2, 3], &[0, 1, 2, 3]]);

pub(crate) fn table() -> Vec<Case> {
    [creates(), files(), downloads()].into_iter().flatten().collect()
}

fn creates() -> Vec<Case> {
    use FailureKind::BatchRejected;
    let dropped = || nth(1, fault("create_dropped_after"));
    let impatient = Duration::from_secs(1);
    vec![
        Case::new("a create is dropped before it is accepted", json!([nth(1, fault("create_dropped_before"))])),
        Case::new("a create is dropped after it was accepted: adopted", json!([dropped()])),
        Case::new("a create fails with 500 and is not accepted", json!([nth(1, fault("create_failed"))])),
        Case::new(
            "a create fails with 503 and was accepted: adopted",
            json!([nth(1, fault("create_failed_accepted"))]),
        ),
        Case::new(
            "a create is refused for good",
            json!([{"fault": "create_failed", "status": 400, "code": "invalid_request"}]),
        )
        .refused(BatchRejected, "the provider refused the batch (400 invalid_request)"),
        Case::new(
            "a create is limited, with a wait",
            json!([nth(1, json!({"fault": "create_limited", "retry_after": 0.05}))]),
        ),
        Case::new("creates are limited, without a wait", json!([{"fault": "create_limited", "when": {"first": 3}}])),
        Case::new("a create is accepted just after its client gave up", json!([late(1_200)])).patience(impatient),
        Case::new("a create arrives after its file was deleted: refused", json!([late(4_000)])).patience(impatient),
        Case::new(
            "the list lacks an accepted batch once: the second list has it",
            json!([dropped(), nth(1, json!({"fault": "list_lags", "lists": 1}))]),
        ),
        Case::new(
            "NOT COVERED: the list lacks an accepted batch for long",
            json!([dropped(), nth(1, json!({"fault": "list_lags", "lists": 1_000_000}))]),
        )
        .sent(TWICE)
        .paid([2; 4]),
        Case::new(
            "NOT COVERED: a delete is answered with 404, the file is still there, and a late create is accepted for it",
            json!([late(12_000), nth(1, json!({"fault": "delete_not_found", "done": false}))]),
        )
        .patience(impatient)
        .sent(TWICE)
        .paid([2; 4]),
        Case::new(
            "a page of the list fails while a create is in doubt",
            json!([dropped(), nth(1, fault("request_fails"))]),
        ),
        Case::new(
            "the list is limited while a create is in doubt",
            json!([dropped(), {"fault": "request_fails", "status": 429, "retry_after": 0.05, "when": {"first": 2}}]),
        ),
    ]
}

fn files() -> Vec<Case> {
    let lost = || nth(1, fault("create_dropped_before"));
    let download =
        |status: u16| json!([{"fault": "request_fails", "on": "download", "status": status, "when": {"first": 2}}]);
    vec![
        Case::new("an upload is refused for good", json!([fault("upload_refused")]))
            .refused(FailureKind::BatchRejected, "the provider refused the batch (400 invalid_file_format)"),
        Case::new("an upload fails with 503", json!([nth(1, json!({"fault": "upload_refused", "status": 503}))])),
        Case::new("an upload is limited", json!([nth(1, json!({"fault": "upload_refused", "status": 429}))])),
        Case::new("an upload is dropped at once", json!([nth(1, fault("upload_dropped"))])),
        Case::new(
            "an upload is dropped on its way",
            json!([nth(1, json!({"fault": "upload_dropped", "after_bytes": 300}))]),
        ),
        Case::new("a file is not there just after its upload", json!([nth(1, fault("file_not_found"))])),
        Case::new("a delete is answered with 500 but done", json!([lost(), nth(1, fault("delete_failed"))])),
        Case::new("a delete is answered with 404 but done", json!([lost(), nth(1, fault("delete_not_found"))])),
        Case::new("a result file is not there for a while", download(404)),
        Case::new("a result file can't be read for a while", download(502)),
        Case::new(
            "a batch can't be looked at for a while",
            json!([{"fault": "request_fails", "on": "get_batch", "status": 500, "when": {"first": 4}}]),
        ),
        Case::new("a batch is not there just after its create", json!([{"fault": "batch_not_found", "requests": 3}])),
    ]
}

fn downloads() -> Vec<Case> {
    let cut = |end: &str, length: &str| json!([{"fault": "download_cut", "after_bytes": 500, "end": end, "content_length": length, "when": {"first": 3}}]);
    vec![
        Case::new("downloads are cut in a line, three times", cut("broken", "right")),
        Case::new("downloads without a length are cut", cut("broken", "absent")),
        Case::new("downloads end early as if that were all, without a length", cut("clean", "absent")),
        Case::new("downloads end early with the length of the piece", cut("clean", "wrong")),
        Case::new("downloads are cut and promise more than there is", cut("broken", "wrong")),
        Case::new(
            "a download is cut, and the server ignores ranges",
            json!([nth(1, json!({"fault": "download_cut", "after_bytes": 500})), {"fault": "range_ignored"}]),
        ),
    ]
}
