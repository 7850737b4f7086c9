//! The one source of chance of a world: its seed decides everything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A seeded generator. Clones share it, so the order of draws is part of what the seed decides.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Mutex<fastrand::Rng>>);

impl Chance {
    /// The generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number below `limit`, which is at least 1.
    #[must_use]
    pub fn below(&self, limit: u64) -> u64 {
        self.rng().u64(..limit.max(1))
    }

    /// A number from `least` to `most`, both included.
    #[must_use]
    pub fn between(&self, least: u64, most: u64) -> u64 {
        self.rng().u64(least..=most.max(least))
    }

    /// True so many times in a thousand.
    #[must_use]
    pub fn hits(&self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap_or_default()]
    }

    /// A duration in this range of milliseconds, short ones as likely as long ones of ten times the length.
    #[must_use]
    pub fn duration(&self, least_ms: u64, most_ms: u64) -> Duration {
        let (least, most) = (least_ms.max(1), most_ms.max(least_ms).max(1));
        let steps = u64::from((most / least).ilog2());
        let high = least.saturating_mul(1 << self.between(0, steps + 1)).min(most);
        Duration::from_millis(self.between(least, high))
    }

    /// Puts these in any order.
    pub fn shuffle<T>(&self, all: &mut [T]) {
        self.rng().shuffle(all);
    }
}
