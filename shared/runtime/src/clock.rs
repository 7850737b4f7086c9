//! Time, waiting and chance: the only place that has them.
//!
//! **Promise.** With [`Clock::seeded`] and a paused tokio runtime, two runs see the same times, nonces and waits, so a
//! simulation that fails can be run again. With [`Clock::system`] they are the machine's.
//!
//! **Why a value and not a global.** A test can give each of two dispatchers its own clock, and nothing has to be put
//! back afterwards. A lint forbids every other source (see `clippy.toml`).
//!
//! **What it lacks on purpose.** No time that a safety decision could rest on: wall clocks of two machines differ, and
//! only waiting, deadlines and logs use this one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::{SpanId, TraceId};
use jiff::{SignedDuration, Timestamp};
use model::Nonce;
use tokio::time::Instant;

/// Where the time of a seeded clock starts: 2026-01-01T00:00:00Z, in seconds since 1970.
const SEEDED_START: i64 = 1_767_225_600;

/// A source of time and chance. Clones share it.
#[derive(Clone, Debug)]
pub struct Clock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    /// Wall time at `started`, for a clock that does not ask the machine.
    seeded_start: Option<Timestamp>,
    random: Mutex<fastrand::Rng>,
    /// For ids of traces alone: whether and what is traced must not change what a seed does else.
    traces: Mutex<fastrand::Rng>,
}

/// So many times as long as a task took it rests, before it is done again.
const REST: u32 = 19;

/// How long to rest after a task that took so long and is done again and again, that it takes at most a twentieth of the time;
/// and at most `longest`, however long it took.
#[must_use]
pub fn rest_after(took: Duration, longest: Duration) -> Duration {
    took.saturating_mul(REST).min(longest)
}

/// Makes another seed of a seed.
const TRACES: u64 = 0x7472_6163_6573;

impl Clock {
    /// The machine's clock, and randomness from the operating system.
    #[must_use]
    pub fn system() -> Self {
        // Here and nowhere else: the seed of all chance in this process.
        #[allow(clippy::disallowed_methods)]
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        Self::new(None, high ^ low.rotate_left(32))
    }

    /// A clock whose time starts at 2026-01-01T00:00:00Z and follows tokio's, and whose chance comes from the seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::new(Some(Timestamp::from_second(SEEDED_START).unwrap_or_default()), seed)
    }

    fn new(seeded_start: Option<Timestamp>, seed: u64) -> Self {
        let random = |seed| Mutex::new(fastrand::Rng::with_seed(seed));
        let (random, traces) = (random(seed), random(seed ^ TRACES));
        Self { inner: Arc::new(Inner { started: Instant::now(), seeded_start, random, traces }) }
    }

    /// The wall time.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // Here and nowhere else.
    pub fn now(&self) -> Timestamp {
        match self.inner.seeded_start {
            None => Timestamp::now(),
            Some(start) => {
                start.saturating_add(SignedDuration::try_from(self.monotonic()).unwrap_or_default()).unwrap_or(start)
            }
        }
    }

    /// How long ago this clock was made. Never goes backwards.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// A fresh nonce of 64 random bits.
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        match self.inner.seeded_start {
            Some(_) => Nonce::from_bits(self.random().u64(..)),
            None => {
                // Straight from the operating system: a nonce tells writers on different machines apart.
                #[allow(clippy::disallowed_methods)]
                let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
                // Six of the 128 bits are fixed, at different places of the halves; folded, none is.
                Nonce::from_bits(high ^ low.rotate_left(32))
            }
        }
    }

    /// A fresh event id: a UUIDv7 as text.
    #[must_use]
    pub fn event_id(&self) -> String {
        let millis = u64::try_from(self.now().as_millisecond()).unwrap_or_default();
        let mut random = [0; 10];
        match self.inner.seeded_start {
            Some(_) => self.random().fill(&mut random),
            None => {
                #[allow(clippy::disallowed_methods)] // As above.
                random.copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[..10]);
            }
        }
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
    }

    /// A fresh id of a trace.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        TraceId::from_bits(self.traces().u128(..))
    }

    /// A fresh id of a span.
    #[must_use]
    pub fn span_id(&self) -> SpanId {
        SpanId::from_bits(self.traces().u64(..))
    }

    /// The duration, longer or shorter by up to a quarter, so that many waiters do not wake together.
    #[must_use]
    pub fn jitter(&self, duration: Duration) -> Duration {
        duration.mul_f64(0.75 + self.random().f64() / 2.0)
    }

    /// A number below `limit` (0 for 0).
    #[must_use]
    pub fn below(&self, limit: usize) -> usize {
        if limit == 0 { 0 } else { self.random().usize(..limit) }
    }

    fn traces(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.inner.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.inner.random.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_takes_long_is_not_done_often_but_it_is_done() {
        let (at, longest) = (Duration::from_millis, Duration::from_secs(60));
        assert_eq!(rest_after(at(0), longest), at(0));
        assert_eq!(rest_after(at(10), longest), at(190), "ten of two hundred milliseconds");
        assert_eq!(rest_after(longest, longest), longest);
        assert_eq!(rest_after(Duration::MAX, longest), longest);
    }

    #[tokio::test(start_paused = true)]
    async fn a_seeded_clock_follows_the_paused_time_and_repeats_itself() {
        let (one, two) = (Clock::seeded(7), Clock::seeded(7));
        assert_eq!(one.now().to_string(), "2026-01-01T00:00:00Z");
        one.sleep(Duration::from_secs(90)).await;
        assert_eq!(one.now().to_string(), "2026-01-01T00:01:30Z");
        assert_eq!(one.nonce(), two.nonce());
        assert_eq!(one.event_id(), two.event_id());
        // Traces don't disturb the rest.
        assert_ne!(one.trace_id(), one.trace_id());
        assert_ne!(one.span_id(), one.span_id());
        assert_eq!(one.nonce(), two.nonce());
        assert_ne!(one.nonce(), one.nonce());
        assert_ne!(Clock::seeded(8).nonce(), Clock::seeded(7).nonce());
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        let clock = Clock::seeded(1);
        for _ in 0..1_000 {
            let wait = clock.jitter(Duration::from_secs(100));
            assert!((75..=125).contains(&wait.as_secs()), "{wait:?}");
        }
    }

    #[test]
    fn an_event_id_of_the_system_is_a_version_7_uuid_of_now() {
        let id: uuid::Uuid = Clock::system().event_id().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
        assert_ne!(Clock::system().event_id(), Clock::system().event_id());
    }
}
