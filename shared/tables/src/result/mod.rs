//! Result data: how each row of one attempt at one batch ended, as one Parquet file. Row *i* of it is row *i* of the
//! attempt's batch data, so that merging is a zip and needs no join.
//!
//! | position | name | type |
//! |---|---|---|
//! | 0 | `_row` | UInt64, the row of the input |
//! | 1 | `response` | Utf8, only of an answered row |
//! | 2 | `error` | Utf8, only of others: the output's error cell, `<kind>: <message>` or the kind alone |
//! | 3 | `status` | Utf8: `answered`, `failed` or `retried` |
//! | 4–6 | `error_kind`, `finish_reason`, `model` | Utf8 |
//! | 7–10 | `input_tokens`, `cached_tokens`, `output_tokens`, `reasoning_tokens` | Int64 |
//! | 11 | `tries` | UInt32: the row's failures so far |
//!
//! Columns 1 to 10 are those that a Parquet output adds, in its order, types and spelling, all nullable as there, so that
//! the merger copies them undecoded where one attempt speaks for all rows ([`crate::parquet_out`]). For the same reason a
//! row group ends where one of the attempt's batch data ends ([`ResultWriter::end_group`]); long answers may need several
//! for one, since they are bounded as those of batch data are. What is said of the file is in the fact that names it.
//!
//! Counts of tokens beyond what Int64 holds are written as the largest that it does.
//!
//! [`FinalRow`] is what the merger makes of a row's results over all attempts, and what both output writers write: here
//! too is how its cells look, so that CSV and Parquet can't differ.

mod final_row;
mod reader;
mod writer;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use model::{FailureKind, RowStatus, Tokens};

pub(crate) use final_row::write_error;
pub use final_row::{Answers, Cell, FinalRow};
pub use reader::{End, Ends, ResultReader, ResultRows};
pub use writer::ResultWriter;

/// The columns, as the essay lists them.
pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| schema(&DataType::Utf8));

/// The same columns as they are read: views of the pages' bytes, which need no copy.
static VIEWS: LazyLock<SchemaRef> = LazyLock::new(|| schema(&DataType::Utf8View));

fn schema(text: &DataType) -> SchemaRef {
    let text = |name: &str| Field::new(name, text.clone(), true);
    let count = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![
        Field::new("_row", DataType::UInt64, false),
        text("response"),
        text("error"),
        text("status"),
        text("error_kind"),
        text("finish_reason"),
        text("model"),
        count("input_tokens"),
        count("cached_tokens"),
        count("output_tokens"),
        count("reasoning_tokens"),
        Field::new("tries", DataType::UInt32, false),
    ]))
}

/// The tokens of one row, as far as the provider said them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompt tokens, the cached ones included.
    pub input: Option<u64>,
    /// Prompt tokens that were read from the provider's cache.
    pub cached: Option<u64>,
    /// Completion tokens, the reasoning ones included.
    pub output: Option<u64>,
    /// Completion tokens spent on reasoning.
    pub reasoning: Option<u64>,
}

impl Usage {
    /// The tokens for adding up; what was not said counts nothing.
    #[must_use]
    pub fn tokens(self) -> Tokens {
        let known = |count: Option<u64>| count.unwrap_or(0);
        Tokens {
            input: known(self.input),
            cached: known(self.cached),
            output: known(self.output),
            reasoning: known(self.reasoning),
        }
    }
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        Self {
            input: Some(tokens.input),
            cached: Some(tokens.cached),
            output: Some(tokens.output),
            reasoning: Some(tokens.reasoning),
        }
    }
}

/// How one row ended in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultRow<'a> {
    /// The row of the input, from 0.
    pub row: u64,
    /// Answered, failed for good, or tried again.
    pub status: RowStatus,
    /// The answer.
    pub response: Option<&'a str>,
    /// Why it failed.
    pub error_kind: Option<FailureKind>,
    /// The message for it.
    pub error: Option<&'a str>,
    /// Why the model stopped.
    pub finish_reason: Option<&'a str>,
    /// The model that answered, as it names itself.
    pub model: Option<&'a str>,
    /// Tokens.
    pub usage: Usage,
    /// The row's failures so far, this attempt's included.
    pub tries: u32,
}

#[cfg(test)]
pub(crate) mod tests;
