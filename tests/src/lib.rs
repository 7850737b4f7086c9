//! What the tests share: a whole batchmill in one process over memory, and a provider that does as it is told.
//!
//! - [`mill`]: the four rooms over the memory bus and a store in memory, which can die and go on.
//! - [`mortal`]: a store that takes its process down at a chosen write.
//! - [`provider`]: a scripted provider of class B with a ledger of what was paid.

pub mod mill;
pub mod mortal;
pub mod provider;
