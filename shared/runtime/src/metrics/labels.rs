//! Labels whose values callers choose.
//!
//! A Prometheus server holds a series in memory for each value of a label that it ever saw. A team is one that the
//! settings name, but a model is any text behind a provider's name; so of each only the first
//! `metrics.max_label_values` are labels of their own, and the rest count together.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use model::Team;

use crate::settings::Common;

/// The value that stands for all beyond the limit.
pub const OTHER: &str = "other";
/// A longer text is no name that anybody would look for.
const LONGEST: usize = 100;

/// The values of one label. Clones share them.
#[derive(Debug, Clone)]
pub struct Bounded {
    most: usize,
    known: Arc<Mutex<BTreeSet<String>>>,
}

impl Bounded {
    /// At most so many values, these among them.
    #[must_use]
    pub fn new(most: usize, known: impl IntoIterator<Item = String>) -> Self {
        Self { most, known: Arc::new(Mutex::new(known.into_iter().collect())) }
    }

    /// The value itself, or [`OTHER`] if there are too many already.
    #[must_use]
    pub fn of<'v>(&self, value: &'v str) -> &'v str {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(value) {
            return value;
        }
        if known.len() >= self.most || value.len() > LONGEST {
            return OTHER;
        }
        known.insert(value.to_owned());
        value
    }

    /// The values so far, in order.
    #[must_use]
    pub fn known(&self) -> Vec<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// The labels of a process whose values callers choose.
#[derive(Debug, Clone)]
pub struct Labels {
    /// Teams; those of the settings are always among them.
    pub teams: Bounded,
    /// Models, as their providers name them.
    pub models: Bounded,
}

impl Labels {
    pub(crate) fn new(common: &Common) -> Self {
        let most = common.metrics.max_label_values;
        let teams = common.locations.teams.keys().cloned().chain([Team::shared()]);
        Self { teams: Bounded::new(most, teams.map(|team| team.as_str().to_owned())), models: Bounded::new(most, []) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_all_values_are_one() {
        let models = Bounded::new(2, ["a".to_owned()]);
        assert_eq!([models.of("b"), models.of("c"), models.of("a"), models.of("b")], ["b", OTHER, "a", "b"]);
        assert_eq!(models.known(), ["a", "b"]);
        assert_eq!(Bounded::new(9, []).of(&"x".repeat(101)), OTHER);
    }
}
