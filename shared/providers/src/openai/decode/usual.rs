//! The usual line: a success with a text, every field of its usual type. Nearly all lines of a job are such, and they are what
//! collecting a batch costs; so they are read by [`Scan`], which looks at what is wanted and passes over the rest, or, where a
//! line is built as those before it were, by their [`Patterns`], which is cheaper still.
//!
//! Whatever is not usual in the least (a failure, a refusal, no text, a list of parts, two choices, a key that is there twice, a
//! number as text, …) is `None` here and left to the patient decoder. So there is one place with rules for odd lines,
//! and none of them is here. That both read a usual line alike is tested in `decode/alike.rs` and by the fuzz target.

use std::borrow::Cow;
use std::cell::RefCell;

use model::Tokens;

use super::pattern::Patterns;
use super::scan::{Field, Scan};
use crate::provider::{Answer, Outcome};

thread_local! {
    /// How the last usual lines of this thread were built. It makes a line cheaper to read and nothing else.
    static PATTERNS: RefCell<Patterns> = const { RefCell::new(Patterns::new()) };
}

/// Reads a usual line; `None` for any other.
pub(super) fn decode(line: &[u8]) -> Option<Answer<'_>> {
    let mut scan = Scan::new(line)?;
    PATTERNS.with_borrow_mut(|patterns| match patterns.read(&mut scan) {
        Some(found) => found.answer(),
        None => {
            scan.start();
            let found = scanned(&mut scan)?;
            let (line, holes) = scan.holes();
            patterns.learn(line, holes, found.has_usage);
            found.answer()
        }
    })
}

/// What is wanted of a line.
#[derive(Debug, Default)]
pub(super) struct Found<'l> {
    pub(super) custom_id: Option<&'l str>,
    pub(super) status: Option<u64>,
    pub(super) model: Option<&'l str>,
    pub(super) finish_reason: Option<&'l str>,
    pub(super) content: Option<Cow<'l, str>>,
    pub(super) has_usage: bool,
    pub(super) tokens: Tokens,
}

impl<'l> Found<'l> {
    /// The answer, if it is one.
    fn answer(self) -> Option<Answer<'l>> {
        let is_success = (200..300).contains(&self.status?) && self.finish_reason != Some("content_filter");
        let filled = |text: Option<&'l str>| text.filter(|text| !text.is_empty()).map(Cow::Borrowed);
        let response = self.content.filter(|text| is_success && !text.is_empty())?;
        let (finish_reason, model) = (filled(self.finish_reason), filled(self.model));
        let tokens = self.has_usage.then_some(self.tokens);
        let outcome = Outcome::Answered { response, finish_reason, model, tokens };
        Some(Answer { custom_id: Cow::Borrowed(self.custom_id?), outcome })
    }
}

/// A key may be there once; else the patient decoder decides.
fn once(seen: &mut bool) -> Option<()> {
    (!std::mem::replace(seen, true)).then_some(())
}

pub(super) fn scanned<'l>(scan: &mut Scan<'l>) -> Option<Found<'l>> {
    let mut found = Found::default();
    let mut seen = [false; 3];
    scan.spaces();
    scan.object(|scan, key| {
        match key {
            b"custom_id" => {
                once(&mut seen[0])?;
                found.custom_id = Some(scan.plain(Field::CustomId)?);
            }
            b"response" => {
                once(&mut seen[1])?;
                response(scan, &mut found)?;
            }
            b"error" => {
                once(&mut seen[2])?;
                scan.null()?;
            }
            _ => scan.skip()?,
        }
        Some(())
    })?;
    scan.end()?;
    Some(found)
}

fn response<'l>(scan: &mut Scan<'l>, found: &mut Found<'l>) -> Option<()> {
    let mut seen = [false; 2];
    scan.object(|scan, key| {
        match key {
            b"status_code" => {
                once(&mut seen[0])?;
                found.status = Some(scan.count(Field::Status)?);
            }
            b"body" => {
                once(&mut seen[1])?;
                body(scan, found)?;
            }
            _ => scan.skip()?,
        }
        Some(())
    })
}

fn body<'l>(scan: &mut Scan<'l>, found: &mut Found<'l>) -> Option<()> {
    let mut seen = [false; 6];
    scan.object(|scan, key| {
        match key {
            b"model" => {
                once(&mut seen[0])?;
                found.model = scan.plain_or_null(Field::Model)?;
            }
            b"choices" => {
                once(&mut seen[1])?;
                scan.list_of_one(|scan| choice(scan, found))?;
            }
            b"usage" => {
                once(&mut seen[2])?;
                usage(scan, found)?;
            }
            // What a failure would be told by.
            b"error" => {
                once(&mut seen[3])?;
                scan.null()?;
            }
            b"message" => {
                once(&mut seen[4])?;
                scan.null()?;
            }
            b"detail" => {
                once(&mut seen[5])?;
                scan.null()?;
            }
            _ => scan.skip()?,
        }
        Some(())
    })
}

fn choice<'l>(scan: &mut Scan<'l>, found: &mut Found<'l>) -> Option<()> {
    let mut seen = [false; 2];
    scan.object(|scan, key| {
        match key {
            b"finish_reason" => {
                once(&mut seen[0])?;
                found.finish_reason = scan.plain_or_null(Field::FinishReason)?;
            }
            b"message" => {
                once(&mut seen[1])?;
                message(scan, found)?;
            }
            _ => scan.skip()?,
        }
        Some(())
    })
}

/// Beside a text, calls of tools don't count.
fn message<'l>(scan: &mut Scan<'l>, found: &mut Found<'l>) -> Option<()> {
    let mut seen = [false; 3];
    scan.object(|scan, key| {
        match key {
            b"content" => {
                once(&mut seen[0])?;
                found.content = Some(scan.string(Field::Content)?);
            }
            b"refusal" => {
                once(&mut seen[1])?;
                scan.null()?;
            }
            b"tool_calls" => {
                once(&mut seen[2])?;
                scan.skip()?;
            }
            _ => scan.skip()?,
        }
        Some(())
    })
}

fn usage(scan: &mut Scan<'_>, found: &mut Found<'_>) -> Option<()> {
    let (mut seen, tokens) = ([false; 4], &mut found.tokens);
    found.has_usage = scan.object_or_null(|scan, key| {
        match key {
            b"prompt_tokens" | b"input_tokens" => {
                once(&mut seen[0])?;
                tokens.input = scan.count_or_null(Field::Input)?.unwrap_or(0);
            }
            b"completion_tokens" | b"output_tokens" => {
                once(&mut seen[1])?;
                tokens.output = scan.count_or_null(Field::Output)?.unwrap_or(0);
            }
            b"prompt_tokens_details" | b"input_tokens_details" => {
                once(&mut seen[2])?;
                tokens.cached = details(scan, Field::Cached, Field::Count)?.0;
            }
            b"completion_tokens_details" | b"output_tokens_details" => {
                once(&mut seen[3])?;
                tokens.reasoning = details(scan, Field::Count, Field::Reasoning)?.1;
            }
            _ => scan.skip()?,
        }
        Some(())
    })?;
    Some(())
}

/// Cached and reasoning tokens; of each kind of details one is wanted.
fn details(scan: &mut Scan<'_>, cached: Field, reasoning: Field) -> Option<(u64, u64)> {
    let (mut seen, mut counts) = ([false; 2], (0, 0));
    scan.object_or_null(|scan, key| {
        match key {
            b"cached_tokens" => {
                once(&mut seen[0])?;
                counts.0 = scan.count_or_null(cached)?.unwrap_or(0);
            }
            b"reasoning_tokens" => {
                once(&mut seen[1])?;
                counts.1 = scan.count_or_null(reasoning)?.unwrap_or(0);
            }
            _ => scan.skip()?,
        }
        Some(())
    })?;
    Some(counts)
}
