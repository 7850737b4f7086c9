//! The window of one partition: which records are delivered, which are finished, and how that is written down.
//!
//! **Promises.** The low-water mark never passes a record that was delivered and not finished. What is finished beyond
//! it survives a restart: it is written, run-length encoded, into the metadata string that Kafka keeps with a committed
//! offset. The string never exceeds [`MAX_METADATA`] bytes; what doesn't fit is left out from the far end, and is only
//! delivered again. Metadata that this module didn't write, or wrote for another offset (someone has reset the group),
//! reads as "nothing finished".
//!
//! **Why.** A batch stays open for a day. With a plain offset commit, a restart would deliver all the records behind it
//! again, and lag would look like a thousand open records when it is one.
//!
//! **Gaps.** Offsets that are skipped between two deliveries hold no record (compaction, transaction markers, retention),
//! so they count as finished: delivery is in order, and nothing will ever finish them.
//!
//! **The format.** `1`, the mark, then for each run of finished offsets the count of unfinished offsets before it and
//! its length; all numbers in base 32, lowest digit first, one character a digit, where the upper half of the 64
//! characters says "more digits follow". A run of up to 31 after a gap of up to 31 costs two bytes.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

/// The longest metadata string that a broker takes by default (`offset.metadata.max.bytes`).
pub const MAX_METADATA: usize = 4096;

const VERSION: u8 = b'1';
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The delivered and finished offsets of one partition, for as long as one consumer owns it.
#[derive(Clone, Debug)]
pub struct Window {
    /// The lowest offset that may be read next. Unknown until the first delivery if the group has no commit.
    read: Option<i64>,
    /// Everything below it is delivered, a gap, or finished in an earlier life: `read`, and on over the finished ones.
    next: Option<i64>,
    /// Delivered, not finished. All are below `next`; every other offset from the mark to `next` is finished.
    open: BTreeSet<i64>,
    /// Finished in an earlier life, in order, all above `next`.
    restored: VecDeque<Range<i64>>,
}

impl Window {
    /// A window whose start is not known: the first delivery decides it.
    pub fn unknown() -> Window {
        Window { read: None, next: None, open: BTreeSet::new(), restored: VecDeque::new() }
    }

    /// The window that a committed offset and its metadata describe.
    pub fn starting_at(mark: i64, metadata: &str) -> Window {
        let restored = decode(metadata, mark).into();
        Window { read: Some(mark), next: Some(mark), open: BTreeSet::new(), restored }
    }

    /// Records that the partition has come to this offset. Returns whether the record is to be handed out: not if it
    /// was finished in an earlier life.
    ///
    /// Offsets only rise while a partition is owned. One that doesn't means that the log was cut off or made anew: what
    /// the window knew was about other records, so it starts again there.
    pub fn deliver(&mut self, offset: i64) -> bool {
        if self.read.is_some_and(|read| offset < read) {
            *self = Window::unknown();
        }
        self.read = Some(offset.saturating_add(1));
        // From `read` to `next` lies what was finished in an earlier life, and so it is in the runs beyond.
        let finished = self.next.is_some_and(|next| offset < next)
            || self.restored.iter().take_while(|run| run.start <= offset).any(|run| run.contains(&offset));
        if !finished {
            self.open.insert(offset);
        }
        self.advance(offset.saturating_add(1));
        !finished
    }

    /// Moves `next` to `read` at least, and on over what was finished in an earlier life.
    fn advance(&mut self, read: i64) {
        let mut next = self.next.map_or(read, |next| next.max(read));
        while let Some(run) = self.restored.front() {
            if run.start > next {
                break;
            }
            next = next.max(run.end);
            self.restored.pop_front();
        }
        self.next = Some(next);
    }

    /// Marks a delivered record as finished; returns whether it was open.
    pub fn finish(&mut self, offset: i64) -> bool {
        self.open.remove(&offset)
    }

    /// The low-water mark: every record before it is finished. None until something is known.
    pub fn mark(&self) -> Option<i64> {
        if faults::is_broken(faults::Mutation::CommitPastGap) {
            return self.next;
        }
        self.open.first().copied().or(self.next)
    }

    /// What to commit: the mark, and the metadata that says what is finished beyond it. None until something is known.
    pub fn position(&self) -> Option<(i64, String)> {
        let mark = self.mark()?;
        Some((mark, encode(mark, self.finished_beyond())))
    }

    /// The finished offsets beyond the mark, as runs in order, with an unfinished offset before each.
    fn finished_beyond(&self) -> impl Iterator<Item = Range<i64>> + '_ {
        let ends = self.open.iter().skip(1).copied().chain(self.next.filter(|_| !self.open.is_empty()));
        self.open
            .iter()
            .zip(ends)
            .map(|(open, end)| open + 1..end)
            .filter(|run| !run.is_empty())
            .chain(self.restored.iter().cloned())
    }
}

/// Writes down the runs beyond `mark`, as many as fit. No runs at all make an empty string.
fn encode(mark: i64, runs: impl Iterator<Item = Range<i64>>) -> String {
    let mut text = String::new();
    let mut at = mark;
    for run in runs {
        let mut piece = String::new();
        if text.is_empty() {
            piece.push(char::from(VERSION));
            push_number(&mut piece, mark);
        }
        push_number(&mut piece, run.start - at);
        push_number(&mut piece, run.end - run.start);
        if text.len() + piece.len() > MAX_METADATA {
            break;
        }
        text.push_str(&piece);
        at = run.end;
    }
    text
}

/// The finished runs beyond a committed offset, in order; none if the metadata is not ours or not of that offset.
pub fn decode(metadata: &str, committed: i64) -> Vec<Range<i64>> {
    read_runs(metadata, committed).unwrap_or_default()
}

fn read_runs(metadata: &str, committed: i64) -> Option<Vec<Range<i64>>> {
    let mut bytes = metadata.bytes();
    if bytes.next()? != VERSION || read_number(&mut bytes)? != committed {
        return None;
    }
    let mut runs = Vec::new();
    let mut at = committed;
    while bytes.len() > 0 {
        let start = at.checked_add(read_number(&mut bytes).filter(|gap| *gap > 0)?)?;
        let end = start.checked_add(read_number(&mut bytes).filter(|len| *len > 0)?)?;
        runs.push(start..end);
        at = end;
    }
    Some(runs)
}

/// Appends a number that is not negative.
fn push_number(text: &mut String, number: i64) {
    let mut rest = number.max(0).unsigned_abs();
    loop {
        let digit = (rest % 32) as usize;
        rest /= 32;
        let more = if rest > 0 { 32 } else { 0 };
        text.push(char::from(DIGITS[digit + more]));
        if rest == 0 {
            break;
        }
    }
}

fn read_number(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let mut number: i64 = 0;
    for shift in (0..60).step_by(5) {
        let byte = bytes.next()?;
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        number |= i64::from(digit % 32) << shift;
        if digit < 32 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
