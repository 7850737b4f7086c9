//! The bus in the memory of one process.
//!
//! **Promises.** The same as on Kafka, as far as one process can: topics, keys, groups, rebalances, commits with their
//! metadata, exact lag. It is deterministic: no randomness, no clock, no threads; keyless records go round-robin, and
//! waiting consumers are woken by what happens, so it works under tokio's paused clock.
//!
//! **Memory.** A record is dropped once every group that has ever subscribed to its topic has committed past it; so it
//! holds the open work, and not the history. A group that first subscribes later starts at what is left. A topic
//! without any group keeps everything.
//!
//! **What it lacks on purpose.** It dies with the process: the facts on object storage hold the truth, and the work list
//! is made again from them.

mod assign;
pub mod line;
mod log;
mod state;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::{Delivery, Error, Lag, Outgoing, Placed, Polled, Record, Result, Standing, TopicOutcome, TopicSpec};
use line::{Call, Line};
use state::State;

/// The largest record, key, value and headers together: Kafka's default (`message.max.bytes`).
pub const MAX_RECORD_BYTES: usize = 1_000_000;

/// The in-memory bus; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryBus(Arc<Shared>, Option<Connection>);

/// One process's line, in a simulation.
#[derive(Clone, Debug)]
struct Connection {
    number: u64,
    line: Arc<dyn Line>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told after every change that a waiting consumer may care about.
    changed: Notify,
}

impl Shared {
    /// The state is consistent between any two statements that can panic, so a poisoned lock is only passed on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryBus {
    /// A handle on the same bus whose calls go through this line: one process of a simulation.
    #[must_use]
    pub fn with_line(&self, line: Arc<dyn Line>) -> Self {
        let number = self.0.lock().next_connection();
        Self(Arc::clone(&self.0), Some(Connection { number, line }))
    }

    /// Ends the sessions of this handle's consumers, as a broker does that hears nothing of a process for too long: others
    /// get their partitions. Each joins again with its next call, and then learns what it has lost.
    pub fn end_session(&self) {
        if let Some(connection) = &self.1 {
            self.0.lock().end_session(connection.number);
            self.0.changed.notify_waiters();
        }
    }

    /// Loses every record, as if all topics had been deleted and made anew.
    pub fn lose_records(&self) {
        self.0.lock().lose_records();
    }

    /// Appends a record, past any line.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn append(&self, out: Outgoing) -> Result<Placed> {
        let bytes = crate::kafka::size_of(&out);
        if bytes > MAX_RECORD_BYTES {
            return Err(Error::TooLarge { topic: out.topic, bytes });
        }
        let placed = self.0.lock().append(out);
        self.0.changed.notify_waiters();
        Ok(placed)
    }

    pub(crate) async fn send(&self, out: Outgoing) -> Result<Placed> {
        match &self.1 {
            None => self.append(out),
            Some(connection) => connection.line.send(Self(Arc::clone(&self.0), None), out).await,
        }
    }

    /// Lets a call through the line, if there is one.
    pub(crate) async fn pass(&self, call: Call) -> Result<()> {
        match &self.1 {
            None => Ok(()),
            Some(connection) => connection.line.pass(call).await,
        }
    }

    pub(crate) fn consumer(&self, group: &str, topics: &[String]) -> MemoryConsumer {
        let connection = self.1.as_ref().map_or(0, |connection| connection.number);
        let member = self.0.lock().join(group, topics, connection);
        self.0.changed.notify_waiters();
        MemoryConsumer { bus: self.clone(), shared: Arc::clone(&self.0), group: group.to_owned(), member }
    }

    pub(crate) fn lag(&self, group: &str, topic: &str) -> Lag {
        let mut lag = Lag::default();
        self.standing(group, topic).iter().for_each(|standing| lag.add(standing));
        lag
    }

    pub(crate) fn standing(&self, group: &str, topic: &str) -> Vec<Standing> {
        self.0.lock().standing(group, topic)
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        self.0.lock().topics()
    }

    pub(crate) fn read(&self, topic: &str, partition: i32, offsets: Range<i64>, most: usize) -> Vec<Record> {
        self.0.lock().read(topic, partition, offsets, most)
    }

    pub(crate) fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<(String, TopicOutcome)>> {
        let mut state = self.0.lock();
        let mut outcomes = Vec::with_capacity(specs.len());
        for spec in specs {
            let partitions = usize::try_from(spec.partitions).ok().filter(|count| *count > 0);
            let Some(partitions) = partitions else {
                return Err(Error::Settings {
                    what: format!("creating topic `{}`", spec.name),
                    reason: format!("{} partitions; it needs at least 1", spec.partitions),
                });
            };
            outcomes.push((spec.name.clone(), state.create(&spec.name, partitions)));
        }
        Ok(outcomes)
    }
}

/// A member of a group on the memory bus.
#[derive(Debug)]
pub(crate) struct MemoryConsumer {
    bus: MemoryBus,
    shared: Arc<Shared>,
    group: String,
    member: u64,
}

impl MemoryConsumer {
    pub(crate) async fn next(&mut self) -> Result<Polled> {
        loop {
            // A consumer that always has a record ready must still let the other tasks of its thread run.
            tokio::task::coop::consume_budget().await;
            self.bus.pass(Call::Next).await?;
            // Registered before the look, so a change between the look and the wait is not missed.
            let changed = self.shared.changed.notified();
            if let Some(polled) = self.shared.lock().poll(&self.group, self.member) {
                return Ok(polled);
            }
            changed.await;
        }
    }

    pub(crate) fn finish(&self, delivery: &Delivery) -> bool {
        self.shared.lock().finish(&self.group, self.member, delivery)
    }

    pub(crate) fn pause(&mut self, topic: &str) {
        self.shared.lock().pause(&self.group, self.member, topic);
    }

    pub(crate) fn resume(&mut self, topic: &str) {
        self.shared.lock().resume(&self.group, self.member, topic);
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        self.bus.pass(Call::Commit).await?;
        self.shared.lock().commit(&self.group, self.member);
        Ok(())
    }

    pub(crate) async fn close(mut self) -> Result<()> {
        self.commit().await
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.shared.lock().leave(&self.group, self.member);
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
