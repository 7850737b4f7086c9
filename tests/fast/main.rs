//! Tests that need no servers. Its rooms:
//!
//! - `layering`: which crate may depend on which, from cargo's metadata.
//! - `documents`: what the documents and the error pages promise about the code.
//! - `metrics`: that counters say what the facts say, the names' conventions, and docs/METRICS.md.
//! - `pipeline`: whole jobs through the four rooms over memory, with a scripted provider.
//! - `crash`: the same with a death at every write. `damage`: data that is not what its fact names ends no job.
//! - `cost`: what a job costs, summed from its rows, over all attempts that were paid, by a frozen price.
//! - `caps`: batches of an account and of a model at a time, counted from the facts while jobs run.
//! - `cleanup`: what is removed after a job's end, and what never is.
//! - `endings`: a cancel at each moment of a job's life. `dead_letters`: what is listed and what a replay sends back.
//! - `retries`: how often each kind of failure is tried again, what ends it, and the failed rows as a file to run again.
//! - `traces`: traces of whole jobs, in headers, in logs and at a collector.
//! - `provider`: the OpenAI provider's conformance suite against the simulator.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of tests are tests, too

mod caps;
mod cleanup;
mod cost;
mod crash;
mod damage;
mod dead_letters;
mod documents;
mod endings;
mod failed_rows;
mod layering;
mod metrics;
mod pipeline;
mod provider;
mod retries;
mod traces;
