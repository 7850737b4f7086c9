//! Writing batch data.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use model::retry::Tries;
use parquet::basic::Encoding;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::{BatchHead, BatchMeta, BatchRows, Codec, GroupWriter, META_KEY, OWN_COLUMNS, properties};
use crate::{Error, Position, RowFault};

/// Writes one batch file into memory; the caller drains it with [`BatchWriter::take`].
pub struct BatchWriter {
    head: BatchHead,
    groups: GroupWriter,
}

impl std::fmt::Debug for BatchWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchWriter")
            .field("head", &self.head)
            .field("rows", &self.groups.rows())
            .finish_non_exhaustive()
    }
}

impl BatchWriter {
    /// Begins a file of rows with the columns `carried`: those of a [`crate::Chunk`], or of the [`BatchRows`] whose
    /// rows are tried again.
    ///
    /// # Errors
    /// When a column has a type that Parquet can't hold, which no Parquet file's columns have.
    pub fn new(carried: &Schema, head: BatchHead, codec: Codec) -> Result<Self, Error> {
        let schema = file_schema(carried);
        let properties = file_properties(&schema, codec);
        Ok(Self { head, groups: GroupWriter::new(schema, properties)? })
    }

    /// How many rows were pushed: the index of the next one.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.groups.rows()
    }

    /// Appends consecutive rows of the input, the first of which is `first_row`. `faults` are those that fail locally, by
    /// their index in `rows`.
    ///
    /// # Errors
    /// When `rows` has other columns than the file.
    pub fn push(&mut self, rows: &RecordBatch, first_row: u64, faults: &[RowFault]) -> Result<(), Error> {
        let (mut kinds, mut messages) = (StringBuilder::new(), StringBuilder::new());
        let mut faults = faults.iter().peekable();
        for row in 0..rows.num_rows() {
            let fault = faults.next_if(|fault| fault.row == row);
            kinds.append_option(fault.map(|fault| fault.kind.as_str()));
            messages.append_option(fault.map(|fault| fault.message.as_str()));
        }
        if let Some(fault) = faults.next() {
            return Err(Error::data(format!(
                "the fault of row {} is out of order or beyond its {} rows",
                fault.row,
                rows.num_rows()
            )));
        }
        let ids = UInt64Array::from_iter_values((first_row..).take(rows.num_rows()));
        let tries = arrow::array::new_null_array(&DataType::Utf8, rows.num_rows());
        self.append(vec![Arc::new(ids), Arc::new(kinds.finish()), Arc::new(messages.finish()), tries], rows)
    }

    /// Appends rows of an earlier attempt that are tried again: those at the indexes `selected` of `rows`, each with its
    /// failures so far. `rows` must have been read with all carried columns.
    ///
    /// # Errors
    /// When an index is beyond the rows, `tries` are not as many, or the columns are not the file's.
    pub fn push_selected(&mut self, rows: &BatchRows, selected: &[usize], tries: &[Tries]) -> Result<(), Error> {
        if selected.len() != tries.len() {
            return Err(Error::data(format!(
                "{} rows were selected, with the tries of {}",
                selected.len(),
                tries.len()
            )));
        }
        if let Some(beyond) = selected.iter().find(|index| **index >= rows.len()) {
            return Err(Error::data(format!("row {beyond} was selected among {}", rows.len())));
        }
        // A row group has far fewer than 2^32 rows.
        let indices =
            UInt32Array::from_iter_values(selected.iter().map(|index| u32::try_from(*index).unwrap_or(u32::MAX)));
        let carried = take_record_batch(&rows.carried, &indices)?;
        let ids = UInt64Array::from_iter_values(selected.iter().map(|index| rows.row_ids.value(*index)));
        let mut texts = StringBuilder::new();
        for tries in tries {
            texts.append_option((*tries != Tries::default()).then(|| tries.to_string()));
        }
        let none = arrow::array::new_null_array(&DataType::Utf8, selected.len());
        self.append(vec![Arc::new(ids), ArrayRef::clone(&none), none, Arc::new(texts.finish())], &carried)
    }

    fn append(&mut self, mut columns: Vec<ArrayRef>, carried: &RecordBatch) -> Result<(), Error> {
        columns.extend(carried.columns().iter().map(ArrayRef::clone));
        let batch = RecordBatch::try_new(SchemaRef::clone(self.groups.schema()), columns)?;
        self.groups.write(&batch)
    }

    /// The bytes that were encoded since the last call.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.groups.take()
    }

    /// Ends the file: `end` is where the row behind its last one begins in the input, `send_rows` and `send_bytes` what
    /// is sent of it. Gives the last bytes, and the metadata as it stands in the file.
    ///
    /// # Errors
    /// When the file can't be encoded.
    pub fn finish(self, end: Position, send_rows: u64, send_bytes: u64) -> Result<(Vec<u8>, BatchMeta), Error> {
        let meta = BatchMeta::new(self.head, end, self.groups.rows(), send_rows, send_bytes);
        let text = serde_json::to_string(&meta)
            .map_err(|error| Error::data(format!("the batch's metadata can't be written: {error}")))?;
        Ok((self.groups.finish(KeyValue::new(META_KEY.to_owned(), text))?, meta))
    }
}

/// The schema of a batch file: our columns, then the caller's with all that is said about them. What the caller's schema
/// says as a whole is left to the output.
fn file_schema(carried: &Schema) -> SchemaRef {
    let own = |name: &str, kind: DataType, nullable: bool| {
        let mut name = name.to_owned();
        while carried.column_with_name(&name).is_some() {
            name.push('_');
        }
        Arc::new(Field::new(name, kind, nullable))
    };
    let own = [
        own("_row", DataType::UInt64, false),
        own("_error_kind", DataType::Utf8, true),
        own("_error", DataType::Utf8, true),
        own("_tries", DataType::Utf8, true),
    ];
    debug_assert_eq!(own.len(), OWN_COLUMNS);
    Arc::new(Schema::new(own.into_iter().chain(carried.fields().iter().map(FieldRef::clone)).collect::<Vec<_>>()))
}

/// Row numbers are stored as differences; whole records and other binary data hardly ever repeat.
fn file_properties(schema: &Schema, codec: Codec) -> WriterProperties {
    let row = ColumnPath::new(vec![schema.field(0).name().clone()]);
    let mut properties = properties(codec)
        .set_column_dictionary_enabled(row.clone(), false)
        .set_column_encoding(row, Encoding::DELTA_BINARY_PACKED);
    for field in schema.fields() {
        if matches!(field.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView) {
            properties = properties.set_column_dictionary_enabled(ColumnPath::new(vec![field.name().clone()]), false);
        }
    }
    properties.build()
}
