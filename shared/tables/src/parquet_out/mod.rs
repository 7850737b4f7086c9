//! The answered file, when the input is Parquet: the input's columns and types, then the added columns.
//!
//! What it promises:
//! - The caller's column chunks are copied from batch data as they are, undecoded: it costs no more than moving bytes,
//!   and no value can change on the way. One row group of batch data becomes one of the output.
//! - So are the answers, where one attempt has the last word on all rows of the group and a row group of its results has
//!   the same rows: result data has the added columns as the output has them ([`crate::result`]). Only the number of
//!   attempts and the cost are encoded. Elsewhere the answers are decoded and encoded anew; the values are the same.
//! - Names, types, nullability, field metadata and the schema's own metadata are the input's; the file carries the Arrow
//!   schema (`ARROW:schema`), so that readers which know it see time zones, large text and dictionaries as they were.
//! - The bytes are a function of the batch data and the answers.
//! - Memory is one row group's answers, compressed, and one column chunk. A table without rows is a valid file.
//!
//! The added columns: `response` and `error` (Utf8); with details `status`, `error_kind`, `finish_reason`, `model` (Utf8),
//! the four counts of tokens and `attempts` (Int64), `cost_usd` (Decimal128). All are nullable. Their names come from the job's spec.
//!
//! What is deliberately missing: statistics and indexes, which copying could not give for the caller's columns, and a
//! change of the copied chunks' compression: batch and result data have the input's already.

mod answers;
mod copied;
mod rows;

use std::fs::File;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use model::TableInfo;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use crate::Error;
use crate::batch::{Codec, OWN_COLUMNS, carried_schema, properties, read_footer};
use crate::parquet_in::{Footer, guarded, schema};
use crate::result::Answers;

use copied::{Added, append_chunk};

pub use rows::RowsOutput;

/// Writes the answered file into memory; the caller drains it with [`ParquetOutput::take`].
pub struct ParquetOutput {
    writer: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    added: usize,
    rows: u64,
}

impl std::fmt::Debug for ParquetOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetOutput").field("schema", &self.schema).field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// The batch data of a batch's first attempt, opened for copying.
#[derive(Debug)]
pub struct BatchChunks {
    file: File,
    footer: Footer,
}

impl BatchChunks {
    /// Opens batch data.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn open(file: File) -> Result<Self, Error> {
        let footer = read_footer(&file)?;
        Ok(Self { file, footer })
    }

    /// How many row groups it has.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.footer.arrow.metadata().num_row_groups()
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.footer.rows
    }

    /// How many rows a row group has.
    ///
    /// # Errors
    /// When there is no such row group.
    pub fn group_rows(&self, group: usize) -> Result<usize, Error> {
        let metadata = self.footer.arrow.metadata();
        if group >= metadata.num_row_groups() {
            return Err(Error::data(format!("row group {group} was asked for among {}", metadata.num_row_groups())));
        }
        Ok(metadata.row_group_num_rows(group)?)
    }
}

impl ParquetOutput {
    /// Begins the output for a table. `added` are the added columns' names, as [`model::JobSpec::added_columns`] gives
    /// them; the answers are compressed with `codec`.
    ///
    /// # Errors
    /// When the description is not that of a Parquet input, or an added column has the name of one of the caller's.
    pub fn new(info: &TableInfo, added: &[&str], codec: Codec) -> Result<Self, Error> {
        let input = schema::of_table(info)?;
        let kinds = added_kinds(added.len())?;
        let mut fields: Vec<FieldRef> = input.fields().iter().map(FieldRef::clone).collect();
        for (name, kind) in added.iter().zip(kinds) {
            if input.column_with_name(name).is_some() {
                return Err(Error::data(format!("the added column {name:?} has the name of one of the input's")));
            }
            fields.push(Arc::new(Field::new(*name, kind, true)));
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        let writer =
            ArrowWriter::try_new(Vec::new(), SchemaRef::clone(&schema), Some(file_properties(&input, added, codec)))?;
        let (writer, factory) = writer.into_serialized_writer()?;
        Ok(Self { writer, factory, schema, added: added.len(), rows: 0 })
    }

    /// How many rows were appended.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends one row group of a batch's first attempt, with the next answers, one for each of its rows.
    ///
    /// # Errors
    /// When the batch data's columns are not the table's, when it is broken, or when `answers` fails. The output is of no
    /// use then.
    pub fn append_group(&mut self, batch: &BatchChunks, group: usize, answers: &mut dyn Answers) -> Result<(), Error> {
        let rows = batch.group_rows(group)?;
        let fields = &self.schema.fields()[self.schema.fields().len() - self.added..];
        let answers = answers::encode(rows, answers, fields, self.writers()?)?;
        self.append(batch, group, answers.into_iter().map(Added::encoded).collect())
    }

    /// Writes a row group: the caller's chunks, then the added ones.
    fn append(&mut self, batch: &BatchChunks, group: usize, added: Vec<Added<'_>>) -> Result<(), Error> {
        let carried = carried_schema(batch.footer.schema());
        if carried.fields()[..] != self.schema.fields()[..self.schema.fields().len() - self.added] {
            return Err(Error::data("the batch data's columns are not the table's"));
        }
        let rows = batch.group_rows(group)?;
        guarded(|| {
            let mut target = self.writer.next_row_group()?;
            for chunk in batch.footer.arrow.metadata().row_group(group).columns().iter().skip(OWN_COLUMNS) {
                append_chunk(&mut target, &batch.file, chunk.clone(), rows)?;
            }
            for chunk in added {
                chunk.append(&mut target, rows)?;
            }
            target.close().map(|_| ())
        })?;
        self.rows += rows as u64;
        Ok(())
    }

    /// Writers for the added columns of the next row group.
    fn writers(&self) -> Result<Vec<ArrowColumnWriter>, Error> {
        let mut writers = self.factory.create_column_writers(self.writer.flushed_row_groups().len())?;
        Ok(writers.split_off(writers.len() - self.added))
    }

    /// The bytes that were encoded since the last call.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.inner_mut())
    }

    /// Ends the file and gives its last bytes.
    ///
    /// # Errors
    /// When the footer can't be encoded.
    pub fn finish(self) -> Result<Vec<u8>, Error> {
        Ok(self.writer.into_inner()?)
    }
}

/// The types of the added columns: the answer and the error, and with details all of them.
fn added_kinds(count: usize) -> Result<Vec<DataType>, Error> {
    let (text, number) = (DataType::Utf8, DataType::Int64);
    let cost = DataType::Decimal128(answers::COST_DIGITS.0, answers::COST_DIGITS.1);
    let all = [&text, &text, &text, &text, &text, &text, &number, &number, &number, &number, &number, &cost];
    // A job of before there were prices has no cost.
    if ![2, all.len() - 1, all.len()].contains(&count) {
        return Err(Error::data(format!("the output adds {count} columns; it can add 2 or {}", all.len())));
    }
    Ok(all.into_iter().take(count).cloned().collect())
}

/// What the input's schema says of itself (`pandas`, …) is also written as the file's key-value metadata, where other
/// readers look for it.
fn file_properties(input: &Schema, added: &[&str], codec: Codec) -> WriterProperties {
    let known = input.metadata().iter().filter(|(key, _)| key.as_str() != parquet::arrow::ARROW_SCHEMA_META_KEY);
    let entries: Vec<_> = known.map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    let mut properties = properties(codec).set_key_value_metadata((!entries.is_empty()).then_some(entries));
    if let Some(response) = added.first() {
        properties = properties.set_column_dictionary_enabled(ColumnPath::new(vec![(*response).to_owned()]), false);
    }
    properties.build()
}

#[cfg(test)]
mod tests;
