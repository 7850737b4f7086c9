//! What happened in a world: its trace, the faults that fired, and what was violated.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::Clock;

/// A world's journal. Clones share it.
#[derive(Clone, Debug)]
pub struct Journal {
    clock: Clock,
    print: bool,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// FNV-1a over all lines in their order.
    hash: u64,
    steps: u64,
    faults: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
}

impl Journal {
    /// An empty journal, which prints its lines if `print`.
    #[must_use]
    pub fn new(clock: &Clock, print: bool) -> Self {
        let inner = Inner { hash: 0xcbf2_9ce4_8422_2325, ..Inner::default() };
        Self { clock: clock.clone(), print, inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a durable operation.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        let line = format!("{:>12.3} {line}", self.clock.monotonic().as_secs_f64());
        if self.print {
            println!("{line}");
        }
        let mut inner = self.lock();
        inner.steps += 1;
        for byte in line.bytes() {
            inner.hash = (inner.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Notes that a fault fired.
    pub fn fault(&self, kind: &'static str, about: &str) {
        self.note(format_args!("fault {kind} {about}"));
        *self.lock().faults.entry(kind).or_default() += 1;
    }

    /// Notes that something was violated that always holds.
    pub fn violation(&self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        let mut inner = self.lock();
        if inner.violations.len() < 20 {
            inner.violations.push(what);
        }
    }

    /// Everything that was violated.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// How often each fault fired.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.lock().faults.clone()
    }

    /// The trace's hash and its length in steps.
    #[must_use]
    pub fn trace(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.hash, inner.steps)
    }
}
