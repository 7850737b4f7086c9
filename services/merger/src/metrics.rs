//! What the merger counts.

use std::time::Duration;

use model::EndFact;
use prometheus::{Histogram, IntCounter, IntCounterVec};
use runtime::Context;
use runtime::metrics::{Bounded, STAGE_SECONDS, Series};

/// The merger's series, all born at 0.
#[derive(Debug, Clone)]
pub struct Metrics {
    jobs: IntCounterVec,
    rows: IntCounterVec,
    planned_rows: IntCounter,
    mismatches: IntCounter,
    merges: Histogram,
    job_durations: Histogram,
    teams: Bounded,
}

const JOB_OUTCOMES: [&str; 3] = ["answered", "partial", "refused"];
const ROW_OUTCOMES: [&str; 2] = ["answered", "failed"];
/// Bounds for whole jobs, in seconds: to three days, the usual deadline.
const JOB_SECONDS: &[f64] =
    &[10.0, 60.0, 300.0, 900.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 57_600.0, 86_400.0, 172_800.0, 259_200.0];

impl Metrics {
    /// Registers the series.
    ///
    /// # Errors
    /// When a series of one of these names is registered already.
    pub fn new(context: &Context) -> Result<Self, prometheus::Error> {
        let series = Series::of(&context.registry);
        let metrics = Self {
            jobs: series.counters(
                "batchmill_merger_jobs_total",
                "Jobs that ended: with every row answered, with some failed (partial), or refused before anything was spent.",
                &["team", "outcome"],
            )?,
            rows: series.counters("batchmill_merger_rows_total", "Rows of ended jobs, by outcome.", &["outcome"])?,
            planned_rows: series.counter(
                "batchmill_merger_planned_rows_total",
                "Rows of ended jobs as their plans have them. Conservation: the same as batchmill_merger_rows_total, summed.",
            )?,
            mismatches: series.counter(
                "batchmill_merger_conservation_mismatches_total",
                "Merges that were stopped because facts and data contradict each other, or rows are missing: the job does not \
                 end on them.",
            )?,
            merges: series.histogram(
                "batchmill_merger_merge_duration_seconds",
                "Time of a merge: all batches fetched, zipped and written to the output.",
                STAGE_SECONDS,
            )?,
            job_durations: series.histogram(
                "batchmill_merger_job_duration_seconds",
                "Time from taking a job up to its end, refused jobs left out.",
                JOB_SECONDS,
            )?,
            teams: context.labels.teams.clone(),
        };
        ROW_OUTCOMES.iter().for_each(|outcome| drop(metrics.rows.with_label_values(&[outcome])));
        for team in metrics.teams.known() {
            JOB_OUTCOMES.iter().for_each(|outcome| drop(metrics.jobs.with_label_values(&[team.as_str(), *outcome])));
        }
        Ok(metrics)
    }

    /// An end fact was put, by us. Its plan had so many rows.
    pub fn record_end(&self, end: &EndFact, planned_rows: u64) {
        let outcome = match () {
            () if end.refusal.is_some() => "refused",
            () if end.counts.failed_rows() > 0 => "partial",
            () => "answered",
        };
        self.jobs.with_label_values(&[self.teams.of(end.team.as_str()), outcome]).inc();
        if end.refusal.is_some() {
            return;
        }
        self.planned_rows.inc_by(planned_rows);
        self.rows.with_label_values(&["answered"]).inc_by(end.counts.answered);
        self.rows.with_label_values(&["failed"]).inc_by(end.counts.failed_rows());
        self.job_durations.observe(end.ended_at.duration_since(end.accepted_at).as_secs_f64().max(0.0));
    }

    /// A merge was written.
    pub fn record_merge(&self, took: Duration) {
        self.merges.observe(took.as_secs_f64());
    }

    /// A merge was stopped.
    pub fn record_mismatch(&self) {
        self.mismatches.inc();
    }
}
