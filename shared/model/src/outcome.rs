//! How a row ended. Each row of the input ends in exactly one of: answered, or failed with a kind.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the result data says of a row in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowStatus {
    /// It has its answer.
    Answered,
    /// It failed and is not tried again.
    Failed,
    /// It failed and stands in the next attempt's batch data.
    Retried,
}

impl RowStatus {
    /// The status as result data spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Retried => "retried",
        }
    }

    /// Reads a status back; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Answered, Self::Failed, Self::Retried].into_iter().find(|status| status.as_str() == text)
    }
}

macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Why a row failed. The names are stable: they stand in outputs, facts, events and metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum FailureKind {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl FailureKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The kind's stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

failure_kinds! {
    /// The provider's window closed before the row ran. Not billed.
    Expired = "expired",
    /// The provider's rate or queue limit. Not billed.
    RateLimited = "rate_limited",
    /// The provider failed (5xx, status 0, no body). Perhaps billed.
    ServerError = "server_error",
    /// The provider's own request time-out. Perhaps billed.
    Timeout = "timeout",
    /// The provider's files say nothing of the row. Perhaps billed.
    Missing = "missing",
    /// The row's line in the provider's files can't be read. Perhaps billed.
    Malformed = "malformed",
    /// The model or a content filter refused.
    Refused = "refused",
    /// An image that the provider could not fetch or read.
    InvalidImage = "invalid_image",
    /// The provider says that the request is wrong: sending it again can't help.
    InvalidRequest = "invalid_request",
    /// The prompt is longer than the model's context.
    ContextTooLong = "context_too_long",
    /// The answer was cut at the token limit.
    Truncated = "truncated",
    /// The answer does not fit the schema that was asked for.
    SchemaInvalid = "schema_invalid",
    /// The provider refused the whole batch for good (credentials, permissions, an unknown model).
    BatchRejected = "batch_rejected",
    /// The whole batch failed at the provider without a word on its rows.
    BatchFailed = "batch_failed",
    /// The row is malformed in the input and the job says `on_bad_row: fail_row`.
    BadRow = "bad_row",
    /// The template can't be rendered for this row.
    TemplateFailed = "template_failed",
    /// The prompt is empty.
    EmptyPrompt = "empty_prompt",
    /// The encoded request is too large for one batch or one request.
    TooLarge = "too_large",
    /// The job was cancelled before the row was answered.
    Cancelled = "cancelled",
    /// The job's deadline passed before the row was answered.
    Deadline = "deadline",
    /// Accounting for the row took the process down again and again.
    CrashLoop = "crash_loop",
}

impl FailureKind {
    /// Reads a stable name back; `None` for an unknown one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tokens as the provider's usage figures say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// Prompt tokens, the cached ones included.
    pub input: u64,
    /// Prompt tokens that were read from the provider's cache.
    pub cached: u64,
    /// Completion tokens, the reasoning ones included.
    pub output: u64,
    /// Completion tokens spent on reasoning.
    pub reasoning: u64,
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        // A provider may say any number: sums stop at the largest.
        self.input = self.input.saturating_add(other.input);
        self.cached = self.cached.saturating_add(other.cached);
        self.output = self.output.saturating_add(other.output);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
    }
}

/// Rows by outcome. For an attempt, `retried` rows go on in the next one; for a whole job there are none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// All rows counted here.
    pub rows: u64,
    /// Rows with an answer.
    pub answered: u64,
    /// Rows that failed for good, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<FailureKind, u64>,
    /// Rows that failed and are tried again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retried: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands a reference
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Counts {
    /// Counts one more row.
    pub fn record(&mut self, status: RowStatus, kind: Option<FailureKind>) {
        self.rows += 1;
        match status {
            RowStatus::Answered => self.answered += 1,
            RowStatus::Retried => self.retried += 1,
            RowStatus::Failed => *self.failed.entry(kind.unwrap_or(FailureKind::Missing)).or_default() += 1,
        }
    }

    /// All rows that failed for good.
    #[must_use]
    pub fn failed_rows(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Whether every row is accounted for: rows = answered + failed + retried (invariant 8).
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.rows == self.answered + self.failed_rows() + self.retried
    }
}

impl std::ops::AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Counts) {
        self.rows += other.rows;
        self.answered += other.answered;
        self.retried += other.retried;
        for (kind, rows) in &other.failed {
            *self.failed.entry(*kind).or_default() += rows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_by_its_stable_name_and_as_json() {
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::parse(kind.as_str()), Some(*kind));
            assert_eq!(serde_json::to_string(kind).unwrap(), format!("\"{kind}\""));
        }
    }

    #[test]
    fn counts_are_conserved_however_rows_end() {
        let mut counts = Counts::default();
        counts.record(RowStatus::Answered, None);
        counts.record(RowStatus::Failed, Some(FailureKind::Refused));
        counts.record(RowStatus::Retried, Some(FailureKind::Expired));
        assert!(counts.is_conserved());
        counts.rows += 1;
        assert!(!counts.is_conserved());
    }
}
