//! Why a record can't be read: each reason with a stable code, for the dead-letter headers and the metrics.
//!
//! A message says what is wrong and where, and what would be right. It never repeats a value of the data, because
//! prompts must not reach a log; names of fields and attributes it does repeat.

use crate::event::Kind;
use crate::topic::Topic;

/// A record that will never be readable, however often it is tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// There is no value. On a compacted topic such a record deletes its key.
    #[error("the record has no value (a tombstone): an event needs its data as JSON in the value")]
    Tombstone,
    /// The value, or the job spec in it, is larger than an event may be.
    #[error(
        "{what} has {bytes} bytes, and at most {limit} are allowed: shorten the template, the system prompt or the parameters"
    )]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The value is not JSON.
    #[error("the value is not JSON: {message}")]
    NotJson {
        /// What the parser says, with line and column.
        message: String,
    },
    /// The record has no `CloudEvents` attributes, and its topic takes nothing else.
    #[error("the record on {topic} has no CloudEvents headers: only a job spec on a jobs topic may come without")]
    NotCloudEvent {
        /// The topic.
        topic: Topic,
    },
    /// Several events in one record.
    #[error("the record is in CloudEvents batch mode: send one event a record")]
    BatchMode,
    /// Another version of `CloudEvents` itself.
    #[error("specversion {found:?} is not supported: use 1.0")]
    UnsupportedSpecversion {
        /// What the record says; empty if nothing.
        found: String,
    },
    /// Data in another format than JSON.
    #[error(
        "content type {found:?} is not supported: use application/json, or application/cloudevents+json for the structured mode"
    )]
    UnsupportedContentType {
        /// What the record says.
        found: String,
    },
    /// A required attribute is not there.
    #[error("the CloudEvents attribute {name} is missing or empty")]
    MissingAttribute {
        /// Its name.
        name: &'static str,
    },
    /// An attribute can't be read.
    #[error("the CloudEvents attribute {name} is not valid: {message}")]
    InvalidAttribute {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// An event that this version does not know.
    #[error("the event type {found:?} is not known: it may come from a newer version")]
    UnknownType {
        /// The type.
        found: String,
    },
    /// An event on a topic that is not its own.
    #[error("{kind} does not belong on the topic {topic}: it belongs on {right}")]
    WrongTopic {
        /// The event.
        kind: Kind,
        /// Where it was found.
        topic: Topic,
        /// Where it belongs.
        right: Topic,
    },
    /// The record's key is not the event's, so the record may lie in another partition than its like.
    #[error("the record key is not the event's: it must be {right:?}")]
    WrongKey {
        /// The right key.
        right: String,
    },
    /// The data is JSON but not this event's.
    #[error("the data of {kind} is not valid: {message}")]
    InvalidData {
        /// The event.
        kind: Kind,
        /// The field, and what is wrong with it.
        message: String,
    },
}

impl Poison {
    /// Every stable code.
    pub const CODES: &'static [&'static str] = &[
        "tombstone",
        "too_large",
        "not_json",
        "not_cloudevent",
        "batch_mode",
        "unsupported_specversion",
        "unsupported_content_type",
        "missing_attribute",
        "invalid_attribute",
        "unknown_type",
        "wrong_topic",
        "wrong_key",
        "invalid_data",
    ];

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::TooLarge { .. } => "too_large",
            Self::NotJson { .. } => "not_json",
            Self::NotCloudEvent { .. } => "not_cloudevent",
            Self::BatchMode => "batch_mode",
            Self::UnsupportedSpecversion { .. } => "unsupported_specversion",
            Self::UnsupportedContentType { .. } => "unsupported_content_type",
            Self::MissingAttribute { .. } => "missing_attribute",
            Self::InvalidAttribute { .. } => "invalid_attribute",
            Self::UnknownType { .. } => "unknown_type",
            Self::WrongTopic { .. } => "wrong_topic",
            Self::WrongKey { .. } => "wrong_key",
            Self::InvalidData { .. } => "invalid_data",
        }
    }
}

/// Text from outside, short enough for a header or a log line.
pub(crate) fn shorten(text: &str, bytes: usize) -> String {
    let cut = text.floor_char_boundary(bytes);
    if cut == text.len() { text.to_owned() } else { format!("{}…", &text[..cut]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_list() {
        let (topic, kind, text) = (Topic::Jobs, Kind::JobSubmitted, String::new);
        let all = [
            Poison::Tombstone,
            Poison::TooLarge { what: "it", bytes: 2, limit: 1 },
            Poison::NotJson { message: text() },
            Poison::NotCloudEvent { topic },
            Poison::BatchMode,
            Poison::UnsupportedSpecversion { found: text() },
            Poison::UnsupportedContentType { found: text() },
            Poison::MissingAttribute { name: "id" },
            Poison::InvalidAttribute { name: "id", message: text() },
            Poison::UnknownType { found: text() },
            Poison::WrongTopic { kind, topic, right: topic },
            Poison::WrongKey { right: text() },
            Poison::InvalidData { kind, message: text() },
        ];
        assert_eq!(all.each_ref().map(Poison::code), Poison::CODES);
    }
}
