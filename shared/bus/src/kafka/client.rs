//! Where librdkafka's own messages go: to `tracing`, under the target `kafka`.

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// The context of clients that need no callbacks.
pub(super) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "kafka", %error, reason, "the Kafka client reports a problem; it goes on trying");
    }
}

impl ConsumerContext for Logged {}

/// What librdkafka says of every certificate that it does not take; it goes on to blame `ssl.ca.location` alone.
const NOT_CERTIFIED: &str = "certificate verify failed";

/// What else it may be.
const WHY_NOT_CERTIFIED: &str = "; or the certificate is not for the host that was asked, or is out of date";

pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let more = if message.contains(NOT_CERTIFIED) { WHY_NOT_CERTIFIED } else { "" };
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "kafka", facility, "{message}{more}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "kafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "kafka", facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "kafka", facility, "{message}"),
    }
}
