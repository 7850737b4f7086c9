//! From answers to result rows: the batch data is walked in its own order, each row gets what was said of it, and what is to
//! be tried again goes into the next attempt's batch in the same walk.
//!
//! A row's own columns are all that is read of it. The caller's columns are read only of row groups that have a row to try
//! again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::price::{Cost, ListedPrice};
use model::retry::{RetryTable, Tries};
use model::{BatchId, BatchRef, Counts, CustomId, DataRef, FailureKind, Nonce, RowStatus, Tokens};
use providers::Outcome;
use requests::Job;
use runtime::store::ObjectWriter;
use tables::Position;
use tables::batch::{BatchHead, BatchReader, BatchRows, BatchWriter, Codec};
use tables::result::{ResultRow, ResultWriter, Usage};

use crate::answers::{Answers, Said};
use crate::collect::Ended;
use crate::decide;

/// The texts of so many rows are fetched into the processor's cache at a time.
const FETCHED_ROWS: usize = 32;

/// One row's end in this attempt.
struct Settled<'a> {
    status: RowStatus,
    kind: Option<FailureKind>,
    text: Cow<'a, str>,
    finish_reason: Option<Cow<'a, str>>,
    model: Option<Cow<'a, str>>,
    tokens: Option<Tokens>,
    tries: Tries,
}

/// The walk's state.
pub(crate) struct Walk<'a> {
    pub(crate) job: &'a Arc<Job>,
    pub(crate) settling: Settling<'a>,
    pub(crate) results: ResultWriter,
    pub(crate) next: Option<Next>,
    pub(crate) sums: Sums,
    /// Room for a line.
    pub(crate) line: Vec<u8>,
    pub(crate) codec: Codec,
    /// The next attempt, should there be one.
    pub(crate) next_id: BatchId,
    pub(crate) next_nonce: Nonce,
}

/// How rows end.
pub(crate) struct Settling<'a> {
    pub(crate) ended: &'a Ended,
    pub(crate) answers: &'a Answers<'a>,
    pub(crate) table: &'a RetryTable,
}

/// What the rows come to.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) counts: Counts,
    /// Of `counts`, the rows that are tried again, by kind.
    pub(crate) retried: BTreeMap<FailureKind, u64>,
    pub(crate) tokens: Tokens,
    /// What they cost, if that is known.
    pub(crate) cost: Option<Cost>,
}

/// The next attempt's batch, as it is written.
pub(crate) struct Next {
    pub(crate) writer: BatchWriter,
    first_row: u64,
    rows: u64,
    send_bytes: u64,
}

impl Walk<'_> {
    /// Settles one row group's rows.
    pub(crate) fn group(&mut self, reader: &BatchReader, rows: &BatchRows) -> anyhow::Result<()> {
        let (mut again, mut tries) = (Vec::new(), Vec::new());
        for row in 0..rows.len() {
            if row.is_multiple_of(FETCHED_ROWS) {
                let first = rows.first_in_batch + row;
                self.settling.answers.fetch(first..first + FETCHED_ROWS.min(rows.len() - row));
            }
            let settled = self.settling.settle(rows, row, &mut self.line)?;
            self.results.push(&settled.result(rows.row_ids.value(row)))?;
            self.sums.add(&settled, self.job.price.as_ref());
            if settled.status == RowStatus::Retried {
                again.push(row);
                tries.push(settled.tries);
            }
        }
        if !again.is_empty() {
            self.try_again(&reader.with_carried(rows)?, &again, &tries)?;
        }
        Ok(())
    }

    /// Puts rows into the next attempt's batch, sized anew under its custom ids.
    fn try_again(&mut self, rows: &BatchRows, again: &[usize], tries: &[Tries]) -> anyhow::Result<()> {
        let first_row = rows.row_ids.value(again[0]);
        if self.next.is_none() {
            let first = Position { row: first_row, ..Position::default() };
            let (job, id, nonce) = (self.job.spec.id.clone(), self.next_id, self.next_nonce.clone());
            let writer = BatchWriter::new(&rows.carried.schema(), BatchHead { job, id, nonce, first }, self.codec)?;
            self.next = Some(Next { writer, first_row, rows: 0, send_bytes: 0 });
        }
        let Some(next) = &mut self.next else { return Ok(()) };
        for row in again {
            let place = u32::try_from(next.rows)?;
            let id = CustomId { nonce: self.next_nonce.as_str(), row: place };
            let size = self.job.requests.sent_size(&rows.carried, *row, &id);
            next.send_bytes +=
                size.map_err(|failure| anyhow::anyhow!("a row that was sent can't be: {}", failure.message))?;
            next.rows += 1;
        }
        next.writer.push_selected(rows, again, tries)?;
        Ok(())
    }
}

impl Settling<'_> {
    fn settle<'s>(&'s self, rows: &'s BatchRows, row: usize, line: &'s mut Vec<u8>) -> anyhow::Result<Settled<'s>> {
        let tries = rows.tries(row);
        if let Some((kind, message)) = rows.local_failure(row) {
            return Ok(Settled::failed(RowStatus::Failed, kind, message.into(), tries));
        }
        let outcome = match self.answers.of(rows.first_in_batch + row, line)? {
            Said::Ended(outcome) => outcome,
            Said::Nothing => {
                let unmentioned = &self.ended.unmentioned;
                return Ok(self.failed(unmentioned.kind, unmentioned.message.as_str().into(), tries));
            }
            Said::TooLong => {
                let message = "the provider's line for this row is too long to be read";
                return Ok(self.failed(FailureKind::Malformed, message.into(), tries));
            }
        };
        Ok(match outcome {
            Outcome::Answered { response: text, finish_reason, model, tokens } => {
                Settled { status: RowStatus::Answered, kind: None, text, finish_reason, model, tokens, tries }
            }
            Outcome::Failed { kind, message, model, tokens } => {
                Settled { model, tokens, ..self.failed(self.ended.why(kind), message, tries) }
            }
        })
    }

    /// A failure, for good or to be tried again.
    fn failed<'s>(&self, kind: FailureKind, message: Cow<'s, str>, mut tries: Tries) -> Settled<'s> {
        let status = decide::settle(kind, &mut tries, self.table, self.ended.unwanted);
        Settled::failed(status, kind, message, tries)
    }
}

impl<'a> Settled<'a> {
    fn failed(status: RowStatus, kind: FailureKind, text: Cow<'a, str>, tries: Tries) -> Self {
        Self { status, kind: Some(kind), text, finish_reason: None, model: None, tokens: None, tries }
    }

    fn result(&self, row: u64) -> ResultRow<'_> {
        let answered = self.status == RowStatus::Answered;
        ResultRow {
            row,
            status: self.status,
            response: answered.then_some(self.text.as_ref()),
            error_kind: self.kind,
            error: (!answered).then_some(self.text.as_ref()),
            finish_reason: self.finish_reason.as_deref(),
            model: self.model.as_deref(),
            usage: self.tokens.map_or_else(Usage::default, Usage::from),
            tries: self.tries.total(),
        }
    }
}

impl Sums {
    fn add(&mut self, settled: &Settled<'_>, price: Option<&ListedPrice>) {
        self.counts.record(settled.status, settled.kind);
        if let (RowStatus::Retried, Some(kind)) = (settled.status, settled.kind) {
            *self.retried.entry(kind).or_default() += 1;
        }
        self.tokens += settled.tokens.unwrap_or_default();
        if let (Some(sum), Some(price)) = (&mut self.cost, price) {
            match &settled.tokens {
                Some(tokens) => *sum += &price.cost(tokens),
                None => sum.unmetered += u64::from(settled.status == RowStatus::Answered),
            }
        }
    }
}

impl Next {
    pub(crate) async fn finish(
        self,
        mut object: ObjectWriter,
        key: String,
        id: BatchId,
        nonce: Nonce,
    ) -> anyhow::Result<BatchRef> {
        let end = Position::default();
        let (encoded, meta) = self.writer.finish(end, self.rows, self.send_bytes)?;
        object.write(encoded).await?;
        let written = object.finish().await?;
        let data = DataRef { key, checksum: written.checksum, bytes: written.bytes, rows: meta.rows };
        Ok(BatchRef { id, nonce, first_row: self.first_row, data, send_rows: self.rows, send_bytes: self.send_bytes })
    }
}
