//! The trait that every provider implements, and the values that pass through it.
//!
//! Providers differ in what they offer against a lost reply to a create, so each declares its [`Class`], and the dispatcher
//! keeps a protocol for each. What a class does not have, it does not implement: the default methods answer
//! [`Error::Unsupported`]. How the four classes use [`Provider::create`]:
//!
//! - A: `metadata` carries the idempotency token; the same token again is the same batch.
//! - B: `file_id` is an uploaded file that no other create was ever sent for: deleting it fences a late create off.
//! - C: `file_id` names where the requests lie; what was created is found by listing.
//! - D: as C, and nothing can be found.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use model::ids::CustomId;
use model::spec::Request;
use model::{FailureKind, Tokens};

use crate::registry::PollSchedule;

/// A stream of bytes to send.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// What a provider offers against a lost reply to a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// An idempotency token.
    A,
    /// Upload, then create; batches can be listed and files deleted.
    B,
    /// One POST; batches can be listed, but carry no mark of ours.
    C,
    /// Nothing.
    D,
}

/// The largest batch that a provider takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows.
    pub max_rows: u32,
    /// Encoded bytes of all rows.
    pub max_bytes: u64,
    /// Encoded bytes of one row.
    pub max_line_bytes: u64,
}

/// A file at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedFile {
    /// The provider's id.
    pub id: String,
    /// When the provider says it was made, in unix seconds by the provider's clock.
    pub created_at: i64,
}

/// A file in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The provider's id.
    pub id: String,
    /// The name that the upload gave.
    pub name: String,
    /// When the provider says it was made, in unix seconds by the provider's clock.
    pub created_at: i64,
}

/// A page of files, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePage {
    /// The files.
    pub files: Vec<FileEntry>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Where a batch stands. Rows decide what became of the work, not this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchStatus {
    /// Not begun.
    Queued,
    /// At work.
    Running,
    /// Writing its files.
    Finalizing,
    /// Over; the rows say how.
    Completed,
    /// Refused as a whole after it was accepted.
    Failed,
    /// The window closed; finished rows are there and charged.
    Expired,
    /// Being cancelled.
    Cancelling,
    /// Cancelled; finished rows may be there and charged.
    Cancelled,
    /// A status that this code does not know: not over, and worth an alarm.
    Unknown,
}

impl BatchStatus {
    /// Whether nothing more will happen to the batch.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }
}

/// A fault of a whole batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchError {
    /// The provider's code, as `token_limit_exceeded`.
    pub code: String,
    /// The provider's words.
    pub message: String,
    /// The line of the input file, from 1.
    pub line: Option<u64>,
}

/// A batch as the provider tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderBatch {
    /// The provider's id.
    pub id: String,
    /// Where it stands.
    pub status: BatchStatus,
    /// The status as the provider spells it.
    pub raw_status: String,
    /// The file that it was created for.
    pub input_file: Option<String>,
    /// What the create carried.
    pub metadata: BTreeMap<String, String>,
    /// When the provider says it was made, in unix seconds by the provider's clock.
    pub created_at: i64,
    /// The file with the answered rows. A `completed` batch may lack it for a moment, or for good.
    pub output_file: Option<String>,
    /// The file with the failed rows.
    pub error_file: Option<String>,
    /// Why it failed as a whole.
    pub errors: Vec<BatchError>,
    /// Rows that are done and rows in all, for a progress bar only: providers' counts are wrong often enough.
    pub progress: Option<(u64, u64)>,
    /// The provider's sum over the rows, as a cross-check.
    pub usage: Option<Tokens>,
    /// When the provider gives up, in unix seconds by the provider's clock.
    pub expires_at: Option<i64>,
}

/// A page of batches, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The batches.
    pub batches: Vec<ProviderBatch>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// What one create came to (ARCHITECTURE, Never paid twice, step 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The provider has the batch.
    Accepted(Box<ProviderBatch>),
    /// The provider said no in its own words: nothing runs for that file.
    Rejected {
        /// The HTTP status: 400, 401, 403, 404, 413, 422 or 429.
        status: u16,
        /// The provider's error code or type.
        code: String,
        /// The provider's message.
        message: String,
        /// When the provider asks to be left alone until.
        retry_after: Option<Duration>,
    },
    /// Anything else: the batch may run, now or later.
    Unknown {
        /// What was seen.
        reason: String,
    },
}

/// What a delete came to. Either way the file is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It was there.
    Deleted,
    /// It was not there, by the provider's own words.
    NotFound,
}

/// A download, from the byte that was asked for.
pub struct Download {
    /// The bytes. An item that is an error ends it: ask again from where it broke off.
    pub stream: BoxStream<'static, Result<Bytes>>,
    /// Bytes of the whole file, where the provider says so. Bytes before `from` are counted in.
    pub total: Option<u64>,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("total", &self.total).finish_non_exhaustive()
    }
}

/// Why a call failed; the names say what the caller does. Creates have [`CreateOutcome`] instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Try again: the network or the provider failed (5xx, time-out, a reply that can't be read).
    #[error("{what}: try again")]
    Retry {
        /// What was seen.
        what: String,
        /// When the provider asks to be left alone until.
        retry_after: Option<Duration>,
    },
    /// Try again, later: a rate or queue limit.
    #[error("rate limited: {message}")]
    RateLimited {
        /// The provider's message.
        message: String,
        /// When the provider asks to be left alone until.
        retry_after: Option<Duration>,
    },
    /// Nothing works with this key until somebody mends it (401, 403).
    #[error("the provider refuses the key (HTTP {status}): {message}; check the provider's api_key and its rights")]
    Auth {
        /// The HTTP status.
        status: u16,
        /// The provider's message.
        message: String,
    },
    /// It is not there, by the provider's own words.
    #[error("not found: {message}")]
    NotFound {
        /// The provider's message.
        message: String,
    },
    /// The same call will be refused again.
    #[error("the provider refuses the request (HTTP {status}, {code}): {message}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The provider's error code or type.
        code: String,
        /// The provider's message.
        message: String,
    },
    /// The caller's own stream failed or was not as long as promised; nothing is wrong with the provider.
    #[error("the upload's source failed: {0}")]
    Source(String),
    /// The provider's class does not have this.
    #[error("this provider has no {0}")]
    Unsupported(&'static str),
}

impl Error {
    /// Whether the same call can succeed later without anybody mending anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Retry { .. } | Self::RateLimited { .. } | Self::Source(_))
    }

    /// When the provider asks to be left alone until.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Retry { retry_after, .. } | Self::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A job's request can't be encoded for the provider at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A parameter that the encoder writes itself.
    #[error("request.params has {0:?}, which batchmill sets itself: remove it")]
    ReservedParam(String),
    /// There is no model behind the provider's name.
    #[error("request.model {0:?} is not of the form provider/model")]
    Model(String),
}

/// Encodes rows as lines of the provider's input file. A row's prompt is given in pieces, one behind the other, so that who
/// makes prompts of columns need not put them together first.
pub trait Encode: Send + Sync {
    /// The exact length of what [`Self::begin`] and [`Self::end`] append together, in bytes.
    fn frame_len(&self, custom_id: &CustomId<'_>) -> u64;
    /// The exact length of what [`Self::text`] appends, in bytes. It does not depend on what stands beside the piece.
    fn text_len(&self, piece: &str) -> u64;
    /// Appends what stands before the user prompt.
    fn begin(&self, custom_id: &CustomId<'_>, out: &mut Vec<u8>);
    /// Appends the next piece of the user prompt. What is appended does not depend on what stands beside the piece, so a piece
    /// that all rows have may be encoded once.
    fn text(&self, piece: &str, out: &mut Vec<u8>);
    /// Appends what stands behind the user prompt, the line end included.
    fn end(&self, out: &mut Vec<u8>);

    /// The exact length of what [`Self::encode`] appends, in bytes.
    fn encoded_len(&self, custom_id: &CustomId<'_>, user: &str) -> u64 {
        self.frame_len(custom_id) + self.text_len(user)
    }

    /// Appends one row's request, its line end included.
    fn encode(&self, custom_id: &CustomId<'_>, user: &str, out: &mut Vec<u8>) {
        self.begin(custom_id, out);
        self.text(user, out);
        self.end(out);
    }
}

/// A decoded line of a result file. Its texts are the line's own wherever the line has them as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<'l> {
    /// The row's custom id, as the provider returned it.
    pub custom_id: Cow<'l, str>,
    /// How the row ended.
    pub outcome: Outcome<'l>,
}

/// How a row ended at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<'l> {
    /// It has an answer. Whether one that was cut (`finish_reason` is `length`) is good enough, the poller decides.
    Answered {
        /// The text; the calls as JSON, if the model called tools instead of saying something.
        response: Cow<'l, str>,
        /// Why the model stopped, as the provider spells it.
        finish_reason: Option<Cow<'l, str>>,
        /// The exact model.
        model: Option<Cow<'l, str>>,
        /// What it took, if the provider says so.
        tokens: Option<Tokens>,
    },
    /// It failed.
    Failed {
        /// The kind of failure.
        kind: FailureKind,
        /// The provider's words, at most [`crate::openai::MAX_MESSAGE_CHARS`] characters.
        message: Cow<'l, str>,
        /// The exact model, if one was at work.
        model: Option<Cow<'l, str>>,
        /// What it took all the same.
        tokens: Option<Tokens>,
    },
}

/// A line that can't be read. It costs one row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the provider's result line can't be read: {message}")]
pub struct BadLine {
    /// The row's custom id, if that much can be read.
    pub custom_id: Option<String>,
    /// What is wrong. It shows nothing of the line's text.
    pub message: String,
}

/// A provider account.
#[async_trait]
pub trait Provider: Send + Sync + std::fmt::Debug {
    /// What the provider offers against a lost reply to a create.
    fn class(&self) -> Class;

    /// The largest batch that it takes.
    fn limits(&self) -> Limits;

    /// How often to look at a batch.
    fn poll_schedule(&self) -> PollSchedule;

    /// An encoder for a job's rows.
    ///
    /// # Errors
    /// The request does not fit the provider's format.
    fn encoder(&self, request: &Request) -> Result<Box<dyn Encode>, EncodeError>;

    /// The custom id of a result line, as cheaply as can be; `None` if the line has none that can be read.
    fn line_id<'l>(&self, line: &'l [u8]) -> Option<Cow<'l, str>>;

    /// Decodes a line of an output or error file, without its line end. The caller bounds its length.
    ///
    /// # Errors
    /// The line is no result.
    fn decode_line<'l>(&self, line: &'l [u8]) -> Result<Answer<'l>, BadLine>;

    /// Uploads exactly `length` bytes as a file of this name, streamed.
    async fn upload(&self, name: &str, length: u64, body: ByteStream) -> Result<UploadedFile> {
        let _ = (name, length, body);
        Err(Error::Unsupported("upload"))
    }

    /// Deletes a file. Only the provider's own word that the file is gone counts.
    async fn delete_file(&self, id: &str) -> Result<Deleted> {
        let _ = id;
        Err(Error::Unsupported("delete of files"))
    }

    /// How many bytes a file has by the provider's own word; none if it does not say.
    async fn file_bytes(&self, id: &str) -> Result<Option<u64>> {
        let _ = id;
        Ok(None)
    }

    /// A hundred files of ours or more, newest first, after the cursor; for cleaning up by name.
    async fn list_files(&self, after: Option<&str>) -> Result<FilePage> {
        let _ = after;
        Err(Error::Unsupported("list of files"))
    }

    /// A hundred batches, newest first, after the cursor.
    async fn list_batches(&self, after: Option<&str>) -> Result<Page> {
        let _ = after;
        Err(Error::Unsupported("list of batches"))
    }

    /// Creates a batch: ONE request, never repeated.
    async fn create(&self, file_id: &str, metadata: &BTreeMap<String, String>) -> CreateOutcome;

    /// Looks at a batch.
    async fn get(&self, id: &str) -> Result<ProviderBatch>;

    /// Asks that a batch end. It may take minutes; a batch that is over is [`Error::Rejected`].
    async fn cancel(&self, id: &str) -> Result<ProviderBatch>;

    /// Reads a file from the byte `from` on. `from` may be the file's end.
    async fn download(&self, file_id: &str, from: u64) -> Result<Download>;
}
