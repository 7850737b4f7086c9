//! A room: what a service is, once everything that all services repeat is taken away.

use std::time::Duration;

use async_trait::async_trait;
use events::{Envelope, Event, Topic};
use model::Team;

use crate::work_loop::Outbox;

/// One of the services, as the loop sees it.
#[async_trait]
pub trait Room: Send + Sync + 'static {
    /// Its name, `splitter`: its settings' section, its part of metric names, and, after a prefix, its consumer group.
    fn name(&self) -> &'static str;

    /// The topics it takes events from. For [`Topic::Jobs`] the shared one and that of each team in the settings.
    fn topics(&self) -> Vec<Topic>;

    /// Whether the events of one job are handled one after another. Else only events of one kind about one batch attempt
    /// are.
    fn serial_by_job(&self) -> bool {
        false
    }

    /// The codes of the [`Reason`]s that it refuses events for, beside `unexpected_event`: the series of their dead letters are
    /// there before the first of them is.
    fn reasons(&self) -> &'static [&'static str] {
        &[]
    }

    /// Handles an event. Redelivery is normal, so it first looks whether its fact exists, and then only emits again.
    ///
    /// It may be cancelled at any await, when its partition goes to another member or a drain takes too long.
    ///
    /// # Errors
    /// Any error counts as transient: the event is tried again, later and later, for ever. What can't succeed is
    /// [`Verdict::Reject`], or a fact that says so.
    async fn handle(&self, event: &Received, out: &Outbox) -> anyhow::Result<Verdict>;

    /// The process got partitions, or gave some up. What others do with the events of those is not seen here, so a room that
    /// concludes from the events it has seen, and from those it has not, forgets that now.
    fn reassigned(&self) {}

    /// Removes what is needed no more. It is called every `cleanup.every_hours`, in each process of the room by itself.
    ///
    /// # Errors
    /// Any: it is logged, and the next round tries again.
    async fn clean(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// What becomes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is finished: everything that follows from it is stored and emitted.
    Done,
    /// It is to be handled again after this time. It gives its place back and stays open.
    Later(Duration),
    /// It can never be handled: it goes to the dead letters.
    Reject(Reason),
}

/// The code of an event that a room has no use for.
pub(crate) const UNEXPECTED: &str = "unexpected_event";

/// Why an event was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A stable code, for headers and metrics.
    pub code: &'static str,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl Reason {
    /// A reason.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The reason for an event that this room has no use for, though its topic carries it.
    #[must_use]
    pub fn unexpected(event: &Event) -> Self {
        Self::new(UNEXPECTED, format!("this room does not handle {}", event.kind().name()))
    }
}

/// An event as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// The event.
    pub event: Event,
    /// The team whose jobs topic it came on; on the other topics, where facts say whose a job is, the shared team.
    pub team: Team,
    /// The topic it came on.
    pub topic: Topic,
    /// How often this process has handled it before.
    pub tries: u32,
    /// Who sent it, and when; none for a bare job spec.
    pub envelope: Option<Envelope>,
}
