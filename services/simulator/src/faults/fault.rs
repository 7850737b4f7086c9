//! What can go wrong: one variant for each fault, with its parameters. docs/FAULTS.md has a row for each.
//!
//! Every parameter has a default, so that a fault's name alone is a rule.

use serde::{Deserialize, Serialize};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    Upload,
    ListFiles,
    GetFile,
    Download,
    DeleteFile,
    Create,
    ListBatches,
    GetBatch,
    Cancel,
}

/// Where a batch gets stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    Validating,
    InProgress,
    Finalizing,
}

/// Which of a batch's two file ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Which {
    Both,
    Output,
    Error,
}

/// How a download that is cut ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// The connection breaks.
    Broken,
    /// As if that were all.
    Clean,
}

/// What a download that is cut says of its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ContentLength {
    Right,
    Absent,
    /// As long as the cut makes it if it ends clean; else more than there is.
    Wrong,
}

/// The shape of an error row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// A response with the status, and the error in its body.
    Response,
    /// A response with status 0 and no body.
    StatusZero,
    /// No response, and the error beside it.
    NoResponse,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Fault {
    CreateDroppedBefore {},
    CreateDroppedAfter {},
    CreateFailed {
        #[serde(default = "internal_error")]
        status: u16,
        #[serde(default = "server_error")]
        code: String,
    },
    CreateFailedAccepted {
        #[serde(default = "unavailable")]
        status: u16,
    },
    CreateLimited {
        #[serde(default)]
        retry_after: Option<f64>,
    },
    CreateLate {
        #[serde(default = "second")]
        after_ms: u64,
    },
    UploadRefused {
        #[serde(default = "bad_request")]
        status: u16,
        #[serde(default = "invalid_file")]
        code: String,
    },
    UploadDropped {
        #[serde(default)]
        after_bytes: u64,
    },
    FileNotFound {
        #[serde(default = "one")]
        requests: u64,
    },
    DeleteFailed {
        #[serde(default = "internal_error")]
        status: u16,
    },
    DeleteNotFound {
        #[serde(default = "yes")]
        done: bool,
    },
    DownloadCut {
        #[serde(default = "kilobyte")]
        after_bytes: u64,
        #[serde(default = "broken")]
        end: End,
        #[serde(default = "right")]
        content_length: ContentLength,
    },
    RangeIgnored {},
    RequestFails {
        #[serde(default = "list_batches")]
        on: Operation,
        #[serde(default = "internal_error")]
        status: u16,
        #[serde(default)]
        retry_after: Option<f64>,
    },
    BatchNotFound {
        #[serde(default = "one")]
        requests: u64,
    },
    ListLags {
        #[serde(default = "one")]
        lists: u64,
    },
    BatchFailed {
        #[serde(default = "token_limit_exceeded")]
        code: String,
        #[serde(default = "on_purpose")]
        message: String,
        #[serde(default)]
        line: Option<u64>,
    },
    BatchStuck {
        #[serde(default = "in_progress")]
        status: Stage,
        #[serde(default)]
        for_ms: Option<u64>,
        #[serde(default)]
        percent: u8,
    },
    BatchExpired {
        #[serde(default = "half")]
        percent: u8,
    },
    BatchCancelled {
        #[serde(default = "half")]
        percent: u8,
    },
    NullFileIds {
        #[serde(default = "both")]
        which: Which,
    },
    EmptyFileIds {
        #[serde(default = "both")]
        which: Which,
    },
    FileIdsLate {
        #[serde(default = "one")]
        looks: u64,
    },
    CountsLie {
        #[serde(default)]
        total: u64,
        #[serde(default)]
        completed: u64,
        #[serde(default)]
        failed: u64,
    },
    UsageLies {
        #[serde(default)]
        input_tokens: u64,
        #[serde(default = "one")]
        output_tokens: u64,
    },
    UnknownStatus {
        #[serde(default = "paused")]
        status: String,
        #[serde(default)]
        looks: Option<u64>,
    },
    RowDuplicate {
        #[serde(default)]
        error_first: bool,
    },
    RowMissing {},
    RowUnknownId {
        #[serde(default = "stranger")]
        custom_id: String,
        #[serde(default)]
        keep: bool,
    },
    RowMalformed {
        #[serde(default)]
        keep_bytes: Option<usize>,
    },
    RowLong {
        #[serde(default = "twenty_megabytes")]
        bytes: usize,
    },
    RowSeparator {},
    RowError {
        #[serde(default = "response")]
        shape: Shape,
        #[serde(default = "internal_error")]
        status: u16,
        #[serde(default = "server_error")]
        code: String,
        #[serde(default = "on_purpose")]
        message: String,
        #[serde(default)]
        output_file: bool,
    },
    RowRefused {},
    RowFiltered {},
    RowTruncated {
        #[serde(default)]
        characters: usize,
    },
}

macro_rules! defaults {
    ($($name:ident: $type:ty = $value:expr;)*) => { $(fn $name() -> $type { $value.into() })* };
}

defaults! {
    internal_error: u16 = 500u16;
    unavailable: u16 = 503u16;
    bad_request: u16 = 400u16;
    second: u64 = 1_000u64;
    one: u64 = 1u64;
    kilobyte: u64 = 1_000u64;
    half: u8 = 50u8;
    yes: bool = true;
    twenty_megabytes: usize = 20_971_520usize;
    server_error: String = "server_error";
    invalid_file: String = "invalid_file_format";
    token_limit_exceeded: String = "token_limit_exceeded";
    on_purpose: String = "The fault script wants it so.";
    paused: String = "paused";
    stranger: String = "stranger-0";
    broken: End = End::Broken;
    right: ContentLength = ContentLength::Right;
    list_batches: Operation = Operation::ListBatches;
    in_progress: Stage = Stage::InProgress;
    both: Which = Which::Both;
    response: Shape = Shape::Response;
}

/// Every fault's name, in the order of the documentation.
pub(crate) const NAMES: [&str; 36] = [
    "create_dropped_before",
    "create_dropped_after",
    "create_failed",
    "create_failed_accepted",
    "create_limited",
    "create_late",
    "upload_refused",
    "upload_dropped",
    "file_not_found",
    "delete_failed",
    "delete_not_found",
    "download_cut",
    "range_ignored",
    "request_fails",
    "batch_not_found",
    "list_lags",
    "batch_failed",
    "batch_stuck",
    "batch_expired",
    "batch_cancelled",
    "null_file_ids",
    "empty_file_ids",
    "file_ids_late",
    "counts_lie",
    "usage_lies",
    "unknown_status",
    "row_duplicate",
    "row_missing",
    "row_unknown_id",
    "row_malformed",
    "row_long",
    "row_separator",
    "row_error",
    "row_refused",
    "row_filtered",
    "row_truncated",
];

/// What a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// One request of a kind.
    Request(Operation),
    /// An input file, chosen at its upload.
    File,
    /// A batch, from its create on.
    Batch,
    /// Rows of a batch.
    Rows,
}

impl Fault {
    pub(crate) fn target(&self) -> Target {
        match self {
            Self::CreateDroppedBefore {}
            | Self::CreateDroppedAfter {}
            | Self::CreateFailed { .. }
            | Self::CreateFailedAccepted { .. }
            | Self::CreateLimited { .. }
            | Self::CreateLate { .. } => Target::Request(Operation::Create),
            Self::UploadRefused { .. } | Self::UploadDropped { .. } => Target::Request(Operation::Upload),
            Self::DeleteFailed { .. } | Self::DeleteNotFound { .. } => Target::Request(Operation::DeleteFile),
            Self::DownloadCut { .. } | Self::RangeIgnored {} => Target::Request(Operation::Download),
            Self::RequestFails { on, .. } => Target::Request(*on),
            Self::FileNotFound { .. } => Target::File,
            Self::BatchNotFound { .. }
            | Self::ListLags { .. }
            | Self::BatchFailed { .. }
            | Self::BatchStuck { .. }
            | Self::BatchExpired { .. }
            | Self::BatchCancelled { .. }
            | Self::NullFileIds { .. }
            | Self::EmptyFileIds { .. }
            | Self::FileIdsLate { .. }
            | Self::CountsLie { .. }
            | Self::UsageLies { .. }
            | Self::UnknownStatus { .. } => Target::Batch,
            Self::RowDuplicate { .. }
            | Self::RowMissing {}
            | Self::RowUnknownId { .. }
            | Self::RowMalformed { .. }
            | Self::RowLong { .. }
            | Self::RowSeparator {}
            | Self::RowError { .. }
            | Self::RowRefused {}
            | Self::RowFiltered {}
            | Self::RowTruncated { .. } => Target::Rows,
        }
    }
}
