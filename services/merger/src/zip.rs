//! A batch's attempts side by side: each row's last word, in row order, without a join.
//!
//! The first attempt has all rows of the batch; each later one has some of the rows of the one before it, in the same
//! order. So one cursor an attempt is enough: those that stand at the row move on together, and the latest of them speaks.
//!
//! A row that the deadline took from its next try was not answered for the reason why it was to be tried again: its last
//! failure speaks for it, and `deadline` is left to rows that never had a word of their own.
//!
//! Rows that are tried until the deadline may have hundreds of attempts. Only so many lie side by side: the latest are
//! first merged into one file of last words on scratch disk ([`Zip::words`]), which stands for them all. What each of its
//! rows cost so far lies in a file beside it, since every attempt of a row was paid and not only the one that speaks.

use std::fs::File;
use std::io::{BufReader, Read};

use model::price::{ListedPrice, Usd};
use model::{Counts, FailureKind, RowStatus};
use tables::Error;
use tables::result::{Answers, FinalRow, ResultReader, ResultRow, ResultRows, ResultWriter, Usage};

use crate::decide::{check_word, speaker};

/// One attempt's results and the place in them.
struct Cursor {
    reader: ResultReader,
    group: Option<ResultRows>,
    next: usize,
}

impl Cursor {
    fn open(file: File) -> Result<Self, Error> {
        Ok(Self { reader: ResultReader::open(file)?, group: None, next: 0 })
    }

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

    /// The row `back` before the cursor's.
    fn row(&self, back: usize) -> Result<ResultRow<'_>, Error> {
        self.group.as_ref().ok_or_else(|| Error::data("a cursor has no rows"))?.get(self.next - back)
    }
}

/// A cost in the file beside the last words; all ones stand for none.
const NO_COST: u128 = u128::MAX;

/// The last words of the attempts behind those that lie side by side: one file of rows, and one of what they cost.
pub(crate) struct Words {
    pub(crate) rows: File,
    pub(crate) costs: File,
}

/// The attempts of one batch.
pub(crate) struct Zip {
    batch: u32,
    cursors: Vec<Cursor>,
    /// Whether the last cursor is a file of last words, whose `tries` are the attempts that they stand for.
    folded: bool,
    /// What the rows of the last cursor cost, if it is folded.
    costs: Option<BufReader<File>>,
    price: Option<ListedPrice>,
    /// The rows given so far, by their last word.
    pub(crate) counts: Counts,
}

impl Zip {
    /// The results of a batch, first attempt first, and the last words of the attempts behind them, if they were folded.
    pub(crate) fn open(
        batch: u32,
        attempts: Vec<File>,
        words: Option<Words>,
        price: Option<&ListedPrice>,
    ) -> Result<Self, Error> {
        let folded = words.is_some();
        let (words, costs) = words.map(|Words { rows, costs }| (rows, BufReader::new(costs))).unzip();
        let cursors = attempts.into_iter().chain(words).map(Cursor::open).collect::<Result<_, _>>()?;
        Ok(Self { batch, cursors, folded, costs, price: price.cloned(), counts: Counts::default() })
    }

    /// Writes the last words of so many rows, and gives what they cost.
    pub(crate) fn words(&mut self, rows: u64, into: &mut ResultWriter) -> Result<Vec<u8>, Error> {
        let mut costs = Vec::new();
        for _ in 0..rows {
            let (word, attempts, cost) = self.next_word()?;
            into.push(&ResultRow { tries: attempts, ..word })?;
            costs.extend_from_slice(&cost.map_or(NO_COST, Usd::pico).to_le_bytes());
        }
        Ok(costs)
    }

    /// What the row at the heads of so many cursors cost over all its attempts; none if no attempt told its usage.
    fn cost(&mut self, standing: usize) -> Result<Option<Usd>, Error> {
        let mut sum: Option<Usd> = None;
        let mut add = |cost: Usd| sum = Some(sum.unwrap_or_default() + cost);
        let mut told = standing;
        if let (Some(costs), true) = (&mut self.costs, standing == self.cursors.len()) {
            told -= 1;
            let mut bytes = [0; size_of::<u128>()];
            costs.read_exact(&mut bytes).map_err(|error| Error::data(format!("folded costs: {error}")))?;
            let pico = u128::from_le_bytes(bytes);
            if pico != NO_COST {
                add(Usd::from_pico(pico));
            }
        }
        let Some(price) = &self.price else { return Ok(None) };
        for cursor in &self.cursors[..told] {
            let usage = cursor.row(0)?.usage;
            if usage != Usage::default() {
                add(price.cost(&usage.tokens()).total);
            }
        }
        Ok(sum)
    }

    /// The next row's last word, in how many attempts it was, and what they cost.
    fn next_word(&mut self) -> Result<(ResultRow<'_>, u32, Option<Usd>), Error> {
        let heads = self.cursors.iter_mut().map(Cursor::head).collect::<Result<Vec<_>, _>>()?;
        let row = heads.first().copied().flatten();
        let row = row.ok_or_else(|| Error::data(format!("batch {}: its results end before its rows", self.batch)))?;
        let data = |contradiction: crate::decide::Contradiction| Error::data(contradiction.to_string());
        let standing = speaker(self.batch, row, &heads).map_err(data)?;
        let cost = self.cost(standing)?;
        let here = &mut self.cursors[..standing];
        let statuses = here.iter().map(|cursor| Ok(cursor.row(0)?.status)).collect::<Result<Vec<_>, Error>>()?;
        check_word(self.batch, row, &statuses).map_err(data)?;
        here.iter_mut().for_each(|cursor| cursor.next += 1);
        let mut word = self.cursors[standing - 1].row(1)?;
        let mut attempts = u32::try_from(standing).unwrap_or(u32::MAX);
        if self.folded && standing == self.cursors.len() {
            attempts = (attempts - 1).saturating_add(word.tries);
        }
        if let (Some(FailureKind::Deadline), Some(before)) = (word.error_kind, standing.checked_sub(2)) {
            word = ResultRow { status: RowStatus::Failed, ..self.cursors[before].row(1)? };
        }
        self.counts.record(word.status, word.error_kind);
        Ok((word, attempts, cost))
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
        let (word, attempts, cost) = self.next_word()?;
        Ok(FinalRow::new(&word, attempts, cost))
    }
}

/// Answers, noting which rows of a row group failed.
pub(crate) struct Noting<'z> {
    zip: &'z mut Zip,
    row: u32,
    /// The failed rows, by their places.
    pub(crate) failed: Vec<u32>,
}

impl<'z> Noting<'z> {
    pub(crate) fn new(zip: &'z mut Zip) -> Self {
        Self { zip, row: 0, failed: Vec::new() }
    }
}

impl Answers for Noting<'_> {
    fn next_row(&mut self) -> Result<FinalRow<'_>, Error> {
        let row = self.zip.next_row()?;
        if row.status != RowStatus::Answered {
            self.failed.push(self.row);
        }
        self.row += 1;
        Ok(row)
    }
}
