//! CSV: delimited text, plain or gzipped.
//!
//! What is carried of a row is its *record*: the exact bytes of its line or lines, line ending included, in one Binary
//! column. Its cells are parsed only where a template asks for them, and the output is the same bytes with the answers
//! spliced in before the line ending. So every cell comes back exactly as it stood (`007`, `1.50`, ` spaced `, empty
//! or quoted-empty), whatever mix of quoting and line endings the file has.
//!
//! The grammar is RFC 4180 with these readings of what it leaves open:
//!
//! - A quote is special only as the first byte of a cell; elsewhere in an unquoted cell it is data. Inside a quoted
//!   cell a quote is written twice. Text between a closing quote and the next delimiter makes the row malformed.
//! - A record ends with `\n` or `\r\n` outside quotes; the last one may have no ending. A carriage return alone,
//!   outside quotes, makes the row malformed: readers disagree on whether it ends a record. (At the very end of the file
//!   it counts as the last record's ending.)
//! - Lines without any byte are no rows: they are skipped, also before the header, and do not come back. (An empty
//!   cell of a one-column file must be written `""`, as CSV writers do.)
//! - The text is UTF-8 without NUL bytes. A row that is not, or that has more or fewer cells than the header, is
//!   malformed.
//! - A malformed row still ends at a definite place, so it is carried like any other and the job decides. A quote that
//!   is never closed has swallowed the rest of the file, and a record over the cap can't be held: these refuse the file.
//!
//! Deliberately absent: other quote or escape characters, comments, trimming, other encodings. A file in another
//! dialect is refused with a message rather than guessed at.

mod cells;
mod decoder;
mod dialect;
mod fields;
mod gzip;
mod output;
mod quoting;
mod records;
#[cfg(test)]
mod reference;
mod sweep;
mod text;

pub use cells::Cells;
pub use decoder::CsvDecoder;
pub use fields::{cells, terminator};
pub use output::CsvOutput;

pub(crate) use dialect::{Hints, check_delimiter, find};
pub(crate) use text::{Fill, TextStream};

/// The UTF-8 byte order mark.
pub(crate) const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The name of the one column that carries a CSV row.
pub const RECORD: &str = "record";
