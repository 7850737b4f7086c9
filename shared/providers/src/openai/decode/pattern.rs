//! How a line is built: its keys, brackets and `null`s, with holes where its strings and numbers are.
//!
//! The lines of a file come out of one program and differ in their values only. So most of a line can be compared with the line
//! before it, in few and long pieces, and only the values have to be looked at. What is in a hole must be a value of the same
//! kind, a string or a number, so a line that fits a pattern is built as the line that it was learned from, which [`Scan`] has
//! checked. A line that doesn't fit is none the worse for it.

use super::scan::{Field, Hole, Scan};
use super::usual::Found;

/// What is kept of a line at most: bytes outside of its holes, …
const MAX_BYTES: usize = 4_096;
/// … and holes. A line with more would hardly be like the next.
pub(super) const MAX_HOLES: usize = 64;

/// A pattern; none at first.
#[derive(Debug)]
pub(super) struct Pattern {
    /// What is outside of the holes.
    bytes: Vec<u8>,
    /// Where in `bytes` each hole is, and what is in it.
    holes: Vec<(usize, Field)>,
    has_usage: bool,
}

impl Pattern {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), holes: Vec::new(), has_usage: false }
    }

    /// Learns how a line is built, from all of its values.
    pub(super) fn learn(&mut self, line: &[u8], holes: &[Hole], has_usage: bool) {
        self.bytes.clear();
        self.holes.clear();
        self.has_usage = has_usage;
        let inside: usize = holes.iter().map(|hole| hole.end - hole.begin).sum();
        if holes.len() > MAX_HOLES || line.len() - inside > MAX_BYTES {
            return;
        }
        let mut at = 0;
        for hole in holes {
            self.bytes.extend_from_slice(&line[at..hole.begin]);
            self.holes.push((self.bytes.len(), hole.field));
            at = hole.end;
        }
        self.bytes.extend_from_slice(&line[at..]);
    }

    /// Reads a line that is built so; `None` for any other.
    pub(super) fn read<'l>(&self, scan: &mut Scan<'l>) -> Option<Found<'l>> {
        let mut found = Found { has_usage: self.has_usage, ..Found::default() };
        let mut at = 0;
        for (hole, field) in &self.holes {
            scan.word(self.bytes.get(at..*hole)?)?;
            at = *hole;
            match field {
                Field::Text => scan.skip_inside()?,
                Field::Number => scan.skip_number()?,
                Field::Count => drop(scan.digits()?),
                Field::CustomId => found.custom_id = Some(scan.plain_inside()?),
                Field::Status => found.status = Some(scan.digits()?),
                Field::Model => found.model = Some(scan.plain_inside()?),
                Field::FinishReason => found.finish_reason = Some(scan.plain_inside()?),
                Field::Content => found.content = Some(scan.inside()?),
                Field::Input => found.tokens.input = scan.digits()?,
                Field::Output => found.tokens.output = scan.digits()?,
                Field::Cached => found.tokens.cached = scan.digits()?,
                Field::Reasoning => found.tokens.reasoning = scan.digits()?,
            }
        }
        scan.word(self.bytes.get(at..)?)?;
        scan.end()?;
        Some(found)
    }
}
