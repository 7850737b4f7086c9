//! What the splitter counts.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, Registry};
use runtime::metrics::{STAGE_SECONDS, Series};

/// The splitter's series, all born at 0.
#[derive(Debug, Clone)]
pub struct Metrics {
    rows: IntCounterVec,
    batches: IntCounter,
    jobs: IntCounterVec,
    plans: Histogram,
}

/// How a row left the splitter.
const ROW_OUTCOMES: [&str; 2] = ["ready", "failed"];
/// How a job left the splitter.
const JOB_OUTCOMES: [&str; 2] = ["planned", "refused"];

impl Metrics {
    /// Registers the series.
    ///
    /// # Errors
    /// When a series of one of these names is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let series = Series::of(registry);
        let rows = series.counters(
            "batchmill_splitter_rows_total",
            "Rows that were read and placed in a batch: ready to be sent, or failed, since no request can be made of them.",
            &["outcome"],
        )?;
        let jobs =
            series.counters("batchmill_splitter_jobs_total", "Jobs that were planned or refused.", &["outcome"])?;
        ROW_OUTCOMES.iter().for_each(|outcome| drop(rows.with_label_values(&[outcome])));
        JOB_OUTCOMES.iter().for_each(|outcome| drop(jobs.with_label_values(&[outcome])));
        let batches = series.counter("batchmill_splitter_batches_total", "Batches that were cut and stored.")?;
        let plans = series.histogram(
            "batchmill_splitter_plan_duration_seconds",
            "Time from taking a job up to its plan or its refusal: the whole input read, checked and stored as batches.",
            STAGE_SECONDS,
        )?;
        Ok(Self { rows, batches, jobs, plans })
    }

    /// A batch was cut and stored.
    pub fn record_batch(&self, rows: u64, sent: u64) {
        self.batches.inc();
        self.rows.with_label_values(&["ready"]).inc_by(sent);
        self.rows.with_label_values(&["failed"]).inc_by(rows - sent);
    }

    /// A plan fact was put, by us.
    pub fn record_plan(&self, refused: bool, took: Duration) {
        self.jobs.with_label_values(&[if refused { "refused" } else { "planned" }]).inc();
        self.plans.observe(took.as_secs_f64());
    }
}
