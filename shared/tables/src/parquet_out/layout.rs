//! The bytes of the output: column chunks one behind the other, and what the footer says of them.
//!
//! A Parquet writer would copy each chunk through buffers of its own. Here a chunk stays where it lies in memory, and its
//! description moves to its new place; what is handed on are pieces of the row groups that were read. The footer is written by the
//! Parquet library from those descriptions.

use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};

use crate::Error;

/// What a Parquet file begins with.
const MAGIC: &[u8] = b"PAR1";

type Result<T, E = ParquetError> = std::result::Result<T, E>;

/// A file in the making.
#[derive(Debug)]
pub(super) struct Layout {
    /// What the footer says but for the rows.
    file: FileMetaData,
    groups: Vec<RowGroupMetaData>,
    /// The columns of the row group that is open.
    open: Vec<ColumnChunkMetaData>,
    pieces: Vec<Bytes>,
    /// How long the file is so far.
    bytes: u64,
    rows: u64,
}

impl Layout {
    /// A file with the schema and the metadata of `empty`.
    pub(super) fn new(empty: &ParquetMetaData) -> Self {
        let (file, groups, open) = (empty.file_metadata().clone(), Vec::new(), Vec::new());
        Self { file, groups, open, pieces: vec![Bytes::from_static(MAGIC)], bytes: MAGIC.len() as u64, rows: 0 }
    }

    /// How many rows it has.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends the next column of the open row group: a chunk as it is described elsewhere.
    pub(super) fn append(&mut self, chunk: &ColumnChunkMetaData, bytes: Bytes) -> Result<(), Error> {
        let columns = self.file.schema_descr().columns();
        let column = columns.get(self.open.len()).map(Arc::clone);
        let column = column.ok_or_else(|| Error::data("a row group has more columns than the output"))?;
        self.open.push(moved(chunk, column, self.bytes)?);
        self.bytes += bytes.len() as u64;
        self.pieces.push(bytes);
        Ok(())
    }

    /// Ends the row group.
    pub(super) fn end_group(&mut self, rows: usize) -> Result<()> {
        let columns = std::mem::take(&mut self.open);
        let short = columns.iter().find(|column| {
            column.column_descr().max_rep_level() == 0 && usize::try_from(column.num_values()) != Ok(rows)
        });
        if let Some(column) = short {
            let what = format!("{} has {} values for {rows} rows", column.column_path(), column.num_values());
            return Err(ParquetError::General(what));
        }
        let first = columns.first().map_or(self.bytes, |column| column.byte_range().0);
        let group = RowGroupMetaData::builder(self.file.schema_descr_ptr())
            .set_num_rows(i64::try_from(rows)?)
            .set_total_byte_size(columns.iter().map(ColumnChunkMetaData::uncompressed_size).sum())
            .set_file_offset(i64::try_from(first)?)
            .set_ordinal(i32::try_from(self.groups.len())?)
            .set_column_metadata(columns)
            .build()?;
        self.groups.push(group);
        self.rows += rows as u64;
        Ok(())
    }

    /// The pieces that were appended since the last call.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.pieces)
    }

    /// Ends the file and gives its last pieces.
    pub(super) fn finish(mut self) -> Result<Vec<Bytes>> {
        let file = FileMetaData::new(
            self.file.version(),
            i64::try_from(self.rows)?,
            self.file.created_by().map(str::to_owned),
            self.file.key_value_metadata().cloned(),
            self.file.schema_descr_ptr(),
            self.file.column_orders().cloned(),
        );
        let mut footer = Vec::new();
        ParquetMetaDataWriter::new(&mut footer, &ParquetMetaData::new(file, self.groups)).finish()?;
        self.pieces.push(Bytes::from(footer));
        Ok(self.pieces)
    }
}

/// A chunk's description with its bytes at another place, as a column of the output, which must be of the same kind.
fn moved(chunk: &ColumnChunkMetaData, column: ColumnDescPtr, to: u64) -> Result<ColumnChunkMetaData, Error> {
    let kind = |column: &ColumnDescriptor| {
        let logical = column.logical_type_ref().cloned();
        (column.physical_type(), logical, column.max_def_level(), column.max_rep_level())
    };
    if kind(chunk.column_descr()) != kind(&column) {
        return Err(Error::data(format!("the column {} is not of the output's type", chunk.column_path())));
    }
    let (from, _) = chunk.byte_range();
    let place = |offset: i64| Ok::<_, ParquetError>(i64::try_from(to)? + offset - i64::try_from(from)?);
    let mut builder = ColumnChunkMetaData::builder(column)
        .set_compression_codec(chunk.compression_codec())
        .set_encodings_mask(*chunk.encodings_mask())
        .set_num_values(chunk.num_values())
        .set_total_compressed_size(chunk.compressed_size())
        .set_total_uncompressed_size(chunk.uncompressed_size())
        .set_data_page_offset(place(chunk.data_page_offset())?)
        .set_dictionary_page_offset(chunk.dictionary_page_offset().map(place).transpose()?)
        .set_unencoded_byte_array_data_bytes(chunk.unencoded_byte_array_data_bytes())
        .set_definition_level_histogram(chunk.definition_level_histogram().cloned())
        .set_repetition_level_histogram(chunk.repetition_level_histogram().cloned());
    if let Some(stats) = chunk.page_encoding_stats() {
        builder = builder.set_page_encoding_stats(stats.clone());
    }
    Ok(builder.build()?)
}
