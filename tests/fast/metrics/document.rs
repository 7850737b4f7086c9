//! `docs/METRICS.md`, made from registries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use prometheus::proto::MetricType;

use super::{ROOMS, Services, ours};

/// Labels whose values are not ours to list, and what they are.
const OPEN_LABELS: &[(&str, &str)] = &[
    ("cap", "`account`, or the model that the cap is for"),
    ("group", "the room's consumer group"),
    ("model", "a model as its provider names it; `other` beyond `metrics.max_label_values`"),
    ("provider", "a provider's name in the settings"),
    ("rustc", "the compiler's version"),
    ("team", "a team; `default` for the shared topic, `other` beyond `metrics.max_label_values`"),
    ("topic", "a topic's full name"),
    ("version", "batchmill's version"),
];
/// A family as the document has it.
struct Documented {
    kind: &'static str,
    help: String,
    labels: BTreeMap<String, BTreeSet<String>>,
    services: Vec<&'static str>,
}

/// The document, from the registries of the services.
pub(super) fn of(services: &Services) -> String {
    let mut all: BTreeMap<String, Documented> = BTreeMap::new();
    for (room, context) in ROOMS.iter().zip(&services.contexts) {
        for family in ours(context) {
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::HISTOGRAM => "histogram",
                _ => "gauge",
            };
            let (help, labels) = (family.help().to_owned(), BTreeMap::new());
            let entry = all.entry(family.name().to_owned());
            let entry = entry.or_insert(Documented { kind, help, labels, services: Vec::new() });
            entry.services.push(room);
            for label in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
                entry.labels.entry(label.name().to_owned()).or_default().insert(label.value().to_owned());
            }
        }
    }
    let mut text = INTRODUCTION.to_owned();
    for (label, meaning) in OPEN_LABELS {
        writeln!(text, "| `{label}` | {meaning} |").unwrap();
    }
    let mut section = String::new();
    for (name, family) in &all {
        let here = name.split('_').nth(1).unwrap_or_default();
        if here != section {
            here.clone_into(&mut section);
            let title =
                SECTIONS.iter().find(|(word, _)| *word == here).unwrap_or_else(|| panic!("{name} has no section")).1;
            write!(text, "\n## {title}\n\n| name | type | labels | exposed by | what |\n|---|---|---|---|---|\n")
                .unwrap();
        }
        let label = |(label, values): (&String, &BTreeSet<String>)| {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            match OPEN_LABELS.iter().any(|(open, _)| open == label) {
                true => format!("`{label}`"),
                false => format!("`{label}`: {}", values.join(" ")),
            }
        };
        let labels: Vec<String> = family.labels.iter().map(label).collect();
        let exposed = if family.services.len() == ROOMS.len() { "all".to_owned() } else { family.services.join(", ") };
        let Documented { kind, help, .. } = family;
        writeln!(text, "| `{name}` | {kind} | {} | {exposed} | {help} |", labels.join("; ")).unwrap();
    }
    text
}

/// The second word of a name, and the title of its section.
const SECTIONS: &[(&str, &str)] = &[
    ("build", "The build"),
    ("bus", "The bus"),
    ("cost", "Cost"),
    ("dispatcher", "The dispatcher"),
    ("gate", "Backpressure"),
    ("loop", "Events, lag and dead letters"),
    ("merger", "The merger"),
    ("poller", "The poller"),
    ("provider", "Calls of providers"),
    ("splitter", "The splitter"),
    ("store", "The store"),
    ("tokens", "Tokens"),
];

const INTRODUCTION: &str = "\
# Metrics

Each service shows its metrics to Prometheus at `/metrics` of its admin port (`admin.listen`). This page is generated from the
registries of the four services after a job (`tests/fast/metrics.rs`); a change of a metric changes it:
`BATCHMILL_BLESS=1 cargo test -p tests --test fast metrics`.

- Every series whose labels are known is there at 0 from the start, so `rate()` and `increase()` see the first event. Those of a
  model are there when its first batch is met.
- No label is a job, a batch or a message. Prometheus adds its own `job` and `instance`.
- Counters count in one process: `sum` over instances. A lag is the whole group's in each process: `max by (topic, group)`. A gate's
  state and what is open are a process's own.
- Counters of rows, batches and jobs count a fact once, in the process whose fact ruled. A process that dies between its put and its
  count leaves one out: facts are exact, counters are for rates and alarms.
- On Linux there are the usual `process_` metrics too.

Labels whose values depend on the settings and the jobs:

| label | what |
|---|---|
";
