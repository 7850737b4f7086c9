//! Looking at one batch attempt: what the facts say of it, then what the provider says, then wait or collect.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use events::{BatchCollected, BatchReady, Event};
use faults::{Mutation, is_broken};
use model::{BatchId, BatchRef, FailureKind, JobId, ResultFact, SubmissionEntry, SubmissionStep, keys};
use providers::{BatchStatus, Error, ProviderBatch};
use requests::Job;
use runtime::{Outbox, Reason, Verdict};

use crate::Poller;
use crate::collect::Ended;
use crate::decide::{self, Look, Unmentioned};
use crate::metrics::Ending;

/// How many batch attempts are remembered at most.
const MOST_WATCHED: usize = 10_000;

/// What is known of a batch attempt that is waited for. All but the counts is immutable in the store.
pub(crate) struct Watched {
    pub(crate) job: Arc<Job>,
    pub(crate) batch: BatchRef,
    /// The last entry of its submission log.
    pub(crate) last: SubmissionEntry,
    looks: AtomicU32,
    fileless_looks: AtomicU32,
    /// Looks that showed an ended batch, and were followed by a failed collection.
    final_looks: AtomicU32,
    unwanted_looks: AtomicU32,
}

/// What the facts say of a batch attempt that an event names.
enum Known {
    Watched(Arc<Watched>),
    /// The event is ahead of the facts, or of another store.
    Nothing(Reason),
    /// Its log has not ended: the dispatcher will tell again.
    NotDispatched,
}

/// Both result files, whatever the batch's status says.
fn files_of(batch: &ProviderBatch) -> Vec<String> {
    let errors = batch.error_file.clone().filter(|_| !is_broken(Mutation::IgnoreErrorFile));
    let trusted = batch.status == BatchStatus::Completed || !is_broken(Mutation::TrustStatus);
    [batch.output_file.clone(), errors].into_iter().flatten().filter(|_| trusted).collect()
}

/// How a look ended.
enum Seen {
    Wait(Duration),
    Ended(Ended),
}

impl Poller {
    pub(crate) async fn watch(&self, job: &JobId, id: BatchId, out: &Outbox) -> anyhow::Result<Verdict> {
        if let Some(fact) = self.context.store.get_json::<ResultFact>(&keys::result(job, id)).await? {
            return self.announce(job, &fact, out).await;
        }
        let watched = match self.known(job, id).await? {
            Known::Watched(watched) => watched,
            Known::NotDispatched => return Ok(Verdict::Done),
            Known::Nothing(reason) => return Ok(Verdict::Reject(reason)),
        };
        let ended = match self.look(&watched).await? {
            Seen::Wait(wait) => return Ok(Verdict::Later(self.context.clock.jitter(wait))),
            Seen::Ended(ended) => ended,
        };
        if faults::is_broken(faults::Mutation::TellBeforePut) {
            let counts = model::Counts::default();
            out.emit(Event::BatchCollected(BatchCollected { job: job.clone(), id, last: true, counts })).await?;
            self.collect(&watched, ended).await?;
            return Ok(Verdict::Done);
        }
        let fact = self.collect(&watched, ended).await?;
        faults::crash_point!(PollerCollected);
        self.announce(job, &fact, out).await
    }

    /// Tells what a result fact says: the next attempt first, so that a merger never hears of a batch as ended before
    /// its rows are on their way.
    async fn announce(&self, job: &JobId, fact: &ResultFact, out: &Outbox) -> anyhow::Result<Verdict> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&(job.clone(), fact.id));
        self.metrics.at_provider.record_gone((job, fact.id));
        if let Some(next) = &fact.next {
            out.emit(Event::BatchReady(BatchReady { job: job.clone(), batch: next.clone() })).await?;
            faults::crash_point!(PollerRetried);
        }
        let (last, counts) = (fact.next.is_none(), fact.counts.clone());
        out.emit(Event::BatchCollected(BatchCollected { job: job.clone(), id: fact.id, last, counts })).await?;
        Ok(Verdict::Done)
    }

    async fn known(&self, job: &JobId, id: BatchId) -> anyhow::Result<Known> {
        let task = (job.clone(), id);
        if let Some(watched) = self.watched.lock().unwrap_or_else(PoisonError::into_inner).get(&task) {
            return Ok(Known::Watched(Arc::clone(watched)));
        }
        let nothing =
            |unknown: requests::Unknown| Known::Nothing(Reason { code: unknown.code(), message: unknown.to_string() });
        let job = match self.jobs.get(job).await? {
            Ok(job) => job,
            Err(unknown) => return Ok(nothing(unknown)),
        };
        let batch = match self.jobs.batch(&job, id).await? {
            Ok(batch) => batch,
            Err(unknown) => return Ok(nothing(unknown)),
        };
        let Some(last) = self.last_entry(&job.spec.id, id).await? else { return Ok(Known::NotDispatched) };
        self.metrics.met(&job.spec, &job.team);
        let (looks, fileless_looks, final_looks, unwanted_looks) = Default::default();
        let watched = Arc::new(Watched { job, batch, last, looks, fileless_looks, final_looks, unwanted_looks });
        let mut all = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_WATCHED {
            // What went to another process stays behind; what is still ours is looked up again.
            all.clear();
        }
        all.insert(task, Arc::clone(&watched));
        drop(all);
        Ok(Known::Watched(watched))
    }

    /// The entry that ended a submission log; none if it has not ended.
    async fn last_entry(&self, job: &JobId, id: BatchId) -> anyhow::Result<Option<SubmissionEntry>> {
        let store = &self.context.store;
        let entries = u32::try_from(store.list(&keys::submission_log(job, id)).await?.len())?;
        if entries == 0 {
            return Ok(None);
        }
        let last = store.get_json::<SubmissionEntry>(&keys::submission(job, id, entries)).await?;
        let ends = |entry: &SubmissionEntry| {
            matches!(entry.step, SubmissionStep::Submitted { .. } | SubmissionStep::Unsent { .. })
        };
        Ok(last.filter(ends))
    }

    async fn look(&self, watched: &Watched) -> anyhow::Result<Seen> {
        let unwanted = self.unwanted(watched).await?;
        let id = match &watched.last.step {
            SubmissionStep::Submitted { provider_batch, .. } => provider_batch,
            SubmissionStep::Unsent { kind, message } => {
                return Ok(Seen::Ended(Ended::unsent(decide::unsent(*kind, message), unwanted.is_some())));
            }
            _ => anyhow::bail!("a submission log is taken for ended that has not"),
        };
        let provider = &watched.job.provider;
        self.note_look(watched);
        let looks = watched.looks.fetch_add(1, Ordering::Relaxed) + 1;
        let wait = provider.poll_schedule().after(looks);
        let waiting = self.watched.lock().unwrap_or_else(PoisonError::into_inner).len();
        let spec = &watched.job.spec;
        let batch = match self.views.look(&self.context.clock, spec, provider.as_ref(), id, waiting).await {
            Ok(batch) => batch,
            // A batch may be unknown for a moment after its create; for good, the deadline ends it.
            Err(Error::NotFound { .. }) if unwanted != Some(FailureKind::Deadline) => return Ok(Seen::Wait(wait)),
            Err(Error::NotFound { message }) => {
                let rows = Unmentioned {
                    kind: FailureKind::Missing,
                    message: format!("the provider lost the batch: {message}"),
                };
                return Ok(Seen::Ended(Ended {
                    provider_batch: Some(id.clone()),
                    ending: Ending::Lost,
                    ..Ended::unsent(rows, true)
                }));
            }
            Err(error) => return Err(error.into()),
        };
        self.judge(watched, &batch, unwanted, wait).await
    }

    /// A look begins: the batch is at the provider, as far as we know.
    fn note_look(&self, watched: &Watched) {
        let (spec, schedule) = (&watched.job.spec, watched.job.provider.poll_schedule());
        let retry = Duration::from_millis(self.context.common.work_loop.retry_max_ms);
        // Jitter and a busy room make a look late; one that fails is repeated sooner.
        let patience = 2 * (schedule.after(u32::MAX) + retry);
        let batch = (&spec.id, watched.batch.id);
        self.metrics.record_look(spec.provider());
        self.metrics.at_provider.record_waiting(batch, spec.provider(), watched.last.at, patience);
    }

    async fn judge(
        &self,
        watched: &Watched,
        batch: &ProviderBatch,
        unwanted: Option<FailureKind>,
        wait: Duration,
    ) -> anyhow::Result<Seen> {
        let unwanted_looks = match unwanted {
            Some(_) => watched.unwanted_looks.fetch_add(1, Ordering::Relaxed) + 1,
            None => 0,
        };
        let given_up = decide::give_up(batch, unwanted_looks);
        let ending = if given_up.is_some() { Ending::GivenUp } else { Ending::of(batch.status) };
        let look = given_up.map(Look::Collect);
        match look
            .unwrap_or_else(|| decide::look(batch, unwanted.is_some(), watched.fileless_looks.load(Ordering::Relaxed)))
        {
            Look::Wait => {
                if batch.status.is_terminal() {
                    watched.fileless_looks.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Seen::Wait(wait))
            }
            Look::Cancel => {
                match watched.job.provider.cancel(&batch.id).await {
                    // A batch that can't be cancelled has ended, or will: the next look says which.
                    Ok(_) | Err(Error::Rejected { .. } | Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                tracing::info!(job = %watched.job.spec.id, batch = %watched.batch.id, "asked the provider to cancel");
                Ok(Seen::Wait(wait))
            }
            Look::Collect(mut rows) => {
                if let (FailureKind::Cancelled, Some(reason)) = (rows.kind, unwanted) {
                    rows.kind = reason;
                }
                let looks = watched.final_looks.fetch_add(1, Ordering::Relaxed);
                Ok(Seen::Ended(Ended {
                    provider_batch: Some(batch.id.clone()),
                    provider_status: Some(batch.raw_status.clone()),
                    ending,
                    files: files_of(batch),
                    tokens: decide::batch_tokens(batch),
                    unmentioned: rows,
                    unwanted: unwanted.is_some(),
                    lost_files_are_gone: decide::lost_files_are_gone(unwanted.is_some(), looks),
                }))
            }
        }
    }

    /// Whether the job wants no more of its batches, and how their rows fail then.
    async fn unwanted(&self, watched: &Watched) -> anyhow::Result<Option<FailureKind>> {
        if self.context.store.exists(&keys::cancel(&watched.job.spec.id)).await? {
            return Ok(Some(FailureKind::Cancelled));
        }
        Ok((self.context.clock.now() >= watched.job.deadline).then_some(FailureKind::Deadline))
    }
}
