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
//! - Memory is a row group as it was read, of batch data and of results, since what is handed on are parts of it; and what the
//!   footer will say, about half a kilobyte for each chunk of a column, twice while the footer is written. A table without rows
//!   is a valid file.
//!
//! The added columns: `response` and `error` (Utf8); with details `status`, `error_kind`, `finish_reason`, `model` (Utf8),
//! the four counts of tokens and `attempts` (Int64), `cost_usd` (Decimal128). All are nullable. Their names come from the job's spec.
//!
//! What is deliberately missing: statistics and indexes, which copying could not give for the caller's columns, and a
//! change of the copied chunks' compression: batch and result data have the input's already.

mod answers;
mod copied;
mod encoded;
mod layout;
mod rows;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use model::TableInfo;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::batch::{Codec, OWN_COLUMNS, carried_schema, properties};
use crate::parquet_in::schema;
use crate::result::Answers;
use crate::source::{Group, Groups};
use crate::{Error, Source};

use encoded::Encoder;
use layout::Layout;

pub use rows::RowsOutput;

/// Writes the answered file into memory; the caller drains it with [`ParquetOutput::take`].
pub struct ParquetOutput {
    layout: Layout,
    properties: WriterProperties,
    schema: SchemaRef,
    added: usize,
}

impl std::fmt::Debug for ParquetOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetOutput")
            .field("schema", &self.schema)
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

/// The batch data of a batch's first attempt, read row group by row group.
#[derive(Debug)]
pub struct BatchChunks(Groups);

/// One row group of batch data, in memory.
#[derive(Debug)]
pub struct BatchGroup(Group);

impl BatchChunks {
    /// Opens batch data.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn open(source: impl Source + 'static) -> Result<Self, Error> {
        Groups::open(Box::new(source)).map(Self)
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.0.footer.rows
    }

    /// The next row group; none behind the last.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn next_group(&mut self) -> Result<Option<BatchGroup>, Error> {
        Ok(self.0.next()?.map(BatchGroup))
    }

    /// To be called behind the last row group.
    ///
    /// # Errors
    /// When what was read was not the object that it should be.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.0.finish()
    }
}

impl BatchGroup {
    /// How many rows it has.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn rows(&self) -> Result<usize, Error> {
        self.0.rows()
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
        let properties = file_properties(&input, added, codec);
        let empty = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(&schema), Some(properties.clone()))?.close()?;
        Ok(Self { layout: Layout::new(&empty), properties, schema, added: added.len() })
    }

    /// How many rows were appended.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.layout.rows()
    }

    /// Appends one row group of a batch's first attempt, with the next answers, one for each of its rows.
    ///
    /// # Errors
    /// When the batch data's columns are not the table's, when it is broken, or when `answers` fails. The output is of no
    /// use then.
    pub fn append_group(&mut self, batch: &BatchGroup, answers: &mut dyn Answers) -> Result<(), Error> {
        let rows = batch.rows()?;
        let mut encoder = self.encoder(0)?;
        answers::encode(rows, answers, &mut encoder)?;
        self.append_carried(batch)?;
        self.append_encoded(encoder)?;
        Ok(self.layout.end_group(rows)?)
    }

    /// Begins a row group with the caller's chunks.
    fn append_carried(&mut self, BatchGroup(group): &BatchGroup) -> Result<(), Error> {
        let carried = carried_schema(group.arrow().schema());
        if carried.fields()[..] != self.schema.fields()[..self.schema.fields().len() - self.added] {
            return Err(Error::data("the batch data's columns are not the table's"));
        }
        for chunk in group.columns().iter().skip(OWN_COLUMNS) {
            self.layout.append(chunk, group.chunk(chunk)?)?;
        }
        Ok(())
    }

    /// An encoder of the added columns from this one on.
    fn encoder(&self, first: usize) -> Result<Encoder, Error> {
        let fields = &self.schema.fields()[self.schema.fields().len() - self.added + first..];
        Encoder::new(Arc::new(Schema::new(fields.to_vec())), self.properties.clone())
    }

    fn append_encoded(&mut self, encoder: Encoder) -> Result<(), Error> {
        encoder.finish()?.into_iter().try_for_each(|(chunk, bytes)| self.layout.append(&chunk, bytes))
    }

    /// What was appended since the last call, in pieces.
    #[must_use]
    pub fn take(&mut self) -> Vec<Bytes> {
        self.layout.take()
    }

    /// Ends the file and gives its last pieces.
    ///
    /// # Errors
    /// When the footer can't be encoded.
    pub fn finish(self) -> Result<Vec<Bytes>, Error> {
        Ok(self.layout.finish()?)
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
