//! The settings of the Kafka client, and the librdkafka properties that follow from them.
//!
//! Three layers, later ones win: our defaults, the operator's extra properties, and what the bus's promises rest on
//! (manual commits, acknowledgement by all replicas, the partitioner), which nobody can change.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

/// How the members of a group share its partitions (`partition.assignment.strategy`). All members of a group must say
/// the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignment {
    /// Only the partitions that move are taken away in a rebalance.
    #[default]
    CooperativeSticky,
    /// Every rebalance takes all partitions away and deals them anew.
    Range,
}

/// How to reach a Kafka cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// The brokers to start from: `host:port,host:port`.
    pub brokers: String,
    /// The name under which the broker's logs and quotas know this client.
    pub client_id: String,
    /// How a group's partitions are shared.
    pub assignment: Assignment,
    /// After this long without a heartbeat a member counts as dead, and its partitions go to the others.
    pub session_timeout: Duration,
    /// How long a member may leave its records and rebalances untaken.
    pub max_poll_interval: Duration,
    /// How long a send is tried before its outcome is called unknown.
    pub delivery_timeout: Duration,
    /// How long metadata, offsets and topics are asked for.
    pub request_timeout: Duration,
    /// More librdkafka properties, for producers and consumers alike: `security.protocol`, `sasl.username`, …
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        KafkaSettings {
            brokers: "127.0.0.1:9092".to_owned(),
            client_id: "batchmill".to_owned(),
            assignment: Assignment::default(),
            session_timeout: Duration::from_secs(45),
            max_poll_interval: Duration::from_secs(300),
            delivery_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(10),
            properties: BTreeMap::new(),
        }
    }
}

/// Of the extra properties only the names are shown: a value may be a password.
impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("assignment", &self.assignment)
            .field("session_timeout", &self.session_timeout)
            .field("max_poll_interval", &self.max_poll_interval)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .finish()
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

impl KafkaSettings {
    /// What every client has.
    pub(super) fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        config.set("client.id", &self.client_id).set("topic.metadata.refresh.interval.ms", "30000");
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers).set("allow.auto.create.topics", "false");
        config
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        if !self.properties.contains_key("compression.type") {
            config.set("compression.type", "zstd");
        }
        config
            .set("delivery.timeout.ms", millis(self.delivery_timeout))
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random");
        config
    }

    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.common();
        config
            .set("group.id", group)
            .set("group.protocol", "classic")
            .set(
                "partition.assignment.strategy",
                match self.assignment {
                    Assignment::CooperativeSticky => "cooperative-sticky",
                    Assignment::Range => "range",
                },
            )
            .set("session.timeout.ms", millis(self.session_timeout))
            // The broker wants several heartbeats in a session.
            .set("heartbeat.interval.ms", millis((self.session_timeout / 10).min(Duration::from_secs(3))))
            .set("max.poll.interval.ms", millis(self.max_poll_interval.max(self.session_timeout)))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let properties = BTreeMap::from([("sasl.password".to_owned(), "hunter2".to_owned())]);
        let settings = KafkaSettings { properties, ..KafkaSettings::default() };
        let shown = format!("{settings:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn no_property_can_break_a_promise() {
        let properties = BTreeMap::from([
            ("enable.auto.commit".to_owned(), "true".to_owned()),
            ("acks".to_owned(), "0".to_owned()),
            ("security.protocol".to_owned(), "sasl_ssl".to_owned()),
        ]);
        let settings = KafkaSettings { properties, ..KafkaSettings::default() };
        assert_eq!(settings.consumer("g").get("enable.auto.commit"), Some("false"));
        assert_eq!(settings.producer().get("acks"), Some("all"));
        assert_eq!(settings.producer().get("security.protocol"), Some("sasl_ssl"));
    }
}
