//! Dependencies point one way. The table is the order of ARCHITECTURE's layers; the facts are cargo's.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Each of our crates with those of ours that it may depend on.
const MAY_USE: &[(&str, &[&str])] = &[
    ("faults", &[]),
    ("model", &[]),
    ("events", &["model"]),
    ("bus", &["model", "events", "faults"]),
    ("runtime", &["model", "events", "bus", "faults"]),
    ("tables", &["model"]),
    ("prompts", &["model"]),
    ("providers", &["model"]),
    ("requests", &["model", "runtime", "tables", "prompts", "providers"]),
    ("splitter", ROOM),
    ("dispatcher", ROOM),
    ("poller", ROOM),
    ("merger", ROOM),
    ("simulator", &[]),
    ("batchmill", COMMAND),
    ("tests", EVERYTHING),
];
const ROOM: &[&str] = &["faults", "model", "events", "bus", "runtime", "tables", "prompts", "providers", "requests"];
const COMMAND: &[&str] = &[
    "model",
    "events",
    "bus",
    "runtime",
    "tables",
    "prompts",
    "providers",
    "requests",
    "splitter",
    "dispatcher",
    "poller",
    "merger",
    "simulator",
];
const EVERYTHING: &[&str] = &[
    "faults",
    "model",
    "events",
    "bus",
    "runtime",
    "tables",
    "prompts",
    "providers",
    "requests",
    "splitter",
    "dispatcher",
    "poller",
    "merger",
    "simulator",
    "batchmill",
];

/// Crates that only one of ours may know, and crates that those without IO must not know.
const ONLY: &[(&str, &str)] =
    &[("rdkafka", "bus"), ("reqwest", "providers"), ("minijinja", "prompts"), ("opentelemetry-otlp", "runtime")];
const NO_IO: &[&str] = &["model", "events"];
const IO: &[&str] = &["tokio", "futures", "object_store", "reqwest", "rdkafka", "fastrand"];

fn metadata() -> Metadata {
    MetadataCommand::new().no_deps().exec().unwrap()
}

fn used(package: &Package) -> BTreeSet<&str> {
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.as_str()).collect()
}

#[test]
fn our_crates_depend_on_one_another_in_one_direction_only() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(ours, allowed.keys().copied().collect(), "the table names every crate of the workspace");
    for package in &metadata.packages {
        let may = allowed[package.name.as_str()];
        let wrong: Vec<&str> =
            used(package).into_iter().filter(|name| ours.contains(name) && !may.contains(name)).collect();
        assert!(wrong.is_empty(), "{} must not depend on {wrong:?}", package.name);
    }
}

#[test]
fn a_foreign_protocol_is_known_to_one_crate() {
    let metadata = metadata();
    for (foreign, owner) in ONLY {
        let knowing: Vec<&str> = metadata
            .packages
            .iter()
            .filter(|package| used(package).contains(foreign))
            .map(|package| package.name.as_str())
            .collect();
        assert_eq!(knowing, [*owner], "{foreign}");
    }
}

#[test]
fn the_vocabulary_and_the_contracts_have_no_io() {
    let metadata = metadata();
    for package in metadata.packages.iter().filter(|package| NO_IO.contains(&package.name.as_str())) {
        let used = used(package);
        let wrong: Vec<&&str> = IO.iter().filter(|io| used.contains(**io)).collect();
        assert!(wrong.is_empty(), "{} must not depend on {wrong:?}", package.name);
    }
}

#[test]
fn decisions_have_no_io() {
    let root = metadata().workspace_root;
    for decisions in [
        "splitter/src/decide",
        "dispatcher/src/decide",
        "dispatcher/src/caps/decide",
        "poller/src/decide",
        "merger/src/decide",
    ] {
        let source = std::fs::read_to_string(root.join(format!("services/{decisions}.rs"))).unwrap();
        for word in ["async ", "await", "tokio", "std::fs", "std::env", "std::time::Instant", "SystemTime", "runtime::"]
        {
            assert!(!source.contains(word), "services/{decisions}.rs has {word:?}");
        }
    }
}

#[test]
fn the_mains_are_thin() {
    let root = metadata().workspace_root;
    for service in ["splitter", "dispatcher", "poller", "merger", "simulator", "batchmill"] {
        let source = std::fs::read_to_string(root.join(format!("services/{service}/src/main.rs"))).unwrap();
        assert!(source.lines().count() <= 30, "{service}");
    }
}
