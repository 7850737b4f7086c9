//! Bad and nearly bad inputs, job specs and events, each pinned to its exact outcome: `tests/corpus` holds the files, and a
//! manifest for each folder says what must come of each (`corpus/manifest.rs`).
//!
//! Whatever is refused has cost nothing: the provider got no batch. Behind every event that can't be handled a good job goes
//! through the same topics, and the record lies among the dead letters byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of tests are tests, too

#[path = "corpus/manifest.rs"]
mod manifest;
#[path = "corpus/recipes.rs"]
mod recipes;

use std::collections::BTreeSet;

use arrow::array::{Array as _, StringArray};
use bus::Outgoing;
use bytes::Bytes;
use manifest::{Entry, Expect, Outcome, entries, files};
use model::facts::SCHEMA;
use model::{EndFact, JobId, JobSpec, OpenJob, RefusalCode, keys};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use runtime::Outbox;
use runtime::dead_letters::ERROR_HEADERS;
use serde_json::{Map, Value, json};
use tests::provider::ScriptedProvider;
use tests::world::{World, header};

const FOLDERS: [&str; 5] = ["csv", "gz", "parquet", "specs", "events"];
const OUT: &str = "s3://lake/out/answers";
const JOBS: &str = "batchmill.jobs.v1";

/// Collects what is otherwise than it must be, with what came instead.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn check(&mut self, entry: &Entry, expect: &Expect, actual: &Outcome) {
        if let Some(what) = expect.differs(actual) {
            let Outcome { refused, dead_letter, message, rows, failed, paid, output } = actual;
            let cut = |text: &str| text.chars().take(500).collect::<String>();
            let line = json!({"file": entry.name(), "topics": entry.topics, "refused": refused, "dead_letter": dead_letter, "message": cut(message),
                "rows": rows, "failed": failed, "paid": paid.iter().take(5).map(|prompt| cut(prompt)).collect::<Vec<_>>(), "output": cut(output)});
            self.0.push(format!("{}: {what}\n    {line}", entry.name()));
        }
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{} entries came out otherwise:\n{}", self.0.len(), self.0.join("\n"));
    }
}

fn merge(into: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (key, change) in changes {
        match (into.get_mut(key), change) {
            (Some(Value::Object(inner)), Value::Object(change)) => merge(inner, change),
            _ => drop(into.insert(key.clone(), change.clone())),
        }
    }
}

/// The usual spec for an input of this name, with the entry's changes.
fn spec_for(name: &str, entry: &Entry) -> JobSpec {
    let mut spec = json!({
        "id": "job", "input": {"uri": format!("s3://lake/in/{name}")}, "output": {"uri": OUT},
        "request": {"model": "sim/echo", "template": "{{ a }}"},
    });
    merge(spec.as_object_mut().unwrap(), &entry.spec);
    serde_json::from_value(spec).unwrap()
}

async fn outcome_of(world: &World, end: Option<EndFact>) -> Outcome {
    let mut outcome = Outcome { paid: world.provider.paid(), ..Outcome::default() };
    // The scripted provider reads its files from the end.
    outcome.paid.reverse();
    let Some(end) = end else {
        let letters = world.dead().await;
        outcome.dead_letter = Some(header(&letters[0], &format!("{ERROR_HEADERS}code")));
        outcome.message = header(&letters[0], &format!("{ERROR_HEADERS}message"));
        return outcome;
    };
    match end.refusal {
        Some(refusal) => {
            outcome.refused = Some(refusal.code.to_string());
            outcome.message = refusal.message;
            assert_eq!(
                world.provider.batches() + world.provider.files(),
                0,
                "something was uploaded for a refused job"
            );
        }
        None => {
            outcome.rows = Some(end.counts.rows);
            outcome.failed = end.counts.failed.iter().map(|(kind, count)| (kind.to_string(), *count)).collect();
            assert_eq!(end.counts.rows, end.counts.answered + end.counts.failed_rows());
        }
    }
    outcome
}

/// Runs one input to its end.
async fn run_input(entry: &Entry, name: &str, input: Vec<u8>) -> Outcome {
    let world = World::start().await;
    let spec = spec_for(name, entry);
    world.put(&spec.input.uri, input.clone()).await;
    world.submit(JOBS, serde_json::to_vec(&spec).unwrap()).await;
    let end = world.end_or_death(Some(&spec.id)).await;
    let mut outcome = outcome_of(&world, end).await;
    match world.get(&spec.output.uri).await {
        Some(output) if output.starts_with(b"PAR1") => outcome.output = check_columns(name, &input, &output),
        Some(output) => outcome.output = String::from_utf8_lossy(&output).into_owned(),
        None => assert_eq!(outcome.rows, None, "there is no output"),
    }
    let names_a_file =
        ["bad_row", "duplicate_column", "input_corrupt", "input_empty", "input_format", "input_too_large"];
    if outcome.refused.as_deref().is_some_and(|code| names_a_file.contains(&code)) {
        assert!(
            outcome.message.starts_with(&spec.input.uri),
            "the message does not begin with the input's name: {}",
            outcome.message
        );
    }
    world.stop().await;
    outcome
}

/// The caller's columns of an answered Parquet file are equal to the input's. Gives the errors, a line each.
fn check_columns(name: &str, input: &[u8], output: &[u8]) -> String {
    let read = |bytes: &[u8]| {
        let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).unwrap();
        builder.with_batch_size(16).build().unwrap().map(Result::unwrap)
    };
    let (mut theirs, mut errors) = (read(input), String::new());
    for ours in read(output) {
        let theirs = theirs.next().unwrap();
        for (column, own) in theirs.columns().iter().zip(ours.columns()) {
            // By their printed form where NaN is among them, which equals nothing.
            assert!(column == own || format!("{column:?}") == format!("{own:?}"), "{name}: {column:?}, {own:?}");
        }
        let column = ours.column_by_name("error").unwrap().as_any().downcast_ref::<StringArray>().unwrap();
        errors.extend(column.iter().flatten().map(|error| format!("{error}\n")));
    }
    assert!(theirs.next().is_none(), "{name}: rows are missing");
    errors
}

async fn run_inputs(folder: &str) {
    let mut differences = Differences::default();
    for entry in entries(folder) {
        let (name, input) = match entry.recipe.as_str() {
            "" => (entry.file.rsplit('/').next().unwrap(), entry.read()),
            recipe => recipes::make(recipe),
        };
        let outcome = run_input(&entry, name, input).await;
        differences.check(&entry, &entry.expect, &outcome);
    }
    differences.none();
}

#[tokio::test(start_paused = true)]
async fn each_csv_comes_out_as_pinned() {
    run_inputs("csv").await;
}

#[tokio::test(start_paused = true)]
async fn each_gzipped_csv_comes_out_as_pinned() {
    run_inputs("gz").await;
}

#[tokio::test(start_paused = true)]
async fn each_parquet_file_comes_out_as_pinned() {
    run_inputs("parquet").await;
}

#[tokio::test(start_paused = true)]
async fn each_large_input_comes_out_as_pinned() {
    run_inputs("recipes").await;
}

#[tokio::test(start_paused = true)]
async fn each_job_spec_comes_out_as_pinned() {
    let mut differences = Differences::default();
    for entry in entries("specs") {
        let world = World::start().await;
        world.put("s3://lake/in/table.csv", b"a,b\n1,x\n2,y\n".to_vec()).await;
        for place in ["s3://vault/keys.csv", "s3://lake/inside/table.csv"] {
            world.put(place, b"a\nsecret\n".to_vec()).await;
        }
        let bytes = entry.read();
        world.submit(JOBS, bytes.clone()).await;
        let id = serde_json::from_slice::<JobSpec>(&bytes).ok().map(|spec| spec.id);
        let end = world.end_or_death(id.as_ref()).await;
        let mut outcome = outcome_of(&world, end).await;
        if let Some(output) = world.get("s3://lake/out/table.csv").await {
            outcome.output = String::from_utf8(output).unwrap();
        }
        assert_eq!(world.get("s3://vault/out.csv").await, None);
        differences.check(&entry, &entry.expect, &outcome);
        world.stop().await;
    }
    differences.none();
}

/// A record of the corpus, for this topic.
fn record(entry: &Entry, topic: &str) -> Outgoing {
    let described: Value = serde_json::from_slice(&entry.read()).unwrap();
    let bytes = |value: &Value| value.as_str().map(|text| Bytes::copy_from_slice(text.as_bytes()));
    let headers = described["headers"].as_object().unwrap().iter();
    let pad = usize::try_from(described["pad"].as_u64().unwrap_or(0)).unwrap();
    let value = bytes(&described["value"]).map(|value| Bytes::from([&value[..], &vec![b' '; pad]].concat()));
    Outgoing {
        topic: format!("batchmill.{topic}.v1"),
        key: bytes(&described["key"]),
        headers: headers.map(|(name, value)| (name.clone(), bytes(value).unwrap())).collect(),
        value,
        timestamp_ms: Some(1_700_000_000_000),
    }
}

/// A sound job that uses every topic, since one of its rows fails at first.
async fn sound_job(world: &World, id: &str, topic: &str) {
    let (id, uri): (JobId, _) = (id.parse().unwrap(), format!("s3://lake/in/{id}.csv"));
    world.put(&uri, format!("a\nanswered {id}\nagain {id}\n").into_bytes()).await;
    let spec = json!({
        "id": id, "input": {"uri": uri}, "output": {"uri": format!("s3://lake/out/{id}.csv")},
        "request": {"model": "sim/echo", "template": "{{ a }}"},
    });
    world.submit(topic, spec.to_string().into_bytes()).await;
    let end = world.end(&id).await;
    assert_eq!((end.counts.answered, end.attempts), (2, 2), "{id}: {:?}", end.refusal);
}

async fn run_event(entry: &Entry, topic: &str) -> Outcome {
    let world = World::start().await;
    let jobs = if topic.starts_with("jobs") { format!("batchmill.{topic}.v1") } else { JOBS.to_owned() };
    sound_job(&world, "before", &jobs).await;
    world.idle().await;
    let sent = record(entry, topic);
    world.send(sent.clone()).await;
    sound_job(&world, "after", &jobs).await;
    world.idle().await;
    let paid = world.provider.paid();
    assert_eq!(paid.len(), 6, "{} on {topic}: two jobs with three requests each: {paid:?}", entry.file);
    let letters = world.dead().await;
    assert!(letters.len() <= 1, "{} on {topic}: {letters:?}", entry.file);
    let mut outcome = Outcome::default();
    for letter in letters {
        let own: Vec<_> = letter.headers.iter().filter(|(name, _)| !name.starts_with(ERROR_HEADERS)).cloned().collect();
        let place = (&letter.key, &letter.value, own, letter.timestamp_ms);
        assert_eq!(place, (&sent.key, &sent.value, sent.headers.clone(), sent.timestamp_ms), "{}", entry.file);
        assert!(letter.topic.ends_with(&format!(".{}", sent.topic)), "{}", letter.topic);
        outcome.dead_letter = Some(header(&letter, &format!("{ERROR_HEADERS}code")));
        outcome.message = header(&letter, &format!("{ERROR_HEADERS}message"));
    }
    world.stop().await;
    outcome
}

#[tokio::test(start_paused = true)]
async fn each_event_comes_out_as_pinned_and_the_next_good_one_is_handled() {
    let mut differences = Differences::default();
    for entry in entries("events") {
        for topic in &entry.topics {
            let outcome = run_event(&entry, topic).await;
            let entry = Entry { topics: vec![topic.clone()], ..entry.clone() };
            differences.check(&entry, &entry.expect, &outcome);
        }
    }
    differences.none();
}

#[tokio::test(start_paused = true)]
async fn teams_reach_neither_the_files_nor_the_jobs_of_one_another() {
    let teams = [
        ("locations.teams.red.allow", r#"["s3://lake/red/"]"#),
        ("locations.teams.blue.allow", r#"["s3://lake/blue/"]"#),
    ];
    let world = World::with(ScriptedProvider::echo(), &teams).await;
    for place in ["red/in.csv", "blue/in.csv", "red-evil/in.csv"] {
        world.put(&format!("s3://lake/{place}"), b"a\nx\n".to_vec()).await;
    }
    let spec = |id: &str, from: &str, to: &str| {
        json!({"id": id, "input": {"uri": format!("s3://lake/{from}")}, "output": {"uri": format!("s3://lake/{to}")},
            "request": {"model": "sim/echo", "template": "{{ a }}"}})
        .to_string()
        .into_bytes()
    };
    let (red, blue) = ("batchmill.jobs.red.v1", "batchmill.jobs.blue.v1");
    world.submit(red, spec("job", "red/in.csv", "red/out.csv")).await;
    let end = world.end(&"job".parse().unwrap()).await;
    assert_eq!((end.counts.answered, world.provider.paid().len()), (1, 1));
    // Neither by name nor as the very same job.
    for theirs in [spec("job", "blue/in.csv", "blue/out.csv"), spec("job", "red/in.csv", "red/out.csv")] {
        for topic in [blue, JOBS] {
            world.submit(topic, theirs.clone()).await;
        }
    }
    world.idle().await;
    let letters = world.dead().await;
    let codes: Vec<String> = letters.iter().map(|letter| header(letter, &format!("{ERROR_HEADERS}code"))).collect();
    assert_eq!(codes, ["job_id_conflict"; 4]);
    for (number, (topic, from, to)) in [
        (blue, "red/in.csv", "blue/out.csv"),
        (blue, "blue/in.csv", "red/new.csv"),
        (blue, "blue/in.csv", "red/out.csv"),
        (blue, "blue/../red/in.csv", "blue/out.csv"),
        (blue, "blue/%2e%2e/red/in.csv", "blue/out.csv"),
        (red, "red-evil/in.csv", "red/out2.csv"),
        (red, "red/in.csv", "out/out.csv"),
        (JOBS, "red/in.csv", "out/out.csv"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("reach-{number}");
        world.submit(topic, spec(&id, from, to)).await;
        let refusal = world.end(&id.parse().unwrap()).await.refusal.unwrap();
        assert_eq!(refusal.code, RefusalCode::LocationRefused, "{from} {to}: {refusal}");
    }
    // A job that has been opened and waits: only its own team can cancel it.
    let id: JobId = "waiting".parse().unwrap();
    let waiting: JobSpec = serde_json::from_slice(&spec("waiting", "red/in.csv", "red/waiting.csv")).unwrap();
    let (nonce, opened_at) = (world.context.clock.nonce(), world.context.clock.now());
    let open = OpenJob { schema: SCHEMA, nonce, team: "red".parse().unwrap(), spec: waiting, opened_at };
    world.context.store.put_once(&keys::open(&id), &open).await.unwrap();
    for (topic, cancelled) in [(blue, false), (JOBS, false), (red, true)] {
        let out = Outbox::new(&world.context, "test");
        let team = world.context.topics.team_of(topic).unwrap();
        out.emit_for(events::Event::from(events::JobCancelRequested { job: id.clone() }), &team).await.unwrap();
        world.idle().await;
        assert_eq!(world.context.store.exists(&keys::cancel(&id)).await.unwrap(), cancelled, "{topic}");
    }
    // A team that the settings do not name has no topic that anybody reads.
    world.submit("batchmill.jobs.green.v1", spec("green", "in/table.csv", "out/green.csv")).await;
    world.idle().await;
    assert!(!world.context.store.exists(&keys::open(&"green".parse().unwrap())).await.unwrap());
    assert_eq!(world.provider.paid().len(), 1);
    world.stop().await;
}

#[test]
fn every_topic_has_its_poison() {
    let tried: BTreeSet<String> = entries("events").into_iter().flat_map(|entry| entry.topics).collect();
    let topics = ["jobs", "jobs.search", "batches", "retries", "submissions", "results"].map(str::to_owned);
    assert_eq!(tried, BTreeSet::from(topics));
}

#[test]
fn every_file_has_an_entry_and_every_entry_a_file_or_a_recipe() {
    let mut count = 0;
    for folder in FOLDERS {
        let named: BTreeSet<String> = entries(folder).into_iter().map(|entry| entry.file).collect();
        assert_eq!(named, files(folder), "{folder}");
        count += named.len();
    }
    assert!(entries("recipes").iter().all(|entry| entry.file.is_empty() && !entry.recipe.is_empty()));
    assert!(count >= 250, "the corpus shrank to {count} files");
}
