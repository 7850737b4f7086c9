//! How many batches may be at a provider at a time, as the settings have it: one cap for the whole account, one for each model.
//!
//! Only the numbers are here. Who may have the next place is the dispatcher's decision.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use serde::Deserialize;

/// The settings of one model of an account, `[providers.<name>.models.<model>]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// The most batches of this model at a time; none: no cap of its own.
    pub max_batches: Option<NonZeroU64>,
}

/// The caps of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caps {
    /// Over all its models.
    pub account: Option<NonZeroU64>,
    /// By model, as the provider names it.
    pub models: BTreeMap<String, NonZeroU64>,
}

impl Caps {
    pub(crate) fn new(account: Option<NonZeroU64>, models: &BTreeMap<String, ModelSettings>) -> Self {
        let capped = |(model, settings): (&String, &ModelSettings)| Some((model.clone(), settings.max_batches?));
        Self { account, models: models.iter().filter_map(capped).collect() }
    }

    /// Whether a batch of this model is under any of them.
    #[must_use]
    pub fn cover(&self, model: &str) -> bool {
        self.account.is_some() || self.models.contains_key(model)
    }
}
