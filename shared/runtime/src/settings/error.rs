//! What is wrong with a setting, and where it was written.

use std::fmt;
use std::path::PathBuf;

/// The result of reading settings.
pub type Result<T> = std::result::Result<T, Error>;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the default.
    Default,
    /// In a settings file, at a line from 1.
    File(PathBuf, usize),
    /// In an environment variable.
    Env(String),
    /// In a file that an environment variable names.
    EnvFile(String, PathBuf),
    /// In a flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::EnvFile(name, path) => write!(f, "{}, named by environment variable {name}", path.display()),
            Self::Flag(key) => write!(f, "flag --set {key}"),
        }
    }
}

/// Why settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The settings file, or a file named by a `_FILE` variable, can't be read.
    #[error("{path}: can't be read: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The settings file is not TOML.
    #[error("{path}:{line}: not TOML: {reason}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A key that nothing reads.
    #[error("{origin}: unknown {what} `{key}`{}", hint.as_ref().map(|hint| format!("; did you mean `{hint}`?")).unwrap_or_default())]
    Unknown {
        /// The key.
        key: String,
        /// `setting` or `section`.
        what: &'static str,
        /// Where it was written.
        origin: Origin,
        /// The nearest name that exists.
        hint: Option<String>,
    },
    /// A value that does not fit its key.
    #[error("{origin}: setting `{key}`: {reason}")]
    Wrong {
        /// The key.
        key: String,
        /// Where it was written.
        origin: Origin,
        /// What is wrong with it.
        reason: String,
    },
    /// A required setting without a value.
    #[error("setting `{key}` is missing: {reason}")]
    Missing {
        /// The key or section.
        key: String,
        /// What the section says.
        reason: String,
    },
    /// A secret in a place that others can read.
    #[error(
        "{origin}: `{key}` is a secret, and secrets are taken from the environment only: set {env}, or {env}_FILE to a file that holds it"
    )]
    Secret {
        /// The key.
        key: String,
        /// Where it was written.
        origin: Origin,
        /// The environment variable to use.
        env: String,
    },
    /// One key, given in two ways of the same rank.
    #[error("setting `{key}` is given twice: by {first} and by {second}; remove one")]
    Twice {
        /// The key.
        key: String,
        /// The one.
        first: Origin,
        /// The other.
        second: Origin,
    },
}

impl Error {
    pub(super) fn unknown(key: &str, what: &'static str, origin: Origin, known: &[&str]) -> Self {
        let last = key.rsplit('.').next().unwrap_or(key);
        Self::Unknown { key: key.to_owned(), what, origin, hint: nearest(last, known).map(str::to_owned) }
    }

    /// Adds the section to an error that has no place yet.
    pub(super) fn in_section(self, name: &str) -> Self {
        match self {
            Self::Missing { key, reason } if key.is_empty() => Self::Missing { key: name.to_owned(), reason },
            other => other,
        }
    }
}

/// The known name with the fewest changes, if they are at most a third of its letters, rounded up.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = known.iter().map(|candidate| (edits(name, candidate), *candidate)).min()?;
    (distance <= best.len().max(name.len()).div_ceil(3)).then_some(best)
}

/// Levenshtein's distance, in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let change = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// For values that no type has checked yet; [`super::node`] adds key and origin.
impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Missing { key: String::new(), reason: message.to_string() }
    }
}
