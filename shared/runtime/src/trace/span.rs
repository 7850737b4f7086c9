//! A span that has ended, and where it goes.

use std::fmt::Debug;
use std::time::Duration;

use events::{SpanId, TraceContext, TraceParent};
use jiff::Timestamp;

/// What a span is to other processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// It handled what another sent.
    Consumer,
    /// It sent what others will handle.
    Producer,
    /// It called a server.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl<T: Into<String>> From<T> for Value {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedSpan {
    /// The room, or the command, that it is of.
    pub who: String,
    /// Its name, of few different values: `batchmill.batches.v1 process`.
    pub name: String,
    /// What it is to other processes.
    pub kind: SpanKind,
    /// Its own ids.
    pub context: TraceParent,
    /// The span of the same trace that it is a part of.
    pub parent: Option<SpanId>,
    /// The span, of another trace, that caused it.
    pub link: Option<TraceContext>,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// What is known of it, by the names of OpenTelemetry's semantic conventions, and `batchmill.…`.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed.
    pub error: Option<String>,
}

impl FinishedSpan {
    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// Takes spans that have ended.
pub trait SpanSink: Debug + Send + Sync {
    /// Takes one. It never waits: a span for which there is no room is lost.
    fn take(&self, span: FinishedSpan);

    /// Sends what it has, for at most that long. May block.
    fn finish(&self, within: Duration);
}
