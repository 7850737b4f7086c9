//! The Parquet reader: the caller's rows in their Arrow types, a chunk at a time.
//!
//! What it promises:
//! - Any type that Arrow can read from Parquet is carried as it is, nested and dictionary types too. The file's own
//!   Arrow schema (`ARROW:schema`) is honoured, so that time zones, large text and dictionaries come back alike.
//! - It asks for the footer, then for the column chunks of one row group after the other: memory is one row group, as
//!   compressed as the file has it, and one chunk of rows.
//! - Caps stand before the decoder ([`Caps`]): footer, columns, and what a row group says that it needs uncompressed.
//!   A footer whose claims contradict one another or the file is refused, and a panic of the Parquet library on a broken
//!   page is a refusal of the file, never the end of the process.
//! - A reader resumed at row *n* skips whole row groups without reading them and gives what the first one would have.
//!
//! Chunks are cut by what a row needs on average, as the footer says it, and then by what the decoded rows really take.
//! What is deliberately missing: encrypted files, files in several parts, and predicates; every row is wanted here.

mod footer;
mod guard;
pub mod schema;

use std::collections::VecDeque;
use std::ops::Range;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use model::{RefusalCode, TableInfo};
use parquet::DecodeResult;
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::errors::ParquetError;

use crate::batch::size;
use crate::{Caps, Chunk, Ended, Error, Position, Step};
pub(crate) use footer::{Footer, FooterReader, metadata_bytes};
use footer::{corrupt, decoded_bytes};
pub(crate) use guard::guarded;

/// Finds out what a Parquet file is made of: its footer, fetched and checked.
#[derive(Debug)]
pub struct ParquetOpener(FooterReader);

/// What a [`ParquetOpener`] wants or has.
#[derive(Debug)]
pub enum Described {
    /// This range of the file is needed: push it, then step again.
    Need(Range<u64>),
    /// The table.
    Table(TableInfo),
}

impl ParquetOpener {
    /// Begins with a file of `file_bytes` bytes.
    #[must_use]
    pub fn new(file_bytes: u64, caps: Caps) -> Self {
        Self(FooterReader::open(file_bytes, caps))
    }

    /// Goes on as far as the pushed bytes allow.
    ///
    /// # Errors
    /// A refusal when the file is no Parquet file (`input_format`), is broken (`input_corrupt`), breaks a cap
    /// (`input_too_large`), has no columns (`input_empty`) or two of one name (`duplicate_column`).
    pub fn step(&mut self) -> Result<Described, Error> {
        Ok(match self.0.step()? {
            Ok(footer) => Described::Table(footer.table_info()),
            Err(range) => Described::Need(range),
        })
    }

    /// Hands over the bytes of the range that was asked for.
    pub fn push(&mut self, range: &Range<u64>, data: Bytes) {
        self.0.push(range, data);
    }
}

/// Reads the rows of a Parquet file.
#[derive(Debug)]
pub struct ParquetDecoder {
    info: TableInfo,
    caps: Caps,
    next_row: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The footer is being fetched.
    Footer(FooterReader),
    /// Rows are being decoded.
    Rows(Box<Rows>),
    /// An error was given out.
    Failed,
}

#[derive(Debug)]
struct Rows {
    decoder: ParquetPushDecoder,
    total: u64,
    /// What the decoder waits for, as it asked for it.
    wanted: Vec<Range<u64>>,
    /// What was pushed since.
    pushed: Vec<(Range<u64>, Bytes)>,
    /// Decoded rows that are still to be given, in order.
    decoded: VecDeque<RecordBatch>,
}

impl ParquetDecoder {
    /// Opens a file of `bytes` bytes that a [`ParquetOpener`] has described, at its beginning or at `resume`.
    ///
    /// # Errors
    /// When the description is not that of a Parquet file.
    pub fn open(info: &TableInfo, bytes: u64, caps: Caps, resume: Option<Position>) -> Result<Self, Error> {
        if info.arrow_schema.is_none() {
            return Err(Error::data("the description of the Parquet input has no Arrow schema"));
        }
        let next_row = resume.map_or(0, |position| position.row);
        Ok(Self { info: info.clone(), caps, next_row, state: State::Footer(FooterReader::open(bytes, caps)) })
    }

    /// Goes on as far as the pushed bytes allow.
    ///
    /// # Errors
    /// A refusal when the file is broken, breaks a cap, or is not the one that was described (`input_changed`). Every
    /// later step fails too.
    pub fn step(&mut self) -> Result<Step, Error> {
        let stepped = self.advance();
        if stepped.is_err() {
            self.state = State::Failed;
        }
        stepped
    }

    /// Hands over the bytes of one range that was asked for.
    pub fn push(&mut self, range: Range<u64>, data: Bytes) {
        match &mut self.state {
            State::Footer(footer) => footer.push(&range, data),
            State::Rows(rows) => rows.pushed.push((range, data)),
            State::Failed => {}
        }
    }

    fn advance(&mut self) -> Result<Step, Error> {
        loop {
            match &mut self.state {
                State::Failed => return Err(Error::data("the Parquet reader was stepped again after an error")),
                State::Footer(footer) => match footer.step()? {
                    Err(range) => return Ok(Step::Need(vec![range])),
                    Ok(footer) => self.state = State::Rows(Box::new(self.start(&footer)?)),
                },
                State::Rows(rows) => {
                    return match rows.next(&self.caps, self.next_row)? {
                        Next::Need(ranges) => Ok(Step::Need(ranges)),
                        Next::End => end(rows.total, self.next_row),
                        Next::Rows(batch) => {
                            let first_row = self.next_row;
                            self.next_row += batch.num_rows() as u64;
                            let end = Position { row: self.next_row, ..Position::default() };
                            Ok(Step::Rows(Chunk { first_row, rows: batch, faults: Vec::new(), end, cells: None }))
                        }
                    };
                }
            }
        }
    }

    /// Plans the reading from the footer on.
    fn start(&self, footer: &Footer) -> Result<Rows, Error> {
        if self.info.arrow_schema.as_deref() != Some(schema::encode(footer.schema()).as_str()) {
            return Err(Error::input(
                RefusalCode::InputChanged,
                "the Parquet file's columns are not those that were found at first: it changed while it was read",
            ));
        }
        if self.next_row > footer.rows {
            return Err(Error::data(format!(
                "can't go on at row {}: the file has {} rows",
                self.next_row, footer.rows
            )));
        }
        let metadata = footer.arrow.metadata();
        let (mut groups, mut skip, mut rows_a_chunk) = (Vec::new(), self.next_row, self.caps.chunk_rows.max(1));
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let rows = u64::try_from(group.num_rows()).unwrap_or(0);
            if rows == 0 || (groups.is_empty() && skip >= rows) {
                skip = skip.saturating_sub(rows);
                continue;
            }
            groups.push(number);
            let fitting = (self.caps.chunk_bytes as u64).saturating_mul(rows) / decoded_bytes(group).max(1);
            rows_a_chunk = rows_a_chunk.min(usize::try_from(fitting).unwrap_or(usize::MAX)).max(1);
        }
        let skip = usize::try_from(skip).map_err(|_| Error::data("the row to go on at does not fit this machine"))?;
        let builder = ParquetPushDecoderBuilder::new_with_metadata(footer.arrow.clone()).with_batch_size(rows_a_chunk);
        let decoder = guarded(|| builder.with_row_groups(groups).with_offset(skip).build())
            .map_err(|error| unreadable(&error, self.next_row))?;
        Ok(Rows { decoder, total: footer.rows, wanted: Vec::new(), pushed: Vec::new(), decoded: VecDeque::new() })
    }
}

enum Next {
    Need(Vec<Range<u64>>),
    Rows(RecordBatch),
    End,
}

impl Rows {
    fn next(&mut self, caps: &Caps, row: u64) -> Result<Next, Error> {
        if let Some(batch) = self.decoded.pop_front() {
            return Ok(Next::Rows(batch));
        }
        if !self.wanted.is_empty() {
            let ranges = joined(&self.wanted);
            let missing: Vec<_> =
                ranges.into_iter().filter(|range| !self.pushed.iter().any(|(pushed, _)| pushed == range)).collect();
            if !missing.is_empty() {
                return Ok(Next::Need(missing));
            }
            let wanted = std::mem::take(&mut self.wanted);
            let data = cut(&wanted, &std::mem::take(&mut self.pushed))?;
            guarded(|| self.decoder.push_ranges(wanted, data)).map_err(|error| unreadable(&error, row))?;
        }
        match guarded(|| self.decoder.try_decode()).map_err(|error| unreadable(&error, row))? {
            DecodeResult::NeedsData(ranges) => {
                let needed = joined(&ranges);
                if needed.is_empty() {
                    return Err(corrupt("a row group has no bytes"));
                }
                self.wanted = ranges;
                Ok(Next::Need(needed))
            }
            DecodeResult::Finished => Ok(Next::End),
            DecodeResult::Data(batch) => {
                let mut rest = batch;
                while rest.num_rows() > 0 {
                    let rows = size::rows_within(&rest, caps.chunk_bytes).max(1);
                    self.decoded.push_back(rest.slice(0, rows));
                    rest = rest.slice(rows, rest.num_rows() - rows);
                }
                self.decoded.pop_front().map(Next::Rows).ok_or_else(|| corrupt("a row group gave no rows"))
            }
        }
    }
}

/// The end, if it is where the footer said that it would be.
fn end(total: u64, row: u64) -> Result<Step, Error> {
    if row == total {
        return Ok(Step::End(Ended { rows: total }));
    }
    Err(corrupt(&format!("the footer says {total} rows, the pages end at row {row}")))
}

/// The ranges with those that touch joined, in order: column chunks mostly lie side by side, and one read is cheaper
/// than many.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in sorted.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The bytes of each wanted range, cut out of what was pushed.
fn cut(wanted: &[Range<u64>], pushed: &[(Range<u64>, Bytes)]) -> Result<Vec<Bytes>, Error> {
    let short = |range: &Range<u64>, got: usize| Error::data(format!("asked for bytes {range:?}, got {got}"));
    wanted
        .iter()
        .map(|range| {
            let around = pushed.iter().find(|(around, _)| around.start <= range.start && range.end <= around.end);
            let Some((around, data)) = around else {
                return if range.is_empty() { Ok(Bytes::new()) } else { Err(short(range, 0)) };
            };
            if data.len() as u64 != around.end - around.start {
                return Err(short(around, data.len()));
            }
            let at = |byte: u64| usize::try_from(byte - around.start).unwrap_or(usize::MAX);
            Ok(data.slice(at(range.start)..at(range.end)))
        })
        .collect()
}

/// What a decoding error means: mostly that the caller's file is broken.
fn unreadable(error: &ParquetError, row: u64) -> Error {
    match error {
        ParquetError::NYI(what) => {
            Error::input(RefusalCode::InputFormat, format!("the Parquet file uses what is not supported: {what}"))
        }
        error => corrupt(&format!("at or after row {}: {error}", row + 1)),
    }
}

#[cfg(test)]
mod tests;
