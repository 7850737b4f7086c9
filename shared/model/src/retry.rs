//! Which kinds of failure are tried again, and how often.
//!
//! The table has three layers: what stands in this code, over it the settings (`[retry]`), over them the job's spec. The
//! splitter lays them over each other once and freezes the outcome in the plan: from then on the plan alone says what is
//! tried again, so that all pollers agree and a changed setting changes no living job.
//!
//! A row's failures are counted by kind, and each kind has its own limit: a row that expired twice and then met a server
//! error has its first try at server errors behind it. The deadline ends them all.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::outcome::FailureKind;

/// How often a kind of failure is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RetryLimit {
    /// At most this many tries beyond the first.
    Times(u32),
    /// As often as the job's deadline allows.
    Until(Until),
}

/// The one open-ended limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Until the job's deadline.
    Deadline,
}

/// What a limit may be, in words.
const LIMITS: &str = "a number of tries beyond the first, or \"deadline\"";

impl FromStr for RetryLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "deadline" => Ok(Self::Until(Until::Deadline)),
            number => number.parse().map(Self::Times).map_err(|_| format!("{number:?} is not {LIMITS}")),
        }
    }
}

impl fmt::Display for RetryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(times) => write!(f, "{times}"),
            Self::Until(Until::Deadline) => f.write_str("deadline"),
        }
    }
}

/// By hand, since an untagged enum can't say what it wants.
impl<'de> Deserialize<'de> for RetryLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Limit;
        impl Visitor<'_> for Limit {
            type Value = RetryLimit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(LIMITS)
            }

            fn visit_u64<E: de::Error>(self, times: u64) -> Result<RetryLimit, E> {
                let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(times), &self);
                u32::try_from(times).map(RetryLimit::Times).map_err(wrong)
            }

            fn visit_i64<E: de::Error>(self, times: i64) -> Result<RetryLimit, E> {
                let wrong = |_| E::invalid_value(de::Unexpected::Signed(times), &self);
                u32::try_from(times).map(RetryLimit::Times).map_err(wrong)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RetryLimit, E> {
                match text {
                    "deadline" => Ok(RetryLimit::Until(Until::Deadline)),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Limit)
    }
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

/// Why a kind that can't be tried again may not stand in a retry table, and what to do.
#[must_use]
pub fn never_tried_again(kind: FailureKind) -> String {
    let why = match kind {
        FailureKind::Cancelled | FailureKind::Deadline => "the job itself gave the row up",
        FailureKind::CrashLoop => "trying it took the process down",
        _ => "the row was never sent and would fail the same way",
    };
    format!("{kind} is never tried again ({why}): remove it")
}

/// A retry table: the limit of each kind that can be tried again.
///
/// As JSON or TOML it is a map from kind to limit. What is not written is the default; a kind that can't be tried again is
/// refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RetryTable {
    limits: BTreeMap<FailureKind, RetryLimit>,
}

impl Default for RetryTable {
    fn default() -> Self {
        let kinds = FailureKind::ALL.iter().copied().filter(|kind| may_be_tried_again(*kind));
        Self { limits: kinds.map(|kind| (kind, default_limit(kind))).collect() }
    }
}

impl RetryTable {
    /// The defaults with these changes.
    #[must_use]
    pub fn new(changes: &BTreeMap<FailureKind, RetryLimit>) -> Self {
        Self::default().with(changes)
    }

    /// This table with these changes. A kind that can't be tried again stays as it is.
    #[must_use]
    pub fn with(mut self, changes: &BTreeMap<FailureKind, RetryLimit>) -> Self {
        self.limits
            .extend(changes.iter().filter(|(kind, _)| may_be_tried_again(**kind)).map(|(kind, limit)| (*kind, *limit)));
        self
    }

    /// Every kind that can be tried again, with its limit: what the plan freezes.
    #[must_use]
    pub fn limits(&self) -> &BTreeMap<FailureKind, RetryLimit> {
        &self.limits
    }

    /// Whether a row that failed so, after `tries` earlier failures of that kind, is tried again.
    /// Once the deadline has passed nothing is.
    #[must_use]
    pub fn tries_again(&self, kind: FailureKind, tries: u32, deadline_passed: bool) -> bool {
        if deadline_passed {
            return false;
        }
        match self.limits.get(&kind).copied().unwrap_or(RetryLimit::Times(0)) {
            RetryLimit::Times(limit) => tries < limit,
            RetryLimit::Until(Until::Deadline) => true,
        }
    }
}

/// The names of all kinds, so that a reader which suggests names has them.
const KIND_NAMES: &[&str] = &{
    let mut names = [""; FailureKind::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = FailureKind::ALL[at].as_str();
        at += 1;
    }
    names
};

/// As a struct whose fields are the kinds: so the settings refuse an unknown one with its place and the nearest name.
impl<'de> Deserialize<'de> for RetryTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = RetryTable;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("limits by kind of failure")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RetryTable, A::Error> {
                let mut changes = BTreeMap::new();
                while let Some(Tried(kind)) = map.next_key()? {
                    changes.insert(kind, map.next_value()?);
                }
                Ok(RetryTable::new(&changes))
            }
        }
        deserializer.deserialize_struct("RetryTable", KIND_NAMES, Table)
    }
}

/// A kind that can be tried again.
struct Tried(FailureKind);

impl<'de> Deserialize<'de> for Tried {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let kind = FailureKind::deserialize(name.as_str().into_deserializer())?;
        if may_be_tried_again(kind) { Ok(Self(kind)) } else { Err(de::Error::custom(never_tried_again(kind))) }
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

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

    fn changes(json: &str) -> BTreeMap<FailureKind, RetryLimit> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_job_changes_one_kind_and_keeps_the_other_defaults() {
        let table = RetryTable::new(&changes(r#"{"refused":0,"truncated":1,"missing":"deadline"}"#));
        assert!(!table.tries_again(FailureKind::Refused, 0, false));
        assert!(table.tries_again(FailureKind::Truncated, 0, false));
        assert!(!table.tries_again(FailureKind::Truncated, 1, false));
        assert!(table.tries_again(FailureKind::Missing, 1_000, false));
        assert!(table.tries_again(FailureKind::ServerError, 4, false));
        assert!(!table.tries_again(FailureKind::ServerError, 5, false));
    }

    #[test]
    fn the_job_stands_over_the_settings_and_they_over_the_defaults() {
        let settings: RetryTable = serde_json::from_str(r#"{"refused":7,"missing":1}"#).unwrap();
        let table = settings.with(&changes(r#"{"missing":2}"#));
        let limit = |kind| table.limits()[&kind];
        assert_eq!(limit(FailureKind::Refused), RetryLimit::Times(7));
        assert_eq!(limit(FailureKind::Missing), RetryLimit::Times(2));
        assert_eq!(limit(FailureKind::Expired), RetryLimit::Until(Until::Deadline));
    }

    #[test]
    fn a_table_names_each_kind_that_can_be_tried_again_and_reads_back() {
        let table = RetryTable::default();
        for kind in FailureKind::ALL {
            assert_eq!(table.limits().contains_key(kind), may_be_tried_again(*kind), "{kind}");
        }
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<RetryTable>(&json).unwrap(), table);
        assert_eq!(RetryTable::new(&changes(&json)), table);
    }

    #[test]
    fn a_table_refuses_what_is_never_tried_again_and_what_it_does_not_know() {
        let error = |json: &str| serde_json::from_str::<RetryTable>(json).unwrap_err().to_string();
        assert!(error(r#"{"bad_row":1}"#).contains("bad_row is never tried again (the row was never sent"));
        assert!(error(r#"{"cancelled":1}"#).contains("gave the row up"));
        assert!(error(r#"{"expird":1}"#).contains("unknown variant `expird`"));
        assert!(error(r#"{"expired":"soon"}"#).contains("\"deadline\""));
    }

    #[test]
    fn a_limit_reads_back_from_its_text() {
        for limit in [RetryLimit::Times(0), RetryLimit::Times(7), RetryLimit::Until(Until::Deadline)] {
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
        assert!("often".parse::<RetryLimit>().unwrap_err().contains("\"deadline\""));
        assert!("-1".parse::<RetryLimit>().is_err());
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

        #[test]
        fn whatever_is_written_into_a_table_what_was_never_sent_stays_failed(tries: u32, limit: u32) {
            let changes = FailureKind::ALL.iter().map(|kind| (*kind, RetryLimit::Times(limit))).collect();
            let table = RetryTable::new(&changes);
            for kind in FailureKind::ALL.iter().filter(|kind| !may_be_tried_again(**kind)) {
                prop_assert!(!table.tries_again(*kind, tries, false));
            }
        }
    }
}
