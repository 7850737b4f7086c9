//! All events in one type, and for each the names under which it travels.
//!
//! Type, topic, key and schema of an event are functions of the event, written in this file only. The record key decides
//! who works on what: everything about one batch has one key (`job/number`), so within a topic one consumer sees it; what is
//! about a whole job has the job's.

use model::JobId;

use crate::topic::Topic;
use crate::{BatchCollected, BatchDispatched, BatchReady, JobCancelRequested, JobEnded, JobPlanned, JobSubmitted};

/// Any event of batchmill.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A job was submitted.
    JobSubmitted(JobSubmitted),
    /// A job's cancellation was requested.
    JobCancelRequested(JobCancelRequested),
    /// A job was planned or refused.
    JobPlanned(JobPlanned),
    /// A batch attempt is ready for a provider.
    BatchReady(BatchReady),
    /// A batch attempt left the dispatcher.
    BatchDispatched(BatchDispatched),
    /// A batch attempt was collected.
    BatchCollected(BatchCollected),
    /// A job ended.
    JobEnded(JobEnded),
}

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// See [`JobSubmitted`].
    JobSubmitted,
    /// See [`JobCancelRequested`].
    JobCancelRequested,
    /// See [`JobPlanned`].
    JobPlanned,
    /// See [`BatchReady`].
    BatchReady,
    /// See [`BatchDispatched`].
    BatchDispatched,
    /// See [`BatchCollected`].
    BatchCollected,
    /// See [`JobEnded`].
    JobEnded,
}

impl Kind {
    /// Every kind, in the order in which a job meets them.
    pub const ALL: &'static [Self] = &[
        Self::JobSubmitted,
        Self::JobCancelRequested,
        Self::JobPlanned,
        Self::BatchReady,
        Self::BatchDispatched,
        Self::BatchCollected,
        Self::JobEnded,
    ];

    /// The short name with its version, as files under `schemas/` are named: `batch.ready.v1`.
    #[must_use]
    pub fn name(self) -> &'static str {
        // Every type is the prefix and the name.
        self.ce_type().strip_prefix("io.batchmill.").unwrap_or_default()
    }

    /// The `CloudEvents` type: `io.batchmill.batch.ready.v1`.
    #[must_use]
    pub fn ce_type(self) -> &'static str {
        match self {
            Self::JobSubmitted => "io.batchmill.job.submitted.v1",
            Self::JobCancelRequested => "io.batchmill.job.cancel_requested.v1",
            Self::JobPlanned => "io.batchmill.job.planned.v1",
            Self::BatchReady => "io.batchmill.batch.ready.v1",
            Self::BatchDispatched => "io.batchmill.batch.dispatched.v1",
            Self::BatchCollected => "io.batchmill.batch.collected.v1",
            Self::JobEnded => "io.batchmill.job.ended.v1",
        }
    }

    /// The kind with this `CloudEvents` type; `None` for any other text.
    #[must_use]
    pub fn of_type(ce_type: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.ce_type() == ce_type)
    }

    /// The `$id` of the JSON Schema of its data, which is also the message's `ce_dataschema`.
    #[must_use]
    pub fn schema_id(self) -> String {
        format!("https://schemas.batchmill.io/events/{}.json", self.name())
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Event {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::JobSubmitted(_) => Kind::JobSubmitted,
            Self::JobCancelRequested(_) => Kind::JobCancelRequested,
            Self::JobPlanned(_) => Kind::JobPlanned,
            Self::BatchReady(_) => Kind::BatchReady,
            Self::BatchDispatched(_) => Kind::BatchDispatched,
            Self::BatchCollected(_) => Kind::BatchCollected,
            Self::JobEnded(_) => Kind::JobEnded,
        }
    }

    /// The job it is about.
    #[must_use]
    pub fn job(&self) -> &JobId {
        match self {
            Self::JobSubmitted(event) => &event.spec.id,
            Self::JobCancelRequested(event) => &event.job,
            Self::JobPlanned(event) => &event.job,
            Self::BatchReady(event) => &event.job,
            Self::BatchDispatched(event) => &event.job,
            Self::BatchCollected(event) => &event.job,
            Self::JobEnded(event) => &event.job,
        }
    }

    /// The record key: `job`, or `job/number` with the number in eight digits (`spring-catalog/00000007`).
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::BatchReady(BatchReady { job, batch }) | Self::BatchDispatched(BatchDispatched { job, batch, .. }) => {
                format!("{job}/{:08}", batch.id.number)
            }
            _ => self.job().to_string(),
        }
    }

    /// The topic on which it travels. For events of the jobs topics the producer chooses which of them: that is the team.
    #[must_use]
    pub fn topic(&self) -> Topic {
        match self {
            Self::JobSubmitted(_) | Self::JobCancelRequested(_) => Topic::Jobs,
            Self::BatchReady(event) if event.batch.id.attempt > 1 => Topic::Retries,
            Self::BatchReady(_) => Topic::Batches,
            Self::BatchDispatched(_) => Topic::Submissions,
            Self::JobPlanned(_) | Self::BatchCollected(_) => Topic::Results,
            Self::JobEnded(_) => Topic::Status,
        }
    }
}

macro_rules! from_each {
    ($($name:ident),*) => {
        $(impl From<$name> for Event {
            fn from(event: $name) -> Self {
                Self::$name(event)
            }
        })*
    };
}

from_each!(JobSubmitted, JobCancelRequested, JobPlanned, BatchReady, BatchDispatched, BatchCollected, JobEnded);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_and_has_a_short_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_type(kind.ce_type()), Some(*kind));
            assert!(kind.name().ends_with(".v1"), "{kind}");
        }
        assert_eq!(Kind::of_type("io.batchmill.batch.ready.v2"), None);
    }
}
