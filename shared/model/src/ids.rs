//! Names: each a newtype with its grammar, so that text from outside is checked once, where it comes in.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A name that does not fit its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct InvalidName {
    /// What kind of name it is.
    pub what: &'static str,
    /// The text as it came, cut at 80 characters.
    pub text: String,
    /// The grammar, in words.
    pub rule: &'static str,
}

const LABEL_RULE: &str = "use 1 to 64 of a-z, 0-9, '_' and '-', beginning with a letter or digit";

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let first_fits = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let all_fit = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_' || *b == b'-');
    first_fits && all_fit && bytes.len() <= 64
}

/// The JSON Schema of a name: text of this pattern.
macro_rules! text_schema {
    ($name:ident, $pattern:literal) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        text_schema!($name, "^[a-z0-9][a-z0-9_-]{0,63}$");

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if is_label(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(InvalidName { what: $what, text: text.chars().take(80).collect(), rule: LABEL_RULE })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label!(
    /// A job's name, chosen by the caller: `^[a-z0-9][a-z0-9_-]{0,63}$`.
    JobId, "job id"
);
label!(
    /// A team's name. It comes from the topic on which a job arrived, never from a field of the event.
    Team, "team"
);

impl Team {
    /// The team of jobs on the shared topic.
    #[must_use]
    pub fn shared() -> Self {
        Self("default".to_owned())
    }
}

/// A random mark, 16 lower-case hex digits: it tells one writer's object, or one attempt's rows, from another's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(String);

text_schema!(Nonce, "^[0-9a-f]{16}$");

impl Nonce {
    /// The nonce of 64 random bits.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(format!("{bits:016x}"))
    }

    /// The nonce as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Nonce {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidName { what: "nonce", text: text.chars().take(80).collect(), rule: "use 16 lower-case hex digits" })
    }
}

impl TryFrom<String> for Nonce {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> String {
        nonce.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One attempt at one batch of a job. Batches count from 1 in the order of the input; so do attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct BatchId {
    /// The batch's place in the input, from 1.
    #[schemars(range(min = 1))]
    pub number: u32,
    /// Which try this is, from 1.
    #[schemars(range(min = 1))]
    pub attempt: u32,
}

impl fmt::Display for BatchId {
    /// `00000007-a1`, as it stands in object keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}-a{}", self.number, self.attempt)
    }
}

impl FromStr for BatchId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            what: "batch",
            text: text.chars().take(80).collect(),
            rule: "use eight digits, '-a' and the attempt, as in 00000007-a1",
        };
        let (number, attempt) = text.split_once("-a").ok_or_else(invalid)?;
        let id =
            Self { number: number.parse().map_err(|_| invalid())?, attempt: attempt.parse().map_err(|_| invalid())? };
        if id.number == 0 || id.attempt == 0 || id.to_string() != text {
            return Err(invalid());
        }
        Ok(id)
    }
}

/// The `custom_id` of a request: the attempt's nonce and the row's place in that attempt's batch data, from 0.
///
/// At most 27 characters of `[0-9a-f-]`; providers allow `^[a-zA-Z0-9_-]{1,64}$`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomId<'a> {
    /// The nonce of the attempt's batch data.
    pub nonce: &'a str,
    /// The row's place in it, from 0.
    pub row: u32,
}

impl fmt::Display for CustomId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.nonce, self.row)
    }
}

impl<'a> CustomId<'a> {
    /// Reads a custom id back; `None` for text that [`CustomId`]'s `Display` never writes.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (nonce, row) = text.split_once('-')?;
        let canonical =
            !row.is_empty() && row.bytes().all(|b| b.is_ascii_digit()) && (row == "0" || !row.starts_with('0'));
        if nonce.len() != 16 || !canonical {
            return None;
        }
        Some(Self { nonce, row: row.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_job_id_keeps_to_its_grammar() {
        for good in ["a", "0", "spring-catalog", "a_b-c9", &"x".repeat(64)] {
            assert!(good.parse::<JobId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a/b", "a.b", "ä", "..", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_job_id_from_json_is_checked_too() {
        assert!(serde_json::from_str::<JobId>("\"../etc\"").is_err());
    }

    proptest! {
        #[test]
        fn a_batch_id_reads_back_as_it_was_written(number in 1u32.., attempt in 1u32..) {
            let id = BatchId { number, attempt };
            prop_assert_eq!(id.to_string().parse::<BatchId>(), Ok(id));
        }

        #[test]
        fn a_custom_id_reads_back_and_fits_every_provider(bits: u64, row: u32) {
            let nonce = Nonce::from_bits(bits);
            let text = CustomId { nonce: nonce.as_str(), row }.to_string();
            prop_assert!(text.len() <= 64);
            prop_assert_eq!(CustomId::parse(&text), Some(CustomId { nonce: nonce.as_str(), row }));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".*") {
            let _ = text.parse::<BatchId>();
            let _ = text.parse::<JobId>();
            if let Some(id) = CustomId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
