//! How the caller's file is laid out: found out once by the splitter, written into the job fact, and from then on the
//! only description that anyone uses, so that every room reads and writes the same dialect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The two families of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Delimited text, plain or gzipped.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// The layout of an input file, and so of its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableInfo {
    /// CSV or Parquet.
    pub kind: FileKind,
    /// The caller's column names, in order; no two alike.
    pub columns: Vec<String>,
    /// For CSV: all that restores the file around its records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvDialect>,
    /// For Parquet: the Arrow schema as a base64 IPC message (standard alphabet, padded).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrow_schema: Option<String>,
    /// For Parquet: the compression of the input's first column chunk (`SNAPPY`, `ZSTD`, …), kept where it can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
}

/// A CSV file's dialect. The quote character is always `"`, doubled inside a quoted cell (RFC 4180).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CsvDialect {
    /// The delimiter: one ASCII character (`,`, `;`, tab or `|` when detected).
    pub delimiter: char,
    /// Whether the file begins with a UTF-8 byte order mark.
    pub bom: bool,
    /// The header record exactly as it stands in the file, its line ending included.
    pub header: String,
    /// Whether every cell of the header and of the first records is quoted: added cells are then quoted too.
    pub quote_all: bool,
    /// The line ending of the header: `\n`, `\r\n`, or `\n` when the header is the whole file and has none.
    pub line_ending: String,
    /// Whether the input is gzipped.
    pub gzip: bool,
}
