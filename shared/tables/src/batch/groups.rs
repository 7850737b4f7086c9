//! What batch and result data share: row groups of bounded size, and reading one of them at a time.

use std::fs::File;
use std::ops::Range;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::reader::{ChunkReader, Length};

use super::{Codec, size};
use crate::parquet_in::{Footer, FooterReader, guarded};
use crate::source::unreadable;
use crate::{Caps, Error};

/// The most uncompressed bytes of a row group; one row alone may be larger.
pub const MAX_GROUP_BYTES: usize = 16_000_000;
/// The most rows of a row group: where the caller's rows are short, it is the answers beside them that need memory.
pub const MAX_GROUP_ROWS: usize = 16_384;
/// A dictionary that grows beyond this is given up for the rest of its row group.
const DICTIONARY_BYTES: usize = 128 * 1024;

/// The size of a page before it is compressed, about. A page is copied several times on its way into the file, and is decoded as
/// a whole, also for one row of it: both are cheap only while it stays in a processor's own cache. Much smaller, and the codecs
/// find less to shorten.
const PAGE_BYTES: usize = 32 << 10;
/// After so many cells it is looked whether a page is full.
const PAGE_CELLS: usize = 128;

/// What all our Parquet files have in common.
pub(crate) fn properties(codec: Codec) -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(codec.compression())
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(PAGE_CELLS)
        .set_max_row_group_row_count(None)
}

/// A Parquet writer into memory that ends row groups in time. The caller drains what is encoded.
pub(crate) struct GroupWriter {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    group_bytes: usize,
    rows: u64,
}

impl GroupWriter {
    pub(crate) fn new(schema: SchemaRef, properties: WriterProperties) -> Result<Self, Error> {
        let writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(&schema), Some(properties))?;
        Ok(Self { writer, schema, group_bytes: 0, rows: 0 })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends rows, over as many row groups as they need.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let mut rest = batch.clone();
        while rest.num_rows() > 0 {
            let room = MAX_GROUP_ROWS - self.writer.in_progress_rows();
            let head = rest.slice(0, room.min(rest.num_rows()));
            let fitting = size::rows_within(&head, MAX_GROUP_BYTES.saturating_sub(self.group_bytes));
            if fitting == 0 && self.writer.in_progress_rows() > 0 {
                self.end_group()?;
                continue;
            }
            let head = head.slice(0, fitting.max(1));
            self.writer.write(&head)?;
            self.group_bytes += size::batch_bytes(&head);
            self.rows += head.num_rows() as u64;
            let full = self.group_bytes.max(self.writer.in_progress_size()) >= MAX_GROUP_BYTES;
            if full || self.writer.in_progress_rows() >= MAX_GROUP_ROWS {
                self.end_group()?;
            }
            rest = rest.slice(head.num_rows(), rest.num_rows() - head.num_rows());
        }
        Ok(())
    }

    /// Ends the row group that is open, if it has rows.
    pub(crate) fn end_group(&mut self) -> Result<(), Error> {
        self.group_bytes = 0;
        Ok(self.writer.flush()?)
    }

    /// What was encoded since the last call.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.inner_mut())
    }

    /// Ends the file, with this in its metadata, and gives the rest of its bytes.
    pub(crate) fn finish(mut self, metadata: impl Into<Option<KeyValue>>) -> Result<Vec<u8>, Error> {
        if let Some(metadata) = metadata.into() {
            self.writer.append_key_value_metadata(metadata);
        }
        Ok(self.writer.into_inner()?)
    }
}

/// The footer of a data object of ours. What would be a refusal of a caller's file is a defect here.
pub(crate) fn read_footer(file: &File) -> Result<Footer, Error> {
    footer_of(file.len(), |range| {
        let length = usize::try_from(range.end - range.start)
            .map_err(|_| Error::data("the data object does not fit this machine"))?;
        Ok(file.get_bytes(range.start, length)?)
    })
}

/// The same, of an object of so many bytes of which `read` gives ranges.
pub(crate) fn footer_of(bytes: u64, read: impl Fn(Range<u64>) -> Result<Bytes, Error>) -> Result<Footer, Error> {
    let caps =
        Caps { max_columns: usize::MAX, max_footer_bytes: 1 << 30, max_row_group_bytes: u64::MAX, ..Caps::default() };
    let mut reader = FooterReader::open(bytes, caps);
    loop {
        match reader.step().map_err(broken)? {
            Ok(footer) => return Ok(footer),
            Err(range) => reader.push(&range, read(range.clone())?),
        }
    }
}

fn broken(error: Error) -> Error {
    match error {
        Error::Input(refusal) => Error::data(format!("the data object is broken: {}", refusal.message)),
        error => error,
    }
}

/// The rows of one row group, those columns only that stand at the places in `roots`.
pub(crate) fn read_group(
    file: &File,
    footer: &Footer,
    group: usize,
    roots: Option<&[usize]>,
) -> Result<RecordBatch, Error> {
    let file = file.try_clone().map_err(|error| unreadable(&error))?;
    read_selected(file, &footer.arrow, group, roots, None)
}

/// The same as a reader of a few rows at a time.
pub(crate) fn group_reader(
    file: &File,
    footer: &Footer,
    group: usize,
    roots: Option<&[usize]>,
    rows: usize,
) -> Result<ParquetRecordBatchReader, Error> {
    let file = file.try_clone().map_err(|error| unreadable(&error))?;
    Ok(guarded(|| rows_reader(file, &footer.arrow, group, roots, (None, rows)))?)
}

/// The same, of some rows only: a selection and how many they are.
pub(crate) fn read_selected(
    reader: impl ChunkReader + 'static,
    arrow: &ArrowReaderMetadata,
    group: usize,
    roots: Option<&[usize]>,
    selected: Option<(RowSelection, usize)>,
) -> Result<RecordBatch, Error> {
    let rows = group_rows(arrow, group)?;
    let wanted = selected.as_ref().map_or(rows, |(_, wanted)| *wanted);
    let selection = selected.map(|(selection, _)| selection);
    let batch = guarded(|| {
        rows_reader(reader, arrow, group, roots, (selection, rows))?.next().transpose().map_err(Into::into)
    })?;
    let batch = batch.ok_or_else(|| Error::data(format!("row group {group} has no rows")))?;
    if batch.num_rows() != wanted {
        return Err(Error::data(format!("row group {group} gave {} rows of {wanted}", batch.num_rows())));
    }
    Ok(batch)
}

/// How many rows a row group has.
pub(crate) fn group_rows(arrow: &ArrowReaderMetadata, group: usize) -> Result<usize, Error> {
    let rows = arrow.metadata().row_group_num_rows(group)?;
    if rows > MAX_GROUP_ROWS {
        return Err(Error::data(format!(
            "row group {group} has {rows} rows; data objects have at most {MAX_GROUP_ROWS}"
        )));
    }
    Ok(rows)
}

/// A reader of one row group's rows, so many at a time; see [`read_selected`].
pub(crate) fn rows_reader(
    reader: impl ChunkReader + 'static,
    arrow: &ArrowReaderMetadata,
    group: usize,
    roots: Option<&[usize]>,
    (selection, rows): (Option<RowSelection>, usize),
) -> parquet::errors::Result<ParquetRecordBatchReader> {
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(reader, arrow.clone());
    let mask = match roots {
        Some(roots) => ProjectionMask::roots(builder.parquet_schema(), roots.iter().copied()),
        None => ProjectionMask::all(),
    };
    let mut builder = builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(rows.max(1));
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    builder.build()
}

/// The column at a place, as the type that it must have.
pub(crate) fn column<T: Array + Clone + 'static>(batch: &RecordBatch, place: usize, name: &str) -> Result<T, Error> {
    let column = batch.columns().get(place).and_then(|column| column.as_any().downcast_ref::<T>());
    column.cloned().ok_or_else(|| Error::data(format!("the data object's column {place} is not {name} as it must be")))
}

/// The value under a key in a file's metadata: the last one, which is ours even if the caller's schema has the key.
pub(crate) fn metadata_entry<'a>(metadata: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    entries.iter().rev().find(|entry| entry.key == key)?.value.as_deref()
}
