//! From the client library's errors to ours: by what the caller does about them.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::Error;

/// The error of a call that did `what`, about `topic` (empty if about none).
pub(super) fn of(what: &str, topic: &str, error: &KafkaError) -> Error {
    let (what, reason) = (what.to_owned(), error.to_string());
    match error {
        // The library's text has the value in it, which may be a password.
        KafkaError::ClientConfig(_, _, key, _) => {
            return Error::Settings {
                what,
                reason: format!("the Kafka client refuses the property `{key}` or its value"),
            };
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

#[cfg(test)]
mod tests {
    use super::*;

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
