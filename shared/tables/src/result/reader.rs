//! Reading result data, a row group at a time, row by row, or only how its rows ended.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, StringViewArray, UInt32Array, UInt64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use model::{FailureKind, RowStatus};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use super::final_row::message_of;
use super::{ResultRow, SCHEMA, Usage, VIEWS};
use crate::batch::column;
use crate::parquet_in::guarded;
use crate::source::{Group, Groups};
use crate::{Error, Source};

/// Reads a result file: an iterator over its rows, some at a time, or [`ResultReader::next_row`]. Memory is one row group as it
/// lies in the file, and the rows at hand.
#[derive(Debug)]
pub struct ResultReader {
    groups: Groups,
    current: Option<ResultRows>,
    next_row: usize,
}

/// Some rows of one row group.
#[derive(Debug, Clone)]
pub struct ResultRows {
    row: UInt64Array,
    /// Response, error, status, error kind, finish reason, model.
    texts: [StringViewArray; 6],
    /// Input, cached, output, reasoning.
    counts: [Int64Array; 4],
    tries: UInt32Array,
}

/// How the rows of one row group ended, and nothing of what was answered.
#[derive(Debug, Clone)]
pub struct Ends {
    row: UInt64Array,
    status: StringViewArray,
    /// Read only if a row was not answered.
    kind: Option<StringViewArray>,
    /// Read only if they are wanted.
    counts: Option<[Int64Array; 4]>,
    /// All of it, encoded.
    pub(crate) group: Group,
}

/// How one row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The row of the input, from 0.
    pub row: u64,
    /// Answered, failed for good, or tried again.
    pub status: RowStatus,
    /// Why it failed.
    pub error_kind: Option<FailureKind>,
    /// Tokens, if they were read.
    pub usage: Usage,
}

impl ResultReader {
    /// Opens a result file.
    ///
    /// # Errors
    /// When the file is no result data, or is broken.
    pub fn open(source: impl Source + 'static) -> Result<Self, Error> {
        let mut groups = Groups::open(Box::new(source))?;
        let footer = &mut groups.footer;
        if footer.schema().fields() != SCHEMA.fields() {
            return Err(Error::data("the file's columns are not those of result data"));
        }
        let views = ArrowReaderOptions::new().with_schema(SchemaRef::clone(&VIEWS));
        footer.arrow = guarded(|| ArrowReaderMetadata::try_new(Arc::clone(footer.arrow.metadata()), views))?;
        Ok(Self { groups, current: None, next_row: 0 })
    }

    /// How many rows the file has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.groups.footer.rows
    }

    /// How many rows the next row group has; none behind the last, or if not all rows of the one before were given.
    #[must_use]
    pub fn next_group_rows(&self) -> Option<usize> {
        self.groups.next_group_rows()
    }

    /// How the rows of the next row group ended, instead of its rows; with their tokens or without. `None` behind the
    /// last group.
    ///
    /// # Errors
    /// When the file is broken, or has a status that this version does not know.
    pub fn next_ends(&mut self, usage: bool) -> Result<Option<Ends>, Error> {
        self.groups.next()?.map(|group| Ends::read(group, usage)).transpose()
    }

    /// To be called behind the last row.
    ///
    /// # Errors
    /// When what was read was not the object that it should be.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.groups.finish()
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

    /// The next rows, of one row group; nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.groups.next_rows(None).transpose()?;
        Some(batch.and_then(|batch| ResultRows::new(&batch)).inspect_err(|_| self.groups.stop()))
    }
}

/// The column at a place of the rows, which is `place` of the file.
fn text(batch: &RecordBatch, at: usize, place: usize) -> Result<StringViewArray, Error> {
    column(batch, at, SCHEMA.field(place).name())
}

fn count(batch: &RecordBatch, at: usize, place: usize) -> Result<Int64Array, Error> {
    column(batch, at, SCHEMA.field(place).name())
}

fn usage(counts: &[Int64Array; 4], index: usize) -> Usage {
    // The writer has no negative counts; a file that has them was not written by it.
    let count = |column: usize| {
        counts[column].is_valid(index).then(|| u64::try_from(counts[column].value(index)).unwrap_or_default())
    };
    Usage { input: count(0), cached: count(1), output: count(2), reasoning: count(3) }
}

fn unknown(index: usize, what: &str, text: &str) -> Error {
    Error::data(format!("result row {index} has the {what} {text:?}, which this version does not know"))
}

fn status(column: &StringViewArray, index: usize) -> Result<RowStatus, Error> {
    let text = if column.is_valid(index) { column.value(index) } else { "" };
    RowStatus::parse(text).ok_or_else(|| unknown(index, "status", text))
}

fn kind(column: &StringViewArray, index: usize) -> Result<Option<FailureKind>, Error> {
    let text = column.is_valid(index).then(|| column.value(index));
    text.map(|text| FailureKind::parse(text).ok_or_else(|| unknown(index, "failure kind", text))).transpose()
}

impl Ends {
    fn read(group: Group, usage: bool) -> Result<Self, Error> {
        let wanted: &[usize] = if usage { &[0, 3, 7, 8, 9, 10] } else { &[0, 3] };
        let batch = group.read(Some(wanted), None)?;
        let status = text(&batch, 1, 3)?;
        let mut ends = Self { row: column(&batch, 0, "_row")?, status, kind: None, counts: None, group };
        if usage {
            ends.counts =
                Some([count(&batch, 2, 7)?, count(&batch, 3, 8)?, count(&batch, 4, 9)?, count(&batch, 5, 10)?]);
        }
        let answered = Some(RowStatus::Answered.as_str());
        if !ends.status.iter().all(|status| status == answered) {
            ends.kind = Some(text(&ends.group.read(Some(&[4]), None)?, 0, 4)?);
        }
        Ok(ends)
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

    /// How the row at `index` ended.
    ///
    /// # Errors
    /// When there is no such row, or it has a status or a kind of failure that this version does not know.
    pub fn get(&self, index: usize) -> Result<End, Error> {
        if index >= self.len() {
            return Err(Error::data(format!("result row {index} was asked for among {}", self.len())));
        }
        Ok(End {
            row: self.row.value(index),
            status: status(&self.status, index)?,
            error_kind: self.kind.as_ref().map(|column| kind(column, index)).transpose()?.flatten(),
            usage: self.counts.as_ref().map_or_else(Usage::default, |counts| usage(counts, index)),
        })
    }
}

impl ResultRows {
    fn new(batch: &RecordBatch) -> Result<Self, Error> {
        let text = |place: usize| text(batch, place, place);
        let count = |place: usize| count(batch, place, place);
        Ok(Self {
            row: column(batch, 0, "_row")?,
            texts: [text(1)?, text(2)?, text(3)?, text(4)?, text(5)?, text(6)?],
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

    /// The input row at `index`; none beyond the last.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<u64> {
        self.row.values().get(index).copied()
    }

    /// How the row at `index` ended in this attempt.
    ///
    /// # Errors
    /// When there is no such row, or its status is one that this version does not know.
    pub fn status(&self, index: usize) -> Result<RowStatus, Error> {
        if index >= self.len() {
            return Err(Error::data(format!("result row {index} was asked for among {}", self.len())));
        }
        status(&self.texts[2], index)
    }

    /// The tokens of the row at `index`; none of a row that there is not.
    #[must_use]
    pub fn usage(&self, index: usize) -> Usage {
        if index < self.len() { usage(&self.counts, index) } else { Usage::default() }
    }

    /// The row at `index`, its text borrowed.
    ///
    /// # Errors
    /// When there is no such row, or it has a status or a kind of failure that this version does not know.
    pub fn get(&self, index: usize) -> Result<ResultRow<'_>, Error> {
        let row = self.row(index);
        let row = row.ok_or_else(|| Error::data(format!("result row {index} was asked for among {}", self.len())))?;
        let text = |column: usize| self.texts[column].is_valid(index).then(|| self.texts[column].value(index));
        let error_kind = kind(&self.texts[3], index)?;
        let error = text(1).map(|cell| {
            message_of(cell, error_kind)
                .map_err(|()| Error::data(format!("result row {index} has an error that is not of its kind")))
        });
        Ok(ResultRow {
            row,
            status: status(&self.texts[2], index)?,
            response: text(0),
            error_kind,
            error: error.transpose()?.flatten(),
            finish_reason: text(4),
            model: text(5),
            usage: usage(&self.counts, index),
            tries: self.tries.value(index),
        })
    }
}
