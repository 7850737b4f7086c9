//! What a file is: CSV or Parquet, in which dialect, with which columns.
//!
//! The content decides, and a name that promises something else is an error rather than a guess; `input.format` and
//! `input.delimiter` overrule the name. For CSV the first 64 KiB of text are looked at (more while the header has not
//! ended, up to the record cap); for Parquet the footer.

use std::ops::Range;

use bytes::Bytes;
use model::spec::FileFormat;
use model::table::FileKind;
use model::{RefusalCode, TableInfo};

use crate::csv::{self, BOM, Fill, Hints, TextStream};
use crate::input::{Caps, Error};
use crate::parquet_in::{Described, ParquetOpener};

/// How much of a file's beginning, and of a CSV file's text, is looked at.
const SAMPLE: usize = 64 << 10;

/// What an opener wants or has.
#[derive(Debug)]
pub enum OpenStep {
    /// These bytes of the file are needed: push each range, then step again.
    Need(Vec<Range<u64>>),
    /// The file's layout.
    Done(TableInfo),
}

/// Finds out what a file is. Used like a [`crate::Decoder`]: step, push what is needed, step again.
#[derive(Debug)]
pub struct Opener {
    name: String,
    bytes: u64,
    format: Option<FileFormat>,
    delimiter: Option<char>,
    caps: Caps,
    state: State,
}

#[derive(Debug)]
enum State {
    Head(Option<Bytes>),
    Csv { stream: TextStream, text: Vec<u8>, complete: bool, want: usize, gzip: bool },
    Parquet(ParquetOpener),
}

impl Opener {
    /// An opener for the file called `name`, which has `bytes` bytes. `format` and `delimiter` are what the caller
    /// says, if anything.
    #[must_use]
    pub fn new(name: &str, bytes: u64, format: Option<FileFormat>, delimiter: Option<char>, caps: Caps) -> Self {
        Self { name: name.to_ascii_lowercase(), bytes, format, delimiter, caps, state: State::Head(None) }
    }

    /// Goes on as far as the pushed bytes allow.
    ///
    /// # Errors
    /// When the file can't be used: empty, of another format, without columns, with two columns of one name, corrupt,
    /// or over a cap.
    pub fn step(&mut self) -> Result<OpenStep, Error> {
        if let State::Head(head) = &self.state {
            if self.bytes == 0 {
                return Err(Error::input(RefusalCode::InputEmpty, "the file is empty: it has no bytes"));
            }
            match head {
                None => {
                    let range = 0..self.bytes.min(SAMPLE as u64);
                    return Ok(OpenStep::Need(vec![range]));
                }
                Some(head) => self.state = self.recognise(head.clone())?,
            }
        }
        match &mut self.state {
            State::Parquet(opener) => Ok(match opener.step()? {
                Described::Need(range) => OpenStep::Need(vec![range]),
                Described::Table(info) => OpenStep::Done(info),
            }),
            State::Csv { .. } => self.sample(),
            State::Head(_) => Err(Error::data("an opener that was not given the head of the file")),
        }
    }

    /// Hands over the bytes of one range that was asked for.
    pub fn push(&mut self, range: Range<u64>, data: Bytes) {
        match &mut self.state {
            State::Head(head) => *head = Some(data),
            State::Csv { stream, .. } => stream.push(range, data),
            State::Parquet(opener) => opener.push(&range, data),
        }
    }

    /// Decides by the head which of the two readers looks on.
    fn recognise(&self, head: Bytes) -> Result<State, Error> {
        let said = self.format.or_else(|| FileFormat::from_name(&self.name));
        let parquet = head.starts_with(b"PAR1");
        if head.starts_with(b"PARE") {
            return Err(format_error(
                "it is an encrypted Parquet file, which is not supported: write it without encryption",
            ));
        }
        match (parquet, said) {
            (true, None | Some(FileFormat::Parquet)) => {
                return Ok(State::Parquet(ParquetOpener::new(self.bytes, self.caps)));
            }
            (true, Some(_)) => {
                return Err(format_error("it is a Parquet file, not CSV: name it so, or say input.format"));
            }
            (false, Some(FileFormat::Parquet)) => {
                return Err(format_error("it is not a Parquet file: it does not begin with PAR1"));
            }
            (false, _) => {}
        }
        let gzip = head.starts_with(b"\x1f\x8b");
        if !gzip && (self.format == Some(FileFormat::CsvGz) || (self.format.is_none() && self.name.ends_with(".gz"))) {
            return Err(format_error(
                "it is not gzipped, though its name or format says so: say input.format \"csv\" if it is CSV",
            ));
        }
        let json = [".json", ".jsonl", ".ndjson"].iter().any(|ending| self.name.ends_with(ending));
        if json && self.format.is_none() {
            return Err(format_error(
                "it is named like JSON: convert it to CSV or Parquet, or say input.format \"csv\" if it is CSV",
            ));
        }
        let caps = Caps { read_bytes: self.caps.read_bytes.min(SAMPLE as u64), ..self.caps };
        let mut stream = TextStream::new(self.bytes, 0, gzip, &caps);
        let end = head.len() as u64;
        if end != self.bytes.min(SAMPLE as u64) {
            return Err(Error::data(format!("an opener was given {end} bytes for the head of {} bytes", self.bytes)));
        }
        stream.push(0..end, head);
        Ok(State::Csv { stream, text: Vec::new(), complete: false, want: SAMPLE, gzip })
    }

    /// Gathers text until the layout shows.
    fn sample(&mut self) -> Result<OpenStep, Error> {
        let delimiter = self.said_delimiter()?;
        let prefer_tab = [".tsv", ".tsv.gz"].iter().any(|ending| self.name.ends_with(ending));
        let State::Csv { stream, text, complete, want, gzip } = &mut self.state else {
            return Err(Error::data("an opener that is not at a CSV file"));
        };
        loop {
            while text.len() < *want && !*complete {
                let missing = *want - text.len();
                match stream.fill(text, missing)? {
                    Fill::Some => {}
                    Fill::Need(range) => return Ok(OpenStep::Need(vec![range])),
                    Fill::End => *complete = true,
                }
            }
            let bom = text.starts_with(BOM);
            let body = if bom { &text[BOM.len()..] } else { text.as_slice() };
            let hints = Hints { delimiter, prefer_tab, bom, gzip: *gzip };
            check_text(text)?;
            if let Some(found) = csv::find(body, *complete, hints, &self.caps)? {
                return Ok(OpenStep::Done(TableInfo {
                    kind: FileKind::Csv,
                    columns: found.columns,
                    csv: Some(found.dialect),
                    arrow_schema: None,
                    codec: None,
                }));
            }
            if *want > self.caps.max_record_bytes {
                return Err(Error::input(
                    RefusalCode::InputTooLarge,
                    format!("the header is longer than {} bytes: is this a CSV file?", self.caps.max_record_bytes),
                ));
            }
            *want = want.saturating_mul(2).min(self.caps.max_record_bytes + 1);
        }
    }

    fn said_delimiter(&self) -> Result<Option<u8>, Error> {
        match (self.delimiter, self.format) {
            (Some(delimiter), _) => csv::check_delimiter(delimiter).map(Some),
            (None, Some(FileFormat::Tsv)) => Ok(Some(b'\t')),
            (None, _) => Ok(None),
        }
    }
}

/// Refuses what its first bytes show to be no UTF-8 text. None of these can begin a CSV file.
fn check_text(text: &[u8]) -> Result<(), Error> {
    const KNOWN: [(&[u8], &str); 8] = [
        (b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
        (b"\xfe\xff", "UTF-16 text: save it as UTF-8"),
        (b"PAR1", "a gzipped Parquet file: gunzip it, Parquet is compressed inside"),
        (b"\x1f\x8b", "gzipped twice: gunzip it once"),
        (b"PK\x03\x04", "a zip archive, perhaps an .xlsx workbook: save it as CSV"),
        (b"\x28\xb5\x2f\xfd", "compressed with Zstandard: decompress it, or use gzip"),
        (b"\xfd7zXZ", "compressed with xz: decompress it, or use gzip"),
        (b"Obj\x01", "an Avro file: convert it to CSV or Parquet"),
    ];
    match KNOWN.iter().find(|(magic, _)| text.starts_with(magic)) {
        Some((_, what)) => Err(format_error(format!("it is neither CSV nor Parquet, but {what}"))),
        None => Ok(()),
    }
}

fn format_error(message: impl Into<String>) -> Error {
    Error::input(RefusalCode::InputFormat, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, file: &[u8], format: Option<FileFormat>) -> Result<TableInfo, Error> {
        let mut opener = Opener::new(name, file.len() as u64, format, None, Caps::default());
        loop {
            match opener.step()? {
                OpenStep::Done(info) => return Ok(info),
                OpenStep::Need(ranges) => {
                    for range in ranges {
                        let data = Bytes::copy_from_slice(&file[range.start as usize..range.end as usize]);
                        opener.push(range, data);
                    }
                }
            }
        }
    }

    fn refused(name: &str, file: &[u8], format: Option<FileFormat>) -> (RefusalCode, String) {
        let error = open(name, file, format).unwrap_err();
        let refusal = error.refusal().unwrap();
        (refusal.code, refusal.message.clone())
    }

    #[test]
    fn an_empty_file_is_refused_as_empty() {
        assert_eq!(refused("x.csv", b"", None).0, RefusalCode::InputEmpty);
        assert_eq!(refused("x.csv", b"\xEF\xBB\xBF", None).0, RefusalCode::InputEmpty);
        assert_eq!(refused("x.csv", b"\r\n\r\n", None).0, RefusalCode::InputEmpty);
    }

    #[test]
    fn a_name_that_promises_another_format_is_refused() {
        let (code, message) = refused("x.parquet", b"a,b\n1,2\n", None);
        assert_eq!(code, RefusalCode::InputFormat);
        assert!(message.contains("not a Parquet file"), "{message}");
        assert_eq!(refused("x.csv", b"PAR1rest", None).0, RefusalCode::InputFormat);
        assert_eq!(refused("x.csv.gz", b"a,b\n", None).0, RefusalCode::InputFormat);
        assert_eq!(refused("x.csv", b"a,b\n", Some(FileFormat::CsvGz)).0, RefusalCode::InputFormat);
        assert_eq!(refused("x.jsonl", b"{\"a\": 1}\n", None).0, RefusalCode::InputFormat);
    }

    #[test]
    fn what_the_caller_says_overrules_the_name() {
        assert_eq!(open("x.parquet", b"a,b\n", Some(FileFormat::Csv)).unwrap().columns, ["a", "b"]);
        assert_eq!(open("x.csv.gz", b"a,b\n", Some(FileFormat::Csv)).unwrap().columns, ["a", "b"]);
        assert_eq!(open("x.txt", b"a,b\tc\n", Some(FileFormat::Tsv)).unwrap().columns, ["a,b", "c"]);
    }

    #[test]
    fn other_encodings_and_containers_are_named() {
        for (file, word) in [
            (b"\xff\xfea\0,\0b\0\n\0".as_slice(), "UTF-16"),
            (b"a\0,\0b\0\n\0", "NUL"),
            (b"PK\x03\x04\x14\0", ".xlsx"),
            (b"\x28\xb5\x2f\xfd\x04", "Zstandard"),
            (b"caf\xe9,b\n1,2\n", "UTF-8"),
        ] {
            let (code, message) = refused("x.csv", file, None);
            assert_eq!(code, RefusalCode::InputFormat);
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn a_header_longer_than_the_sample_is_read_and_one_longer_than_the_cap_is_refused() {
        let header: Vec<String> = (0..9_000).map(|i| format!("\"a column with number {i}\"")).collect();
        let file = format!("{}\n", header.join(",")).into_bytes();
        assert!(file.len() > 3 * SAMPLE);
        assert_eq!(open("x.csv", &file, None).unwrap().columns.len(), 9_000);
        assert_eq!(refused("x.csv", &vec![b'x'; 17 << 20], None).0, RefusalCode::InputTooLarge);
        let mut open_quote = b"a,\"b\n".to_vec();
        open_quote.extend(b"1,2\n".repeat(5 << 20));
        assert_eq!(refused("x.csv", &open_quote, None).0, RefusalCode::InputTooLarge);
    }

    #[test]
    fn a_tab_file_is_known_by_its_name_and_a_mark_is_noticed() {
        let info = open("X.TSV", b"\xEF\xBB\xBFa, b\tc\n1, 2\t3\n", None).unwrap();
        let dialect = info.csv.unwrap();
        assert_eq!((dialect.delimiter, dialect.bom, dialect.header.as_str()), ('\t', true, "a, b\tc\n"));
    }
}
