//! The simulator's only reading of the time.
//!
//! A provider is an outside party with a clock of its own, so the simulator doesn't share batchmill's: what its
//! clients may conclude from provider times must hold whatever this clock says. Nothing here decides anything about
//! safety; times are shown to clients and order listings.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since the Unix epoch. A clock set before 1970 reads as zero.
// The simulator stands for another company's server: its clock must not be the one that batchmill controls.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time in whole seconds since the Unix epoch, as OpenAI's `*_at` fields have it.
pub(crate) fn seconds() -> u64 {
    now().as_secs()
}
