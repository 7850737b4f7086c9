//! Answers that are copied as they are, from result data.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, new_null_array};
use model::price::Usd;

use super::{BatchGroup, ParquetOutput, answers};
use crate::Error;
use crate::result::Ends;

/// Columns of result data before the first that the output adds: `_row`.
const BEFORE: usize = 1;
/// Columns of result data that the output adds, from `response` to `reasoning_tokens`; `attempts` and the cost follow.
const COPIED: usize = 10;

impl ParquetOutput {
    /// Appends one row group of a batch's first attempt with the answers of one row group of that attempt's results, both
    /// undecoded. Whoever calls has looked at how the rows ended: each of them ended in this attempt, the first. `costs` has a
    /// cost for each row, or is empty if there is no price.
    ///
    /// # Errors
    /// When the row groups have not as many rows, the batch data's columns are not the table's, or a file is broken. The
    /// output is of no use then.
    pub fn append_copied(&mut self, batch: &BatchGroup, ends: &Ends, costs: &[Option<Usd>]) -> Result<(), Error> {
        let (rows, results) = (batch.rows()?, &ends.group);
        if results.rows()? != rows || !(costs.is_empty() || costs.len() == rows) {
            return Err(Error::data("a row group of the results and one of the batch data do not line up"));
        }
        self.append_carried(batch)?;
        for chunk in results.columns().iter().skip(BEFORE).take(COPIED.min(self.added)) {
            self.layout.append(chunk, results.chunk(chunk)?)?;
        }
        self.append_counted(rows, costs)?;
        Ok(self.layout.end_group(rows)?)
    }

    /// The columns that result data has not: the number of attempts, which is one, and the costs.
    fn append_counted(&mut self, rows: usize, costs: &[Option<Usd>]) -> Result<(), Error> {
        if self.added <= COPIED {
            return Ok(());
        }
        let mut encoder = self.encoder(COPIED)?;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_value(1, rows))];
        if let Some(cost) = encoder.fields().get(1) {
            columns.push(if costs.is_empty() {
                new_null_array(cost.data_type(), rows)
            } else {
                let costs = Decimal128Array::from_iter(costs.iter().map(|cost| cost.and_then(answers::decimal)));
                Arc::new(costs.with_precision_and_scale(answers::COST_DIGITS.0, answers::COST_DIGITS.1)?)
            });
        }
        encoder.write(columns)?;
        self.append_encoded(encoder)
    }
}
