//! Column chunks that are copied as they are: the caller's from batch data, and the answers from result data.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, new_null_array};
use model::price::Usd;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, compute_leaves};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};

use super::{BatchChunks, ParquetOutput, answers};
use crate::Error;
use crate::result::ResultReader;

/// Columns of result data before the first that the output adds: `_row`.
const BEFORE: usize = 1;
/// Columns of result data that the output adds, from `response` to `reasoning_tokens`; `attempts` and the cost follow.
const COPIED: usize = 10;

/// An added column of one row group.
pub(super) enum Added<'a> {
    /// Encoded here.
    Encoded(ArrowColumnChunk),
    /// A chunk of that file, described as the output's column.
    Copied(&'a File, ColumnChunkMetaData),
}

impl Added<'_> {
    pub(super) fn append(
        self,
        target: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
        rows: usize,
    ) -> parquet::errors::Result<()> {
        match self {
            Self::Encoded(chunk) => chunk.append_to_row_group(target),
            Self::Copied(file, chunk) => append_chunk(target, file, chunk, rows),
        }
    }
}

/// Copies a column chunk.
pub(super) fn append_chunk(
    target: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    file: &File,
    chunk: ColumnChunkMetaData,
    rows: usize,
) -> parquet::errors::Result<()> {
    let close = ColumnCloseResult {
        bytes_written: u64::try_from(chunk.compressed_size())?,
        rows_written: rows as u64,
        metadata: chunk,
        bloom_filter: None,
        column_index: None,
        offset_index: None,
    };
    target.append_column(file, close)
}

impl ParquetOutput {
    /// Appends one row group of a batch's first attempt with the answers of one row group of that attempt's results, both
    /// undecoded. Whoever calls has looked at how the rows ended ([`ResultReader::next_ends`]): each of them ended in this
    /// attempt, the first. `costs` has a cost for each row, or is empty if there is no price.
    ///
    /// # Errors
    /// When the row groups have not as many rows, the batch data's columns are not the table's, or a file is broken. The
    /// output is of no use then.
    pub fn append_copied(
        &mut self,
        batch: &BatchChunks,
        group: usize,
        (results, of_results): (&ResultReader, usize),
        costs: &[Option<Usd>],
    ) -> Result<(), Error> {
        let rows = batch.group_rows(group)?;
        let (file, footer) = results.parts();
        let metadata = footer.arrow.metadata();
        let fits = of_results < metadata.num_row_groups()
            && metadata.row_group_num_rows(of_results)? == rows
            && (costs.is_empty() || costs.len() == rows);
        if !fits {
            return Err(Error::data(format!(
                "row group {of_results} of the results and row group {group} of the batch data do not line up"
            )));
        }
        let chunks = metadata.row_group(of_results).columns().iter().skip(BEFORE).take(COPIED.min(self.added));
        let mut added = Vec::with_capacity(self.added);
        for (place, chunk) in chunks.enumerate() {
            added.push(Added::Copied(file, renamed(chunk, self.added_column(place)?)?));
        }
        added.extend(self.encode_copied(rows, costs)?.into_iter().map(Added::Encoded));
        self.append(batch, group, added)
    }

    /// The descriptor of an added column of the output.
    fn added_column(&self, place: usize) -> Result<ColumnDescPtr, Error> {
        let columns = self.writer.schema_descr().columns();
        let first = columns.len() - self.added;
        columns
            .get(first + place)
            .map(Arc::clone)
            .ok_or_else(|| Error::data(format!("there is no added column {place}")))
    }

    /// The columns that result data has not: the number of attempts, which is one, and the costs.
    fn encode_copied(&self, rows: usize, costs: &[Option<Usd>]) -> Result<Vec<ArrowColumnChunk>, Error> {
        let fields = &self.schema.fields()[self.schema.fields().len() - self.added..];
        let Some(fields) = fields.get(COPIED..) else { return Ok(Vec::new()) };
        let mut writers = self.writers()?.split_off(COPIED);
        let attempts: ArrayRef = Arc::new(Int64Array::from_value(1, rows));
        let mut columns = vec![attempts];
        if let Some(cost) = fields.get(1) {
            columns.push(if costs.is_empty() {
                new_null_array(cost.data_type(), rows)
            } else {
                let costs = Decimal128Array::from_iter(costs.iter().map(|cost| cost.and_then(answers::decimal)));
                Arc::new(costs.with_precision_and_scale(answers::COST_DIGITS.0, answers::COST_DIGITS.1)?)
            });
        }
        for ((field, writer), column) in fields.iter().zip(&mut writers).zip(columns) {
            for leaf in compute_leaves(field, &column)? {
                writer.write(&leaf)?;
            }
        }
        writers.into_iter().map(|writer| Ok(writer.close()?)).collect()
    }
}

/// A chunk under the name of the output's column, which must be of the same kind.
fn renamed(chunk: &ColumnChunkMetaData, column: ColumnDescPtr) -> Result<ColumnChunkMetaData, Error> {
    let kind = |column: &ColumnDescriptor| {
        let logical = column.logical_type_ref().cloned();
        (column.physical_type(), logical, column.max_def_level(), column.max_rep_level())
    };
    if kind(chunk.column_descr()) != kind(&column) {
        return Err(Error::data(format!("the results' column {} is not of the output's type", chunk.column_path())));
    }
    let mut builder = ColumnChunkMetaData::builder(column)
        .set_compression_codec(chunk.compression_codec())
        .set_encodings_mask(*chunk.encodings_mask())
        .set_num_values(chunk.num_values())
        .set_total_compressed_size(chunk.compressed_size())
        .set_total_uncompressed_size(chunk.uncompressed_size())
        .set_data_page_offset(chunk.data_page_offset())
        .set_dictionary_page_offset(chunk.dictionary_page_offset())
        .set_unencoded_byte_array_data_bytes(chunk.unencoded_byte_array_data_bytes())
        .set_definition_level_histogram(chunk.definition_level_histogram().cloned());
    if let Some(stats) = chunk.page_encoding_stats() {
        builder = builder.set_page_encoding_stats(stats.clone());
    }
    Ok(builder.build()?)
}
