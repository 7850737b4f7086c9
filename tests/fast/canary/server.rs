//! A server that repeats what must not be repeated: as a provider the key, in every error there is; as S3 the whole
//! request's credentials.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The server.
#[derive(Clone)]
pub(crate) struct Server {
    address: String,
    key: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How often each kind of call came.
    calls: HashMap<String, usize>,
    files: BTreeMap<String, Vec<u8>>,
    batches: BTreeMap<String, String>,
    repeated: String,
}

impl Server {
    pub(crate) async fn start(key: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Self { address, key, state: Arc::default() };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        server
    }

    pub(crate) fn provider(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn s3(&self) -> String {
        format!("http://{}/s3", self.address)
    }

    /// Whether this was in a reply.
    pub(crate) fn was_repeated(&self, text: &str) -> bool {
        self.state.lock().unwrap().repeated.contains(text)
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut request = Vec::new();
        let mut piece = vec![0; 64 << 10];
        let head = loop {
            if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(read) => request.extend_from_slice(&piece[..read]),
            }
        };
        let headers = String::from_utf8_lossy(&request[..head]).into_owned();
        let length = headers
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        while request.len() < head + length.unwrap_or(0) {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(read) => request.extend_from_slice(&piece[..read]),
            }
        }
        let (status, body) = self.reply(&headers, &request[head..]);
        self.state.lock().unwrap().repeated += &body;
        let reply = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(reply.as_bytes()).await;
    }

    fn reply(&self, headers: &str, body: &[u8]) -> (u16, String) {
        let mut words = headers.split_whitespace();
        let (method, path) =
            (words.next().unwrap_or_default(), words.next().unwrap_or_default().split('?').next().unwrap_or_default());
        if path.starts_with("/s3") {
            let error = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not match.</Message>\
                 <AWSAccessKeyId>{0}</AWSAccessKeyId><StringToSign>{0}</StringToSign></Error>",
                headers.replace(['<', '>'], " ")
            );
            return (403, error);
        }
        let words = format!(
            "Incorrect API key provided: {}. Sent: {}",
            self.key,
            headers.lines().filter(|line| line.to_ascii_lowercase().starts_with("authorization")).collect::<String>()
        );
        let shaped = json!({"error": {"message": words, "type": format!("type {}", self.key), "code": format!("code {}", self.key), "param": null}}).to_string();
        let mut state = self.state.lock().unwrap();
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let kind = format!("{method} {}", parts.first().unwrap_or(&""));
        let nth = {
            let calls =
                state.calls.entry(if parts.len() > 2 { format!("{kind} content") } else { kind.clone() }).or_default();
            *calls += 1;
            *calls
        };
        match (method, parts.as_slice()) {
            ("POST", ["files"]) => match nth {
                1 => (500, format!("<html>{words}</html>")),
                2 => (429, shaped),
                3 => (503, shaped),
                4 => (401, shaped),
                _ => {
                    let id = format!("file-{nth}");
                    let (bytes, created) = (body.len(), 1_800_000_000 + nth);
                    state.files.insert(id.clone(), body.to_vec());
                    (200, json!({"id": id, "object": "file", "bytes": bytes, "created_at": created, "filename": "x", "purpose": "batch"}).to_string())
                }
            },
            ("DELETE", ["files", id]) => {
                state.files.remove(*id);
                (200, json!({"id": id, "object": "file", "deleted": true}).to_string())
            }
            ("POST", ["batches"]) => match nth {
                1 => (502, shaped),
                2 => (401, shaped),
                3 => (429, shaped),
                4 => (400, shaped),
                _ => {
                    let asked: Value = serde_json::from_slice(body).unwrap();
                    let id = format!("batch_{nth}");
                    state.batches.insert(id.clone(), asked["input_file_id"].as_str().unwrap().to_owned());
                    (200, self.batch(&state, &id, "validating").to_string())
                }
            },
            ("GET", ["batches"]) if nth == 1 => (500, shaped),
            ("GET", ["batches"]) => {
                let all: Vec<Value> = state.batches.keys().map(|id| self.batch(&state, id, "in_progress")).collect();
                (200, json!({"object": "list", "data": all, "has_more": false}).to_string())
            }
            ("GET", ["batches", id]) => match nth {
                1 => (429, shaped),
                2 => (500, shaped),
                // The first batch fails as a whole, so its rows are tried again.
                _ if *id == "batch_5" => (200, self.batch(&state, id, "failed").to_string()),
                _ => (200, self.batch(&state, id, "completed").to_string()),
            },
            ("GET", ["files", _, "content"]) if nth == 1 => (503, shaped),
            ("GET", ["files", id, "content"]) => (200, self.lines(&state.files[id.trim_start_matches("out-")])),
            _ => (404, shaped),
        }
    }

    fn batch(&self, state: &State, id: &str, status: &str) -> Value {
        let file = &state.batches[id];
        let output = (status == "completed").then(|| format!("out-{file}"));
        let fault =
            json!({"code": self.key, "message": format!("the key {} may not", self.key), "line": null, "param": null});
        let errors = (status == "failed").then(|| json!({"object": "list", "data": [fault]}));
        json!({"id": id, "object": "batch", "endpoint": "/v1/chat/completions", "status": status, "input_file_id": file, "output_file_id": output,
            "error_file_id": null, "created_at": 1_800_000_100, "metadata": {}, "errors": errors, "completion_window": "24h"})
    }

    /// The result lines of an uploaded form: the first row fails with a message that repeats the key.
    fn lines(&self, form: &[u8]) -> String {
        let text = String::from_utf8_lossy(form);
        let requests = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["custom_id"].is_string());
        let line = |(row, request): (usize, Value)| {
            let (status, body) = match row {
                0 => (
                    400,
                    json!({"error": {"message": format!("the key {} may not", self.key), "type": "t", "code": self.key}}),
                ),
                _ => (
                    200,
                    json!({"model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}),
                ),
            };
            json!({"id": "r", "custom_id": request["custom_id"], "response": {"status_code": status, "request_id": "q", "body": body}, "error": null}).to_string() + "\n"
        };
        requests.enumerate().map(line).collect()
    }
}
