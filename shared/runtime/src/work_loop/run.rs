//! The task that owns a consumer of a room: one for each of its topics.
//!
//! They are members of one group, each of one topic alone. A member of several topics is dealt so many partitions, whichever they
//! are: of two dispatchers one got all of `batches` and the other all of `retries`, and a second one was of no use.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::{Consumer, Delivery, Polled, Record};
use events::Topic;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::Instrument;

use super::dead_letter::Letter;
use super::outbox::{Place, Stopping};
use super::table::{State, Table, Taken};
use super::task::{Ended, Task};
use crate::context::Context;
use crate::metrics::{At, BusOperation, Outcome};
use crate::room::{Received, Room, UNEXPECTED};
use crate::trace::Handling;

/// Events of a topic that may wait for a place; enough for jobs to take turns.
const READY: usize = 1_000;
/// After so many finished events a commit does not wait for its time.
const COMMIT_AFTER: usize = 64;
/// The code of events whose handler panicked too often.
const PANICKED: &str = "handler_panicked";
/// The code of records on a topic whose name can't be read.
const UNKNOWN_TOPIC: &str = "unknown_topic";

/// A room and all that is open in it.
pub(crate) struct Loop {
    context: Context,
    room: Arc<dyn Room>,
    topic: Topic,
    group: String,
    consumer: Consumer,
    topics: Vec<TopicState>,
    table: Table,
    /// With the span of the log in which its handler ran.
    tasks: JoinSet<(u64, Ended, tracing::Span)>,
    freed: Arc<Notify>,
    uncommitted: usize,
}

struct TopicState {
    name: String,
    places: Arc<Semaphore>,
    paused: bool,
}

impl Loop {
    /// Joins the room's consumer group for one of its topics, which is several where teams have their own. Records follow once it
    /// runs.
    pub(crate) fn join(context: &Context, room: Arc<dyn Room>, topic: Topic) -> anyhow::Result<Self> {
        let group = context.group(room.name());
        let names: Vec<String> = context.topic_names(topic);
        let consumer = context.bus.consumer(&group, &names).with_context(|| format!("consumer group {group}"))?;
        for name in &names {
            let reasons =
                events::Poison::CODES.iter().chain(room.reasons()).chain(&[UNEXPECTED, PANICKED, UNKNOWN_TOPIC]);
            context.metrics.born(At { room: room.name(), topic: name, group: &group }, reasons.copied());
        }
        context.health.beat((room.name(), topic), &context.clock);
        let places = || Arc::new(Semaphore::new(context.common.work_loop.max_running.max(1)));
        let topics = names.into_iter().map(|name| TopicState { name, places: places(), paused: false }).collect();
        Ok(Self {
            context: context.clone(),
            room,
            topic,
            group,
            consumer,
            topics,
            table: Table::default(),
            tasks: JoinSet::new(),
            freed: Arc::default(),
            uncommitted: 0,
        })
    }

    /// Works until the process is to stop, then drains.
    ///
    /// # Errors
    /// What the loop can't go on after: a fatal error of the bus.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        tracing::info!(room = self.room.name(), group = self.group, "takes events");
        let mut ticks = tokio::time::interval(self.commit_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.context.shutdown.clone();
        loop {
            self.context.health.beat((self.room.name(), self.topic), &self.context.clock);
            self.table.wake(Instant::now());
            self.start_ready();
            self.pause_or_resume()?;
            if self.uncommitted >= COMMIT_AFTER {
                self.commit().await?;
            }
            let due = self.table.next_due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(joined) = self.tasks.join_next() => self.ended(joined)?,
                () = self.freed.notified() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                _ = ticks.tick() => self.commit().await?,
                polled = self.consumer.next() => self.polled(self.received(polled)?)?,
            }
        }
        self.drain().await
    }

    fn commit_interval(&self) -> Duration {
        Duration::from_millis(self.context.common.work_loop.commit_interval_ms.max(1))
    }

    /// What came, with an error counted.
    fn received(&self, polled: bus::Result<Polled>) -> bus::Result<Polled> {
        polled.inspect_err(|error| self.context.bus_metrics.record_error(BusOperation::Receive, error))
    }

    fn polled(&mut self, polled: Polled) -> anyhow::Result<()> {
        match polled {
            Polled::Record(record, delivery) => self.take(record, delivery),
            Polled::Assigned(partitions) => {
                tracing::info!(room = self.room.name(), partitions = partitions.len(), "partitions assigned");
                self.room.reassigned();
            }
            Polled::Revoked(partitions) => {
                let tasks = self.table.revoke(&partitions);
                tracing::info!(
                    room = self.room.name(),
                    partitions = partitions.len(),
                    cancelled = tasks.len(),
                    "partitions revoked"
                );
                tasks.iter().for_each(tokio::task::AbortHandle::abort);
                self.room.reassigned();
            }
        }
        Ok(())
    }

    fn take(&mut self, record: Record, delivery: Delivery) {
        let topic = record.topic.clone();
        match self.decode(&record) {
            Ok(received) => {
                if self.table.take(delivery.clone(), record, received, self.room.serial_by_job()) == Taken::Duplicate {
                    self.context.metrics.record_handled(self.room.name(), &topic, Outcome::Duplicate);
                    self.finish(&delivery);
                }
            }
            Err(letter) => {
                self.context.metrics.record_handled(self.room.name(), &topic, Outcome::Poison);
                let id = self.table.take_poison(delivery, record.clone());
                self.bury(id, record, letter);
            }
        }
    }

    fn decode(&self, record: &Record) -> Result<Received, Letter> {
        let poison = |code: &str, message: String| Letter { code: code.to_owned(), message, attempts: 0 };
        let place = self.context.topics.place(&record.topic);
        let place = place.ok_or_else(|| poison(UNKNOWN_TOPIC, format!("{} is no topic of ours", record.topic)))?;
        let decoded = events::decode(place.topic, record.key.as_deref(), &record.headers, record.value.as_deref())
            .map_err(|error| poison(error.code(), error.to_string()))?;
        Ok(Received {
            event: decoded.event,
            team: place.team.unwrap_or_else(model::Team::shared),
            topic: place.topic,
            tries: 0,
            envelope: decoded.envelope,
        })
    }

    fn task(&self, record: Record) -> Task {
        let (context, room, group) = (self.context.clone(), Arc::clone(&self.room), self.group.clone());
        Task { context, room, group, record }
    }

    /// In the span of the log that is open.
    fn bury(&mut self, id: u64, record: Record, letter: Letter) {
        let (task, span) = (self.task(record), tracing::Span::current());
        let inside = span.clone();
        let running = self.tasks.spawn(async move { (id, task.bury(letter).instrument(inside).await, span) });
        if let Some(open) = self.table.get_mut(id) {
            open.state = State::Running(running);
        }
    }

    /// Starts handlers while there are places and events that wait for one.
    fn start_ready(&mut self) {
        for index in 0..self.topics.len() {
            while let Ok(permit) = Arc::clone(&self.topics[index].places).try_acquire_owned() {
                let Some(id) = self.table.next_ready(&self.topics[index].name) else { break };
                let place = Place::new(&self.topics[index].places, permit, &self.freed);
                self.start(id, place);
            }
        }
    }

    fn start(&mut self, id: u64, place: Arc<Place>) {
        let Some(open) = self.table.get_mut(id) else { return };
        let Some(received) = &open.received else { return };
        let received = Received { tries: open.tries, ..Received::clone(received) };
        open.tries = open.tries.saturating_add(1);
        let (record, delivery) = (open.record.clone(), open.delivery.clone());
        let place_of_work = (self.room.name(), self.group.as_str());
        let handling = Handling::begin(&self.context.tracer, place_of_work, &record, &received, &mut open.trail);
        if faults::is_broken(faults::Mutation::CommitBeforeWork) {
            self.finish(&delivery);
        }
        let (clock, metrics, room) = (self.context.clock.clone(), self.context.metrics.clone(), self.room.name());
        let task = self.task(record);
        let running = self.tasks.spawn(async move {
            let (began, topic, span) = (clock.monotonic(), task.record.topic.clone(), handling.log.clone());
            let ended = task.handle(received, place, handling).await;
            metrics.record_took(room, &topic, clock.monotonic().saturating_sub(began));
            (id, ended, span)
        });
        if let Some(open) = self.table.get_mut(id) {
            open.state = State::Running(running);
        }
    }

    fn ended(&mut self, joined: Result<(u64, Ended, tracing::Span), JoinError>) -> anyhow::Result<()> {
        let (id, ended, span) = match joined {
            Ok(ended) => ended,
            Err(error) if error.is_cancelled() => return Ok(()),
            Err(error) => return Err(error).context("a task of the loop itself failed"),
        };
        let _inside = span.entered();
        let Some(open) = self.table.get_mut(id) else { return Ok(()) };
        let (topic, poison) = (open.record.topic.clone(), open.received.is_none());
        let outcome = match ended {
            Ended::Finished { rejected } => {
                if let Some(open) = self.table.remove(id) {
                    self.finish(&open.delivery);
                }
                if rejected { Outcome::Rejected } else { Outcome::Done }
            }
            Ended::Later(wait) => {
                (open.failures, open.panics) = (0, 0);
                self.table.later(id, Instant::now() + wait);
                Outcome::Later
            }
            Ended::Failed(error) => self.failed(id, &error),
            Ended::Panicked(words) => self.panicked(id, &words),
        };
        // What can't be read was counted when it came.
        if !poison {
            self.context.metrics.record_handled(self.room.name(), &topic, outcome);
        }
        Ok(())
    }

    fn failed(&mut self, id: u64, error: &anyhow::Error) -> Outcome {
        let Some(open) = self.table.get_mut(id) else { return Outcome::Failed };
        if error.is::<Stopping>() {
            return Outcome::Later;
        }
        open.failures = open.failures.saturating_add(1);
        let failures = open.failures;
        let key = open.received.as_ref().map(|received| received.event.key()).unwrap_or_default();
        let wait = self.backoff(failures);
        tracing::warn!(
            room = self.room.name(),
            key,
            failures,
            again_in_ms = wait.as_millis() as u64,
            error = format!("{error:#}"),
            "an event failed"
        );
        self.table.later(id, Instant::now() + wait);
        Outcome::Failed
    }

    fn panicked(&mut self, id: u64, words: &str) -> Outcome {
        let Some(open) = self.table.get_mut(id) else { return Outcome::Panicked };
        open.panics = open.panics.saturating_add(1);
        let (panics, record) = (open.panics, open.record.clone());
        tracing::error!(
            room = self.room.name(),
            topic = record.topic,
            offset = record.offset,
            panics,
            words,
            "a handler panicked"
        );
        if panics >= self.context.common.work_loop.max_panics {
            let message = format!("its handler panicked {panics} times in a row, last: {words}");
            self.bury(id, record, Letter { code: PANICKED.to_owned(), message, attempts: panics });
        } else {
            let wait = self.backoff(panics);
            self.table.later(id, Instant::now() + wait);
        }
        Outcome::Panicked
    }

    /// Doubles with each failure, up to a bound, with jitter.
    fn backoff(&self, failures: u32) -> Duration {
        let settings = &self.context.common.work_loop;
        let doubled = settings.retry_min_ms.max(1).saturating_mul(1 << failures.saturating_sub(1).min(30));
        self.context.clock.jitter(Duration::from_millis(doubled.min(settings.retry_max_ms.max(1))))
    }

    fn finish(&mut self, delivery: &Delivery) {
        if self.consumer.finish(delivery) {
            self.uncommitted += 1;
        }
    }

    fn pause_or_resume(&mut self) -> anyhow::Result<()> {
        let most = self.context.common.work_loop.max_waiting.max(1);
        let running_most = self.context.common.work_loop.max_running.max(1);
        for topic in &mut self.topics {
            let (open, ready) = (self.table.len(&topic.name), self.table.ready_len(&topic.name));
            let full = open >= most || ready >= READY;
            let low = open <= most - most.div_ceil(10) && ready <= READY / 2;
            if full && !topic.paused {
                self.consumer.pause(&topic.name)?;
                topic.paused = true;
                tracing::info!(topic = topic.name, open, ready, "paused: too much is open");
            } else if low && topic.paused {
                self.consumer.resume(&topic.name)?;
                topic.paused = false;
                tracing::info!(topic = topic.name, open, "resumed");
            }
            let running = running_most.saturating_sub(topic.places.available_permits());
            let at = At { room: self.room.name(), topic: &topic.name, group: &self.group };
            self.context.metrics.record_state(at, running, open, topic.paused);
        }
        Ok(())
    }

    async fn commit(&mut self) -> anyhow::Result<()> {
        match self.consumer.commit().await {
            Ok(()) => {
                if self.uncommitted > 0 {
                    faults::crash_point!(LoopCommitted);
                }
                self.uncommitted = 0;
            }
            Err(error) => {
                self.context.bus_metrics.record_error(BusOperation::Commit, &error);
                if matches!(error, bus::Error::Fatal { .. }) {
                    return Err(error.into());
                }
                self.uncommitted = 0;
                tracing::warn!(room = self.room.name(), %error, "a commit failed; the next one takes it along");
            }
        }
        Ok(())
    }

    /// Takes nothing more, lets running handlers end, commits, and leaves. Whatever waits stays open.
    async fn drain(mut self) -> anyhow::Result<()> {
        let timeout = self.context.drain_timeout();
        self.context.health.drain();
        tracing::info!(room = self.room.name(), running = self.tasks.len(), timeout_s = timeout.as_secs(), "draining");
        for topic in &self.topics {
            self.consumer.pause(&topic.name)?;
        }
        let deadline = Instant::now() + timeout;
        while !self.tasks.is_empty() {
            tokio::select! {
                biased;
                Some(joined) = self.tasks.join_next() => self.ended(joined)?,
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(room = self.room.name(), cancelled = self.tasks.len(), "handlers did not end in time; their events are delivered again");
                    self.tasks.shutdown().await;
                }
                polled = self.consumer.next() => if let Polled::Revoked(partitions) = polled? {
                    self.table.revoke(&partitions).iter().for_each(tokio::task::AbortHandle::abort);
                },
            }
        }
        let flushed = self.context.bus.flush().await;
        let closed = self.consumer.close().await;
        self.context.health.ended((self.room.name(), self.topic));
        for left in [flushed, closed] {
            if let Err(error) = &left {
                self.context.bus_metrics.record_error(BusOperation::Leave, error);
            }
            match left {
                // A rebalance in the middle of the last commit, or a broker that is away: what is not committed is delivered
                // again, to others. That is no failure of this process.
                Err(error) if error.is_transient() => {
                    tracing::warn!(room = self.room.name(), %error, "left without a last commit; events are delivered again");
                }
                left => left.with_context(|| format!("leaving consumer group {}", self.group))?,
            }
        }
        Ok(())
    }
}
