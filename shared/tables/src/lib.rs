//! Rows to files and back.
//!
//! Everything here is synchronous and does no IO: a reader *says* which bytes it needs ([`Step::Need`]), somebody else
//! fetches them and hands them over (`push`), and the reader goes on. So the same code reads a local file, an object
//! store with ranged reads, and a test's vector cut at every possible place; and memory is bounded by [`Caps`], never
//! by the file.
//!
//! - [`open`]: what a file is (CSV or Parquet, which dialect, which columns): [`Opener`] makes a [`model::TableInfo`].
//! - [`input`]: the types that both readers share, and [`Decoder`], which is one of the two.
//! - [`csv`] and [`parquet_in`]: the readers. [`csv::CsvOutput`] and [`parquet_out`]: the writers of the answered file.
//! - [`batch`] and [`result`]: the data objects between the rooms, as Parquet. [`source`]: reading one once, in order.
//! - [`row_view`] and [`arrow_value`]: a carried row as the values that a template sees.

pub mod arrow_value;
pub mod batch;
pub mod csv;
pub mod input;
pub mod open;
pub mod parquet_in;
pub mod parquet_out;
pub mod result;
pub mod row_view;
pub mod source;

pub use input::{Caps, Chunk, Decoder, Ended, Error, Position, RowFault, Step};
pub use open::{OpenStep, Opener};
pub use row_view::RowValues;
pub use source::Source;
