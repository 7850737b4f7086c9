//! A row as it stands in the output.

use std::borrow::Cow;

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
    pub fn error_cell(&self) -> Option<Cow<'a, str>> {
        if self.status == RowStatus::Answered {
            return None;
        }
        let kind = self.error_kind.map_or("failed", FailureKind::as_str);
        Some(match self.error {
            Some(message) if !message.is_empty() => Cow::Owned(format!("{kind}: {message}")),
            _ => Cow::Borrowed(kind),
        })
    }

    /// The cells as text, in the order of [`model::JobSpec::added_columns`]; none where there is nothing, so that an
    /// empty answer and no answer stay two things.
    #[must_use]
    pub fn cells(&self, details: bool) -> Vec<Option<Cow<'a, str>>> {
        let text = |text: Option<&'a str>| text.map(Cow::Borrowed);
        let count = |count: Option<u64>| count.map(|count| Cow::Owned(count.to_string()));
        let mut cells = vec![text(self.response), self.error_cell()];
        if details {
            cells.extend([
                Some(Cow::Borrowed(self.status.as_str())),
                text(self.error_kind.map(FailureKind::as_str)),
                text(self.finish_reason),
                text(self.model),
                count(self.usage.input),
                count(self.usage.cached),
                count(self.usage.output),
                count(self.usage.reasoning),
                Some(Cow::Owned(self.attempts.to_string())),
                self.cost.map(|cost| Cow::Owned(cost.to_string())),
            ]);
        }
        cells
    }
}

/// Where an output writer gets the answers from: one row after the other, in the order of the batch's rows.
pub trait Answers {
    /// The next row's end.
    ///
    /// # Errors
    /// When there is none: the results do not cover the batch.
    fn next_row(&mut self) -> Result<FinalRow<'_>, Error>;
}
