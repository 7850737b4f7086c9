//! A provider that answers at once and keeps next to nothing: of an upload the batch's nonce, the number of its first row and
//! how many lines there were. Its result files are made while they are read, in another order than the requests, in OpenAI's
//! format, and are decoded as OpenAI's are.
//!
//! An answer repeats the number that stands in the row's own prompt, so a row that gets another's answer is found. Of an upload
//! the first and the last line are looked into; that those between them are the batch's own rows, in order, follows from what
//! the output says.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use model::spec::Request;
use providers::{
    Answer, BadLine, ByteStream, Class, CreateOutcome, Deleted, Download, Encode, EncodeError, Error, Limits, Page,
    PollSchedule, Provider, ProviderBatch, ProviderSettings, UploadedFile,
};

use super::input::MARK;

/// How much of a result file is made at a time.
const PIECE_BYTES: usize = 256 << 10;
/// The batches that a list shows, as OpenAI's does.
const PAGE: usize = 100;
/// A row's number has so many digits in its prompt.
const DIGITS: usize = 12;
/// Results come in steps of a prime through the batch.
const STRIDES: [u64; 2] = [7_919, 7_907];

/// What is known of an uploaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// What stands before the place in the custom ids.
    nonce: String,
    first_row: u64,
    rows: u64,
}

/// The provider.
#[derive(Debug)]
pub(super) struct Instant {
    /// Encodes and decodes.
    openai: Arc<dyn Provider>,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    by_id: HashMap<String, Known>,
    /// In the order of their creates.
    batches: Vec<String>,
}

impl Instant {
    pub(super) fn new() -> anyhow::Result<Self> {
        let openai = providers::open("openai", &ProviderSettings::new("openai"))?;
        Ok(Self { openai, files: Mutex::default() })
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, id: &str) -> Result<Known, Error> {
        let known = self.files().by_id.get(id).cloned();
        known.ok_or_else(|| Error::NotFound { message: format!("{id}: there is no such file") })
    }
}

/// The nonce, the place and the row's number of a request.
fn noticed(line: &[u8]) -> Option<(String, u64, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let id = line.split_once("\"custom_id\":\"")?.1.split_once('"')?.0;
    let (nonce, place) = id.rsplit_once('-')?;
    // What comes before the prompt has no such words.
    let row = line.split_once(MARK)?.1.get(..DIGITS)?;
    Some((nonce.to_owned(), place.parse().ok()?, row.parse().ok()?))
}

/// Reads an upload through.
#[derive(Debug, Default)]
struct Noticing {
    lines: u64,
    bytes: u64,
    first: Vec<u8>,
    /// The line that has begun, or the last if it has ended.
    last: Vec<u8>,
    ended: bool,
}

impl Noticing {
    fn take(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        let mut ends = memchr::memchr_iter(b'\n', piece);
        if self.lines == 0 {
            let first = ends.next().map_or(piece.len(), |end| end + 1);
            self.first.extend_from_slice(&piece[..first]);
            self.lines += u64::from(first > 0 && piece[first - 1] == b'\n');
        }
        self.lines += ends.count() as u64;
        self.keep_last(piece);
    }

    /// Keeps what may be the last line, without the others.
    fn keep_last(&mut self, piece: &[u8]) {
        let Some((end, body)) = piece.split_last() else { return };
        let whole = *end == b'\n';
        let body = if whole { body } else { piece };
        let begin = memchr::memrchr(b'\n', body);
        if begin.is_some() || self.ended {
            self.last.clear();
        }
        self.last.extend_from_slice(&body[begin.map_or(0, |at| at + 1)..]);
        self.ended = whole;
    }

    fn known(&self) -> Result<Known, Error> {
        let wrong = |what: &str| Error::Source(format!("the upload of {} lines {what}", self.lines));
        let (nonce, place, first_row) = noticed(&self.first).ok_or_else(|| wrong("has an odd first line"))?;
        let (last_nonce, last_place, last_row) = noticed(&self.last).ok_or_else(|| wrong("has an odd last line"))?;
        let last = self.lines.saturating_sub(1);
        if !self.ended || nonce != last_nonce || place != 0 || last_place != last || last_row != first_row + last {
            return Err(wrong("does not have the rows of one batch"));
        }
        Ok(Known { nonce, first_row, rows: self.lines })
    }
}

impl Known {
    fn stride(&self) -> u64 {
        STRIDES.into_iter().find(|stride| !self.rows.is_multiple_of(*stride)).unwrap_or(1)
    }

    /// Appends the line of the result file that comes `at`.
    fn line(&self, at: u64, stride: u64, out: &mut Vec<u8>) -> std::io::Result<()> {
        let place = at * stride % self.rows;
        let (nonce, row) = (&self.nonce, self.first_row + place);
        writeln!(
            out,
            r#"{{"id":"batch_req_{place:012}","custom_id":"{nonce}-{place}","response":{{"status_code":200,"request_id":"req_{place:012}","body":{{"id":"chatcmpl-{place:012}","object":"chat.completion","created":1764000000,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{MARK}{row:012}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":24,"completion_tokens":7,"total_tokens":31,"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}}}},"service_tier":"default"}}}},"error":null}}"#
        )
    }

    /// The size of the whole file: all lines are alike but for the digits of their place in the custom id.
    fn bytes(&self) -> u64 {
        let mut line = Vec::new();
        if self.rows == 0 || self.line(0, 1, &mut line).is_err() {
            return 0;
        }
        let (mut digits, mut tens) = (self.rows, 10);
        while tens < self.rows {
            digits += self.rows - tens;
            tens *= 10;
        }
        (line.len() as u64 - 1) * self.rows + digits
    }

    /// The file's pieces from a byte on.
    fn pieces(self, from: u64) -> impl Iterator<Item = Result<Bytes, Error>> + Send {
        let (stride, mut at, mut skip) = (self.stride(), 0, from);
        std::iter::from_fn(move || {
            while at < self.rows {
                let mut piece = Vec::with_capacity(PIECE_BYTES + 1_024);
                while at < self.rows && piece.len() < PIECE_BYTES {
                    if let Err(error) = self.line(at, stride, &mut piece) {
                        return Some(Err(Error::Source(error.to_string())));
                    }
                    at += 1;
                }
                let passed = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
                skip -= passed as u64;
                if passed < piece.len() {
                    return Some(Ok(Bytes::from(piece).slice(passed..)));
                }
            }
            None
        })
    }
}

/// A batch goes by the name of its upload, and so does its result file.
fn ended(id: &str) -> ProviderBatch {
    ProviderBatch { input_file: Some(id.to_owned()), ..crate::bench::provider::ended(id) }
}

#[async_trait]
impl Provider for Instant {
    fn class(&self) -> Class {
        self.openai.class()
    }

    fn limits(&self) -> Limits {
        self.openai.limits()
    }

    fn poll_schedule(&self) -> PollSchedule {
        self.openai.poll_schedule()
    }

    fn encoder(&self, request: &Request) -> Result<Box<dyn Encode>, EncodeError> {
        self.openai.encoder(request)
    }

    fn line_id<'l>(&self, line: &'l [u8]) -> Option<Cow<'l, str>> {
        self.openai.line_id(line)
    }

    fn decode_line<'l>(&self, line: &'l [u8]) -> Result<Answer<'l>, BadLine> {
        self.openai.decode_line(line)
    }

    async fn upload(&self, _name: &str, length: u64, mut body: ByteStream) -> Result<UploadedFile, Error> {
        let mut noticing = Noticing::default();
        while let Some(piece) = body.next().await {
            noticing.take(&piece.map_err(|error| Error::Source(error.to_string()))?);
        }
        if noticing.bytes != length {
            let found = noticing.bytes;
            return Err(Error::Source(format!("an upload has {found} bytes, {length} were promised")));
        }
        let known = noticing.known()?;
        let id = format!("file-{}", known.nonce);
        self.files().by_id.insert(id.clone(), known);
        Ok(UploadedFile { id, created_at: 0 })
    }

    async fn delete_file(&self, id: &str) -> Result<Deleted, Error> {
        let there = self.files().by_id.remove(id).is_some();
        Ok(if there { Deleted::Deleted } else { Deleted::NotFound })
    }

    async fn list_batches(&self, after: Option<&str>) -> Result<Page, Error> {
        let files = self.files();
        let newer = after.and_then(|after| files.batches.iter().position(|id| id == after));
        let older = &files.batches[..newer.unwrap_or(files.batches.len())];
        let batches: Vec<ProviderBatch> = older.iter().rev().take(PAGE).map(|id| ended(id)).collect();
        let next = batches.last().filter(|_| older.len() > PAGE).map(|batch| batch.id.clone());
        Ok(Page { batches, next })
    }

    async fn create(&self, file_id: &str, _metadata: &BTreeMap<String, String>) -> CreateOutcome {
        let mut files = self.files();
        if !files.by_id.contains_key(file_id) {
            let (status, code, message) = (400, "file_not_found".to_owned(), format!("{file_id}: no such file"));
            return CreateOutcome::Rejected { status, code, message, retry_after: None };
        }
        files.batches.push(file_id.to_owned());
        CreateOutcome::Accepted(Box::new(ended(file_id)))
    }

    async fn get(&self, id: &str) -> Result<ProviderBatch, Error> {
        self.known(id).map(|_| ended(id))
    }

    async fn cancel(&self, id: &str) -> Result<ProviderBatch, Error> {
        self.known(id).map(|_| ended(id))
    }

    async fn file_bytes(&self, id: &str) -> Result<Option<u64>, Error> {
        Ok(Some(self.known(id)?.bytes()))
    }

    async fn download(&self, file_id: &str, from: u64) -> Result<Download, Error> {
        let known = self.known(file_id)?;
        let total = Some(known.bytes());
        Ok(Download { stream: stream::iter(known.pieces(from)).boxed(), total })
    }
}

#[cfg(test)]
mod tests;
