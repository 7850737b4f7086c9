//! The one loop that every service runs: take events, handle them, finish them.
//!
//! **Promises.** An event is finished (its offset may be committed) only after its handler said so, and everything that the
//! handler emitted was acknowledged. Until then it is handled again: after a crash, a rebalance, an error, a panic. An event
//! that waits costs its memory and nothing else: no thread, no place, and no other event behind it waits for it.
//!
//! **Shape.** One task for each room owns the consumer and all that is open ([`table`]); handlers run in tasks of their own
//! ([`task`]) and report to it. Nothing is shared but the places (a semaphore for each topic), which a handler gives back
//! while it waits in `emit` ([`outbox`], [`gate`]).
//!
//! **What it lacks on purpose.** No retry topics and no timers but in memory: `Later` for 24 hours is an open offset, and after
//! a crash the event just comes again. No exactly-once: handlers look at facts first.

mod dead_letter;
mod gate;
mod outbox;
mod round_robin;
mod run;
mod table;
mod task;
#[cfg(test)]
mod tests;

pub use gate::Edge;
pub use outbox::{Admission, Outbox, Stopping};

pub(crate) use gate::Gates;
pub(crate) use run::Loop;
