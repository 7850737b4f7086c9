//! The sources: each becomes a flat map from key to value, so that laying one over the other is `extend`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::{Error, Origin, Result};

/// The prefix of environment variables that are settings; parts are divided by two underscores.
const ENV_PREFIX: &str = "BATCHMILL__";

/// A table of this name holds names of others, which have dots.
const FOREIGN_NAMES: &str = "properties";

/// A key that ends in one of these is a secret.
const SECRET_ENDS: &[&str] = &[
    "api_key",
    "password",
    "passphrase",
    "secret",
    "secret_access_key",
    "access_key_id",
    "session_token",
    "auth_token",
    "key.pem",
    "otlp_headers",
];

/// Variables of OpenTelemetry that count where ours of the same meaning are not set.
const STANDARD: &[(&str, [&str; 2])] = &[
    ("OTEL_EXPORTER_OTLP_ENDPOINT", ["tracing", "otlp_endpoint"]),
    ("OTEL_EXPORTER_OTLP_HEADERS", ["tracing", "otlp_headers"]),
];

/// Values by path. Tables are taken apart; arrays are not.
pub(super) type Leaves = BTreeMap<Vec<String>, Leaf>;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) value: Written,
    pub(super) origin: Origin,
}

/// A value as it was written. Its `Debug` hides it: it may be a secret.
#[derive(Clone)]
pub(super) enum Written {
    /// In TOML, with its type.
    Toml(toml::Value),
    /// As text of the environment or a flag: its type is what the setting wants.
    Text(String),
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Leaf {
    pub(super) fn text(&self) -> String {
        match &self.value {
            Written::Toml(value) => value.to_string(),
            Written::Text(text) => text.clone(),
        }
    }
}

/// `a.b."c.d"`.
pub(super) fn dotted(path: &[String]) -> String {
    let quoted: Vec<String> =
        path.iter().map(|part| if part.contains('.') { format!("{part:?}") } else { part.clone() }).collect();
    quoted.join(".")
}

pub(super) fn is_secret(path: &[String]) -> bool {
    path.last().is_some_and(|key| SECRET_ENDS.iter().any(|end| key.ends_with(end)))
}

fn env_name(path: &[String]) -> String {
    let parts: Vec<String> = path.iter().map(|part| part.replace(['.', '-'], "_").to_uppercase()).collect();
    format!("{ENV_PREFIX}{}", parts.join("__"))
}

fn refuse_secret(path: &[String], origin: &Origin) -> Result<()> {
    if is_secret(path) {
        return Err(Error::Secret { key: dotted(path), origin: origin.clone(), env: env_name(path) });
    }
    Ok(())
}

/// The leaves of a settings file.
pub(super) fn from_file(path: &Path) -> Result<Leaves> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?;
    let syntax = |error: toml::de::Error| Error::Syntax {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| line_of(&text, span.start)),
        reason: error.message().to_owned(),
    };
    let table: toml::Table = toml::from_str(&text).map_err(syntax)?;
    let spans = DeTable::parse(&text).map_err(syntax)?;
    let mut lines = BTreeMap::new();
    find_lines(&mut Vec::new(), spans.get_ref(), &text, &mut lines);
    let mut leaves = BTreeMap::new();
    super::flatten(&mut Vec::new(), table, &mut leaves);
    leaves
        .into_iter()
        .map(|(key, value)| {
            let origin = Origin::File(path.to_owned(), lines.get(&key).copied().unwrap_or(1));
            refuse_secret(&key, &origin)?;
            Ok((key, Leaf { value: Written::Toml(value), origin }))
        })
        .collect()
}

fn line_of(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|b| *b == b'\n').count()
}

fn find_lines(path: &mut Vec<String>, table: &DeTable<'_>, text: &str, into: &mut BTreeMap<Vec<String>, usize>) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => find_lines(path, inner, text, into),
            _ => {
                into.insert(path.clone(), line_of(text, key.span().start));
            }
        }
        path.pop();
    }
}

/// The leaves of the environment. Other variables than the standard ones and those with the prefix are none of ours.
pub(super) fn from_env(env: impl Iterator<Item = (String, String)>) -> Result<Leaves> {
    let mut leaves = Leaves::new();
    let mut standard = Leaves::new();
    for (name, value) in env {
        if let Some((_, key)) = STANDARD.iter().find(|(known, _)| *known == name) {
            let leaf = Leaf { value: Written::Text(value), origin: Origin::Env(name) };
            standard.insert(key.map(str::to_owned).into(), leaf);
            continue;
        }
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        let (rest, leaf) = match rest.strip_suffix("_FILE") {
            Some(rest) => (rest, from_named_file(&name, &value)?),
            None => (rest, Leaf { value: Written::Text(value), origin: Origin::Env(name.clone()) }),
        };
        let path = env_path(rest);
        if let Some(other) = leaves.get(&path) {
            let (first, second) = (other.origin.clone(), leaf.origin);
            return Err(Error::Twice { key: dotted(&path), first, second });
        }
        leaves.insert(path, leaf);
    }
    standard.extend(leaves);
    Ok(standard)
}

fn from_named_file(name: &str, path: &str) -> Result<Leaf> {
    let path = PathBuf::from(path);
    let text = std::fs::read_to_string(&path).map_err(|error| Error::File {
        path: path.clone(),
        reason: format!("{error} (it is named by environment variable {name})"),
    })?;
    Ok(Leaf { value: Written::Text(text.trim().to_owned()), origin: Origin::EnvFile(name.to_owned(), path) })
}

fn env_path(rest: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    for part in rest.split("__") {
        let part = part.to_lowercase();
        let foreign = path.last().is_some_and(|parent| parent == FOREIGN_NAMES);
        path.push(if foreign { part.replace('_', ".") } else { part });
    }
    path
}

/// The leaves of flags; of two with one key the later wins.
pub(super) fn from_flags(flags: &[(String, String)]) -> Result<Leaves> {
    let mut leaves = Leaves::new();
    for (key, value) in flags {
        let path = flag_path(key);
        let origin = Origin::Flag(key.clone());
        refuse_secret(&path, &origin)?;
        leaves.insert(path, Leaf { value: Written::Text(value.clone()), origin });
    }
    Ok(leaves)
}

/// Below a `properties` table all the rest is one name.
fn flag_path(key: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut rest = key;
    while let Some((part, tail)) = rest.split_once('.') {
        if path.last().is_some_and(|parent| parent == FOREIGN_NAMES) {
            break;
        }
        path.push(part.trim_matches('"').to_owned());
        rest = tail;
    }
    path.push(rest.trim_matches('"').to_owned());
    path
}

/// A key can't be both a value and a table of values (`a = 1` in the file, `BATCHMILL__A__B=2` in the environment).
pub(super) fn refuse_values_that_hide_tables(leaves: &Leaves) -> Result<()> {
    for (path, leaf) in leaves {
        let parent = (1..path.len()).find_map(|end| leaves.get_key_value(&path[..end]));
        if let Some((parent, other)) = parent {
            let reason = format!("it is a value here, but {} sets `{}` below it", leaf.origin, dotted(path));
            return Err(Error::Wrong { key: dotted(parent), origin: other.origin.clone(), reason });
        }
        if path.len() == 1 {
            let reason = "it belongs into a section, as in `section.key`".to_owned();
            return Err(Error::Wrong { key: dotted(path), origin: leaf.origin.clone(), reason });
        }
    }
    Ok(())
}
