//! Tests that need no servers. Its rooms:
//!
//! - `layering`: which crate may depend on which, from cargo's metadata.
//! - `documents`: what the documents and the error pages promise about the code.
//! - `pipeline`: whole jobs through the four rooms over memory, with a scripted provider.
//! - `crash`: the same with a death at every write.
//! - `provider`: the OpenAI provider's conformance suite against the simulator.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of tests are tests, too

mod crash;
mod documents;
mod layering;
mod pipeline;
mod provider;
