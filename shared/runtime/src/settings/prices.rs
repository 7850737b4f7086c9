//! `[prices]`: what tokens cost. The built-in list, over it a file of the operator's, over that the entries of the settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use model::price::{ModelPrice, Prices, Usd};
use serde::{Deserialize, Serialize};

/// `[prices]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct PriceSettings {
    /// A list over the built-in one, in its format (`shared/model/src/price/prices.toml`).
    pub file: Option<PathBuf>,
    /// What may be spent in a day, in US dollars; the alerts compare with it, nothing stops at it.
    pub daily_budget_usd: Option<Usd>,
    /// Entries over both, by `provider/model`.
    pub models: BTreeMap<String, ModelPrice>,
}

impl PriceSettings {
    /// The list that they come to.
    ///
    /// # Errors
    /// When the file can't be read, or an entry is not as it should be.
    pub fn list(&self) -> anyhow::Result<Prices> {
        let mut prices = Prices::built_in()?;
        if let Some(path) = &self.file {
            let place = || format!("prices.file: {}", path.display());
            let text = std::fs::read_to_string(path).with_context(|| format!("{}: can't be read", place()))?;
            prices = prices.under(Prices::parse(&text).with_context(place)?);
        }
        prices.with(self.models.clone()).context("prices.models")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn settings(file: &str, flags: &[(&str, &str)]) -> anyhow::Result<PriceSettings> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("batchmill.toml");
        std::fs::write(&path, file)?;
        let flags: Vec<_> = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Ok(Settings::load(Some(&path), std::iter::empty(), &flags)?.declare("prices")?)
    }

    fn input(prices: &Prices, model: &str) -> String {
        prices.of(model).listed().map(|price| price.batch.input.to_string()).unwrap_or_default()
    }

    #[test]
    fn without_settings_the_built_in_list_rules() {
        let prices = settings("", &[]).unwrap();
        assert_eq!(prices, PriceSettings::default());
        assert_eq!(input(&prices.list().unwrap(), "openai/gpt-4o-mini"), "0.075");
    }

    #[test]
    fn a_file_stands_over_the_built_in_list_and_the_settings_over_both() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("ours.toml");
        let entry =
            |model: &str, input: u32| format!("[models.\"{model}\"]\nbatch = {{ input = {input}, output = 9 }}\n");
        std::fs::write(&list, format!("as_of = \"2026-11-01\"\n{}{}", entry("openai/gpt-4o", 3), entry("a/b", 4)))
            .unwrap();
        let inline = "[prices.models.\"a/b\"]\nbatch = { input = 0.5, output = \"0.75\" }\n[prices.models.\"azure/x\"]\nas_of = \"2026-10-01\"\nbatch.input = 1\nbatch.output = 2\n";
        let flags = [("prices.file", list.to_str().unwrap()), ("prices.daily_budget_usd", "12.5")];
        let settings = settings(inline, &flags).unwrap();
        assert_eq!(settings.daily_budget_usd.unwrap().to_string(), "12.5");
        let prices = settings.list().unwrap();
        for (model, expected) in
            [("openai/gpt-4o-mini", "0.075"), ("openai/gpt-4o", "3"), ("a/b", "0.5"), ("azure/x", "1"), ("a/c", "")]
        {
            assert_eq!(input(&prices, model), expected, "{model}");
        }
        assert_eq!(prices.of("openai/gpt-4o").listed().unwrap().as_of.unwrap().to_string(), "2026-11-01");
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_place() {
        let error = |file: &str, flags: &[(&str, &str)]| {
            let listed = settings(file, flags).and_then(|settings| settings.list());
            format!("{:#}", listed.unwrap_err())
        };
        assert!(error("[prices]\nfil = \"x\"", &[]).contains("did you mean `file`?"));
        assert!(error("", &[("prices.file", "/nowhere/prices.toml")]).contains("prices.file: /nowhere/prices.toml"));
        assert!(error("", &[("prices.daily_budget_usd", "-3")]).contains("prices.daily_budget_usd"));
        let typo = error("[prices.models.\"a/b\"]\nbatch = { input = 1, ouput = 2 }", &[]);
        assert!(typo.contains("ouput"), "{typo}");
        assert!(error("[prices.models.gpt]\nbatch = { input = 1, output = 2 }", &[]).contains("provider/model"));
    }
}
