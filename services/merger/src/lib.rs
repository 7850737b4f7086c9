//! The merger: takes `job.planned` and `batch.collected`, and once the plan is covered zips the batches with their
//! results into the output, batch after batch, in row order; then it ends the job.
//!
//! What it promises: the output's bytes are a function of the facts, so two mergers can't disagree; and a job does not end
//! unless each row of its plan is in the output exactly once, answered or failed. `5-end.json` is written last: who reads
//! it may read the output.
//!
//! It holds no event while it waits: one for a plan that is not covered yet is done at once, since the last fact sees all
//! others. While batches are missing, an event costs no read: which are covered is noted, and looked up only now and then.
//!
//! - [`decide`]: whether a plan is covered, which attempt speaks for a row. Pure.
//! - `merge`: batch after batch; `groups`: a row group's way into the output; `failed`: the failed rows beside it;
//!   `zip`: a batch's attempts side by side; `source`: a data object, read once and checked meanwhile.

pub mod config;
pub mod decide;
mod failed;
mod groups;
mod merge;
pub mod metrics;
mod source;
mod zip;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use events::{Event, JobEnded, Topic};
use model::facts::SCHEMA;
use model::price::JobCost;
use model::{
    BatchId, Counts, EndFact, JobFact, JobId, OutputRef, PlanFact, PlanOutcome, Refusal, ResultFact, Tokens, keys,
};
use runtime::{Context, Outbox, PutOnce, Reason, Received, Room, Verdict};
use tables::batch::Codec;

pub use config::Config;
use decide::Covered;
use metrics::Metrics;

/// The room.
pub struct Merger {
    context: Context,
    metrics: Metrics,
    codec: Codec,
    covered: Mutex<Covered>,
}

/// How a job ends.
struct End {
    batches: u32,
    attempts: u32,
    counts: Counts,
    /// Rows of the plan.
    planned_rows: u64,
    tokens: Tokens,
    cost: Option<JobCost>,
    output: Option<OutputRef>,
    failed_rows: Option<OutputRef>,
    refusal: Option<Refusal>,
}

impl Merger {
    /// The room, with its settings from the context.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(context: &Context) -> anyhow::Result<Self> {
        let Config {} = context.settings.section("merger")?;
        Ok(Self {
            metrics: Metrics::new(context)?,
            codec: context.common.store.codec.parse().map_err(anyhow::Error::msg)?,
            covered: Mutex::default(),
            context: context.clone(),
        })
    }

    fn covered(&self) -> MutexGuard<'_, Covered> {
        self.covered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a batch as covered; whether others surely are not.
    fn is_waiting(&self, job: &JobId, batch: u32) -> bool {
        let mut covered = self.covered();
        covered.note(job, batch);
        let team = covered.lacks_some(job, self.context.clock.monotonic());
        team.inspect(|team| runtime::trace::note_team(team)).is_some()
    }

    /// Ends the job if it can be ended. A look is dear where there are many batches, so it is not for every event.
    async fn look(&self, job: &JobId, out: &Outbox) -> anyhow::Result<Verdict> {
        let (store, began) = (&self.context.store, self.context.clock.monotonic());
        if let Some(end) = store.get_json::<EndFact>(&keys::end(job)).await? {
            return self.close(&end, out).await;
        }
        let fact = store.get_json::<JobFact>(&keys::job(job)).await?;
        let plan = store.get_json::<PlanFact>(&keys::plan(job)).await?;
        let (Some(fact), Some(plan)) = (fact, plan) else { return Ok(Verdict::Done) };
        runtime::trace::note_team(&fact.team);
        let end = match plan.outcome {
            PlanOutcome::Refused { refusal } => End::refused(refusal),
            PlanOutcome::Planned { rows, batches, pricing, .. } => {
                let Some(results) = self.results(&fact, batches.len(), began).await? else { return Ok(Verdict::Done) };
                let mut batches = batches;
                if faults::is_broken(faults::Mutation::MergeUncovered) {
                    batches.retain(|first| decide::attempts_of(first, &results).is_some());
                }
                let attempts: Option<Vec<_>> =
                    batches.iter().map(|first| decide::attempts_of(first, &results)).collect();
                let Some(attempts) = attempts else {
                    let covered = batches.iter().filter(|first| decide::attempts_of(first, &results).is_some());
                    self.remember(&fact, covered.map(|first| first.id.number), batches.len(), began);
                    return Ok(Verdict::Done);
                };
                self.merge(&fact, (rows, pricing.as_ref()), &batches, &attempts).await?
            }
        };
        faults::crash_point!(MergerMerged);
        let end = self.put_end(&fact, end).await?;
        faults::crash_point!(MergerEnded);
        self.close(&end, out).await
    }

    /// Notes which batches are covered, so that events for the others need no look.
    fn remember(&self, job: &JobFact, covered: impl Iterator<Item = u32>, planned: usize, began: Duration) {
        let now = self.context.clock.monotonic();
        self.covered().list((&job.spec.id, &job.team), covered, planned, (began, now));
    }

    /// All result facts of a job. None while a batch has none at all: its keys say so, and no fact is read.
    async fn results(
        &self,
        job: &JobFact,
        planned: usize,
        began: Duration,
    ) -> anyhow::Result<Option<BTreeMap<BatchId, ResultFact>>> {
        let (store, id) = (&self.context.store, &job.spec.id);
        let listed = store.list(&keys::results_folder(id)).await?;
        let attempts = listed.iter().filter_map(|listed| match keys::parse(&listed.key) {
            Some(keys::Key::Result(_, attempt)) => Some(attempt),
            _ => None,
        });
        let attempts: Vec<BatchId> = attempts.collect();
        let begun: BTreeSet<u32> = attempts.iter().map(|attempt| attempt.number).collect();
        if begun.len() < planned && !faults::is_broken(faults::Mutation::MergeUncovered) {
            self.remember(job, begun.into_iter(), planned, began);
            return Ok(None);
        }
        let facts = store.get_each(attempts.into_iter().map(|attempt| (attempt, keys::result(id, attempt)))).await?;
        let facts = facts.into_iter().map(|(attempt, fact)| {
            let gone = || format!("{} was listed and is gone", keys::result(id, attempt));
            Ok((attempt, fact.with_context(gone)?))
        });
        facts.collect::<anyhow::Result<_>>().map(Some)
    }

    async fn put_end(&self, job: &JobFact, end: End) -> anyhow::Result<EndFact> {
        let clock = &self.context.clock;
        let refused = end.refusal.is_some();
        let fact = EndFact {
            schema: SCHEMA,
            nonce: clock.nonce(),
            job: job.spec.id.clone(),
            team: job.team.clone(),
            accepted_at: job.accepted_at,
            ended_at: clock.now(),
            batches: end.batches,
            attempts: end.attempts,
            counts: end.counts,
            tokens: end.tokens,
            cost: end.cost,
            output: end.output,
            failed_rows: end.failed_rows,
            refusal: end.refusal,
        };
        match self.context.store.put_once(&keys::end(&job.spec.id), &fact).await? {
            PutOnce::Won => {
                self.metrics.record_end(&fact, end.planned_rows);
                let (rows, failed) = (fact.counts.rows, fact.counts.failed_rows());
                tracing::info!(job = %fact.job, refused, rows, failed, "ended");
                Ok(fact)
            }
            PutOnce::Lost(theirs) => Ok(theirs),
        }
    }

    /// Tells the end, then removes the job from those that are open.
    async fn close(&self, end: &EndFact, out: &Outbox) -> anyhow::Result<Verdict> {
        out.emit(Event::JobEnded(JobEnded::from(end))).await?;
        faults::crash_point!(MergerTold);
        self.context.store.delete(&keys::open(&end.job)).await?;
        self.covered().forget(&end.job);
        Ok(Verdict::Done)
    }
}

impl End {
    fn refused(refusal: Refusal) -> Self {
        let (counts, tokens, planned_rows) = (Counts::default(), Tokens::default(), 0);
        let (cost, output, failed_rows, refusal) = (None, None, None, Some(refusal));
        Self { batches: 0, attempts: 0, counts, planned_rows, tokens, cost, output, failed_rows, refusal }
    }
}

#[async_trait::async_trait]
impl Room for Merger {
    fn name(&self) -> &'static str {
        "merger"
    }

    fn topics(&self) -> Vec<Topic> {
        vec![Topic::Results]
    }

    /// One event of a job at a time: a merge must not run beside another of the same job in one process.
    fn serial_by_job(&self) -> bool {
        true
    }

    /// A partition that went to another merger and comes back brings only the events that the other has not finished: the
    /// last batch may be among them, and one that the other noted be missing here for ever.
    fn reassigned(&self) {
        self.covered().forget_all();
    }

    async fn handle(&self, received: &Received, out: &Outbox) -> anyhow::Result<Verdict> {
        match &received.event {
            Event::JobPlanned(planned) => {
                // The reconciler says this when a job does not move: then the facts are asked, whatever events said.
                self.covered().forget(&planned.job);
                self.look(&planned.job, out).await
            }
            Event::BatchCollected(collected) => {
                if !collected.last || self.is_waiting(&collected.job, collected.id.number) {
                    return Ok(Verdict::Done);
                }
                self.look(&collected.job, out).await
            }
            other => Ok(Verdict::Reject(Reason::unexpected(other))),
        }
    }
}
