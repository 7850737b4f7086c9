//! The Batches endpoints over real HTTP.
#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{CHAT, error, row, rows, sim};
use serde_json::{Value, json};
use simulator::Pace;

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["custom_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_batch_walks_to_completed_with_every_row_answered_once() {
    let sim = sim(|_| ()).await;
    let bad = row("bad", "echo", "x").replace("\"messages\"", "\"temperature\":\"hot\",\"messages\"");
    let id = sim.submit(rows(500) + &bad).await;
    let batch = sim.ended(&id).await;
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(batch["request_counts"], json!({"total": 501, "completed": 500, "failed": 1}));
    assert_eq!(
        (&batch["endpoint"], &batch["model"], &batch["metadata"]),
        (&CHAT.into(), &"echo".into(), &json!({"job": "j"}))
    );
    let time = |name: &str| batch[name].as_u64().unwrap();
    assert!(time("created_at") <= time("in_progress_at") && time("in_progress_at") <= time("finalizing_at"));
    assert!(time("finalizing_at") <= time("completed_at"));
    assert_eq!(time("expires_at"), time("created_at") + 86_400);
    for name in ["errors", "failed_at", "expired_at", "cancelling_at", "cancelled_at"] {
        assert!(batch[name].is_null(), "{name}");
    }

    let output = sim.results(&batch["output_file_id"]).await;
    let order = ids(&output);
    assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 500);
    let asked: Vec<String> = (0..500).map(|id| format!("row-{id}")).collect();
    assert_ne!(order, asked, "rows come back shuffled");
    let mut tokens = (0, 0);
    for row in &output {
        let response = &row["response"];
        let body = &response["body"];
        let number = row["custom_id"].as_str().unwrap().strip_prefix("row-").unwrap();
        assert_eq!(response["status_code"], 200);
        assert_eq!(body["choices"][0]["message"]["content"], format!("prompt {number}"));
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        tokens.0 += body["usage"]["prompt_tokens"].as_u64().unwrap();
        tokens.1 += body["usage"]["completion_tokens"].as_u64().unwrap();
    }
    let usage = &batch["usage"];
    assert_eq!((usage["input_tokens"].as_u64(), usage["output_tokens"].as_u64()), (Some(tokens.0), Some(tokens.1)));
    assert_eq!(usage["total_tokens"], tokens.0 + tokens.1);

    let errors = sim.results(&batch["error_file_id"]).await;
    assert_eq!(ids(&errors), ["bad"]);
    assert_eq!((&errors[0]["response"]["status_code"], &errors[0]["error"]), (&400.into(), &Value::Null));
    assert_eq!(error(&errors[0]["response"]["body"]).1, Some("temperature"));
    let outputs = sim.get("/files?purpose=batch_output").await.1;
    assert_eq!(outputs["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_ledger_names_every_row_and_the_hash_of_its_prompt() {
    let sim = sim(|_| ()).await;
    let file = sim.upload(rows(3)).await;
    let (_, batch) = sim.create(&file).await;
    let ledger = sim.ledger();
    assert_eq!(ledger.len(), 1, "the line is there when the reply is");
    assert_eq!(
        (&ledger[0]["batch"], &ledger[0]["file"], &ledger[0]["at"]),
        (&batch["id"], &file.into(), &batch["created_at"])
    );
    assert_eq!(ledger[0]["metadata"], json!({"job": "j"}));
    assert_eq!(ids(ledger[0]["rows"].as_array().unwrap()), ["row-0", "row-1", "row-2"]);
    // The digest model gives the same hash, computed on another path.
    let digest = sim.submit(row("d", "digest", "prompt 1")).await;
    let output = sim.results(&sim.ended(&digest).await["output_file_id"]).await;
    assert_eq!(
        output[0]["response"]["body"]["choices"][0]["message"]["content"],
        ledger[0]["rows"][1]["prompt_sha256"]
    );
}

#[tokio::test]
async fn a_bad_input_fails_the_batch_later_and_is_not_paid() {
    let sim = sim(|config| config.pace = Pace { validating: Duration::from_secs(3600), ..Pace::default() }).await;
    let held = sim.submit(rows(1) + "{\n").await;
    let batch = sim.get(&format!("/batches/{held}")).await.1;
    assert_eq!(
        (&batch["status"], &batch["errors"]),
        (&"validating".into(), &Value::Null),
        "the fault shows only later"
    );
    let sim = sim.restart(|_| ()).await;
    sim.ended(&held).await;
    for (input, code, line) in [
        (rows(1) + "{\n", "invalid_json_line", json!(2)),
        (rows(1) + &rows(1), "duplicate_custom_id", json!(2)),
        (rows(1) + &row("x", "digest", "y"), "mismatched_model", json!(2)),
        (row("x", "gpt-4o", "y"), "model_not_found", json!(1)),
        (rows(2).replace("/v1/chat/completions", "/v1/embeddings"), "invalid_url", json!(1)),
        (String::new(), "empty_file", Value::Null),
        (rows(50_001), "too_many_tasks", Value::Null),
    ] {
        let id = sim.submit(input).await;
        let batch = sim.ended(&id).await;
        assert_eq!(batch["status"], "failed");
        assert!(batch["failed_at"].is_u64());
        assert_eq!(batch["errors"]["object"], "list");
        let fault = &batch["errors"]["data"][0];
        assert_eq!((&fault["code"], &fault["line"]), (&code.into(), &line), "{fault}");
        assert!(fault["message"].is_string());
        assert!(batch["output_file_id"].is_null() && batch["error_file_id"].is_null());
    }
    assert_eq!(sim.ledger(), Vec::<Value>::new());
    let sim = sim.restart(|_| ()).await;
    let listed = sim.get("/batches?limit=100").await.1;
    assert_eq!(listed["data"].as_array().unwrap().len(), 8, "failed batches stay listed");
}

#[tokio::test]
async fn a_create_is_checked_before_anything_else() {
    let sim = sim(|_| ()).await;
    let file = sim.upload(rows(1)).await;
    let good = json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"});
    let with = |key: &str, value: Value| {
        let mut order = good.clone();
        order[key] = value;
        order
    };
    let many: serde_json::Map<_, _> = (0..17).map(|key| (key.to_string(), "v".into())).collect();
    for (order, param) in [
        (json!({}), "input_file_id"),
        (with("endpoint", "/v1/embeddings".into()), "endpoint"),
        (with("completion_window", "1h".into()), "completion_window"),
        (with("input_file_id", 7.into()), "input_file_id"),
        (with("input_file_id", "file-none".into()), "file_id"),
        (with("metadata", many.into()), "metadata"),
        (with("metadata", json!({"k": "v".repeat(513)})), "metadata"),
        (with("metadata", json!({"k".repeat(65): "v"})), "metadata"),
        (with("metadata", json!({"k": 1})), "metadata"),
        (with("output_expires_after", json!({"anchor": "now", "seconds": 3600})), "output_expires_after.anchor"),
        (with("priority", 1.into()), "priority"),
    ] {
        let (status, body) = sim.post("/batches", &order).await;
        assert_eq!((status.as_u16(), error(&body).1), (400, Some(param)), "{order}: {body}");
    }
    let reply = sim.client.post(sim.url("/batches")).body("{").send().await.unwrap();
    assert_eq!(reply.status(), 400);
    assert_eq!(sim.ledger(), Vec::<Value>::new());
    let (status, batch) = sim.post("/batches", &with("metadata", json!({"ключ".repeat(16): "é".repeat(512)}))).await;
    assert_eq!(status, 200, "limits count characters: {batch}");
}

#[tokio::test]
async fn batches_are_listed_newest_first() {
    let sim = sim(|_| ()).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, sim.submit(rows(1)).await);
    }
    let page = async |query: &str| {
        let list = sim.get(&format!("/batches?{query}")).await.1;
        let ids: Vec<_> =
            list["data"].as_array().unwrap().iter().map(|batch| batch["id"].as_str().unwrap().to_owned()).collect();
        (ids, list["has_more"].as_bool().unwrap())
    };
    assert_eq!(page("").await, (made.clone(), false));
    assert_eq!(page("limit=2").await, (made[..2].to_vec(), true));
    assert_eq!(page(&format!("limit=3&after={}", made[1])).await, (made[2..].to_vec(), false));
    for query in ["limit=0", "limit=101", "limit=x", "after=batch_none"] {
        assert_eq!(sim.get(&format!("/batches?{query}")).await.0, 400, "{query}");
    }
    assert_eq!(sim.get("/batches/batch_none").await.0, 404);
    assert_eq!(sim.post("/batches/batch_none/cancel", &json!({})).await.0, 404);
}

#[tokio::test]
async fn a_cancel_midway_keeps_the_rows_that_are_done() {
    let pace = Pace { in_progress: Duration::from_secs(7200), ..Pace::default() };
    let sim = sim(|config| config.pace = pace).await;
    let id = sim.submit(rows(100)).await;
    let midway = sim.until(&id, |batch| batch["request_counts"]["completed"] == 5).await;
    assert_eq!(midway["status"], "in_progress");
    let (status, cancelled) = sim.post(&format!("/batches/{id}/cancel"), &json!({})).await;
    assert_eq!((status.as_u16(), &cancelled["status"]), (200, &"cancelling".into()));
    let batch = sim.ended(&id).await;
    assert_eq!(batch["status"], "cancelled");
    assert!(batch["cancelling_at"].as_u64().unwrap() <= batch["cancelled_at"].as_u64().unwrap());
    assert_eq!(batch["request_counts"], json!({"total": 100, "completed": 5, "failed": 0}));
    let output = sim.results(&batch["output_file_id"]).await;
    let errors = sim.results(&batch["error_file_id"]).await;
    assert_eq!((output.len(), errors.len()), (5, 95));
    assert!(errors.iter().all(|row| row["error"]["code"] == "batch_cancelled" && row["response"].is_null()));
    let all: BTreeSet<_> = ids(&output).into_iter().chain(ids(&errors)).collect();
    assert_eq!(all.len(), 100);
    let (status, body) = sim.post(&format!("/batches/{id}/cancel"), &json!({})).await;
    assert_eq!(status, 409);
    assert!(error(&body).0.contains("'cancelled'"));
}

#[tokio::test]
async fn a_deleted_file_fences_creates_and_stops_no_accepted_batch() {
    let pace = Pace { validating: Duration::from_secs(3600), ..Pace::default() };
    let sim = sim(|config| config.pace = pace).await;
    let file = sim.upload(rows(10)).await;
    let (_, first) = sim.create(&file).await;
    assert_eq!(sim.delete(&format!("/files/{file}")).await.0, 200);
    let (status, body) = sim.create(&file).await;
    assert_eq!((status.as_u16(), error(&body).1), (400, Some("file_id")));
    assert_eq!(sim.ledger().len(), 1);
    let listed = sim.get("/batches").await.1;
    assert_eq!(listed["data"][0]["input_file_id"], file);
    let sim = sim.restart(|_| ()).await;
    assert_eq!(sim.create(&file).await.0, 400, "after a restart too");
    let batch = sim.ended(first["id"].as_str().unwrap()).await;
    assert_eq!(batch["request_counts"], json!({"total": 10, "completed": 10, "failed": 0}));
}

#[tokio::test]
async fn creates_that_race_with_a_delete_are_refused_or_listable() {
    let sim = sim(|config| config.pace = Pace::each(Duration::from_secs(3600))).await;
    for _ in 0..10 {
        let file = sim.upload(rows(200)).await;
        let path = format!("/files/{file}");
        // Whatever the delete's answer comes before, what it sees in the listing is all there will ever be.
        let fence = async {
            assert_eq!(sim.delete(&path).await.0, 200);
            sim.get("/batches?limit=100").await.1
        };
        let (one, two, three, seen) = tokio::join!(sim.create(&file), sim.create(&file), sim.create(&file), fence);
        let accepted: BTreeSet<_> = [one, two, three]
            .iter()
            .filter(|(status, _)| *status == 200)
            .map(|(_, batch)| batch["id"].to_string())
            .collect();
        let of_file = |list: &Value, field: &str, id: &str| -> BTreeSet<_> {
            let all = list.as_array().unwrap().iter();
            all.filter(|item| item[field] == file).map(|item| item[id].to_string()).collect()
        };
        assert_eq!(of_file(&seen["data"], "input_file_id", "id"), accepted);
        assert_eq!(of_file(&Value::Array(sim.ledger()), "file", "batch"), accepted);
    }
}

#[tokio::test]
async fn late_file_errors_answer_200_and_fail_afterwards() {
    let sim = sim(|config| config.late_file_errors = true).await;
    let file = sim.upload(rows(1)).await;
    sim.delete(&format!("/files/{file}")).await;
    let (status, batch) = sim.create(&file).await;
    assert_eq!(status, 200);
    let batch = sim.ended(batch["id"].as_str().unwrap()).await;
    assert_eq!((&batch["status"], &batch["errors"]["data"][0]["code"]), (&"failed".into(), &"file_not_found".into()));
    assert_eq!(sim.ledger(), Vec::<Value>::new());
}

#[tokio::test]
async fn a_file_of_another_purpose_is_no_input() {
    let sim = sim(|_| ()).await;
    let id = sim.submit(rows(1)).await;
    let output = sim.ended(&id).await["output_file_id"].as_str().unwrap().to_owned();
    let (status, body) = sim.create(&output).await;
    assert_eq!((status.as_u16(), error(&body).1), (400, Some("input_file_id")));
}
