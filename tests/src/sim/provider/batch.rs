//! What becomes of one batch, drawn when it is accepted: how long it takes, how it ends, and what each row's line says.
//! What the rows cost and what a poller must make of them follows.

use std::collections::BTreeMap;
use std::time::Duration;

use model::FailureKind;
use providers::{BatchError, BatchStatus, ProviderBatch};
use serde_json::{Value, json};

use crate::sim::faults::Faults;

/// Faults of batches and rows.
pub const FAULTS: &[&str] = &[
    "batch failed",
    "batch expired",
    "batch files late",
    "batch 404 at first",
    "batch unknown status",
    "batch long",
    "row 500",
    "row 429",
    "row 400",
    "row time-out",
    "row status 0",
    "row missing",
    "row malformed",
    "row refused",
    "row doubled",
    "row error and answer",
    "line of unknown id",
    "line that is garbage",
    "answer with U+2028",
];

const ENDS: &[&str] = FAULTS.split_at(6).0;
const ROWS: &[&str] = FAULTS.split_at(6).1;

/// The codes with which a batch fails as a whole, and what its rows fail with.
const FAILURES: &[(&str, FailureKind)] = &[
    ("token_limit_exceeded", FailureKind::RateLimited),
    ("too_many_tasks", FailureKind::RateLimited),
    ("model_not_found", FailureKind::BatchRejected),
    ("invalid_json_line", FailureKind::BatchFailed),
    ("", FailureKind::BatchFailed),
];

/// How a row is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// With this answer.
    Answer(String),
    /// With one of these kinds.
    Kinds(Vec<FailureKind>),
}

/// One row of a batch.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its custom id.
    pub id: String,
    /// Its prompt.
    pub prompt: String,
    /// When it is run.
    at: Duration,
    /// Its lines in the output and the error file.
    lines: [Vec<Vec<u8>>; 2],
    expected: Expected,
    billed: bool,
}

/// A batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its id.
    pub id: String,
    /// The file that it was made of.
    pub file: String,
    /// What the create carried.
    pub metadata: BTreeMap<String, String>,
    /// Provider's time, unix seconds.
    pub created_at: i64,
    /// Its rows.
    pub rows: Vec<Row>,
    ends_as: BatchStatus,
    error: Option<(&'static str, FailureKind)>,
    starts: Duration,
    ends: Duration,
    files_from: Duration,
    visible_from: Duration,
    odd_status: bool,
    /// When a cancellation was asked for, and when it is through.
    cancelled: Option<(Duration, Duration)>,
}

/// The answer to a prompt.
#[must_use]
pub fn answer_to(prompt: &str) -> String {
    format!("re {prompt}")
}

impl Batch {
    /// Accepts a file's rows.
    pub fn accept(
        id: String,
        file: &str,
        content: &[u8],
        metadata: &BTreeMap<String, String>,
        faults: &Faults,
    ) -> Self {
        let now = faults.clock.monotonic();
        let end = faults.draw(faults.rates.batch, ENDS, &id);
        let long = if end == Some("batch long") { (600_000, 8_000_000) } else { (1, 120_000) };
        let starts = now + faults.chance.duration(1, 5_000);
        let ends = starts + faults.chance.duration(long.0, long.1);
        let mut batch = Self {
            id,
            file: file.to_owned(),
            metadata: metadata.clone(),
            created_at: 0,
            rows: Vec::new(),
            ends_as: BatchStatus::Completed,
            error: None,
            starts,
            ends,
            files_from: ends,
            visible_from: now,
            odd_status: end == Some("batch unknown status"),
            cancelled: None,
        };
        match end {
            Some("batch failed") => {
                batch.ends_as = BatchStatus::Failed;
                batch.error = Some(*faults.chance.pick(FAILURES));
            }
            Some("batch expired") => batch.ends_as = BatchStatus::Expired,
            Some("batch files late") => batch.files_from = ends + faults.chance.duration(100, 6_000),
            Some("batch 404 at first") => batch.visible_from = now + faults.chance.duration(100, 60_000),
            _ => {}
        }
        // The last row first: nobody may rely on the order.
        let requests: Vec<&[u8]> = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        for request in requests.into_iter().rev() {
            let row = batch.row(request, faults);
            batch.rows.push(row);
        }
        faults.chance.shuffle(&mut batch.rows);
        batch
    }

    /// A batch that is accepted only to fail: its file is gone. Nothing is billed.
    pub fn of_no_file(id: String, file: &str, metadata: &BTreeMap<String, String>, now: Duration) -> Self {
        Self {
            id,
            file: file.to_owned(),
            metadata: metadata.clone(),
            created_at: 0,
            rows: Vec::new(),
            ends_as: BatchStatus::Failed,
            error: Some(("file_not_found", FailureKind::BatchFailed)),
            starts: now,
            ends: now,
            files_from: now,
            visible_from: now,
            odd_status: false,
            cancelled: None,
        }
    }

    fn row(&self, request: &[u8], faults: &Faults) -> Row {
        let request: Value = serde_json::from_slice(request).unwrap_or_default();
        let id = request["custom_id"].as_str().unwrap_or_default().to_owned();
        let prompt = request["body"]["messages"].as_array().and_then(|all| all.last()).map(|last| &last["content"]);
        let prompt = prompt.and_then(Value::as_str).unwrap_or_default().to_owned();
        let span = u64::try_from((self.ends - self.starts).as_millis()).unwrap_or_default();
        // Of a batch that expires, half of the rows would have run later.
        let late = self.ends_as == BatchStatus::Expired && faults.chance.hits(500);
        let offset = if late { span + 1_000 } else { faults.chance.below(span + 1) };
        let fate = if late { None } else { faults.draw(faults.rates.row, ROWS, &id) };
        let answer = answer_to(&prompt);
        let mut row = Row {
            at: self.starts + Duration::from_millis(offset),
            lines: [vec![answered(&id, &answer)], Vec::new()],
            expected: Expected::Answer(answer),
            billed: true,
            id,
            prompt,
        };
        if let Some(fate) = fate {
            row.suffer(fate, faults);
        }
        row
    }

    fn is_failed(&self) -> bool {
        self.ends_as == BatchStatus::Failed
    }

    /// When the last row was run.
    fn last_moment(&self) -> Duration {
        self.cancelled.map_or(self.ends, |(asked, _)| asked.min(self.ends))
    }

    /// A row without a line ran only in a batch that completed: in every other it counts as one that did not.
    fn ran(&self, row: &Row) -> bool {
        let has_line = row.lines.iter().any(|lines| !lines.is_empty());
        let completes = self.ends_as == BatchStatus::Completed && !self.is_cancelled();
        !self.is_failed() && row.at <= self.last_moment() && (has_line || completes)
    }

    /// Whether the row was billed, or will be.
    #[must_use]
    pub fn bills(&self, row: &Row) -> bool {
        row.billed && self.ran(row)
    }

    /// What a poller must make of a row, once the batch is over.
    #[must_use]
    pub fn expected(&self, row: &Row) -> Expected {
        if self.ran(row) {
            return row.expected.clone();
        }
        let kinds = match (self.error, self.cancelled) {
            (_, Some((asked, _))) if asked < self.ends => vec![FailureKind::Cancelled, FailureKind::Deadline],
            (Some((_, kind)), _) => vec![kind],
            _ => vec![FailureKind::Expired],
        };
        Expected::Kinds(kinds)
    }

    /// What a poller must make of every row of a batch that failed for want of its file; none for another batch.
    #[must_use]
    pub fn expected_of_all(&self) -> Option<Expected> {
        let (_, kind) = self.error.filter(|_| self.rows.is_empty())?;
        Some(Expected::Kinds(vec![kind]))
    }

    /// Asks for its end; false if it is over.
    pub fn cancel(&mut self, now: Duration, takes: Duration) -> bool {
        if self.cancelled.is_none() && now < self.ends {
            self.cancelled = Some((now, now + takes));
        }
        now < self.ends
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.is_some_and(|(asked, _)| asked < self.ends)
    }

    fn status(&self, now: Duration) -> BatchStatus {
        if let Some((asked, through)) = self.cancelled.filter(|_| self.is_cancelled())
            && now >= asked
        {
            return if now < through { BatchStatus::Cancelling } else { BatchStatus::Cancelled };
        }
        match now {
            _ if now >= self.ends => self.ends_as,
            _ if now < self.starts => BatchStatus::Queued,
            _ if self.odd_status => BatchStatus::Unknown,
            _ => BatchStatus::Running,
        }
    }

    /// Whether it may be asked for by its id.
    #[must_use]
    pub fn is_visible(&self, now: Duration) -> bool {
        now >= self.visible_from
    }

    /// The batch as the provider shows it.
    #[must_use]
    pub fn shown(&self, now: Duration) -> ProviderBatch {
        let status = self.status(now);
        let has_files = status.is_terminal() && now >= self.files_from.min(self.last_moment().max(self.ends_late()));
        let file = |number: usize| {
            let some = has_files && !self.lines(number).is_empty();
            some.then(|| format!("{}-{number}", self.id))
        };
        let errors = self.error.filter(|(code, _)| !code.is_empty() && status == BatchStatus::Failed);
        let errors =
            errors.map(|(code, _)| BatchError { code: code.to_owned(), message: "simulated".to_owned(), line: None });
        ProviderBatch {
            id: self.id.clone(),
            status,
            raw_status: format!("{status:?}").to_lowercase(),
            input_file: Some(self.file.clone()),
            metadata: self.metadata.clone(),
            created_at: self.created_at,
            output_file: file(0),
            error_file: file(1),
            errors: errors.into_iter().collect(),
            progress: Some((0, 999)),
            usage: None,
            expires_at: None,
        }
    }

    /// When its files are there: a cancelled batch has them at once.
    fn ends_late(&self) -> Duration {
        if self.is_cancelled() { Duration::ZERO } else { self.files_from }
    }

    /// The lines of its output (0) or error file (1).
    fn lines(&self, number: usize) -> Vec<&[u8]> {
        let mut lines = Vec::new();
        for row in self.rows.iter().filter(|row| self.ran(row)) {
            lines.extend(row.lines[number].iter().map(Vec::as_slice));
        }
        lines
    }

    /// The content of its output (0) or error file (1).
    #[must_use]
    pub fn content(&self, number: usize) -> Vec<u8> {
        let mut content = Vec::new();
        for line in self.lines(number) {
            content.extend_from_slice(line);
            content.push(b'\n');
        }
        content
    }
}

impl Row {
    /// Ends otherwise than with a plain answer.
    fn suffer(&mut self, fate: &str, faults: &Faults) {
        use FailureKind as K;
        let fail = |row: &mut Self, kind: K, billed: bool, line: Option<Vec<u8>>| {
            let file = if kind == K::Refused { 0 } else { usize::from(faults.chance.hits(800)) };
            row.lines = [Vec::new(), Vec::new()];
            row.lines[file].extend(line);
            (row.expected, row.billed) = (Expected::Kinds(vec![kind]), billed);
        };
        let id = self.id.clone();
        match fate {
            "row 500" => fail(self, K::ServerError, true, Some(status(&id, 500))),
            "row 429" => fail(self, K::RateLimited, false, Some(status(&id, 429))),
            "row 400" => fail(self, K::InvalidRequest, false, Some(status(&id, 400))),
            "row status 0" => fail(self, K::ServerError, true, Some(status(&id, 0))),
            "row time-out" => fail(self, K::Timeout, true, Some(error(&id, "request_timeout"))),
            "row missing" => fail(self, K::Missing, true, None),
            "row malformed" => {
                let mut line = answered(&id, "x");
                line.truncate(line.len() / 2 + id.len());
                fail(self, K::Malformed, true, Some(line));
            }
            "row refused" => fail(self, K::Refused, true, Some(refused(&id))),
            "row doubled" => {
                let again = self.lines[0].clone();
                self.lines[0].extend(again);
            }
            "row error and answer" => self.lines[1].push(status(&id, 500)),
            "line of unknown id" => {
                self.lines[0].push(answered("0123456789abcdef-0", "not yours"));
                let nonce = id.split('-').next().unwrap_or_default();
                self.lines[1].push(answered(&format!("{nonce}-4000"), "nobody's"));
            }
            "line that is garbage" => self.lines[1].push(b"\xff{{ not json".to_vec()),
            "answer with U+2028" => {
                let answer = format!("{}\u{2028}\u{85}", answer_to(&self.prompt));
                self.lines[0] = vec![answered(&id, &answer)];
                self.expected = Expected::Answer(answer);
            }
            _ => {}
        }
    }
}

fn line(custom_id: &str, response: &Value, error: &Value) -> Vec<u8> {
    // By hand: the id comes first, as real files have it.
    format!(r#"{{"id":"r","custom_id":"{custom_id}","response":{response},"error":{error}}}"#).into_bytes()
}

fn answered(custom_id: &str, text: &str) -> Vec<u8> {
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
    let body = json!({"model": "simulated", "choices": [choice], "usage": usage});
    line(custom_id, &json!({"status_code": 200, "request_id": "q", "body": body}), &Value::Null)
}

fn refused(custom_id: &str) -> Vec<u8> {
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": null, "refusal": "no"}, "finish_reason": "stop"});
    let body = json!({"model": "simulated", "choices": [choice]});
    line(custom_id, &json!({"status_code": 200, "request_id": "q", "body": body}), &Value::Null)
}

fn status(custom_id: &str, status: u16) -> Vec<u8> {
    let body = match status {
        0 => Value::Null,
        _ => json!({"error": {"message": "simulated", "type": "simulated", "code": null, "param": null}}),
    };
    line(custom_id, &json!({"status_code": status, "request_id": "q", "body": body}), &Value::Null)
}

fn error(custom_id: &str, code: &str) -> Vec<u8> {
    line(custom_id, &Value::Null, &json!({"code": code, "message": "simulated"}))
}
