//! Which kinds of failure are tried again, and how often: ARCHITECTURE's table, which a job may change kind by kind.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::outcome::FailureKind;

/// How often a kind of failure is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RetryLimit {
    /// At most this many tries beyond the first.
    Times(u32),
    /// As often as the job's deadline allows.
    Until(Until),
}

/// The one open-ended limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Until the job's deadline.
    Deadline,
}

/// The default limit of a kind: what was not billed is tried until the deadline, what perhaps was five times, what can't
/// get better never.
#[must_use]
pub fn default_limit(kind: FailureKind) -> RetryLimit {
    use FailureKind as K;
    match kind {
        K::Expired | K::RateLimited => RetryLimit::Until(Until::Deadline),
        K::ServerError | K::Timeout | K::Missing | K::Malformed | K::BatchFailed => RetryLimit::Times(5),
        K::Refused => RetryLimit::Times(2),
        _ => RetryLimit::Times(0),
    }
}

/// Whether a kind can be tried again at all: not what failed before it was sent, and not what the job itself gave up.
#[must_use]
pub fn may_be_tried_again(kind: FailureKind) -> bool {
    use FailureKind as K;
    !matches!(
        kind,
        K::BadRow | K::TemplateFailed | K::EmptyPrompt | K::TooLarge | K::Cancelled | K::Deadline | K::CrashLoop
    )
}

/// The retry table of one job: the defaults with the job's own changes over them.
#[derive(Debug, Clone, Default)]
pub struct RetryTable {
    changes: BTreeMap<FailureKind, RetryLimit>,
}

impl RetryTable {
    /// The defaults with these changes.
    #[must_use]
    pub fn new(changes: &BTreeMap<FailureKind, RetryLimit>) -> Self {
        Self { changes: changes.clone() }
    }

    /// Whether a row that failed so, after `tries` earlier failures of that kind, is tried again.
    /// Once the deadline has passed nothing is.
    #[must_use]
    pub fn tries_again(&self, kind: FailureKind, tries: u32, deadline_passed: bool) -> bool {
        if deadline_passed {
            return false;
        }
        match self.changes.get(&kind).copied().unwrap_or_else(|| default_limit(kind)) {
            RetryLimit::Times(limit) => tries < limit,
            RetryLimit::Until(Until::Deadline) => true,
        }
    }
}

/// A row's failures so far, by kind, as batch data carries them: `expired=2,missing=1`, kinds in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tries(BTreeMap<FailureKind, u32>);

impl Tries {
    /// Reads the text of batch data. Unknown kinds and counts that are no numbers are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pairs = text.split(',').filter_map(|pair| {
            let (kind, count) = pair.split_once('=')?;
            Some((FailureKind::parse(kind)?, count.parse().ok()?))
        });
        Self(pairs.collect())
    }

    /// The failures of one kind so far.
    #[must_use]
    pub fn of(&self, kind: FailureKind) -> u32 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// All failures so far.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.values().sum()
    }

    /// Counts one more failure.
    pub fn record(&mut self, kind: FailureKind) {
        *self.0.entry(kind).or_default() += 1;
    }
}

impl std::fmt::Display for Tries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (kind, count)) in self.0.iter().enumerate() {
            write!(f, "{}{kind}={count}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_job_changes_one_kind_and_keeps_the_other_defaults() {
        let table =
            RetryTable::new(&serde_json::from_str(r#"{"refused":0,"truncated":1,"missing":"deadline"}"#).unwrap());
        assert!(!table.tries_again(FailureKind::Refused, 0, false));
        assert!(table.tries_again(FailureKind::Truncated, 0, false));
        assert!(!table.tries_again(FailureKind::Truncated, 1, false));
        assert!(table.tries_again(FailureKind::Missing, 1_000, false));
        assert!(table.tries_again(FailureKind::ServerError, 4, false));
        assert!(!table.tries_again(FailureKind::ServerError, 5, false));
    }

    proptest! {
        #[test]
        fn nothing_is_tried_again_after_the_deadline(kind in proptest::sample::select(FailureKind::ALL), tries: u32) {
            prop_assert!(!RetryTable::default().tries_again(kind, tries, true));
        }

        #[test]
        fn tries_read_back_as_they_were_written(kinds in proptest::collection::vec(proptest::sample::select(FailureKind::ALL), 0..40)) {
            let mut tries = Tries::default();
            kinds.iter().for_each(|kind| tries.record(*kind));
            prop_assert_eq!(Tries::parse(&tries.to_string()), tries.clone());
            prop_assert_eq!(tries.total() as usize, kinds.len());
        }
    }
}
