//! What a batch file says about itself in its footer.

use model::{BatchId, JobId, Nonce};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use serde::{Deserialize, Serialize};

use super::metadata_entry;
use crate::parquet_in::{guarded, metadata_bytes};
use crate::{Error, Position};

/// The key of the [`BatchMeta`] in a batch file's key-value metadata.
pub const META_KEY: &str = "batchmill.batch";
/// The version of this metadata.
const SCHEMA: u32 = 1;
/// No footer of ours comes near this.
const MAX_FOOTER_BYTES: usize = 1 << 30;

/// What is known of a batch when its file is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHead {
    /// The job.
    pub job: JobId,
    /// Which batch and attempt.
    pub id: BatchId,
    /// The nonce of this attempt's custom ids, which stands in the object's key too.
    pub nonce: Nonce,
    /// Where its first row begins in the input.
    pub first: Position,
}

/// What a batch file says about itself: all that resuming a split after it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchMeta {
    /// Version of this metadata.
    pub schema: u32,
    /// The job.
    pub job: JobId,
    /// Which batch and attempt.
    #[serde(flatten)]
    pub id: BatchId,
    /// The nonce of this attempt's custom ids.
    pub nonce: Nonce,
    /// Where its first row begins in the input.
    pub first: Position,
    /// Where the row behind its last one begins.
    pub end: Position,
    /// Its rows.
    pub rows: u64,
    /// Rows that are sent; the others failed locally.
    pub send_rows: u64,
    /// Exact size of their encoded requests, in bytes.
    pub send_bytes: u64,
}

/// What reading the metadata from the end of a file gives.
#[derive(Debug, PartialEq, Eq)]
pub enum MetaStep {
    /// So many of the file's last bytes are needed.
    Need(usize),
    /// The metadata.
    Meta(BatchMeta),
}

impl BatchMeta {
    pub(crate) fn new(head: BatchHead, end: Position, rows: u64, send_rows: u64, send_bytes: u64) -> Self {
        let BatchHead { job, id, nonce, first } = head;
        Self { schema: SCHEMA, job, id, nonce, first, end, rows, send_rows, send_bytes }
    }

    /// Reads the metadata from the last bytes of a batch file; 8 bytes say how many it takes. Reading 64 KiB at first
    /// mostly is enough.
    ///
    /// # Errors
    /// When the bytes are not the end of a batch file.
    pub fn from_tail(tail: &[u8]) -> Result<MetaStep, Error> {
        if tail.len() < 8 {
            return Ok(MetaStep::Need(8));
        }
        let footer = metadata_bytes(tail)?;
        if footer > MAX_FOOTER_BYTES {
            return Err(Error::data(format!("the batch data says that its footer has {footer} bytes")));
        }
        let whole = footer + 8;
        let Some(start) = tail.len().checked_sub(whole) else { return Ok(MetaStep::Need(whole)) };
        let metadata = guarded(|| ParquetMetaDataReader::decode_metadata(&tail[start..start + footer]))?;
        Self::from_metadata(&metadata).map(MetaStep::Meta)
    }

    pub(crate) fn from_metadata(metadata: &ParquetMetaData) -> Result<Self, Error> {
        let text = metadata_entry(metadata, META_KEY)
            .ok_or_else(|| Error::data(format!("the file has no {META_KEY}: it is no batch data")))?;
        let meta: Self = serde_json::from_str(text)
            .map_err(|error| Error::data(format!("the batch data's {META_KEY} can't be read: {error}")))?;
        if meta.schema != SCHEMA {
            return Err(Error::data(format!(
                "the batch data has version {} of {META_KEY}; this program reads {SCHEMA}",
                meta.schema
            )));
        }
        Ok(meta)
    }
}
