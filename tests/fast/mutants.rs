//! The tests' own test: each rule of the protocol is broken in turn, and each time a simulated world must show it.
//!
//! For each mutation (`faults::Mutation`) worlds are run in which its rule counts (`tests::sim::scenario`), until something
//! that always holds is violated. The same worlds pass with the rule in force.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of tests are tests, too

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use faults::Mutation;
use tests::sim::{self, scenario};

/// A mutation that shows in none of so many worlds has survived.
const MOST_SEEDS: u64 = 300;

/// The first world that a broken rule breaks, and how.
fn caught(mutation: Mutation) -> Option<(u64, String)> {
    (1..=MOST_SEEDS).find_map(|seed| {
        let plan = scenario::plan(mutation, seed);
        let broken = {
            let _broken = faults::mutations::break_rule(mutation);
            sim::run(&plan, false)
        };
        let violation = broken.violations.first()?;
        Some((seed, violation.clone()))
    })
}

#[test]
fn every_broken_rule_shows() {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(mutation) = Mutation::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let caught = caught(*mutation);
                    let sound =
                        caught.as_ref().map(|(seed, _)| sim::run(&scenario::plan(*mutation, *seed), false).violations);
                    results.lock().unwrap().push((*mutation, caught, sound));
                }
            });
        }
    });
    let mut survivors = Vec::new();
    for (mutation, caught, sound) in results.into_inner().unwrap() {
        match caught {
            Some((seed, violation)) => println!("{mutation:?}: seed {seed}: {violation}"),
            None => survivors.push(mutation),
        }
        assert_eq!(
            sound.unwrap_or_default(),
            Vec::<String>::new(),
            "{mutation:?}: the world breaks with the rule in force"
        );
    }
    assert_eq!(survivors, [], "not caught in {MOST_SEEDS} worlds each");
}
