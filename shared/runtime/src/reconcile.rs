//! Rebuilding the work list from the facts.
//!
//! Events are hints. Should a topic be lost, or the memory bus die with its process, everything that is still to do follows
//! from the facts (`model::next`), and is emitted again here. That it may be under way already does no harm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use events::{BatchDispatched, BatchReady, Event, JobEnded, JobPlanned, JobSubmitted, PlanSummary, Submission};
use jiff::{SignedDuration, Timestamp};
use model::facts::JobFacts;
use model::keys::{self, Key};
use model::next::{Action, next_actions};
use model::{BatchId, JobId, PlanOutcome, SubmissionStep, Team};
use tokio::time::MissedTickBehavior;

use crate::clock::rest_after;
use crate::context::{Context, Reconcile};
use crate::facts::load_listed;
use crate::room::Room;
use crate::store::{Error, Listed, Result, Store};
use crate::work_loop::Outbox;

/// What is looked at, and whether it is only looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reconciling<'a> {
    /// This job alone, instead of all that are open.
    pub only: Option<&'a JobId>,
    /// A task whose newest fact is younger is left alone: it is probably under way. A zero takes all. This is for liveness,
    /// so the store's clock and ours need not agree well.
    pub older_than: Duration,
    /// Nothing is emitted.
    pub dry_run: bool,
}

/// What was found of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconciled {
    /// The job.
    pub job: JobId,
    /// Whether any fact of it exists.
    pub known: bool,
    /// What was emitted, or would be.
    pub emitted: Vec<Action>,
    /// How many tasks are too young.
    pub young: usize,
    /// Why its facts can't be read; then nothing was emitted.
    pub corrupt: Option<String>,
}

/// Emits what the facts of open jobs leave to do, and gives the number of events. With `only`, for that job alone.
///
/// # Errors
/// If the store or the bus can't be used. A job whose facts are corrupt is logged and left out, unless it is `only`.
pub async fn reconcile(context: &Context, older_than: Duration, only: Option<&JobId>) -> anyhow::Result<usize> {
    let mut emitted = 0;
    reconcile_each(context, Reconciling { only, older_than, dry_run: false }, |job| emitted += job.emitted.len())
        .await?;
    Ok(emitted)
}

/// The same, telling of each job when it is done with it. Where the stages are behind, it waits for them as they do for one
/// another.
///
/// # Errors
/// As [`reconcile`]; of a job whose facts are corrupt `each` is told too.
pub async fn reconcile_each(
    context: &Context,
    how: Reconciling<'_>,
    mut each: impl FnMut(&Reconciled),
) -> anyhow::Result<()> {
    let jobs = match how.only {
        Some(job) => vec![job.clone()],
        None => open_jobs(&context.store).await?,
    };
    let out = Outbox::new(context, "reconciler");
    for job in jobs {
        match reconcile_job(context, &out, how, &job).await {
            Ok(done) => each(&done),
            Err(error) if how.only.is_none() && is_corrupt(&error) => {
                let why = format!("{error:#}");
                tracing::error!(%job, error = why, "a job's facts can't be read; it is left alone");
                each(&Reconciled { job, known: true, emitted: Vec::new(), young: 0, corrupt: Some(why) });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_corrupt(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Corrupt { .. } | Error::Missing { .. }))
}

async fn open_jobs(store: &Store) -> Result<Vec<JobId>> {
    let listed = store.list(keys::OPEN).await?;
    let jobs = listed.iter().filter_map(|object| keys::parse(&object.key));
    Ok(jobs.filter_map(|key| if let Key::Open(job) = key { Some(job) } else { None }).collect())
}

async fn reconcile_job(
    context: &Context,
    out: &Outbox,
    how: Reconciling<'_>,
    job: &JobId,
) -> anyhow::Result<Reconciled> {
    let mut listed = context.store.list(&keys::job_folder(job)).await?;
    let facts = load_listed(&context.store, job, &listed).await?;
    listed
        .extend(context.store.list(&keys::open(job)).await?.into_iter().filter(|object| object.key == keys::open(job)));
    let known = facts != JobFacts::default();
    let newest = Newest::of(&listed);
    let mut done = Reconciled { job: job.clone(), known, emitted: Vec::new(), young: 0, corrupt: None };
    for action in next_actions(&facts) {
        if !how.older_than.is_zero() && age(context.clock.now(), newest.to(&action)) < how.older_than {
            done.young += 1;
            continue;
        }
        if !how.dry_run {
            emit(context, out, job, &facts, action.clone()).await?;
        }
        done.emitted.push(action);
    }
    Ok(done)
}

fn age(now: Timestamp, newest: Option<Timestamp>) -> Duration {
    let since = newest.map_or(SignedDuration::MAX, |newest| now.duration_since(newest));
    Duration::try_from(since).unwrap_or_default()
}

/// When something last happened, to each batch attempt and to the job at all. Made of a listing once: a job may have as many
/// actions as batches.
struct Newest {
    job: Option<Timestamp>,
    attempts: BTreeMap<BatchId, Timestamp>,
}

impl Newest {
    fn of(listed: &[Listed]) -> Self {
        let (mut job, mut attempts) = (None, BTreeMap::new());
        for object in listed {
            let Some(key) = keys::parse(&object.key) else { continue };
            job = job.max(Some(object.modified));
            if let Key::BatchData(_, id, _) | Key::Submission(_, id, _) = key {
                let newest = attempts.entry(id).or_insert(object.modified);
                *newest = object.modified.max(*newest);
            }
        }
        Self { job, attempts }
    }

    /// When something last happened to what the action is about: to a batch attempt, or else to the job.
    fn to(&self, action: &Action) -> Option<Timestamp> {
        match action {
            Action::Dispatch(batch) | Action::Collect(batch, _) => self.attempts.get(&batch.id).copied(),
            _ => self.job,
        }
    }
}

async fn emit(context: &Context, out: &Outbox, job: &JobId, facts: &JobFacts, action: Action) -> anyhow::Result<()> {
    let job = job.clone();
    match action {
        Action::Split { team, spec } => out.emit_for(JobSubmitted { spec: *spec }, &team).await,
        Action::Dispatch(batch) => out.emit(BatchReady { job, batch }).await,
        Action::Collect(batch, step) => {
            let submission = match step {
                SubmissionStep::Submitted { provider_batch, .. } => Submission::Submitted { provider_batch },
                _ => Submission::Unsent,
            };
            out.emit(BatchDispatched { job, batch, submission }).await
        }
        Action::Merge => match planned(&job, facts) {
            Some(event) => out.emit_for(event, &Team::shared()).await,
            None => Ok(()),
        },
        Action::Close(end) => {
            out.emit(JobEnded::from(&*end)).await?;
            Ok(context.store.delete(&keys::open(&job)).await?)
        }
    }
}

fn planned(job: &JobId, facts: &JobFacts) -> Option<Event> {
    let outcome = match &facts.plan.as_ref()?.outcome {
        PlanOutcome::Planned { rows, batches, .. } => {
            PlanSummary::Planned { rows: *rows, batches: u32::try_from(batches.len()).unwrap_or(u32::MAX) }
        }
        PlanOutcome::Refused { refusal } => PlanSummary::Refused { code: refusal.code },
    };
    Some(JobPlanned { job: job.clone(), outcome }.into())
}

/// Rebuilds work as the context says, until the process stops. An error is logged, and the next round is made all the same.
pub(crate) async fn keep_reconciling(context: Context) {
    if context.reconcile == Reconcile::Off {
        return;
    }
    if context.reconcile == Reconcile::AtStart {
        round(&context, Duration::ZERO).await;
    }
    let every = Duration::from_secs(context.common.work_loop.reconcile_after_seconds.max(1));
    // Services that were started together do not all look at once.
    let mut wait = context.clock.jitter(every);
    loop {
        context.clock.sleep(wait).await;
        let began = context.clock.monotonic();
        round(&context, every).await;
        let took = context.clock.monotonic().saturating_sub(began);
        // A round also waits where the stages are behind, so the rest is never longer than usual.
        wait = every.saturating_sub(took).max(rest_after(took, every));
    }
}

/// Lets each room clean up now and then, until the process stops. Nothing waits for it.
pub(crate) async fn keep_cleaning(context: Context, rooms: Vec<Arc<dyn Room>>) {
    let settings = &context.common.cleanup;
    if context.reconcile == Reconcile::Off || settings.retention_hours == 0 {
        return;
    }
    let every = Duration::from_secs(u64::from(settings.every_hours.max(1)) * 3_600);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + context.clock.jitter(every), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for room in &rooms {
            if let Err(error) = room.clean().await {
                tracing::warn!(
                    room = room.name(),
                    error = format!("{error:#}"),
                    "cleaning up failed; it is tried again later"
                );
            }
        }
    }
}

async fn round(context: &Context, older_than: Duration) {
    match reconcile(context, older_than, None).await {
        Ok(0) => {}
        Ok(emitted) => tracing::info!(emitted, "rebuilt work from the facts"),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "the work list could not be rebuilt; it is tried again later")
        }
    }
}

#[cfg(test)]
mod tests;
