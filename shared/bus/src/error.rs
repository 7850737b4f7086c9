//! What can go wrong on the bus, by what the caller does about it.
//!
//! A broker has more than a hundred error codes; a caller has four choices: try again, refuse this record, tell the
//! operator, or end the process. So the variants are these, and the broker's own words go into the message.

/// The result of a call to the bus.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call to the bus failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The broker didn't answer, or can't serve this now. Try again; the outcome of what was asked is unknown.
    #[error(
        "{what}: the Kafka broker can't be reached or can't serve it now: {reason}; try again, and check `kafka.brokers` and `kafka.properties` if it stays so"
    )]
    Unreachable {
        /// What was tried.
        what: String,
        /// What the client or the broker said.
        reason: String,
    },
    /// The topic does not exist. Trying again helps only after someone has created it.
    #[error("topic `{topic}` does not exist; create it with `batchmill topics apply`")]
    UnknownTopic {
        /// The topic.
        topic: String,
    },
    /// The record is larger than the topic takes. It will never fit.
    #[error(
        "a record for topic `{topic}` has {bytes} bytes, more than the topic takes; keep events small, data belongs on object storage"
    )]
    TooLarge {
        /// The topic.
        topic: String,
        /// The sizes of key, value and headers together.
        bytes: usize,
    },
    /// The broker refuses this client: authentication or access control.
    #[error("{what}: the Kafka broker refuses it: {reason}; check `kafka.properties` and the broker's access lists")]
    Refused {
        /// What was tried.
        what: String,
        /// What the client or the broker said.
        reason: String,
    },
    /// A setting or a topic's spec is wrong.
    #[error("{what}: wrong setting: {reason}")]
    Settings {
        /// What was tried.
        what: String,
        /// What the client or the broker said.
        reason: String,
    },
    /// The client can't go on. End the process and start it again.
    #[error("{what}: the Kafka client can't go on: {reason}; start the process again")]
    Fatal {
        /// What was tried.
        what: String,
        /// What the client said.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anyone acting on it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unreachable { .. })
    }
}
