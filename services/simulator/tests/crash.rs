//! What a restart finds, after a stop and after SIGKILL.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{CHAT, Sim, rows, sim, sim_in};
use serde_json::{Value, json};
use simulator::Pace;

#[tokio::test]
async fn a_torn_last_line_is_cut_off_and_a_complete_one_is_a_batch() {
    let sim = sim(|config| config.pace = Pace::each(Duration::from_secs(3600))).await;
    let first = sim.submit(rows(2)).await;
    let Sim { running, folder, .. } = sim;
    running.stop().await;
    let path = folder.path().join("ledger.jsonl");
    let before = std::fs::read_to_string(&path).unwrap();
    let torn = before.replace(&first, "batch_torn");
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    file.write_all(torn.trim_end().as_bytes()).unwrap();
    let sim = sim_in(folder, |_| ()).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    let listed = sim.get("/batches").await.1;
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(sim.ended(&first).await["status"], "completed");
}

#[tokio::test]
async fn a_complete_line_without_a_record_still_runs_from_the_uploaded_file() {
    let sim = sim(|config| config.pace = Pace::each(Duration::from_secs(3600))).await;
    let id = sim.submit(rows(2)).await;
    let Sim { running, folder, .. } = sim;
    running.stop().await;
    for part in ["json", "input"] {
        std::fs::remove_file(folder.path().join(format!("batches/{id}.{part}"))).unwrap();
    }
    let sim = sim_in(folder, |_| ()).await;
    let batch = sim.ended(&id).await;
    assert_eq!((&batch["status"], &batch["metadata"]), (&"completed".into(), &json!({"job": "j"})));
    assert_eq!(batch["request_counts"]["completed"], 2);
}

#[tokio::test]
async fn ended_batches_and_their_results_survive_a_restart_unchanged() {
    let sim = sim(|_| ()).await;
    let id = sim.submit(rows(50)).await;
    let before = sim.ended(&id).await;
    let output = sim.results(&before["output_file_id"]).await;
    let sim = sim.restart(|_| ()).await;
    assert_eq!(sim.get(&format!("/batches/{id}")).await.1, before);
    assert_eq!(sim.results(&before["output_file_id"]).await, output);
}

#[tokio::test]
async fn a_cancel_that_was_answered_is_finished_after_a_restart() {
    let pace =
        Pace { in_progress: Duration::from_secs(7200), finalizing: Duration::from_secs(3600), ..Pace::default() };
    let sim = sim(|config| config.pace = pace).await;
    let id = sim.submit(rows(100)).await;
    sim.until(&id, |batch| batch["request_counts"]["completed"] == 5).await;
    sim.post(&format!("/batches/{id}/cancel"), &json!({})).await;
    let sim = sim.restart(|_| ()).await;
    let batch = sim.ended(&id).await;
    assert_eq!((&batch["status"], &batch["request_counts"]["completed"]), (&"cancelled".into(), &5.into()));
    assert_eq!(sim.results(&batch["output_file_id"]).await.len(), 5);
}

/// The simulator as a process of its own, ended by SIGKILL at the latest when the test ends.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(data: &Path, pace: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_simulator"))
            .args(["--listen", "127.0.0.1:0", "--pace", pace, "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if the process has already ended, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn accepted_batches_survive_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), "1h");
    let client = reqwest::Client::new();
    let form = reqwest::multipart::Form::new()
        .text("purpose", "batch")
        .part("file", reqwest::multipart::Part::text(rows(300)).file_name("a.jsonl"));
    let request = client.post(format!("{}/files", process.url)).multipart(form);
    let file: Value = request.send().await.unwrap().json().await.unwrap();
    let order = json!({"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"});
    let request = client.post(format!("{}/batches", process.url)).json(&order);
    let batch: Value = request.send().await.unwrap().json().await.unwrap();
    process.kill();
    assert_eq!(common::ledger(folder.path()).len(), 1);
    let sim = sim_in(folder, |_| ()).await;
    let ended = sim.ended(batch["id"].as_str().unwrap()).await;
    assert_eq!(ended["request_counts"], json!({"total": 300, "completed": 300, "failed": 0}));
    assert_eq!(ended["created_at"], batch["created_at"]);
    assert_eq!(sim.ledger().len(), 1);
}

#[test]
fn a_second_process_on_the_same_folder_ends_with_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let first = Process::start(folder.path(), "0");
    let second = Command::new(env!("CARGO_BIN_EXE_simulator"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another process"));
    first.kill();
}
