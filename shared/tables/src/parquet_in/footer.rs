//! The footer of a Parquet file: fetched in one or two ranges, decoded behind the guard, and checked before any of its
//! claims is believed. What is checked: its size, the columns (some, not too many, no two alike), that every column
//! chunk lies inside the file, that rows and values add up, and what a row group says that it will need uncompressed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use model::table::FileKind;
use model::{RefusalCode, TableInfo};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FooterTail, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};

use super::guard::guarded;
use super::schema;
use crate::{Caps, Error};

/// The 8 bytes at the end: the footer's length and the magic.
pub(crate) const TAIL_BYTES: usize = 8;
/// How much of the file's end is read at first: enough for most footers.
const FIRST_READ: u64 = 64 * 1024;

/// A decoded and checked footer.
#[derive(Debug, Clone)]
pub(crate) struct Footer {
    /// The metadata with the Arrow schema that follows from it.
    pub(crate) arrow: ArrowReaderMetadata,
    /// The rows of the file.
    pub(crate) rows: u64,
}

/// Fetches the footer.
#[derive(Debug)]
pub(crate) struct FooterReader {
    file_bytes: u64,
    caps: Caps,
    wanted: Range<u64>,
    got: Option<Bytes>,
}

impl FooterReader {
    pub(crate) fn open(file_bytes: u64, caps: Caps) -> Self {
        Self { file_bytes, caps, wanted: file_bytes.saturating_sub(FIRST_READ)..file_bytes, got: None }
    }

    pub(crate) fn push(&mut self, range: &Range<u64>, data: Bytes) {
        if *range == self.wanted {
            self.got = Some(data);
        }
    }

    /// The footer, or the range that it still needs.
    pub(crate) fn step(&mut self) -> Result<Result<Footer, Range<u64>>, Error> {
        if self.file_bytes < 12 {
            return Err(Error::input(
                RefusalCode::InputFormat,
                format!("the file has {} bytes, which is too short for Parquet", self.file_bytes),
            ));
        }
        let Some(tail) = self.got.take() else { return Ok(Err(self.wanted.clone())) };
        if tail.len() as u64 != self.wanted.end - self.wanted.start {
            return Err(Error::data(format!("asked for bytes {:?}, got {}", self.wanted, tail.len())));
        }
        let footer_bytes = metadata_bytes(&tail).map_err(|error| match error {
            ParquetError::NYI(message) => Error::input(RefusalCode::InputFormat, message),
            error => corrupt(&format!("its last bytes are no Parquet footer ({error}); it may be cut off")),
        })?;
        if footer_bytes > self.caps.max_footer_bytes {
            let cap = self.caps.max_footer_bytes;
            return Err(Error::input(
                RefusalCode::InputTooLarge,
                format!("the Parquet footer says that it has {footer_bytes} bytes; at most {cap} are read"),
            ));
        }
        let whole = footer_bytes + TAIL_BYTES;
        if whole as u64 + 4 > self.file_bytes {
            return Err(corrupt(&format!(
                "the footer says that it has {footer_bytes} bytes, the file has {}; it may be cut off",
                self.file_bytes
            )));
        }
        if tail.len() < whole {
            self.wanted = self.file_bytes - whole as u64..self.file_bytes;
            return Ok(Err(self.wanted.clone()));
        }
        let start = tail.len() - whole;
        let metadata = guarded(|| ParquetMetaDataReader::decode_metadata(&tail[start..start + footer_bytes]))
            .map_err(|error| corrupt(&format!("the footer can't be decoded: {error}")))?;
        Footer::check(metadata, self.file_bytes - whole as u64, &self.caps).map(Ok)
    }
}

/// The footer's length, from the end of a file (at least 8 bytes).
pub(crate) fn metadata_bytes(tail: &[u8]) -> Result<usize, ParquetError> {
    let start = tail.len().checked_sub(TAIL_BYTES).ok_or_else(|| ParquetError::EOF("fewer than 8 bytes".to_owned()))?;
    let footer = FooterTail::try_from(&tail[start..])?;
    if footer.is_encrypted_footer() {
        return Err(ParquetError::NYI(
            "the Parquet file is encrypted, which is not supported: write it without encryption".to_owned(),
        ));
    }
    Ok(footer.metadata_length())
}

/// A refusal for a file that is broken.
pub(crate) fn corrupt(what: &str) -> Error {
    Error::input(RefusalCode::InputCorrupt, format!("the Parquet file is broken: {what}"))
}

impl Footer {
    /// Checks what the footer claims; the data before it ends at `data_end`.
    fn check(metadata: ParquetMetaData, data_end: u64, caps: &Caps) -> Result<Self, Error> {
        check_columns(&metadata, caps)?;
        let mut rows = 0_u64;
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let wrong = |what: &str| corrupt(&format!("row group {number} {what}"));
            let group_rows = u64::try_from(group.num_rows()).map_err(|_| wrong("has a negative count of rows"))?;
            rows = rows.checked_add(group_rows).ok_or_else(|| wrong("brings the rows beyond every limit"))?;
            let uncompressed = check_group(group, data_end).map_err(|what| wrong(&what))?;
            if uncompressed > caps.max_row_group_bytes {
                let message = format!(
                    "row group {number} says that it has {uncompressed} bytes uncompressed; at most {} are read: write smaller row groups",
                    caps.max_row_group_bytes
                );
                return Err(Error::input(RefusalCode::InputTooLarge, message));
            }
        }
        if u64::try_from(metadata.file_metadata().num_rows()) != Ok(rows) {
            return Err(corrupt(&format!(
                "the footer says {} rows, its row groups have {rows}",
                metadata.file_metadata().num_rows()
            )));
        }
        let arrow = guarded(|| ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new()))
            .map_err(|error| corrupt(&format!("its columns can't be read as Arrow: {error}")))?;
        Ok(Self { arrow, rows })
    }

    /// The Arrow schema of the caller's columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        self.arrow.schema()
    }

    /// The description of the table.
    pub(crate) fn table_info(&self) -> TableInfo {
        let chunk = self.arrow.metadata().row_groups().first().and_then(|group| group.columns().first());
        TableInfo {
            kind: FileKind::Parquet,
            columns: self.schema().fields().iter().map(|field| field.name().clone()).collect(),
            csv: None,
            arrow_schema: Some(schema::encode(self.schema())),
            codec: chunk.map(|chunk| codec_name(chunk.compression()).to_owned()),
        }
    }
}

fn check_columns(metadata: &ParquetMetaData, caps: &Caps) -> Result<(), Error> {
    let columns = metadata.file_metadata().schema().get_fields();
    let leaves = metadata.file_metadata().schema_descr().num_columns();
    if columns.is_empty() || leaves == 0 {
        return Err(Error::input(
            RefusalCode::InputEmpty,
            "the Parquet file has no columns: nothing can be asked about its rows",
        ));
    }
    if leaves > caps.max_columns {
        let message = format!(
            "the Parquet file has {leaves} columns, those inside structs counted; at most {} are read",
            caps.max_columns
        );
        return Err(Error::input(RefusalCode::InputTooLarge, message));
    }
    let mut names = BTreeSet::new();
    for column in columns {
        if !names.insert(column.name()) {
            let message = format!("two columns are named {:?}: rename one of them", column.name());
            return Err(Error::input(RefusalCode::DuplicateColumn, message));
        }
    }
    Ok(())
}

/// Checks one row group's chunks against the file and gives their uncompressed bytes.
fn check_group(group: &RowGroupMetaData, data_end: u64) -> Result<u64, String> {
    if group.num_columns() != group.schema_descr().num_columns() {
        return Err(format!(
            "has {} column chunks, the schema {} columns",
            group.num_columns(),
            group.schema_descr().num_columns()
        ));
    }
    // Writers put anything into the offsets of what has no pages, and nobody follows them.
    if group.num_rows() == 0 {
        return Ok(0);
    }
    let mut uncompressed = 0_u64;
    for chunk in group.columns() {
        let wrong = |what: &str| format!("column {:?} {what}", chunk.column_path().string());
        if chunk.file_path().is_some_and(|path| !path.is_empty()) {
            return Err(wrong("lies in another file"));
        }
        chunk_range(chunk).filter(|range| range.end <= data_end).ok_or_else(|| wrong("lies outside the file"))?;
        if chunk.num_values() < 0
            || (chunk.column_descr().max_rep_level() == 0 && chunk.num_values() != group.num_rows())
        {
            return Err(wrong(&format!("has {} values for {} rows", chunk.num_values(), group.num_rows())));
        }
        let bytes = u64::try_from(chunk.uncompressed_size()).map_err(|_| wrong("has a negative size"))?;
        uncompressed = uncompressed.saturating_add(bytes);
    }
    Ok(uncompressed)
}

/// Where a column chunk lies; `None` when its offsets make no sense.
fn chunk_range(chunk: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let data = u64::try_from(chunk.data_page_offset()).ok()?;
    let start = match chunk.dictionary_page_offset() {
        Some(offset) => u64::try_from(offset).ok()?,
        None => data,
    };
    let end = start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?;
    (data >= start && data <= end).then_some(start..end)
}

/// How a row group's values would look in memory, in bytes: what Parquet says about unencoded sizes where it says it.
pub(crate) fn decoded_bytes(group: &RowGroupMetaData) -> u64 {
    let sizes = group.columns().iter().map(|chunk| {
        let unencoded = chunk.unencoded_byte_array_data_bytes().unwrap_or(0);
        u64::try_from(chunk.uncompressed_size().max(unencoded)).unwrap_or(0)
    });
    sizes.fold(0, u64::saturating_add)
}

fn codec_name(codec: Compression) -> &'static str {
    match codec {
        Compression::UNCOMPRESSED => "UNCOMPRESSED",
        Compression::SNAPPY => "SNAPPY",
        Compression::GZIP(_) => "GZIP",
        Compression::LZO => "LZO",
        Compression::BROTLI(_) => "BROTLI",
        Compression::LZ4 => "LZ4",
        Compression::ZSTD(_) => "ZSTD",
        Compression::LZ4_RAW => "LZ4_RAW",
    }
}
