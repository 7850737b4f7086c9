//! Reading the records of a CSV file's batch data, and nothing else of it: what splicing answers in needs.

use std::fs::File;
use std::sync::Arc;

use arrow::array::BinaryViewArray;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use super::{BatchMeta, OWN_COLUMNS, column, read_footer, read_group};
use crate::Error;
use crate::parquet_in::{Footer, guarded};

/// Reads the records, a row group at a time, as views of the pages' bytes. Memory is one row group.
#[derive(Debug)]
pub struct RecordReader {
    file: File,
    footer: Footer,
    next_group: usize,
}

impl RecordReader {
    /// Opens batch data.
    ///
    /// # Errors
    /// When the file is no batch data of a CSV file, or is broken.
    pub fn open(file: File) -> Result<Self, Error> {
        let mut footer = read_footer(&file)?;
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
        footer.arrow = guarded(|| ArrowReaderMetadata::try_new(footer.arrow.metadata().clone(), views))?;
        Ok(Self { file, footer, next_group: 0 })
    }
}

impl Iterator for RecordReader {
    type Item = Result<BinaryViewArray, Error>;

    /// The records of the next row group; nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.next_group >= self.footer.arrow.metadata().num_row_groups() {
            return None;
        }
        let read = read_group(&self.file, &self.footer, self.next_group, Some(&[OWN_COLUMNS]));
        let read = read.and_then(|batch| column(&batch, 0, "record"));
        self.next_group = if read.is_ok() { self.next_group + 1 } else { usize::MAX };
        Some(read)
    }
}
