//! How the added cells of a CSV file are written.
//!
//! A cell is quoted where it must be (it holds the delimiter, a quote or a line break) and in a file that quotes all. No
//! answer at all is an empty cell without quotes, an answer of no text is `""`: readers that know nulls keep the two apart.

use std::fmt::Write;

use memchr::{memchr, memchr3};

use crate::result::{Cell, write_error};

/// Below so many bytes a cell is looked through byte by byte: that is over before a vectorised search has begun.
const SHORT: usize = 24;
/// So much of a text is quoted at a time.
const PIECE: usize = 4 * 1024;
/// A byte in each of a word's places.
const EACH: u64 = u64::MAX / 255;

/// How a file quotes.
#[derive(Debug)]
pub(super) struct Quoting {
    delimiter: u8,
    all: bool,
    /// The word that a column had last, and how it is written: mostly it has the same again.
    words: Vec<(String, Vec<u8>)>,
    /// A cell in the making.
    made: String,
}

impl Quoting {
    pub(super) fn new(delimiter: u8, all: bool) -> Self {
        Self { delimiter, all, words: Vec::new(), made: String::new() }
    }

    /// Appends cells, each behind a delimiter.
    pub(super) fn cells(&mut self, line: &mut Vec<u8>, cells: &[Cell<'_>]) {
        if self.words.len() < cells.len() {
            self.words.resize_with(cells.len(), Default::default);
        }
        for (place, cell) in cells.iter().enumerate() {
            match cell {
                Cell::None => line.push(self.delimiter),
                Cell::Text(text) => self.cell(line, text),
                Cell::Word(text) => self.word(line, place, text),
                // A string takes whatever is written into it.
                Cell::Error(kind, message) => self.made(line, |text| {
                    let _ = write_error(*kind, *message, text);
                }),
                Cell::Count(count) => self.count(line, *count),
                Cell::Cost(cost) => self.made(line, |text| {
                    let _ = write!(text, "{cost}");
                }),
            }
        }
    }

    fn made(&mut self, line: &mut Vec<u8>, make: impl FnOnce(&mut String)) {
        let mut text = std::mem::take(&mut self.made);
        text.clear();
        make(&mut text);
        self.cell(line, &text);
        self.made = text;
    }

    /// Appends a cell of text behind a delimiter.
    pub(super) fn cell(&self, line: &mut Vec<u8>, text: &str) {
        line.push(self.delimiter);
        self.text(line, text.as_bytes());
    }

    fn word(&mut self, line: &mut Vec<u8>, place: usize, text: &str) {
        // What is written is never empty.
        if self.words[place].0 != text || self.words[place].1.is_empty() {
            let mut written = Vec::new();
            self.cell(&mut written, text);
            self.words[place] = (text.to_owned(), written);
        }
        line.extend_from_slice(&self.words[place].1);
    }

    fn count(&self, line: &mut Vec<u8>, count: u64) {
        // A delimiter and twenty digits.
        let (mut written, mut rest, mut first) = ([b'0'; 21], count, 21);
        while rest > 0 || first == 21 {
            first -= 1;
            written[first] += (rest % 10) as u8;
            rest /= 10;
        }
        if self.all || self.delimiter.is_ascii_digit() {
            line.push(self.delimiter);
            return self.text(line, &written[first..]);
        }
        first -= 1;
        written[first] = self.delimiter;
        line.extend_from_slice(&written[first..]);
    }

    fn text(&self, line: &mut Vec<u8>, text: &[u8]) {
        let special = |byte: u8| matches!(byte, b'"' | b'\n' | b'\r') || byte == self.delimiter;
        let quoted = self.all
            || text.is_empty()
            || if text.len() < SHORT {
                text.iter().any(|byte| special(*byte))
            } else {
                memchr3(b'"', b'\n', b'\r', text).is_some() || memchr(self.delimiter, text).is_some()
            };
        if !quoted {
            line.extend_from_slice(text);
            return;
        }
        line.push(b'"');
        text.chunks(PIECE).for_each(|piece| double_quotes(line, piece));
        line.push(b'"');
    }
}

/// Appends a text with each of its quotes twice, eight bytes at a time: answers that are JSON have a quote every few bytes,
/// which is too often for searches that are quick over long stretches.
fn double_quotes(line: &mut Vec<u8>, text: &[u8]) {
    let start = line.len();
    line.resize(start + 2 * text.len() + 8, 0);
    let out = &mut line[start..];
    let (mut from, mut to) = (0, 0);
    while let Some(eight) = text[from..].first_chunk::<8>() {
        out[to..to + 8].copy_from_slice(eight);
        match first_quote(u64::from_le_bytes(*eight)) {
            8 => (from, to) = (from + 8, to + 8),
            place => {
                out[to + place + 1] = b'"';
                (from, to) = (from + place + 1, to + place + 2);
            }
        }
    }
    for byte in &text[from..] {
        out[to] = *byte;
        to += 1;
        if *byte == b'"' {
            out[to] = b'"';
            to += 1;
        }
    }
    line.truncate(start + to);
}

/// The place of the first quote among eight bytes; 8 if there is none.
fn first_quote(eight: u64) -> usize {
    // A byte that is a quote becomes 0. The lowest 0 of all is the lowest byte that borrows.
    let zeros = eight ^ (EACH * u64::from(b'"'));
    let found = zeros.wrapping_sub(EACH) & !zeros & (EACH * 0x80);
    (found.trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quotes_are_doubled_wherever_they_stand(text in r##"["#\u{1}a-ü\u{a2}]{0,60}"##, before in 0_usize..9) {
            let mut line = vec![b'x'; before];
            double_quotes(&mut line, text.as_bytes());
            prop_assert_eq!(String::from_utf8(line).unwrap(), "x".repeat(before) + &text.replace('"', "\"\""));
        }
    }

    #[test]
    fn a_text_of_quotes_alone_is_twice_as_long() {
        let mut line = Vec::new();
        Quoting::new(b',', false).cell(&mut line, &"\"".repeat(10_000));
        assert_eq!(line, [b",\"", "\"".repeat(20_000).as_bytes(), b"\""].concat());
    }

    #[test]
    fn a_word_is_written_alike_each_time() {
        let mut quoting = Quoting::new(b',', false);
        for word in ["", "", "a,b", "a,b", "plain", "", "a,b"] {
            let (mut once, mut again) = (Vec::new(), Vec::new());
            quoting.cells(&mut again, &[Cell::Word(word), Cell::Word(word)]);
            quoting.cell(&mut once, word);
            assert_eq!(again, once.repeat(2), "{word}");
        }
    }

    #[test]
    fn counts_have_all_their_digits() {
        for (all, count, written) in
            [(false, 0, ",0"), (false, u64::MAX, ",18446744073709551615"), (true, 70, ",\"70\"")]
        {
            let mut line = Vec::new();
            Quoting::new(b',', all).cells(&mut line, &[Cell::Count(count)]);
            assert_eq!(String::from_utf8(line).unwrap(), written);
        }
    }
}
