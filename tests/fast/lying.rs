//! The lying provider: a table of every lie that the simulator can tell, each with its exact outcome for the rows of a job,
//! for what is sent again, and for what was paid.
//!
//! A row of the table is a job of four rows in one batch, run by the real rooms with the real OpenAI provider over HTTP. It
//! says how each row ends, which rows each accepted batch had (the ledger), and how often each row was executed, which is what
//! is paid (`billed.jsonl`). Two kinds of rows are paid more than once: those that the retry table sends again after a
//! failure that was perhaps billed, and those of the two lies that the promise does not cover; they say so.
//!
//! - `requests`: lies about creates, uploads, files, lists and downloads. `batches`: about whole batches. `rows`: about lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of tests are tests, too

#[path = "lying/batches.rs"]
mod batches;
#[path = "lying/case.rs"]
mod case;
#[path = "lying/requests.rs"]
mod requests;
#[path = "lying/rows.rs"]
mod rows;

use std::collections::BTreeSet;

use case::{Case, check};
use futures::StreamExt;

/// Jobs at a time: they mostly wait.
const AT_A_TIME: usize = 24;

fn table() -> Vec<Case> {
    // Those that wait longest first.
    [batches::table(), requests::table(), rows::table()].into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_lie_has_its_exact_outcome() {
    let cases = table();
    let count = cases.len();
    let results: Vec<Result<(), String>> = futures::stream::iter(cases)
        .map(|case| tokio::spawn(check(case)))
        .buffer_unordered(AT_A_TIME)
        .map(|joined| joined.unwrap_or_else(|panic| Err(panic.to_string())))
        .collect()
        .await;
    assert_eq!(results.len(), count);
    let wrong: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(
        wrong.is_empty(),
        "{} of {count} lies end otherwise than the table says:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_fault_of_the_simulator_is_in_the_table() {
    let told: BTreeSet<String> = table().iter().flat_map(Case::faults).collect();
    let known: BTreeSet<String> = simulator::faults().map(str::to_owned).collect();
    assert_eq!(told, known);
}

#[test]
fn every_fault_of_the_simulator_is_documented() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FAULTS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let documented: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let missing: Vec<&str> = simulator::faults().filter(|fault| !documented.contains(fault)).collect();
    assert_eq!(missing, [] as [&str; 0]);
}

#[test]
fn names_of_lies_are_unique() {
    let names: Vec<String> = table().into_iter().map(|case| case.name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}
