//! What the merger counts.

use model::Counts;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// The merger's series, all born at 0.
#[derive(Debug, Clone)]
pub struct Metrics {
    jobs: IntCounterVec,
    rows: IntCounterVec,
    contradictions: IntCounter,
}

const JOB_OUTCOMES: [&str; 2] = ["ended", "refused"];
const ROW_OUTCOMES: [&str; 2] = ["answered", "failed"];

impl Metrics {
    /// Registers the series.
    ///
    /// # Errors
    /// When a series of one of these names is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, values: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), &["outcome"])?;
            values.iter().for_each(|value| drop(vec.with_label_values(&[value])));
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let contradictions = IntCounter::new(
            "batchmill_merger_contradictions_total",
            "Merges that were stopped because facts and data contradict each other: the job does not end on them.",
        )?;
        registry.register(Box::new(contradictions.clone()))?;
        Ok(Self {
            jobs: vec("batchmill_merger_jobs_total", "Jobs that ended, by how.", &JOB_OUTCOMES)?,
            rows: vec("batchmill_merger_rows_total", "Rows of ended jobs, by outcome.", &ROW_OUTCOMES)?,
            contradictions,
        })
    }

    /// An end fact was put, by us.
    pub fn record_end(&self, counts: &Counts, refused: bool) {
        self.jobs.with_label_values(&[if refused { "refused" } else { "ended" }]).inc();
        self.rows.with_label_values(&["answered"]).inc_by(counts.answered);
        self.rows.with_label_values(&["failed"]).inc_by(counts.failed_rows());
    }

    /// A merge was stopped.
    pub fn record_contradiction(&self) {
        self.contradictions.inc();
    }
}
