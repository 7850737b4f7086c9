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
mod log;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::{Delivery, Error, Lag, Outgoing, Placed, Polled, Result, TopicOutcome, TopicSpec};
use state::State;

/// The largest record, key, value and headers together: Kafka's default (`message.max.bytes`).
pub const MAX_RECORD_BYTES: usize = 1_000_000;

/// The in-memory bus; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryBus(Arc<Shared>);

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
    pub(crate) fn send(&self, out: Outgoing) -> Result<Placed> {
        let bytes = crate::kafka::size_of(&out);
        if bytes > MAX_RECORD_BYTES {
            return Err(Error::TooLarge { topic: out.topic, bytes });
        }
        let placed = self.0.lock().append(out);
        self.0.changed.notify_waiters();
        Ok(placed)
    }

    pub(crate) fn consumer(&self, group: &str, topics: &[String]) -> MemoryConsumer {
        let member = self.0.lock().join(group, topics);
        self.0.changed.notify_waiters();
        MemoryConsumer { shared: Arc::clone(&self.0), group: group.to_owned(), member }
    }

    pub(crate) fn lag(&self, group: &str, topic: &str) -> Lag {
        self.0.lock().lag(group, topic)
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
    shared: Arc<Shared>,
    group: String,
    member: u64,
}

impl MemoryConsumer {
    pub(crate) async fn next(&mut self) -> Polled {
        loop {
            // A consumer that always has a record ready must still let the other tasks of its thread run.
            tokio::task::coop::consume_budget().await;
            // Registered before the look, so a change between the look and the wait is not missed.
            let changed = self.shared.changed.notified();
            if let Some(polled) = self.shared.lock().poll(&self.group, self.member) {
                return polled;
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

    pub(crate) fn commit(&mut self) {
        self.shared.lock().commit(&self.group, self.member);
    }

    pub(crate) fn close(mut self) {
        self.commit();
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
