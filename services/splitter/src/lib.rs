//! The splitter: takes `job.submitted`, streams the input into batch data, and, the whole input read and valid, commits
//! the plan; only then does it tell anyone.
//!
//! What it promises: nothing is spent on a job that can't be answered whole, since every check that needs no provider is
//! made before `2-plan.json` exists. A split that dies goes on behind its last durable batch. Two splitters at one job
//! can't disagree: the plan is put once, and who loses adopts the winner's.
//!
//! - [`decide`]: where batches end, what is refused, what of a dead split counts. Pure.
//! - `intake`: whose job, whose input, whose output.
//! - `cut`: reading and sizing; `batches`: writing, beside it. `resume`: what an earlier split left.

mod batches;
pub mod config;
mod cut;
pub mod decide;
mod intake;
pub mod metrics;
mod resume;

use anyhow::Context as _;
use events::{BatchReady, Event, JobEnded, JobPlanned, PlanSummary, Topic};
use model::facts::SCHEMA;
use model::price::Prices;
use model::retry::RetryTable;
use model::{CancelFact, EndFact, JobFact, JobId, JobSpec, PlanFact, PlanOutcome, Refusal, RefusalCode, Team, keys};
use providers::Providers;
use runtime::{Context, Outbox, PutOnce, Reason, Received, Room, Verdict};
use tables::batch::Codec;

pub use config::Config;
use metrics::Metrics;

/// The code of a job whose id is another's.
const ID_CONFLICT: &str = "job_id_conflict";

/// The room.
pub struct Splitter {
    context: Context,
    config: Config,
    retry: RetryTable,
    prices: Prices,
    metrics: Metrics,
    providers: Providers,
    codec: Codec,
}

/// Why a plan could not be made now.
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// For good: the job is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// For now: store or network failed.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl Splitter {
    /// The room, with its settings from the context.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(context: &Context, providers: &Providers) -> anyhow::Result<Self> {
        Ok(Self {
            config: context.settings.section("splitter")?,
            retry: context.settings.section("retry")?,
            prices: context.common.prices.list()?,
            metrics: Metrics::new(&context.registry)?,
            providers: providers.clone(),
            codec: context.common.store.codec.parse().map_err(anyhow::Error::msg)?,
            context: context.clone(),
        })
    }

    async fn split(&self, spec: &JobSpec, team: &Team, out: &Outbox) -> anyhow::Result<Verdict> {
        if let Some(conflict) = self.conflict(spec, team).await? {
            return Ok(Verdict::Reject(Reason { code: ID_CONFLICT, message: conflict }));
        }
        let store = &self.context.store;
        if let Some(end) = store.get_json::<EndFact>(&keys::end(&spec.id)).await? {
            out.emit(Event::JobEnded(JobEnded::from(&end))).await?;
            return Ok(Verdict::Done);
        }
        if !self.open(spec, team).await? {
            // Another spec of this id came in between: the next try sees it.
            return Ok(Verdict::Later(std::time::Duration::ZERO));
        }
        let plan = match store.get_json::<PlanFact>(&keys::plan(&spec.id)).await? {
            Some(plan) => plan,
            None => self.plan(spec, team).await?,
        };
        announce(&spec.id, &plan.outcome, out).await?;
        Ok(Verdict::Done)
    }

    /// Makes the plan and puts it; who loses adopts the winner's.
    async fn plan(&self, spec: &JobSpec, team: &Team) -> anyhow::Result<PlanFact> {
        let began = self.context.clock.monotonic();
        let outcome = match self.plan_outcome(spec, team).await {
            Ok(outcome) => outcome,
            Err(Stop::Refused(refusal)) => PlanOutcome::Refused { refusal },
            Err(Stop::Failed(error)) => return Err(error),
        };
        let clock = &self.context.clock;
        let plan = PlanFact { schema: SCHEMA, nonce: clock.nonce(), planned_at: clock.now(), outcome };
        match self.context.store.put_once(&keys::plan(&spec.id), &plan).await? {
            PutOnce::Won => {
                faults::crash_point!(SplitterPlanned);
                let refused = matches!(plan.outcome, PlanOutcome::Refused { .. });
                self.metrics.record_plan(refused, clock.monotonic().saturating_sub(began));
                tracing::info!(job = %spec.id, refused, "planned");
                Ok(plan)
            }
            PutOnce::Lost(theirs) => Ok(theirs),
        }
    }

    async fn plan_outcome(&self, spec: &JobSpec, team: &Team) -> Result<PlanOutcome, Stop> {
        let job = self.take_up(spec, team).await?;
        faults::crash_point!(SplitterTaken);
        self.refuse_if_cancelled(&spec.id).await?;
        let (rows, batches) = self.cut(&job).await?;
        faults::crash_point!(SplitterRead);
        self.refuse_if_cancelled(&spec.id).await?;
        let patience = self.config.deadline(spec);
        let deadline =
            self.context.clock.now().checked_add(patience).context("the deadline is past the calendar's end")?;
        let retry = self.retry.clone().with(&spec.retry).limits().clone();
        let pricing = Some(self.prices.of(&spec.request.model));
        Ok(PlanOutcome::Planned { rows, deadline, retry, pricing, batches })
    }

    async fn refuse_if_cancelled(&self, job: &JobId) -> Result<(), Stop> {
        if self.context.store.exists(&keys::cancel(job)).await.map_err(anyhow::Error::from)? {
            return Err(Refusal::new(RefusalCode::Cancelled, "the job was cancelled before it was planned").into());
        }
        Ok(())
    }

    /// Notes a wish to cancel. A job that nobody knows, or that has ended, can't be cancelled: the wish is dropped.
    /// So is that of another team, which the topic tells.
    async fn cancel(&self, job: &JobId, team: &Team) -> anyhow::Result<Verdict> {
        let store = &self.context.store;
        let open = store.get_json::<model::OpenJob>(&keys::open(job)).await?;
        if open.is_some_and(|open| open.team == *team) && !store.exists(&keys::end(job)).await? {
            let clock = &self.context.clock;
            let fact = CancelFact { schema: SCHEMA, nonce: clock.nonce(), requested_at: clock.now() };
            store.put_once(&keys::cancel(job), &fact).await?;
        }
        Ok(Verdict::Done)
    }

    /// Whether this job id belongs to another job, and how they differ.
    async fn conflict(&self, spec: &JobSpec, team: &Team) -> anyhow::Result<Option<String>> {
        let job = self.context.store.get_json::<JobFact>(&keys::job(&spec.id)).await?;
        let open = self.context.store.get_json::<model::OpenJob>(&keys::open(&spec.id)).await?;
        let known = job.map(|j| (j.team, j.spec)).or_else(|| open.map(|o| (o.team, o.spec)));
        Ok(known.and_then(|(known_team, known_spec)| {
            let differs = match () {
                () if known_team != *team => "is another team's",
                () if known_spec.digest() != spec.digest() => "belongs to a job with another spec",
                () => return None,
            };
            Some(format!("job id {} {differs}: choose another id", spec.id))
        }))
    }
}

/// Tells the rooms downstream about a plan: one `batch.ready` a batch, then `job.planned`.
async fn announce(job: &JobId, plan: &PlanOutcome, out: &Outbox) -> anyhow::Result<()> {
    let outcome = match plan {
        PlanOutcome::Refused { refusal } => PlanSummary::Refused { code: refusal.code },
        PlanOutcome::Planned { rows, batches, .. } => {
            for batch in batches {
                out.emit(Event::BatchReady(BatchReady { job: job.clone(), batch: batch.clone() })).await?;
            }
            PlanSummary::Planned { rows: *rows, batches: u32::try_from(batches.len())? }
        }
    };
    out.emit(Event::JobPlanned(JobPlanned { job: job.clone(), outcome })).await
}

#[async_trait::async_trait]
impl Room for Splitter {
    fn name(&self) -> &'static str {
        "splitter"
    }

    fn topics(&self) -> Vec<Topic> {
        vec![Topic::Jobs]
    }

    fn reasons(&self) -> &'static [&'static str] {
        &[ID_CONFLICT]
    }

    async fn handle(&self, received: &Received, out: &Outbox) -> anyhow::Result<Verdict> {
        match &received.event {
            Event::JobSubmitted(submitted) => self.split(&submitted.spec, &received.team, out).await,
            Event::JobCancelRequested(wish) => self.cancel(&wish.job, &received.team).await,
            other => Ok(Verdict::Reject(Reason::unexpected(other))),
        }
    }
}
