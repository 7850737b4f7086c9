//! A provider of class B in memory: it answers by a script, and keeps a ledger of what was paid.
//!
//! Wire formats are the real ones: requests are encoded, and lines decoded, by the OpenAI provider.

mod usage;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use model::Tokens;
use model::spec::Request;
use providers::{
    Answer, BadLine, BatchStatus, ByteStream, Class, CreateOutcome, Deleted, Download, Encode, EncodeError, Error,
    FileEntry, FilePage, Limits, Page, PollSchedule, Provider, ProviderBatch, ProviderSettings, Result, UploadedFile,
};
use serde_json::{Value, json};

pub use usage::UsageScript;

/// What a row of a batch gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// This answer.
    Answer(String),
    /// A line in the error file with this HTTP status.
    Status(u16),
    /// A line in the error file with this code, for a row that did not run.
    NotRun(&'static str),
    /// A success with this body, whatever it says.
    Body(Value),
    /// No line at all.
    Nothing,
}

/// What a create gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCreate {
    /// Accepted, and so answered.
    #[default]
    Accept,
    /// Accepted, but the reply is lost.
    AcceptAndLose,
    /// Not accepted, and the reply is lost.
    Lose,
    /// Refused with 429 in the provider's error shape.
    RateLimit,
}

/// Decides a row's reply from its batch (counted from 0 in the order of creation) and its prompt.
pub type RowScript = Box<dyn Fn(usize, &str) -> Reply + Send + Sync>;
/// Decides what a create gets, by how many creates came before it.
pub type CreateScript = Box<dyn Fn(usize) -> OnCreate + Send + Sync>;

/// The provider.
pub struct ScriptedProvider {
    format: Arc<dyn Provider>,
    rows: RowScript,
    creates: CreateScript,
    usage: UsageScript,
    status: BatchStatus,
    slow: usize,
    looks: usize,
    done_when_cancelled: Option<usize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    uploaded: usize,
    creates: usize,
    batches: Vec<ProviderBatch>,
    paid: Vec<String>,
    asked: usize,
    listed: usize,
    cancelled: BTreeSet<String>,
    /// How often each batch was shown.
    shown: BTreeMap<String, usize>,
    /// The names of uploads, by file.
    names: BTreeMap<String, String>,
}

impl std::fmt::Debug for ScriptedProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedProvider").finish_non_exhaustive()
    }
}

impl ScriptedProvider {
    /// A provider whose rows reply by this script and whose creates are all accepted.
    ///
    /// # Panics
    /// Never: the OpenAI format is always there.
    #[must_use]
    pub fn new(rows: RowScript) -> Self {
        let settings = ProviderSettings::simulator("http://127.0.0.1:1/v1");
        #[allow(clippy::expect_used)] // a test's own set-up
        let format = providers::open("scripted", &settings).expect("the settings are sound");
        let creates: CreateScript = Box::new(|_| OnCreate::Accept);
        Self {
            format,
            rows,
            creates,
            usage: Box::new(|_, truth| Some(truth)),
            status: BatchStatus::Completed,
            slow: 0,
            looks: 0,
            done_when_cancelled: None,
            state: Mutex::default(),
        }
    }

    /// A provider that echoes each prompt.
    #[must_use]
    pub fn echo() -> Self {
        Self::new(Box::new(|_, prompt| Reply::Answer(prompt.to_owned())))
    }

    /// The same with this script for creates.
    #[must_use]
    pub fn with_creates(self, creates: CreateScript) -> Self {
        Self { creates, ..self }
    }

    /// The same whose batches say of their usage what this script makes of the truth.
    #[must_use]
    pub fn with_usage(self, usage: UsageScript) -> Self {
        Self { usage, ..self }
    }

    /// The same with this final status for every batch.
    #[must_use]
    pub fn ending_as(self, status: BatchStatus) -> Self {
        Self { status, ..self }
    }

    /// The same whose batches all run until it was asked so often, about one or by a list.
    #[must_use]
    pub fn slow(self, questions: usize) -> Self {
        Self { slow: questions, ..self }
    }

    /// The same of which each batch runs until it was shown so often.
    #[must_use]
    pub fn shown_running(self, looks: usize) -> Self {
        Self { looks, ..self }
    }

    /// The same whose batches can be cancelled while they run, and then have run so many of their rows.
    #[must_use]
    pub fn cancellable(self, done: usize) -> Self {
        Self { done_when_cancelled: Some(done), ..self }
    }

    /// How many batches were cancelled.
    #[must_use]
    pub fn cancelled(&self) -> usize {
        self.state().cancelled.len()
    }

    /// Ends a running batch with its first rows done: the others were not paid.
    fn cut_short(&self, state: &mut State, number: usize, done: usize) {
        let batch = state.batches[number].clone();
        let rows = |file: &Option<String>| -> Vec<Vec<u8>> {
            let content = file.as_ref().and_then(|id| state.files.get(id)).cloned().unwrap_or_default();
            content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
        };
        for line in rows(&batch.input_file).iter().skip(done) {
            let not_run = prompt_of(line);
            if let Some(at) = state.paid.iter().position(|paid| *paid == not_run) {
                state.paid.remove(at);
            }
        }
        // The last row is the first line.
        let kept: Vec<u8> =
            rows(&batch.output_file).iter().rev().take(done).flat_map(|l| [l, &b"\n"[..]].concat()).collect();
        let name = format!("file-partial-{number}");
        let output_file = (!kept.is_empty()).then(|| name.clone());
        state.files.insert(name, kept);
        state.cancelled.insert(batch.id.clone());
        let (status, raw_status) = (BatchStatus::Cancelled, "cancelled".to_owned());
        state.batches[number] =
            ProviderBatch { status, raw_status, output_file, error_file: None, usage: None, ..batch };
    }

    /// How many files there are.
    #[must_use]
    pub fn files(&self) -> usize {
        self.state().files.len()
    }

    /// Puts a file of this name, as somebody else did.
    pub fn plant(&self, name: &str) {
        let mut state = self.state();
        let id = format!("file-planted-{}", state.names.len());
        state.names.insert(id.clone(), name.to_owned());
        state.files.insert(id, Vec::new());
    }

    /// How often it was asked about one batch, and for a list.
    #[must_use]
    pub fn questions(&self) -> (usize, usize) {
        let state = self.state();
        (state.asked, state.listed)
    }

    /// A batch as it is shown: still running while the provider is slow.
    fn shown(&self, state: &State, batch: &ProviderBatch) -> ProviderBatch {
        let looked = state.shown.get(&batch.id).copied().unwrap_or_default();
        if (state.asked + state.listed > self.slow && looked > self.looks) || state.cancelled.contains(&batch.id) {
            return batch.clone();
        }
        let raw_status = "in_progress".to_owned();
        let (output_file, error_file) = (None, None);
        ProviderBatch { status: BatchStatus::Running, raw_status, output_file, error_file, ..batch.clone() }
    }

    /// The prompts of all accepted creates, in order: what was paid.
    #[must_use]
    pub fn paid(&self) -> Vec<String> {
        self.state().paid.clone()
    }

    /// How many batches there are.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.state().batches.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a batch at once: its files are there before anyone asks.
    fn accept(&self, state: &mut State, file: &str, metadata: &BTreeMap<String, String>) -> ProviderBatch {
        let number = state.batches.len();
        let (mut output, mut errors, mut used) = (Vec::new(), Vec::new(), Tokens::default());
        let input = state.files.get(file).cloned().unwrap_or_default();
        // The last row first: nobody may rely on the order.
        for line in input.split(|byte| *byte == b'\n').rev().filter(|line| !line.is_empty()) {
            let request: Value = serde_json::from_slice(line).unwrap_or_default();
            let prompt = prompt_of(line);
            state.paid.push(prompt.clone());
            let reply = (self.rows)(number, &prompt);
            if let Some(line) = line_of(&request["custom_id"], &reply) {
                used += usage::of_line(&line);
                let file = if matches!(reply, Reply::Answer(_)) { &mut output } else { &mut errors };
                file.extend_from_slice(line.to_string().as_bytes());
                file.push(b'\n');
            }
        }
        let mut keep = |name: &str, content: Vec<u8>| {
            let id = format!("file-{name}-{number}");
            (!content.is_empty()).then(|| state.files.insert(id.clone(), content)).map(|_| id)
        };
        let batch = ProviderBatch {
            id: format!("batch_{number}"),
            status: self.status,
            raw_status: format!("{:?}", self.status).to_lowercase(),
            input_file: Some(file.to_owned()),
            metadata: metadata.clone(),
            created_at: created_at(number),
            output_file: keep("output", output),
            error_file: keep("error", errors),
            errors: Vec::new(),
            progress: None,
            usage: (self.usage)(number, used),
            expires_at: None,
        };
        state.batches.push(batch.clone());
        batch
    }
}

/// The prompt of an encoded request.
fn prompt_of(line: &[u8]) -> String {
    let request: Value = serde_json::from_slice(line).unwrap_or_default();
    let prompt = request["body"]["messages"].as_array().and_then(|all| all.last()).map(|last| &last["content"]);
    prompt.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn created_at(number: usize) -> i64 {
    1_800_000_000 + i64::try_from(number).unwrap_or(0)
}

fn line_of(custom_id: &Value, reply: &Reply) -> Option<Value> {
    let response = |status: u16, body: Value| json!({"id": "r", "custom_id": custom_id, "response": {"status_code": status, "request_id": "q", "body": body}, "error": null});
    match reply {
        Reply::Answer(text) => {
            let choice =
                json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
            let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
            Some(response(200, json!({"model": "scripted", "choices": [choice], "usage": usage})))
        }
        Reply::Status(status) => Some(response(
            *status,
            json!({"error": {"message": "scripted", "type": "scripted", "code": null, "param": null}}),
        )),
        Reply::NotRun(code) => Some(
            json!({"id": "r", "custom_id": custom_id, "response": null, "error": {"code": code, "message": "scripted"}}),
        ),
        Reply::Body(body) => Some(response(200, body.clone())),
        Reply::Nothing => None,
    }
}

#[async_trait]
impl Provider for ScriptedProvider {
    fn class(&self) -> Class {
        Class::B
    }

    fn limits(&self) -> Limits {
        self.format.limits()
    }

    fn poll_schedule(&self) -> PollSchedule {
        self.format.poll_schedule()
    }

    fn encoder(&self, request: &Request) -> std::result::Result<Box<dyn Encode>, EncodeError> {
        self.format.encoder(request)
    }

    fn line_id<'l>(&self, line: &'l [u8]) -> Option<Cow<'l, str>> {
        self.format.line_id(line)
    }

    fn decode_line<'l>(&self, line: &'l [u8]) -> std::result::Result<Answer<'l>, BadLine> {
        self.format.decode_line(line)
    }

    async fn upload(&self, name: &str, length: u64, mut body: ByteStream) -> Result<UploadedFile> {
        let mut content = Vec::new();
        while let Some(piece) = body.next().await {
            content.extend_from_slice(&piece.map_err(|error| Error::Source(error.to_string()))?);
        }
        if content.len() as u64 != length {
            return Err(Error::Source(format!("{length} bytes were announced and {} came", content.len())));
        }
        let mut state = self.state();
        state.uploaded += 1;
        let id = format!("file-input-{}", state.uploaded);
        state.files.insert(id.clone(), content);
        state.names.insert(id.clone(), name.to_owned());
        Ok(UploadedFile { id, created_at: created_at(state.batches.len()) })
    }

    async fn delete_file(&self, id: &str) -> Result<Deleted> {
        Ok(self.state().files.remove(id).map_or(Deleted::NotFound, |_| Deleted::Deleted))
    }

    async fn list_files(&self, _after: Option<&str>) -> Result<FilePage> {
        let state = self.state();
        let named = state.names.iter().filter(|(id, _)| state.files.contains_key(*id));
        let entry = |(id, name): (&String, &String)| FileEntry { id: id.clone(), name: name.clone(), created_at: 0 };
        Ok(FilePage { files: named.map(entry).collect(), next: None })
    }

    async fn list_batches(&self, _after: Option<&str>) -> Result<Page> {
        let mut state = self.state();
        state.listed += 1;
        let all: Vec<String> = state.batches.iter().map(|batch| batch.id.clone()).collect();
        all.into_iter().for_each(|id| *state.shown.entry(id).or_default() += 1);
        Ok(Page { batches: state.batches.iter().rev().map(|batch| self.shown(&state, batch)).collect(), next: None })
    }

    async fn create(&self, file_id: &str, metadata: &BTreeMap<String, String>) -> CreateOutcome {
        let mut state = self.state();
        let fate = (self.creates)(state.creates);
        state.creates += 1;
        let unknown = CreateOutcome::Unknown { reason: "the reply was lost".to_owned() };
        let rejected = |status, message: &str| CreateOutcome::Rejected {
            status,
            code: "scripted".to_owned(),
            message: message.to_owned(),
            retry_after: None,
        };
        if !state.files.contains_key(file_id) {
            return rejected(400, "no such file");
        }
        match fate {
            OnCreate::Accept => CreateOutcome::Accepted(Box::new(self.accept(&mut state, file_id, metadata))),
            OnCreate::AcceptAndLose => {
                self.accept(&mut state, file_id, metadata);
                unknown
            }
            OnCreate::Lose => unknown,
            OnCreate::RateLimit => rejected(429, "slow down"),
        }
    }

    async fn get(&self, id: &str) -> Result<ProviderBatch> {
        let mut state = self.state();
        state.asked += 1;
        *state.shown.entry(id.to_owned()).or_default() += 1;
        let found = state.batches.iter().find(|batch| batch.id == id);
        found.map(|batch| self.shown(&state, batch)).ok_or(Error::NotFound { message: id.to_owned() })
    }

    async fn cancel(&self, id: &str) -> Result<ProviderBatch> {
        if let Some(done) = self.done_when_cancelled {
            let mut state = self.state();
            let running = |batch: &ProviderBatch| batch.id == id && !self.shown(&state, batch).status.is_terminal();
            if let Some(number) = state.batches.iter().position(running) {
                self.cut_short(&mut state, number, done);
            }
        }
        self.get(id).await
    }

    async fn download(&self, file_id: &str, from: u64) -> Result<Download> {
        let state = self.state();
        let content = state.files.get(file_id).ok_or(Error::NotFound { message: file_id.to_owned() })?;
        let rest = content.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
        let piece = Bytes::copy_from_slice(rest);
        let total = Some(content.len() as u64);
        Ok(Download { stream: futures::stream::iter([Ok(piece)]).boxed(), total })
    }
}
