//! Lies on purpose, over real HTTP: what clients see, what the ledger and `billed.jsonl` say, and how often a rule fired.
#![allow(clippy::unwrap_used)]

mod common;

use common::{CHAT, Sim, lines, rows, sim};
use reqwest::header::RANGE;
use serde_json::{Value, json};
use simulator::Config;

fn script(rules: Value) -> impl FnOnce(&mut Config) {
    move |config| config.faults = rules.try_into().unwrap()
}

fn fired(sim: &Sim) -> Vec<u64> {
    let shown = sim.running.simulator().faults();
    shown["rules"].as_array().unwrap().iter().map(|rule| rule["fired"].as_u64().unwrap()).collect()
}

fn billed(sim: &Sim) -> Vec<(String, usize)> {
    let text = std::fs::read_to_string(sim.folder.path().join("billed.jsonl")).unwrap_or_default();
    let line = |line: &Value| (line["status"].as_str().unwrap().to_owned(), line["rows"].as_array().unwrap().len());
    lines(&text).iter().map(line).collect()
}

/// Asks for a batch; none if there is no answer.
async fn try_create(sim: &Sim, file: &str) -> Option<u16> {
    let order = json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"});
    let sent = sim.client.post(sim.url("/batches")).json(&order).send().await;
    sent.ok().map(|response| response.status().as_u16())
}

#[tokio::test]
async fn creates_are_dropped_refused_and_delayed_and_the_ledger_has_those_that_were_accepted() {
    let nth = |fault: &str, nth: u64| json!({"fault": fault, "when": {"nth": nth}});
    let sim = sim(script(json!([
        nth("create_dropped_before", 1),
        nth("create_dropped_after", 2),
        nth("create_failed", 3),
        nth("create_failed_accepted", 4),
        {"fault": "create_limited", "retry_after": 0.5, "when": {"nth": 5}},
        {"fault": "create_late", "after_ms": 100, "when": {"nth": 6}},
    ])))
    .await;
    let file = sim.upload(rows(2)).await;
    let mut answers = Vec::new();
    for _ in 0..7 {
        answers.push((try_create(&sim, &file).await, sim.ledger().len()));
    }
    let expected =
        [(None, 0), (None, 1), (Some(500), 1), (Some(503), 2), (Some(429), 2), (Some(200), 3), (Some(200), 4)];
    assert_eq!(answers, expected);
    assert_eq!(fired(&sim), [1; 6]);
}

#[tokio::test]
async fn a_create_that_comes_late_is_accepted_though_its_client_has_gone() {
    let sim = sim(script(json!([{"fault": "create_late", "after_ms": 300}]))).await;
    let file = sim.upload(rows(1)).await;
    let order = json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"});
    let patience = std::time::Duration::from_millis(50);
    let sent = sim.client.post(sim.url("/batches")).timeout(patience).json(&order).send().await;
    assert!(sent.unwrap_err().is_timeout());
    assert_eq!(sim.ledger().len(), 0);
    let mut changes = sim.running.simulator().changes();
    while sim.ledger().is_empty() {
        changes.changed().await.unwrap();
    }
}

#[tokio::test]
async fn only_rows_that_were_executed_are_billed() {
    for (rules, status, counts, errors) in [
        (json!([{"fault": "batch_expired", "percent": 25}]), "expired", 1, 3),
        (json!([{"fault": "batch_cancelled", "percent": 50}]), "cancelled", 2, 2),
        (json!([{"fault": "row_error", "rows": {"nth": [1, 3]}}]), "completed", 2, 2),
        (json!([{"fault": "row_missing", "rows": {"prompt": "prompt 2"}}]), "completed", 4, 0),
        (json!([{"fault": "batch_failed"}]), "failed", 0, 0),
    ] {
        let sim = sim(script(rules)).await;
        let id = sim.submit(rows(4)).await;
        let ended =
            |batch: &Value| !["validating", "in_progress", "finalizing"].contains(&batch["status"].as_str().unwrap());
        let batch = sim.until(&id, |batch| ended(batch) && batch["status"] != "cancelling").await;
        assert_eq!(batch["status"], status);
        assert_eq!(billed(&sim), [(status.to_owned(), counts)], "{batch}");
        assert_eq!(sim.results(&batch["error_file_id"]).await.len(), errors);
        assert!(fired(&sim)[0] > 0);
    }
}

#[tokio::test]
async fn a_fate_outlives_a_restart() {
    let sim = sim(script(json!([{"fault": "batch_stuck", "percent": 50}, {"fault": "counts_lie", "total": 9}]))).await;
    let id = sim.submit(rows(4)).await;
    let batch = sim.until(&id, |batch| batch["status"] == "in_progress").await;
    assert_eq!(batch["request_counts"]["total"], 9);
    let sim = sim.restart(|_| ()).await;
    let batch = sim.until(&id, |batch| batch["usage"]["output_tokens"].as_u64() > Some(0)).await;
    assert_eq!(batch["status"], "in_progress");
    sim.post(&format!("/batches/{id}/cancel"), &json!({})).await;
    sim.ended(&id).await;
    assert_eq!(billed(&sim), [("cancelled".to_owned(), 2)]);
}

#[tokio::test]
async fn downloads_are_cut_and_ranges_ignored() {
    let sim = sim(script(json!([
        {"fault": "download_cut", "after_bytes": 100, "when": {"nth": 1}},
        {"fault": "download_cut", "after_bytes": 100, "content_length": "absent", "end": "clean", "when": {"nth": 2}},
        {"fault": "download_cut", "after_bytes": 100, "content_length": "wrong", "end": "clean", "when": {"nth": 3}},
        {"fault": "download_cut", "after_bytes": 100, "content_length": "wrong", "when": {"nth": 4}},
        {"fault": "range_ignored", "when": {"nth": 5}},
    ])))
    .await;
    let batch = sim.ended(&sim.submit(rows(4)).await).await;
    let url = sim.url(&format!("/files/{}/content", batch["output_file_id"].as_str().unwrap()));
    let get = async || sim.client.get(&url).header(RANGE, "bytes=0-").send().await.unwrap();
    let broken = get().await;
    assert!(broken.content_length().unwrap() > 100 && broken.bytes().await.is_err());
    let absent = get().await;
    assert_eq!((absent.content_length(), absent.bytes().await.unwrap().len()), (None, 100));
    let short = get().await;
    assert_eq!((short.content_length(), short.bytes().await.unwrap().len()), (Some(100), 100));
    assert!(get().await.bytes().await.is_err());
    let whole = get().await;
    assert_eq!(whole.status(), 200);
    let whole = whole.bytes().await.unwrap();
    assert_eq!(lines(std::str::from_utf8(&whole).unwrap()).len(), 4);
}

#[tokio::test]
async fn a_script_is_replaced_shown_and_cleared_by_whoever_has_a_key() {
    let sim = sim(|config| config.api_keys = vec!["right".to_owned()]).await;
    let url = sim.running.url.replace("/v1", "/faults");
    let put = async |key: &str, body: &'static str| {
        let sent = sim.client.put(&url).bearer_auth(key).body(body).send().await.unwrap();
        (sent.status().as_u16(), sent.json::<Value>().await.unwrap())
    };
    assert_eq!(put("wrong", "[]").await.0, 401);
    let (status, refusal) = put("right", r#"[{"fault":"list_lag"}]"#).await;
    assert_eq!(status, 400);
    assert!(refusal["error"]["message"].as_str().unwrap().contains("rule 1 (list_lag)"), "{refusal}");
    let rule = r#"[{"fault":"request_fails","on":"list_batches","status":502,"when":{"nth":1}}]"#;
    assert_eq!(put("right", rule).await.0, 200);
    let list =
        async || sim.client.get(sim.url("/batches")).bearer_auth("right").send().await.unwrap().status().as_u16();
    assert_eq!((list().await, list().await), (502, 200));
    let shown: Value = sim.client.get(&url).bearer_auth("right").send().await.unwrap().json().await.unwrap();
    assert_eq!((&shown["rules"][0]["seen"], &shown["rules"][0]["fired"]), (&json!(2), &json!(1)));
    assert_eq!(shown["rules"][0]["rule"]["status"], 502);
    assert_eq!(sim.client.delete(&url).bearer_auth("right").send().await.unwrap().status(), 200);
    assert_eq!(sim.running.simulator().faults(), json!({"rules": []}));
}

#[tokio::test]
async fn files_and_batches_are_not_there_for_a_while() {
    let sim = sim(script(json!([
        {"fault": "file_not_found", "requests": 2},
        {"fault": "batch_not_found", "requests": 1},
        {"fault": "list_lags", "lists": 2},
        {"fault": "delete_not_found", "done": false, "when": {"nth": 1}},
        {"fault": "delete_failed"},
    ])))
    .await;
    let file = sim.upload(rows(1)).await;
    assert_eq!(sim.get(&format!("/files/{file}")).await.0, 404);
    assert_eq!(try_create(&sim, &file).await, Some(400));
    let (_, batch) = sim.create(&file).await;
    let path = format!("/batches/{}", batch["id"].as_str().unwrap());
    assert_eq!((sim.get(&path).await.0.as_u16(), sim.get(&path).await.0.as_u16()), (404, 200));
    let mut listed = Vec::new();
    for _ in 0..3 {
        listed.push(sim.get("/batches").await.1["data"].as_array().unwrap().len());
    }
    assert_eq!(listed, [0, 0, 1]);
    let path = format!("/files/{file}");
    assert_eq!((sim.delete(&path).await.0.as_u16(), sim.get(&path).await.0.as_u16()), (404, 200));
    assert_eq!((sim.delete(&path).await.0.as_u16(), sim.get(&path).await.0.as_u16()), (500, 404));
}
