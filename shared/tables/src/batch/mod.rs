//! Batch data: the rows of one attempt at one batch, as one Parquet file. It holds all that encoding the requests and
//! writing the output need, so that the input is never read again after the plan.
//!
//! The columns, by position (their names are for people; one that the caller has too gets underscores behind it):
//!
//! | position | name | type | meaning |
//! |---|---|---|---|
//! | 0 | `_row` | UInt64 | the row of the input, from 0 |
//! | 1 | `_error_kind` | Utf8, nullable | why the row failed locally; such a row is carried, never encoded |
//! | 2 | `_error` | Utf8, nullable | the message for it |
//! | 3 | `_tries` | Utf8, nullable | failures so far, by kind, as [`model::retry::Tries`] spells them |
//! | 4… | the caller's | any Arrow type | the carried columns; for CSV the one column `record` (Binary) |
//!
//! The row's index in the file is its task's number in the custom id. The file's key-value metadata has, under
//! [`META_KEY`], a [`BatchMeta`]: what resuming a split needs, readable from the file's last bytes alone.
//!
//! Row groups end at [`MAX_GROUP_BYTES`] of uncompressed data or [`MAX_GROUP_ROWS`] rows, so that every reader gets by
//! with that much memory. There are no statistics and no indexes, for nobody would read them, and dictionaries only
//! where a page of them stays small. The same calls always give the same bytes.
//!
//! What is deliberately missing: digests (the fact that names the object has them), and any way to change a file.

mod codec;
mod groups;
mod meta;
mod reader;
mod records;
pub mod size;
mod writer;

pub use codec::Codec;
pub(crate) use groups::{
    GroupWriter, column, footer_of, group_reader, group_rows, metadata_entry, properties, read_footer, read_group,
    read_selected, rows_reader,
};
pub use groups::{MAX_GROUP_BYTES, MAX_GROUP_ROWS};
pub use meta::{BatchHead, BatchMeta, META_KEY, MetaStep};
pub(crate) use reader::carried_schema;
pub use reader::{BatchChunks, BatchReader, BatchRows};
pub use records::RecordReader;
pub use writer::BatchWriter;

/// How many columns stand before the caller's.
pub const OWN_COLUMNS: usize = 4;

#[cfg(test)]
pub(crate) mod tests;
