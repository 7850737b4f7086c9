//! Where the cells of a chunk's records are: found once, when the records are, for those who look at cells next.

use std::borrow::Cow;

use arrow::array::{Array, StringArray};

use super::fields::unquoted;

/// The records of a chunk as text, with the ends of their cells.
#[derive(Debug, Clone)]
pub struct Cells {
    /// The records, one behind the other.
    text: StringArray,
    /// Where each cell ends, counted from the first record's beginning. A cell begins one byte behind the end of the one
    /// before it, or with its record.
    ends: Vec<u32>,
    /// How many of `ends` there are before each record, and in all.
    counts: Vec<usize>,
}

impl Cells {
    /// `counts` says how many ends there are up to and with each record's.
    pub(super) fn new(text: StringArray, ends: Vec<u32>, counts: impl Iterator<Item = usize>) -> Self {
        let counts = std::iter::once(0).chain(counts).collect();
        Self { text, ends, counts }
    }

    /// The cell in column `column` of record `row`, without its quoting; none if there is no such record or cell. A cell
    /// of a malformed record is taken as far as it goes.
    #[must_use]
    pub fn get(&self, row: usize, column: usize) -> Option<Cow<'_, str>> {
        let (first, behind) = (*self.counts.get(row)?, *self.counts.get(row + 1)?);
        let ends = self.ends.get(first..behind)?;
        let start = usize::try_from(*self.text.value_offsets().get(row)?).ok()?;
        let from = match column.checked_sub(1) {
            Some(before) => (*ends.get(before)? as usize + 1).checked_sub(start)?,
            None => 0,
        };
        let to = (*ends.get(column)? as usize).checked_sub(start)?;
        if row >= self.text.len() {
            return None;
        }
        self.text.value(row).get(from..to).map(unquoted)
    }
}
