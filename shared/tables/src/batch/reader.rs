//! Reading batch data, a row group at a time.

use std::fs::File;

use arrow::array::{Array, StringArray, UInt64Array};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use model::FailureKind;
use model::retry::Tries;

use super::{BatchMeta, OWN_COLUMNS, column, read_footer, read_group};
use crate::Error;
use crate::parquet_in::Footer;

/// Reads a batch file: an iterator over its row groups, in order. Memory is one row group.
#[derive(Debug)]
pub struct BatchReader {
    file: File,
    footer: Footer,
    meta: BatchMeta,
    roots: Option<Vec<usize>>,
    next_group: usize,
    next_row: usize,
}

/// The rows of one row group of a batch.
#[derive(Debug, Clone)]
pub struct BatchRows {
    /// The row group that they are.
    group: usize,
    /// The index in the batch of the first of these rows.
    pub first_in_batch: usize,
    /// Which rows of the input they are.
    pub row_ids: UInt64Array,
    /// Why a row failed locally.
    pub error_kind: StringArray,
    /// The message for it.
    pub error: StringArray,
    /// Failures so far, as text.
    pub tries: StringArray,
    /// The caller's columns, those that were asked for.
    pub carried: RecordBatch,
}

impl BatchRows {
    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row_ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.row_ids.is_empty()
    }

    /// Why a row failed locally, if it did: such a row is never sent. A kind that this version does not know counts as
    /// `bad_row`.
    #[must_use]
    pub fn local_failure(&self, row: usize) -> Option<(FailureKind, &str)> {
        let kind = self.error_kind.is_valid(row).then(|| self.error_kind.value(row))?;
        let message = if self.error.is_valid(row) { self.error.value(row) } else { "" };
        Some((FailureKind::parse(kind).unwrap_or(FailureKind::BadRow), message))
    }

    /// A row's failures so far.
    #[must_use]
    pub fn tries(&self, row: usize) -> Tries {
        if self.tries.is_valid(row) { Tries::parse(self.tries.value(row)) } else { Tries::default() }
    }
}

impl BatchReader {
    /// Opens a batch file with all its columns.
    ///
    /// # Errors
    /// When the file is no batch data, or is broken.
    pub fn open(file: File) -> Result<Self, Error> {
        Self::open_projected(file, None)
    }

    /// Opens a batch file with only those of the caller's columns that `wanted` names by their place, from 0; they come
    /// in the file's order. Our own columns always come.
    ///
    /// # Errors
    /// When the file is no batch data, is broken, or lacks a wanted column.
    pub fn open_projected(file: File, wanted: Option<&[usize]>) -> Result<Self, Error> {
        let footer = read_footer(&file)?;
        let meta = BatchMeta::from_metadata(footer.arrow.metadata())?;
        if meta.rows != footer.rows {
            return Err(Error::data(format!("the batch data says {} rows and has {}", meta.rows, footer.rows)));
        }
        let carried = footer
            .schema()
            .fields()
            .len()
            .checked_sub(OWN_COLUMNS)
            .ok_or_else(|| Error::data("the batch data lacks its own columns"))?;
        if let Some(beyond) = wanted.unwrap_or_default().iter().find(|place| **place >= carried) {
            return Err(Error::data(format!("column {beyond} is wanted of batch data with {carried}")));
        }
        let roots =
            wanted.map(|wanted| (0..OWN_COLUMNS).chain(wanted.iter().map(|place| place + OWN_COLUMNS)).collect());
        Ok(Self { file, footer, meta, roots, next_group: 0, next_row: 0 })
    }

    /// What the file says about itself.
    #[must_use]
    pub fn meta(&self) -> &BatchMeta {
        &self.meta
    }

    /// All of the caller's columns, the unwanted ones too.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        carried_schema(self.footer.schema())
    }

    /// The same rows with all of the caller's columns, for who opened the file without them.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn with_carried(&self, rows: &BatchRows) -> Result<BatchRows, Error> {
        self.read(rows.group, rows.first_in_batch, None)
    }

    fn read(&self, group: usize, first_in_batch: usize, roots: Option<&[usize]>) -> Result<BatchRows, Error> {
        let batch = read_group(&self.file, &self.footer, group, roots)?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let carried = batch.columns().get(OWN_COLUMNS..).unwrap_or_default().to_vec();
        Ok(BatchRows {
            group,
            first_in_batch,
            row_ids: column(&batch, 0, "_row")?,
            error_kind: column(&batch, 1, "_error_kind")?,
            error: column(&batch, 2, "_error")?,
            tries: column(&batch, 3, "_tries")?,
            carried: RecordBatch::try_new_with_options(carried_schema(batch.schema_ref()), carried, &options)?,
        })
    }
}

/// The caller's columns of a batch file's schema.
pub(crate) fn carried_schema(schema: &Schema) -> SchemaRef {
    SchemaRef::new(Schema::new(schema.fields().iter().skip(OWN_COLUMNS).map(FieldRef::clone).collect::<Vec<_>>()))
}

impl Iterator for BatchReader {
    type Item = Result<BatchRows, Error>;

    /// The next row group; nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.next_group >= self.footer.arrow.metadata().num_row_groups() {
            return None;
        }
        let read = self.read(self.next_group, self.next_row, self.roots.as_deref());
        match &read {
            Ok(rows) => {
                self.next_group += 1;
                self.next_row += rows.len();
            }
            Err(_) => self.next_group = usize::MAX,
        }
        Some(read)
    }
}
