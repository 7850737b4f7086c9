//! What the poller counts.

mod at_provider;
mod money;

use std::collections::BTreeMap;
use std::time::Duration;

use model::retry::may_be_tried_again;
use model::{FailureKind, JobSpec, ResultFact, Team};
use prometheus::{Histogram, HistogramVec, IntCounterVec};
use providers::{BatchStatus, Providers};
use runtime::Context;
use runtime::metrics::{Labels, STAGE_SECONDS, Series};

pub(crate) use at_provider::AtProvider;
use money::Money;

/// The poller's series, all born at 0; those of a model when its first batch is met.
#[derive(Debug, Clone)]
pub struct Metrics {
    rows: IntCounterVec,
    failed: IntCounterVec,
    retried: IntCounterVec,
    money: Money,
    batches: IntCounterVec,
    looks: IntCounterVec,
    strays: IntCounterVec,
    turnaround: HistogramVec,
    collections: Histogram,
    pub(crate) at_provider: AtProvider,
    labels: Labels,
}

/// How a batch attempt ended, as the poller took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The provider completed it.
    Completed,
    /// It failed as a whole.
    Failed,
    /// Its window closed.
    Expired,
    /// It was cancelled.
    Cancelled,
    /// Nobody wanted it any more, and it would not end.
    GivenUp,
    /// The provider knows it no more.
    Lost,
    /// It was never sent.
    Unsent,
}

impl Ending {
    const ALL: [Self; 7] =
        [Self::Completed, Self::Failed, Self::Expired, Self::Cancelled, Self::GivenUp, Self::Lost, Self::Unsent];

    /// Of a batch that is collected in this state.
    pub(crate) fn of(status: BatchStatus) -> Self {
        match status {
            BatchStatus::Completed => Self::Completed,
            BatchStatus::Failed => Self::Failed,
            BatchStatus::Expired => Self::Expired,
            BatchStatus::Cancelled => Self::Cancelled,
            BatchStatus::Queued
            | BatchStatus::Running
            | BatchStatus::Finalizing
            | BatchStatus::Cancelling
            | BatchStatus::Unknown => Self::GivenUp,
        }
    }

    /// Whether the provider ended it by itself, so that its time there says something.
    fn is_the_providers(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }

    fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::GivenUp => "given_up",
            Self::Lost => "lost",
            Self::Unsent => "unsent",
        }
    }
}

/// A batch attempt that was collected.
#[derive(Debug)]
pub(crate) struct Collected<'a> {
    pub(crate) spec: &'a JobSpec,
    pub(crate) team: &'a Team,
    pub(crate) fact: &'a ResultFact,
    pub(crate) retried: &'a BTreeMap<FailureKind, u64>,
    pub(crate) ending: Ending,
    /// From the end of its submission log to its collection.
    pub(crate) turnaround: Duration,
}

const ROW_OUTCOMES: [&str; 3] = ["answered", "failed", "retried"];
const STRAYS: [&str; 2] = ["unknown", "duplicate"];
/// Bounds for a batch at the provider, in seconds: to a day, the window that providers promise, and a bit beyond.
const TURNAROUND_SECONDS: &[f64] = &[
    10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 43_200.0, 64_800.0, 86_400.0,
    90_000.0,
];

impl Metrics {
    /// Registers the series, and makes those of these providers.
    ///
    /// # Errors
    /// When a series of one of these names is registered already.
    pub fn new(context: &Context, providers: &Providers) -> Result<Self, prometheus::Error> {
        let series = Series::of(&context.registry);
        let at_provider = AtProvider::new(&context.clock, providers.usable().map(|(provider, _)| provider))?;
        let metrics = Self {
            rows: series.counters(
                "batchmill_poller_rows_total",
                "Rows of collected batch attempts; a row that is tried again counts once more with each attempt.",
                &["provider", "outcome"],
            )?,
            failed: series.counters(
                "batchmill_poller_failed_rows_total",
                "Rows that failed for good, by kind.",
                &["provider", "kind"],
            )?,
            retried: series.counters(
                "batchmill_poller_retried_rows_total",
                "Rows that failed and go into the next attempt, by the kind of failure.",
                &["provider", "kind"],
            )?,
            money: Money::new(&series, &context.common.prices)?,
            batches: series.counters(
                "batchmill_poller_batches_total",
                "Batch attempts that were collected, by how they ended.",
                &["provider", "status"],
            )?,
            looks: series.counters(
                "batchmill_poller_looks_total",
                "Looks at batches, whether by a question of their own or in a list.",
                &["provider"],
            )?,
            strays: series.counters(
                "batchmill_poller_stray_lines_total",
                "Result lines that are no row's: an unknown custom id, or one more line for a row.",
                &["provider", "reason"],
            )?,
            turnaround: series.histograms(
                "batchmill_poller_batch_turnaround_seconds",
                "Time from a batch's submission to its collection. It can't be finer than the interval of looks.",
                &["provider"],
                TURNAROUND_SECONDS,
            )?,
            collections: series.histogram(
                "batchmill_poller_collect_duration_seconds",
                "Time of collecting an ended batch attempt: files downloaded, each row accounted for, results stored.",
                STAGE_SECONDS,
            )?,
            at_provider: series.add(at_provider)?,
            labels: context.labels.clone(),
        };
        providers.usable().for_each(|(provider, _)| metrics.born(provider));
        Ok(metrics)
    }

    fn born(&self, provider: &str) {
        ROW_OUTCOMES.iter().for_each(|outcome| drop(self.rows.with_label_values(&[provider, outcome])));
        for kind in FailureKind::ALL {
            self.failed.with_label_values(&[provider, kind.as_str()]);
            if may_be_tried_again(*kind) {
                self.retried.with_label_values(&[provider, kind.as_str()]);
            }
        }
        Ending::ALL.iter().for_each(|ending| drop(self.batches.with_label_values(&[provider, ending.label()])));
        STRAYS.iter().for_each(|reason| drop(self.strays.with_label_values(&[provider, reason])));
        self.looks.with_label_values(&[provider]);
        self.turnaround.with_label_values(&[provider]);
    }

    /// A batch of this job is met: its series are there before anything is counted in them.
    pub(crate) fn met(&self, spec: &JobSpec, team: &Team) {
        self.money.met(self.payer(spec, team));
    }

    /// Who pays whom for what: provider, model and team as labels.
    fn payer<'s>(&self, spec: &'s JobSpec, team: &'s Team) -> [&'s str; 3] {
        [spec.provider(), self.labels.models.of(spec.provider_model()), self.labels.teams.of(team.as_str())]
    }

    /// A batch was looked at.
    pub fn record_look(&self, provider: &str) {
        self.looks.with_label_values(&[provider]).inc();
    }

    /// An ended batch attempt was accounted for, whoever's fact ruled.
    pub(crate) fn record_collection(&self, took: Duration) {
        self.collections.observe(took.as_secs_f64());
    }

    /// A result fact was put, by us.
    pub(crate) fn record_collected(&self, collected: &Collected<'_>) {
        let Collected { spec, team, fact, retried, ending, turnaround } = collected;
        let (provider, counts) = (spec.provider(), &fact.counts);
        for (outcome, rows) in ROW_OUTCOMES.iter().zip([counts.answered, counts.failed_rows(), counts.retried]) {
            self.rows.with_label_values(&[provider, outcome]).inc_by(rows);
        }
        for (family, kinds) in [(&self.failed, &counts.failed), (&self.retried, *retried)] {
            kinds.iter().for_each(|(kind, rows)| family.with_label_values(&[provider, kind.as_str()]).inc_by(*rows));
        }
        self.money.record(self.payer(spec, team), fact);
        self.strays.with_label_values(&[provider, "unknown"]).inc_by(fact.unknown_ids);
        self.strays.with_label_values(&[provider, "duplicate"]).inc_by(fact.duplicates);
        self.batches.with_label_values(&[provider, ending.label()]).inc();
        if ending.is_the_providers() {
            self.turnaround.with_label_values(&[provider]).observe(turnaround.as_secs_f64());
        }
    }
}
