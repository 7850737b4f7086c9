//! A row as it stands in the output.

use std::fmt::{self, Write};

use model::price::Usd;
use model::{FailureKind, RowStatus};

use super::{ResultRow, Usage};
use crate::Error;

/// How a row ended over all attempts: the values of the columns that the output adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinalRow<'a> {
    /// Answered or failed.
    pub status: RowStatus,
    /// The answer; none for a failed row.
    pub response: Option<&'a str>,
    /// Why it failed; none for an answered row.
    pub error_kind: Option<FailureKind>,
    /// The message for it, without the kind.
    pub error: Option<&'a str>,
    /// Why the model stopped.
    pub finish_reason: Option<&'a str>,
    /// The model that answered, as it names itself.
    pub model: Option<&'a str>,
    /// Tokens.
    pub usage: Usage,
    /// How many attempts the row took part in.
    pub attempts: u32,
    /// What all of them cost together; none if that is not known.
    pub cost: Option<Usd>,
}

impl<'a> FinalRow<'a> {
    /// The end of a row whose last result this is. An answered row shows no error of an earlier attempt, a failed one
    /// no answer.
    #[must_use]
    pub fn new(last: &ResultRow<'a>, attempts: u32, cost: Option<Usd>) -> Self {
        let answered = last.status == RowStatus::Answered;
        Self {
            status: if answered { RowStatus::Answered } else { RowStatus::Failed },
            response: last.response.filter(|_| answered),
            error_kind: last.error_kind.filter(|_| !answered),
            error: last.error.filter(|_| !answered),
            finish_reason: last.finish_reason,
            model: last.model,
            usage: last.usage,
            attempts,
            cost,
        }
    }

    /// The error cell: `<kind>: <message>`, or the kind alone; nothing for an answered row.
    #[must_use]
    pub fn error_cell(&self) -> Option<String> {
        (self.status != RowStatus::Answered).then(|| {
            let mut cell = String::new();
            // A string takes whatever is written into it.
            let _ = write_error(self.error_kind, self.error, &mut cell);
            cell
        })
    }

    /// The cells, in the order of [`model::JobSpec::added_columns`] with details; without them the first two are all.
    #[must_use]
    pub fn cells(&self) -> [Cell<'a>; 12] {
        let word = |text: Option<&'a str>| text.map_or(Cell::None, Cell::Word);
        let count = |count: Option<u64>| count.map_or(Cell::None, Cell::Count);
        [
            self.response.map_or(Cell::None, Cell::Text),
            if self.status == RowStatus::Answered { Cell::None } else { Cell::Error(self.error_kind, self.error) },
            Cell::Word(self.status.as_str()),
            word(self.error_kind.map(FailureKind::as_str)),
            word(self.finish_reason),
            word(self.model),
            count(self.usage.input),
            count(self.usage.cached),
            count(self.usage.output),
            count(self.usage.reasoning),
            Cell::Count(self.attempts.into()),
            self.cost.map_or(Cell::None, Cell::Cost),
        ]
    }
}

/// One added cell of a row. Nothing and a text without characters are two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Nothing.
    None,
    /// A text.
    Text(&'a str),
    /// A text that many rows have alike.
    Word(&'a str),
    /// The error, kind and message, which are written as `<kind>: <message>`.
    Error(Option<FailureKind>, Option<&'a str>),
    /// A count.
    Count(u64),
    /// A cost.
    Cost(Usd),
}

/// What stands for the kind where there is none.
const NO_KIND: &str = "failed";

/// Writes an error cell: `<kind>: <message>`, or the kind alone.
pub(crate) fn write_error(kind: Option<FailureKind>, message: Option<&str>, into: &mut impl Write) -> fmt::Result {
    into.write_str(kind.map_or(NO_KIND, FailureKind::as_str))?;
    match message {
        Some(message) if !message.is_empty() => {
            into.write_str(": ")?;
            into.write_str(message)
        }
        _ => Ok(()),
    }
}

/// The message of an error cell; none if the cell is the kind alone. `Err` when the cell is not of this kind.
pub(super) fn message_of(cell: &str, kind: Option<FailureKind>) -> Result<Option<&str>, ()> {
    let rest = cell.strip_prefix(kind.map_or(NO_KIND, FailureKind::as_str)).ok_or(())?;
    if rest.is_empty() { Ok(None) } else { rest.strip_prefix(": ").map(Some).ok_or(()) }
}

/// Where an output writer gets the answers from: one row after the other, in the order of the batch's rows.
pub trait Answers {
    /// The next row's end.
    ///
    /// # Errors
    /// When there is none: the results do not cover the batch.
    fn next_row(&mut self) -> Result<FinalRow<'_>, Error>;
}
