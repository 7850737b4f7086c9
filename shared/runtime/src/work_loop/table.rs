//! The table of what is open: every event that was taken and not finished, and what it waits for. No IO and no clock, so that
//! the rules about duplicates, turns and waiting can be read in one place.
//!
//! One task is worked on by one event at a time. An event that equals an open one of its task has nothing to add and is
//! finished at once; another one of the same task is held until the first is finished.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bus::{Delivery, Record};
use events::{Event, Kind};
use model::{BatchId, JobId};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::round_robin::RoundRobin;
use crate::room::Received;
use crate::trace::Trail;

/// What one event at a time works on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TaskKey {
    /// None where all events of a job are one task.
    kind: Option<Kind>,
    job: JobId,
    batch: Option<BatchId>,
}

impl TaskKey {
    pub(super) fn of(event: &Event, serial_by_job: bool) -> Self {
        let job = event.job().clone();
        if serial_by_job {
            return Self { kind: None, job, batch: None };
        }
        let batch = match event {
            Event::BatchReady(event) => Some(event.batch.id),
            Event::BatchDispatched(event) => Some(event.batch.id),
            Event::BatchCollected(event) => Some(event.id),
            _ => None,
        };
        Self { kind: Some(event.kind()), job, batch }
    }
}

/// What an open event waits for.
#[derive(Debug)]
pub(super) enum State {
    /// A place.
    Ready,
    /// Its handler.
    Running(AbortHandle),
    /// A time.
    Later(Instant),
    /// Another event of its task.
    Held,
}

/// An open event.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) delivery: Delivery,
    pub(super) record: Record,
    /// The event; none if the record can't be read.
    pub(super) received: Option<Arc<Received>>,
    pub(super) key: Option<TaskKey>,
    pub(super) tries: u32,
    /// Transient errors in a row.
    pub(super) failures: u32,
    pub(super) panics: u32,
    /// Its trace, once it was handled.
    pub(super) trail: Option<Trail>,
    pub(super) state: State,
}

/// Whether an event was taken into the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It waits for its turn.
    Open,
    /// An equal event is open: finish this one.
    Duplicate,
}

/// All open events of a room, by a number that counts up.
#[derive(Debug, Default)]
pub(super) struct Table {
    next: u64,
    open: BTreeMap<u64, Open>,
    current: HashMap<TaskKey, u64>,
    held: HashMap<TaskKey, VecDeque<u64>>,
    ready: HashMap<String, RoundRobin<JobId, u64>>,
    timers: BTreeSet<(Instant, u64)>,
    by_topic: HashMap<String, usize>,
}

impl Table {
    /// Takes an event in, in the state `Ready` or `Held`.
    pub(super) fn take(
        &mut self,
        delivery: Delivery,
        record: Record,
        received: Received,
        serial_by_job: bool,
    ) -> Taken {
        let key = TaskKey::of(&received.event, serial_by_job);
        let current = self.current.get(&key).copied();
        let held = self.held.get(&key).into_iter().flatten().copied();
        // The same words of another team are another event: one of them is refused, and must not take the other along.
        let equal = |id: u64| {
            let open = self.open.get(&id).and_then(|open| open.received.as_ref());
            open.is_some_and(|open| open.event == received.event && open.team == received.team)
        };
        if current.into_iter().chain(held).any(equal) {
            return Taken::Duplicate;
        }
        let id = self.insert(delivery, record, Some(received), Some(key.clone()));
        if current.is_some() {
            self.held.entry(key).or_default().push_back(id);
        } else {
            self.current.insert(key, id);
            self.make_ready(id);
        }
        Taken::Open
    }

    /// Takes a record in that can't be read; its letter is on its way.
    pub(super) fn take_poison(&mut self, delivery: Delivery, record: Record) -> u64 {
        self.insert(delivery, record, None, None)
    }

    fn insert(&mut self, delivery: Delivery, record: Record, received: Option<Received>, key: Option<TaskKey>) -> u64 {
        let id = self.next;
        self.next += 1;
        *self.by_topic.entry(record.topic.clone()).or_default() += 1;
        let received = received.map(Arc::new);
        let open =
            Open { delivery, record, received, key, tries: 0, failures: 0, panics: 0, trail: None, state: State::Held };
        self.open.insert(id, open);
        id
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Open> {
        self.open.get_mut(&id)
    }

    fn make_ready(&mut self, id: u64) {
        let Some(open) = self.open.get_mut(&id) else { return };
        let Some(received) = &open.received else { return };
        open.state = State::Ready;
        let job = received.event.job().clone();
        self.ready.entry(open.record.topic.clone()).or_default().push(job, id);
    }

    /// The next event of a topic that waits for a place; jobs take turns.
    pub(super) fn next_ready(&mut self, topic: &str) -> Option<u64> {
        self.ready.get_mut(topic)?.pop()
    }

    /// Events of a topic that wait for a place.
    pub(super) fn ready_len(&self, topic: &str) -> usize {
        self.ready.get(topic).map_or(0, RoundRobin::len)
    }

    /// Open events of a topic.
    pub(super) fn len(&self, topic: &str) -> usize {
        self.by_topic.get(topic).copied().unwrap_or_default()
    }

    /// Lets an event wait until then.
    pub(super) fn later(&mut self, id: u64, until: Instant) {
        if let Some(open) = self.open.get_mut(&id) {
            open.state = State::Later(until);
            self.timers.insert((until, id));
        }
    }

    /// When the next event is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(until, _)| *until)
    }

    /// Makes ready what is due.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((until, id)) = self.timers.first().copied() {
            if until > now {
                return;
            }
            self.timers.remove(&(until, id));
            self.make_ready(id);
        }
    }

    /// Takes an event out, and makes the one ready that was held for it.
    pub(super) fn remove(&mut self, id: u64) -> Option<Open> {
        let open = self.open.remove(&id)?;
        if let Some(count) = self.by_topic.get_mut(&open.record.topic) {
            *count -= 1;
        }
        match open.state {
            State::Later(until) => {
                self.timers.remove(&(until, id));
            }
            State::Ready => {
                if let Some(ready) = self.ready.get_mut(&open.record.topic) {
                    ready.retain(|other| *other != id);
                }
            }
            State::Running(_) | State::Held => {}
        }
        if let Some(key) = &open.key {
            self.release(key, id);
        }
        Some(open)
    }

    fn release(&mut self, key: &TaskKey, id: u64) {
        if self.current.get(key) == Some(&id) {
            self.current.remove(key);
            let next = self.held.get_mut(key).and_then(VecDeque::pop_front);
            if let Some(next) = next {
                self.current.insert(key.clone(), next);
                self.make_ready(next);
            }
        } else if let Some(held) = self.held.get_mut(key) {
            held.retain(|other| *other != id);
        }
        if self.held.get(key).is_some_and(VecDeque::is_empty) {
            self.held.remove(key);
        }
    }

    /// Takes out all events of these partitions, and gives the tasks that worked on them.
    pub(super) fn revoke(&mut self, partitions: &[(String, i32)]) -> Vec<AbortHandle> {
        let of_them = |open: &Open| {
            partitions.iter().any(|(topic, number)| *topic == open.record.topic && *number == open.record.partition)
        };
        let ids: Vec<u64> = self.open.iter().filter(|(_, open)| of_them(open)).map(|(id, _)| *id).collect();
        // From the last to the first, so that no held event is made ready that goes too.
        let removed = ids.into_iter().rev().filter_map(|id| self.remove(id));
        removed.filter_map(|open| if let State::Running(task) = open.state { Some(task) } else { None }).collect()
    }
}
