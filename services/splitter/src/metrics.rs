//! What the splitter counts.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// The splitter's series, all born at 0.
#[derive(Debug, Clone)]
pub struct Metrics {
    rows: IntCounterVec,
    batches: IntCounter,
    jobs: IntCounterVec,
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
        let rows = IntCounterVec::new(
            Opts::new("batchmill_splitter_rows_total", "Rows that were read and placed in a batch, by outcome."),
            &["outcome"],
        )?;
        let batches = IntCounter::new("batchmill_splitter_batches_total", "Batches that were cut and stored.")?;
        let jobs = IntCounterVec::new(
            Opts::new("batchmill_splitter_jobs_total", "Jobs that were planned or refused."),
            &["outcome"],
        )?;
        registry.register(Box::new(rows.clone()))?;
        registry.register(Box::new(batches.clone()))?;
        registry.register(Box::new(jobs.clone()))?;
        ROW_OUTCOMES.iter().for_each(|outcome| drop(rows.with_label_values(&[outcome])));
        JOB_OUTCOMES.iter().for_each(|outcome| drop(jobs.with_label_values(&[outcome])));
        Ok(Self { rows, batches, jobs })
    }

    /// A batch was cut and stored.
    pub fn record_batch(&self, rows: u64, sent: u64) {
        self.batches.inc();
        self.rows.with_label_values(&["ready"]).inc_by(sent);
        self.rows.with_label_values(&["failed"]).inc_by(rows - sent);
    }

    /// A plan fact was put, by us.
    pub fn record_plan(&self, refused: bool) {
        self.jobs.with_label_values(&[if refused { "refused" } else { "planned" }]).inc();
    }
}
