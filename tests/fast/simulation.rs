//! Whole worlds of batchmill, each from one seed (`tests::sim`): after whatever happened, every job has ended, every row
//! is in its output once, in order, with its own answer or a kind of failure that the provider's books justify, and
//! nothing was paid for that the retry table did not order. Each seed is run twice, and must do the same both times.
//!
//! `BATCHMILL_SIM_SECONDS` says how long to run (20), `BATCHMILL_SIM_FROM` from which seed (1), `BATCHMILL_SIM_UNTIL` to which
//! one at most. A seed that fails prints the line that runs it again, with its trace; what was found stays in [`FOUND`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of tests are tests, too

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::sim::{self, Plan, Report};

/// Seeds that once found something; they are run every time.
const FOUND: &[u64] = &[2334];

/// From so many seconds on a run is long enough that each fault must have fired.
const LONG: u64 = 120;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

fn complain(report: &Report) {
    println!("BATCHMILL_SEED={} cargo test -p tests --test simulation -- one_seed --nocapture", report.seed);
    report.violations.iter().for_each(|violation| println!("  {violation}"));
}

/// A seed's world, twice: the second one must be the first.
fn run_twice(seed: u64) -> Report {
    let plan = Plan::new(seed);
    let (mut one, two) = (sim::run(&plan, false), sim::run(&plan, false));
    if one != two {
        one.violations.push(format!("its second run was another: {two:?}"));
    }
    one
}

/// Runs seeds on every core until the time or the seeds are up, or one fails.
fn run_seeds(from: u64, until: u64, budget: Duration) -> Vec<Report> {
    // The wall clock bounds how many seeds are run; what a seed does, it does not decide.
    let begun = Instant::now();
    let (next, failed, reports) = (AtomicU64::new(from), AtomicBool::new(false), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while begun.elapsed() < budget && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > until {
                        break;
                    }
                    let report = run_twice(seed);
                    failed.fetch_or(!report.violations.is_empty(), Ordering::Relaxed);
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.extend(FOUND.iter().map(|seed| run_twice(*seed)));
    reports
}

#[test]
fn worlds_from_seeds_keep_every_promise() {
    let seconds = setting("BATCHMILL_SIM_SECONDS", 20);
    let begun = Instant::now();
    let (from, until) = (setting("BATCHMILL_SIM_FROM", 1), setting("BATCHMILL_SIM_UNTIL", u64::MAX));
    let reports = run_seeds(from, until, Duration::from_secs(seconds));
    let took = begun.elapsed().as_secs_f64();
    let steps: u64 = reports.iter().map(|report| report.steps).sum();
    let mut fired: BTreeMap<&str, u64> = sim::all_faults().into_iter().map(|kind| (kind, 0)).collect();
    for (kind, times) in reports.iter().flat_map(|report| &report.faults) {
        *fired.get_mut(kind).unwrap_or_else(|| panic!("{kind} is not in the list of faults")) += times;
    }
    let seeds = reports.len();
    println!("{seeds} seeds in {took:.1} s, each run twice: {:.0} worlds a second", 2.0 * seeds as f64 / took);
    println!("  {steps:>8} steps of theirs");
    fired.iter().for_each(|(kind, times)| println!("  {times:>8} {kind}"));
    reports.iter().filter(|report| !report.violations.is_empty()).for_each(complain);
    assert!(reports.iter().all(|report| report.violations.is_empty()), "a world broke a promise");
    let never: Vec<&&str> = fired.iter().filter(|(_, times)| **times == 0).map(|(kind, _)| kind).collect();
    assert!(seconds < LONG || never.is_empty(), "never fired in {seconds} s: {never:?}");
}

#[test]
fn another_seed_is_another_world() {
    let traces: BTreeSet<u64> = (1..=40).map(|seed| sim::run(&Plan::new(seed), false).trace).collect();
    assert_eq!(traces.len(), 40);
}

/// The seed of `BATCHMILL_SEED`, with its trace; what the rooms log of it with `RUST_LOG`.
#[test]
fn one_seed() {
    if let Ok(filter) = std::env::var("RUST_LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(filter).without_time().try_init();
    }
    let plan = Plan::new(setting("BATCHMILL_SEED", 1));
    if std::env::var("BATCHMILL_SEED").is_ok() {
        println!("{plan:#?}");
    }
    let report = sim::run(&plan, std::env::var("BATCHMILL_SEED").is_ok());
    report.violations.iter().for_each(|violation| println!("violated: {violation}"));
    assert_eq!(report.violations, Vec::<String>::new());
}
