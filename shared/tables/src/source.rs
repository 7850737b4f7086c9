//! Where a reader that reads all of a data object once, from front to back, gets its bytes from.
//!
//! A merge reads each object so. Its row groups are then read in one piece and decoded, or copied, where they lie in memory; and
//! whoever hands the object in can check it meanwhile, instead of reading it twice.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use arrow::record_batch::RecordBatch;
use bytes::{Buf, Bytes};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, RowSelection};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};

use crate::Error;
use crate::batch::{footer_of, group_rows, read_selected, rows_reader};
use crate::parquet_in::{Footer, guarded};

/// So few rows are decoded at a time: their pages are still in the processor's caches when they are used.
const ROWS_AT_A_TIME: usize = 1_024;

/// A data object, open for one reading.
pub trait Source: fmt::Debug + Send {
    /// How long it is.
    ///
    /// # Errors
    /// The operating system's.
    fn bytes(&self) -> io::Result<u64>;

    /// Bytes at any place: of the footer, which tells where everything is.
    ///
    /// # Errors
    /// The operating system's.
    fn look(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// The bytes of a range; ranges follow on one another, perhaps with something between them.
    ///
    /// # Errors
    /// The operating system's.
    fn pass(&mut self, range: Range<u64>) -> io::Result<Bytes>;

    /// Nothing more is read. An error if what was read was not what the object is.
    ///
    /// # Errors
    /// As said.
    fn finish(&mut self) -> io::Result<()>;
}

/// A file whose content needs no check.
impl Source for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn look(&self, range: Range<u64>) -> io::Result<Bytes> {
        let (mut file, mut bytes) = (self, Vec::new());
        let length = range.end.saturating_sub(range.start);
        bytes.try_reserve_exact(usize::try_from(length).map_err(io::Error::other)?).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(range.start))?;
        if (file.take(length).read_to_end(&mut bytes)? as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Bytes::from(bytes))
    }

    fn pass(&mut self, range: Range<u64>) -> io::Result<Bytes> {
        self.look(range)
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Box<dyn Source> {
    fn bytes(&self) -> io::Result<u64> {
        (**self).bytes()
    }

    fn look(&self, range: Range<u64>) -> io::Result<Bytes> {
        (**self).look(range)
    }

    fn pass(&mut self, range: Range<u64>) -> io::Result<Bytes> {
        (**self).pass(range)
    }

    fn finish(&mut self) -> io::Result<()> {
        (**self).finish()
    }
}

/// The row groups of a data object, one after the other.
#[derive(Debug)]
pub(crate) struct Groups {
    source: Box<dyn Source>,
    pub(crate) footer: Footer,
    next: usize,
    /// The row group that is read some rows at a time.
    begun: Option<Begun>,
}

struct Begun {
    rows: ParquetRecordBatchReader,
    left: usize,
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Groups {
    pub(crate) fn open(source: Box<dyn Source>) -> Result<Self, Error> {
        let bytes = source.bytes().map_err(|error| unreadable(&error))?;
        let footer = footer_of(bytes, |range| source.look(range).map_err(|error| unreadable(&error)))?;
        Ok(Self { source, footer, next: 0, begun: None })
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.footer.arrow.metadata()
    }

    /// How many rows the next row group has; none behind the last, or within one.
    pub(crate) fn next_group_rows(&self) -> Option<usize> {
        if self.begun.is_some() || self.next >= self.metadata().num_row_groups() {
            return None;
        }
        self.metadata().row_group_num_rows(self.next).ok()
    }

    /// The next row group, in memory. Nothing comes behind the last, nor after an error.
    pub(crate) fn next(&mut self) -> Result<Option<Group>, Error> {
        if self.next >= self.metadata().num_row_groups() {
            return Ok(None);
        }
        let number = std::mem::replace(&mut self.next, usize::MAX);
        if self.metadata().row_group(number).num_rows() == 0 {
            return Err(Error::data(format!("row group {number} has no rows")));
        }
        let ranges = self.metadata().row_group(number).columns().iter().map(ColumnChunkMetaData::byte_range);
        let (start, end) =
            ranges.fold((u64::MAX, 0), |all, (start, length)| (all.0.min(start), all.1.max(start + length)));
        let range = start.min(end)..end;
        let bytes = self.source.pass(range).map_err(|error| unreadable(&error))?;
        self.next = number + 1;
        Ok(Some(Group { arrow: self.footer.arrow.clone(), number, window: Window { start, bytes } }))
    }

    /// The next rows of the row group at hand, or the first of the next, at most [`ROWS_AT_A_TIME`]; those columns only that
    /// stand at the places in `roots`.
    pub(crate) fn next_rows(&mut self, roots: Option<&[usize]>) -> Result<Option<RecordBatch>, Error> {
        let rows = self.advance(roots);
        if rows.is_err() {
            self.stop();
        }
        rows
    }

    /// Nothing comes behind an error.
    pub(crate) fn stop(&mut self) {
        self.next = usize::MAX;
        self.begun = None;
    }

    fn advance(&mut self, roots: Option<&[usize]>) -> Result<Option<RecordBatch>, Error> {
        let Begun { mut rows, left } = match self.begun.take() {
            Some(begun) => begun,
            None => match self.next()? {
                Some(group) => group.begin(roots)?,
                None => return Ok(None),
            },
        };
        let batch = guarded(|| Ok(rows.next().transpose()?))?;
        let batch = batch.ok_or_else(|| Error::data(format!("a row group ends {left} rows too early")))?;
        let left = left.checked_sub(batch.num_rows()).ok_or_else(|| Error::data("a row group has too many rows"))?;
        self.begun = (left > 0).then_some(Begun { rows, left });
        Ok(Some(batch))
    }

    /// To be called when nothing more is read.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.source.finish().map_err(|error| Error::data(error.to_string()))
    }
}

/// A row group in memory, encoded.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    arrow: ArrowReaderMetadata,
    number: usize,
    window: Window,
}

impl Group {
    pub(crate) fn arrow(&self) -> &ArrowReaderMetadata {
        &self.arrow
    }

    pub(crate) fn columns(&self) -> &[ColumnChunkMetaData] {
        self.arrow.metadata().row_group(self.number).columns()
    }

    pub(crate) fn rows(&self) -> Result<usize, Error> {
        Ok(self.arrow.metadata().row_group_num_rows(self.number)?)
    }

    /// The bytes of a column chunk.
    pub(crate) fn chunk(&self, chunk: &ColumnChunkMetaData) -> Result<Bytes, ParquetError> {
        let (start, length) = chunk.byte_range();
        self.window.get_bytes(start, usize::try_from(length)?)
    }

    /// Its rows, those columns only that stand at the places in `roots`; of some rows only, if there is a selection with how
    /// many they are.
    pub(crate) fn read(
        &self,
        roots: Option<&[usize]>,
        selected: Option<(RowSelection, usize)>,
    ) -> Result<RecordBatch, Error> {
        read_selected(self.window.clone(), &self.arrow, self.number, roots, selected)
    }

    fn begin(self, roots: Option<&[usize]>) -> Result<Begun, Error> {
        let left = group_rows(&self.arrow, self.number)?;
        let rows = guarded(|| rows_reader(self.window, &self.arrow, self.number, roots, (None, ROWS_AT_A_TIME)))?;
        Ok(Begun { rows, left })
    }
}

/// Part of a file, with the places that its bytes have there.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    start: u64,
    bytes: Bytes,
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let length = self.len().saturating_sub(start);
        Ok(self.get_bytes(start, usize::try_from(length)?)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let from = start.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let range = from.and_then(|from| Some(from..from.checked_add(length)?));
        match range.filter(|range| range.end <= self.bytes.len()) {
            Some(range) => Ok(self.bytes.slice(range)),
            None => Err(ParquetError::EOF(format!("{length} bytes from {start} on are not in this row group"))),
        }
    }
}

/// The error of a data object that the operating system does not read.
pub(crate) fn unreadable(error: &io::Error) -> Error {
    Error::data(format!("the data object can't be read: {error}"))
}
