//! A client that has lost every broker finds them again.
//!
//! librdkafka forgets each broker that a metadata reply does not list. When a cluster lists none for a moment (its only
//! broker was stopped for too long and is fenced by the controller, say), the client is left without any, and starts over
//! from `bootstrap.servers`. If another reply is under way just then, that start is called off for good: the reply stops its
//! timer, but what says that it is under way stays set (2.12.1: `rd_kafka_rebootstrap_tmr_stop`, `rd_kafka_rebootstrap`).
//! From then on the client asks nobody, joins no group and sends nothing, and it looks like an outage that never ends. With
//! `metadata.recovery.strategy=none` it ends so every time.
//!
//! So a client for which no broker was to be found is asked for metadata now and then, less and less often, and when that
//! fails it is told its first brokers once more. A client that merely waits for its brokers loses a few bytes by it.

use std::ffi::CString;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};

/// How long a reply to the question is waited for.
const REPLY: Duration = Duration::from_secs(2);

/// How often a client is asked while no broker is to be found: after so many rounds of its owner, then twice as many.
#[derive(Debug)]
pub(super) struct Outage {
    rounds: u32,
    wait: u32,
    most: u32,
}

impl Outage {
    /// The first question comes after `first` rounds, and two are never more than `most` apart.
    pub(super) fn new(first: u32, most: u32) -> Outage {
        Outage { rounds: 0, wait: first, most }
    }

    /// Counts a round; whether it is time to ask.
    pub(super) fn is_due(&mut self) -> bool {
        self.rounds += 1;
        if self.rounds < self.wait {
            return false;
        }
        self.rounds = 0;
        self.wait = self.wait.saturating_mul(2).min(self.most);
        true
    }
}

/// Whether a broker answers the client. If none does, the client is told `brokers`, its first ones, once more. Blocks for
/// a moment.
pub(super) fn revive<C: ClientContext>(client: &Client<C>, topic: Option<&str>, brokers: &str) -> bool {
    if client.fetch_metadata(topic, REPLY).is_ok() {
        return true;
    }
    tracing::info!(target: "kafka", brokers, "no broker is to be found: starting over from kafka.brokers");
    add_brokers(client, brokers);
    false
}

#[allow(unsafe_code)] // the library has no safe call for it
fn add_brokers<C: ClientContext>(client: &Client<C>, brokers: &str) {
    let Ok(brokers) = CString::new(brokers) else { return };
    // SAFETY: the borrow keeps the client's pointer valid; the call may be made by any thread, and copies the text, which ends
    // in NUL.
    unsafe {
        rdkafka::bindings::rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr());
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, Producer};

    use super::*;

    #[test]
    fn it_asks_less_and_less_often_but_never_gives_up() {
        let mut outage = Outage::new(2, 8);
        let due: Vec<u32> = (1..=40).filter(|_| outage.is_due()).collect();
        assert_eq!(due, [2, 6, 14, 22, 30, 38]);
    }

    #[test]
    fn a_client_without_a_broker_that_answers_is_given_its_first_ones() {
        let cluster = MockCluster::new(1).unwrap();
        // Nothing listens there, as after a metadata reply that lists no broker.
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1").set("metadata.recovery.strategy", "none");
        let producer: BaseProducer = config.create().unwrap();
        assert!(!revive(producer.client(), None, &cluster.bootstrap_servers()));
        let answered = (0..30).any(|_| revive(producer.client(), None, &cluster.bootstrap_servers()));
        assert!(answered, "the client does not know the broker");
    }
}
