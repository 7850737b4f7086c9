//! Reading result data, a row group at a time or row by row.

use std::fs::File;

use arrow::array::{Array, StringArray, UInt32Array, UInt64Array};
use arrow::record_batch::RecordBatch;
use model::{FailureKind, RowStatus};

use super::{ResultRow, SCHEMA, Usage};
use crate::Error;
use crate::batch::{column, read_footer, read_group};
use crate::parquet_in::Footer;

/// Reads a result file: an iterator over its row groups, or [`ResultReader::next_row`]. Memory is one row group.
#[derive(Debug)]
pub struct ResultReader {
    file: File,
    footer: Footer,
    next_group: usize,
    current: Option<ResultRows>,
    next_row: usize,
}

/// The rows of one row group.
#[derive(Debug, Clone)]
pub struct ResultRows {
    row: UInt64Array,
    status: StringArray,
    /// Response, error kind, error, finish reason, model.
    texts: [StringArray; 5],
    /// Input, cached, output, reasoning.
    counts: [UInt64Array; 4],
    tries: UInt32Array,
}

impl ResultReader {
    /// Opens a result file.
    ///
    /// # Errors
    /// When the file is no result data, or is broken.
    pub fn open(file: File) -> Result<Self, Error> {
        let footer = read_footer(&file)?;
        if footer.schema().fields() != SCHEMA.fields() {
            return Err(Error::data("the file's columns are not those of result data"));
        }
        Ok(Self { file, footer, next_group: 0, current: None, next_row: 0 })
    }

    /// How many rows the file has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.footer.rows
    }

    /// The next row, or `None` behind the last one. Rows that the iterator gave are not given again.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn next_row(&mut self) -> Result<Option<ResultRow<'_>>, Error> {
        while self.current.as_ref().is_none_or(|rows| self.next_row >= rows.len()) {
            match self.next() {
                None => return Ok(None),
                Some(rows) => (self.current, self.next_row) = (Some(rows?), 0),
            }
        }
        self.next_row += 1;
        self.current.as_ref().map(|rows| rows.get(self.next_row - 1)).transpose()
    }
}

impl Iterator for ResultReader {
    type Item = Result<ResultRows, Error>;

    /// The next row group; nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.next_group >= self.footer.arrow.metadata().num_row_groups() {
            return None;
        }
        let read =
            read_group(&self.file, &self.footer, self.next_group, None).and_then(|batch| ResultRows::new(&batch));
        self.next_group = if read.is_ok() { self.next_group + 1 } else { usize::MAX };
        Some(read)
    }
}

impl ResultRows {
    fn new(batch: &RecordBatch) -> Result<Self, Error> {
        let text = |place: usize| column::<StringArray>(batch, place, SCHEMA.field(place).name());
        let count = |place: usize| column::<UInt64Array>(batch, place, SCHEMA.field(place).name());
        Ok(Self {
            row: count(0)?,
            status: text(1)?,
            texts: [text(2)?, text(3)?, text(4)?, text(5)?, text(6)?],
            counts: [count(7)?, count(8)?, count(9)?, count(10)?],
            tries: column(batch, 11, "tries")?,
        })
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.row.is_empty()
    }

    /// The row at `index`, its text borrowed.
    ///
    /// # Errors
    /// When there is no such row, or it has a status or a kind of failure that this version does not know.
    pub fn get(&self, index: usize) -> Result<ResultRow<'_>, Error> {
        if index >= self.len() {
            return Err(Error::data(format!("result row {index} was asked for among {}", self.len())));
        }
        let text = |column: usize| self.texts[column].is_valid(index).then(|| self.texts[column].value(index));
        let count = |column: usize| self.counts[column].is_valid(index).then(|| self.counts[column].value(index));
        let unknown = |what: &str, text: &str| {
            Error::data(format!("result row {index} has the {what} {text:?}, which this version does not know"))
        };
        let status = self.status.value(index);
        let kind = text(1).map(|kind| FailureKind::parse(kind).ok_or_else(|| unknown("failure kind", kind)));
        Ok(ResultRow {
            row: self.row.value(index),
            status: RowStatus::parse(status).ok_or_else(|| unknown("status", status))?,
            response: text(0),
            error_kind: kind.transpose()?,
            error: text(2),
            finish_reason: text(3),
            model: text(4),
            usage: Usage { input: count(0), cached: count(1), output: count(2), reasoning: count(3) },
            tries: self.tries.value(index),
        })
    }
}
