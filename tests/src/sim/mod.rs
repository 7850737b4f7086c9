//! Whole worlds of batchmill from one seed: the real rooms, several processes over one bus and one store, a provider, and
//! everything that goes wrong between them, on one thread and tokio's paused clock.
//!
//! What may go wrong: processes die at any durable step and come again; they stop, lose their partitions and go on as
//! zombies; events are doubled, late, out of order, and in some worlds lost, with all topics; the store and the
//! provider fail in every way that is known of them. What may not: a lagging list of batches, a deleted file that can be
//! used, a conditional put with two winners. batchmill's promise rests on these.
//!
//! - [`plan`]: what a seed makes. [`world`]: how it runs. [`check`]: what must hold of it.
//! - [`gate`]: where processes die and stop. [`store`], [`line`], [`provider`]: what they stand on.
//! - [`journal`]: the trace. Two runs of a seed have the same.

pub mod chance;
pub mod check;
mod cost;
pub mod faults;
pub mod gate;
pub mod journal;
pub mod line;
pub mod plan;
pub mod provider;
pub mod scenario;
pub mod store;
pub mod table;
pub mod world;

use std::collections::BTreeMap;

pub use plan::Plan;

/// What came of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Everything that was violated.
    pub violations: Vec<String>,
    /// How often each fault fired.
    pub faults: BTreeMap<&'static str, u64>,
    /// The trace's hash.
    pub trace: u64,
    /// The trace's length.
    pub steps: u64,
}

/// Runs a world to its end and checks it.
///
/// # Panics
/// If the runtime can't be built.
#[must_use]
#[allow(clippy::expect_used)] // a test's own set-up
pub fn run(plan: &Plan, print: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime on one thread").block_on(async {
        let world = match world::World::new(plan, print).await {
            Ok(world) => world,
            Err(error) => return failed(plan, &error),
        };
        if let Err(error) = world.live().await {
            world.journal.violation(format!("{error:#}"));
        } else {
            check::check(&world).await;
        }
        let (trace, steps) = world.journal.trace();
        Report { seed: plan.seed, violations: world.journal.violations(), faults: world.journal.faults(), trace, steps }
    })
}

fn failed(plan: &Plan, error: &anyhow::Error) -> Report {
    let violations = vec![format!("the world could not be made: {error:#}")];
    Report { seed: plan.seed, violations, faults: BTreeMap::new(), trace: 0, steps: 0 }
}

/// Every fault that a world may have.
#[must_use]
pub fn all_faults() -> Vec<&'static str> {
    let parts = [world::FAULTS, store::FAULTS, line::FAULTS, provider::FAULTS, provider::batch::FAULTS];
    parts.into_iter().flatten().copied().collect()
}
