//! A member of a Kafka consumer group.
//!
//! **How it runs.** librdkafka wants to be polled by one thread, calls back there for rebalances, and blocks in commits
//! and look-ups. So every consumer has a thread that only polls and hands over records and changes of ownership through
//! a bounded channel. If nobody takes them, the thread waits; that is the back pressure, and the member stays in its
//! group for `max.poll.interval.ms`. (Pausing is the way to wait longer.)
//!
//! **Commits.** A commit and the one that a rebalance makes before giving partitions up exclude each other. So an older
//! position can't reach the broker after a newer one, nor after the next owner's.
//!
//! **Assignments.** The starting positions are read (offset and metadata) before the partitions are taken over, and are
//! given to librdkafka with the assignment, so nothing lies between the look-up and the first fetch. If the look-up
//! fails, librdkafka makes its own; then what was finished beyond the mark is delivered again.
//!
//! **What it lacks on purpose.** A broker that is down ends nothing: it is logged, and polling goes on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::sync::mpsc;

use super::rebalance::Member;
use super::revive::{Outage, revive};
use super::{KafkaSettings, blocking, fault};
use crate::ownership::{Ownership, Position};
use crate::{Delivery, Error, Polled, Record, Result};

/// How many events wait for the consumer's owner before the thread stops polling.
const QUEUE: usize = 1024;

/// How long the thread polls before it looks whether it should end.
const POLL: Duration = Duration::from_millis(100);

/// After so many empty polls since an error the client's brokers are asked for, then less often: 5 s, at last 5 min.
const FIRST_REVIVAL: u32 = 50;
const LAST_REVIVAL: u32 = 3000;

/// What the thread hands over.
pub(super) enum Event {
    /// A record, and the generation of its partition when it was read.
    Message(Record, u64),
    Changed(Polled),
    Failed(Error),
}

/// What the consumer, its thread and the callbacks share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Held for the length of a commit.
    commits: Mutex<()>,
    /// Set to end the thread; nothing is handed over any more.
    closing: AtomicBool,
    /// Set when the consumer is dropped without `close`: then nothing is committed.
    crashed: AtomicBool,
    events: mpsc::Sender<Event>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) ownership: Ownership,
    /// The paused topics.
    pub(super) paused: BTreeSet<String>,
    /// The partitions that librdkafka holds back. It remembers that across rebalances, so it must be remembered here.
    pub(super) held_back: BTreeSet<(String, i32)>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn commits(&self) -> MutexGuard<'_, ()> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn crashed(&self) -> bool {
        self.crashed.load(Ordering::SeqCst)
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Hands an event over, waiting for room. Only for the consumer's thread.
    pub(super) fn post(&self, event: Event) {
        // Once closing, the last drop of the client may run in an async task, where waiting is not allowed.
        if !self.closing() {
            // An error says that nobody takes events any more; then closing is about to be set.
            let _ = self.events.blocking_send(event);
        }
    }
}

/// A member of a group on Kafka.
pub(crate) struct KafkaConsumer {
    group: String,
    shared: Arc<Shared>,
    /// The thread keeps it alive: its last drop leaves the group, which blocks.
    client: Weak<BaseConsumer<Member>>,
    events: mpsc::Receiver<Event>,
    /// Records of paused topics that were read before the pause.
    held: BTreeMap<String, VecDeque<(Record, u64)>>,
    /// Closed when the thread has left the group; nothing is ever sent.
    ended: mpsc::Receiver<()>,
    failed: Option<Error>,
}

impl std::fmt::Debug for KafkaConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaConsumer").field("group", &self.group).finish_non_exhaustive()
    }
}

impl KafkaConsumer {
    pub(super) fn join(settings: &KafkaSettings, group: &str, topics: &[String]) -> Result<KafkaConsumer> {
        let what = format!("joining group `{group}`");
        let (sender, events) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            commits: Mutex::default(),
            closing: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
            events: sender,
        });
        let member = Member { shared: Arc::clone(&shared), request_timeout: settings.request_timeout };
        let client: BaseConsumer<Member> =
            settings.consumer(group).create_with_context(member).map_err(|error| fault::of(&what, "", &error))?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        client.subscribe(&names).map_err(|error| Error::Settings { what: what.clone(), reason: error.to_string() })?;
        let client = Arc::new(client);
        let weak = Arc::downgrade(&client);
        let (running, ended) = mpsc::channel(1);
        let (for_thread, brokers, topic) = (Arc::clone(&shared), settings.brokers.clone(), topics.first().cloned());
        std::thread::Builder::new()
            .name("kafka-consumer".to_owned())
            .spawn(move || {
                poll(&client, &for_thread, |client| revive(client.client(), topic.as_deref(), &brokers));
                drop(client);
                drop(running);
            })
            .map_err(|error| Error::Fatal { what, reason: error.to_string() })?;
        Ok(KafkaConsumer {
            group: group.to_owned(),
            shared,
            client: weak,
            events,
            held: BTreeMap::new(),
            ended,
            failed: None,
        })
    }

    pub(crate) async fn next(&mut self) -> Result<Polled> {
        loop {
            if let Some(polled) = self.take_held() {
                return Ok(polled);
            }
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            let event = tokio::select! {
                biased;
                event = self.events.recv() => event,
                _ = self.ended.recv() => None,
            };
            match event {
                Some(Event::Message(record, generation)) => {
                    if self.shared.state().paused.contains(&record.topic) {
                        self.held.entry(record.topic.clone()).or_default().push_back((record, generation));
                    } else if let Some(polled) = self.hand_out(record, generation) {
                        return Ok(polled);
                    }
                }
                Some(Event::Changed(change)) => return Ok(change),
                Some(Event::Failed(error)) => self.failed = Some(error),
                None => self.failed = Some(self.fatal("its thread has ended")),
            }
        }
    }

    fn take_held(&mut self) -> Option<Polled> {
        loop {
            let state = self.shared.state();
            let (_, queue) =
                self.held.iter_mut().find(|(topic, queue)| !queue.is_empty() && !state.paused.contains(*topic))?;
            let (record, generation) = queue.pop_front()?;
            drop(state);
            if let Some(polled) = self.hand_out(record, generation) {
                return Some(polled);
            }
        }
    }

    fn hand_out(&self, record: Record, generation: u64) -> Option<Polled> {
        let delivery = self.shared.state().ownership.deliver(&record, generation)?;
        Some(Polled::Record(record, delivery))
    }

    pub(crate) fn finish(&self, delivery: &Delivery) -> bool {
        self.shared.state().ownership.finish(delivery)
    }

    pub(crate) fn pause(&mut self, topic: &str) -> Result<()> {
        let client = self.client()?;
        let mut state = self.shared.state();
        state.paused.insert(topic.to_owned());
        let partitions = state.ownership.partitions(topic).into_iter().map(|partition| (topic.to_owned(), partition));
        let partitions: Vec<_> = partitions.collect();
        client.pause(&list(&partitions)).map_err(|error| fault::of("pausing a topic", topic, &error))?;
        state.held_back.extend(partitions);
        Ok(())
    }

    pub(crate) fn resume(&mut self, topic: &str) -> Result<()> {
        let client = self.client()?;
        let mut state = self.shared.state();
        state.paused.remove(topic);
        // What is held back and not owned is resumed when it is assigned again.
        let owned = state.ownership.partitions(topic).into_iter().map(|partition| (topic.to_owned(), partition));
        let partitions: Vec<_> = owned.filter(|partition| state.held_back.contains(partition)).collect();
        client.resume(&list(&partitions)).map_err(|error| fault::of("resuming a topic", topic, &error))?;
        for partition in &partitions {
            state.held_back.remove(partition);
        }
        Ok(())
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        let (client, shared) = (self.client()?, Arc::clone(&self.shared));
        let what = format!("committing the offsets of group `{}`", self.group);
        blocking(&what.clone(), move || {
            let _commits = shared.commits();
            let positions = shared.state().ownership.take_changed();
            send_positions(&client, &positions).map_err(|error| {
                shared.state().ownership.not_committed(&positions);
                fault::of(&what, "", &error)
            })
        })
        .await
    }

    pub(crate) async fn close(mut self) -> Result<()> {
        let committed = self.commit().await;
        self.shared.closing.store(true, Ordering::SeqCst);
        self.events.close();
        self.ended.recv().await;
        committed
    }

    fn client(&self) -> Result<Arc<BaseConsumer<Member>>> {
        self.client.upgrade().ok_or_else(|| self.failed.clone().unwrap_or_else(|| self.fatal("its thread has ended")))
    }

    fn fatal(&self, reason: &str) -> Error {
        Error::Fatal { what: format!("reading as group `{}`", self.group), reason: reason.to_owned() }
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        if !self.shared.closing.swap(true, Ordering::SeqCst) {
            self.shared.crashed.store(true, Ordering::SeqCst);
        }
    }
}

/// The thread: polls until it is told to end, or the client is unusable. `revive` helps a client that has lost its
/// brokers, and says whether one answers.
fn poll(client: &BaseConsumer<Member>, shared: &Shared, revive: impl Fn(&BaseConsumer<Member>) -> bool) {
    let mut outage: Option<Outage> = None;
    while !shared.closing() {
        match client.poll(POLL) {
            None => {
                if outage.as_mut().is_some_and(Outage::is_due) && revive(client) {
                    outage = None;
                }
            }
            Some(Ok(message)) => {
                outage = None;
                let generation = shared.state().ownership.read(message.topic(), message.partition(), message.offset());
                if let Some(generation) = generation {
                    shared.post(Event::Message(record(&message), generation));
                }
            }
            Some(Err(error)) => {
                let fault = fault::of("reading from Kafka", "", &error);
                if fault.is_transient() {
                    tracing::warn!(target: "kafka", %error, "reading from Kafka failed; it goes on trying");
                    outage.get_or_insert_with(|| Outage::new(FIRST_REVIVAL, LAST_REVIVAL));
                } else {
                    shared.post(Event::Failed(fault));
                    shared.closing.store(true, Ordering::SeqCst);
                }
            }
        }
    }
}

pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    let header = |header: rdkafka::message::Header<'_, &[u8]>| {
        (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default()))
    };
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(Bytes::copy_from_slice),
        headers: message.headers().map(|headers| headers.iter().map(header).collect()).unwrap_or_default(),
        value: message.payload().map(Bytes::copy_from_slice),
    }
}

/// The list of these partitions, without offsets.
pub(super) fn list(partitions: &[(String, i32)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

/// Commits, and waits for the broker's answer. librdkafka waits for a lost coordinator about as long as a session.
pub(super) fn send_positions(client: &BaseConsumer<Member>, positions: &[Position]) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for position in positions {
        let mut element = list.add_partition(&position.topic, position.partition);
        element.set_offset(Offset::Offset(position.offset))?;
        element.set_metadata(&position.metadata);
    }
    client.commit(&list, CommitMode::Sync)
}
