//! Finding where records end: the hot path of splitting.
//!
//! The scanner jumps from one interesting byte to the next with `memchr` (a line feed or a quote outside quotes, a quote
//! inside them) and counts the delimiters of each stretch outside quotes, so a record without quotes costs three vector
//! scans. It keeps its place inside a record, so a record that arrives in many pieces is scanned once.

use memchr::{memchr, memchr_iter, memchr2};

/// What is wrong with one record by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Text between a closing quote and the next delimiter; where it begins in the record.
    TextAfterQuote(usize),
    /// A carriage return outside quotes that no line feed follows; where.
    BareCarriageReturn(usize),
    /// The quoted cell that begins here is never closed: the record is the rest of the file.
    OpenQuote(usize),
}

/// One record, found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its length in bytes, line ending included.
    pub(crate) len: usize,
    /// Its length without the line ending. 0: a blank line, which is no row.
    pub(crate) body: usize,
    /// How many cells it has.
    pub(crate) cells: usize,
    /// Its first flaw.
    pub(crate) flaw: Option<Flaw>,
}

/// Splits text into records.
#[derive(Debug)]
pub(crate) struct Scanner {
    delimiter: u8,
    /// Up to where the record was looked at.
    at: usize,
    /// Where the current stretch outside quotes, or the current quoted cell, begins.
    mark: usize,
    quoted: bool,
    cells: usize,
    flaw: Option<Flaw>,
}

impl Scanner {
    /// A scanner at the beginning of a record.
    pub(crate) fn new(delimiter: u8) -> Self {
        Self { delimiter, at: 0, mark: 0, quoted: false, cells: 1, flaw: None }
    }

    /// The record at the front of `text`, or nothing when its end has not arrived (or there is no text). The next call
    /// after nothing must see the same text, prolonged; the next one after a record, the text behind it.
    pub(crate) fn next(&mut self, text: &[u8], complete: bool) -> Option<Found> {
        loop {
            let step = if self.quoted { self.in_quotes(text, complete) } else { self.outside_quotes(text) };
            match step {
                Scan::On => {}
                Scan::Record(len) => return Some(self.found(text, len)),
                Scan::Dry if complete && !text.is_empty() => return Some(self.found(text, text.len())),
                Scan::Dry => return None,
            }
        }
    }

    fn outside_quotes(&mut self, text: &[u8]) -> Scan {
        match memchr2(b'\n', b'"', &text[self.at..]) {
            None => {
                self.at = text.len();
                Scan::Dry
            }
            Some(offset) => {
                let i = self.at + offset;
                self.at = i + 1;
                if text[i] == b'\n' {
                    return Scan::Record(i + 1);
                }
                // The byte before a stretch is a closing quote, never a delimiter, so looking back can't mislead.
                if i == 0 || text[i - 1] == self.delimiter {
                    self.close_stretch(&text[..i]);
                    self.mark = i;
                    self.quoted = true;
                }
                Scan::On
            }
        }
    }

    fn in_quotes(&mut self, text: &[u8], complete: bool) -> Scan {
        let Some(offset) = memchr(b'"', &text[self.at..]) else {
            self.at = text.len();
            return Scan::Dry;
        };
        let i = self.at + offset;
        match text.get(i + 1) {
            Some(b'"') => {
                self.at = i + 2;
                return Scan::On;
            }
            // Whether this quote closes the cell depends on the byte that follows: look at it again then.
            None if !complete => {
                self.at = i;
                return Scan::Dry;
            }
            None | Some(b'\n' | b'\r') => {}
            Some(&byte) if byte == self.delimiter => {}
            Some(_) => self.flaw = self.flaw.or(Some(Flaw::TextAfterQuote(i + 1))),
        }
        self.quoted = false;
        self.at = i + 1;
        self.mark = i + 1;
        Scan::On
    }

    /// Counts the delimiters from `mark` to the end of `text`.
    fn close_stretch(&mut self, text: &[u8]) {
        let stretch = &text[self.mark..];
        self.cells += memchr_iter(self.delimiter, stretch).count();
        if self.flaw.is_none()
            && let Some(i) = memchr(b'\r', stretch)
        {
            self.flaw = Some(Flaw::BareCarriageReturn(self.mark + i));
        }
    }

    fn found(&mut self, text: &[u8], len: usize) -> Found {
        let body;
        if self.quoted {
            body = len;
            self.flaw = Some(Flaw::OpenQuote(self.mark));
        } else {
            body = len - line_ending(&text[..len]).len();
            self.close_stretch(&text[..body]);
        }
        let found = Found { len, body, cells: self.cells, flaw: self.flaw };
        *self = Self::new(self.delimiter);
        found
    }
}

enum Scan {
    On,
    Record(usize),
    Dry,
}

/// The line ending of a record that is closed: `\n`, `\r\n`, a lone `\r` that ends the file, or nothing.
pub(crate) fn line_ending(record: &[u8]) -> &[u8] {
    let ending = match record {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n' | b'\r'] => 1,
        _ => 0,
    };
    &record[record.len() - ending..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(&str, usize, Option<Flaw>)> {
        let mut scanner = Scanner::new(b',');
        let (mut rest, mut out) = (text, Vec::new());
        while let Some(found) = scanner.next(rest.as_bytes(), true) {
            out.push((&rest[..found.len], found.cells, found.flaw));
            rest = &rest[found.len..];
        }
        assert!(rest.is_empty());
        out
    }

    #[test]
    fn a_quoted_newline_stays_inside_its_cell() {
        assert_eq!(split("\"a\nb\",2\r\n3,\"4\r\n\"\n"), [("\"a\nb\",2\r\n", 2, None), ("3,\"4\r\n\"\n", 2, None)]);
    }

    #[test]
    fn a_quoted_delimiter_and_a_doubled_quote_are_data() {
        assert_eq!(split("\"a,\"\",b\",2\n\"\"\"\",\"\""), [("\"a,\"\",b\",2\n", 2, None), ("\"\"\"\",\"\"", 2, None)]);
    }

    #[test]
    fn a_quote_inside_an_unquoted_cell_is_data() {
        assert_eq!(
            split("5\" pipe,6\"\n a\",\"b\n"),
            [("5\" pipe,6\"\n", 2, None), (" a\",\"b\n", 2, Some(Flaw::OpenQuote(4)))]
        );
    }

    #[test]
    fn text_after_a_closing_quote_is_a_flaw_and_the_record_ends_at_the_next_line_feed() {
        assert_eq!(split("\"a\"b,c\nd,e\n"), [("\"a\"b,c\n", 2, Some(Flaw::TextAfterQuote(3))), ("d,e\n", 2, None)]);
    }

    #[test]
    fn a_lone_carriage_return_is_a_flaw_except_at_the_end_of_the_file() {
        assert_eq!(
            split("a\r,b\n\"a\"\r,b\nc,d\r"),
            [
                ("a\r,b\n", 2, Some(Flaw::BareCarriageReturn(1))),
                ("\"a\"\r,b\n", 2, Some(Flaw::BareCarriageReturn(3))),
                ("c,d\r", 2, None)
            ]
        );
    }

    #[test]
    fn blank_lines_have_no_body() {
        let mut scanner = Scanner::new(b',');
        assert_eq!(scanner.next(b"\r\n", true).unwrap().body, 0);
        assert_eq!(scanner.next(b"\n\n", true).unwrap(), Found { len: 1, body: 0, cells: 1, flaw: None });
        assert_eq!(scanner.next(b"\"\"\n", true).unwrap().body, 2);
        assert_eq!(scanner.next(b"", true), None);
    }

    #[test]
    fn an_open_quote_takes_the_rest_and_says_where_it_began() {
        assert_eq!(split("1,\"x\n2,y\n"), [("1,\"x\n2,y\n", 2, Some(Flaw::OpenQuote(2)))]);
    }

    #[test]
    fn a_record_that_arrives_byte_by_byte_is_the_same() {
        let text = b"\"a\"\"\n\",b,\"c\"\r\nnext";
        let mut scanner = Scanner::new(b',');
        let whole = Scanner::new(b',').next(text, false).unwrap();
        let end = (0..text.len()).find(|&n| scanner.next(&text[..n], false).is_some()).unwrap();
        assert_eq!((end, whole.cells), (whole.len, 3));
    }
}
