//! A fault script as it is written: a JSON list of rules. docs/FAULTS.md has a row for each fault.
//!
//! A rule is one object: `fault` names what goes wrong, `when` which requests or batches it hits, `rows` (for `row_…` faults)
//! which rows of those batches, and the rest are the fault's own parameters, which all have defaults. A field that nobody
//! knows is refused: a script with a slip of the pen would test nothing and still pass.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::faults::{Fault, Target};

/// Which ones: all conditions that are given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct When {
    /// These, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nth: Option<Nth>,
    /// Each so manieth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) every: Option<u64>,
    /// The first so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<u64>,
    /// With this probability, by the simulator's seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chance: Option<f64>,
    /// Texts that the values of these metadata keys contain.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    /// A text that the file's name contains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) filename: Option<String>,
    /// Rows: a text that the custom id contains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) custom_id: Option<String>,
    /// Rows: a text that the last user message contains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<String>,
}

/// One number or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Nth {
    One(u64),
    Several(Vec<u64>),
}

impl When {
    /// Whether the number is one of those, `roll` being a random number from 0 to 1.
    pub(crate) fn counts(&self, number: u64, roll: impl FnOnce() -> f64) -> bool {
        let nth = match &self.nth {
            None => true,
            Some(Nth::One(nth)) => *nth == number,
            Some(Nth::Several(nths)) => nths.contains(&number),
        };
        nth && self.every.is_none_or(|every| number.is_multiple_of(every))
            && self.first.is_none_or(|first| number <= first)
            && self.chance.is_none_or(|chance| roll() < chance)
    }

    fn check(&self, of_rows: bool) -> Result<(), String> {
        if self.chance.is_some_and(|chance| !(0.0..=1.0).contains(&chance)) {
            return Err("chance is a number from 0 to 1".to_owned());
        }
        if self.every == Some(0) {
            return Err("every is 1 or more".to_owned());
        }
        let counted_from_zero = match &self.nth {
            Some(Nth::One(nth)) => *nth == 0,
            Some(Nth::Several(nths)) => nths.contains(&0),
            None => false,
        };
        if counted_from_zero {
            return Err("nth counts from 1".to_owned());
        }
        if of_rows && (!self.metadata.is_empty() || self.filename.is_some()) {
            return Err("metadata and filename are conditions of when, not of rows".to_owned());
        }
        if !of_rows && (self.custom_id.is_some() || self.prompt.is_some()) {
            return Err("custom_id and prompt are conditions of rows, not of when".to_owned());
        }
        Ok(())
    }
}

/// One rule of a script.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Rule {
    #[serde(flatten)]
    pub(crate) fault: Fault,
    pub(crate) when: When,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<When>,
}

impl Rule {
    fn parse(mut rule: Map<String, Value>) -> Result<Self, String> {
        let mut conditions = |name: &str| match rule.remove(name) {
            None => Ok(None),
            Some(value) => serde_json::from_value::<When>(value)
                .map_err(|error| error.to_string())
                .and_then(|when| when.check(name == "rows").map(|()| Some(when)))
                .map_err(|error| format!("{name}: {error}")),
        };
        let (when, rows) = (conditions("when")?.unwrap_or_default(), conditions("rows")?);
        let fault: Fault = serde_json::from_value(Value::Object(rule)).map_err(|error| error.to_string())?;
        if rows.is_some() && fault.target() != Target::Rows {
            return Err("rows is for row_… faults; when says which requests or batches are hit".to_owned());
        }
        Ok(Self { fault, when, rows })
    }
}

/// What goes wrong, and when: a JSON list of rules, as docs/FAULTS.md describes it. The default is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Script(pub(crate) Vec<Rule>);

impl std::str::FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rules: Vec<Map<String, Value>> = serde_json::from_str(text)
            .map_err(|error| format!("a fault script is a JSON list of objects with a field fault: {error}"))?;
        let parse = |(at, rule): (usize, Map<String, Value>)| {
            let name = rule.get("fault").and_then(Value::as_str).unwrap_or("no fault").to_owned();
            Rule::parse(rule).map_err(|error| format!("rule {} ({name}): {error}", at + 1))
        };
        rules.into_iter().enumerate().map(parse).collect::<Result<_, _>>().map(Self)
    }
}

impl TryFrom<Value> for Script {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        value.to_string().parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::fault::NAMES;

    fn refusal(text: &str) -> String {
        text.parse::<Script>().unwrap_err()
    }

    #[test]
    fn every_fault_stands_alone_and_is_listed() {
        for name in NAMES {
            let script: Script = format!(r#"[{{"fault":"{name}"}}]"#).parse().unwrap_or_else(|error| panic!("{error}"));
            let written = serde_json::to_value(&script.0[0]).unwrap();
            assert_eq!(written["fault"], name);
            assert_eq!(name.starts_with("row_"), script.0[0].fault.target() == Target::Rows);
        }
        let unknown = refusal(r#"[{"fault":"x"}]"#);
        assert_eq!(unknown.matches('`').count(), 2 + 2 * NAMES.len(), "{unknown}");
    }

    #[test]
    fn a_slip_of_the_pen_is_refused_with_its_place() {
        for (text, says) in [
            (r#"{"fault":"row_missing"}"#, "JSON list"),
            (r#"[{"fault":"row_missing"},{"fault":"row_mising"}]"#, "rule 2 (row_mising)"),
            (r#"[{"fault":"create_late","after":3}]"#, "unknown field `after`"),
            (r#"[{"when":{}}]"#, "rule 1 (no fault)"),
            (r#"[{"fault":"row_missing","when":{"nht":1}}]"#, "when: unknown field `nht`"),
            (r#"[{"fault":"row_missing","when":{"nth":0}}]"#, "counts from 1"),
            (r#"[{"fault":"row_missing","when":{"prompt":"x"}}]"#, "conditions of rows"),
            (r#"[{"fault":"row_missing","rows":{"filename":"x"}}]"#, "conditions of when"),
            (r#"[{"fault":"row_missing","rows":{"chance":1.5}}]"#, "from 0 to 1"),
            (r#"[{"fault":"list_lags","rows":{}}]"#, "row_… faults"),
        ] {
            let error = refusal(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn numbers_are_picked_by_all_conditions_together() {
        let picked = |text: &str| -> Vec<u64> {
            let when: When = serde_json::from_str(text).unwrap();
            (1..=12).filter(|number| when.counts(*number, || 0.5)).collect()
        };
        assert_eq!(picked(r#"{"nth":3}"#), [3]);
        assert_eq!(picked(r#"{"nth":[1,4]}"#), [1, 4]);
        assert_eq!(picked(r#"{"every":5}"#), [5, 10]);
        assert_eq!(picked(r#"{"every":2,"first":5}"#), [2, 4]);
        assert_eq!(picked(r#"{"chance":0.5}"#), [] as [u64; 0]);
        assert_eq!(picked(r#"{"chance":0.6,"first":1}"#), [1]);
    }
}
