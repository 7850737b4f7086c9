//! Whole worlds of batchmill, each from one seed (`tests::sim`): after whatever happened, every job has ended, every row
//! is in its output once, in order, with its own answer or a kind of failure that the provider's books justify, and
//! nothing was paid for that the retry table did not order.
//!
//! `BATCHMILL_SIM_SECONDS` says how long to run (20), `BATCHMILL_SIM_FROM` from which seed (1). A seed that fails prints the
//! line that runs it again, with its trace; what was found stays in [`FOUND`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of tests are tests, too

use std::collections::BTreeMap;
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

/// Runs seeds on every core until the time is up, or one fails.
fn run_seeds(from: u64, budget: Duration) -> Vec<Report> {
    // The wall clock bounds how many seeds are run; what a seed does, it does not decide.
    let begun = Instant::now();
    let (next, failed, reports) = (AtomicU64::new(from), AtomicBool::new(false), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while begun.elapsed() < budget && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let report = sim::run(&Plan::new(seed), false);
                    failed.fetch_or(!report.violations.is_empty(), Ordering::Relaxed);
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.extend(FOUND.iter().map(|seed| sim::run(&Plan::new(*seed), false)));
    reports
}

#[test]
fn worlds_from_seeds_keep_every_promise() {
    let seconds = setting("BATCHMILL_SIM_SECONDS", 20);
    let begun = Instant::now();
    let reports = run_seeds(setting("BATCHMILL_SIM_FROM", 1), Duration::from_secs(seconds));
    let took = begun.elapsed().as_secs_f64();
    let steps: u64 = reports.iter().map(|report| report.steps).sum();
    let mut fired: BTreeMap<&str, u64> = sim::all_faults().into_iter().map(|kind| (kind, 0)).collect();
    for (kind, times) in reports.iter().flat_map(|report| &report.faults) {
        *fired.get_mut(kind).unwrap_or_else(|| panic!("{kind} is not in the list of faults")) += times;
    }
    println!("{} seeds in {took:.1} s, {:.0} a second; {steps} steps", reports.len(), reports.len() as f64 / took);
    fired.iter().for_each(|(kind, times)| println!("  {times:>8} {kind}"));
    reports.iter().filter(|report| !report.violations.is_empty()).for_each(complain);
    assert!(reports.iter().all(|report| report.violations.is_empty()), "a world broke a promise");
    let never: Vec<&&str> = fired.iter().filter(|(_, times)| **times == 0).map(|(kind, _)| kind).collect();
    assert!(seconds < LONG || never.is_empty(), "never fired in {seconds} s: {never:?}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 1..=40 {
        let plan = Plan::new(seed);
        let (one, two) = (sim::run(&plan, false), sim::run(&plan, false));
        assert_eq!(one, two, "seed {seed}");
        assert_ne!(one.trace, sim::run(&Plan::new(seed + 1_000_000), false).trace);
    }
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
