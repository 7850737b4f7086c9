//! What the dispatcher counts.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// The dispatcher's series, all born at 0.
#[derive(Debug, Clone)]
pub struct Metrics {
    batches: IntCounterVec,
    rows: IntCounter,
    ambiguous: IntCounter,
}

/// How a batch attempt left the dispatcher.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// A create was accepted.
    Submitted,
    /// A batch was found in the provider's list after an unknown outcome.
    Adopted,
    /// A create was refused cleanly.
    Rejected,
    /// Nothing was sent.
    Unsent,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Submitted, Self::Adopted, Self::Rejected, Self::Unsent];

    fn label(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Adopted => "adopted",
            Self::Rejected => "rejected",
            Self::Unsent => "unsent",
        }
    }
}

impl Metrics {
    /// Registers the series.
    ///
    /// # Errors
    /// When a series of one of these names is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let batches = IntCounterVec::new(
            Opts::new("batchmill_dispatcher_batches_total", "Steps that ended or refused a submission, by outcome."),
            &["outcome"],
        )?;
        let rows = IntCounter::new("batchmill_dispatcher_rows_total", "Rows of accepted creates.")?;
        let ambiguous = IntCounter::new(
            "batchmill_dispatcher_ambiguous_creates_total",
            "Creates whose outcome is unknown; each is resolved by the fence before anything else is sent.",
        )?;
        registry.register(Box::new(batches.clone()))?;
        registry.register(Box::new(rows.clone()))?;
        registry.register(Box::new(ambiguous.clone()))?;
        Outcome::ALL.iter().for_each(|outcome| drop(batches.with_label_values(&[outcome.label()])));
        Ok(Self { batches, rows, ambiguous })
    }

    /// A log entry that ends or refuses a submission was won by us.
    pub fn record_outcome(&self, outcome: Outcome, rows: u64) {
        self.batches.with_label_values(&[outcome.label()]).inc();
        if matches!(outcome, Outcome::Submitted) {
            self.rows.inc_by(rows);
        }
    }

    /// A create's outcome is unknown.
    pub fn record_ambiguous(&self) {
        self.ambiguous.inc();
    }
}
