//! Metrics: after a job with failures the counters say exactly what its facts say, names keep to Prometheus' conventions,
//! and `docs/METRICS.md` is what the registries have. `BATCHMILL_BLESS=1 cargo test -p tests --test fast metrics` writes it anew.

mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, Outgoing};
use bytes::Bytes;
use events::{BatchReady, Event};
use model::facts::JobFacts;
use model::{BatchId, BatchRef, DataRef, EndFact, FailureKind, JobId, JobSpec, Nonce, SubmissionStep, Team, keys};
use object_store::memory::InMemory;
use prometheus::TextEncoder;
use prometheus::proto::{MetricFamily, MetricType};
use providers::{Caps, Provider, Providers};
use runtime::settings::{LocationRules, Settings};
use runtime::{Clock, Context, Locations, Outbox, Room, Store, load_facts};
use tests::provider::{OnCreate, Reply, ScriptedProvider};
use tests::world::World;
use tokio::task::JoinHandle;

const IN: &str = "s3://lake/in/products.csv";
const ROOMS: [&str; 4] = ["splitter", "dispatcher", "poller", "merger"];
/// What Prometheus itself puts on a series.
const RESERVED_LABELS: &[&str] = &["job", "instance", "le", "quantile"];

/// Four services, each with a registry of its own, over one bus and one store in memory.
struct Services {
    contexts: Vec<Context>,
    running: Vec<JoinHandle<anyhow::Result<()>>>,
    /// The series of all, as they were before anything happened.
    born: BTreeSet<String>,
}

impl Services {
    fn start(provider: ScriptedProvider) -> Self {
        let (clock, store, bus, lake) =
            (Clock::seeded(5), Store::in_memory(), Bus::memory(), Arc::new(InMemory::new()));
        let provider = Arc::new(provider) as Arc<dyn Provider>;
        let caps = Caps { account: NonZeroU64::new(100), ..Caps::default() };
        let providers = Providers::of_map(BTreeMap::from([("sim".to_owned(), provider)])).with_caps("sim", caps);
        let context = |_| {
            let locations = Locations::in_memory(LocationRules::default(), Arc::clone(&lake) as _);
            Context::of_parts(clock.clone(), Settings::default(), store.clone(), locations, bus.clone()).unwrap()
        };
        let contexts: Vec<Context> = ROOMS.iter().map(context).collect();
        let rooms: [Arc<dyn Room>; 4] = [
            Arc::new(splitter::Splitter::new(&contexts[0], &providers).unwrap()),
            Arc::new(dispatcher::Dispatcher::new(&contexts[1], &providers).unwrap()),
            Arc::new(poller::Poller::new(&contexts[2], &providers).unwrap()),
            Arc::new(merger::Merger::new(&contexts[3]).unwrap()),
        ];
        let run =
            |(context, room): (&Context, Arc<dyn Room>)| tokio::spawn(runtime::run_rooms(context.clone(), vec![room]));
        let running = contexts.iter().zip(rooms).map(run).collect();
        Self { contexts, running, born: BTreeSet::new() }
    }

    /// The same, once all have joined their groups.
    async fn joined(mut self) -> Self {
        self.pass(1).await;
        self.born = self.figures().into_keys().collect();
        self
    }

    async fn pass(&self, seconds: u64) {
        self.contexts[0].clock.sleep(Duration::from_secs(seconds)).await;
    }

    async fn submit(&self, spec: &JobSpec, input: &str) {
        let mut writer = self.contexts[0].locations.resolve(&spec.input.uri, &Team::shared()).unwrap().writer();
        writer.write(input.as_bytes().to_vec()).await.unwrap();
        writer.finish().await.unwrap();
        let event = events::JobSubmitted { spec: spec.clone() };
        Outbox::new(&self.contexts[0], "test").emit(event).await.unwrap();
    }

    async fn end(&self, job: &JobId) -> (JobFacts, EndFact) {
        let store = &self.contexts[0].store;
        for _ in 0..10_000 {
            if let Some(end) = store.get_json::<EndFact>(&keys::end(job)).await.unwrap() {
                // The readings of lags, and what follows the end.
                self.pass(60).await;
                return (load_facts(store, job).await.unwrap(), end);
            }
            self.pass(1).await;
        }
        panic!("job {job} does not end")
    }

    /// All series by name and labels, histograms by their counts and sums. Ours have no series that two services share but for
    /// process-wide ones, which are added up.
    fn figures(&self) -> BTreeMap<String, f64> {
        let mut figures = BTreeMap::new();
        for context in &self.contexts {
            let text = TextEncoder::new().encode_to_string(&ours(context)).unwrap();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let (series, value) = line.rsplit_once(' ').unwrap();
                *figures.entry(series.to_owned()).or_default() += value.parse::<f64>().unwrap();
            }
        }
        figures
    }

    async fn stop(self) {
        self.contexts.iter().for_each(|context| context.shutdown.cancel());
        for running in self.running {
            running.await.unwrap().unwrap();
        }
    }
}

/// The families of a registry but for those of the operating system's process.
fn ours(context: &Context) -> Vec<MetricFamily> {
    context.registry.gather().into_iter().filter(|family| !family.name().starts_with("process_")).collect()
}

fn spec(id: &str, template: &str) -> JobSpec {
    serde_json::from_value(serde_json::json!({
        "id": id, "input": {"uri": IN}, "output": {"uri": format!("s3://lake/out/{id}.csv")},
        "request": {"model": "sim/echo", "template": template}, "batch": {"max_rows": 5}
    }))
    .unwrap()
}

/// Twenty rows, of which the fifteenth has no title.
fn table() -> String {
    let row = |row: usize| if row == 15 { format!("{row},\n") } else { format!("{row},title {row:02}\n") };
    std::iter::once("id,title\n".to_owned()).chain((0..20).map(row)).collect()
}

/// Of the first attempts one row meets a 500, one a 400, one no word at all; the first create's answer is lost, the second create
/// is lost altogether.
fn provider() -> ScriptedProvider {
    let rows = |batch: usize, prompt: &str| match &prompt[prompt.len() - 2..] {
        "03" if batch < 4 => Reply::Status(500),
        "07" => Reply::Status(400),
        "11" if batch < 4 => Reply::Nothing,
        _ => Reply::Answer(prompt.to_owned()),
    };
    let creates = |create: usize| match create {
        0 => OnCreate::AcceptAndLose,
        1 => OnCreate::Lose,
        _ => OnCreate::Accept,
    };
    ScriptedProvider::new(Box::new(rows)).with_creates(Box::new(creates)).slow(300)
}

/// Services that have been through a busy job, a refused one and two records that can't be handled; and what they came to.
async fn busy() -> (Services, JobFacts, EndFact) {
    let services = Services::start(provider()).joined().await;
    let job = spec("busy", "{{ title }}");
    services.submit(&job, &table()).await;
    services.pass(40).await;
    waiting(&services);
    let (facts, end) = services.end(&job.id).await;
    let refused = spec("refused", "{{ titel }}");
    services.submit(&refused, &table()).await;
    services.end(&refused.id).await;
    let nobodys = BatchReady {
        job: "nobody".parse().unwrap(),
        batch: BatchRef {
            id: BatchId { number: 1, attempt: 1 },
            nonce: Nonce::from_bits(1),
            first_row: 0,
            data: DataRef { key: "x".to_owned(), checksum: model::digest::Checksum::of(b""), bytes: 1, rows: 1 },
            send_rows: 1,
            send_bytes: 1,
        },
    };
    Outbox::new(&services.contexts[0], "test").emit(Event::BatchReady(nobodys)).await.unwrap();
    let bad = Outgoing {
        topic: "batchmill.jobs.v1".to_owned(),
        value: Some(Bytes::from_static(b"{")),
        ..Outgoing::default()
    };
    services.contexts[0].bus.send(bad).await.unwrap();
    services.pass(60).await;
    (services, facts, end)
}

/// In the middle of it, four batches are at the provider and nothing is collected.
fn waiting(services: &Services) {
    let figures = services.figures();
    let at = |series: &str| figures[series];
    assert_eq!(at(r#"batchmill_poller_batches_at_provider{provider="sim"}"#), 4.0);
    let age = at(r#"batchmill_poller_oldest_batch_age_seconds{provider="sim"}"#);
    assert!((30.0..=40.0).contains(&age), "{age}");
    let poller = r#"{group="batchmill-poller",room="poller",topic="batchmill.submissions.v1"}"#;
    assert_eq!(at(&format!("batchmill_loop_lag_events{poller}")), 4.0);
    assert_eq!(at(&format!("batchmill_loop_raw_lag_events{poller}")), 4.0);
    assert_eq!(at(r#"batchmill_loop_unfinished{room="poller",topic="batchmill.submissions.v1"}"#), 4.0);
}

#[tokio::test(start_paused = true)]
async fn after_a_busy_job_the_counters_say_what_its_facts_say() {
    let (services, facts, end) = busy().await;
    let figures = services.figures();
    let total = |name: &str, labels: &[&str]| -> u64 {
        let matches =
            |series: &str| series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label));
        let found: Vec<f64> = figures.iter().filter(|(series, _)| matches(series)).map(|(_, value)| *value).collect();
        assert!(!found.is_empty(), "there is no {name} with {labels:?}");
        found.iter().sum::<f64>() as u64
    };
    // What the facts say, and that they say something.
    assert_eq!((end.counts.rows, end.counts.answered, end.counts.failed_rows(), end.attempts), (20, 18, 2, 6));
    let (sum, tokens) = facts.results.values().fold(Default::default(), |(mut sum, mut tokens), result| {
        sum += &result.counts;
        tokens += result.tokens;
        (sum, tokens)
    });
    let (sum, tokens): (model::Counts, model::Tokens) = (sum, tokens);
    assert!(tokens.input > 0 && tokens.output > 0 && tokens == end.tokens);
    let submitted = |was: bool| {
        let ends = facts.submissions.values().map(|(_, step)| step);
        ends.filter(|step| matches!(step, SubmissionStep::Submitted { adopted, .. } if *adopted == was)).count() as u64
    };
    assert_eq!((submitted(false), submitted(true)), (5, 1));
    let cost = end.cost.as_ref().unwrap().cost;
    let usd = figures[r#"batchmill_cost_usd_total{model="echo",provider="sim",team="default"}"#];
    assert!(usd > 0.0 && (usd - cost.total.as_f64()).abs() < 1e-12, "{usd} {cost:?}");
    let expected: &[(&str, &[&str], u64)] = &[
        ("batchmill_splitter_rows_total", &["\"ready\""], 19),
        ("batchmill_splitter_rows_total", &["\"failed\""], 1),
        ("batchmill_splitter_batches_total", &[], 4),
        ("batchmill_splitter_jobs_total", &["\"planned\""], 1),
        ("batchmill_splitter_jobs_total", &["\"refused\""], 1),
        ("batchmill_splitter_plan_duration_seconds_count", &[], 2),
        ("batchmill_dispatcher_batches_total", &["\"submitted\""], submitted(false)),
        ("batchmill_dispatcher_batches_total", &["\"adopted\""], submitted(true)),
        ("batchmill_dispatcher_batches_total", &["\"rejected\""], 0),
        ("batchmill_dispatcher_rows_total", &[], 19 + 2),
        ("batchmill_dispatcher_ambiguous_creates_total", &["\"sim\""], 2),
        ("batchmill_dispatcher_fences_total", &["\"adopted\""], 1),
        ("batchmill_dispatcher_fences_total", &["\"cleared\""], 1),
        ("batchmill_dispatcher_fences_total", &["\"failed\""], 0),
        ("batchmill_dispatcher_submit_duration_seconds_count", &[], submitted(false)),
        ("batchmill_dispatcher_cap_limit_batches", &["\"sim\"", "\"account\""], 100),
        ("batchmill_dispatcher_cap_held_batches", &["\"sim\"", "\"account\""], 4),
        ("batchmill_dispatcher_cap_waiting_batches", &["\"sim\"", "\"account\""], 0),
        ("batchmill_provider_request_duration_seconds_count", &["\"create\"", "\"ok\""], 5),
        ("batchmill_provider_request_duration_seconds_count", &["\"create\"", "\"failed\""], 2),
        ("batchmill_provider_request_duration_seconds_count", &["\"upload\"", "\"ok\""], 7),
        ("batchmill_poller_rows_total", &["\"answered\""], sum.answered),
        ("batchmill_poller_rows_total", &["\"failed\""], sum.failed_rows()),
        ("batchmill_poller_rows_total", &["\"retried\""], sum.retried),
        ("batchmill_poller_retried_rows_total", &["\"server_error\""], 1),
        ("batchmill_poller_retried_rows_total", &["\"missing\""], 1),
        ("batchmill_poller_retried_rows_total", &[], sum.retried),
        ("batchmill_poller_batches_total", &["\"completed\""], 6),
        ("batchmill_poller_batches_total", &[], facts.results.len() as u64),
        ("batchmill_poller_batch_turnaround_seconds_count", &[], 6),
        ("batchmill_poller_collect_duration_seconds_count", &[], 6),
        ("batchmill_poller_batches_at_provider", &[], 0),
        ("batchmill_poller_oldest_batch_age_seconds", &[], 0),
        ("batchmill_tokens_total", &["\"echo\"", "\"default\"", "\"input\""], tokens.input - tokens.cached),
        ("batchmill_tokens_total", &["\"cached_input\""], tokens.cached),
        ("batchmill_tokens_total", &["\"output\""], tokens.output),
        ("batchmill_cost_unpriced_tokens_total", &["\"echo\"", "\"default\""], 0),
        ("batchmill_cost_unmetered_rows_total", &["\"echo\"", "\"default\""], 0),
        ("batchmill_cost_usage_mismatches_total", &["\"sim\"", "\"echo\""], 0),
        ("batchmill_cost_budget_usd", &[], 0),
        ("batchmill_merger_jobs_total", &["\"partial\"", "\"default\""], 1),
        ("batchmill_merger_jobs_total", &["\"refused\""], 1),
        ("batchmill_merger_jobs_total", &["\"answered\""], 0),
        ("batchmill_merger_rows_total", &["\"answered\""], end.counts.answered),
        ("batchmill_merger_rows_total", &["\"failed\""], end.counts.failed_rows()),
        ("batchmill_merger_planned_rows_total", &[], end.counts.rows),
        ("batchmill_merger_conservation_mismatches_total", &[], 0),
        ("batchmill_merger_job_duration_seconds_count", &[], 1),
        ("batchmill_merger_merge_duration_seconds_count", &[], 1),
        ("batchmill_loop_dead_letters_total", &[], 2),
        ("batchmill_loop_dead_letters_total", &["\"splitter\"", "\"batchmill.jobs.v1\"", "\"not_json\""], 1),
        ("batchmill_loop_dead_letters_total", &["\"dispatcher\"", "\"batchmill.batches.v1\"", "\"unknown_job\""], 1),
        ("batchmill_loop_lag_events", &[], 0),
        ("batchmill_loop_raw_lag_events", &[], 0),
        ("batchmill_loop_paused", &[], 0),
        ("batchmill_bus_errors_total", &[], 0),
        ("batchmill_store_errors_total", &[], 0),
    ];
    for (name, labels, value) in expected {
        assert_eq!(total(name, labels), *value, "{name} {labels:?}");
    }
    for (kind, rows) in &sum.failed {
        assert_eq!(total("batchmill_poller_failed_rows_total", &[&format!("\"{kind}\"")]), *rows, "{kind}");
    }
    assert_eq!(sum.failed.keys().copied().collect::<Vec<_>>(), [FailureKind::InvalidRequest, FailureKind::EmptyPrompt]);
    services.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_series_is_there_before_its_first_event_but_for_those_of_a_model() {
    let (services, ..) = busy().await;
    let late: Vec<String> = services
        .figures()
        .into_keys()
        .filter(|series| {
            !services.born.contains(series)
                && !series.contains("{model=\"echo\"")
                && !series.contains(",model=\"echo\"")
        })
        .collect();
    assert_eq!(late, Vec::<String>::new());
    services.stop().await;
}

#[tokio::test(start_paused = true)]
async fn all_rooms_fit_into_one_registry_and_keep_to_the_conventions() {
    let world = World::start().await;
    world.context.clock.sleep(Duration::from_secs(1)).await;
    let families = ours(&world.context);
    assert!(families.len() > 40, "{}", families.len());
    let is_snake = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    for family in &families {
        let (name, help, kind) = (family.name(), family.help(), family.get_field_type());
        assert!(name.starts_with("batchmill_") && is_snake(name), "{name}");
        assert!(
            help.len() > 10 && help.ends_with('.') && !help.contains('|') && !help.contains("  "),
            "{name}: {help:?}"
        );
        assert_eq!(kind == MetricType::COUNTER, name.ends_with("_total"), "{name} is a {kind:?}");
        assert!(kind != MetricType::HISTOGRAM || name.ends_with("_seconds"), "{name} has no base unit");
        for wrong in ["_ms", "_millis", "_minutes", "_hours", "_count", "_sum", "_bucket", "_percent", "_gauge"] {
            assert!(!name.ends_with(wrong), "{name}");
        }
        for label in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            assert!(is_snake(label.name()) && !RESERVED_LABELS.contains(&label.name()), "{name}: {}", label.name());
            assert!(!label.value().is_empty(), "{name}: {}", label.name());
        }
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_document_of_the_metrics_is_what_the_registries_have() {
    let (services, ..) = busy().await;
    let generated = document::of(&services);
    services.stop().await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/METRICS.md");
    if std::env::var_os("BATCHMILL_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "docs/METRICS.md is not what the registries have: BATCHMILL_BLESS=1 cargo test -p tests --test fast metrics"
    );
}
