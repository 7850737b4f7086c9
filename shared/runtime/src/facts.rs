//! Reading a job's facts, and rebuilding the work list from them.
//!
//! Events are hints. Should a topic be lost, or the memory bus die with its process, everything that is still to do follows
//! from the facts (`model::next`), and is emitted again here. That it may be under way already does no harm.

use std::collections::BTreeMap;
use std::time::Duration;

use events::{BatchDispatched, BatchReady, Event, JobEnded, JobPlanned, JobSubmitted, PlanSummary, Submission};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use model::facts::JobFacts;
use model::keys::{self, Key};
use model::next::{Action, next_actions};
use model::{BatchId, JobId, PlanOutcome, ResultFact, SubmissionEntry, SubmissionStep, Team};
use tokio::time::MissedTickBehavior;

use crate::context::{Context, Reconcile};
use crate::store::{Error, Listed, Result, Store};
use crate::work_loop::Outbox;

/// Facts that are read at a time.
const PARALLEL_READS: usize = 16;

/// All facts of a job: which exist, and what the small ones say. Of each submission log the latest entry.
///
/// # Errors
/// If any could not be read: part of the facts is no state.
pub async fn load_facts(store: &Store, job: &JobId) -> Result<JobFacts> {
    let listed = store.list(&keys::job_folder(job)).await?;
    load_listed(store, job, &listed).await
}

async fn load_listed(store: &Store, job: &JobId, listed: &[Listed]) -> Result<JobFacts> {
    let found: Vec<Key> = listed.iter().filter_map(|object| keys::parse(&object.key)).collect();
    let mut latest: BTreeMap<BatchId, u32> = BTreeMap::new();
    let mut results = Vec::new();
    for key in &found {
        match key {
            Key::Submission(_, id, seq) => {
                let last = latest.entry(*id).or_default();
                *last = (*last).max(*seq);
            }
            Key::Result(_, id) => results.push(*id),
            _ => {}
        }
    }
    let submissions = latest.into_iter().map(async |(id, seq)| {
        let entry: SubmissionEntry = required(store, &keys::submission(job, id, seq)).await?;
        Ok::<(BatchId, (u32, SubmissionStep)), Error>((id, (seq, entry.step)))
    });
    let results = results.into_iter().map(async |id| {
        let fact: ResultFact = required(store, &keys::result(job, id)).await?;
        Ok::<(BatchId, ResultFact), Error>((id, fact))
    });
    Ok(JobFacts {
        open: store.get_json(&keys::open(job)).await?,
        job: store.get_json(&keys::job(job)).await?,
        plan: store.get_json(&keys::plan(job)).await?,
        submissions: stream::iter(submissions).buffer_unordered(PARALLEL_READS).try_collect().await?,
        results: stream::iter(results).buffer_unordered(PARALLEL_READS).try_collect().await?,
        cancelled: found.iter().any(|key| matches!(key, Key::Cancel(_))),
        end: store.get_json(&keys::end(job)).await?,
    })
}

async fn required<T: serde::de::DeserializeOwned>(store: &Store, key: &str) -> Result<T> {
    store.get_json(key).await?.ok_or_else(|| Error::Missing { key: key.to_owned() })
}

/// Emits what the facts of open jobs leave to do, and gives the number of events. With `only`, for that job alone.
///
/// A task whose newest fact is younger than `older_than` is left alone: it is probably under way. A zero takes all. This is
/// for liveness, so the store's clock and ours need not agree well.
///
/// # Errors
/// If the store or the bus can't be used. A job whose facts are corrupt is logged and left out, unless it is `only`.
pub async fn reconcile(context: &Context, older_than: Duration, only: Option<&JobId>) -> anyhow::Result<usize> {
    let jobs = match only {
        Some(job) => vec![job.clone()],
        None => open_jobs(&context.store).await?,
    };
    let out = Outbox::new(context, "reconciler");
    let mut emitted = 0;
    for job in jobs {
        match reconcile_job(context, &out, older_than, &job).await {
            Ok(count) => emitted += count,
            Err(error) if only.is_none() && is_corrupt(&error) => {
                tracing::error!(%job, error = format!("{error:#}"), "a job's facts can't be read; it is left alone");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(emitted)
}

fn is_corrupt(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Corrupt { .. } | Error::Missing { .. }))
}

async fn open_jobs(store: &Store) -> Result<Vec<JobId>> {
    let listed = store.list(keys::OPEN).await?;
    let jobs = listed.iter().filter_map(|object| keys::parse(&object.key));
    Ok(jobs.filter_map(|key| if let Key::Open(job) = key { Some(job) } else { None }).collect())
}

async fn reconcile_job(context: &Context, out: &Outbox, older_than: Duration, job: &JobId) -> anyhow::Result<usize> {
    let mut listed = context.store.list(&keys::job_folder(job)).await?;
    let facts = load_listed(&context.store, job, &listed).await?;
    listed
        .extend(context.store.list(&keys::open(job)).await?.into_iter().filter(|object| object.key == keys::open(job)));
    let mut emitted = 0;
    for action in next_actions(&facts) {
        if !older_than.is_zero() && age(context.clock.now(), newest(&action, &listed)) < older_than {
            continue;
        }
        emit(context, out, job, &facts, action).await?;
        emitted += 1;
    }
    Ok(emitted)
}

fn age(now: Timestamp, newest: Option<Timestamp>) -> Duration {
    let since = newest.map_or(SignedDuration::MAX, |newest| now.duration_since(newest));
    Duration::try_from(since).unwrap_or_default()
}

/// When something last happened to what the action is about: to a batch attempt, or else to the job.
fn newest(action: &Action, listed: &[Listed]) -> Option<Timestamp> {
    let about = |key: &Key| match (action, key) {
        (Action::Dispatch(batch) | Action::Collect(batch, _), Key::BatchData(_, id, _) | Key::Submission(_, id, _)) => {
            batch.id == *id
        }
        (Action::Dispatch(_) | Action::Collect(..), _) => false,
        _ => true,
    };
    let times = listed.iter().filter(|object| keys::parse(&object.key).is_some_and(|key| about(&key)));
    times.map(|object| object.modified).max()
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
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + context.clock.jitter(every), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        round(&context, every).await;
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
