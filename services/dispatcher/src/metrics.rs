//! What the dispatcher counts.

use std::time::Duration;

use prometheus::{Histogram, IntCounterVec, IntGaugeVec, Registry};
use providers::Providers;
use runtime::metrics::{STAGE_SECONDS, Series};

use crate::caps::decide::Cap;

/// The dispatcher's series, all born at 0.
#[derive(Debug, Clone)]
pub struct Metrics {
    batches: IntCounterVec,
    rows: IntCounterVec,
    ambiguous: IntCounterVec,
    fences: IntCounterVec,
    submissions: Histogram,
}

/// How a batch attempt left the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// What a fence found out about a create whose outcome nobody recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fenced {
    /// The provider has the batch.
    Adopted,
    /// It does not, and the file is gone: it never will.
    Cleared,
    /// A list or the deletion failed, which proves nothing: it is tried again.
    Failed,
}

impl Fenced {
    const ALL: [Self; 3] = [Self::Adopted, Self::Cleared, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Adopted => "adopted",
            Self::Cleared => "cleared",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// Registers the series, and makes those of these providers.
    ///
    /// # Errors
    /// When a series of one of these names is registered already.
    pub fn new(registry: &Registry, providers: &Providers) -> Result<Self, prometheus::Error> {
        let (series, by_outcome) = (Series::of(registry), ["provider", "outcome"]);
        let metrics = Self {
            batches: series.counters(
                "batchmill_dispatcher_batches_total",
                "Submission-log entries that end a batch attempt's submission or note a refusal (rejected; it may be tried \
                 again), by outcome.",
                &by_outcome,
            )?,
            rows: series.counters(
                "batchmill_dispatcher_rows_total",
                "Rows to be sent of those batch attempts: what was submitted or adopted is paid for.",
                &by_outcome,
            )?,
            ambiguous: series.counters(
                "batchmill_dispatcher_ambiguous_creates_total",
                "Creates whose answer was lost: the batch may run. Nothing more is sent for it until the fence has found out.",
                &["provider"],
            )?,
            fences: series.counters(
                "batchmill_dispatcher_fences_total",
                "Looks for a batch whose create has no recorded outcome (a lost answer, or a dispatcher that died), by what \
                 they found; failed ones prove nothing and are repeated.",
                &by_outcome,
            )?,
            submissions: series.histogram(
                "batchmill_dispatcher_submit_duration_seconds",
                "Time from the claim of a batch attempt to the provider's acceptance: fence, encoding, upload and create.",
                STAGE_SECONDS,
            )?,
        };
        for (provider, _) in providers.usable() {
            metrics.ambiguous.with_label_values(&[provider]);
            for outcome in Outcome::ALL {
                metrics.batches.with_label_values(&[provider, outcome.label()]);
                metrics.rows.with_label_values(&[provider, outcome.label()]);
            }
            Fenced::ALL.iter().for_each(|found| drop(metrics.fences.with_label_values(&[provider, found.label()])));
        }
        Ok(metrics)
    }

    /// A log entry that ends or refuses a submission of so many rows was won by us.
    pub fn record_outcome(&self, provider: &str, outcome: Outcome, rows: u64) {
        self.batches.with_label_values(&[provider, outcome.label()]).inc();
        self.rows.with_label_values(&[provider, outcome.label()]).inc_by(rows);
    }

    /// A create's outcome is unknown.
    pub fn record_ambiguous(&self, provider: &str) {
        self.ambiguous.with_label_values(&[provider]).inc();
    }

    /// A fence ended.
    pub fn record_fence(&self, provider: &str, found: Fenced) {
        self.fences.with_label_values(&[provider, found.label()]).inc();
    }

    /// A create was accepted, and is recorded.
    pub fn record_submitted(&self, took: Duration) {
        self.submissions.observe(took.as_secs_f64());
    }
}

/// What the caps of the settings show; born with each cap.
#[derive(Debug, Clone)]
pub struct CapMetrics {
    limit: IntGaugeVec,
    held: IntGaugeVec,
    waiting: IntGaugeVec,
}

impl CapMetrics {
    /// Registers the series.
    ///
    /// # Errors
    /// When a series of one of these names is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let (series, labels) = (Series::of(registry), ["provider", "cap"]);
        Ok(Self {
            limit: series.gauges(
                "batchmill_dispatcher_cap_limit_batches",
                "The most batches at a time, from the settings.",
                &labels,
            )?,
            held: series.gauges(
                "batchmill_dispatcher_cap_held_batches",
                "Batches that count for the cap, taken on and not collected, as this process last read the facts; it reads when a \
                 batch waits for a place.",
                &labels,
            )?,
            waiting: series.gauges(
                "batchmill_dispatcher_cap_waiting_batches",
                "Batches that wait for a place under the cap in this process.",
                &labels,
            )?,
        })
    }

    /// A cap of the settings.
    pub(crate) fn born(&self, cap: &Cap) {
        self.limit.with_label_values(&labels(cap)).set(gauge(cap.limit));
        self.record(cap, 0, 0);
    }

    /// What is held, and what waits.
    pub(crate) fn record(&self, cap: &Cap, held: u64, waiting: u64) {
        self.held.with_label_values(&labels(cap)).set(gauge(held));
        self.waiting.with_label_values(&labels(cap)).set(gauge(waiting));
    }
}

fn labels(cap: &Cap) -> [&str; 2] {
    [&cap.provider, cap.model.as_deref().unwrap_or("account")]
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
