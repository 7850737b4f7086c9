//! What stands between one process and the memory bus, in simulations: a network that delays, loses and doubles, and a
//! process that stops.
//!
//! Real processes share a broker over a network. A simulation gives each of its processes a handle of its own on one bus
//! ([`MemoryBus::with_line`]), whose calls go through its line. So a stopped process gets nothing from the bus, its
//! session can be ended ([`MemoryBus::end_session`]), and when it goes on it finds its partitions with others: a zombie.
//!
//! Without a line, which is what every other use has, calls reach the bus at once.

use std::fmt;
use std::pin::Pin;

use super::MemoryBus;
use crate::{Outgoing, Placed, Result};

/// The future of a call on its way.
pub type Passage<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A call of a process, other than sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Its consumer asks for what is next.
    Next,
    /// Its consumer commits.
    Commit,
    /// It reads a group's lag.
    Lag,
}

/// A process's way to the bus.
pub trait Line: fmt::Debug + Send + Sync {
    /// Carries a record to the bus, or not: `bus` is the bus without this line.
    fn send<'a>(&'a self, bus: MemoryBus, out: Outgoing) -> Passage<'a, Placed>;

    /// Lets a call through, at once or later, or says that it failed.
    fn pass(&self, call: Call) -> Passage<'_, ()>;
}
