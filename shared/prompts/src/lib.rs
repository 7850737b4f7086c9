//! A job's template over a row of its table.
//!
//! A template is Jinja (minijinja, strict). It is compiled once against the input's columns, and all that can be wrong
//! with it by itself is found then, before anything is spent: its syntax, a column that the input lacks (also in a branch
//! that may never run), an unknown filter, test or function. What is left for a single row to fail with is a
//! [`RenderError`]: an attribute that its value lacks, an operation on the wrong type, too much work, too long a prompt.
//!
//! **Names.** Each column whose name is an identifier is a variable; every column is `row['My Column']`, and `row` is the
//! whole row, in the table's order, so `{% for name, value in row|items %}` and `{{ row|tojson }}` work. `row` can't be
//! assigned to, and a column that is itself called `row` is `row['row']`.
//!
//! **How values render**, in `{{ … }}` and as text inside expressions:
//!
//! | value | renders as |
//! |---|---|
//! | text, every CSV cell | verbatim: `007`, ` spaced `; an empty cell is empty text |
//! | null | nothing. It is false, `is none`, an empty list to a loop or `join`, and each of its fields is null |
//! | Boolean | `true`, `false` (inside `~` and text filters Jinja's own `True`, `False`) |
//! | integer | its digits |
//! | float | the shortest digits that give the same number again, never an exponent, with `.0` if whole: `0.1`, `1.0`, `NaN`, `inf`, `-inf` |
//! | date, time, decimal, UUID | its standard text (`2026-11-22`, all of a decimal's digits); it comes as text |
//! | list, struct, map | compact JSON, fields in the table's order: `["a","b"]`, `{"city":"Ulm"}`; NaN and infinities are `null` in JSON |
//!
//! Nothing is escaped. A newline at the template's end is kept. `tojson` writes compact JSON (`indent=2` for many lines) with
//! nothing escaped beyond what JSON asks for. Since null is nothing, `x == none` would be false for it and is refused:
//! say `x is none`.
//!
//! Templates of only literal text and plain columns (`{{ title }}`, `{{ row['My Column'] }}`), which most are, are rendered
//! without minijinja; a property test holds both ways to one output.
//!
//! Deliberately lacking: includes, imports and loaders (a template is all there is), randomness and the time of day (a row
//! renders the same on every machine), `debug()`.
//!
//! **Bounds.** A template comes from outside, so a row that asks for too much fails alone: a template's work is bounded by
//! [`MAX_STEPS`], its output by [`MAX_PROMPT_BYTES`], and the texts and lists that it builds in between by
//! [`MAX_BUILT_BYTES`] (`budget` says what is counted). minijinja has no such account, so `rewrite` puts filters that keep
//! it into the template before minijinja compiles it; a property test holds that this changes nothing that renders. One
//! rendering needs at most a few times these bounds, beside the row's own values.

mod bounded;
mod budget;
mod check;
mod error;
mod json;
mod levels;
mod nesting;
mod operations;
mod print;
mod rewrite;
mod values;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use model::spec::Request;

use budget::Exceeded;
pub use error::{RenderError, TemplateError};

/// The most bytes of one rendered prompt, 16 MiB: more than any model's context holds.
pub const MAX_PROMPT_BYTES: usize = 16 * 1024 * 1024;
/// The most steps (minijinja instructions) of one rendering. A loop over ten thousand items takes about a hundred thousand.
pub const MAX_STEPS: u64 = 5_000_000;
/// The most bytes of texts and lists that one rendering builds in between, 64 MiB. See `budget` for what is counted.
pub const MAX_BUILT_BYTES: usize = 64 * 1024 * 1024;

const NAME: &str = "template";

/// A job's template, compiled against its input's columns.
pub struct Template {
    system: Option<String>,
    columns_used: Vec<usize>,
    names: Arc<values::Names>,
    way: Way,
}

/// How a template is rendered.
enum Way {
    /// Literal text and columns, joined.
    Joined(Vec<Piece>),
    /// By minijinja.
    Full(Box<Environment<'static>>),
}

/// A piece of a template that needs no minijinja.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// Text as it stands.
    Literal(String),
    /// The value at this place of `columns_used`.
    Column(usize),
}

/// A rendered request of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// The job's system prompt, as the job has it.
    pub system: Option<&'a str>,
    /// The user prompt. It may be empty or only white space: the caller decides what that means.
    pub user: String,
}

/// A piece of a prompt, as [`Template::feed`] gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'p> {
    /// The template's own text of this number ([`Template::literals`]): the same in every row, so what is to be made of it can
    /// be made once.
    Literal(usize),
    /// Text that comes of the row.
    Text(&'p str),
}

/// A prompt that was given in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Whether it was empty, or white space alone.
    pub blank: bool,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A prompt's text never reaches a log.
        f.debug_struct("Template").field("columns_used", &self.columns_used).finish_non_exhaustive()
    }
}

impl Template {
    /// Compiles the job's template against the input's columns.
    ///
    /// # Errors
    /// [`TemplateError::Invalid`] for what is wrong with the template by itself, [`TemplateError::UnknownColumn`] for a name
    /// that is neither a column nor anything else.
    pub fn compile(request: &Request, columns: &[String]) -> Result<Self, TemplateError> {
        // The engine computes what is constant when it compiles, and panics on some of it.
        let compile = || Self::compile_with(request, columns, false);
        catch_unwind(AssertUnwindSafe(compile)).unwrap_or_else(|_| {
            let message = "the template engine fails on it while it computes what has no column in it".to_owned();
            Err(TemplateError::Invalid { message, line: None })
        })
    }

    fn compile_with(request: &Request, columns: &[String], always_full: bool) -> Result<Self, TemplateError> {
        let mut environment = environment()?;
        nesting::check(&request.template, environment.syntax().clone())?;
        let found = check::check(&request.template, &environment, columns)?;
        if always_full || found.plain.is_none() {
            let template = rewrite::rewrite(&request.template, environment.syntax())?;
            environment.add_template_owned(NAME, template).map_err(|error| TemplateError::from_syntax(&error))?;
        }
        let places: HashMap<usize, usize> =
            found.columns.iter().enumerate().map(|(place, column)| (*column, place)).collect();
        let joined = found.plain.filter(|_| !always_full).map(|pieces| {
            let piece = |piece| match piece {
                Piece::Column(column) => Piece::Column(places.get(&column).copied().unwrap_or_default()),
                literal @ Piece::Literal(_) => literal,
            };
            pieces.into_iter().map(piece).collect()
        });
        Ok(Self {
            system: request.system.clone(),
            names: Arc::new(values::Names::new(found.columns.iter().map(|column| columns[*column].clone()))),
            columns_used: found.columns,
            way: joined.map_or_else(|| Way::Full(Box::new(environment)), Way::Joined),
        })
    }

    /// The columns whose values [`Self::render`] takes, by their place in the table, ascending. All of them if the template
    /// uses `row` in a way that does not say which.
    #[must_use]
    pub fn columns_used(&self) -> &[usize] {
        &self.columns_used
    }

    /// The job's system prompt.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Renders one row: `values` are those of [`Self::columns_used`], in that order.
    ///
    /// # Errors
    /// See [`RenderError`]: the row fails alone.
    pub fn render(&self, values: &[model::Value<'_>]) -> Result<Prompt<'_>, RenderError> {
        let mut user = String::new();
        self.render_into(values, &mut user)?;
        Ok(Prompt { system: self.system(), user })
    }

    /// As [`Self::render`], but the user prompt goes into `out`, whose earlier content it replaces: no allocation a row.
    ///
    /// # Errors
    /// See [`RenderError`]. `out` then holds nothing of use.
    pub fn render_into(&self, values: &[model::Value<'_>], out: &mut String) -> Result<(), RenderError> {
        out.clear();
        if values.len() != self.columns_used.len() {
            return Err(RenderError::WrongValues { given: values.len(), needed: self.columns_used.len() });
        }
        match &self.way {
            Way::Joined(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Literal(text) => out.push_str(text),
                        Piece::Column(place) => values::write_text(&values[*place], out),
                    }
                    if out.len() > MAX_PROMPT_BYTES {
                        return Err(RenderError::TooLarge { limit: MAX_PROMPT_BYTES });
                    }
                }
                Ok(())
            }
            Way::Full(environment) => self.render_full(environment, values, out),
        }
    }

    /// The text that stands in the template itself, in its order, where rows are rendered without minijinja; else none.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        let pieces = match &self.way {
            Way::Joined(pieces) => pieces.as_slice(),
            Way::Full(_) => &[],
        };
        pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(text) => Some(text.as_str()),
            Piece::Column(_) => None,
        })
    }

    /// Renders one row piece by piece: what [`Self::render`] would put together is given to `take` in its order. A template of
    /// text and columns is never put together, which for most jobs is half of what a row costs. `scratch` is used in between.
    ///
    /// # Errors
    /// See [`RenderError`]; some pieces may have been given.
    pub fn feed(
        &self,
        values: &[model::Value<'_>],
        scratch: &mut String,
        mut take: impl FnMut(Part<'_>),
    ) -> Result<Fed, RenderError> {
        let Way::Joined(pieces) = &self.way else {
            self.render_into(values, scratch)?;
            take(Part::Text(scratch));
            return Ok(Fed { blank: scratch.trim().is_empty() });
        };
        if values.len() != self.columns_used.len() {
            return Err(RenderError::WrongValues { given: values.len(), needed: self.columns_used.len() });
        }
        let (mut blank, mut bytes, mut literals) = (true, 0, 0);
        for piece in pieces {
            let (text, part) = match piece {
                Piece::Literal(text) => {
                    literals += 1;
                    (text.as_str(), Part::Literal(literals - 1))
                }
                Piece::Column(place) => {
                    let text = match &values[*place] {
                        model::Value::Text(text) => text.as_ref(),
                        value => {
                            scratch.clear();
                            values::write_text(value, scratch);
                            scratch.as_str()
                        }
                    };
                    (text, Part::Text(text))
                }
            };
            blank = blank && text.trim().is_empty();
            bytes += text.len();
            if bytes > MAX_PROMPT_BYTES {
                return Err(RenderError::TooLarge { limit: MAX_PROMPT_BYTES });
            }
            take(part);
        }
        Ok(Fed { blank })
    }

    fn render_full(
        &self,
        environment: &Environment<'static>,
        values: &[model::Value<'_>],
        out: &mut String,
    ) -> Result<(), RenderError> {
        let template = environment.get_template(NAME).map_err(|error| RenderError::from_minijinja(&error))?;
        let context = values::context(Arc::clone(&self.names), values);
        let mut sink = Capped { bytes: std::mem::take(out).into_bytes(), full: false };
        budget::start();
        // minijinja panics over a few mistakes (`loop.cycle()`, an empty text backwards). They are the row's, not the process's.
        let result = catch_unwind(AssertUnwindSafe(|| template.render_captured_to(context, &mut sink).map(drop)))
            .map_err(|_| RenderError::Failed { message: "minijinja can't calculate this".to_owned(), line: None })?;
        match budget::exceeded() {
            _ if sink.full => return Err(RenderError::TooLarge { limit: MAX_PROMPT_BYTES }),
            Some(Exceeded::Prompt) => return Err(RenderError::TooLarge { limit: MAX_PROMPT_BYTES }),
            Some(Exceeded::Built) => return Err(RenderError::TooMuchBuilt { limit: MAX_BUILT_BYTES }),
            None => {}
        }
        result.map_err(|error| match error.kind() {
            ErrorKind::OutOfFuel => RenderError::TooMuchWork { limit: MAX_STEPS },
            _ => RenderError::from_minijinja(&error),
        })?;
        // minijinja writes whole `str`s, so these bytes are UTF-8.
        *out = String::from_utf8(sink.bytes)
            .map_err(|_| RenderError::Failed { message: "the output is not UTF-8".to_owned(), line: None })?;
        Ok(())
    }
}

/// Collects what minijinja writes, up to [`MAX_PROMPT_BYTES`].
struct Capped {
    bytes: Vec<u8>,
    full: bool,
}

impl std::io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_PROMPT_BYTES {
            self.full = true;
            return Err(std::io::Error::other("the prompt is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The environment of every template: strict, unescaped, bounded, and with our own spelling of values.
fn environment() -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .build()
        .map_err(|error| TemplateError::from_syntax(&error))?;
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_formatter(|out, _, value| {
        if value.is_undefined() {
            return Err(minijinja::Error::from(ErrorKind::UndefinedError));
        }
        if let Some(text) = value.as_str() {
            budget::charge(text.len())?;
            return Ok(out.write_str(text)?);
        }
        let mut text = String::new();
        values::write_dynamic(value, &mut text)?;
        budget::charge(text.len())?;
        Ok(out.write_str(&text)?)
    });
    environment.remove_global("debug");
    environment.remove_filter("pprint");
    bounded::add(&mut environment);
    budget::add(&mut environment);
    environment.add_test("none", values::is_none);
    Ok(environment)
}

/// A float as prompts spell it.
fn write_float(number: f64, out: &mut String) {
    let start = out.len();
    // Writing to a `String` can't fail.
    if number.is_nan() {
        out.push_str("NaN");
    } else if number.is_infinite() {
        out.push_str(if number > 0.0 { "inf" } else { "-inf" });
    } else {
        let _ = write!(out, "{number}");
        if !out[start..].contains('.') {
            out.push_str(".0");
        }
    }
}

#[cfg(test)]
mod holes;
#[cfg(test)]
mod sameness;
#[cfg(test)]
mod tests;
