//! Finding out a CSV file's dialect from its first records.
//!
//! Only the delimiter needs a guess: each candidate splits the sample in its own way, and the one wins whose records
//! agree best with its header on the number of cells, then the one with more cells, then the more usual one. So a
//! decimal comma in a `;` file, or prose full of commas in a tab-separated one, does not mislead: there the header or
//! the other records disagree. A caller who knows better says `input.delimiter`.

use std::collections::HashMap;

use memchr::memchr;
use model::RefusalCode;
use model::table::CsvDialect;

use super::fields::{raw_cells, text as cell_text};
use super::records::{Flaw, Found, Scanner, line_ending};
use crate::input::{Caps, Error};

/// The delimiters that are looked for, the more usual first.
const CANDIDATES: [u8; 4] = [b',', b';', b'\t', b'|'];

/// What is known before the text is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hints {
    /// The delimiter, if the caller says it.
    pub(crate) delimiter: Option<u8>,
    /// Whether the name promises tabs.
    pub(crate) prefer_tab: bool,
    /// Whether the text began with a byte order mark (which the text given here lacks).
    pub(crate) bom: bool,
    /// Whether the text was gunzipped.
    pub(crate) gzip: bool,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) dialect: CsvDialect,
    pub(crate) columns: Vec<String>,
}

/// Checks a delimiter that a caller names.
pub(crate) fn check_delimiter(delimiter: char) -> Result<u8, Error> {
    u8::try_from(delimiter).ok().filter(|byte| byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n' | 0)).ok_or_else(
        || {
            let message =
                format!("the delimiter {delimiter:?} is not one ASCII character other than a quote or a line ending");
            Error::input(RefusalCode::SpecInvalid, message)
        },
    )
}

/// Finds the layout of `text`, the file's first records. `None`: the header does not end in it, so more text is needed;
/// never when `complete` says that this is the whole file.
pub(crate) fn find(text: &[u8], complete: bool, hints: Hints, caps: &Caps) -> Result<Option<Layout>, Error> {
    if memchr(b'\n', text).is_none() && memchr(b'\r', text).is_some() {
        return Err(carriage_returns());
    }
    // What a file of one column is taken for, and one whose header has an unclosed quote is reported for.
    let fallback = hints.delimiter.unwrap_or(if hints.prefer_tab { b'\t' } else { b',' });
    let candidates = if hints.delimiter.is_some() { vec![fallback] } else { CANDIDATES.to_vec() };
    let mut samples = Vec::new();
    for delimiter in candidates {
        match Sample::take(text, complete, delimiter) {
            Some(sample) => samples.push(sample),
            None if complete => return Err(no_columns()),
            None => {}
        }
    }
    let best = samples
        .iter()
        .filter(|sample| sample.header.cells > 1 && !matches!(sample.header.flaw, Some(Flaw::OpenQuote(_))))
        .max_by_key(|sample| {
            let usual = CANDIDATES.iter().rev().position(|&candidate| candidate == sample.delimiter);
            (hints.prefer_tab && sample.delimiter == b'\t', sample.agreement(), sample.header.cells, usual)
        })
        .or_else(|| samples.iter().find(|sample| sample.delimiter == fallback));
    best.map(|sample| sample.layout(hints, caps)).transpose()
}

/// The sample as one delimiter splits it.
struct Sample<'a> {
    delimiter: u8,
    record: &'a [u8],
    header: Found,
    rest: Vec<(&'a [u8], Found)>,
}

impl<'a> Sample<'a> {
    fn take(mut text: &'a [u8], complete: bool, delimiter: u8) -> Option<Self> {
        let mut scanner = Scanner::new(delimiter);
        let mut records = Vec::new();
        while let Some(found) = scanner.next(text, complete) {
            if found.body > 0 {
                records.push((&text[..found.len], found));
            }
            text = &text[found.len..];
        }
        let mut records = records.into_iter();
        let (record, header) = records.next()?;
        Some(Self { delimiter, record, header, rest: records.collect() })
    }

    /// How many records of a million have as many cells as the header and no flaw.
    fn agreement(&self) -> usize {
        if self.rest.is_empty() {
            return 1_000_000;
        }
        let agree = |found: &Found| found.cells == self.header.cells && found.flaw.is_none();
        self.rest.iter().filter(|(_, found)| agree(found)).count() * 1_000_000 / self.rest.len()
    }

    fn layout(&self, hints: Hints, caps: &Caps) -> Result<Layout, Error> {
        let header = std::str::from_utf8(self.record).map_err(|error| {
            format_error(format!(
                "the header is not UTF-8 at its byte {}: save the file as UTF-8 (perhaps it is Latin-1, or no CSV at all)",
                error.valid_up_to()
            ))
        })?;
        if memchr(0, self.record).is_some() {
            return Err(format_error(
                "the header has NUL bytes: this is not a CSV file (or one in UTF-16: save it as UTF-8)",
            ));
        }
        self.check_header()?;
        if let Some(delimiter) = header.trim_end().strip_prefix("sep=").filter(|rest| rest.len() == 1) {
            return Err(format_error(format!(
                "the first line is the spreadsheet hint {:?}: remove it, and say input.delimiter {delimiter:?} if need be",
                header.trim_end()
            )));
        }
        if self.header.cells > caps.max_columns {
            return Err(Error::input(
                RefusalCode::InputTooLarge,
                format!("the header has {} columns, more than {}", self.header.cells, caps.max_columns),
            ));
        }
        let columns = raw_cells(self.record, self.delimiter)
            .map(|raw| cell_text(raw).map(std::borrow::Cow::into_owned))
            .collect::<Result<Vec<_>, _>>()?;
        check_names(&columns)?;
        let ending = match line_ending(self.record) {
            b"\r\n" => "\r\n",
            _ => "\n",
        };
        let dialect = CsvDialect {
            delimiter: char::from(self.delimiter),
            bom: hints.bom,
            header: header.to_owned(),
            quote_all: self.all_quoted(),
            line_ending: ending.to_owned(),
            gzip: hints.gzip,
        };
        Ok(Layout { dialect, columns })
    }

    fn check_header(&self) -> Result<(), Error> {
        Err(format_error(match self.header.flaw {
            None => return Ok(()),
            Some(Flaw::OpenQuote(at)) => format!("the header opens a quote at its byte {at} that is never closed"),
            Some(Flaw::TextAfterQuote(at)) => format!("the header has text after a closing quote at its byte {at}"),
            Some(Flaw::BareCarriageReturn(at)) => {
                format!(
                    "the header has a carriage return without a line feed at its byte {at}: end lines with LF or CRLF"
                )
            }
        }))
    }

    fn all_quoted(&self) -> bool {
        let quoted = |record: &[u8]| raw_cells(record, self.delimiter).all(|cell| cell.first() == Some(&b'"'));
        quoted(self.record) && self.rest.iter().all(|(record, _)| quoted(record))
    }
}

fn check_names(columns: &[String]) -> Result<(), Error> {
    if columns.iter().all(String::is_empty) && columns.len() == 1 {
        return Err(no_columns());
    }
    let mut seen = HashMap::new();
    for (index, name) in columns.iter().enumerate() {
        if let Some(earlier) = seen.insert(name, index) {
            return Err(Error::input(
                RefusalCode::DuplicateColumn,
                format!(
                    "columns {} and {} are both named {name:?}: rename one, for a template could not tell them apart",
                    earlier + 1,
                    index + 1
                ),
            ));
        }
    }
    Ok(())
}

fn no_columns() -> Error {
    Error::input(RefusalCode::InputEmpty, "the file has no columns: its first line must name them")
}

fn carriage_returns() -> Error {
    format_error("the file ends its lines with carriage returns alone: save it with LF or CRLF line endings")
}

fn format_error(message: impl Into<String>) -> Error {
    Error::input(RefusalCode::InputFormat, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HINTS: Hints = Hints { delimiter: None, prefer_tab: false, bom: false, gzip: false };

    fn layout(text: &str) -> Layout {
        find(text.as_bytes(), true, HINTS, &Caps::default()).unwrap().unwrap()
    }

    fn refused(text: &[u8]) -> RefusalCode {
        find(text, true, HINTS, &Caps::default()).unwrap_err().refusal().unwrap().code
    }

    #[test]
    fn each_usual_delimiter_is_found() {
        for delimiter in [',', ';', '\t', '|'] {
            let text = "a,b,c\n1,2,3\n".replace(',', &delimiter.to_string());
            let found = layout(&text);
            assert_eq!(found.dialect.delimiter, delimiter);
            assert_eq!(found.columns, ["a", "b", "c"]);
        }
    }

    #[test]
    fn a_decimal_comma_does_not_make_a_semicolon_file_a_comma_file() {
        assert_eq!(layout("a;b\n1,5;2,5\n3,5;4,5\n").dialect.delimiter, ';');
        assert_eq!(layout("Name, full;Age;City\n1,5;2;Paris\n").dialect.delimiter, ';');
    }

    #[test]
    fn delimiters_inside_quotes_do_not_count() {
        assert_eq!(layout("\"a;b;c;d\",e\n\"1;2;3;4\",2\n").dialect.delimiter, ',');
    }

    #[test]
    fn prose_with_commas_in_a_tab_file_does_not_mislead() {
        assert_eq!(layout("id, no\ttext\n1\tone, two, three\n2\tfour\n").dialect.delimiter, '\t');
    }

    #[test]
    fn one_column_is_a_comma_file_and_a_tab_file_where_the_name_says_so() {
        assert_eq!(layout("title\nx\n").dialect.delimiter, ',');
        let hints = Hints { prefer_tab: true, ..HINTS };
        let found = find(b"title\nx, y\n", true, hints, &Caps::default()).unwrap().unwrap();
        assert_eq!(found.dialect.delimiter, '\t');
    }

    #[test]
    fn a_named_delimiter_is_taken() {
        let hints = Hints { delimiter: Some(b':'), ..HINTS };
        let found = find(b"a:b,c\n", true, hints, &Caps::default()).unwrap().unwrap();
        assert_eq!(found.columns, ["a", "b,c"]);
        assert!(check_delimiter('"').is_err() && check_delimiter('é').is_err());
    }

    #[test]
    fn the_header_is_kept_as_it_stands_and_its_names_are_unquoted() {
        let found = layout("\n\r\n\"my \"\"x\"\"\", b\r\n\"1\",2\r\n");
        assert_eq!(found.dialect.header, "\"my \"\"x\"\"\", b\r\n");
        assert_eq!(found.dialect.line_ending, "\r\n");
        assert_eq!(found.columns, ["my \"x\"", " b"]);
        assert!(!found.dialect.quote_all);
    }

    #[test]
    fn a_file_that_quotes_every_cell_is_noticed() {
        assert!(layout("\"a\",\"b\"\n\"1\",\"\"\n").dialect.quote_all);
        assert!(!layout("\"a\",\"b\"\n\"1\",2\n").dialect.quote_all);
    }

    #[test]
    fn a_header_without_a_line_ending_is_the_whole_file() {
        let found = layout("a,b");
        assert_eq!((found.dialect.header.as_str(), found.dialect.line_ending.as_str()), ("a,b", "\n"));
    }

    #[test]
    fn one_nameless_column_is_allowed_beside_others_but_two_are_duplicates() {
        assert_eq!(layout("\"\",a\n1,2\n").columns, ["", "a"]);
        assert_eq!(refused(b",a,\n"), RefusalCode::DuplicateColumn);
    }

    #[test]
    fn broken_headers_are_refused_with_their_codes() {
        assert_eq!(refused(b""), RefusalCode::InputEmpty);
        assert_eq!(refused(b"\n\r\n\n"), RefusalCode::InputEmpty);
        assert_eq!(refused(b"\"\"\n"), RefusalCode::InputEmpty);
        assert_eq!(refused(b"a,b,a\n"), RefusalCode::DuplicateColumn);
        assert_eq!(refused(b"a,\"b\n1,2\n"), RefusalCode::InputFormat);
        assert_eq!(refused(b"a,\"b\"c\n1,2\n"), RefusalCode::InputFormat);
        assert_eq!(refused(b"a,b\r1,2\r"), RefusalCode::InputFormat);
        assert_eq!(refused(b"caf\xe9,b\n"), RefusalCode::InputFormat);
        assert_eq!(refused(b"a\0,b\n"), RefusalCode::InputFormat);
    }

    #[test]
    fn a_spreadsheets_hint_is_not_taken_for_a_header() {
        assert_eq!(refused(b"sep=;\na;b\n1;2\n"), RefusalCode::InputFormat);
        assert_eq!(layout("sep=;,b\n1,2\n").columns, ["sep=;", "b"]);
    }

    #[test]
    fn too_many_columns_are_refused() {
        let caps = Caps { max_columns: 2, ..Caps::default() };
        let error = find(b"a,b,c\n", true, HINTS, &caps).unwrap_err();
        assert_eq!(error.refusal().unwrap().code, RefusalCode::InputTooLarge);
    }

    #[test]
    fn a_header_that_has_not_ended_asks_for_more() {
        assert!(find(b"a,b", false, HINTS, &Caps::default()).unwrap().is_none());
    }
}
