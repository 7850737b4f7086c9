//! A batch's attempts side by side: each row's last word, in row order, without a join.
//!
//! The first attempt has all rows of the batch; each later one has some of the rows of the one before it, in the same
//! order. So one cursor an attempt is enough: those that stand at the row move on together, and the latest of them speaks.

use std::fs::File;

use model::{Counts, RowStatus};
use tables::Error;
use tables::result::{Answers, FinalRow, ResultReader, ResultRows};

use crate::decide::{check_word, speaker};

/// One attempt's results and the place in them.
struct Cursor {
    reader: ResultReader,
    group: Option<ResultRows>,
    next: usize,
}

impl Cursor {
    /// The input row at the cursor; none behind the last.
    fn head(&mut self) -> Result<Option<u64>, Error> {
        while self.group.as_ref().is_none_or(|group| self.next >= group.len()) {
            match self.reader.next() {
                None => return Ok(None),
                Some(group) => (self.group, self.next) = (Some(group?), 0),
            }
        }
        self.group.as_ref().map(|group| group.get(self.next).map(|row| row.row)).transpose()
    }

    fn status(&self) -> Result<RowStatus, Error> {
        let group = self.group.as_ref().ok_or_else(|| Error::data("a cursor has no rows"))?;
        group.get(self.next).map(|row| row.status)
    }
}

/// The attempts of one batch.
pub(crate) struct Zip {
    batch: u32,
    cursors: Vec<Cursor>,
    /// The rows given so far, by their last word.
    pub(crate) counts: Counts,
}

impl Zip {
    /// The results of a batch, first attempt first.
    pub(crate) fn open(batch: u32, attempts: Vec<File>) -> Result<Self, Error> {
        let cursors = attempts
            .into_iter()
            .map(|file| Ok(Cursor { reader: ResultReader::open(file)?, group: None, next: 0 }))
            .collect::<Result<_, Error>>()?;
        Ok(Self { batch, cursors, counts: Counts::default() })
    }

    /// Checks that no attempt has rows left.
    pub(crate) fn finish(mut self) -> Result<Counts, Error> {
        for cursor in &mut self.cursors {
            if let Some(row) = cursor.head()? {
                return Err(Error::data(format!(
                    "batch {}: results go on with row {row} behind the batch's last",
                    self.batch
                )));
            }
        }
        Ok(self.counts)
    }
}

impl Answers for Zip {
    fn next_row(&mut self) -> Result<FinalRow<'_>, Error> {
        let heads = self.cursors.iter_mut().map(Cursor::head).collect::<Result<Vec<_>, _>>()?;
        let row = heads.first().copied().flatten();
        let row = row.ok_or_else(|| Error::data(format!("batch {}: its results end before its rows", self.batch)))?;
        let data = |contradiction: crate::decide::Contradiction| Error::data(contradiction.to_string());
        let standing = speaker(self.batch, row, &heads).map_err(data)?;
        let statuses = self.cursors[..standing].iter().map(Cursor::status).collect::<Result<Vec<_>, _>>()?;
        check_word(self.batch, row, &statuses).map_err(data)?;
        self.cursors[..standing].iter_mut().for_each(|cursor| cursor.next += 1);
        let latest = &self.cursors[standing - 1];
        let group = latest.group.as_ref().ok_or_else(|| Error::data("a cursor has no rows"))?;
        let word = group.get(latest.next - 1)?;
        self.counts.record(word.status, word.error_kind);
        Ok(FinalRow::new(&word, u32::try_from(standing).unwrap_or(u32::MAX)))
    }
}
