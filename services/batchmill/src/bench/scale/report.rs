//! What a made-up job took: from the metrics that every service has, a listing of the store, and the kernel's counts.

use std::collections::BTreeMap;

use model::keys::{self, Key};
use model::{EndFact, JobId};
use prometheus::proto::{Metric, MetricFamily};
use runtime::Context;
use serde_json::{Value, json};

/// The metrics as they are now.
pub(super) struct Metrics(Vec<MetricFamily>);

impl Metrics {
    pub(super) fn read(context: &Context) -> Self {
        Self(context.registry.gather())
    }

    fn of<'a>(&'a self, family: &'a str) -> impl Iterator<Item = &'a Metric> {
        self.0.iter().filter(move |found| found.name() == family).flat_map(|found| found.get_metric())
    }

    /// A family of counters by one of its labels, sums over the others; without what is zero.
    fn counters(&self, family: &str, label: &str) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for metric in self.of(family) {
            let count = metric.get_counter().get_value() as u64;
            if count > 0 {
                *found.entry(label_of(metric, label)).or_default() += count;
            }
        }
        found
    }

    /// Events of a kind that were emitted.
    pub(super) fn emitted(&self, kind: &str) -> u64 {
        self.counters("batchmill_loop_emitted_total", "kind").get(kind).copied().unwrap_or_default()
    }

    /// Events that were given up.
    pub(super) fn dead_letters(&self) -> u64 {
        self.counters("batchmill_loop_dead_letters_total", "room").values().sum()
    }

    /// Times of handlers by room: how many, and their seconds.
    fn handlers(&self) -> BTreeMap<String, (u64, f64)> {
        let mut found: BTreeMap<String, (u64, f64)> = BTreeMap::new();
        for metric in self.of("batchmill_loop_handler_duration_seconds") {
            let (times, sums) = (metric.get_histogram().get_sample_count(), metric.get_histogram().get_sample_sum());
            let room = found.entry(label_of(metric, "room")).or_default();
            *room = (room.0 + times, room.1 + sums);
        }
        found
    }

    fn seconds(&self, family: &str) -> f64 {
        self.of(family).map(|metric| metric.get_histogram().get_sample_sum()).sum()
    }

    /// What the rooms and the store counted.
    pub(super) fn figures(&self) -> Value {
        let handlers: BTreeMap<String, Value> = self
            .handlers()
            .into_iter()
            .map(|(room, (times, seconds))| (room, json!({ "handled": times, "seconds": seconds })))
            .collect();
        json!({
            "handlers": handlers,
            "events": self.counters("batchmill_loop_emitted_total", "kind"),
            "store_requests": self.counters("batchmill_store_requests_total", "request"),
            "store_bytes": self.counters("batchmill_store_bytes_total", "direction"),
            "dispatch_seconds": self.seconds("batchmill_dispatcher_submit_duration_seconds"),
            "collect_seconds": self.seconds("batchmill_poller_collect_duration_seconds"),
        })
    }
}

fn label_of(metric: &Metric, label: &str) -> String {
    metric.get_label().iter().find(|pair| pair.name() == label).map_or_else(String::new, |pair| pair.value().to_owned())
}

/// Objects and their bytes, by the folder of a job that they lie in; and the size of the plan.
pub(super) async fn objects(context: &Context, job: &JobId) -> anyhow::Result<(BTreeMap<String, Value>, u64)> {
    let folder = keys::job_folder(job);
    let (mut found, mut plan) = (BTreeMap::<String, (u64, u64)>::new(), 0);
    for object in context.store.list("").await? {
        let name = match object.key.strip_prefix(&folder) {
            Some(rest) if rest.ends_with(".parquet") => format!("{} (data)", first(rest)),
            Some(rest) => first(rest).to_owned(),
            None => first(&object.key).to_owned(),
        };
        if matches!(keys::parse(&object.key), Some(Key::Plan(_))) {
            plan = object.bytes;
        }
        let folder = found.entry(name).or_default();
        *folder = (folder.0 + 1, folder.1 + object.bytes);
    }
    let told = |(folder, (count, bytes))| (folder, json!({ "objects": count, "bytes": bytes }));
    Ok((found.into_iter().map(told).collect(), plan))
}

fn first(key: &str) -> &str {
    key.split_once('/').map_or(key, |(folder, _)| folder)
}

/// How the job ended; an error unless each row was answered.
pub(super) async fn end(context: &Context, job: &JobId, rows: u64) -> anyhow::Result<EndFact> {
    let end = context.store.get_json::<EndFact>(&keys::end(job)).await?;
    let end = end.ok_or_else(|| anyhow::anyhow!("job {job} was told to have ended, and has no end"))?;
    if let Some(refusal) = &end.refusal {
        return Err(refusal.clone().into());
    }
    anyhow::ensure!(
        end.counts.rows == rows && end.counts.answered == rows,
        "of {rows} rows {} were counted and {} answered: {:?}",
        end.counts.rows,
        end.counts.answered,
        end.counts
    );
    Ok(end)
}
