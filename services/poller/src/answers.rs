//! What the provider's files say of each row of an attempt.
//!
//! Files are shuffled, and results are written in the batch's order. So each line is decoded when it comes, once, and what it
//! says is kept in memory: its text in an [`Arena`], the rest in a slot of the row's own. The arena has a bound
//! (`poller.max_decoded_bytes`). A line beyond it is put aside, as it is, in a scratch file, and decoded again when its row is
//! written; which of the two became of a line makes no difference to what is said of its row. The provider's files themselves
//! are nowhere kept.
//!
//! A line is a row's by its custom id alone. Of two lines for one row a success beats an error, else the first wins. A line
//! that can't be read fails its row, if it tells which; of a line over the limit only the beginning is read, and its row
//! can't be read, if nothing else speaks of it.

use std::borrow::Cow;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::Context as _;
use model::{CustomId, FailureKind, Nonce, Tokens};
use providers::{Answer, Outcome, Provider};
use runtime::scratch::{Scratch, ScratchFile};

use crate::arena::{Arena, Name, Names, Place};
use crate::config::Config;
use crate::decide;
use crate::lines::Lines;

/// So many bytes of lines that are put aside are written at a time.
const ASIDE_BYTES: usize = 256 << 10;

/// What is known of a row.
#[derive(Debug, Clone, Copy, Default)]
enum Slot {
    /// Nothing.
    #[default]
    Unmentioned,
    /// No more than a line that is too long to be read.
    TooLong,
    /// How it ended. The text is the answer, or the message if there is a kind of failure.
    Kept { failed: Option<FailureKind>, text: Place, finish_reason: Name, model: Name, tokens: Option<Tokens> },
    /// Where its line is.
    Aside { at: u64, bytes: u32, answered: bool },
}

/// What the files say of a row.
#[derive(Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// Nothing.
    Nothing,
    /// Something that is too long to be read.
    TooLong,
    /// How it ended.
    Ended(Outcome<'a>),
}

/// All that the files say of an attempt's rows.
#[derive(Debug)]
pub struct Answers<'p> {
    provider: &'p dyn Provider,
    nonce: Nonce,
    lines: Lines,
    said: Slots,
}

/// [`Answers`] behind the cutting into lines.
#[derive(Debug)]
struct Slots {
    rows: Vec<Slot>,
    /// Whether a row's slot says something: small enough for the cache, where the slots are not. Lines come in no order.
    heard: Vec<bool>,
    arena: Arena,
    names: Names,
    aside: Aside,
    unknown: u64,
    duplicates: u64,
}

impl<'p> Answers<'p> {
    /// Nothing yet, for the rows of an attempt whose batch data has this nonce.
    #[must_use]
    pub fn new(provider: &'p dyn Provider, nonce: Nonce, rows: usize, config: &Config, scratch: Scratch) -> Self {
        let said = Slots {
            rows: vec![Slot::default(); rows],
            heard: vec![false; rows],
            arena: Arena::new(config.max_decoded_bytes),
            names: Names::default(),
            aside: Aside { scratch, file: None, written: 0, buffered: Vec::new() },
            unknown: 0,
            duplicates: 0,
        };
        Self { provider, nonce, lines: Lines::new(config.max_line_bytes), said }
    }

    /// Takes the next bytes of a file.
    ///
    /// # Errors
    /// When scratch is full or can't be written.
    pub fn push(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        let Self { provider, nonce, lines, said } = self;
        lines.push(piece, |line, whole| said.take(*provider, nonce, line, whole))
    }

    /// Ends a file; another may follow.
    ///
    /// # Errors
    /// When scratch is full or can't be written.
    pub fn end_file(&mut self) -> anyhow::Result<()> {
        let Self { provider, nonce, lines, said } = self;
        lines.end(|line, whole| said.take(*provider, nonce, line, whole))
    }

    /// Gives up a file that can't be read to its end: what came of it counts, but for its last, unfinished line.
    pub(crate) fn abandon_file(&mut self) {
        self.lines.forget();
    }

    /// How many bytes of a line there are whose end has not come yet.
    pub(crate) fn open_bytes(&self) -> usize {
        self.lines.open_bytes()
    }

    /// Ends the last file, before the rows are asked for.
    ///
    /// # Errors
    /// When scratch can't be written.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        self.said.aside.flush()
    }

    /// Has the texts of some rows brought into the processor's cache, all at a time. Rows are asked for in the batch's order, and
    /// their texts lie in that of the files: one by one, each would be waited for.
    pub(crate) fn fetch(&self, rows: Range<usize>) {
        let texts = self.said.rows.get(rows).unwrap_or_default().iter().map(|slot| match slot {
            Slot::Kept { text, .. } => self.said.arena.touch(*text),
            _ => 0,
        });
        std::hint::black_box(texts.fold(0, |all, text| all ^ text));
    }

    /// What is said of a row. `line` is room for its line.
    ///
    /// # Errors
    /// When scratch can't be read.
    pub fn of<'a>(&'a self, row: usize, line: &'a mut Vec<u8>) -> std::io::Result<Said<'a>> {
        let said = &self.said;
        let kept = |name: Name| said.names.get(name).map(Cow::Borrowed);
        Ok(match said.rows.get(row).copied().unwrap_or_default() {
            Slot::Unmentioned => Said::Nothing,
            Slot::TooLong => Said::TooLong,
            Slot::Kept { failed, text, finish_reason, model, tokens } => {
                let (text, model) = (Cow::Borrowed(said.arena.get(text)), kept(model));
                Said::Ended(match failed {
                    None => Outcome::Answered { response: text, finish_reason: kept(finish_reason), model, tokens },
                    Some(kind) => Outcome::Failed { kind, message: text, model, tokens },
                })
            }
            Slot::Aside { at, bytes, .. } => {
                said.aside.read(at, bytes, line)?;
                Said::Ended(decode(self.provider, line).1)
            }
        })
    }

    /// Lines whose custom id is not of this attempt, and lines that don't tell their row at all.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.said.unknown
    }

    /// Lines beyond the first for one row.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.said.duplicates
    }
}

/// The custom id of a line and how its row ended; a line that can't be read fails it.
fn decode<'l>(provider: &dyn Provider, line: &'l [u8]) -> (Option<Cow<'l, str>>, Outcome<'l>) {
    match provider.decode_line(line) {
        Ok(Answer { custom_id, outcome }) => (Some(custom_id), outcome),
        Err(bad) => {
            let message = Cow::Owned(bad.to_string());
            let outcome = Outcome::Failed { kind: FailureKind::Malformed, message, model: None, tokens: None };
            (bad.custom_id.map(Cow::Owned), outcome)
        }
    }
}

impl Slots {
    /// Takes a line; only its beginning, if it is not whole.
    fn take(&mut self, provider: &dyn Provider, nonce: &Nonce, line: &[u8], whole: bool) -> anyhow::Result<()> {
        if whole && line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let (id, outcome) = if whole {
            let (id, outcome) = decode(provider, line);
            (id, Some(outcome))
        } else {
            (provider.line_id(line), None)
        };
        let row = id.as_deref().and_then(CustomId::parse).filter(|id| id.nonce == nonce.as_str());
        let row = row.and_then(|id| usize::try_from(id.row).ok()).filter(|row| *row < self.rows.len());
        let Some(row) = row else {
            self.unknown += 1;
            return Ok(());
        };
        let answered = matches!(outcome, Some(Outcome::Answered { .. }));
        let heard = std::mem::replace(&mut self.heard[row], true);
        self.duplicates += u64::from(heard);
        let stays = heard
            && match self.rows[row] {
                Slot::Unmentioned => false,
                Slot::TooLong => !whole,
                Slot::Kept { failed, .. } => !decide::replaces(failed.is_none(), answered),
                Slot::Aside { answered: before, .. } => !decide::replaces(before, answered),
            };
        if !stays {
            self.rows[row] = match outcome {
                None => Slot::TooLong,
                Some(outcome) => match self.keep(&outcome) {
                    Some(kept) => kept,
                    None => {
                        let (at, bytes) = (self.aside.put(line)?, u32::try_from(line.len())?);
                        Slot::Aside { at, bytes, answered }
                    }
                },
            };
        }
        Ok(())
    }

    /// Keeps how a row ended; `None` where there is no room.
    fn keep(&mut self, outcome: &Outcome<'_>) -> Option<Slot> {
        let (failed, text, finish_reason, model, tokens) = match outcome {
            Outcome::Answered { response, finish_reason, model, tokens } => {
                (None, response, finish_reason.as_deref(), model, tokens)
            }
            Outcome::Failed { kind, message, model, tokens } => (Some(*kind), message, None, model, tokens),
        };
        let (finish_reason, model) = (self.names.add(finish_reason)?, self.names.add(model.as_deref())?);
        Some(Slot::Kept { failed, text: self.arena.add(text)?, finish_reason, model, tokens: *tokens })
    }
}

/// Lines that are put aside, in a scratch file of their own.
#[derive(Debug)]
struct Aside {
    scratch: Scratch,
    file: Option<ScratchFile>,
    /// Bytes that are in the file.
    written: u64,
    /// What follows them.
    buffered: Vec<u8>,
}

impl Aside {
    /// Puts a line aside, and says where.
    fn put(&mut self, line: &[u8]) -> anyhow::Result<u64> {
        let at = self.written + self.buffered.len() as u64;
        self.buffered.extend_from_slice(line);
        if self.buffered.len() >= ASIDE_BYTES {
            self.flush()?;
        }
        Ok(at)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.buffered.is_empty() {
            return Ok(());
        }
        if self.file.is_none() {
            self.file = self.scratch.reserve(0)?;
        }
        let file = self.file.as_mut().context("scratch is full")?;
        anyhow::ensure!(file.grow(self.buffered.len() as u64), "scratch is full");
        file.file().write_all(&self.buffered).context("writing to scratch")?;
        self.written += self.buffered.len() as u64;
        self.buffered.clear();
        Ok(())
    }

    fn read(&self, at: u64, bytes: u32, line: &mut Vec<u8>) -> std::io::Result<()> {
        line.resize(bytes as usize, 0);
        match &self.file {
            Some(file) => file.file().read_exact_at(line, at),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

#[cfg(test)]
mod tests;
