//! Which faults a world has, how often, and until when.

use std::time::Duration;

use runtime::Clock;
use tokio_util::sync::CancellationToken;

use super::chance::Chance;
use super::journal::Journal;

/// How often calls go wrong, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Calls to the store.
    pub store: u64,
    /// Reads and writes of callers' files.
    pub lake: u64,
    /// Calls to the bus.
    pub bus: u64,
    /// Calls to the provider other than creates.
    pub provider: u64,
    /// Calls to the provider that take long, but for creates.
    pub slow: u64,
    /// Creates.
    pub create: u64,
    /// Creates that land long after the client gave up, over those of `create`.
    pub late: u64,
    /// Batches that do not just complete.
    pub batch: u64,
    /// Rows that are not just answered.
    pub row: u64,
    /// Lives that end, or stop, before the world's faults do.
    pub life: u64,
}

/// The faults of a world. Clones share its chance.
#[derive(Clone, Debug)]
pub struct Faults {
    /// How often.
    pub rates: Rates,
    /// Whether events may be lost.
    pub lossy: bool,
    /// No fault fires after this time of the world's clock.
    pub until: Duration,
    /// Nor after every job has ended.
    pub ended: CancellationToken,
    /// The world's clock.
    pub clock: Clock,
    /// The world's chance.
    pub chance: Chance,
    /// The world's journal.
    pub journal: Journal,
}

impl Faults {
    /// Whether there are faults now.
    #[must_use]
    pub fn fire(&self) -> bool {
        self.clock.monotonic() < self.until && !self.ended.is_cancelled()
    }

    /// One of these kinds, at this rate; none after the faults' end.
    #[must_use]
    pub fn draw(&self, per_mille: u64, kinds: &[&'static str], about: &str) -> Option<&'static str> {
        if !self.fire() || !self.chance.hits(per_mille) {
            return None;
        }
        let kind = *self.chance.pick(kinds);
        self.journal.fault(kind, about);
        Some(kind)
    }

    /// Waits for a time of chance.
    pub async fn wait(&self, least_ms: u64, most_ms: u64) {
        let wait = self.chance.duration(least_ms, most_ms);
        self.clock.sleep(wait).await;
    }
}
