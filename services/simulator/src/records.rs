//! What the simulator knows of a file and of a batch: the descriptions that it keeps on disk as JSON.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    faults::Chosen,
    store::lock,
    wire::{BatchError, ENDPOINT},
};

/// A file's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMeta {
    pub(crate) id: String,
    /// Orders listings; grows with time.
    pub(crate) seq: u64,
    pub(crate) bytes: u64,
    pub(crate) created_at: u64,
    pub(crate) expires_at: Option<u64>,
    pub(crate) filename: String,
    pub(crate) purpose: String,
}

impl FileMeta {
    pub(crate) fn expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// A file that can be used.
#[derive(Debug)]
pub(crate) struct StoredFile {
    pub(crate) meta: FileMeta,
    /// See the module's text. True once the file has been deleted.
    pub(crate) gate: Arc<tokio::sync::RwLock<bool>>,
}

/// A batch's status, as OpenAI names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Validating,
    Failed,
    InProgress,
    Finalizing,
    Completed,
    Expired,
    Cancelling,
    Cancelled,
}

impl Status {
    pub(crate) fn ended(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Rows by outcome, as `request_counts` shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
}

/// Tokens of the answered rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
}

/// Everything about a batch but its rows. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    /// Orders listings; grows with time.
    pub(crate) seq: u64,
    pub(crate) endpoint: String,
    pub(crate) model: Option<String>,
    pub(crate) input_file_id: String,
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    /// Seconds that the result files live; forever without.
    pub(crate) output_expires_after: Option<u64>,
    /// Rows of the input, once it has been found valid.
    pub(crate) rows: u64,
    pub(crate) status: Status,
    /// Why the batch fails, or will when `validating` is over.
    pub(crate) errors: Vec<BatchError>,
    pub(crate) created_at: u64,
    pub(crate) in_progress_at: Option<u64>,
    pub(crate) finalizing_at: Option<u64>,
    pub(crate) completed_at: Option<u64>,
    pub(crate) failed_at: Option<u64>,
    #[serde(default)]
    pub(crate) expired_at: Option<u64>,
    pub(crate) cancelling_at: Option<u64>,
    pub(crate) cancelled_at: Option<u64>,
    pub(crate) counts: Counts,
    pub(crate) usage: Usage,
    pub(crate) output_file_id: Option<String>,
    pub(crate) error_file_id: Option<String>,
    /// What goes wrong with it on purpose.
    #[serde(default)]
    pub(crate) faults: Vec<Chosen>,
}

impl Record {
    /// A batch that has just been asked for.
    pub(crate) fn new(id: String, seq: u64, input_file_id: String, created_at: u64) -> Self {
        Self {
            id,
            seq,
            endpoint: ENDPOINT.to_owned(),
            model: None,
            input_file_id,
            metadata: None,
            output_expires_after: None,
            rows: 0,
            status: Status::Validating,
            errors: Vec::new(),
            created_at,
            in_progress_at: None,
            finalizing_at: None,
            completed_at: None,
            failed_at: None,
            expired_at: None,
            cancelling_at: None,
            cancelled_at: None,
            counts: Counts::default(),
            usage: Usage::default(),
            output_file_id: None,
            error_file_id: None,
            faults: Vec::new(),
        }
    }
}

/// A batch that can be listed.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: String,
    pub(crate) record: Mutex<Record>,
    /// Set when a client cancels.
    pub(crate) cancel: CancellationToken,
}

impl Batch {
    pub(crate) fn new(record: Record) -> Self {
        let cancel = CancellationToken::new();
        if record.status == Status::Cancelling {
            cancel.cancel();
        }
        Self { id: record.id.clone(), record: Mutex::new(record), cancel }
    }

    /// A copy of the record as it is now.
    pub(crate) fn record(&self) -> Record {
        lock(&self.record).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_file_is_gone() {
        let meta = |expires_at| FileMeta {
            id: "file-1".into(),
            seq: 1,
            bytes: 0,
            created_at: 0,
            expires_at,
            filename: String::new(),
            purpose: "batch".into(),
        };
        assert!(meta(Some(5)).expired(5));
        assert!(!meta(Some(6)).expired(5));
        assert!(!meta(None).expired(5));
    }
}
