//! Metrics: what the loop, the bus, the store and the providers' calls count, and the tools with which rooms count their own.
//!
//! **Promises.** Every series has a help text and a conventional name: prefix `batchmill_`, base units, `_total` for what only
//! grows. A series whose labels are known is there at 0 from the start, so that a rate is right from the first event on, and an
//! alert sees the first one. Labels are few and bounded: rooms, topics, providers, kinds and outcomes; never a job, never
//! a batch, never a message. Teams and models, which callers choose, go through [`Labels`].
//!
//! **Why so.** The registry is a value that is passed in: a test reads its own, and two services in one process would
//! not mix. Each fact has one `record_…` function, called where the fact is known to be won.
//!
//! `docs/METRICS.md` is generated from the registries (`tests/fast/metrics.rs`).

mod calls;
mod labels;
mod of_bus;
mod of_loop;
mod of_store;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, Result,
};

pub use calls::ProviderCalls;
pub use labels::{Bounded, Labels, OTHER};
pub(crate) use of_bus::{BusMetrics, BusOperation};
pub(crate) use of_loop::{At, LoopMetrics, Outcome};
pub(crate) use of_store::{Request, StoreMetrics};

/// Bounds for work of a stage, in seconds: from a look at a fact to a merge of millions of rows.
pub const STAGE_SECONDS: &[f64] =
    &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 10_800.0];

/// Makes series and registers them.
#[derive(Debug, Clone, Copy)]
pub struct Series<'r>(&'r Registry);

impl<'r> Series<'r> {
    /// In this registry.
    #[must_use]
    pub fn of(registry: &'r Registry) -> Self {
        Self(registry)
    }

    /// Registers a collector.
    ///
    /// # Errors
    /// A series of its name is registered already.
    pub fn add<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    /// A counter.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.add(IntCounter::new(name, help)?)
    }

    /// Counters by labels.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Gauges by labels.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// A histogram with these bounds.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Result<Histogram> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec()))?)
    }

    /// Histograms by labels, with these bounds.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> Result<HistogramVec> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels)?)
    }
}

/// Says which build this is.
pub(crate) fn build_info(registry: &Registry) -> Result<()> {
    let help = "Always 1; its labels say which build this is.";
    let info = Series::of(registry).gauges("batchmill_build_info", help, &["version", "rustc"])?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("BATCHMILL_RUSTC")]).set(1);
    Ok(())
}

/// A count as a gauge takes it.
pub(crate) fn small(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
