//! Reading the records of a CSV file's batch data, and nothing else of it: what splicing answers in needs.

use std::sync::Arc;

use arrow::array::BinaryViewArray;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use super::{BatchMeta, OWN_COLUMNS, column};
use crate::parquet_in::guarded;
use crate::source::Groups;
use crate::{Error, Source};

/// Reads the records, some at a time, as views of the pages' bytes. Memory is one row group as it lies in the file, and a page.
#[derive(Debug)]
pub struct RecordReader(Groups);

impl RecordReader {
    /// Opens batch data.
    ///
    /// # Errors
    /// When the file is no batch data of a CSV file, or is broken.
    pub fn open(source: impl Source + 'static) -> Result<Self, Error> {
        let mut groups = Groups::open(Box::new(source))?;
        let footer = &mut groups.footer;
        let meta = BatchMeta::from_metadata(footer.arrow.metadata())?;
        if meta.rows != footer.rows {
            return Err(Error::data(format!("the batch data says {} rows and has {}", meta.rows, footer.rows)));
        }
        let mut fields = footer.schema().fields().to_vec();
        match fields.get(OWN_COLUMNS) {
            Some(record) if fields.len() == OWN_COLUMNS + 1 && *record.data_type() == DataType::Binary => {
                let view = Field::new(record.name(), DataType::BinaryView, record.is_nullable());
                fields[OWN_COLUMNS] = Arc::new(view);
            }
            _ => return Err(Error::data("the batch data has no records")),
        }
        let views = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
        footer.arrow = guarded(|| ArrowReaderMetadata::try_new(Arc::clone(footer.arrow.metadata()), views))?;
        Ok(Self(groups))
    }

    /// To be called behind the last row group.
    ///
    /// # Errors
    /// When what was read was not the object that it should be.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.0.finish()
    }
}

impl Iterator for RecordReader {
    type Item = Result<BinaryViewArray, Error>;

    /// The next records; nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.0.next_rows(Some(&[OWN_COLUMNS])).transpose()?;
        Some(batch.and_then(|batch| column(&batch, 0, "record")).inspect_err(|_| self.0.stop()))
    }
}
