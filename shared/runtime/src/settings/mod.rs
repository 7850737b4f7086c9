//! Settings: defaults, then `batchmill.toml`, then the environment, then flags; the later wins.
//!
//! **Promise.** A value is never ignored silently: a key that no section knows is refused, with where it was written and the
//! nearest key that exists. Secrets come from the environment, or from a file that the environment names, and never from
//! the settings file or a flag; they are never shown.
//!
//! How a key is written, here for `max_running` of the section `loop`:
//!
//! - `batchmill.toml`: `[loop]`, `max_running = 8`
//! - environment: `BATCHMILL__LOOP__MAX_RUNNING=8`, or `BATCHMILL__LOOP__MAX_RUNNING_FILE=/run/secrets/max` with the value
//!   in that file. Under a `properties` table (Kafka's) an underscore stands for the dot in the property's name:
//!   `BATCHMILL__KAFKA__PROPERTIES__SASL_PASSWORD`. No key of ours ends in `_file`.
//! - flag: `--set loop.max_running=8`
//!
//! **What it lacks on purpose.** No global: settings are a value that `main` passes on. No reloading: a service that is
//! started again reads them again.

mod error;
mod node;
mod prices;
mod sections;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::{Error, Origin, Result};
pub use prices::PriceSettings;
pub use sections::{
    Admin, Backpressure, Common, Kafka, LocationRules, Log, LogFormat, Loop, Marks, MetricsSettings, ScratchSpace,
    Secret, StoreSettings, TeamLocations, Tracing,
};

use node::Node;
use source::Leaves;

/// A setting as `config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The dotted key.
    pub key: String,
    /// The value as TOML, or `***` for a secret.
    pub value: String,
    /// Where it comes from.
    pub origin: String,
}

/// All settings, from all sources.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    leaves: Leaves,
    /// Defaults of the sections that were declared, for showing.
    defaults: BTreeMap<Vec<String>, toml::Value>,
    declared: Vec<String>,
}

impl Settings {
    /// Reads the settings file, the environment and the flags (dotted key, TOML value or bare text).
    ///
    /// # Errors
    /// A file that can't be read or is not TOML; a secret where none may be; a key that is given twice.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<Self> {
        let mut leaves = Leaves::new();
        if let Some(path) = file {
            leaves.extend(source::from_file(path)?);
        }
        leaves.extend(source::from_env(env)?);
        leaves.extend(source::from_flags(overrides)?);
        source::refuse_values_that_hide_tables(&leaves)?;
        Ok(Self { leaves, ..Self::default() })
    }

    /// One section as its type, which gives the defaults of what is not set.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a key that the type lacks, [`Error::Wrong`] for a value that does not fit, each with its
    /// origin.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let prefix = [name.to_owned()];
        let here = self.leaves.iter().filter(|(path, _)| path.starts_with(&prefix));
        let node = Node::of_leaves(name, here.map(|(path, leaf)| (&path[1..], leaf)));
        T::deserialize(node).map_err(|error| error.in_section(name))
    }

    /// Reads a section like [`section`](Self::section), and remembers its defaults, so that [`show`](Self::show) prints
    /// them and [`check_sections`](Self::check_sections) knows the name.
    ///
    /// # Errors
    /// As for [`section`](Self::section).
    pub fn declare<T: Serialize + DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        let value: T = self.section(name)?;
        if let Ok(toml::Value::Table(table)) = toml::Value::try_from(&value) {
            flatten(&mut vec![name.to_owned()], table, &mut self.defaults);
        }
        self.declared.push(name.to_owned());
        Ok(value)
    }

    /// Refuses sections that are neither in the list nor declared.
    ///
    /// # Errors
    /// [`Error::Unknown`] for the first of them.
    pub fn check_sections(&self, known: &[&str]) -> Result<()> {
        let names: Vec<&str> = known.iter().copied().chain(self.declared.iter().map(String::as_str)).collect();
        for (path, leaf) in &self.leaves {
            let section = path.first().map(String::as_str).unwrap_or_default();
            if !names.contains(&section) {
                return Err(Error::unknown(section, "section", leaf.origin.clone(), &names));
            }
        }
        Ok(())
    }

    /// Whether any key of the section is set.
    #[must_use]
    pub fn mentions(&self, section: &str) -> bool {
        self.leaves.keys().any(|path| path.first().is_some_and(|first| first == section))
    }

    /// Every setting that is set, and the defaults of all declared sections, with secrets redacted.
    #[must_use]
    pub fn show(&self) -> Vec<Shown> {
        let mut shown: BTreeMap<&Vec<String>, Shown> = BTreeMap::new();
        for (path, value) in &self.defaults {
            shown.insert(path, show_one(path, value.to_string(), &Origin::Default));
        }
        for (path, leaf) in &self.leaves {
            shown.insert(path, show_one(path, leaf.text(), &leaf.origin));
        }
        shown.into_values().collect()
    }
}

fn show_one(path: &[String], value: String, origin: &Origin) -> Shown {
    let value = if source::is_secret(path) { "***".to_owned() } else { value };
    Shown { key: source::dotted(path), value, origin: origin.to_string() }
}

fn flatten(path: &mut Vec<String>, table: toml::Table, into: &mut BTreeMap<Vec<String>, toml::Value>) {
    for (key, value) in table {
        path.push(key);
        match value {
            toml::Value::Table(table) => flatten(path, table, into),
            value => {
                into.insert(path.clone(), value);
            }
        }
        path.pop();
    }
}
