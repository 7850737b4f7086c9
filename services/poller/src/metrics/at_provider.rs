//! Batches at the provider: how many, and how old the oldest is.
//!
//! A poller knows of the batches that it looks at. One whose event went to another poller is not looked at here any more,
//! and leaves the figure when its next look is overdue: so for some minutes after a rebalance it may count at two pollers.
//! The figures are made when somebody asks, so an age grows between looks.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use model::{BatchId, JobId};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts};
use runtime::Clock;

/// A batch that is waited for.
#[derive(Debug)]
struct Waiting {
    provider: String,
    submitted_at: Timestamp,
    /// On the monotonic clock; without a look until then it is no longer ours.
    overdue_at: Duration,
}

/// The batches at the provider that this process looks at. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct AtProvider {
    clock: Clock,
    waiting: Arc<Mutex<HashMap<(JobId, BatchId), Waiting>>>,
    providers: BTreeSet<String>,
    batches: IntGaugeVec,
    ages: GaugeVec,
}

impl AtProvider {
    /// None yet, at any of these.
    pub(super) fn new<'p>(clock: &Clock, providers: impl Iterator<Item = &'p str>) -> Result<Self, prometheus::Error> {
        let batches = Opts::new(
            "batchmill_poller_batches_at_provider",
            "Batches at the provider that this process waits for. For some minutes after a rebalance two may count one.",
        );
        let ages = Opts::new(
            "batchmill_poller_oldest_batch_age_seconds",
            "Time since the oldest of these batches was submitted; 0 without any.",
        );
        Ok(Self {
            clock: clock.clone(),
            waiting: Arc::default(),
            providers: providers.map(str::to_owned).collect(),
            batches: IntGaugeVec::new(batches, &["provider"])?,
            ages: GaugeVec::new(ages, &["provider"])?,
        })
    }

    /// A batch is looked at, and will be again within `patience`.
    pub(crate) fn record_waiting(
        &self,
        batch: (&JobId, BatchId),
        provider: &str,
        submitted_at: Timestamp,
        patience: Duration,
    ) {
        let overdue_at = self.clock.monotonic() + patience;
        let waiting = Waiting { provider: provider.to_owned(), submitted_at, overdue_at };
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((batch.0.clone(), batch.1), waiting);
    }

    /// A batch is collected.
    pub(crate) fn record_gone(&self, batch: (&JobId, BatchId)) {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(batch.0.clone(), batch.1));
    }
}

impl Collector for AtProvider {
    fn desc(&self) -> Vec<&Desc> {
        self.batches.desc().into_iter().chain(self.ages.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, waiting| waiting.overdue_at >= monotonic);
        for provider in &self.providers {
            let submitted = || all.values().filter(|waiting| waiting.provider == *provider).map(|w| w.submitted_at);
            let age = submitted().min().map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64().max(0.0));
            self.batches.with_label_values(&[provider]).set(i64::try_from(submitted().count()).unwrap_or(i64::MAX));
            self.ages.with_label_values(&[provider]).set(age);
        }
        self.batches.collect().into_iter().chain(self.ages.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(at: &AtProvider) -> (f64, f64) {
        let figures: Vec<f64> =
            at.collect().iter().map(|family| family.get_metric()[0].get_gauge().get_value()).collect();
        (figures[0], figures[1])
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_ages_between_looks_and_what_is_not_looked_at_any_more_leaves() {
        let clock = Clock::seeded(1);
        let at = AtProvider::new(&clock, ["sim"].into_iter()).unwrap();
        assert_eq!(figures(&at), (0.0, 0.0));
        let (job, began): (JobId, Timestamp) = ("j".parse().unwrap(), clock.now());
        let id = |number| (&job, BatchId { number, attempt: 1 });
        let patience = Duration::from_secs(600);
        at.record_waiting(id(1), "sim", began, patience);
        clock.sleep(Duration::from_secs(500)).await;
        at.record_waiting(id(2), "sim", clock.now(), patience);
        assert_eq!(figures(&at), (2.0, 500.0));
        clock.sleep(Duration::from_secs(200)).await;
        assert_eq!(figures(&at), (1.0, 200.0), "the first went to another poller");
        at.record_gone(id(2));
        assert_eq!(figures(&at), (0.0, 0.0));
    }
}
