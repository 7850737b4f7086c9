//! The end of an attempt: the provider's files are read, the batch data is walked, and one fact commits the results and the
//! next attempt's batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::facts::SCHEMA;
use model::price::ListedPrice;
use model::{BatchId, BatchRef, DataRef, FailureKind, ResultFact, Tokens, keys};
use providers::Error;
use requests::Job;
use runtime::store::ObjectWriter;
use runtime::{PutOnce, cpu};
use tables::batch::{BatchReader, Codec};
use tables::result::ResultWriter;

use crate::Poller;
use crate::answers::Answers;
use crate::decide::{self, Unmentioned};
use crate::download;
use crate::metrics::{Collected, Ending};
use crate::walk::{Settling, Sums, Walk};
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
    pub(crate) fn why(&self, kind: FailureKind) -> FailureKind {
        let asked = kind == FailureKind::Cancelled && self.unmentioned.kind == FailureKind::Deadline;
        if asked { FailureKind::Deadline } else { kind }
    }
}

impl Poller {
    /// Accounts for each row and puts the result fact; who loses adopts the winner's.
    pub(crate) async fn collect(&self, watched: &Watched, ended: Ended) -> anyhow::Result<ResultFact> {
        let (job, batch) = (&watched.job, &watched.batch);
        let (store, began) = (&self.context.store, self.context.clock.monotonic());
        let data = store.fetch_verified(&batch.data, &self.context.scratch).await?;
        let answers = self.answers(watched, &ended).await?;
        faults::crash_point!(PollerDownloaded);
        let mut walk = self.walk(job, batch, &ended, &answers)?;
        let nonce = self.context.clock.nonce();
        let result_key = keys::result_data(&job.spec.id, batch.id, &nonce);
        let next_key = keys::batch_data(&job.spec.id, walk.next_id, &walk.next_nonce);
        let mut result_object = store.upload(&result_key);
        let mut next_object: Option<ObjectWriter> = None;
        // The caller's columns are only needed of rows that are tried again.
        let mut reader = BatchReader::open_projected(data.try_clone()?, Some(&[]))?;
        while let Some(rows) = reader.next().transpose()? {
            cpu::run_blocking_section(|| {
                walk.group(&reader, &rows)?;
                anyhow::Ok(walk.results.end_group()?)
            })?;
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
            counts: walk.sums.counts,
            tokens: walk.sums.tokens,
            cost: walk.sums.cost,
            provider_tokens: ended.tokens,
            provider_batch: ended.provider_batch.clone(),
            provider_status: ended.provider_status.clone(),
            unknown_ids: answers.unknown(),
            duplicates: answers.duplicates(),
            next,
        };
        faults::crash_point!(PollerStored);
        let fact = self.put(watched, &ended, &walk.sums.retried, fact).await?;
        self.metrics.record_collection(self.context.clock.monotonic().saturating_sub(began));
        Ok(fact)
    }

    /// What the provider's files say.
    async fn answers<'w>(&self, watched: &'w Watched, ended: &Ended) -> anyhow::Result<Answers<'w>> {
        let (job, batch) = (&watched.job, &watched.batch);
        let (provider, rows) = (job.provider.as_ref(), usize::try_from(batch.data.rows)?);
        let scratch = self.context.scratch.clone();
        let mut answers = Answers::new(provider, batch.nonce.clone(), rows, &self.config, scratch);
        for file in &ended.files {
            match download::read(provider, file, &mut answers).await {
                Ok(()) => {}
                // Rows that it has not told of count as not mentioned then.
                Err(error)
                    if ended.lost_files_are_gone && matches!(error.downcast_ref(), Some(Error::NotFound { .. })) =>
                {
                    answers.abandon_file();
                    tracing::warn!(job = %job.spec.id, batch = %batch.id, file, "the provider's file is gone");
                }
                Err(error) => return Err(error),
            }
        }
        answers.finish()?;
        Ok(answers)
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
        answers: &'a Answers<'a>,
    ) -> anyhow::Result<Walk<'a>> {
        let codec = Codec::for_table(&job.table, self.codec);
        let settling = Settling { ended, answers, table: &job.retry };
        let sums = Sums { cost: job.price.as_ref().map(ListedPrice::nothing), ..Sums::default() };
        Ok(Walk {
            job,
            settling,
            results: ResultWriter::new(&job.spec.id, batch.id, codec)?,
            next: None,
            sums,
            line: Vec::new(),
            codec,
            next_id: BatchId { attempt: batch.id.attempt + 1, ..batch.id },
            next_nonce: self.context.clock.nonce(),
        })
    }
}
