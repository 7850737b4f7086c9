//! Caps: no more than so many batches of an account, or of one of its models, at a time.
//!
//! The gate to the pollers bounds all batches at all providers; this is the finer bound, for accounts that have one in the settings.
//! What is held is counted from the facts ([`reading`], [`chains`]), who is next is decided in [`decide`], and here is the waiting.
//! Retries are never asked for a place, and a batch that has begun keeps its own: both count.
//!
//! **How exact it is.** A dispatcher alone keeps each cap exactly, but for retries. Of several, each may let in at most
//! `loop.max_running` batches that the others do not see yet: it has no more than that many between a place and the end of their
//! submission, and gives no more than that many for one reading. So n dispatchers hold at most (n − 1) × `loop.max_running` more
//! than the cap, whatever the clocks and however old a reading is.
//!
//! Should the facts be unreadable, nobody is let in until they can be read: nothing could be submitted meanwhile anyway.
//!
//! Without a cap in the settings none of this runs.

mod chains;
pub mod decide;
mod reading;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{BatchId, JobId};
use providers::Providers;
use requests::Job;
use runtime::{Context, Outbox, Stopping};
use tokio::sync::{Notify, oneshot};

use crate::metrics::CapMetrics;
use decide::{Cap, Standing};
use reading::{Attempt, Reader, Reading};

/// How much longer than at first a full cap's facts are left alone, at most.
const LONGEST: u32 = 10;

/// The caps of a process.
#[derive(Clone)]
pub(crate) struct Caps(Arc<Inner>);

struct Inner {
    context: Context,
    caps: Vec<Cap>,
    metrics: CapMetrics,
    /// Places that may be taken and not yet submitted, at a time.
    most: usize,
    state: Mutex<State>,
    /// Somebody new waits, or a place was submitted.
    changed: Notify,
    /// Held by the one that reads.
    reader: tokio::sync::Mutex<Reader>,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<JobId, VecDeque<Waiter>>,
    arrivals: u64,
    /// Let in by this process and not yet submitted.
    ours: BTreeSet<Attempt>,
    driven: bool,
}

struct Waiter {
    arrival: u64,
    batch: BatchId,
    granted: oneshot::Sender<Place>,
}

impl State {
    /// The arrivals of each job's requests.
    fn asking(&self) -> BTreeMap<JobId, VecDeque<u64>> {
        let arrivals = |waiters: &VecDeque<Waiter>| waiters.iter().map(|waiter| waiter.arrival).collect();
        self.waiting.iter().map(|(job, waiters)| (job.clone(), arrivals(waiters))).collect()
    }

    fn take(&mut self, job: &JobId) -> Option<Waiter> {
        let waiters = self.waiting.get_mut(job)?;
        let waiter = waiters.pop_front();
        if waiters.is_empty() {
            self.waiting.remove(job);
        }
        waiter
    }

    /// Forgets those whose handler is gone.
    fn prune(&mut self) {
        self.waiting.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.granted.is_closed());
            !waiters.is_empty()
        });
    }
}

/// A place under the caps. It counts as this process's own until it is dropped; by then the facts have it.
pub(crate) struct Place {
    inner: Arc<Inner>,
    attempt: Attempt,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.lock().ours.remove(&self.attempt);
        self.inner.changed.notify_one();
    }
}

impl Caps {
    pub(crate) fn new(context: &Context, providers: &Providers, metrics: CapMetrics) -> Self {
        let mut caps = Vec::new();
        for (provider, of) in providers.caps() {
            let models = of.models.iter().map(|(model, limit)| (Some(model.clone()), *limit));
            for (model, limit) in of.account.map(|limit| (None, limit)).into_iter().chain(models) {
                let cap = Cap { provider: provider.clone(), model, limit: limit.get() };
                metrics.born(&cap);
                caps.push(cap);
            }
        }
        let reader = tokio::sync::Mutex::new(Reader::new(&context.store, &caps));
        Self(Arc::new(Inner {
            caps,
            metrics,
            most: context.common.work_loop.max_running.max(1),
            state: Mutex::default(),
            changed: Notify::new(),
            reader,
            context: context.clone(),
        }))
    }

    /// Waits for a place for a batch that nobody has taken on. None where there is no cap.
    ///
    /// # Errors
    /// [`Stopping`].
    pub(crate) async fn place(&self, job: &Job, batch: BatchId, out: &Outbox) -> Result<Option<Place>, Stopping> {
        let inner = &self.0;
        let (provider, model) = (job.spec.provider(), job.spec.provider_model());
        if !inner.caps.iter().any(|cap| cap.is_on(provider, model)) {
            return Ok(None);
        }
        let granted = inner.ask(&job.spec.id, batch);
        let waiting = async {
            tokio::select! {
                biased;
                () = inner.context.shutdown.cancelled() => Err(Stopping),
                place = granted => place.map_err(|_| Stopping),
            }
        };
        out.aside(waiting).await.map(Some)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(self: &Arc<Self>, job: &JobId, batch: BatchId) -> oneshot::Receiver<Place> {
        let (granted, receiver) = oneshot::channel();
        let (new, driven) = {
            let mut state = self.lock();
            let arrival = state.arrivals;
            state.arrivals += 1;
            let waiters = state.waiting.entry(job.clone()).or_default();
            waiters.push_back(Waiter { arrival, batch, granted });
            (waiters.len() == 1, std::mem::replace(&mut state.driven, true))
        };
        if !driven {
            tokio::spawn(Arc::clone(self).drive());
        } else if new {
            self.changed.notify_one();
        }
        receiver
    }

    /// Gives places to those who wait, until none does or the process stops.
    async fn drive(self: Arc<Self>) {
        let shutdown = self.context.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                let mut state = self.lock();
                let left = std::mem::take(&mut state.waiting);
                state.driven = false;
                drop(state);
                drop(left);
            }
            () = self.serve() => {}
        }
    }

    async fn serve(self: &Arc<Self>) {
        let shortest = Duration::from_millis(self.context.common.backpressure.reading_ms.max(1));
        let mut wait = shortest;
        loop {
            let mut granted = 0;
            if self.lock().ours.len() < self.most {
                granted = self.round().await;
            }
            if self.is_over() {
                return;
            }
            if granted > 0 {
                wait = shortest;
                continue;
            }
            tokio::select! {
                biased;
                () = self.changed.notified() => wait = shortest,
                () = self.context.clock.sleep(wait) => wait = (wait * 2).min(shortest * LONGEST),
            }
        }
    }

    fn is_over(&self) -> bool {
        let mut state = self.lock();
        state.prune();
        state.driven = !state.waiting.is_empty();
        !state.driven
    }

    /// One reading, and what it lets in.
    async fn round(self: &Arc<Self>) -> usize {
        let (before, jobs) = {
            let state = self.lock();
            let ours = state.ours.clone();
            let jobs = ours.iter().map(|(job, _)| job).chain(state.waiting.keys()).cloned().collect();
            (ours, jobs)
        };
        match self.reader.lock().await.read(jobs).await {
            Ok(reading) => self.grant(&reading, before),
            Err(error) => {
                tracing::warn!(%error, "the facts can't be read: nobody gets a place under a cap now");
                0
            }
        }
    }

    /// `before` are our own places from before the reading: it may have passed their logs already.
    fn grant(self: &Arc<Self>, reading: &Reading<'_>, before: BTreeSet<Attempt>) -> usize {
        let mut state = self.lock();
        state.prune();
        let mut ours = before;
        ours.extend(state.ours.iter().cloned());
        let mut standings = reading.standings(&ours);
        let most = self.most.saturating_sub(state.ours.len());
        let granted = decide::grants(&self.caps, &mut standings, state.asking(), most);
        let mut given = Vec::with_capacity(granted.len());
        for job in granted {
            let Some(waiter) = state.take(&job) else { continue };
            let attempt = (job, waiter.batch);
            state.ours.insert(attempt.clone());
            given.push((waiter.granted, Place { inner: Arc::clone(self), attempt }));
        }
        self.record(&standings, &state);
        // Dropping a place takes the lock: one whose handler is gone is dropped when it is free.
        drop(state);
        let count = given.len();
        for (sender, place) in given {
            drop(sender.send(place));
        }
        count
    }

    fn record(&self, standings: &BTreeMap<JobId, Standing>, state: &State) {
        for cap in &self.caps {
            let waiting =
                state.waiting.iter().filter(|(job, _)| standings.get(*job).is_some_and(|job| cap.covers(job)));
            self.metrics.record(cap, cap.held(standings), waiting.map(|(_, waiters)| waiters.len() as u64).sum());
        }
    }
}
