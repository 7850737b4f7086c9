//! Secrets show up nowhere, and prompts only where they belong.
//!
//! Every secret and every piece of a prompt is a canary: a text that nothing else contains. A provider over HTTP repeats the key
//! in every error that it can make, an S3 server repeats what it was sent, records are poison, templates are refused. Then all that
//! came of it is searched: logs of every crate at TRACE, all events and dead letters, all objects, metrics, `config show`.
//!
//! A prompt may stand in the job's own records and facts (the spec is there, with template and system prompt) and, row by row, in
//! batch data, result data and the output. It may stand nowhere else; cells not even in events and facts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of tests are tests, too

#[path = "canary/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use bus::{Bus, KafkaSettings, Outgoing, Polled};
use bytes::Bytes;
use model::{FailureKind, JobId, RefusalCode, Team};
use prometheus::TextEncoder;
use providers::{ProviderSettings, Providers};
use runtime::settings::{Common, LocationRules, Settings, StoreSettings};
use runtime::{Locations, Store};
use serde_json::json;
use server::Server;
use tests::world::World;

const API_KEY: &str = "sk-canary-3f9b1c";
const S3_ID: &str = "AKIACANARY7D2E";
const S3_KEY: &str = "s3canary55a1e8";
const S3_TOKEN: &str = "tokencanary90c4";
const SASL: &str = "saslcanary1b7f";
const OTLP: &str = "otlpcanary82d6";
const SECRETS: [&str; 6] = [API_KEY, S3_ID, S3_KEY, S3_TOKEN, SASL, OTLP];
const CELL: &str = "cellcanary-6e02";
const TEMPLATE: &str = "templatecanary-a9d3";
const SYSTEM: &str = "systemcanary-47fb";
const JOBS: &str = "batchmill.jobs.v1";

/// What is logged, from the first call on.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logs {
    fn start() -> Self {
        let logs = Self::default();
        let writer = logs.clone();
        let everything =
            tracing_subscriber::fmt().json().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
        everything.with_writer(move || writer.clone()).try_init().unwrap();
        logs
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

fn is_in(bytes: &[u8], canary: &str) -> bool {
    bytes.windows(canary.len()).any(|window| window.eq_ignore_ascii_case(canary.as_bytes()))
}

/// The lines that have a canary.
fn lines_with(text: &str, canary: &str) -> Vec<String> {
    text.lines().filter(|line| is_in(line.as_bytes(), canary)).map(|line| line.chars().take(700).collect()).collect()
}

fn spec(id: &str, template: &str) -> serde_json::Value {
    json!({
        "id": id, "input": {"uri": format!("s3://lake/in/{id}.csv")}, "output": {"uri": format!("s3://lake/out/{id}.csv")},
        "request": {"model": "sim/echo", "template": template, "system": SYSTEM, "params": {"user": "u"}},
    })
}

async fn submit(world: &World, spec: &serde_json::Value) -> model::EndFact {
    let id: JobId = spec["id"].as_str().unwrap().parse().unwrap();
    world.submit(JOBS, spec.to_string().into_bytes()).await;
    world.end(&id).await
}

/// Jobs that end in every way over a provider that repeats the key.
async fn jobs(world: &World) {
    let table = format!("a,n\n{CELL} 1,1\n{CELL} 2,2\n{CELL} 3,3\n");
    let template = format!("{TEMPLATE} {{{{ a }}}}");
    for id in ["rejected", "answered", "no-column", "no-template", "bad-row", "numbers"] {
        world.put(&format!("s3://lake/in/{id}.csv"), table.clone().into_bytes()).await;
    }
    let end = submit(world, &spec("rejected", &template)).await;
    assert_eq!(end.counts.failed.get(&FailureKind::BatchRejected), Some(&3), "{end:?}");
    let end = submit(world, &spec("answered", &template)).await;
    assert_eq!((end.counts.answered, end.counts.failed.get(&FailureKind::InvalidRequest)), (2, Some(&1)), "{end:?}");
    let refused = |end: model::EndFact| end.refusal.unwrap().code;
    let end = submit(world, &spec("no-column", &format!("{TEMPLATE} {{{{ missing }}}}"))).await;
    assert_eq!(refused(end), RefusalCode::UnknownColumn);
    let end =
        submit(world, &spec("no-template", &format!("{TEMPLATE} {{{{ a|missing('{TEMPLATE}') }}}} {{% '{TEMPLATE}'")))
            .await;
    assert_eq!(refused(end), RefusalCode::TemplateInvalid);
    world.put("s3://lake/in/bad-row.csv", format!("a,n\n{CELL},1\n\"{CELL}\"{CELL},2\n").into_bytes()).await;
    assert_eq!(refused(submit(world, &spec("bad-row", &template)).await), RefusalCode::BadRow);
    // Each row fails by itself, over its own cell.
    let end = submit(world, &spec("numbers", &format!("{TEMPLATE} {{{{ a|int + row['a']|float }}}}"))).await;
    assert_eq!(end.counts.failed.get(&FailureKind::TemplateFailed), Some(&3), "{end:?}");
}

/// Records that nobody can read, with canaries in every place; gives their values.
async fn poison(world: &World) -> Vec<String> {
    let text = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
    let spec = spec("poison", TEMPLATE).to_string();
    let values = [
        spec.replace("\"id\":\"poison\"", &format!("\"id\":7,\"x\":\"{TEMPLATE}\"")),
        spec.replace("\"params\":{", &format!("\"params\":\"{TEMPLATE}\",\"y\":{{")),
        spec.replace("\"template\":", &format!("\"template\":{{\"{SYSTEM}\":1}},\"z\":")),
        format!("{{\"id\": \"{TEMPLATE}"),
        format!("{TEMPLATE} {SYSTEM}"),
        "{\"id\":\"poison\",\"input\":".to_owned() + &spec,
    ];
    for value in &values {
        world.submit(JOBS, value.clone().into_bytes()).await;
        for topic in ["batches", "retries", "submissions", "results"] {
            let headers = [
                ("ce_specversion", "1.0"),
                ("ce_type", "io.batchmill.batch.ready.v1"),
                ("ce_id", "1"),
                ("ce_source", "/x"),
            ];
            let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), text(value).unwrap())).collect();
            let topic = format!("batchmill.{topic}.v1");
            world
                .send(Outgoing { topic, key: text("poison/00000001"), headers, value: text(value), timestamp_ms: None })
                .await;
        }
    }
    world.idle().await;
    assert_eq!(world.dead().await.len(), values.len() * 5);
    values.into()
}

/// An S3 server that refuses everything and repeats what it was sent, as S3 does; and what is said of it.
async fn s3(server: &Server) -> String {
    let settings = Settings::load(
        None,
        [
            ("BATCHMILL__STORE__ACCESS_KEY_ID", S3_ID),
            ("BATCHMILL__STORE__SECRET_ACCESS_KEY", S3_KEY),
            ("BATCHMILL__STORE__SESSION_TOKEN", S3_TOKEN),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter(),
        &[
            ("store.uri", "s3://state/x"),
            ("store.endpoint", &server.s3()),
            ("store.region", "eu-1"),
            ("store.allow_http", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
    .unwrap();
    let store: StoreSettings = settings.section("store").unwrap();
    let mut said = format!("{settings:?} {store:?}");
    let locations = Locations::new(LocationRules::default(), store.clone());
    let opened = Store::open(&store).unwrap();
    let place = locations.resolve("s3://lake/in.csv", &Team::shared()).unwrap();
    said += &format!("{opened:?} {locations:?} {place:?}");
    let mut writer = place.writer();
    let written = async {
        writer.write(vec![1; 100]).await?;
        writer.finish().await
    };
    for error in [
        opened
            .put_once(
                "open/x",
                &model::CancelFact {
                    schema: 1,
                    nonce: model::Nonce::from_bits(1),
                    requested_at: jiff::Timestamp::UNIX_EPOCH,
                },
            )
            .await
            .map(drop)
            .map_err(|error| format!("{error} {error:?}")),
        opened.get_range("x", 0..1).await.map(drop).map_err(|error| format!("{error} {error:?}")),
        opened.list("jobs/").await.map(drop).map_err(|error| format!("{error} {error:?}")),
        place.read(&[0..5, 7..9], "\"e\"").await.map(drop).map_err(|error| format!("{error} {error:?}")),
        place.head().await.map(drop).map_err(|error| format!("{error} {error:?}")),
        written.await.map(drop).map_err(|error| format!("{error} {error:?}")),
    ] {
        let error = error.unwrap_err();
        tracing::error!(error, "as a room would log it");
        said += &error;
    }
    assert!(server.was_repeated(S3_ID) && server.was_repeated(S3_TOKEN), "the server had nothing to repeat");
    said
}

/// A broker that is not there, with a password.
async fn kafka() -> String {
    let properties = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "u"),
        ("sasl.password", SASL),
        ("debug", "security,broker"),
    ];
    let settings = KafkaSettings {
        brokers: "127.0.0.1:1".to_owned(),
        request_timeout: std::time::Duration::from_millis(300),
        delivery_timeout: std::time::Duration::from_millis(300),
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..KafkaSettings::default()
    };
    let bus = Bus::kafka(settings.clone()).unwrap();
    let error = bus.probe().await.unwrap_err();
    let wrong = [("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.password", SASL), ("no.such.property", SASL)];
    let wrong =
        Bus::kafka(KafkaSettings { properties: wrong.map(|(n, v)| (n.to_owned(), v.to_owned())).into(), ..settings });
    let wrong = match wrong {
        Err(error) => format!("{error} {error:?}"),
        Ok(bus) => format!("{:?}", bus.consumer("g", &["t".to_owned()]).map(drop)),
    };
    format!("{bus:?} {error} {error:?} {wrong}")
}

/// All secrets in the environment, some by files; what the settings show of themselves.
fn settings() -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{S3_KEY}\n")).unwrap();
    let env = [
        ("BATCHMILL__PROVIDERS__OPENAI__KIND", "openai"),
        ("BATCHMILL__PROVIDERS__OPENAI__API_KEY", API_KEY),
        ("BATCHMILL__STORE__ACCESS_KEY_ID", S3_ID),
        ("BATCHMILL__STORE__SECRET_ACCESS_KEY_FILE", file.to_str().unwrap()),
        ("BATCHMILL__STORE__SESSION_TOKEN", S3_TOKEN),
        ("BATCHMILL__KAFKA__PROPERTIES__SASL_PASSWORD", SASL),
        ("BATCHMILL__TRACING__OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("BATCHMILL__TRACING__OTLP_HEADERS", &format!("authorization=Bearer {OTLP}")),
    ];
    let load = |more: &[(&str, &str)], flags: &[(&str, &str)]| {
        let owned =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
        Settings::load(None, owned(&[&env, more].concat()).into_iter(), &owned(flags))
    };
    let mut settings = load(&[], &[]).unwrap();
    let common = Common::declare(&mut settings).unwrap();
    let providers = settings.section::<providers::ProviderMap>("providers").unwrap();
    assert_eq!(common.store.secret_access_key.as_ref().unwrap().expose(), S3_KEY, "the file's value is taken");
    let shown: Vec<String> = settings
        .show()
        .into_iter()
        .map(|shown| format!("{} = {} # {}", shown.key, shown.value, shown.origin))
        .collect();
    let mut said = format!("{} {settings:?} {common:?} {providers:?}", shown.join("\n"));
    for name in ["api_key", "secret_access_key", "access_key_id", "session_token", "sasl.password", "otlp_headers"] {
        assert!(
            shown.iter().any(|line| line.contains(name) && line.contains("***")),
            "{name} is not shown as hidden: {shown:#?}"
        );
    }
    // What goes wrong around a secret must not show it either.
    for (more, flags) in [
        (&[("BATCHMILL__STORE__SECRET_ACCESS_KEY", S3_KEY)][..], &[][..]),
        (&[], &[("store.secret_access_key", S3_KEY)]),
        (&[("BATCHMILL__STORE__SECRET_ACCESS_KEYS", S3_KEY)], &[]),
        (&[("BATCHMILL__STORE__SECRET_ACCESS_KEY__X", S3_KEY)], &[]),
        (&[("BATCHMILL__PROVIDERS__OPENAI__API_KEYS", API_KEY)], &[]),
        (&[], &[("tracing.otlp_headers", OTLP)]),
    ] {
        let error = load(more, flags).and_then(|mut settings| {
            Common::declare(&mut settings)?;
            settings.section::<providers::ProviderMap>("providers")
        });
        let error = error.expect_err("it is wrong");
        said += &format!("{error} {error:?}");
    }
    said
}

/// All records of all topics, dead letters included: topic, key with headers, value.
async fn records(world: &World) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    for word in ["jobs", "batches", "retries", "submissions", "results", "status"] {
        let topic = format!("batchmill.{word}.v1");
        for topic in std::iter::once(topic.clone())
            .chain(["splitter", "dispatcher", "poller", "merger"].map(|room| format!("dlq.batchmill-{room}.{topic}")))
        {
            let left = world.context.bus.lag("canary", &topic).await.unwrap().exact;
            let mut consumer = world.context.bus.consumer("canary", std::slice::from_ref(&topic)).unwrap();
            let mut count = 0;
            while count < left {
                if let Polled::Record(record, _) = consumer.next().await.unwrap() {
                    let headers = record
                        .headers
                        .iter()
                        .flat_map(|(name, value)| [name.as_bytes(), value])
                        .collect::<Vec<_>>()
                        .concat();
                    let head = [record.key.as_deref().unwrap_or_default(), &headers].concat();
                    found.push((topic.clone(), head, record.value.unwrap_or_default().to_vec()));
                    count += 1;
                }
            }
        }
    }
    found
}

#[tokio::test]
async fn no_secret_and_no_prompt_shows_up_where_it_does_not_belong() {
    let logs = Logs::start();
    let server = Server::start(API_KEY).await;
    // Under the paused clock, which runs ahead while the network works, no time-out may be near.
    let patient = ProviderSettings {
        api_key: Some(API_KEY.into()),
        connect_timeout_ms: 1 << 40,
        request_timeout_ms: 1 << 40,
        ..ProviderSettings::simulator(server.provider())
    };
    let provider = providers::open("sim", &patient).unwrap();
    let mut said = vec![("settings", settings()), ("S3", s3(&server).await), ("Kafka", kafka().await)];
    said.push((
        "provider",
        format!("{:?}", Providers::of_map(BTreeMap::from([("sim".to_owned(), Arc::clone(&provider))]))),
    ));
    tokio::time::pause();
    let world = World::of(&Providers::of_map(BTreeMap::from([("sim".to_owned(), provider)])), &[]).await;
    // A group that has joined keeps the memory bus from dropping what the rooms have finished.
    for word in ["jobs", "batches", "retries", "submissions", "results", "status"] {
        drop(world.context.bus.consumer("canary", &[format!("batchmill.{word}.v1")]).unwrap());
    }
    jobs(&world).await;
    let poison = poison(&world).await;
    assert!(server.was_repeated(API_KEY), "the provider had no key to repeat");
    said.push(("metrics", TextEncoder::new().encode_to_string(&world.context.registry.gather()).unwrap()));
    said.push(("logs", logs.text()));
    assert!(
        logs.text().contains("TRACE") && logs.text().contains("dispatcher") && logs.text().contains("hyper"),
        "nothing was logged"
    );
    let records = records(&world).await;
    assert!(
        records.iter().any(|(topic, ..)| topic.starts_with("dlq."))
            && records.iter().any(|(topic, ..)| topic.contains("results"))
    );
    let mut found = Vec::new();
    for (place, text) in &said {
        for canary in SECRETS.iter().chain(&[CELL, TEMPLATE, SYSTEM]) {
            found.extend(
                lines_with(text, canary).into_iter().take(3).map(|line| format!("{canary} in {place}: {line}")),
            );
        }
    }
    for (topic, head, value) in &records {
        for canary in SECRETS.iter().chain(&[CELL]) {
            if is_in(head, canary) || is_in(value, canary) {
                found.push(format!("{canary} in a record of {topic}"));
            }
        }
        for canary in [TEMPLATE, SYSTEM] {
            // The spec itself travels on the jobs topics, and a dead letter is the record as it was.
            let may = topic == JOBS || poison.iter().any(|sent| sent.as_bytes() == value);
            if is_in(head, canary) || (is_in(value, canary) && !may) {
                found.push(format!("{canary} in a record of {topic}"));
            }
        }
    }
    for listed in world.context.store.list("").await.unwrap() {
        let bytes = world.context.store.get_range(&listed.key, 0..listed.bytes).await.unwrap();
        let has_spec = listed.key.starts_with("open/") || listed.key.ends_with("0-job.json");
        let is_data = listed.key.ends_with(".parquet");
        for canary in SECRETS {
            if is_in(&bytes, canary) {
                found.push(format!("{canary} in {}", listed.key));
            }
        }
        for canary in [CELL, TEMPLATE, SYSTEM] {
            let may = is_data || (has_spec && canary != CELL);
            if is_in(&bytes, canary) && !may {
                found.push(format!("{canary} in {}: {}", listed.key, String::from_utf8_lossy(&bytes)));
            }
        }
    }
    for id in ["rejected", "answered"] {
        let output = world.get(&format!("s3://lake/out/{id}.csv")).await.unwrap();
        assert!(
            is_in(&output, CELL) && is_in(&output, "[key]"),
            "the output has its cells, and the words without the key"
        );
        if SECRETS.iter().any(|canary| is_in(&output, canary)) {
            found.push(format!("a secret in the output: {}", String::from_utf8_lossy(&output)));
        }
    }
    world.stop().await;
    assert!(found.is_empty(), "{}", found.join("\n"));
}
