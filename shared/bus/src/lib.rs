//! The message bus: records go in by topic and key, come out by consumer group, and are finished one by one.
//!
//! **Promises.** Records of one key keep their order. Every record is delivered at least once to each group, until it
//! is finished and that is committed. What was finished and committed is not delivered again, even when an earlier
//! record of its partition is still open (see [`window`]). Lag is exact: it counts the records that a group has not
//! finished. Both implementations, [`Bus::Kafka`] and [`Bus::Memory`], pass the same suite (`conformance`).
//!
//! **Why an abstraction.** The same room runs as a process of a cluster and as a stage inside one process; only the
//! settings differ. This crate is the only one that knows Kafka's client library.
//!
//! **What it lacks on purpose.** No transactions (they would not cover object storage), no exactly-once, no schemas,
//! no retries of its own beyond the client library's, no clock. What a record means is not its business.

pub mod error;
pub mod kafka;
pub mod memory;
pub mod murmur2;
pub mod window;

#[cfg(feature = "conformance")]
pub mod conformance;

mod lag;
mod ownership;

use std::ops::Range;

use bytes::Bytes;

pub use error::{Error, Result};
pub use kafka::{Assignment, KafkaBus, KafkaSettings};
pub use lag::{Lag, Standing};
pub use memory::MemoryBus;
pub use ownership::Delivery;

/// A record as it was read from a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The topic it was read from.
    pub topic: String,
    /// The partition it was read from.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// When it was made or appended, in milliseconds since 1970, if the topic says so.
    pub timestamp_ms: Option<i64>,
    /// The record key, which decides the partition. Absent and empty are different things.
    pub key: Option<Bytes>,
    /// The headers in their order; a name may come twice. A header without a value reads as an empty one.
    pub headers: Vec<(String, Bytes)>,
    /// The body. Absent is a tombstone in a compacted topic.
    pub value: Option<Bytes>,
}

/// A record to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic to append to.
    pub topic: String,
    /// The record key; the partition is the murmur2 hash of it, and any partition without a key.
    pub key: Option<Bytes>,
    /// The headers in their order.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub value: Option<Bytes>,
    /// The record's time in milliseconds since 1970. Without it Kafka takes its own, the memory bus none.
    pub timestamp_ms: Option<i64>,
}

/// Where a sent record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The topic's name.
    pub name: String,
    /// How many partitions it gets; at least 1.
    pub partitions: i32,
    /// How many brokers hold each partition; -1 is the broker's default.
    pub replication: i32,
    /// The topic's settings by Kafka's names, such as `retention.ms`. The memory bus has no use for them.
    pub config: Vec<(String, String)>,
}

/// What became of a topic to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicOutcome {
    /// It is new.
    Created,
    /// It was there; its partitions and settings are left as they are.
    AlreadyExists,
}

/// What a consumer sees next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// A record, and the token by which it is finished.
    Record(Record, Delivery),
    /// Partitions (topic, partition) that this consumer owns from now on. Their records follow.
    Assigned(Vec<(String, i32)>),
    /// Partitions that this consumer does not own any more. What was finished is committed already; the rest is
    /// delivered to whoever owns them now, so work on it should stop.
    Revoked(Vec<(String, i32)>),
}

/// The bus. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub enum Bus {
    /// Apache Kafka, or what speaks its protocol.
    Kafka(KafkaBus),
    /// The memory of this process: all is lost with it.
    Memory(MemoryBus),
}

impl Bus {
    /// A new, empty bus in memory. Topics come to be when first used, with 4 partitions, or by
    /// [`create_topics`](Self::create_topics).
    pub fn memory() -> Bus {
        Bus::Memory(MemoryBus::default())
    }

    /// A bus on Kafka. It connects when first used, so brokers may still be down.
    ///
    /// # Errors
    /// [`Error::Settings`] if the client library refuses a setting.
    pub fn kafka(settings: KafkaSettings) -> Result<Bus> {
        Ok(Bus::Kafka(KafkaBus::new(settings)?))
    }

    /// Appends a record and waits until it is acknowledged by all in-sync replicas.
    ///
    /// # Errors
    /// On any error the record may or may not be there (a time-out says nothing): send it again, a duplicate is
    /// normal. [`Error::UnknownTopic`] and [`Error::TooLarge`] stay so until someone acts.
    pub async fn send(&self, out: Outgoing) -> Result<Placed> {
        match self {
            Bus::Kafka(bus) => bus.send(out).await,
            Bus::Memory(bus) => bus.send(out).await,
        }
    }

    /// Joins a consumer group. Partitions come by and by, as [`Polled::Assigned`]. A topic that does not exist yet
    /// is joined when it does (looked for every 30 seconds).
    ///
    /// # Errors
    /// [`Error::Settings`] if the client library refuses a setting or a name.
    pub fn consumer(&self, group: &str, topics: &[String]) -> Result<Consumer> {
        Ok(Consumer(match self {
            Bus::Kafka(bus) => Kind::Kafka(bus.consumer(group, topics)?),
            Bus::Memory(bus) => Kind::Memory(bus.consumer(group, topics)),
        }))
    }

    /// How many records of the topic the group has not finished. Reading it does not join the group.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] on Kafka (in memory, such a topic is an empty one); [`Error::Unreachable`].
    pub async fn lag(&self, group: &str, topic: &str) -> Result<Lag> {
        match self {
            Bus::Kafka(bus) => bus.lag(group, topic).await,
            Bus::Memory(bus) => {
                bus.pass(memory::line::Call::Lag).await?;
                Ok(bus.lag(group, topic))
            }
        }
    }

    /// How a group stands on each partition of a topic: what there is, and which records it has finished. Reading it does
    /// not join the group.
    ///
    /// # Errors
    /// As for [`lag`](Self::lag).
    pub async fn standing(&self, group: &str, topic: &str) -> Result<Vec<Standing>> {
        match self {
            Bus::Kafka(bus) => bus.standing(group, topic).await,
            Bus::Memory(bus) => Ok(bus.standing(group, topic)),
        }
    }

    /// The names of the topics that exist, in order.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn topics(&self) -> Result<Vec<String>> {
        match self {
            Bus::Kafka(bus) => bus.topics().await,
            Bus::Memory(bus) => Ok(bus.topics()),
        }
    }

    /// Reads records of one partition outside any group, as for looking at dead letters: those at `offsets` that are
    /// kept, the first `most` of them. Nothing is committed, and no group notices.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] on Kafka (in memory, such a topic is an empty one); [`Error::Unreachable`].
    pub async fn read(&self, topic: &str, partition: i32, offsets: Range<i64>, most: usize) -> Result<Vec<Record>> {
        match self {
            Bus::Kafka(bus) => bus.read(topic, partition, offsets, most).await,
            Bus::Memory(bus) => Ok(bus.read(topic, partition, offsets, most)),
        }
    }

    /// Creates the topics that don't exist, and says for each what became of it, in the order of `specs`.
    ///
    /// # Errors
    /// [`Error::Settings`] if the broker refuses a topic's spec; then others may have been created.
    pub async fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<(String, TopicOutcome)>> {
        match self {
            Bus::Kafka(bus) => bus.create_topics(specs).await,
            Bus::Memory(bus) => bus.create_topics(specs),
        }
    }

    /// Whether the bus can be reached now; answers within the request time-out.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if not.
    pub async fn probe(&self) -> Result<()> {
        match self {
            Bus::Kafka(bus) => bus.probe().await,
            Bus::Memory(_) => Ok(()),
        }
    }

    /// Waits until no sent record waits for its acknowledgement any more.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if that takes longer than the delivery time-out.
    pub async fn flush(&self) -> Result<()> {
        match self {
            Bus::Kafka(bus) => bus.flush().await,
            Bus::Memory(_) => Ok(()),
        }
    }
}

/// A member of a consumer group.
///
/// Call [`next`](Self::next) all the time, also when all topics are paused: on Kafka, a member that leaves many
/// records or a rebalance untaken for longer than `max.poll.interval.ms` is put out of its group. Dropping a consumer
/// is a crash: nothing is committed, and another member gets its open records.
#[derive(Debug)]
pub struct Consumer(Kind);

#[derive(Debug)]
enum Kind {
    Kafka(kafka::KafkaConsumer),
    Memory(memory::MemoryConsumer),
}

impl Consumer {
    /// Waits for the next record or change of partitions. Cancel safe: nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`Error::Fatal`] or [`Error::Refused`]; a broker that is down is logged and waited for.
    pub async fn next(&mut self) -> Result<Polled> {
        match &mut self.0 {
            Kind::Kafka(consumer) => consumer.next().await,
            Kind::Memory(consumer) => consumer.next().await,
        }
    }

    /// Marks a record as finished; [`commit`](Self::commit) makes it last. Returns whether it counted: a record of a
    /// partition that was revoked since (even if it is owned again) or that was finished before does not.
    pub fn finish(&self, delivery: &Delivery) -> bool {
        match &self.0 {
            Kind::Kafka(consumer) => consumer.finish(delivery),
            Kind::Memory(consumer) => consumer.finish(delivery),
        }
    }

    /// Stops the delivery of a topic's records to this consumer, also of partitions that it gets later.
    ///
    /// # Errors
    /// [`Error::Fatal`] if the client is unusable.
    pub fn pause(&mut self, topic: &str) -> Result<()> {
        match &mut self.0 {
            Kind::Kafka(consumer) => consumer.pause(topic),
            Kind::Memory(consumer) => {
                consumer.pause(topic);
                Ok(())
            }
        }
    }

    /// Goes on with the delivery of a paused topic, where it stopped.
    ///
    /// # Errors
    /// [`Error::Fatal`] if the client is unusable.
    pub fn resume(&mut self, topic: &str) -> Result<()> {
        match &mut self.0 {
            Kind::Kafka(consumer) => consumer.resume(topic),
            Kind::Memory(consumer) => {
                consumer.resume(topic);
                Ok(())
            }
        }
    }

    /// Commits what was finished since the last commit: of each partition the low-water mark and what is finished
    /// beyond it. Without any change it does nothing.
    ///
    /// # Errors
    /// Any; nothing is lost by one, the next commit takes it along.
    pub async fn commit(&mut self) -> Result<()> {
        match &mut self.0 {
            Kind::Kafka(consumer) => consumer.commit().await,
            Kind::Memory(consumer) => consumer.commit().await,
        }
    }

    /// Commits, then leaves the group, so that others take over at once.
    ///
    /// # Errors
    /// That of the commit; the group is left all the same.
    pub async fn close(self) -> Result<()> {
        match self.0 {
            Kind::Kafka(consumer) => consumer.close().await,
            Kind::Memory(consumer) => consumer.close().await,
        }
    }
}
