//! The CSV reader: text in, chunks of records out.
//!
//! Where a chunk ends depends on the records alone (see [`Caps::chunk_bytes`]), never on how the bytes arrived. Besides
//! one chunk, the reader holds at most one record's beginning and one pushed piece.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use memchr::{memchr, memchr_iter};
use model::{FailureKind, RefusalCode, TableInfo};

use super::cells::Cells;
use super::fields::{delimiter, raw_cells};
use super::records::{Flaw, Found, Scanner};
use super::sweep::{Swept, sweep};
use super::{BOM, Fill, RECORD, TextStream};
use crate::input::{Caps, Chunk, Ended, Error, Position, RowFault, Step};

/// Reads the records of a CSV file.
#[derive(Debug)]
pub struct CsvDecoder {
    caps: Caps,
    columns: usize,
    /// The header record that must come first; `None` once it has, or when resumed behind it.
    header: Option<Header>,
    stream: TextStream,
    /// Text that inflating from the start must pass over before a resumed position.
    skip: u64,
    text: Vec<u8>,
    complete: bool,
    delimiter: u8,
    scanner: Scanner,
    /// Whether the scanner is inside a record.
    scanning: bool,
    /// In `text`: where the record being scanned begins.
    cursor: usize,
    /// What is at the front of `text`, and where the current chunk begins.
    start: Position,
    spans: Vec<Span>,
    /// In `text`: where the cells of the spans end.
    ends: Vec<u32>,
    schema: SchemaRef,
}

#[derive(Debug)]
struct Header {
    bom: bool,
    record: String,
}

/// A record of the current chunk, in `text`.
#[derive(Debug)]
struct Span {
    start: usize,
    end: usize,
    cells: usize,
    /// How many ends of cells there are up to and with its own.
    ends: usize,
    flaw: Option<Flaw>,
}

impl CsvDecoder {
    /// Opens a file of `bytes` bytes at its beginning, or where an earlier reader's chunk ended.
    ///
    /// # Errors
    /// When `info` does not describe a CSV file, or the caps allow chunks that Arrow's 32-bit offsets can't hold.
    pub fn open(info: &TableInfo, bytes: u64, caps: Caps, resume: Option<Position>) -> Result<Self, Error> {
        let dialect = info.csv.as_ref().ok_or_else(|| Error::data("the table has no CSV dialect"))?;
        if caps.chunk_bytes.saturating_add(caps.max_record_bytes) > i32::MAX as usize {
            return Err(Error::data("chunk_bytes and max_record_bytes must stay below 2 GiB together"));
        }
        let start = resume.unwrap_or_default();
        let header = (start.byte == 0).then(|| Header { bom: dialect.bom, record: dialect.header.clone() });
        let (from, skip) = if dialect.gzip { (0, start.byte) } else { (start.byte, 0) };
        if from > bytes {
            return Err(changed(&format!("a split stopped at byte {from}, but the file has only {bytes}")));
        }
        let delimiter = delimiter(dialect)?;
        let field = Field::new(RECORD, DataType::Binary, false);
        Ok(Self {
            caps,
            columns: info.columns.len(),
            header,
            stream: TextStream::new(bytes, from, dialect.gzip, &caps),
            skip,
            text: Vec::new(),
            complete: false,
            delimiter,
            scanner: Scanner::new(delimiter),
            scanning: false,
            cursor: 0,
            start,
            spans: Vec::new(),
            ends: Vec::new(),
            schema: Arc::new(Schema::new(vec![field])),
        })
    }

    /// Takes the bytes of a range that a step asked for.
    pub fn push(&mut self, range: Range<u64>, data: Bytes) {
        self.stream.push(range, data);
    }

    /// Goes on as far as the pushed bytes allow.
    ///
    /// # Errors
    /// When the file can't be used: it changed since it was described, its gzip stream is corrupt, a record is over the
    /// cap, or a quote is never closed.
    pub fn step(&mut self) -> Result<Step, Error> {
        loop {
            if self.skip == 0 && self.header_is_past()? && self.scan()? {
                return self.chunk().map(Step::Rows);
            }
            if self.complete {
                if self.skip > 0 || self.header.is_some() {
                    return Err(changed("the file ends before the place that was read before"));
                }
                return Ok(Step::End(Ended { rows: self.start.row }));
            }
            match self.stream.fill(&mut self.text, self.caps.chunk_bytes.max(1))? {
                Fill::Some => self.pass_over(),
                Fill::Need(range) => return Ok(Step::Need(vec![range])),
                Fill::End => self.complete = true,
            }
        }
    }

    /// Drops inflated text that lies before a resumed position.
    fn pass_over(&mut self) {
        if self.skip > 0 {
            let count = self.text.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.text.drain(..count);
            self.skip -= count as u64;
        }
    }

    /// Reads the byte order mark, blank lines and the header; says whether they are behind.
    fn header_is_past(&mut self) -> Result<bool, Error> {
        let Some(header) = &self.header else { return Ok(true) };
        if self.cursor == 0 && header.bom {
            if self.text.len() < BOM.len() && !self.complete {
                return Ok(false);
            }
            if !self.text.starts_with(BOM) {
                return Err(changed("its byte order mark is gone"));
            }
            self.cursor = BOM.len();
        }
        loop {
            let Some(found) = self.scanner.next(&self.text[self.cursor..], self.complete) else {
                self.check_length(self.text.len() - self.cursor)?;
                return Ok(false);
            };
            let record = self.cursor..self.cursor + found.len;
            self.cursor = record.end;
            self.check_length(self.cursor)?;
            if found.body > 0 {
                if self.text[record] != *header.record.as_bytes() {
                    return Err(changed("its header is another"));
                }
                self.header = None;
                self.advance();
                return Ok(true);
            }
        }
    }

    /// Scans records until the chunk is full or the text is used up; says whether a chunk is ready.
    fn scan(&mut self) -> Result<bool, Error> {
        loop {
            if self.spans.len() >= self.caps.chunk_rows.max(1) || self.cursor >= self.caps.chunk_bytes.max(1) {
                if !self.spans.is_empty() {
                    return Ok(true);
                }
                // Nothing but blank lines: they must not pile up.
                self.advance();
            }
            if !self.scanning && self.sweep()? {
                continue;
            }
            let Some(found) = self.scanner.next(&self.text[self.cursor..], self.complete) else {
                self.scanning = self.cursor < self.text.len();
                self.check_length(self.text.len() - self.cursor)?;
                return Ok(self.complete && !self.spans.is_empty());
            };
            self.scanning = false;
            self.check_length(found.len)?;
            self.take(found)?;
        }
    }

    /// Takes the usual records that come next, as far as the chunk has room; says whether there were any.
    fn sweep(&mut self) -> Result<bool, Error> {
        let (from, spans) = (self.cursor, &mut self.spans);
        let (most, most_rows) = (self.caps.chunk_bytes.max(1), self.caps.chunk_rows.max(1));
        let (mut ends, longest, mut too_long) = (self.ends.len(), self.caps.max_record_bytes, None);
        let take = |Swept { start, end, cells }| {
            if end - start > longest {
                too_long = Some(start);
                return false;
            }
            ends += cells;
            spans.push(Span { start, end, cells, ends, flaw: None });
            spans.len() < most_rows
        };
        self.cursor = sweep(&self.text, from, self.delimiter, most, &mut self.ends, take);
        match too_long {
            Some(start) => Err(self.too_long(&self.place(self.spans.len(), start))),
            None => Ok(self.cursor > from),
        }
    }

    fn take(&mut self, found: Found) -> Result<(), Error> {
        let start = self.cursor;
        if let Some(Flaw::OpenQuote(at)) = found.flaw {
            let message = format!(
                "{} opens a quote at byte {} that is never closed. Close it, or double it if it is meant as text",
                self.place(self.spans.len(), start),
                self.start.byte + (start + at) as u64
            );
            return Err(Error::input(RefusalCode::BadRow, message));
        }
        self.cursor += found.len;
        if found.body > 0 {
            let mut at = start;
            for cell in raw_cells(&self.text[start..self.cursor], self.delimiter) {
                // Texts stay below 2 GiB: see `open`.
                self.ends.push(u32::try_from(at + cell.len()).unwrap_or(u32::MAX));
                at += cell.len() + 1;
            }
            let (end, ends) = (self.cursor, self.ends.len());
            self.spans.push(Span { start, end, cells: found.cells, ends, flaw: found.flaw });
        }
        Ok(())
    }

    fn check_length(&self, length: usize) -> Result<(), Error> {
        if length <= self.caps.max_record_bytes {
            return Ok(());
        }
        let place =
            if self.header.is_some() { "the header".to_owned() } else { self.place(self.spans.len(), self.cursor) };
        Err(self.too_long(&place))
    }

    fn too_long(&self, place: &str) -> Error {
        Error::input(
            RefusalCode::InputTooLarge,
            format!(
                "{place} is longer than {} bytes. Is there a quote in it that is never closed?",
                self.caps.max_record_bytes
            ),
        )
    }

    /// `row 12 (line 14, byte 345)`: the record that is `row`th of the chunk and begins at `at` of the text.
    fn place(&self, row: usize, at: usize) -> String {
        self.place_on(self.start.line + line_feeds(&self.text[..at]), row, at)
    }

    /// The same, where it is known how many line feeds stand before the record.
    fn place_on(&self, line: u64, row: usize, at: usize) -> String {
        let (row, byte) = (self.start.row + row as u64 + 1, self.start.byte + at as u64);
        format!("row {row} (line {}, byte {byte})", line + 1)
    }

    fn chunk(&mut self) -> Result<Chunk, Error> {
        let (first_row, offsets, lines) = (self.start.row, self.offsets()?, line_feeds(&self.text[..self.cursor]));
        let whole = self.spans.first().is_some_and(|span| span.start == 0) && {
            let mut pairs = self.spans.windows(2);
            pairs.all(|pair| matches!(pair, [before, behind] if before.end == behind.start))
        };
        let values = if whole { self.split_off() } else { self.gather() };
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        // One look at the whole chunk clears nearly every file: records end at line feeds, so a chunk is valid UTF-8
        // exactly if each of its records is.
        let clean = StringArray::try_new(offsets.clone(), values.clone(), None).ok();
        let clean = clean.filter(|_| memchr(0, &values).is_none());
        let faults = self.faults(if whole { &values } else { &self.text }, clean.is_some());
        let records = BinaryArray::try_new(offsets, values, None)?;
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::new(records) as ArrayRef])?;
        let ends = std::mem::take(&mut self.ends);
        let counts = self.spans.iter().map(|span| span.ends);
        let cells = clean.filter(|_| whole).map(|text| Box::new(Cells::new(text, ends, counts)));
        self.start.row += self.spans.len() as u64;
        self.spans.clear();
        if whole {
            (self.start.byte, self.start.line) = (self.start.byte + self.cursor as u64, self.start.line + lines);
            self.cursor = 0;
        } else {
            self.advance();
        }
        Ok(Chunk { first_row, rows, faults, end: self.start, cells })
    }

    /// Where the chunk's records begin and end, one behind the other.
    fn offsets(&self) -> Result<Vec<i32>, Error> {
        let mut offsets = Vec::with_capacity(self.spans.len() + 1);
        let mut length = 0usize;
        offsets.push(0);
        for span in &self.spans {
            length += span.end - span.start;
            offsets.push(i32::try_from(length).map_err(|_| Error::data("a chunk is over 2 GiB"))?);
        }
        Ok(offsets)
    }

    /// The chunk's records, which are all of the text up to the cursor, or up to blank lines before it. The text goes on
    /// with what stands behind the cursor.
    fn split_off(&mut self) -> Buffer {
        let rest = &self.text[self.cursor..];
        let mut text = Vec::with_capacity(rest.len() + self.caps.chunk_bytes);
        text.extend_from_slice(rest);
        let mut values = std::mem::replace(&mut self.text, text);
        values.truncate(self.spans.last().map_or(0, |span| span.end));
        Buffer::from_vec(values)
    }

    /// The chunk's records, copied together without the blank lines between them.
    fn gather(&self) -> Buffer {
        let mut values = Vec::with_capacity(self.cursor);
        for span in &self.spans {
            values.extend_from_slice(&self.text[span.start..span.end]);
        }
        Buffer::from_vec(values)
    }

    fn faults(&self, text: &[u8], clean: bool) -> Vec<RowFault> {
        let suspect = |span: &&Span| !clean || span.flaw.is_some() || span.cells != self.columns;
        let mut faults = Vec::new();
        let (mut line, mut counted) = (self.start.line, 0);
        for (row, span) in self.spans.iter().enumerate().filter(|(_, span)| suspect(span)) {
            if let Some(what) = self.fault(text, span) {
                line += line_feeds(&text[counted..span.start]);
                counted = span.start;
                let message = format!("{} {what}", self.place_on(line, row, span.start));
                faults.push(RowFault { row, kind: FailureKind::BadRow, message });
            }
        }
        faults
    }

    fn fault(&self, text: &[u8], span: &Span) -> Option<String> {
        let record = &text[span.start..span.end];
        let byte = |at: usize| self.start.byte + (span.start + at) as u64;
        if let Err(error) = std::str::from_utf8(record) {
            return Some(format!("is not UTF-8 at byte {}", byte(error.valid_up_to())));
        }
        if let Some(at) = memchr(0, record) {
            return Some(format!("has a NUL byte at byte {}", byte(at)));
        }
        match span.flaw {
            Some(Flaw::TextAfterQuote(at)) => {
                return Some(format!("has text after a closing quote at byte {}", byte(at)));
            }
            Some(Flaw::BareCarriageReturn(at)) => {
                return Some(format!("has a carriage return without a line feed at byte {}", byte(at)));
            }
            Some(Flaw::OpenQuote(_)) | None => {}
        }
        (span.cells != self.columns).then(|| {
            let plural = if span.cells == 1 { "" } else { "s" };
            format!("has {} cell{plural}, the header has {}", span.cells, self.columns)
        })
    }

    /// Forgets the text before the cursor.
    fn advance(&mut self) {
        self.start.byte += self.cursor as u64;
        self.start.line += line_feeds(&self.text[..self.cursor]);
        self.text.drain(..self.cursor);
        self.ends.clear();
        self.cursor = 0;
    }
}

fn line_feeds(text: &[u8]) -> u64 {
    memchr_iter(b'\n', text).count() as u64
}

fn changed(what: &str) -> Error {
    Error::input(RefusalCode::InputChanged, format!("the input changed while it was read: {what}. Submit it again"))
}
