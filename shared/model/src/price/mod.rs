//! What tokens cost: the dated list of prices, and the cost of a row, an attempt and a job.
//!
//! A price is the operator's word, not the provider's: no provider says money for a row. So it is dated, it has a source,
//! and it can be overridden by the settings. The splitter looks the job's model up once and freezes what it found in the
//! plan, as it does with the retry table: all pollers agree, and a changed price changes no living job.
//!
//! What is not known is never counted as nothing. A model that the list lacks makes the job's cost unknown; an answer whose
//! line tells no usage is counted as unmetered beside the cost.
//!
//! - [`Usd`], [`PerMillion`]: exact amounts.
//! - [`list`]: the list, the built-in one and its changes.
//! - [`Pricing`]: what the plan froze. [`Cost`]: of tokens under it.

pub mod list;
mod usd;

use std::ops::AddAssign;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use list::{ModelPrice, PriceError, Prices};
pub use usd::{NotUsd, PerMillion, Usd};

use crate::facts::ResultFact;
use crate::outcome::Tokens;

/// Prices of one way to ask a model, in US dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenPrices {
    /// Prompt tokens.
    pub input: PerMillion,
    /// Prompt tokens from the provider's cache; without it they cost as much as others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<PerMillion>,
    /// Completion tokens, the reasoning ones included.
    pub output: PerMillion,
}

/// What the plan froze of the prices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "price", rename_all = "snake_case")]
pub enum Pricing {
    /// The list had no price for the job's model: its cost is unknown.
    Unknown,
    /// The list had one.
    Listed(ListedPrice),
}

/// A price as the list had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedPrice {
    /// The list's entry, `provider/model`: the job's model, or that without its date.
    pub entry: String,
    /// The day for which the price was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Date>,
    /// Where it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether nobody is paid: the model is simulated.
    #[serde(default, skip_serializing_if = "is_false")]
    pub simulated: bool,
    /// In batches.
    pub batch: TokenPrices,
    /// At once, for comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realtime: Option<TokenPrices>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands a reference
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands a reference
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What tokens cost, by kind. The kinds don't overlap, and their sum is the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// All of it, in US dollars.
    pub total: Usd,
    /// Prompt tokens that were not read from the provider's cache.
    pub input: Usd,
    /// Prompt tokens that were.
    pub cached_input: Usd,
    /// Completion tokens.
    pub output: Usd,
    /// What the same tokens would have cost at once, if the list says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realtime: Option<Usd>,
    /// Answers whose lines told no usage: what they cost is not in here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unmetered: u64,
}

/// What a job cost, and by which price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobCost {
    /// The cost.
    #[serde(flatten)]
    pub cost: Cost,
    /// The entry of the price list.
    pub entry: String,
    /// The day for which its price was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Date>,
    /// Whether nobody is paid: the model is simulated.
    #[serde(default, skip_serializing_if = "is_false")]
    pub simulated: bool,
}

impl TokenPrices {
    /// Input, cached input and output of these tokens.
    fn of(&self, tokens: &Tokens) -> [Usd; 3] {
        // The cached tokens are some of the input, whatever a provider says.
        let cached = tokens.cached.min(tokens.input);
        let cached_input = self.cached_input.unwrap_or(self.input);
        [self.input.of(tokens.input - cached), cached_input.of(cached), self.output.of(tokens.output)]
    }
}

impl ListedPrice {
    /// Nothing yet: what costs are added to.
    #[must_use]
    pub fn nothing(&self) -> Cost {
        self.cost(&Tokens::default())
    }

    /// What these tokens of one row cost.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> Cost {
        let [input, cached_input, output] = self.batch.of(tokens);
        let realtime = self.realtime.map(|prices| prices.of(tokens).into_iter().sum());
        Cost { total: input + cached_input + output, input, cached_input, output, realtime, unmetered: 0 }
    }

    /// What a job cost: the sum over all attempts, those whose rows were tried again included. An attempt that a poller of
    /// before there were prices collected is priced by its tokens.
    #[must_use]
    pub fn job<'r>(&self, attempts: impl IntoIterator<Item = &'r ResultFact>) -> JobCost {
        let mut cost = self.nothing();
        attempts.into_iter().for_each(|fact| cost += &fact.cost.unwrap_or_else(|| self.cost(&fact.tokens)));
        JobCost { cost, entry: self.entry.clone(), as_of: self.as_of, simulated: self.simulated }
    }
}

impl Pricing {
    /// The price, if there is one.
    #[must_use]
    pub fn listed(&self) -> Option<&ListedPrice> {
        match self {
            Self::Listed(price) => Some(price),
            Self::Unknown => None,
        }
    }
}

impl Cost {
    /// What was saved against asking at once, if that is known.
    #[must_use]
    pub fn saved(&self) -> Option<Usd> {
        self.realtime.map(|realtime| realtime.saturating_sub(self.total))
    }
}

impl AddAssign<&Cost> for Cost {
    fn add_assign(&mut self, other: &Cost) {
        self.total += other.total;
        self.input += other.input;
        self.cached_input += other.cached_input;
        self.output += other.output;
        self.realtime = self.realtime.zip(other.realtime).map(|(here, there)| here + there);
        self.unmetered += other.unmetered;
    }
}

#[cfg(test)]
mod tests;
