//! Added columns that are encoded here, as the chunks of a file of their own in memory, from which the output takes them.

use arrow::array::ArrayRef;
use arrow::datatypes::{Fields, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::properties::WriterProperties;

use crate::Error;
use crate::parquet_in::guarded;

/// Encodes some columns of one row group.
pub(super) struct Encoder {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
}

impl Encoder {
    pub(super) fn new(schema: SchemaRef, properties: WriterProperties) -> Result<Self, Error> {
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        Ok(Self { writer: ArrowWriter::try_new_with_options(Vec::new(), SchemaRef::clone(&schema), options)?, schema })
    }

    pub(super) fn fields(&self) -> &Fields {
        self.schema.fields()
    }

    /// Appends rows.
    pub(super) fn write(&mut self, columns: Vec<ArrayRef>) -> Result<(), Error> {
        Ok(self.writer.write(&RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?)?)
    }

    /// The chunks, described, each with its bytes.
    pub(super) fn finish(mut self) -> Result<Vec<(ColumnChunkMetaData, Bytes)>, Error> {
        let metadata = guarded(|| self.writer.finish())?;
        let bytes = Bytes::from(std::mem::take(self.writer.inner_mut()));
        let [group] = metadata.row_groups() else { return Err(Error::data("the added columns are not one row group")) };
        let chunks = group.columns().iter().map(|chunk| {
            let (start, length) = chunk.byte_range();
            let range = usize::try_from(start)?..usize::try_from(start + length)?;
            let part = bytes.get(range.clone()).map(|_| bytes.slice(range));
            let part = part.ok_or_else(|| ParquetError::EOF("a chunk is not in its file".to_owned()))?;
            Ok((chunk.clone(), part))
        });
        Ok(chunks.collect::<Result<_, ParquetError>>()?)
    }
}
