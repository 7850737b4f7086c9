//! What every implementation of the bus promises, as tests that run on any of them.
//!
//! [`all`] runs the whole suite; the cases are also there one by one. Each case has topics and groups of its own, so
//! the cases run at the same time and many runs share one broker. Nothing here sleeps: a case waits for what must
//! come, and to show that something does not come, it sends a marker after it and sees the marker first.
//!
//! A case that fails panics, as tests do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test suite")]

mod groups;
mod progress;
mod records;

use std::time::Duration;

use bytes::Bytes;

use crate::{Bus, Consumer, Delivery, Outgoing, Placed, Polled, Record, TopicOutcome, TopicSpec};

pub use groups::{
    a_paused_topic_stays_paused_across_a_rebalance, a_rebalance_loses_nothing, a_revoked_record_cannot_be_finished,
    close_commits_and_leaves, groups_do_not_share_records, pause_holds_back_one_topic,
};
pub use progress::{
    a_crash_redelivers_what_was_not_committed, lag_counts_what_is_not_finished,
    what_is_finished_beyond_the_mark_does_not_come_again,
};
pub use records::{
    a_key_lies_where_java_puts_it, a_record_comes_back_as_it_was_sent, a_record_too_large_is_refused,
    a_topic_is_read_outside_any_group, records_of_a_key_keep_their_order, topics_are_created_once,
};

/// How long a case waits for something that must come. Generous: a first join on a fresh broker takes seconds.
const PATIENCE: Duration = Duration::from_secs(90);

type CreateTopic = Box<dyn Fn(&str, i32) + Send + Sync>;

/// A bus to test, with names of its own.
pub struct Fixture {
    bus: Bus,
    suffix: String,
    create: Option<CreateTopic>,
}

impl Fixture {
    /// Tests `bus`; `suffix` makes the names of topics and groups unique to this run.
    pub fn new(bus: Bus, suffix: &str) -> Fixture {
        Fixture { bus, suffix: suffix.to_owned(), create: None }
    }

    /// As [`new`](Self::new), for a broker that can't create topics over the wire: `create` makes one with so many
    /// partitions.
    pub fn with_topics(bus: Bus, suffix: &str, create: impl Fn(&str, i32) + Send + Sync + 'static) -> Fixture {
        Fixture { create: Some(Box::new(create)), ..Fixture::new(bus, suffix) }
    }

    fn bus(&self) -> &Bus {
        &self.bus
    }

    fn group(&self, name: &str) -> String {
        format!("{name}.{}", self.suffix)
    }

    fn topic_name(&self, name: &str) -> String {
        format!("{name}.{}", self.suffix)
    }

    async fn topic(&self, name: &str, partitions: i32) -> String {
        let name = self.topic_name(name);
        if let Some(create) = &self.create {
            create(&name, partitions);
        } else {
            let outcomes = self.bus.create_topics(&[spec(&name, partitions)]).await.unwrap();
            assert_eq!(outcomes, [(name.clone(), TopicOutcome::Created)]);
        }
        name
    }

    fn join(&self, group: &str, topics: &[&str]) -> Member {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Member { consumer: self.bus.consumer(group, &topics).unwrap(), owned: Vec::new() }
    }

    async fn send(&self, topic: &str, key: Option<&str>, value: &str) -> Placed {
        let out = Outgoing {
            topic: topic.to_owned(),
            key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            ..Outgoing::default()
        };
        within("an acknowledgement", self.bus.send(out)).await.unwrap()
    }

    /// Sends `from..to` as values, without keys.
    async fn send_numbers(&self, topic: &str, numbers: std::ops::Range<usize>) {
        for number in numbers {
            self.send(topic, None, &number.to_string()).await;
        }
    }

    async fn lag(&self, group: &str, topic: &str) -> (u64, u64) {
        let lag = within("the lag", self.bus.lag(group, topic)).await.unwrap();
        (lag.exact, lag.raw)
    }
}

fn spec(name: &str, partitions: i32) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions, replication: -1, config: Vec::new() }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}

/// A consumer that keeps count of what it owns.
struct Member {
    consumer: Consumer,
    owned: Vec<(String, i32)>,
}

impl Member {
    async fn polled(&mut self) -> Polled {
        let polled = self.consumer.next().await.unwrap();
        match &polled {
            Polled::Assigned(partitions) => self.owned.extend(partitions.iter().cloned()),
            Polled::Revoked(partitions) => self.owned.retain(|owned| !partitions.contains(owned)),
            Polled::Record(record, _) => assert!(
                self.owned.contains(&(record.topic.clone(), record.partition)),
                "a record of a partition that was never assigned"
            ),
        }
        polled
    }

    async fn record(&mut self) -> (Record, Delivery) {
        within("a record", async {
            loop {
                if let Polled::Record(record, delivery) = self.polled().await {
                    return (record, delivery);
                }
            }
        })
        .await
    }

    async fn records(&mut self, count: usize) -> Vec<(Record, Delivery)> {
        let mut records = Vec::with_capacity(count);
        while records.len() < count {
            records.push(self.record().await);
        }
        records
    }

    /// Polls until it owns so many partitions; no record may come meanwhile.
    async fn own(&mut self, count: usize) {
        within("partitions", async {
            while self.owned.len() != count {
                if let Polled::Record(record, _) = self.polled().await {
                    panic!("a record came too early: {record:?}");
                }
            }
        })
        .await;
    }

    /// Finishes those of the records whose offset passes.
    fn finish(&self, records: &[(Record, Delivery)], which: impl Fn(i64) -> bool) {
        for (_, delivery) in records.iter().filter(|(record, _)| which(record.offset)) {
            assert!(self.consumer.finish(delivery), "{delivery:?} counts");
        }
    }

    async fn commit(&mut self) {
        within("a commit", self.consumer.commit()).await.unwrap();
    }

    async fn close(self) {
        within("leaving the group", self.consumer.close()).await.unwrap();
    }
}

fn text(record: &Record) -> String {
    String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap()
}

fn offsets(records: &[(Record, Delivery)]) -> Vec<i64> {
    records.iter().map(|(record, _)| record.offset).collect()
}

/// The whole suite, on a bus that can create topics. `suffix` makes the names unique to this run.
pub async fn all(bus: Bus, suffix: &str) {
    let fixture = Fixture::new(bus, suffix);
    tokio::join!(topics_are_created_once(&fixture), all_but_topics(&fixture));
}

/// The suite without the case that creates topics.
pub async fn all_but_topics(fixture: &Fixture) {
    within("the bus", fixture.bus().probe()).await.unwrap();
    tokio::join!(
        records_of_a_key_keep_their_order(fixture),
        a_key_lies_where_java_puts_it(fixture),
        a_record_comes_back_as_it_was_sent(fixture),
        a_record_too_large_is_refused(fixture),
        a_topic_is_read_outside_any_group(fixture),
        a_crash_redelivers_what_was_not_committed(fixture),
        what_is_finished_beyond_the_mark_does_not_come_again(fixture),
        lag_counts_what_is_not_finished(fixture),
        groups_do_not_share_records(fixture),
        pause_holds_back_one_topic(fixture),
        a_paused_topic_stays_paused_across_a_rebalance(fixture),
        a_rebalance_loses_nothing(fixture),
        a_revoked_record_cannot_be_finished(fixture),
        close_commits_and_leaves(fixture),
    );
    within("flushing", fixture.bus().flush()).await.unwrap();
}
