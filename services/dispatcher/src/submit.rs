//! The steps of a submission, as the log orders them. Each step's write comes before the next step's deed.

use std::sync::Arc;
use std::time::Duration;

use events::{BatchDispatched, Event, Submission};
use futures::StreamExt;
use model::facts::SCHEMA;
use model::{BatchId, BatchRef, SubmissionEntry, SubmissionStep, keys};
use providers::CreateOutcome;
use requests::Job;
use runtime::{Admission, Edge, Outbox, PutOnce, Verdict};

use crate::Dispatcher;
use crate::caps::Place;
use crate::decide::{self, Next, OpenFile, Stop};
use crate::encode::Encoding;
use crate::fence::Fence;
use crate::metrics::{Fenced, Outcome};

/// How long a loser of a log entry waits at first: the winner is at work.
const LOSER_WAIT: Duration = Duration::from_millis(500);
/// How long after an unknown outcome the fence is tried.
const AFTER_UNKNOWN: Duration = Duration::from_secs(1);

/// One batch attempt of one job.
pub(crate) struct Task<'a> {
    pub(crate) job: &'a Arc<Job>,
    pub(crate) batch: &'a BatchRef,
}

/// What a batch waited for before it was claimed.
struct Admitted {
    _place: Option<Place>,
    _admission: Admission,
}

/// How a turn at the log ended.
enum Turn {
    /// Read the log again and go on.
    Again,
    /// Give the place back for a while.
    Later(Duration),
}

impl Dispatcher {
    /// Brings one batch attempt's log to its end, or waits.
    pub(crate) async fn submit(
        &self,
        job: &Arc<Job>,
        batch: &BatchRef,
        tries: u32,
        out: &Outbox,
    ) -> anyhow::Result<Verdict> {
        let task = Task { job, batch };
        let shortest_look = job.provider.poll_schedule().after(1);
        match decide::wait_before_attempt(batch.id.attempt, shortest_look) {
            Some(wait) if tries == 0 => return Ok(Verdict::Later(self.context.clock.jitter(wait))),
            _ => {}
        }
        // Held until the poller is told: what was admitted counts as at the provider from then on.
        let mut admission = None;
        loop {
            let log = self.log(&task).await?;
            let stop = self.stop(&task).await?;
            let turn = match decide::next(&log, &self.epoch, stop) {
                Next::Emit(step) => {
                    faults::crash_point!(DispatcherSubmitted);
                    out.emit(dispatched(&task, &step)).await?;
                    drop(admission);
                    return Ok(Verdict::Done);
                }
                Next::Unsend { seq, kind, message } => {
                    self.write(&task, seq, SubmissionStep::Unsent { kind, message }).await?;
                    Turn::Again
                }
                Next::Claim { seq, held, fence, stop } => {
                    // Before the claim, never after a create: what is perhaps paid for must not wait for room. Nor do retries.
                    if stop.is_none() && fence.is_none() && batch.id.attempt == 1 && admission.is_none() {
                        admission = Some(self.admitted(&task, log.is_empty(), out).await?);
                        // The wait may have been long: whether it is still to be sent is looked up again.
                        continue;
                    }
                    self.claimed(&task, seq, held, fence, stop, tries).await?
                }
            };
            match turn {
                Turn::Again => {}
                Turn::Later(wait) => return Ok(Verdict::Later(self.context.clock.jitter(wait))),
            }
        }
    }

    /// Waits for a place under the caps, and then for room at the pollers. A batch with a log has its place.
    async fn admitted(&self, task: &Task<'_>, new: bool, out: &Outbox) -> anyhow::Result<Admitted> {
        let place = if new { self.caps.place(task.job, task.batch.id, out).await? } else { None };
        let admission = out.admit(Edge::Submissions, &task.job.spec.id).await?;
        Ok(Admitted { _place: place, _admission: admission })
    }

    /// Steps 1 to 5 of the protocol.
    async fn claimed(
        &self,
        task: &Task<'_>,
        seq: u32,
        held: bool,
        fence: Option<OpenFile>,
        stop: Option<Stop>,
        tries: u32,
    ) -> anyhow::Result<Turn> {
        let claim = SubmissionStep::Claim { epoch: self.epoch.clone() };
        if !held && !self.write(task, seq, claim).await? {
            return Ok(Turn::Later(loser_wait(tries)));
        }
        faults::crash_point!(DispatcherClaimed);
        let began = self.context.clock.monotonic();
        if let Some(open) = fence
            && let Fence::Found(provider_batch) = self.fenced(task, &open).await?
        {
            self.write(task, seq + 1, SubmissionStep::Submitted { provider_batch, adopted: true }).await?;
            return Ok(Turn::Again);
        }
        if let Some(stop) = stop {
            let unsent = SubmissionStep::Unsent { kind: stop.kind(), message: stop.message().to_owned() };
            self.write(task, seq + 1, unsent).await?;
            return Ok(Turn::Again);
        }
        let file = match self.upload(task).await {
            Ok(file) => file,
            Err(error) => return self.refused_upload(task, seq + 1, error, tries).await,
        };
        faults::crash_point!(DispatcherUploaded);
        if faults::is_broken(faults::Mutation::CreateUnrecorded) {
            return self.create(task, seq + 1, &file.id, (began, tries)).await;
        }
        let (file_id, created_at) = (file.id.clone(), file.created_at);
        let recorded = SubmissionStep::File { epoch: self.epoch.clone(), file_id, created_at };
        if !self.write(task, seq + 1, recorded).await? {
            return Ok(Turn::Later(loser_wait(tries)));
        }
        faults::crash_point!(DispatcherRecorded);
        self.create(task, seq + 2, &file.id, (began, tries)).await
    }

    /// The fence, counted by what it found.
    async fn fenced(&self, task: &Task<'_>, open: &OpenFile) -> anyhow::Result<Fence> {
        let fenced = self.fence(task, open).await;
        let found = match &fenced {
            Ok(Fence::Found(_)) => Fenced::Adopted,
            Ok(Fence::Clear) => Fenced::Cleared,
            Err(_) => Fenced::Failed,
        };
        self.metrics.record_fence(task.job.spec.provider(), found);
        fenced
    }

    async fn upload(&self, task: &Task<'_>) -> anyhow::Result<providers::UploadedFile> {
        let (job, batch) = (task.job, task.batch);
        let data = self.context.store.fetch_verified(&batch.data, &self.context.scratch).await?;
        let encoding = Encoding::open(data.try_clone()?, Arc::clone(job), self.config.piece_bytes)?;
        let name = keys::upload_name(&job.spec.id, batch.id, &self.epoch);
        let uploaded = job.provider.upload(&name, batch.send_bytes, encoding.into_stream().boxed()).await?;
        tracing::info!(job = %job.spec.id, batch = %batch.id, file = uploaded.id, bytes = batch.send_bytes, "uploaded");
        Ok(uploaded)
    }

    /// An upload that the provider refuses would be refused again: it is recorded as a refused create is, since no create
    /// can be under way. Whatever else went wrong comes again.
    async fn refused_upload(
        &self,
        task: &Task<'_>,
        seq: u32,
        error: anyhow::Error,
        tries: u32,
    ) -> anyhow::Result<Turn> {
        let Some(providers::Error::Rejected { status, code, message }) = error.downcast_ref() else {
            return Err(error);
        };
        let (status, code, message) = (*status, code.clone(), message.clone());
        tracing::warn!(job = %task.job.spec.id, batch = %task.batch.id, status, code, "the provider refused the upload");
        self.write(task, seq, SubmissionStep::Rejected { status, code, message }).await?;
        Ok(Turn::Later(self.wait_after(status, None, tries)))
    }

    fn wait_after(&self, status: u16, retry_after: Option<Duration>, tries: u32) -> Duration {
        let limited = Duration::from_millis(self.config.limited_wait_ms);
        decide::wait_after_refusal(status, retry_after, tries, limited)
    }

    /// Sends the one create of this file and records what came of it. `began` is when this try began.
    async fn create(
        &self,
        task: &Task<'_>,
        seq: u32,
        file_id: &str,
        (began, tries): (Duration, u32),
    ) -> anyhow::Result<Turn> {
        let (job, batch) = (task.job, task.batch);
        let mut created = job.provider.create(file_id, &task.metadata()).await;
        if faults::is_broken(faults::Mutation::RetryCreate) && matches!(created, CreateOutcome::Unknown { .. }) {
            created = job.provider.create(file_id, &task.metadata()).await;
        }
        faults::crash_point!(DispatcherCreated);
        match created {
            CreateOutcome::Accepted(created) => {
                tracing::info!(job = %job.spec.id, batch = %batch.id, provider_batch = created.id, "submitted");
                let provider_batch = created.id;
                if self.write(task, seq, SubmissionStep::Submitted { provider_batch, adopted: false }).await? {
                    self.metrics.record_submitted(self.context.clock.monotonic().saturating_sub(began));
                }
                Ok(Turn::Again)
            }
            CreateOutcome::Rejected { status, code, message, retry_after } => {
                tracing::warn!(job = %job.spec.id, batch = %batch.id, status, code, "the provider refused the create");
                self.write(task, seq, SubmissionStep::Rejected { status, code, message }).await?;
                // Should the refusal be final, the next turn says so after this wait.
                Ok(Turn::Later(self.wait_after(status, retry_after, tries)))
            }
            CreateOutcome::Unknown { reason } => {
                self.metrics.record_ambiguous(job.spec.provider());
                tracing::warn!(job = %job.spec.id, batch = %batch.id, reason, "the create's outcome is unknown");
                Ok(Turn::Later(decide::growing(AFTER_UNKNOWN, tries)))
            }
        }
    }

    /// The log's steps, first to last.
    async fn log(&self, task: &Task<'_>) -> anyhow::Result<Vec<SubmissionStep>> {
        let (job, id) = (&task.job.spec.id, task.batch.id);
        let listed = self.context.store.list(&keys::submission_log(job, id)).await?;
        let mut steps = Vec::with_capacity(listed.len());
        for seq in (1..).take(listed.len()) {
            let key = keys::submission(job, id, seq);
            let entry = self.context.store.get_json::<SubmissionEntry>(&key).await?;
            let entry =
                entry.ok_or_else(|| anyhow::anyhow!("{key} is missing from a log of {} entries", listed.len()))?;
            steps.push(entry.step);
        }
        Ok(steps)
    }

    /// Puts a log entry; whether it was won.
    async fn write(&self, task: &Task<'_>, seq: u32, step: SubmissionStep) -> anyhow::Result<bool> {
        let clock = &self.context.clock;
        let outcome = outcome_of(&step);
        let entry = SubmissionEntry { schema: SCHEMA, nonce: clock.nonce(), at: clock.now(), step };
        let key = keys::submission(&task.job.spec.id, task.batch.id, seq);
        let won = matches!(self.context.store.put_once(&key, &entry).await?, PutOnce::Won);
        if let (true, Some(outcome)) = (won, outcome) {
            self.metrics.record_outcome(task.job.spec.provider(), outcome, task.batch.send_rows);
        }
        Ok(won || faults::is_broken(faults::Mutation::IgnoreLostEntry))
    }

    /// Whether there is a reason not to send this batch.
    async fn stop(&self, task: &Task<'_>) -> anyhow::Result<Option<Stop>> {
        if task.batch.send_rows == 0 {
            return Ok(Some(Stop::NothingToSend));
        }
        if self.context.store.exists(&keys::cancel(&task.job.spec.id)).await? {
            return Ok(Some(Stop::Cancelled));
        }
        Ok((self.context.clock.now() >= task.job.deadline).then_some(Stop::Deadline))
    }
}

impl Task<'_> {
    /// What marks this attempt's batch at the provider. The nonce tells it from a job of the same name elsewhere.
    pub(crate) fn mark(&self) -> String {
        let BatchId { number, attempt } = self.batch.id;
        format!("{}/{number}/{attempt}/{}", self.job.spec.id, self.batch.nonce)
    }

    fn metadata(&self) -> std::collections::BTreeMap<String, String> {
        [(MARK.to_owned(), self.mark())].into()
    }
}

/// The metadata key of the mark.
pub(crate) const MARK: &str = "batchmill";

fn loser_wait(tries: u32) -> Duration {
    decide::growing(LOSER_WAIT, tries.min(7))
}

fn outcome_of(step: &SubmissionStep) -> Option<Outcome> {
    match step {
        SubmissionStep::Submitted { adopted: true, .. } => Some(Outcome::Adopted),
        SubmissionStep::Submitted { .. } => Some(Outcome::Submitted),
        SubmissionStep::Rejected { .. } => Some(Outcome::Rejected),
        SubmissionStep::Unsent { .. } => Some(Outcome::Unsent),
        SubmissionStep::Claim { .. } | SubmissionStep::File { .. } => None,
    }
}

fn dispatched(task: &Task<'_>, step: &SubmissionStep) -> Event {
    let submission = match step {
        SubmissionStep::Submitted { provider_batch, .. } => {
            Submission::Submitted { provider_batch: provider_batch.clone() }
        }
        _ => Submission::Unsent,
    };
    Event::BatchDispatched(BatchDispatched { job: task.job.spec.id.clone(), batch: task.batch.clone(), submission })
}
