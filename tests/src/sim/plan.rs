//! What a seed makes: jobs, processes, settings and faults.

use std::time::Duration;

use model::JobSpec;
use serde_json::{Value, json};

use super::chance::Chance;
use super::faults::Rates;
use super::table::{RowKind, Table};

/// The rooms.
pub const ROOMS: [&str; 4] = ["splitter", "dispatcher", "poller", "merger"];

/// One job.
#[derive(Clone, Debug)]
pub struct JobPlan {
    /// Its spec.
    pub spec: JobSpec,
    /// Its input.
    pub table: Table,
    /// When it is submitted.
    pub at: Duration,
    /// Whether `open/<job>` is put first, as `submit` does.
    pub open_first: bool,
    /// When its cancellation is asked for.
    pub cancel_at: Option<Duration>,
    /// When its input is replaced.
    pub replace_at: Option<Duration>,
}

/// A world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that happens.
    pub seed: u64,
    /// The jobs.
    pub jobs: Vec<JobPlan>,
    /// The rooms of each process, as places in [`ROOMS`].
    pub processes: Vec<Vec<usize>>,
    /// Settings of all processes.
    pub settings: Vec<(String, String)>,
    /// Partitions of each topic.
    pub partitions: i32,
    /// Batches on a page of the provider's list.
    pub page: usize,
    /// How often what goes wrong.
    pub rates: Rates,
    /// When faults end.
    pub faults_until: Duration,
    /// Whether events may be lost; then the reconciler runs.
    pub lossy: bool,
    /// When all topics are lost.
    pub wiped_at: Option<Duration>,
    /// The most batches at the provider, where there is a cap on the account.
    pub cap: Option<u64>,
    /// The step at which lives end or stop, where not any.
    pub step: Option<&'static str>,
}

impl Plan {
    /// The world of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let chance = Chance::new(seed);
        let lossy = chance.hits(400);
        let faults_until = chance.duration(20_000, 7_200_000);
        let jobs: Vec<JobPlan> =
            (0..*chance.pick(&[1, 1, 1, 2, 2, 3])).map(|job| job_plan(job, lossy, &chance)).collect();
        let processes = processes(&chance);
        let settings = settings(&chance);
        Self {
            seed,
            jobs,
            processes,
            settings,
            partitions: i32::try_from(chance.between(1, 4)).unwrap_or(1),
            page: usize::try_from(chance.between(1, 4)).unwrap_or(1),
            rates: rates(&chance),
            faults_until,
            lossy,
            wiped_at: (lossy && chance.hits(400)).then(|| chance.duration(500, 600_000)),
            cap: chance.hits(200).then(|| chance.between(1, 4)),
            step: None,
        }
    }
}

fn settings(chance: &Chance) -> Vec<(String, String)> {
    let commit_every = u64::try_from(chance.duration(4_000, 60_000).as_millis()).unwrap_or(1_000);
    let mut settings = vec![
        ("loop.commit_interval_ms".to_owned(), commit_every),
        ("loop.max_running".to_owned(), chance.between(1, 4)),
        ("loop.retry_max_ms".to_owned(), chance.between(2_000, 60_000)),
        ("loop.reconcile_after_seconds".to_owned(), chance.between(20, 300)),
        // Nobody looks at it, and each reading would be one more chance.
        ("metrics.lag_seconds".to_owned(), 0),
        ("splitter.deadline_hours".to_owned(), *chance.pick(&[1, 72, 72, 72])),
    ];
    if chance.hits(150) {
        let high = chance.between(1, 4);
        for edge in ["batches", "submissions", "results"] {
            settings.push((format!("backpressure.{edge}.high"), high));
            settings.push((format!("backpressure.{edge}.low"), high / 2));
        }
    }
    settings.into_iter().map(|(name, value)| (name, value.to_string())).collect()
}

/// Each kind of fault is off in some worlds, so that others are seen by themselves.
fn rates(chance: &Chance) -> Rates {
    let rate = |of: &[u64]| *chance.pick(of);
    Rates {
        store: rate(&[0, 0, 10, 50, 150]),
        lake: rate(&[0, 0, 50, 200]),
        bus: rate(&[0, 0, 50, 200]),
        provider: rate(&[0, 0, 50, 200, 400]),
        slow: rate(&[0, 0, 20, 100, 300]),
        create: rate(&[0, 100, 300, 600]),
        late: rate(&[0, 0, 0, 200]),
        batch: rate(&[0, 0, 200, 500]),
        row: rate(&[0, 0, 100, 400]),
        life: rate(&[0, 500, 900, 1_000]),
    }
}

fn processes(chance: &Chance) -> Vec<Vec<usize>> {
    let count = *chance.pick(&[1, 2, 2, 3]);
    let mut all: Vec<Vec<usize>> =
        (0..count).map(|_| (0..ROOMS.len()).filter(|_| chance.hits(600)).collect()).collect();
    for room in 0..ROOMS.len() {
        if !all.iter().flatten().any(|other| *other == room) {
            let at = usize::try_from(chance.below(count)).unwrap_or(0);
            all[at].push(room);
        }
    }
    all.retain(|rooms| !rooms.is_empty());
    all
}

fn job_plan(job: usize, lossy: bool, chance: &Chance) -> JobPlan {
    let parquet = chance.hits(300);
    let count = *chance.pick(&[0, 1, 3, 5, 8, 8, 12, 12, 20, 40]);
    let odd = *chance.pick(&[0, 0, 0, 50]);
    let ragged = !parquet && chance.hits(150);
    let rows = (0..count).map(|_| match chance.hits(odd) {
        false => RowKind::Plain,
        true if ragged && chance.hits(500) => RowKind::Ragged,
        true => RowKind::Empty,
    });
    let table = Table { parquet, job, version: 1, rows: rows.collect() };
    let ending = if parquet { "parquet" } else { "csv" };
    let spec = json!({
        "id": format!("job-{job}"),
        "input": {"uri": format!("s3://lake/in-{job}.{ending}")},
        "output": {"uri": format!("s3://lake/out-{job}.{ending}")},
        "request": {"model": "sim/echo", "template": "{{ title }}"},
        "batch": {"max_rows": if count >= 20 { chance.between(4, 12) } else { chance.between(1, 8) }},
        "details": chance.hits(300),
        "on_bad_row": if chance.hits(700) { "fail_row" } else { "fail_job" },
        "retry": retry(chance),
    });
    #[allow(clippy::expect_used)] // a test's own set-up
    let spec: JobSpec = serde_json::from_value(spec).expect("a sound spec");
    JobPlan {
        spec,
        table,
        at: chance.duration(1, 60_000),
        open_first: lossy || chance.hits(500),
        cancel_at: chance.hits(120).then(|| chance.duration(500, 600_000)),
        replace_at: chance.hits(80).then(|| chance.duration(100, 120_000)),
    }
}

fn retry(chance: &Chance) -> Value {
    let mut table = serde_json::Map::new();
    for kind in
        ["expired", "rate_limited", "server_error", "timeout", "missing", "malformed", "refused", "batch_failed"]
    {
        if chance.hits(200) {
            let limit = chance.below(4);
            table.insert(kind.to_owned(), if limit == 3 { json!("deadline") } else { json!(limit) });
        }
    }
    Value::Object(table)
}
