//! The cells of one record. Only those that are asked for are unescaped, and only a cell with a doubled quote is copied.

use std::borrow::Cow;

use memchr::memchr;
use model::table::CsvDialect;

use super::records::line_ending;
use crate::input::Error;

/// The line ending of a record as a reader gave it: `\n`, `\r\n`, a lone `\r` at the file's end, or nothing.
#[must_use]
pub fn terminator(record: &[u8]) -> &[u8] {
    line_ending(record)
}

/// Gives the wanted cells of a record, as text without quoting. `wanted` are column indices in ascending order.
///
/// # Errors
/// When the record has too few cells or a wanted cell is not UTF-8: the reader reports such rows as faults, so their
/// cells are not to be asked for.
pub fn cells<'a>(
    record: &'a [u8],
    dialect: &CsvDialect,
    wanted: &[usize],
    mut take: impl FnMut(Cow<'a, str>),
) -> Result<(), Error> {
    let mut wanted = wanted.iter().copied().peekable();
    // Checked once: a cell is then cut out of the text, since a delimiter is a character of its own.
    let whole = std::str::from_utf8(record).ok();
    let mut from = 0;
    for (index, raw) in raw_cells(record, delimiter(dialect)?).enumerate() {
        let Some(&next) = wanted.peek() else { return Ok(()) };
        let cell = from..from + raw.len();
        from = cell.end + 1;
        while wanted.next_if_eq(&index).is_some() {
            take(match whole.and_then(|whole| whole.get(cell.clone())) {
                Some(cell) => unquoted(cell),
                None => text(raw)?,
            });
        }
        if next < index {
            return Err(Error::data("the wanted columns are not in ascending order"));
        }
    }
    match wanted.next() {
        None => Ok(()),
        Some(index) => Err(Error::data(format!("a record has no cell {}", index + 1))),
    }
}

/// The delimiter of a dialect as a byte.
pub(super) fn delimiter(dialect: &CsvDialect) -> Result<u8, Error> {
    u8::try_from(dialect.delimiter)
        .ok()
        .filter(u8::is_ascii)
        .ok_or_else(|| Error::data(format!("the delimiter {:?} is not ASCII", dialect.delimiter)))
}

/// The cells of a record as they stand, quotes included.
pub(super) fn raw_cells(record: &[u8], delimiter: u8) -> RawCells<'_> {
    RawCells { rest: Some(&record[..record.len() - line_ending(record).len()]), delimiter }
}

/// An iterator over raw cells; see [`raw_cells`].
pub(super) struct RawCells<'a> {
    rest: Option<&'a [u8]>,
    delimiter: u8,
}

impl<'a> Iterator for RawCells<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let from = if rest.first() == Some(&b'"') { closing_quote(rest).map_or(rest.len(), |i| i + 1) } else { 0 };
        // Mostly a quoted cell ends right behind its quote.
        let found =
            if rest.get(from) == Some(&self.delimiter) { Some(0) } else { memchr(self.delimiter, &rest[from..]) };
        match found {
            None => Some(rest),
            Some(offset) => {
                self.rest = Some(&rest[from + offset + 1..]);
                Some(&rest[..from + offset])
            }
        }
    }
}

/// Where the quoted cell at the front of `text` is closed.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr(b'"', &text[at..])?;
        if text.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

/// A raw cell as text.
pub(super) fn text(raw: &[u8]) -> Result<Cow<'_, str>, Error> {
    let text = std::str::from_utf8(raw).map_err(|error| Error::data(format!("a cell is not UTF-8: {error}")))?;
    Ok(unquoted(text))
}

/// A cell without its quoting.
pub(super) fn unquoted(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"') else { return Cow::Borrowed(text) };
    // A reader's sound record has nothing behind the closing quote; a malformed one is taken as far as it goes.
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    match memchr(b'"', inner.as_bytes()) {
        None => Cow::Borrowed(inner),
        Some(first) => Cow::Owned(without_doubling(inner, first)),
    }
}

/// A text with one quote for each two. `at` is where its first quote is.
fn without_doubling(text: &str, mut at: usize) -> String {
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    loop {
        out.push_str(&text[copied..=at]);
        // A quote that is not doubled stands for itself.
        copied = at + 1 + usize::from(text.as_bytes().get(at + 1) == Some(&b'"'));
        match memchr(b'"', &text.as_bytes()[copied..]) {
            Some(next) => at = copied + next,
            None => break,
        }
    }
    out.push_str(&text[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dialect(delimiter: char) -> CsvDialect {
        CsvDialect {
            delimiter,
            bom: false,
            header: "a,b\n".into(),
            quote_all: false,
            line_ending: "\n".into(),
            gzip: false,
        }
    }

    fn some(record: &str, wanted: &[usize]) -> Vec<String> {
        let mut out = Vec::new();
        cells(record.as_bytes(), &dialect(','), wanted, |cell| out.push(cell.into_owned())).unwrap();
        out
    }

    #[test]
    fn cells_come_as_text_without_their_quoting() {
        assert_eq!(
            some("007,\"a \"\"b\"\"\", sp ,\"\",,\"x\r\ny\"\r\n", &[0, 1, 2, 3, 4, 5]),
            ["007", "a \"b\"", " sp ", "", "", "x\r\ny"]
        );
    }

    proptest! {
        #[test]
        fn doubled_quotes_become_one_as_replacing_them_does(text in "[\"a,\u{fc}\n]{0,40}") {
            let quoted = format!("\"{text}\"");
            prop_assert_eq!(unquoted(&quoted), text.replace("\"\"", "\""));
        }
    }

    #[test]
    fn only_the_wanted_cells_come() {
        assert_eq!(some("a,\"b,c\",d,e\n", &[1, 3]), ["b,c", "e"]);
        assert_eq!(some("a,b", &[]), Vec::<String>::new());
    }

    #[test]
    fn a_quote_inside_an_unquoted_cell_is_data() {
        assert_eq!(some("5\" x,b\"\"\n", &[0, 1]), ["5\" x", "b\"\""]);
    }

    #[test]
    fn a_cell_without_a_doubled_quote_is_not_copied() {
        let mut out = Vec::new();
        cells(b"\"a\",b\n", &dialect(','), &[0, 1], |cell| out.push(cell)).unwrap();
        assert!(out.iter().all(|cell| matches!(cell, Cow::Borrowed(_))));
    }

    #[test]
    fn a_missing_cell_is_an_error() {
        assert!(cells(b"a,b\n", &dialect(','), &[2], drop).is_err());
    }

    #[test]
    fn a_cell_beside_one_that_is_not_text_is_read_all_the_same() {
        let record = b"a,\xff,\"b \xc3\xbc\"\n";
        let mut out = Vec::new();
        cells(record, &dialect(','), &[0, 2], |cell| out.push(cell.into_owned())).unwrap();
        assert_eq!(out, ["a", "b \u{fc}"]);
        assert!(cells(record, &dialect(','), &[1], drop).is_err());
    }
}
