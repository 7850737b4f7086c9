//! Writing result data.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, StringBuilder, UInt32Builder, UInt64Builder};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use model::{BatchId, FailureKind, JobId, RowStatus};
use parquet::basic::Encoding;
use parquet::file::metadata::KeyValue;
use parquet::schema::types::ColumnPath;

use super::final_row::write_error;
use super::{ResultRow, SCHEMA};
use crate::Error;
use crate::batch::{Codec, GroupWriter, properties};

/// The key of a result file's own description in its key-value metadata; readers do not need it, people may.
const META_KEY: &str = "batchmill.result";
/// Rows are encoded when they come to this many bytes of text, …
const ENCODE_BYTES: usize = 1 << 20;
/// … or to this many.
const ENCODE_ROWS: usize = 4_096;

/// Writes one result file into memory; the caller drains it with [`ResultWriter::take`].
pub struct ResultWriter {
    description: String,
    groups: GroupWriter,
    buffered: Builders,
}

impl std::fmt::Debug for ResultWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResultWriter")
            .field("description", &self.description)
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

impl ResultWriter {
    /// Begins the results of one attempt at one batch.
    ///
    /// # Errors
    /// None that depends on data.
    pub fn new(job: &JobId, id: BatchId, codec: Codec) -> Result<Self, Error> {
        let [row, tries] = ["_row", "tries"].map(ColumnPath::from);
        let properties = properties(codec)
            .set_column_dictionary_enabled(row.clone(), false)
            .set_column_encoding(row, Encoding::DELTA_BINARY_PACKED)
            .set_column_dictionary_enabled(tries.clone(), false)
            .set_column_encoding(tries, Encoding::DELTA_BINARY_PACKED)
            .set_column_dictionary_enabled(ColumnPath::from("response"), false)
            .build();
        let description =
            serde_json::json!({"schema": 1, "job": job, "number": id.number, "attempt": id.attempt}).to_string();
        Ok(Self {
            description,
            groups: GroupWriter::new(SchemaRef::clone(&SCHEMA), properties)?,
            buffered: Builders::new(),
        })
    }

    /// How many rows were pushed.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.groups.rows() + self.buffered.rows as u64
    }

    /// Appends the next row. Of an answered row no error is kept, of another no answer.
    ///
    /// # Errors
    /// When the rows can't be encoded.
    pub fn push(&mut self, row: &ResultRow<'_>) -> Result<(), Error> {
        let bytes = row.response.map_or(0, str::len) + row.error.map_or(0, str::len);
        // Offsets of a text column have 31 bits: what is large is encoded on its own.
        if self.buffered.bytes + bytes > ENCODE_BYTES {
            self.encode()?;
        }
        self.buffered.append(row, bytes);
        if self.buffered.rows >= ENCODE_ROWS {
            self.encode()?;
        }
        Ok(())
    }

    /// Ends the row group, as behind each row group of the attempt's batch data: the merger copies groups that line up.
    ///
    /// # Errors
    /// When the rows can't be encoded.
    pub fn end_group(&mut self) -> Result<(), Error> {
        self.encode()?;
        self.groups.end_group()
    }

    fn encode(&mut self) -> Result<(), Error> {
        if self.buffered.rows == 0 {
            return Ok(());
        }
        let columns = std::mem::replace(&mut self.buffered, Builders::new()).finish();
        self.groups.write(&RecordBatch::try_new(SchemaRef::clone(&SCHEMA), columns)?)
    }

    /// The bytes that were encoded since the last call.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.groups.take()
    }

    /// Ends the file and gives its last bytes.
    ///
    /// # Errors
    /// When the file can't be encoded.
    pub fn finish(mut self) -> Result<Vec<u8>, Error> {
        self.encode()?;
        self.groups.finish(KeyValue::new(META_KEY.to_owned(), self.description))
    }
}

struct Builders {
    rows: usize,
    bytes: usize,
    row: UInt64Builder,
    response: StringBuilder,
    error: StringBuilder,
    /// Status, error kind, finish reason, model.
    texts: [StringBuilder; 4],
    /// Input, cached, output, reasoning.
    counts: [Int64Builder; 4],
    tries: UInt32Builder,
}

impl Builders {
    /// With room for what is encoded at a time, so that nothing has to be copied while they grow.
    fn new() -> Self {
        let count = || Int64Builder::with_capacity(ENCODE_ROWS);
        let text = || StringBuilder::with_capacity(ENCODE_ROWS, 1_024);
        Self {
            rows: 0,
            bytes: 0,
            row: UInt64Builder::with_capacity(ENCODE_ROWS),
            response: StringBuilder::with_capacity(ENCODE_ROWS, ENCODE_BYTES),
            error: text(),
            texts: [text(), text(), text(), text()],
            counts: [count(), count(), count(), count()],
            tries: UInt32Builder::with_capacity(ENCODE_ROWS),
        }
    }

    fn append(&mut self, row: &ResultRow<'_>, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
        self.row.append_value(row.row);
        let answered = row.status == RowStatus::Answered;
        self.response.append_option(row.response.filter(|_| answered));
        if answered {
            self.error.append_null();
        } else {
            // A builder takes whatever is written into it.
            let _ = write_error(row.error_kind, row.error, &mut self.error);
            self.error.append_value("");
        }
        let kind = row.error_kind.filter(|_| !answered).map(FailureKind::as_str);
        let texts = [Some(row.status.as_str()), kind, row.finish_reason, row.model];
        for (builder, text) in self.texts.iter_mut().zip(texts) {
            builder.append_option(text);
        }
        let usage = row.usage;
        for (builder, count) in self.counts.iter_mut().zip([usage.input, usage.cached, usage.output, usage.reasoning]) {
            builder.append_option(count.map(|count| i64::try_from(count).unwrap_or(i64::MAX)));
        }
        self.tries.append_value(row.tries);
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(self.row.finish()), Arc::new(self.response.finish()), Arc::new(self.error.finish())];
        columns.extend(self.texts.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        columns.extend(self.counts.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        columns.push(Arc::new(self.tries.finish()));
        columns
    }
}
