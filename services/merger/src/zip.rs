//! A batch's attempts side by side: each row's last word, in row order, without a join.
//!
//! The first attempt has all rows of the batch; each later one has some of the rows of the one before it, in the same
//! order. So one cursor an attempt is enough: those that stand at the row move on together, and the latest of them speaks.
//!
//! Each row must stand in its place: the rows of a batch's first attempt follow on one another from the batch's first.
//! Where one attempt speaks for all of a row group's rows, only that is looked at ([`Zip::vouch`]), how the rows ended and,
//! if the job has a price, their tokens: the answers themselves can then be copied undecoded.
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
use tables::result::{Answers, End, Ends, FinalRow, ResultReader, ResultRow, ResultRows, ResultWriter, Usage};
use tables::{Error, Source};

use crate::decide::{Contradiction, check_word, speaker};

/// One attempt's results and the place in them.
struct Cursor {
    reader: ResultReader,
    group: Option<ResultRows>,
    next: usize,
}

impl Cursor {
    fn open(source: Box<dyn Source>) -> Result<Self, Error> {
        Ok(Self { reader: ResultReader::open(source)?, group: None, next: 0 })
    }

    /// The input row at the cursor; none behind the last.
    fn head(&mut self) -> Result<Option<u64>, Error> {
        while self.group.as_ref().is_none_or(|group| self.next >= group.len()) {
            // The memory of the rows that were read is the memory of those that come.
            self.group = None;
            match self.reader.next() {
                None => return Ok(None),
                Some(group) => (self.group, self.next) = (Some(group?), 0),
            }
        }
        Ok(self.group.as_ref().and_then(|group| group.row(self.next)))
    }

    /// The rows of the row group that has not been begun, if the cursor stands before one.
    fn untouched(&self) -> Option<usize> {
        let behind = self.group.as_ref().is_none_or(|group| self.next >= group.len());
        self.reader.next_group_rows().filter(|_| behind)
    }

    /// The row `back` before the cursor's.
    fn row(&self, back: usize) -> Result<ResultRow<'_>, Error> {
        self.rows()?.get(self.next - back)
    }

    fn rows(&self) -> Result<&ResultRows, Error> {
        self.group.as_ref().ok_or_else(|| Error::data("a cursor has no rows"))
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
    /// The batch's first row, if these attempts have all of its rows.
    first_row: Option<u64>,
    cursors: Vec<Cursor>,
    /// Whether the last cursor is a file of last words, whose `tries` are the attempts that they stand for.
    folded: bool,
    /// What the rows of the last cursor cost, if it is folded.
    costs: Option<BufReader<File>>,
    price: Option<ListedPrice>,
    /// The rows at the cursors, and how they ended there; kept from row to row.
    heads: Vec<Option<u64>>,
    statuses: Vec<RowStatus>,
    /// The rows given so far, by their last word.
    pub(crate) counts: Counts,
}

/// What was seen of a row group whose answers are copied.
pub(crate) struct Vouched {
    /// How its rows ended; the row group is in it.
    pub(crate) ends: Ends,
    /// The rows that failed, by their places.
    pub(crate) failed: Vec<u32>,
    /// What each row cost; empty if there is no price.
    pub(crate) costs: Vec<Option<Usd>>,
}

impl Zip {
    /// The results of a batch, first attempt first, and the last words of the attempts behind them, if they were folded.
    pub(crate) fn open(
        (batch, first_row): (u32, Option<u64>),
        attempts: Vec<Box<dyn Source>>,
        words: Option<Words>,
        price: Option<&ListedPrice>,
    ) -> Result<Self, Error> {
        let folded = words.is_some();
        let (words, costs) =
            words.map(|Words { rows, costs }| (Box::new(rows) as Box<dyn Source>, BufReader::new(costs))).unzip();
        let cursors = attempts.into_iter().chain(words).map(Cursor::open).collect::<Result<_, _>>()?;
        let (heads, statuses) = (Vec::new(), Vec::new());
        let (price, counts) = (price.cloned(), Counts::default());
        Ok(Self { batch, first_row, cursors, folded, costs, price, heads, statuses, counts })
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
            if let Some(cost) = cost_of(price, cursor.rows()?.usage(cursor.next)) {
                add(cost);
            }
        }
        Ok(sum)
    }

    /// The next row's last word, in how many attempts it was, and what they cost.
    fn next_word(&mut self) -> Result<(ResultRow<'_>, u32, Option<Usd>), Error> {
        if self.cursors.len() == 1 && !self.folded {
            return self.only_word();
        }
        self.heads.clear();
        for cursor in &mut self.cursors {
            let head = cursor.head()?;
            self.heads.push(head);
        }
        let row = self.heads.first().copied().flatten();
        let row = row.ok_or_else(|| Error::data(format!("batch {}: its results end before its rows", self.batch)))?;
        self.check_place(row)?;
        let standing = speaker(self.batch, row, &self.heads).map_err(data)?;
        let cost = self.cost(standing)?;
        self.statuses.clear();
        for cursor in &mut self.cursors[..standing] {
            self.statuses.push(cursor.rows()?.status(cursor.next)?);
            cursor.next += 1;
        }
        check_word(self.batch, row, &self.statuses).map_err(data)?;
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

    /// The same where there is one attempt, as mostly: nobody else could speak.
    fn only_word(&mut self) -> Result<(ResultRow<'_>, u32, Option<Usd>), Error> {
        let head = self.cursors[0].head()?;
        let row = head.ok_or_else(|| Error::data(format!("batch {}: its results end before its rows", self.batch)))?;
        self.check_place(row)?;
        let only = &mut self.cursors[0];
        only.next += 1;
        let word = only.row(1)?;
        check_word(self.batch, row, &[word.status]).map_err(data)?;
        let cost = self.price.as_ref().and_then(|price| cost_of(price, word.usage));
        self.counts.record(word.status, word.error_kind);
        Ok((word, 1, cost))
    }

    /// Checks that a row is the one whose turn it is.
    fn check_place(&self, row: u64) -> Result<(), Error> {
        let Some(first_row) = self.first_row else { return Ok(()) };
        let due = first_row.saturating_add(self.counts.rows);
        if row == due {
            return Ok(());
        }
        let what = format!("the results have row {row} in the place of row {due}");
        Err(data(Contradiction { batch: self.batch, what }))
    }

    /// Whether the next row group of results has the next so many rows and no others, and all that is said of them: its
    /// answers can be copied, after [`Zip::vouch`].
    pub(crate) fn lines_up(&self, rows: usize) -> bool {
        matches!(&self.cursors[..], [only] if !self.folded && only.untouched() == Some(rows))
    }

    /// Looks at how the rows of the next row group of results ended, and gives it to be copied, if it [lines up](Zip::lines_up).
    pub(crate) fn vouch(&mut self) -> Result<Vouched, Error> {
        let (mut failed, mut costs) = (Vec::new(), Vec::new());
        let ends = match &mut self.cursors[..] {
            [only] => only.reader.next_ends(self.price.is_some())?,
            _ => None,
        };
        let ends = ends.ok_or_else(|| Error::data(format!("batch {}: its results end before its rows", self.batch)))?;
        for (place, index) in (0_u32..).zip(0..ends.len()) {
            let End { row, status, error_kind, usage } = ends.get(index)?;
            self.check_place(row)?;
            check_word(self.batch, row, &[status]).map_err(data)?;
            if status != RowStatus::Answered {
                failed.push(place);
            }
            if let Some(price) = &self.price {
                costs.push(cost_of(price, usage));
            }
            self.counts.record(status, error_kind);
        }
        Ok(Vouched { ends, failed, costs })
    }

    /// Checks that no attempt has rows left, and that what was read of each was what its fact names.
    pub(crate) fn finish(mut self) -> Result<Counts, Error> {
        for cursor in &mut self.cursors {
            if let Some(row) = cursor.head()? {
                return Err(Error::data(format!(
                    "batch {}: results go on with row {row} behind the batch's last",
                    self.batch
                )));
            }
            cursor.reader.finish()?;
        }
        Ok(self.counts)
    }
}

/// What a row's tokens cost; none if they were not told.
fn cost_of(price: &ListedPrice, usage: Usage) -> Option<Usd> {
    (usage != Usage::default()).then(|| price.cost(&usage.tokens()).total)
}

fn data(contradiction: Contradiction) -> Error {
    Error::data(contradiction.to_string())
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
