//! Some rows of the caller's table as a file of their own: the failed rows, ready to be run again.
//!
//! The columns, their types and what the schema says of itself are the input's, and nothing is added, so that whatever
//! read the input reads this. Values are decoded and encoded anew: they are equal, the bytes need not be.
//! Memory is one row group. The same rows always give the same bytes.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use model::TableInfo;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

use super::{BatchGroup, file_properties};
use crate::Error;
use crate::batch::{Codec, GroupWriter, OWN_COLUMNS};
use crate::parquet_in::schema;

/// Writes a file of the caller's columns alone, into memory; the caller drains it with [`RowsOutput::take`].
pub struct RowsOutput {
    groups: GroupWriter,
    schema: SchemaRef,
}

impl std::fmt::Debug for RowsOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowsOutput").field("rows", &self.groups.rows()).finish_non_exhaustive()
    }
}

impl RowsOutput {
    /// Begins a file with a table's columns.
    ///
    /// # Errors
    /// When the description is not that of a Parquet input.
    pub fn new(info: &TableInfo, codec: Codec) -> Result<Self, Error> {
        let schema = schema::of_table(info)?;
        let groups = GroupWriter::new(SchemaRef::clone(&schema), file_properties(&schema, &[], codec))?;
        Ok(Self { groups, schema })
    }

    /// Appends rows with the table's columns, as [`BatchGroup::select`] gives them.
    ///
    /// # Errors
    /// When their columns are not the table's.
    pub fn push(&mut self, rows: &RecordBatch) -> Result<(), Error> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let columns = rows.columns().to_vec();
        self.groups.write(&RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)?)
    }

    /// The bytes that were encoded since the last call.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.groups.take()
    }

    /// Ends the file and gives its last bytes.
    ///
    /// # Errors
    /// When the footer can't be encoded.
    pub fn finish(self) -> Result<Vec<u8>, Error> {
        self.groups.finish(None)
    }
}

impl BatchGroup {
    /// The caller's columns of some of its rows, by their places in it, which ascend. What lies between them is passed over.
    ///
    /// # Errors
    /// When the batch data is broken, the places do not ascend, or there is no such row.
    pub fn select(&self, rows: &[u32]) -> Result<RecordBatch, Error> {
        let carried: Vec<usize> = (OWN_COLUMNS..self.0.arrow().schema().fields().len()).collect();
        let all = self.rows()?;
        let (mut selectors, mut next) = (Vec::with_capacity(2 * rows.len()), 0);
        for row in rows.iter().map(|row| *row as usize) {
            if row < next || row >= all {
                return Err(Error::data(format!("row {row} was selected among {all}, behind row {next}")));
            }
            selectors.extend([RowSelector::skip(row - next), RowSelector::select(1)]);
            next = row + 1;
        }
        self.0.read(Some(&carried), Some((RowSelection::from(selectors), rows.len())))
    }
}
