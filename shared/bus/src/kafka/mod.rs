//! The bus on Apache Kafka, through librdkafka.
//!
//! **Promises.** A record counts as sent when all in-sync replicas have it, written once by an idempotent producer. A
//! group's progress is its committed offsets and their metadata, so any process can read its exact lag. Keys go to
//! the partitions where Kafka's Java client puts them.
//!
//! **Why blocking calls run elsewhere.** librdkafka answers metadata, commits and offset look-ups by blocking; those
//! calls run on tokio's blocking threads, and each consumer polls on a thread of its own.
//!
//! **What it lacks on purpose.** Nothing is created by use: a topic that is missing is an error. No transactions.

mod client;
mod consumer;
mod fault;
mod rebalance;
mod revive;
mod settings;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::{Error, Lag, Outgoing, Placed, Record, Result, Standing, TopicOutcome, TopicSpec};
use client::Logged;
pub(crate) use consumer::KafkaConsumer;
use revive::{Outage, revive};
pub use settings::{Assignment, KafkaSettings};

/// A handle to a Kafka cluster; clones share its connections.
#[derive(Clone)]
pub struct KafkaBus(Arc<Inner>);

struct Inner {
    settings: KafkaSettings,
    producer: FutureProducer<Logged>,
    /// How long the producer has found no broker, in failed calls. Locked while it is being revived.
    outage: Mutex<Outage>,
    /// One never-subscribed consumer for each group whose lag was asked for.
    readers: Mutex<BTreeMap<String, Arc<BaseConsumer<Logged>>>>,
}

impl std::fmt::Debug for KafkaBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KafkaBus").field(&self.0.settings).finish()
    }
}

/// The bytes of a record that brokers limit: key, value and headers.
pub(crate) fn size_of(out: &Outgoing) -> usize {
    let headers: usize = out.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    out.key.as_ref().map_or(0, |key| key.len()) + out.value.as_ref().map_or(0, |value| value.len()) + headers
}

impl KafkaBus {
    pub(crate) fn new(settings: KafkaSettings) -> Result<KafkaBus> {
        let producer = settings
            .producer()
            .create_with_context(Logged)
            .map_err(|error| fault::of("starting the Kafka producer", "", &error))?;
        Ok(KafkaBus(Arc::new(Inner { settings, producer, outage: Mutex::new(no_outage()), readers: Mutex::default() })))
    }

    pub(crate) async fn send(&self, out: Outgoing) -> Result<Placed> {
        let headers = out.headers.iter().fold(OwnedHeaders::new_with_capacity(out.headers.len()), |headers, pair| {
            headers.insert(Header { key: &pair.0, value: Some(&pair.1[..]) })
        });
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&out.topic).headers(headers);
        record.key = out.key.as_deref();
        record.payload = out.value.as_deref();
        record.timestamp = out.timestamp_ms;
        let sent = self.0.producer.send(record, self.0.settings.delivery_timeout).await;
        let sent = sent.map(|delivery| Placed { partition: delivery.partition, offset: delivery.offset });
        let sent = sent.map_err(|(error, _)| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                Error::TooLarge { topic: out.topic.clone(), bytes: size_of(&out) }
            }
            _ => fault::of(&format!("sending to topic `{}`", out.topic), &out.topic, &error),
        });
        self.revive_after(&sent);
        sent
    }

    /// After a call that found no broker: helps the producer, in the background, since the caller will call again.
    fn revive_after<T>(&self, answer: &Result<T>) {
        if answer.as_ref().is_err_and(Error::is_transient) {
            let bus = self.clone();
            drop(tokio::task::spawn_blocking(move || bus.revive_producer()));
        }
    }

    /// Helps the producer, unless that is being done already.
    fn revive_producer(&self) {
        let mut outage = match self.0.outage.try_lock() {
            Ok(outage) => outage,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if outage.is_due() && revive(self.0.producer.client(), None, &self.0.settings.brokers) {
            *outage = no_outage();
        }
    }

    pub(crate) fn consumer(&self, group: &str, topics: &[String]) -> Result<KafkaConsumer> {
        KafkaConsumer::join(&self.0.settings, group, topics)
    }

    pub(crate) async fn lag(&self, group: &str, topic: &str) -> Result<Lag> {
        let mut lag = Lag::default();
        self.standing(group, topic).await?.iter().for_each(|standing| lag.add(standing));
        Ok(lag)
    }

    pub(crate) async fn standing(&self, group: &str, topic: &str) -> Result<Vec<Standing>> {
        let reader = self.reader(group)?;
        let (group, topic) = (group.to_owned(), topic.to_owned());
        let (bus, timeout) = (self.clone(), self.0.settings.request_timeout);
        let what = format!("reading the lag of group `{group}` on topic `{topic}`");
        blocking(&what.clone(), move || {
            read_standing(&reader, &topic, timeout).map_err(|error| {
                let error = fault::of(&what, &topic, &error);
                if error.is_transient() {
                    // The next call gets a new one, which begins at the first brokers.
                    bus.0.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
                }
                error
            })
        })
        .await
    }

    pub(crate) async fn topics(&self) -> Result<Vec<String>> {
        let (bus, what) = (self.clone(), "asking for the topics");
        blocking(what, move || {
            let metadata = bus.0.producer.client().fetch_metadata(None, bus.0.settings.request_timeout);
            let metadata = metadata.map_err(|error| fault::of(what, "", &error))?;
            let mut names: Vec<String> = metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
            names.sort();
            Ok(names)
        })
        .await
    }

    pub(crate) async fn read(
        &self,
        topic: &str,
        partition: i32,
        offsets: Range<i64>,
        most: usize,
    ) -> Result<Vec<Record>> {
        if offsets.is_empty() || most == 0 {
            return Ok(Vec::new());
        }
        let (bus, topic) = (self.clone(), topic.to_owned());
        let what = format!("reading topic `{topic}`");
        blocking(&what.clone(), move || {
            bus.read_partition(&topic, partition, offsets, most).map_err(|error| fault::of(&what, &topic, &error))
        })
        .await
    }

    /// Reads with a client of its own, which joins no group and commits nothing.
    fn read_partition(
        &self,
        topic: &str,
        partition: i32,
        offsets: Range<i64>,
        most: usize,
    ) -> std::result::Result<Vec<Record>, KafkaError> {
        const POLL: Duration = Duration::from_millis(100);
        let settings = &self.0.settings;
        // The client wants a group's name, though it does not join it.
        let mut config = settings.consumer("batchmill-reader");
        let reader: BaseConsumer<Logged> = config.set("enable.partition.eof", "true").create_with_context(Logged)?;
        let mut start = TopicPartitionList::with_capacity(1);
        start.add_partition_offset(topic, partition, Offset::Offset(offsets.start))?;
        reader.assign(&start)?;
        let (mut records, mut idle) = (Vec::new(), Duration::ZERO);
        while records.len() < most && idle < settings.request_timeout {
            match reader.poll(POLL) {
                Some(Ok(message)) if message.offset() >= offsets.end => return Ok(records),
                Some(Ok(message)) => {
                    idle = Duration::ZERO;
                    records.push(consumer::record(&message));
                    if message.offset() + 1 >= offsets.end {
                        return Ok(records);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(records),
                Some(Err(error)) if !fault::of("", topic, &error).is_transient() => return Err(error),
                Some(Err(_)) | None => idle += POLL,
            }
        }
        if records.is_empty() {
            Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
        } else {
            Ok(records)
        }
    }

    fn reader(&self, group: &str) -> Result<Arc<BaseConsumer<Logged>>> {
        let mut readers = self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = readers.get(group) {
            return Ok(Arc::clone(reader));
        }
        let reader: BaseConsumer<Logged> = self
            .0
            .settings
            .consumer(group)
            .create_with_context(Logged)
            .map_err(|error| fault::of(&format!("starting a reader of group `{group}`"), "", &error))?;
        let reader = Arc::new(reader);
        readers.insert(group.to_owned(), Arc::clone(&reader));
        Ok(reader)
    }

    pub(crate) async fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<(String, TopicOutcome)>> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let what = "creating topics";
        let admin: AdminClient<Logged> =
            self.0.settings.common().create_with_context(Logged).map_err(|error| fault::of(what, "", &error))?;
        let timeout = Some(self.0.settings.request_timeout);
        let options = AdminOptions::new().request_timeout(timeout).operation_timeout(timeout);
        let topics: Vec<NewTopic<'_>> = specs.iter().map(new_topic).collect();
        let results = admin.create_topics(&topics, &options).await.map_err(|error| fault::of(what, "", &error))?;
        let outcome = |result: std::result::Result<String, (String, RDKafkaErrorCode)>| match result {
            Ok(name) => Ok((name, TopicOutcome::Created)),
            Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => Ok((name, TopicOutcome::AlreadyExists)),
            Err((name, code)) => Err(fault::of(&format!("creating topic `{name}`"), &name, &KafkaError::AdminOp(code))),
        };
        let outcomes: Vec<(String, TopicOutcome)> = results.into_iter().map(outcome).collect::<Result<_>>()?;
        self.await_topics(&outcomes).await?;
        Ok(outcomes)
    }

    /// Waits until the brokers know the created topics: the controller answers before it has told them.
    async fn await_topics(&self, outcomes: &[(String, TopicOutcome)]) -> Result<()> {
        const PAUSE: Duration = Duration::from_millis(50);
        let timeout = self.0.settings.request_timeout;
        for (name, _) in outcomes.iter().filter(|(_, outcome)| *outcome == TopicOutcome::Created) {
            let mut waited = Duration::ZERO;
            while waited < timeout && !self.knows(name).await? {
                tokio::time::sleep(PAUSE).await;
                waited += PAUSE;
            }
        }
        Ok(())
    }

    /// Whether the broker knows the topic, and a leader of each of its partitions.
    async fn knows(&self, topic: &str) -> Result<bool> {
        let (bus, topic) = (self.clone(), topic.to_owned());
        let what = format!("looking for the new topic `{topic}`");
        blocking(&what.clone(), move || {
            let metadata = bus.0.producer.client().fetch_metadata(Some(&topic), bus.0.settings.request_timeout);
            let metadata = metadata.map_err(|error| fault::of(&what, &topic, &error))?;
            let known = |topic: &MetadataTopic| {
                topic.error().is_none() && topic.partitions().iter().all(|partition| partition.leader() >= 0)
            };
            Ok(metadata.topics().first().is_some_and(known))
        })
        .await
    }

    pub(crate) async fn probe(&self) -> Result<()> {
        let (bus, what) = (self.clone(), "asking for the cluster's metadata");
        let answer = blocking(what, move || {
            let metadata = bus.0.producer.client().fetch_metadata(None, bus.0.settings.request_timeout);
            metadata.map(drop).map_err(|error| fault::of(what, "", &error))
        })
        .await;
        self.revive_after(&answer);
        answer
    }

    pub(crate) async fn flush(&self) -> Result<()> {
        let (bus, what) = (self.clone(), "waiting for the acknowledgements of what was sent");
        blocking(what, move || {
            bus.0.producer.flush(bus.0.settings.delivery_timeout).map_err(|error| fault::of(what, "", &error))
        })
        .await
    }
}

/// A producer's state as long as brokers answer: the first failed call is reason enough to ask.
fn no_outage() -> Outage {
    Outage::new(1, 64)
}

fn new_topic(spec: &TopicSpec) -> NewTopic<'_> {
    let topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(spec.replication));
    spec.config.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
}

/// Runs a call that blocks where it may.
async fn blocking<T: Send + 'static>(what: &str, call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(call)
        .await
        .unwrap_or_else(|error| Err(Error::Fatal { what: what.to_owned(), reason: error.to_string() }))
}

/// Reads commits before watermarks: what is finished in between counts, so the lag is never too small.
fn read_standing<C: rdkafka::consumer::ConsumerContext>(
    reader: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> std::result::Result<Vec<Standing>, KafkaError> {
    // It has no subscription, so this only takes the client's own events off its queue.
    let _ = reader.poll(Duration::ZERO);
    let metadata = reader.fetch_metadata(Some(topic), timeout)?;
    let found = metadata.topics().first();
    if let Some(code) = found.and_then(|topic| topic.error()) {
        return Err(KafkaError::MetadataFetch(code.into()));
    }
    let partitions: Vec<i32> =
        found.into_iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
    if partitions.is_empty() {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in &partitions {
        list.add_partition(topic, *partition);
    }
    let committed = committed(reader, &list, timeout)?;
    let mut standings = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let (low, end) = reader.fetch_watermarks(topic, partition, timeout)?;
        let Some(element) = committed.find_partition(topic, partition) else { continue };
        element.error()?;
        let committed = match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata())),
            _ => None,
        };
        standings.push(Standing::new(partition, low, end, committed));
    }
    Ok(standings)
}

/// The committed offsets. While the group has no coordinator (a fresh broker, or one that just went), librdkafka fails
/// at once; it is asked again then, as long as the time-out goes.
fn committed<C: rdkafka::consumer::ConsumerContext>(
    reader: &BaseConsumer<C>,
    list: &TopicPartitionList,
    timeout: Duration,
) -> std::result::Result<TopicPartitionList, KafkaError> {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut waited = Duration::ZERO;
    loop {
        match reader.committed_offsets(list.clone(), timeout) {
            Err(KafkaError::MetadataFetch(
                RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::WaitingForCoordinator,
            )) if waited < timeout => {
                // Nothing is subscribed, so this waits.
                let _ = reader.poll(PAUSE);
                waited += PAUSE;
            }
            answer => return answer,
        }
    }
}
