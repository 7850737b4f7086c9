//! A client for the tests: just enough of OpenAI's protocol, and waiting without polling.
#![allow(dead_code, unreachable_pub, missing_docs)]

use reqwest::{Client, Response, StatusCode, multipart};
use serde_json::{Value, json};
use simulator::{Config, Running};

pub const CHAT: &str = "/v1/chat/completions";

/// A running simulator and a client for it.
pub struct Sim {
    pub running: Running,
    pub client: Client,
    pub folder: tempfile::TempDir,
}

pub async fn sim(change: impl FnOnce(&mut Config)) -> Sim {
    sim_in(tempfile::tempdir().unwrap(), change).await
}

pub async fn sim_in(folder: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Sim {
    let mut config = Config::new(folder.path());
    change(&mut config);
    Sim { running: simulator::start(config).await.unwrap(), client: Client::new(), folder }
}

/// One request line.
pub fn row(id: &str, model: &str, prompt: &str) -> String {
    let body = json!({"model": model, "messages": [{"role": "user", "content": prompt}]});
    json!({"custom_id": id, "method": "POST", "url": CHAT, "body": body}).to_string()
}

/// An input of that many good rows.
pub fn rows(count: usize) -> String {
    (0..count).map(|id| row(&format!("row-{id}"), "echo", &format!("prompt {id}")) + "\n").collect()
}

pub fn lines(text: &str) -> Vec<Value> {
    text.split_terminator('\n').map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Sim {
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.url)
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.client.post(self.url(path)).json(body).send().await.unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> (StatusCode, Value) {
        answer(self.client.delete(self.url(path)).send().await.unwrap()).await
    }

    pub async fn text(&self, path: &str) -> String {
        self.client.get(self.url(path)).send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
    }

    pub async fn form(&self, form: multipart::Form) -> (StatusCode, Value) {
        answer(self.client.post(self.url("/files")).multipart(form).send().await.unwrap()).await
    }

    /// Uploads a batch input; gives the file's id.
    pub async fn upload(&self, content: impl Into<String>) -> String {
        let part = multipart::Part::text(content.into()).file_name("input.jsonl");
        let (status, file) = self.form(multipart::Form::new().text("purpose", "batch").part("file", part)).await;
        assert_eq!(status, 200, "{file}");
        file["id"].as_str().unwrap().to_owned()
    }

    pub async fn create(&self, file: &str) -> (StatusCode, Value) {
        let order =
            json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "metadata": {"job": "j"}});
        self.post("/batches", &order).await
    }

    /// Uploads and creates; gives the batch's id.
    pub async fn submit(&self, content: impl Into<String>) -> String {
        let (status, batch) = self.create(&self.upload(content).await).await;
        assert_eq!((status.as_u16(), batch["status"].as_str()), (200, Some("validating")), "{batch}");
        batch["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the batch is as asked for.
    pub async fn until(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut changes = self.running.simulator().changes();
        loop {
            changes.mark_unchanged();
            let batch = self.get(&format!("/batches/{id}")).await.1;
            if wanted(&batch) {
                return batch;
            }
            changes.changed().await.unwrap();
        }
    }

    pub async fn ended(&self, id: &str) -> Value {
        self.until(id, |batch| ["completed", "failed", "cancelled"].contains(&batch["status"].as_str().unwrap())).await
    }

    /// The rows of a result file; none if the batch has no such file.
    pub async fn results(&self, id: &Value) -> Vec<Value> {
        match id.as_str() {
            Some(id) => lines(&self.text(&format!("/files/{id}/content")).await),
            None => Vec::new(),
        }
    }

    pub fn ledger(&self) -> Vec<Value> {
        ledger(self.folder.path())
    }

    /// Stops this simulator and starts another on the same folder.
    pub async fn restart(self, change: impl FnOnce(&mut Config)) -> Self {
        self.running.stop().await;
        sim_in(self.folder, change).await
    }
}

pub fn ledger(folder: &std::path::Path) -> Vec<Value> {
    lines(&std::fs::read_to_string(folder.join("ledger.jsonl")).unwrap())
}

async fn answer(response: Response) -> (StatusCode, Value) {
    (response.status(), response.json().await.unwrap())
}

/// The message, param and code of an error body.
pub fn error(body: &Value) -> (&str, Option<&str>, Option<&str>) {
    let error = &body["error"];
    assert!(error["type"].is_string(), "{body}");
    (error["message"].as_str().unwrap(), error["param"].as_str(), error["code"].as_str())
}
