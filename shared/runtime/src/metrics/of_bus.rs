//! Errors of the bus, by what was tried and what to do about them.

use bus::Error;
use prometheus::{IntCounterVec, Registry};

use super::Series;

/// What was asked of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BusOperation {
    /// A record was sent.
    Send,
    /// The next record was asked for.
    Receive,
    /// Finished records were committed.
    Commit,
    /// A lag was read.
    Lag,
    /// The readiness probe asked.
    Probe,
    /// What was sent was waited for, and the group left.
    Leave,
}

impl BusOperation {
    const ALL: [Self; 6] = [Self::Send, Self::Receive, Self::Commit, Self::Lag, Self::Probe, Self::Leave];

    fn label(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Commit => "commit",
            Self::Lag => "lag",
            Self::Probe => "probe",
            Self::Leave => "leave",
        }
    }
}

const KINDS: [&str; 6] = ["unreachable", "unknown_topic", "too_large", "refused", "settings", "fatal"];

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Unreachable { .. } => "unreachable",
        Error::UnknownTopic { .. } => "unknown_topic",
        Error::TooLarge { .. } => "too_large",
        Error::Refused { .. } => "refused",
        Error::Settings { .. } => "settings",
        Error::Fatal { .. } => "fatal",
    }
}

/// The errors of a process's bus.
#[derive(Debug, Clone)]
pub(crate) struct BusMetrics(IntCounterVec);

impl BusMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Errors of the bus. Each is tried again, but for fatal ones, which end the process.";
        let errors = Series::of(registry).counters("batchmill_bus_errors_total", help, &["operation", "kind"])?;
        for operation in BusOperation::ALL {
            KINDS.iter().for_each(|kind| drop(errors.with_label_values(&[operation.label(), kind])));
        }
        Ok(Self(errors))
    }

    /// The bus answered with an error.
    pub(crate) fn record_error(&self, operation: BusOperation, error: &Error) {
        self.0.with_label_values(&[operation.label(), kind(error)]).inc();
    }
}
