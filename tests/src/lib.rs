//! What the tests share: a whole batchmill in one process over memory, and a provider that does as it is told.
//!
//! - [`http_mill`]: the four rooms over memory, with the real provider over HTTP against a simulator that lies.
//! - [`mill`]: the four rooms over the memory bus and a store in memory, which can die and go on.
//! - [`mortal`]: a store that takes its process down at a chosen write.
//! - [`provider`]: a scripted provider of class B with a ledger of what was paid.
//! - [`mutate`]: bytes that were sound, changed by a seed.
//! - [`sim`]: whole worlds from one seed, in which everything goes wrong.
//! - [`world`]: the four rooms over a memory bus to which anything can be sent.

pub mod http_mill;
pub mod mill;
pub mod mortal;
pub mod mutate;
pub mod provider;
pub mod sim;
pub mod world;
