//! Writing the answered CSV file: the caller's bytes with the answers spliced in.
//!
//! A row is its record without the line ending, then for each added column the delimiter and the answer, then the
//! record's own line ending (none, if the file's last row had none). Nothing of the caller's is parsed or written anew.
//!
//! How the added cells are quoted is in `quoting`.
//!
//! A malformed row comes back as it stood, with the answers behind whatever cells it has. The reader never gives a
//! record whose last quote is open (it refuses such a file), so no row here can swallow the next.
//!
//! The bytes are a function of the calls alone. A gzipped output is one member whose header has no time, name or
//! system, always at the same level.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use model::TableInfo;

use super::BOM;
use super::fields::delimiter;
use super::quoting::Quoting;
use super::records::line_ending;
use crate::input::Error;
use crate::result::{Cell, FinalRow};

/// The gzip header's code for an unknown operating system (RFC 1952, section 2.3.1).
const UNKNOWN_SYSTEM: u8 = 255;

/// What was taken is mostly followed by as much again, for which room is made at once: up to this.
const MOST_ROOM: usize = 4 << 20;

#[derive(Debug)]
enum Sink {
    Plain(Vec<u8>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

/// Writes an answered CSV file, step by step, into memory that the caller drains.
#[derive(Debug)]
pub struct CsvOutput {
    sink: Sink,
    /// A line before it is compressed.
    line: Vec<u8>,
    quoting: Quoting,
    bom: bool,
    header: Vec<u8>,
    added: Vec<String>,
}

impl CsvOutput {
    /// An output in the dialect of `info` with the `added` columns behind the caller's, gzipped or not.
    ///
    /// # Errors
    /// When `info` does not describe a CSV file.
    pub fn new(info: &TableInfo, added: &[&str], gzip: bool) -> Result<Self, Error> {
        let dialect = info.csv.as_ref().ok_or_else(|| Error::data("the table has no CSV dialect"))?;
        let sink = if gzip {
            let builder = GzBuilder::new().mtime(0).operating_system(UNKNOWN_SYSTEM);
            Sink::Gzip(Box::new(builder.write(Vec::new(), Compression::default())))
        } else {
            Sink::Plain(Vec::new())
        };
        Ok(Self {
            sink,
            line: Vec::new(),
            quoting: Quoting::new(delimiter(dialect)?, dialect.quote_all),
            bom: dialect.bom,
            header: dialect.header.clone().into_bytes(),
            added: added.iter().map(|&name| name.to_owned()).collect(),
        })
    }

    /// Writes the byte order mark, if the input has one, and the header. To be called once, first.
    ///
    /// # Errors
    /// Never for a sound encoder.
    pub fn header(&mut self) -> Result<(), Error> {
        if self.bom {
            self.write(BOM)?;
        }
        let header = std::mem::take(&mut self.header);
        let added = std::mem::take(&mut self.added);
        let names: Vec<Option<&str>> = added.iter().map(|name| Some(name.as_str())).collect();
        self.line(&header, &names)?;
        self.added = added;
        Ok(())
    }

    /// Writes one row: its record as the reader gave it, and one answer (or none) for each added column.
    ///
    /// # Errors
    /// When the number of answers is not that of the added columns.
    pub fn row(&mut self, record: &[u8], answers: &[Option<&str>]) -> Result<(), Error> {
        if answers.len() != self.added.len() {
            return Err(Error::data(format!("{} answers for {} added columns", answers.len(), self.added.len())));
        }
        self.line(record, answers)
    }

    /// Writes one row with how it ended: the first of its cells, as many as there are added columns.
    ///
    /// # Errors
    /// When there are more added columns than cells.
    pub fn answered(&mut self, record: &[u8], row: &FinalRow<'_>) -> Result<(), Error> {
        let cells = row.cells();
        let added = self.added.len();
        let cells = cells.get(..added).ok_or_else(|| Error::data(format!("12 answers for {added} added columns")))?;
        self.spliced(record, |line, quoting| quoting.cells(line, cells))
    }

    /// How many columns it adds.
    #[must_use]
    pub fn added(&self) -> usize {
        self.added.len()
    }

    /// Takes what is encoded so far.
    pub fn take(&mut self) -> Vec<u8> {
        match &mut self.sink {
            Sink::Plain(out) => {
                let room = out.len().min(MOST_ROOM);
                std::mem::replace(out, Vec::with_capacity(room + room / 16))
            }
            Sink::Gzip(encoder) => std::mem::take(encoder.get_mut()),
        }
    }

    /// How many bytes [`CsvOutput::take`] would give now.
    #[must_use]
    pub fn pending(&self) -> usize {
        match &self.sink {
            Sink::Plain(out) => out.len(),
            Sink::Gzip(encoder) => encoder.get_ref().len(),
        }
    }

    /// Ends the file and takes the rest of it.
    ///
    /// # Errors
    /// Never for a sound encoder.
    pub fn finish(self) -> Result<Vec<u8>, Error> {
        match self.sink {
            Sink::Plain(out) => Ok(out),
            Sink::Gzip(encoder) => encoder.finish().map_err(failed),
        }
    }

    fn line(&mut self, record: &[u8], cells: &[Option<&str>]) -> Result<(), Error> {
        self.spliced(record, |line, quoting| {
            for cell in cells {
                match cell {
                    Some(text) => quoting.cell(line, text),
                    None => quoting.cells(line, &[Cell::None]),
                }
            }
        })
    }

    /// Writes a record, and before its line ending what `cells` writes.
    fn spliced(&mut self, record: &[u8], cells: impl FnOnce(&mut Vec<u8>, &mut Quoting)) -> Result<(), Error> {
        let ending = line_ending(record);
        let line = match &mut self.sink {
            Sink::Plain(out) => out,
            Sink::Gzip(_) => &mut self.line,
        };
        line.extend_from_slice(&record[..record.len() - ending.len()]);
        cells(line, &mut self.quoting);
        line.extend_from_slice(ending);
        match &mut self.sink {
            Sink::Plain(_) => Ok(()),
            Sink::Gzip(encoder) => {
                let written = encoder.write_all(&self.line).map_err(failed);
                self.line.clear();
                written
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.sink {
            Sink::Plain(out) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Sink::Gzip(encoder) => encoder.write_all(bytes).map_err(failed),
        }
    }
}

fn failed(error: io::Error) -> Error {
    Error::data(format!("gzipping the output failed: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use model::table::{CsvDialect, FileKind};

    use super::*;

    fn info(header: &str, quote_all: bool, bom: bool) -> TableInfo {
        TableInfo {
            kind: FileKind::Csv,
            columns: vec!["a".into(), "b".into()],
            csv: Some(CsvDialect {
                delimiter: ',',
                bom,
                header: header.into(),
                quote_all,
                line_ending: "\n".into(),
                gzip: false,
            }),
            arrow_schema: None,
            codec: None,
        }
    }

    fn written(info: &TableInfo, rows: &[(&str, &str)]) -> String {
        let mut output = CsvOutput::new(info, &["response", "my, error"], false).unwrap();
        output.header().unwrap();
        for (record, answer) in rows {
            output.row(record.as_bytes(), &[Some(answer), None]).unwrap();
        }
        String::from_utf8(output.finish().unwrap()).unwrap()
    }

    #[test]
    fn each_record_keeps_its_own_bytes_and_line_ending() {
        let rows = [("007, x \r\n", "plain"), ("\"q\"\"\",\"\"\n", "a,b"), ("1,2", "say \"hi\"\nbye")];
        assert_eq!(
            written(&info("a,b\r\n", false, false), &rows),
            "a,b,response,\"my, error\"\r\n007, x ,plain,\r\n\"q\"\"\",\"\",\"a,b\",\n1,2,\"say \"\"hi\"\"\nbye\","
        );
    }

    #[test]
    fn a_file_that_quotes_all_gets_quoted_answers() {
        assert_eq!(
            written(&info("\"a\",\"b\"\n", true, false), &[("\"1\",\"2\"\n", "x")]),
            "\"a\",\"b\",\"response\",\"my, error\"\n\"1\",\"2\",\"x\",\n"
        );
    }

    #[test]
    fn no_answer_and_an_empty_answer_differ() {
        assert_eq!(written(&info("a,b\n", false, false), &[("1,2\n", "")]), "a,b,response,\"my, error\"\n1,2,\"\",\n");
    }

    #[test]
    fn the_byte_order_mark_is_kept_and_a_header_alone_has_no_line_ending() {
        assert_eq!(written(&info("a,b", false, true), &[]), "\u{feff}a,b,response,\"my, error\"");
    }

    #[test]
    fn gzipped_output_is_the_same_bytes_however_it_is_drained() {
        let info = info("a,b\n", false, false);
        let run = |often: bool| {
            let mut output = CsvOutput::new(&info, &["response"], true).unwrap();
            output.header().unwrap();
            let mut out = Vec::new();
            for i in 0..20_000 {
                output.row(format!("{i},{}\n", i * 7919 % 1000).as_bytes(), &[Some("yes")]).unwrap();
                if often {
                    out.extend(output.take());
                }
            }
            out.extend(output.finish().unwrap());
            out
        };
        let data = run(true);
        assert_eq!(data, run(false));
        assert_eq!(data[4..10], [0, 0, 0, 0, 0, UNKNOWN_SYSTEM], "no time, no system");
        let mut text = String::new();
        GzDecoder::new(data.as_slice()).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("a,b,response\n0,0,yes\n1,919,yes\n"), "{}", &text[..60]);
        assert_eq!(text.lines().count(), 20_001);
    }

    #[test]
    fn a_wrong_number_of_answers_is_an_error() {
        let mut output = CsvOutput::new(&info("a,b\n", false, false), &["response"], false).unwrap();
        assert!(output.row(b"1,2\n", &[]).is_err());
    }
}
