//! From the client library's errors to ours: by what the caller does about them.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::Error;

/// What librdkafka says of a property, and of a SASL mechanism, that it was compiled without.
const LACKING: [&str; 2] = ["not supported in this build", "No provider for SASL mechanism"];

/// What to do about it. Kerberos is in neither build.
const WHICH_BUILD: &str = if cfg!(feature = "tls") {
    "this build has TLS, SCRAM and OAUTHBEARER, but not that: use one of these"
} else {
    "this build has no TLS, no SCRAM and no OAUTHBEARER: use one that was made with `cargo build --features tls`"
};

/// The error of a call that did `what`, about `topic` (empty if about none).
pub(super) fn of(what: &str, topic: &str, error: &KafkaError) -> Error {
    let (what, reason) = (what.to_owned(), error.to_string());
    match error {
        // The library's text has the value in it, which may be a password.
        KafkaError::ClientConfig(_, text, key, value) => {
            let mut reason = format!("the Kafka client refuses the property `{key}` or its value");
            // Of a value it doesn't say that it was compiled without it.
            let protocol = ["ssl", "sasl_ssl"].iter().any(|protocol| value.eq_ignore_ascii_case(protocol));
            if lacks(text) || key == "security.protocol" && protocol {
                reason = format!("{reason}; {WHICH_BUILD}");
            }
            return Error::Settings { what, reason };
        }
        KafkaError::ClientCreation(text) if lacks(text) => {
            let reason = format!("the Kafka client has no such `sasl.mechanism`; {WHICH_BUILD}");
            return Error::Settings { what, reason };
        }
        KafkaError::ClientCreation(_) | KafkaError::Nul(_) | KafkaError::AdminOpCreation(_) => {
            return Error::Settings { what, reason };
        }
        KafkaError::MessageConsumptionFatal(_) => return Error::Fatal { what, reason },
        _ => {}
    }
    // The library leaves out the code of an admin operation.
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        _ => error.rdkafka_error_code(),
    };
    match code {
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) if !topic.is_empty() => {
            Error::UnknownTopic { topic: topic.to_owned() }
        }
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::PolicyViolation,
        ) => Error::Refused { what, reason },
        Some(
            Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidConfig
            | Code::InvalidArgument,
        ) => Error::Settings { what, reason },
        Some(Code::Fatal | Code::Fenced | Code::FencedInstanceId | Code::InvalidProducerEpoch) => {
            Error::Fatal { what, reason }
        }
        _ => Error::Unreachable { what, reason },
    }
}

/// Whether the client library says that it was compiled without something.
fn lacks(text: &str) -> bool {
    LACKING.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bus, KafkaSettings};

    /// What a start with these properties says; empty if nothing is wrong with them.
    fn start(properties: &[(&str, &str)]) -> String {
        let own = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings =
            KafkaSettings { properties: own.collect(), brokers: "127.0.0.1:1".to_owned(), ..KafkaSettings::default() };
        Bus::kafka(settings).map(drop).map_err(|error| error.to_string()).err().unwrap_or_default()
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn without_the_feature_tls_and_scram_are_refused_with_the_build_that_has_them() {
        let scram = [("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.username", "u"), ("sasl.password", "hunter2")];
        let scram_over = |protocol: &'static str| [&[("security.protocol", protocol)][..], &scram[..]].concat();
        for (properties, named) in [
            (vec![("security.protocol", "ssl")], "`security.protocol`"),
            (vec![("security.protocol", "SASL_SSL")], "`security.protocol`"),
            (vec![("ssl.ca.location", "/etc/ca.pem")], "`ssl.ca.location`"),
            (vec![("ssl.key.password", "hunter2")], "`ssl.key.password`"),
            (scram_over("sasl_ssl"), "`security.protocol`"),
            (scram_over("sasl_plaintext"), "`sasl.mechanism`"),
        ] {
            let said = start(&properties);
            assert!(said.contains(named) && said.contains("cargo build --features tls"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn what_no_build_knows_is_not_blamed_on_the_build() {
        for properties in [[("security.protocol", "tls")], [("no.such.property", "hunter2")]] {
            let said = start(&properties);
            assert!(said.contains(properties[0].0) && !said.contains("build"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn only_what_may_pass_by_itself_is_transient() {
        let unreachable = of("sending", "t", &KafkaError::MessageProduction(Code::MessageTimedOut));
        assert!(unreachable.is_transient());
        let rebalance = of("committing", "", &KafkaError::ConsumerCommit(Code::RebalanceInProgress));
        assert!(rebalance.is_transient());
        for error in [
            KafkaError::MetadataFetch(Code::UnknownTopicOrPartition),
            KafkaError::MessageProduction(Code::TopicAuthorizationFailed),
            KafkaError::AdminOp(Code::InvalidReplicationFactor),
            KafkaError::MessageProduction(Code::Fatal),
            KafkaError::MessageConsumptionFatal(Code::FencedInstanceId),
        ] {
            assert!(!of("asking", "t", &error).is_transient(), "{error}");
        }
    }

    #[test]
    fn a_missing_topic_is_named() {
        let error = of("sending", "jobs", &KafkaError::MessageProduction(Code::UnknownTopic));
        assert_eq!(error, Error::UnknownTopic { topic: "jobs".to_owned() });
    }
}
