//! The merger: takes `job.planned` and `batch.collected`, and once the plan is covered zips the batches with their
//! results into the output, batch after batch, in row order; then it ends the job.
//!
//! What it promises: the output's bytes are a function of the facts, so two mergers can't disagree; and a job does not end
//! unless each row of its plan is in the output exactly once, answered or failed. `5-end.json` is written last: who reads
//! it may read the output.
//!
//! It holds no event while it waits: one for a plan that is not covered yet is done at once, since the last fact sees all
//! others.
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

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use events::{Event, JobEnded, Topic};
use model::facts::SCHEMA;
use model::price::JobCost;
use model::{
    BatchId, BatchRef, Counts, EndFact, JobFact, JobId, OutputRef, PlanFact, PlanOutcome, Refusal, ResultFact, Tokens,
    keys,
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

    /// Ends the job if it can be ended.
    async fn look(&self, job: &JobId, out: &Outbox) -> anyhow::Result<Verdict> {
        let store = &self.context.store;
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
                if self.covered().lacks_some(job, batches.len(), self.context.clock.monotonic()) {
                    return Ok(Verdict::Done);
                }
                let results = self.results(job).await?;
                let mut batches = batches;
                if faults::is_broken(faults::Mutation::MergeUncovered) {
                    batches.retain(|first| decide::attempts_of(first, &results).is_some());
                }
                let attempts: Option<Vec<_>> =
                    batches.iter().map(|first| decide::attempts_of(first, &results)).collect();
                let Some(attempts) = attempts else {
                    self.remember(job, &batches, &results);
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

    /// Notes which batches are covered, so that events for the others need no list.
    fn remember(&self, job: &JobId, batches: &[BatchRef], results: &BTreeMap<BatchId, ResultFact>) {
        let done = batches.iter().filter(|first| decide::attempts_of(first, results).is_some());
        self.covered().list(job, done.map(|first| first.id.number), self.context.clock.monotonic());
    }

    /// All result facts of a job.
    async fn results(&self, job: &JobId) -> anyhow::Result<BTreeMap<BatchId, ResultFact>> {
        let store = &self.context.store;
        let mut results = BTreeMap::new();
        for listed in store.list(&keys::results_folder(job)).await? {
            if let Some(keys::Key::Result(_, id)) = keys::parse(&listed.key) {
                let fact = store.get_json::<ResultFact>(&listed.key).await?;
                results.insert(id, fact.with_context(|| format!("{} was listed and is gone", listed.key))?);
            }
        }
        Ok(results)
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
                if !collected.last {
                    return Ok(Verdict::Done);
                }
                self.covered().note(&collected.job, collected.id.number);
                self.look(&collected.job, out).await
            }
            other => Ok(Verdict::Reject(Reason::unexpected(other))),
        }
    }
}
