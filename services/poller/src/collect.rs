//! From lines to result rows: the batch data is walked in its own order, each row looks up its line, and what is to be
//! tried again goes into the next attempt's batch in the same walk. One fact commits both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::facts::SCHEMA;
use model::price::{Cost, ListedPrice};
use model::retry::{RetryTable, Tries};
use model::{BatchId, BatchRef, Counts, CustomId, DataRef, FailureKind, Nonce, ResultFact, RowStatus, Tokens, keys};
use providers::{Error, Outcome};
use requests::Job;
use runtime::store::ObjectWriter;
use runtime::{PutOnce, cpu};
use tables::Position;
use tables::batch::{BatchHead, BatchReader, BatchRows, BatchWriter, Codec};
use tables::result::{ResultRow, ResultWriter, Usage};

use crate::Poller;
use crate::decide::{self, Unmentioned};
use crate::index::Index;
use crate::metrics::{Collected, Ending};
use crate::spool::spool;
use crate::watch::Watched;

/// How a batch attempt ended, and where its lines are.
pub(crate) struct Ended {
    pub(crate) provider_batch: Option<String>,
    pub(crate) provider_status: Option<String>,
    pub(crate) ending: Ending,
    /// The provider's files, output first.
    pub(crate) files: Vec<String>,
    /// The provider's sum of tokens over the whole batch.
    pub(crate) tokens: Option<Tokens>,
    /// How a row fails that no line speaks of.
    pub(crate) unmentioned: Unmentioned,
    /// Whether nothing is to be tried again.
    pub(crate) unwanted: bool,
    /// Whether a file that the provider does not find counts as gone; else it is asked for again.
    pub(crate) lost_files_are_gone: bool,
}

impl Ended {
    /// A batch that the provider never had, or has no more.
    pub(crate) fn unsent(unmentioned: Unmentioned, unwanted: bool) -> Self {
        let (files, lost_files_are_gone) = (Vec::new(), false);
        let (provider_batch, provider_status, ending, tokens) = (None, None, Ending::Unsent, None);
        Self { provider_batch, provider_status, ending, files, tokens, unmentioned, unwanted, lost_files_are_gone }
    }
}

impl Ended {
    /// A row that the provider cancelled because we asked for it, at the deadline, failed for the deadline.
    fn why(&self, kind: FailureKind) -> FailureKind {
        let asked = kind == FailureKind::Cancelled && self.unmentioned.kind == FailureKind::Deadline;
        if asked { FailureKind::Deadline } else { kind }
    }
}

/// One row's end in this attempt.
struct Settled {
    status: RowStatus,
    kind: Option<FailureKind>,
    text: String,
    finish_reason: Option<String>,
    model: Option<String>,
    tokens: Option<Tokens>,
    tries: Tries,
}

/// The walk's state.
struct Walk<'a> {
    job: &'a Arc<Job>,
    ended: &'a Ended,
    index: Index,
    table: RetryTable,
    results: ResultWriter,
    next: Option<Next>,
    counts: Counts,
    /// Of `counts`, the rows that are tried again, by kind.
    retried: BTreeMap<FailureKind, u64>,
    tokens: Tokens,
    /// What they cost, if that is known.
    cost: Option<Cost>,
    price: Option<&'a ListedPrice>,
    codec: Codec,
    /// The next attempt, should there be one.
    next_id: BatchId,
    next_nonce: Nonce,
}

/// The next attempt's batch, as it is written.
struct Next {
    writer: BatchWriter,
    first_row: u64,
    rows: u64,
    send_bytes: u64,
}

impl Poller {
    /// Accounts for each row and puts the result fact; who loses adopts the winner's.
    pub(crate) async fn collect(&self, watched: &Watched, ended: Ended) -> anyhow::Result<ResultFact> {
        let (job, batch) = (&watched.job, &watched.batch);
        let (store, began) = (&self.context.store, self.context.clock.monotonic());
        let data = store.fetch_verified(&batch.data, &self.context.scratch).await?;
        let mut files = Vec::new();
        for file in &ended.files {
            match spool(job.provider.as_ref(), file, &self.context.scratch).await {
                Ok(spooled) => files.push(spooled),
                // Its rows count as not mentioned then.
                Err(error)
                    if ended.lost_files_are_gone && matches!(error.downcast_ref(), Some(Error::NotFound { .. })) =>
                {
                    tracing::warn!(job = %job.spec.id, batch = %batch.id, file, "the provider's file is gone");
                }
                Err(error) => return Err(error),
            }
        }
        faults::crash_point!(PollerDownloaded);
        let handles = files.iter().map(|file| file.try_clone()).collect::<Result<Vec<_>, _>>()?;
        let rows = usize::try_from(batch.data.rows)?;
        let max_line = self.config.max_line_bytes;
        let index =
            cpu::run_blocking_section(|| Index::build(handles, job.provider.as_ref(), &batch.nonce, rows, max_line))?;
        let mut walk = self.walk(job, batch, &ended, index)?;
        let nonce = self.context.clock.nonce();
        let result_key = keys::result_data(&job.spec.id, batch.id, &nonce);
        let next_key = keys::batch_data(&job.spec.id, walk.next_id, &walk.next_nonce);
        let mut result_object = store.upload(&result_key);
        let mut next_object: Option<ObjectWriter> = None;
        for rows in BatchReader::open(data.try_clone()?)? {
            let rows = rows?;
            cpu::run_blocking_section(|| walk.group(&rows))?;
            walk.results.end_group()?;
            result_object.write(walk.results.take()).await?;
            if let Some(next) = &mut walk.next {
                next_object.get_or_insert_with(|| store.upload(&next_key)).write(next.writer.take()).await?;
            }
        }
        let next = match (walk.next.take(), next_object) {
            (Some(next), Some(object)) => {
                Some(next.finish(object, next_key, walk.next_id, walk.next_nonce.clone()).await?)
            }
            _ => None,
        };
        let written_rows = walk.results.rows();
        anyhow::ensure!(
            written_rows == batch.data.rows,
            "batch {} has {} rows, {written_rows} came out",
            batch.id,
            batch.data.rows
        );
        result_object.write(walk.results.finish()?).await?;
        let written = result_object.finish().await?;
        let data = DataRef { key: result_key, checksum: written.checksum, bytes: written.bytes, rows: written_rows };
        let fact = ResultFact {
            schema: SCHEMA,
            nonce,
            collected_at: self.context.clock.now(),
            id: batch.id,
            data,
            counts: walk.counts,
            tokens: walk.tokens,
            cost: walk.cost,
            provider_tokens: ended.tokens,
            provider_batch: ended.provider_batch.clone(),
            provider_status: ended.provider_status.clone(),
            unknown_ids: walk.index.unknown,
            duplicates: walk.index.duplicates,
            next,
        };
        faults::crash_point!(PollerStored);
        let fact = self.put(watched, &ended, &walk.retried, fact).await?;
        self.metrics.record_collection(self.context.clock.monotonic().saturating_sub(began));
        Ok(fact)
    }

    async fn put(
        &self,
        watched: &Watched,
        ended: &Ended,
        retried: &BTreeMap<FailureKind, u64>,
        fact: ResultFact,
    ) -> anyhow::Result<ResultFact> {
        let job = &watched.job;
        match self.context.store.put_once(&keys::result(&job.spec.id, fact.id), &fact).await? {
            PutOnce::Won => {
                let turnaround =
                    Duration::try_from(fact.collected_at.duration_since(watched.last.at)).unwrap_or_default();
                let (spec, team, ending) = (&job.spec, &job.team, ended.ending);
                self.metrics.record_collected(&Collected { spec, team, fact: &fact, retried, ending, turnaround });
                let (rows, retried) = (fact.counts.rows, fact.counts.retried);
                tracing::info!(job = %job.spec.id, batch = %fact.id, rows, retried, "collected");
                if decide::usage_differs(&fact.tokens, fact.provider_tokens.as_ref()) {
                    let (rows, provider) = (fact.tokens, fact.provider_tokens);
                    tracing::warn!(job = %job.spec.id, batch = %fact.id, ?rows, ?provider, "the batch's usage is not the sum of its rows'");
                }
                Ok(fact)
            }
            PutOnce::Lost(theirs) => Ok(theirs),
        }
    }

    fn walk<'a>(
        &self,
        job: &'a Arc<Job>,
        batch: &BatchRef,
        ended: &'a Ended,
        index: Index,
    ) -> anyhow::Result<Walk<'a>> {
        let codec = Codec::for_table(&job.table, self.codec);
        Ok(Walk {
            job,
            ended,
            index,
            table: job.retry.clone(),
            results: ResultWriter::new(&job.spec.id, batch.id, codec)?,
            next: None,
            counts: Counts::default(),
            retried: BTreeMap::new(),
            tokens: Tokens::default(),
            cost: job.price.as_ref().map(ListedPrice::nothing),
            price: job.price.as_ref(),
            codec,
            next_id: BatchId { attempt: batch.id.attempt + 1, ..batch.id },
            next_nonce: self.context.clock.nonce(),
        })
    }
}

impl Walk<'_> {
    /// Settles one row group's rows.
    fn group(&mut self, rows: &BatchRows) -> anyhow::Result<()> {
        let (mut again, mut tries) = (Vec::new(), Vec::new());
        for row in 0..rows.len() {
            let settled = self.settle(rows, row)?;
            self.record(rows.row_ids.value(row), &settled)?;
            if settled.status == RowStatus::Retried {
                again.push(row);
                tries.push(settled.tries);
            }
        }
        if !again.is_empty() {
            self.try_again(rows, &again, &tries)?;
        }
        Ok(())
    }

    fn settle(&self, rows: &BatchRows, row: usize) -> anyhow::Result<Settled> {
        if let Some((kind, message)) = rows.local_failure(row) {
            return Ok(Settled::local(kind, message, rows.tries(row)));
        }
        let decoded = match self.index.line(rows.first_in_batch + row)? {
            None if self.index.is_too_long(rows.first_in_batch + row) => {
                Err((FailureKind::Malformed, "the provider's line for this row is too long to be read".to_owned()))
            }
            None => Err((self.ended.unmentioned.kind, self.ended.unmentioned.message.clone())),
            Some(line) => match self.job.provider.decode_line(&line) {
                Ok(answer) => Ok(answer.outcome),
                Err(bad) => Err((FailureKind::Malformed, bad.to_string())),
            },
        };
        let (kind, message, model, tokens) = match decoded {
            Ok(Outcome::Answered { response, finish_reason, model, tokens }) => {
                let tries = rows.tries(row);
                let status = RowStatus::Answered;
                return Ok(Settled { status, kind: None, text: response, finish_reason, model, tokens, tries });
            }
            Ok(Outcome::Failed { kind, message, model, tokens }) => (self.ended.why(kind), message, model, tokens),
            Err((kind, message)) => (kind, message, None, None),
        };
        let mut tries = rows.tries(row);
        let status = decide::settle(kind, &mut tries, &self.table, self.ended.unwanted);
        Ok(Settled { status, kind: Some(kind), text: message, finish_reason: None, model, tokens, tries })
    }

    fn record(&mut self, row: u64, settled: &Settled) -> anyhow::Result<()> {
        let answered = settled.status == RowStatus::Answered;
        let usage = settled.tokens.map_or_else(Usage::default, Usage::from);
        self.results.push(&ResultRow {
            row,
            status: settled.status,
            response: answered.then_some(settled.text.as_str()),
            error_kind: settled.kind,
            error: (!answered).then_some(settled.text.as_str()),
            finish_reason: settled.finish_reason.as_deref(),
            model: settled.model.as_deref(),
            usage,
            tries: settled.tries.total(),
        })?;
        self.counts.record(settled.status, settled.kind);
        if let (RowStatus::Retried, Some(kind)) = (settled.status, settled.kind) {
            *self.retried.entry(kind).or_default() += 1;
        }
        self.tokens += settled.tokens.unwrap_or_default();
        if let (Some(sum), Some(price)) = (&mut self.cost, self.price) {
            match &settled.tokens {
                Some(tokens) => *sum += &price.cost(tokens),
                None => sum.unmetered += u64::from(answered),
            }
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

impl Settled {
    /// A row that failed before it could be sent.
    fn local(kind: FailureKind, message: &str, tries: Tries) -> Self {
        Self {
            status: RowStatus::Failed,
            kind: Some(kind),
            text: message.to_owned(),
            finish_reason: None,
            model: None,
            tokens: None,
            tries,
        }
    }
}

impl Next {
    async fn finish(
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
