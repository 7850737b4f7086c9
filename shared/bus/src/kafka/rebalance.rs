//! The rebalance callbacks: taking partitions over and giving them up. They run on the consumer's thread, inside a poll.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::client;
use super::consumer::{Event, Shared, list, send_positions};
use crate::Polled;
use crate::window::Window;

/// How often the committed offsets are asked for before librdkafka is left to find them.
const LOOK_UPS: usize = 3;

/// The context of a consumer: what its callbacks know.
pub(super) struct Member {
    pub(super) shared: Arc<Shared>,
    pub(super) request_timeout: Duration,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "kafka", %error, reason, "the Kafka client reports a problem; it goes on trying");
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, client: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let done = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(client, partitions),
            _ => self.revoke(client, partitions),
        };
        if let Err(error) = done {
            tracing::error!(target: "kafka", %error, "a rebalance failed; the group will do another");
        }
    }
}

impl Member {
    fn assign(&self, client: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let names = names(partitions);
        let windows = self.look_up(client, &names);
        let mut start = TopicPartitionList::with_capacity(names.len());
        let mut state = self.shared.state();
        for (topic, partition) in &names {
            let (offset, window) = match windows.as_ref().map(|windows| windows.get(&(topic.clone(), *partition))) {
                Some(Some(window)) => (window.mark().map_or(Offset::Beginning, Offset::Offset), window.clone()),
                Some(None) => (Offset::Beginning, Window::unknown()),
                // The committed offset, as librdkafka will find it.
                None => (Offset::Invalid, Window::unknown()),
            };
            start.add_partition(topic, *partition).set_offset(offset)?;
            state.ownership.assign(topic, *partition, window);
        }
        let taken = match client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => client.incremental_assign(&start),
            _ => client.assign(&start),
        };
        if taken.is_err() {
            for (topic, partition) in &names {
                state.ownership.revoke(topic, *partition);
            }
            return taken;
        }
        let (pause, rest): (Vec<_>, Vec<_>) =
            names.iter().cloned().partition(|(topic, _)| state.paused.contains(topic));
        let resume: Vec<_> = rest.into_iter().filter(|partition| state.held_back.remove(partition)).collect();
        client.pause(&list(&pause))?;
        client.resume(&list(&resume))?;
        state.held_back.extend(pause);
        drop(state);
        self.shared.post(Event::Changed(Polled::Assigned(names)));
        Ok(())
    }

    /// The windows of the partitions that have a commit; None if it can't be found out.
    fn look_up(&self, client: &BaseConsumer<Self>, names: &[(String, i32)]) -> Option<BTreeMap<(String, i32), Window>> {
        for _ in 0..LOOK_UPS {
            match client.committed_offsets(list(names), self.request_timeout).and_then(|found| windows(&found)) {
                Ok(windows) => return Some(windows),
                Err(error) => tracing::warn!(target: "kafka", %error, "reading the committed offsets failed"),
            }
        }
        tracing::warn!(target: "kafka", "what was finished beyond the committed offsets will be delivered again");
        None
    }

    fn revoke(&self, client: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let names = names(partitions);
        let commits = self.shared.commits();
        let mut positions = Vec::new();
        let mut state = self.shared.state();
        for (topic, partition) in &names {
            positions.extend(state.ownership.revoke(topic, *partition));
        }
        drop(state);
        // A lost partition has a new owner already, whose commits must not be overwritten.
        if !client.assignment_lost()
            && !self.shared.crashed()
            && let Err(error) = send_positions(client, &positions)
        {
            tracing::warn!(target: "kafka", %error, "the last commit before a rebalance failed; records come again");
        }
        drop(commits);
        let given = match client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => client.incremental_unassign(partitions),
            _ => client.unassign(),
        };
        self.shared.post(Event::Changed(Polled::Revoked(names)));
        given
    }
}

fn names(partitions: &TopicPartitionList) -> Vec<(String, i32)> {
    partitions.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

fn windows(found: &TopicPartitionList) -> KafkaResult<BTreeMap<(String, i32), Window>> {
    let mut windows = BTreeMap::new();
    for element in found.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            let window = Window::starting_at(offset, element.metadata());
            windows.insert((element.topic().to_owned(), element.partition()), window);
        }
    }
    Ok(windows)
}
