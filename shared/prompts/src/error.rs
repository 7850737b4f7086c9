//! What can be wrong with a template, and with rendering it. Messages name columns and lines, never a row's values.

use model::{FailureKind, Refusal, RefusalCode};

/// How many columns a message lists.
const LISTED_COLUMNS: usize = 40;
/// How many characters of a name a message shows.
const SHOWN_CHARACTERS: usize = 60;

/// Why a template can't be used with these columns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is wrong by itself.
    #[error("the template is not valid{}: {message}", at_line(*line))]
    Invalid {
        /// What is wrong, and what to write instead.
        message: String,
        /// The line, from 1.
        line: Option<usize>,
    },
    /// The template names something that the input has no column for.
    #[error("the template{} names {}, which is not a column of the input.{} {}", at_line(*line), quoted(name), suggestion(name, available), listing(available))]
    UnknownColumn {
        /// The name as the template has it.
        name: String,
        /// The line, from 1.
        line: Option<usize>,
        /// The input's columns.
        available: Vec<String>,
    },
}

impl TemplateError {
    pub(crate) fn from_syntax(error: &minijinja::Error) -> Self {
        Self::Invalid { message: describe(error), line: error.line() }
    }

    /// The refusal of a job with this template.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Invalid { .. } => RefusalCode::TemplateInvalid,
            Self::UnknownColumn { .. } => RefusalCode::UnknownColumn,
        };
        Refusal::new(code, self.to_string())
    }
}

/// Why one row can't be rendered. The row fails alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The template does something that this row's values don't allow.
    #[error("the template fails for this row{}: {message}", at_line(*line))]
    Failed {
        /// What is wrong.
        message: String,
        /// The template's line, from 1.
        line: Option<usize>,
    },
    /// The template does not come to an end in reasonable time.
    #[error("the template takes more than {limit} steps for this row: shorten its loops")]
    TooMuchWork {
        /// The most steps.
        limit: u64,
    },
    /// The template builds too many or too long texts and lists on its way to the prompt.
    #[error(
        "the template builds more than {limit} bytes of texts and lists for this row: shorten its loops, and join texts once instead of step by step"
    )]
    TooMuchBuilt {
        /// The most bytes.
        limit: usize,
    },
    /// The prompt is too long.
    #[error("the rendered prompt is longer than {limit} bytes: no model takes as much")]
    TooLarge {
        /// The most bytes.
        limit: usize,
    },
    /// The caller gave another number of values than the template's columns.
    #[error("{given} values for {needed} columns of the template")]
    WrongValues {
        /// Values given.
        given: usize,
        /// Columns used.
        needed: usize,
    },
}

impl RenderError {
    pub(crate) fn from_minijinja(error: &minijinja::Error) -> Self {
        Self::Failed { message: describe(error), line: error.line() }
    }

    /// The kind of failure that the row ends with.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::TooLarge { .. } => FailureKind::TooLarge,
            _ => FailureKind::TemplateFailed,
        }
    }
}

/// minijinja's own words, without the template's source.
fn describe(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}

fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(" (line {line})")).unwrap_or_default()
}

fn quoted(name: &str) -> String {
    let mut shown: String = name.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    let visible = shown.chars().map(|c| if is_hidden(c) { c.escape_unicode().to_string() } else { c.to_string() });
    format!("'{}'", visible.collect::<String>())
}

/// Whether a terminal would obey a character, or show nothing of it: names come from the caller's file.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn listing(available: &[String]) -> String {
    let names: Vec<String> = available.iter().take(LISTED_COLUMNS).map(|name| quoted(name)).collect();
    let more = match available.len().saturating_sub(LISTED_COLUMNS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("The columns are {}{more}; a name with spaces is written row['My Column'].", names.join(", "))
}

fn suggestion(name: &str, available: &[String]) -> String {
    let near = available
        .iter()
        .filter_map(|column| Some((distance(name, column)?, column)))
        .min_by_key(|(distance, _)| *distance);
    near.map(|(_, column)| format!(" Did you mean {}?", quoted(column))).unwrap_or_default()
}

/// Edit distance of two names regardless of case, where it is small beside their length.
fn distance(left: &str, right: &str) -> Option<usize> {
    let fold = |text: &str| text.chars().take(SHOWN_CHARACTERS).flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (left, right) = (fold(left), fold(right));
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().filter(|distance| *distance <= 1 + left.len().max(right.len()) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(name: &str, available: &[&str]) -> String {
        let available = available.iter().map(|name| (*name).to_owned()).collect();
        TemplateError::UnknownColumn { name: name.to_owned(), line: Some(2), available }.to_string()
    }

    #[test]
    fn an_unknown_column_is_answered_with_the_nearest_and_the_list() {
        let message = unknown("titel", &["id", "title", "price"]);
        assert!(message.contains("(line 2) names 'titel'") && message.contains("Did you mean 'title'?"), "{message}");
        assert!(message.contains("'id', 'title', 'price';"), "{message}");
        assert!(unknown("TITLE", &["id", "title"]).contains("Did you mean 'title'?"));
        assert!(!unknown("colour", &["id", "title"]).contains("Did you mean"));
    }

    #[test]
    fn what_a_terminal_would_obey_or_hide_is_spelt_out() {
        let message = unknown("a", &["\u{feff}a", "x\u{1b}[31m", "caf\u{e9}"]);
        assert!(message.contains(r"'\u{feff}a', 'x\u{1b}[31m', 'café';"), "{message}");
    }

    #[test]
    fn a_list_of_columns_is_capped() {
        let names: Vec<String> = (0..100).map(|i| format!("c{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message = unknown("zzzzzzzz", &names);
        assert!(message.contains("'c39' and 60 more"), "{message}");
        assert!(unknown("x", &["n".repeat(10_000).as_str()]).len() < 500);
    }
}
