//! The list of prices: a TOML file with a date, and an entry for each model as jobs name it (`provider/model`).
//!
//! The built-in list is `prices.toml` beside this file. A file of the operator's and entries in the settings stand over it,
//! entry by entry. A model with a date in its name (`openai/gpt-4o-mini-2024-07-18`) has the price of the one without,
//! unless it is listed itself. Nothing else is guessed: a model that is not listed has no price.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::{ListedPrice, Pricing, TokenPrices};

/// The built-in list.
const BUILT_IN: &str = include_str!("prices.toml");

/// One model's prices, as the list or the settings have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// Where they were read: the address of the provider's page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The day for which they were noted; without it, the list's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Date>,
    /// Whether nobody is paid: the model is simulated.
    #[serde(default)]
    pub simulated: bool,
    /// In batches.
    pub batch: TokenPrices,
    /// At once, for comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realtime: Option<TokenPrices>,
}

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prices {
    models: BTreeMap<String, ModelPrice>,
}

/// A list as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    as_of: Date,
    models: BTreeMap<String, ModelPrice>,
}

/// A list that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// It is not TOML, or a field is wrong or unknown.
    #[error("the price list is not as it should be: {0}")]
    Unreadable(String),
    /// An entry's name is not a model as jobs name it.
    #[error("the price list has the entry {0:?}: write provider/model, as in \"openai/gpt-4o-mini\"")]
    NoModel(String),
}

impl Prices {
    /// The list of this build.
    ///
    /// # Errors
    /// None: a test reads it.
    pub fn built_in() -> Result<Self, PriceError> {
        Self::parse(BUILT_IN)
    }

    /// Reads a list.
    ///
    /// # Errors
    /// When it is not as it should be.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let Written { as_of, mut models } =
            toml::from_str(text).map_err(|error| PriceError::Unreadable(error.to_string()))?;
        models.values_mut().for_each(|price| price.as_of = price.as_of.or(Some(as_of)));
        Self::default().with(models)
    }

    /// This list with these entries over it. An entry replaces the one of its name whole.
    ///
    /// # Errors
    /// When an entry's name is no model.
    pub fn with(mut self, entries: BTreeMap<String, ModelPrice>) -> Result<Self, PriceError> {
        for (name, price) in entries {
            match name.split_once('/') {
                Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                    self.models.insert(name, price);
                }
                _ => return Err(PriceError::NoModel(name)),
            }
        }
        Ok(self)
    }

    /// This list with another over it.
    #[must_use]
    pub fn under(mut self, over: Self) -> Self {
        self.models.extend(over.models);
        self
    }

    /// The entries by name.
    #[must_use]
    pub fn models(&self) -> &BTreeMap<String, ModelPrice> {
        &self.models
    }

    /// What a job with this model (`provider/model`) is priced by.
    #[must_use]
    pub fn of(&self, model: &str) -> Pricing {
        let entry = |name: &str| self.models.get_key_value(name);
        let Some((name, price)) = entry(model).or_else(|| without_date(model).and_then(entry)) else {
            return Pricing::Unknown;
        };
        Pricing::Listed(ListedPrice {
            entry: name.clone(),
            as_of: price.as_of,
            source: price.source.clone(),
            simulated: price.simulated,
            batch: price.batch,
            realtime: price.realtime,
        })
    }
}

/// `gpt-4o-mini-2024-07-18` → `gpt-4o-mini`; none if no date ends the name.
fn without_date(model: &str) -> Option<&str> {
    let at = model.len().checked_sub("-2024-07-18".len())?;
    let (base, date) = model.split_at_checked(at)?;
    date.strip_prefix('-')?.parse::<Date>().ok().map(|_| base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(list: &Prices, model: &str) -> Option<String> {
        list.of(model).listed().map(|price| price.entry.clone())
    }

    #[test]
    fn the_built_in_list_reads_and_each_entry_has_a_date_a_source_and_a_price_for_both_ways() {
        let list = Prices::built_in().unwrap();
        assert!(list.models().len() > 8);
        for (name, price) in list.models() {
            assert!(price.as_of.is_some() && price.source.is_some(), "{name}");
            assert_eq!(price.simulated, name.starts_with("sim/"), "{name}");
            let realtime = price.realtime.unwrap();
            // Half of it, as all providers with batches say.
            let doubled = price.batch.input.of(2_000_000);
            assert_eq!(
                (doubled, price.batch.output.of(2)),
                (realtime.input.of(1_000_000), realtime.output.of(1)),
                "{name}"
            );
            for prices in [price.batch, realtime] {
                assert!(prices.cached_input.is_none_or(|cached| cached <= prices.input), "{name}");
                assert!(prices.input <= prices.output, "{name}");
            }
        }
    }

    #[test]
    fn a_dated_model_has_the_price_of_the_one_without_unless_it_is_listed_itself() {
        let list = Prices::built_in().unwrap();
        assert_eq!(entry(&list, "openai/gpt-4o-mini").as_deref(), Some("openai/gpt-4o-mini"));
        assert_eq!(entry(&list, "openai/gpt-4o-mini-2024-07-18").as_deref(), Some("openai/gpt-4o-mini"));
        let price = list.models()["openai/gpt-4o"].clone();
        let list = list.with([("openai/gpt-4o-mini-2024-07-18".to_owned(), price)].into()).unwrap();
        assert_eq!(entry(&list, "openai/gpt-4o-mini-2024-07-18").as_deref(), Some("openai/gpt-4o-mini-2024-07-18"));
        assert_eq!(entry(&list, "openai/gpt-4o-mini-2025-01-01").as_deref(), Some("openai/gpt-4o-mini"));
    }

    #[test]
    fn what_is_not_listed_has_no_price() {
        let list = Prices::built_in().unwrap();
        for model in [
            "openai/gpt-4o-mini-2024-13-41",
            "openai/gpt-4o-mini-preview",
            "openai/ft:gpt-4o-mini-2024-07-18:acme::x",
            "azure/gpt-4o-mini",
            "gpt-4o-mini",
            "openai/GPT-4o-mini",
            "ü-2024-07-18",
            "-2024-07-18",
            "",
        ] {
            assert_eq!(list.of(model), Pricing::Unknown, "{model}");
        }
    }

    #[test]
    fn a_list_over_another_replaces_whole_entries() {
        let over =
            Prices::parse("as_of = \"2027-01-02\"\n[models.\"openai/gpt-4o\"]\nbatch = { input = 3, output = 4.5 }\n");
        let list = Prices::built_in().unwrap().under(over.unwrap());
        let Pricing::Listed(price) = list.of("openai/gpt-4o") else { panic!("it is listed") };
        assert_eq!((price.as_of, price.realtime), (Some("2027-01-02".parse().unwrap()), None));
        assert_eq!((price.batch.input.to_string(), price.batch.output.to_string()), ("3".to_owned(), "4.5".to_owned()));
        assert!(entry(&list, "openai/gpt-4o-mini").is_some());
    }

    #[test]
    fn a_wrong_list_says_what_is_wrong() {
        let error = |text: &str| Prices::parse(text).unwrap_err().to_string();
        assert!(error("models = {}").contains("as_of"));
        assert!(
            error("as_of = \"2026-01-01\"\n[models.gpt]\nbatch = { input = 1, output = 1 }").contains("provider/model")
        );
        assert!(
            error("as_of = \"2026-01-01\"\n[models.\"a/b\"]\nbatch = { input = \"1e-3\", output = 1 }")
                .contains("1e-3")
        );
        assert!(error("as_of = \"2026-01-01\"\n[models.\"a/b\"]\nbatch = { input = 1 }").contains("output"));
        assert!(error("as_of = \"2026-01-01\"\n[models.\"a/b\"]\nrealtme = 1").contains("realtme"));
    }
}
