//! Reading batch data, a row group at a time, or in smaller chunks.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use model::FailureKind;
use model::retry::Tries;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader};

use super::{BatchMeta, OWN_COLUMNS, column, group_reader, read_footer, read_group};
use crate::Error;
use crate::parquet_in::{Footer, guarded};

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

/// Reads a batch file in chunks of a few rows, as [`BatchReader::into_chunks`] says.
#[derive(Debug)]
pub struct BatchChunks {
    batches: BatchReader,
    rows: usize,
    /// The row group that is being read, and how many rows of it are still to come.
    group: Option<(ParquetRecordBatchReader, usize)>,
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

    /// The same, but the caller's texts and bytes come as views of the pages' bytes (`Utf8View`, `BinaryView`), which saves a
    /// copy of them all. For who looks at the values, not for who writes them again.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn with_views(mut self) -> Result<Self, Error> {
        let viewed = |(place, field): (usize, &FieldRef)| match field.data_type() {
            DataType::Utf8 if place >= OWN_COLUMNS => retyped(field, DataType::Utf8View),
            DataType::Binary if place >= OWN_COLUMNS => retyped(field, DataType::BinaryView),
            _ => FieldRef::clone(field),
        };
        let fields: Vec<FieldRef> = self.footer.schema().fields().iter().enumerate().map(viewed).collect();
        let views = ArrowReaderOptions::new().with_schema(SchemaRef::new(Schema::new(fields)));
        let metadata = Arc::clone(self.footer.arrow.metadata());
        self.footer.arrow = guarded(|| ArrowReaderMetadata::try_new(metadata, views))?;
        Ok(self)
    }

    /// The rows in chunks of at most so many, which end with their row group. A page is unpacked when its rows are wanted, so it is
    /// still in the processor's cache when they are looked at, and memory is the pages that a chunk touches.
    #[must_use]
    pub fn into_chunks(self, rows: usize) -> BatchChunks {
        BatchChunks { batches: self, rows: rows.max(1), group: None }
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
        rows_of(&read_group(&self.file, &self.footer, group, roots)?, group, first_in_batch)
    }
}

/// Rows as they were read.
fn rows_of(batch: &RecordBatch, group: usize, first_in_batch: usize) -> Result<BatchRows, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let carried = batch.columns().get(OWN_COLUMNS..).unwrap_or_default().to_vec();
    Ok(BatchRows {
        group,
        first_in_batch,
        row_ids: column(batch, 0, "_row")?,
        error_kind: column(batch, 1, "_error_kind")?,
        error: column(batch, 2, "_error")?,
        tries: column(batch, 3, "_tries")?,
        carried: RecordBatch::try_new_with_options(carried_schema(batch.schema_ref()), carried, &options)?,
    })
}

/// A field of another type.
fn retyped(field: &FieldRef, to: DataType) -> FieldRef {
    FieldRef::new(field.as_ref().clone().with_data_type(to))
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

impl BatchChunks {
    /// What the file says about itself.
    #[must_use]
    pub fn meta(&self) -> &BatchMeta {
        self.batches.meta()
    }

    fn read(&mut self) -> Result<Option<BatchRows>, Error> {
        let BatchReader { file, footer, roots, next_group, next_row, .. } = &mut self.batches;
        loop {
            if let Some((reader, left)) = &mut self.group {
                let group = *next_group - 1;
                match guarded(|| Ok(reader.next().transpose()?))? {
                    Some(batch) if batch.num_rows() <= *left => {
                        let rows = rows_of(&batch, group, *next_row)?;
                        *left -= rows.len();
                        *next_row += rows.len();
                        return Ok(Some(rows));
                    }
                    None if *left == 0 => self.group = None,
                    _ => return Err(Error::data(format!("row group {group} has other rows than it says"))),
                }
                continue;
            }
            if *next_group >= footer.arrow.metadata().num_row_groups() {
                return Ok(None);
            }
            let rows = footer.arrow.metadata().row_group_num_rows(*next_group)?;
            let reader = group_reader(file, footer, *next_group, roots.as_deref(), self.rows)?;
            self.group = Some((reader, rows));
            *next_group += 1;
        }
    }
}

impl Iterator for BatchChunks {
    type Item = Result<BatchRows, Error>;

    /// The next rows; nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        if read.is_err() {
            (self.group, self.batches.next_group) = (None, usize::MAX);
        }
        read.transpose()
    }
}
