//! The manifest: what each file of the corpus is, and what must come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

/// The folder of the corpus.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// One entry: a file or a recipe, and what must come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The file, below the folder of the corpus.
    #[serde(default)]
    pub(crate) file: String,
    /// What makes the input where it is too large to be checked in.
    #[serde(default)]
    pub(crate) recipe: String,
    /// For events: the topics on which it is sent, each in a world of its own.
    #[serde(default)]
    pub(crate) topics: Vec<String>,
    /// For inputs: what is changed in the usual spec.
    #[serde(default)]
    pub(crate) spec: Map<String, Value>,
    /// What must come of it.
    pub(crate) expect: Expect,
}

impl Entry {
    /// File or recipe.
    pub(crate) fn name(&self) -> &str {
        if self.file.is_empty() { &self.recipe } else { &self.file }
    }

    /// The file's bytes.
    pub(crate) fn read(&self) -> Vec<u8> {
        std::fs::read(folder().join(&self.file)).unwrap_or_else(|error| panic!("{}: {error}", self.file))
    }
}

/// What must come of it. What is not said is not there: no refusal, no failed row, nothing paid.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    /// The job is refused with this code.
    pub(crate) refused: Option<String>,
    /// The record goes to the dead letters with this code.
    pub(crate) dead_letter: Option<String>,
    /// The event is handled, and nothing comes of it.
    pub(crate) handled: bool,
    /// Pieces of the refusal's or the dead letter's message; for rows that fail, of the output.
    pub(crate) says: Vec<String>,
    /// The job ends with so many rows.
    pub(crate) rows: Option<u64>,
    /// Of which so many failed, by kind.
    pub(crate) failed: BTreeMap<String, u64>,
    /// The prompts that were paid, in the input's order; `rows` less `failed` of them are, whether listed or not.
    pub(crate) paid: Option<Vec<String>>,
    /// The whole output.
    pub(crate) output: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) refused: Option<String>,
    pub(crate) dead_letter: Option<String>,
    pub(crate) message: String,
    pub(crate) rows: Option<u64>,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) paid: Vec<String>,
    pub(crate) output: String,
}

impl Expect {
    /// What is otherwise than it must be.
    pub(crate) fn differs(&self, actual: &Outcome) -> Option<String> {
        let said = if actual.rows.is_some() { &actual.output } else { &actual.message };
        let mut differs = Vec::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                differs.push(what.to_owned());
            }
        };
        check(self.refused == actual.refused, "refused");
        check(self.dead_letter == actual.dead_letter, "dead_letter");
        check(self.rows == actual.rows, "rows");
        check(self.failed == actual.failed, "failed");
        let answered = self.rows.unwrap_or(0) - self.failed.values().sum::<u64>().min(self.rows.unwrap_or(0));
        check(actual.paid.len() as u64 == answered, "how many were paid");
        check(self.paid.as_ref().is_none_or(|paid| *paid == actual.paid), "paid");
        check(self.output.as_ref().is_none_or(|output| *output == actual.output), "output");
        for piece in &self.says {
            check(said.contains(piece.as_str()), &format!("it does not say {piece:?}"));
        }
        let says_why = self.rows.is_some() && self.failed.is_empty() || self.handled || !self.says.is_empty();
        check(says_why, "the entry names nothing that the message must say");
        if differs.is_empty() { None } else { Some(differs.join(", ")) }
    }
}

/// All entries of one folder (`csv`, `gz`, `parquet`, `recipes`, `specs`, `events`).
pub(crate) fn entries(folder_name: &str) -> Vec<Entry> {
    let path = folder().join(format!("{folder_name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all: Vec<Entry> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // For whoever adds an entry: BATCHMILL_CORPUS=name runs those alone.
    match std::env::var("BATCHMILL_CORPUS") {
        Ok(part) => all.into_iter().filter(|entry| entry.name().contains(&part)).collect(),
        Err(_) => all,
    }
}

/// The files of a folder, as entries name them.
pub(crate) fn files(folder_name: &str) -> BTreeSet<String> {
    let listed = std::fs::read_dir(folder().join(folder_name)).unwrap();
    listed.map(|file| format!("{folder_name}/{}", file.unwrap().file_name().to_str().unwrap())).collect()
}
