//! An Arrow schema as text, for [`model::TableInfo::arrow_schema`]: the IPC message in base64, as Parquet files carry it
//! themselves under `ARROW:schema`.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use model::TableInfo;

use super::guard::guarded;
use crate::Error;

/// The schema as text. The same schema always gives the same text.
#[must_use]
pub fn encode(schema: &Schema) -> String {
    parquet::arrow::encode_arrow_schema(schema)
}

/// Reads a schema's text back.
///
/// # Errors
/// [`Error::Data`] for text that is no schema.
pub fn decode(text: &str) -> Result<SchemaRef, Error> {
    let message = BASE64_STANDARD
        .decode(text)
        .map_err(|error| Error::data(format!("the Arrow schema is not base64: {error}")))?;
    let schema = guarded(|| Ok(arrow::ipc::convert::try_schema_from_ipc_buffer(&message)?))
        .map_err(|error| Error::data(format!("the Arrow schema can't be read: {error}")))?;
    Ok(Arc::new(schema))
}

/// The schema of a Parquet table.
///
/// # Errors
/// [`Error::Data`] when the description has none, or one that can't be read.
pub fn of_table(info: &TableInfo) -> Result<SchemaRef, Error> {
    decode(
        info.arrow_schema
            .as_deref()
            .ok_or_else(|| Error::data("the description of the Parquet input has no Arrow schema"))?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, TimeUnit};

    #[test]
    fn a_schema_reads_back_with_its_metadata() {
        let field = Field::new("t", DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into())), false)
            .with_metadata([("unit".to_owned(), "s".to_owned())]);
        let kind = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let schema =
            Schema::new_with_metadata(vec![field, Field::new("d", kind, true)], [("a".to_owned(), "b".to_owned())]);
        assert_eq!(*decode(&encode(&schema)).unwrap(), schema);
    }

    #[test]
    fn text_that_is_no_schema_is_an_error() {
        for text in ["", "*", "AAAA", "/////wAAAAA=", &BASE64_STANDARD.encode([7_u8; 64])] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
