//! The added columns of one row group.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Builder, StringBuilder};
use model::FailureKind;
use model::price::Usd;

use super::encoded::Encoder;
use crate::Error;
use crate::result::{Answers, FinalRow};

/// Answers are handed to the encoder when they come to this many bytes: what waits is then compressed.
const ENCODE_BYTES: usize = 1 << 20;

/// Digits, and decimal places, of a cost: pico-dollars.
pub(super) const COST_DIGITS: (u8, i8) = (38, 12);
/// The largest cost of so many digits.
const MOST: u128 = 10u128.pow(38) - 1;

/// A cost as its column has it.
pub(super) fn decimal(cost: Usd) -> Option<i128> {
    i128::try_from(cost.pico().min(MOST)).ok()
}

/// Reads as many answers as the row group has rows, and encodes the first of their columns, as many as the encoder has.
pub(super) fn encode(rows: usize, answers: &mut dyn Answers, encoder: &mut Encoder) -> Result<(), Error> {
    let mut builders = Builders::default();
    let columns = encoder.fields().len();
    for row in 0..rows {
        builders.append(&answers.next_row()?);
        if builders.bytes >= ENCODE_BYTES || row + 1 == rows {
            let mut built = std::mem::take(&mut builders).finish()?;
            built.truncate(columns);
            encoder.write(built)?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Builders {
    bytes: usize,
    /// Response, error, status, error kind, finish reason, model.
    texts: [StringBuilder; 6],
    /// Input, cached, output, reasoning, attempts.
    counts: [Int64Builder; 5],
    /// In pico-dollars.
    costs: Vec<Option<i128>>,
}

impl Builders {
    fn append(&mut self, row: &FinalRow<'_>) {
        let error = row.error_cell();
        self.bytes += row.response.map_or(0, str::len) + error.as_deref().map_or(0, str::len) + 64;
        let kind = row.error_kind.map(FailureKind::as_str);
        let texts = [row.response, error.as_deref(), Some(row.status.as_str()), kind, row.finish_reason, row.model];
        for (builder, text) in self.texts.iter_mut().zip(texts) {
            builder.append_option(text);
        }
        let usage = row.usage;
        let counts = [usage.input, usage.cached, usage.output, usage.reasoning, Some(row.attempts.into())];
        for (builder, count) in self.counts.iter_mut().zip(counts) {
            builder.append_option(count.map(|count| i64::try_from(count).unwrap_or(i64::MAX)));
        }
        self.costs.push(row.cost.and_then(decimal));
    }

    fn finish(mut self) -> Result<Vec<ArrayRef>, Error> {
        let texts = self.texts.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        let counts = self.counts.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        let (digits, places) = COST_DIGITS;
        let costs = Decimal128Array::from(self.costs).with_precision_and_scale(digits, places)?;
        Ok(texts.chain(counts).chain([Arc::new(costs) as ArrayRef]).collect())
    }
}
