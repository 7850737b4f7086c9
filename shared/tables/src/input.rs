//! What the readers of both formats share: how a reader asks for bytes, what it gives, and how it fails.
//!
//! A reader is a loop of [`Decoder::step`] and [`Decoder::push`]. `step` returns either the byte ranges that it needs
//! next (each is then pushed, whole, in any order within one `Need`), or a [`Chunk`] of rows, or the end. Calling
//! `step` again without pushing what was asked for asks for the same ranges again.
//!
//! A row that can't be read is a [`RowFault`] beside its chunk: the job decides whether it refuses the file or fails
//! the row alone. An [`Error`] ends the reading: the file as a whole can't be used.
//!
//! [`Chunk::end`] is where the next chunk begins. A reader opened with that [`Position`] gives exactly the rows that
//! the first one would have given from there on, so a split that died goes on after its last durable batch.

use std::ops::Range;

use arrow::array::{Array, BinaryArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use model::table::FileKind;
use model::{FailureKind, Refusal, RefusalCode, TableInfo};
use serde::{Deserialize, Serialize};

use crate::batch::size;
use crate::csv::{Cells, CsvDecoder};
use crate::parquet_in::ParquetDecoder;

/// What a decoder wants or has.
#[derive(Debug)]
pub enum Step {
    /// These bytes of the file are needed: push each range, then step again. Never empty.
    Need(Vec<Range<u64>>),
    /// The next rows.
    Rows(Chunk),
    /// There are no more rows. Every later step says so again.
    End(Ended),
}

/// Some consecutive rows of the input.
#[derive(Debug)]
pub struct Chunk {
    /// The number of the first row, counted from 0 over the whole input.
    pub first_row: u64,
    /// The carried columns: for CSV one column `record` (Binary), for Parquet the caller's own.
    pub rows: RecordBatch,
    /// The rows among them that are malformed, in order, each once.
    pub faults: Vec<RowFault>,
    /// Where the next chunk begins.
    pub end: Position,
    /// Where the cells of CSV records are, unless they have to be looked for.
    pub cells: Option<Box<Cells>>,
}

impl Chunk {
    /// How many bytes each row's cells take: exactly for CSV, the chunk's average for typed columns.
    #[must_use]
    pub fn source_bytes(&self) -> Vec<u64> {
        let rows = self.rows.num_rows();
        match self.rows.columns() {
            [records] if records.data_type() == &DataType::Binary => {
                let records = records.as_any().downcast_ref::<BinaryArray>();
                records.map_or_else(Vec::new, |records| (0..rows).map(|row| records.value(row).len() as u64).collect())
            }
            _ => vec![(size::batch_bytes(&self.rows) / rows.max(1)) as u64; rows],
        }
    }
}

/// A malformed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFault {
    /// The row's index in its chunk.
    pub row: usize,
    /// The kind that the row fails with, if it fails alone.
    pub kind: FailureKind,
    /// What is wrong and where; rows are counted from 1 here: `row 12 (line 14, byte 345): has 3 cells, the header 4`.
    pub message: String,
}

/// A place between two rows of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// The number of the row that begins here, counted from 0.
    pub row: u64,
    /// For CSV, its offset in the text (after gunzipping, a byte order mark included). 0 for Parquet.
    pub byte: u64,
    /// For CSV, how many line feeds stand before it, so that messages can name lines. 0 for Parquet.
    #[serde(default)]
    pub line: u64,
}

/// The end of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How many rows the input has, those before a resumed position included.
    pub rows: u64,
}

/// What a file may cost to read. Every cap is checked before the memory that it bounds is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// The longest CSV record (the header too), in bytes.
    pub max_record_bytes: usize,
    /// The most columns.
    pub max_columns: usize,
    /// The most text bytes for each gzipped byte, once the text is longer than [`GZIP_RATIO_GRACE`].
    pub max_gzip_ratio: u64,
    /// The largest Parquet footer, in bytes.
    pub max_footer_bytes: usize,
    /// The largest Parquet row group, in bytes, uncompressed.
    pub max_row_group_bytes: u64,
    /// A chunk ends with the row that brings it to this many bytes of carried data.
    pub chunk_bytes: usize,
    /// A chunk has at most this many rows.
    pub chunk_rows: usize,
    /// How many bytes of a CSV file are asked for at a time.
    pub read_bytes: u64,
}

/// A short text may compress by any ratio: only after this many bytes of text is [`Caps::max_gzip_ratio`] looked at.
pub const GZIP_RATIO_GRACE: u64 = 64 << 20;

impl Default for Caps {
    fn default() -> Self {
        Self {
            max_record_bytes: 16 << 20,
            max_columns: 16_384,
            max_gzip_ratio: 200,
            max_footer_bytes: 64 << 20,
            max_row_group_bytes: 2 << 30,
            chunk_bytes: 1 << 20,
            chunk_rows: 16_384,
            read_bytes: 4 << 20,
        }
    }
}

/// A reader of either format.
#[derive(Debug)]
pub enum Decoder {
    /// Delimited text.
    Csv(CsvDecoder),
    /// Apache Parquet.
    Parquet(ParquetDecoder),
}

impl Decoder {
    /// Opens a file of `bytes` bytes that [`crate::Opener`] has described, at its beginning or where an earlier reader
    /// left off.
    ///
    /// # Errors
    /// When the description lacks what its kind needs, or a cap is broken already.
    pub fn open(info: &TableInfo, bytes: u64, caps: Caps, resume: Option<Position>) -> Result<Self, Error> {
        Ok(match info.kind {
            FileKind::Csv => Self::Csv(CsvDecoder::open(info, bytes, caps, resume)?),
            FileKind::Parquet => Self::Parquet(ParquetDecoder::open(info, bytes, caps, resume)?),
        })
    }

    /// Goes on as far as the pushed bytes allow.
    ///
    /// # Errors
    /// When the file can't be used; stepping again is then pointless.
    pub fn step(&mut self) -> Result<Step, Error> {
        match self {
            Self::Csv(decoder) => decoder.step(),
            Self::Parquet(decoder) => decoder.step(),
        }
    }

    /// Hands over the bytes of one range that was asked for. `data` is as long as `range`; that it is not, is found by
    /// the next step.
    pub fn push(&mut self, range: Range<u64>, data: Bytes) {
        match self {
            Self::Csv(decoder) => decoder.push(range, data),
            Self::Parquet(decoder) => decoder.push(range, data),
        }
    }
}

/// Why a file, or a data object, can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's file can't be used: the job is refused with this.
    #[error("{0}")]
    Input(Refusal),
    /// A data object of ours, or a call, is not what it must be: a defect, or a store that lost bytes.
    #[error("{0}")]
    Data(String),
    /// Arrow failed on data that is ours.
    #[error("Arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Parquet failed on data that is ours.
    #[error("Parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
}

impl Error {
    /// A refusal of the caller's file.
    pub fn input(code: RefusalCode, message: impl Into<String>) -> Self {
        Self::Input(Refusal { code, message: message.into() })
    }

    /// Data of ours that is not what it must be.
    pub fn data(message: impl Into<String>) -> Self {
        Self::Data(message.into())
    }

    /// The refusal, if it is the caller's file that is at fault.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Input(refusal) => Some(refusal),
            _ => None,
        }
    }
}
