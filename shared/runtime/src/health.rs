//! What the probes of an orchestrator ask: is the process alive, and is it ready for work?

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use events::Topic;

use crate::clock::Clock;

/// A loop that has not gone round for so long counts as dead.
pub(crate) const ALIVE_FOR: Duration = Duration::from_secs(30);

/// A loop: its room and its topic.
type Which = (&'static str, Topic);

/// The loops' pulse.
#[derive(Debug, Default)]
pub(crate) struct Health {
    beats: Mutex<BTreeMap<Which, Duration>>,
    draining: AtomicBool,
}

impl Health {
    /// A room's loop went round.
    pub(crate) fn beat(&self, which: Which, clock: &Clock) {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).insert(which, clock.monotonic());
    }

    /// A room's loop ended, as it should.
    pub(crate) fn ended(&self, which: Which) {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).remove(&which);
    }

    /// From now on nothing new is taken.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// A room whose loop stands still, and for how long.
    pub(crate) fn stuck(&self, clock: &Clock) -> Option<(&'static str, Duration)> {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |beat: &Duration| clock.monotonic().saturating_sub(*beat);
        beats.iter().map(|((room, _), beat)| (*room, since(beat))).find(|(_, silence)| *silence > ALIVE_FOR)
    }
}
