//! The contracts under `schemas/`: committed schemas are what the types say, frozen examples still read, and the
//! document of the topics agrees with the code.
//!
//! `BATCHMILL_BLESS=1 cargo test -p events` writes the schemas anew, and examples that are not there yet. An example that
//! exists is never touched: it is what a released version wrote, and a reader must go on reading it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)] // helpers of tests

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use events::{
    BatchCollected, BatchDispatched, BatchReady, Envelope, Event, JobCancelRequested, JobEnded, JobPlanned,
    JobSubmitted, Kind, Mode, Topic, Topics, decode, encode,
};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

/// Whether the files are written instead of compared.
fn blessing() -> bool {
    std::env::var_os("BATCHMILL_BLESS").is_some()
}

fn read(path: &str) -> Value {
    let text = std::fs::read(folder().join(path)).unwrap_or_else(|error| panic!("schemas/{path}: {error}"));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("schemas/{path}: {error}"))
}

fn write(path: &str, document: &Value) {
    let file = folder().join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, serde_json::to_string_pretty(document).unwrap() + "\n").unwrap();
}

/// A type's schema under its public address.
fn schema<T: JsonSchema>(path: &str) -> (String, Value) {
    let mut schema = schemars::schema_for!(T);
    schema.insert("$id".to_owned(), format!("https://schemas.batchmill.io/{path}").into());
    (path.to_owned(), schema.to_value())
}

fn event_schema(kind: Kind) -> (String, Value) {
    let path = format!("events/{kind}.json");
    match kind {
        Kind::JobSubmitted => schema::<JobSubmitted>(&path),
        Kind::JobCancelRequested => schema::<JobCancelRequested>(&path),
        Kind::JobPlanned => schema::<JobPlanned>(&path),
        Kind::BatchReady => schema::<BatchReady>(&path),
        Kind::BatchDispatched => schema::<BatchDispatched>(&path),
        Kind::BatchCollected => schema::<BatchCollected>(&path),
        Kind::JobEnded => schema::<JobEnded>(&path),
    }
}

/// Every generated schema with its path under `schemas/`.
fn schemas() -> Vec<(String, Value)> {
    let facts = [
        schema::<model::OpenJob>("facts/open.v1.json"),
        schema::<model::JobFact>("facts/job.v1.json"),
        schema::<model::PlanFact>("facts/plan.v1.json"),
        schema::<model::SubmissionEntry>("facts/submission.v1.json"),
        schema::<model::ResultFact>("facts/result.v1.json"),
        schema::<model::CancelFact>("facts/cancel.v1.json"),
        schema::<model::EndFact>("facts/end.v1.json"),
        schema::<model::OutputClaim>("facts/output.v1.json"),
    ];
    let job = schema::<model::JobSpec>("job.v1.json");
    Kind::ALL.iter().map(|kind| event_schema(*kind)).chain(facts).chain([job]).collect()
}

#[test]
fn the_committed_schemas_are_what_the_types_say() {
    for (path, generated) in schemas() {
        if blessing() {
            write(&path, &generated);
        }
        assert_eq!(
            read(&path),
            generated,
            "schemas/{path} is not what the types say: BATCHMILL_BLESS=1 cargo test -p events"
        );
    }
}

#[test]
fn every_schema_is_a_valid_schema_of_draft_2020_12() {
    for (path, schema) in schemas() {
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{path}");
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    for kind in Kind::ALL {
        assert_eq!(event_schema(*kind).1["$id"], kind.schema_id());
    }
}

fn batch(attempt: u32) -> Value {
    json!({
        "number": 7, "attempt": attempt, "nonce": "9f8e7d6c5b4a3210", "first_row": 300_000,
        "data": {
            "key": format!("jobs/spring-catalog/1-batches/00000007-a{attempt}-9f8e7d6c5b4a3210.parquet"),
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "bytes": 5_242_880, "rows": 50_000,
        },
        "send_rows": 49_998, "send_bytes": 12_345_678,
    })
}

/// The same batch as it is written since data objects are checked with BLAKE3.
fn summed_by_blake3() -> Value {
    let mut batch = batch(1);
    let data = batch["data"].as_object_mut().unwrap();
    data.remove("sha256");
    let abc = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
    data.insert("blake3".to_owned(), abc.into());
    batch
}

/// The examples: file name, kind, topic, record key, data.
fn examples() -> Vec<(&'static str, Kind, Topic, &'static str, Value)> {
    let tokens = json!({"input": 1_200_000, "cached": 200_000, "output": 900_000, "reasoning": 0});
    let counts = json!({"rows": 300_000, "answered": 299_990, "failed": {"invalid_request": 3, "refused": 7}});
    let zero = json!({"input": 0, "cached": 0, "output": 0, "reasoning": 0});
    let (job, key) = ("spring-catalog", "spring-catalog/00000007");
    let ended = |more: Value| {
        let mut data = json!({"job": job, "team": "default", "ended_at": "2026-11-23T08:30:00.123456789Z"});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    vec![
        (
            "job.submitted.v1",
            Kind::JobSubmitted,
            Topic::Jobs,
            job,
            json!({
                "id": job,
                "input": {"uri": "s3://lake/in/products.csv", "format": "csv", "delimiter": ";"},
                "output": {"uri": "s3://lake/out/products.csv", "overwrite": true},
                "request": {
                    "model": "openai/gpt-4o-mini", "system": "You write product copy.",
                    "template": "Describe {{ title }} in 20 words.", "params": {"max_tokens": 60, "temperature": 0},
                },
                "batch": {"max_rows": 50_000, "max_bytes": 200_000_000},
                "response_column": "response", "details": false, "on_bad_row": "fail_job",
                "retry": {"expired": "deadline", "refused": 1},
            }),
        ),
        ("job.cancel_requested.v1", Kind::JobCancelRequested, Topic::Jobs, job, json!({"job": job})),
        (
            "job.planned.v1",
            Kind::JobPlanned,
            Topic::Results,
            job,
            json!({"job": job, "outcome": "planned", "rows": 300_000, "batches": 6}),
        ),
        (
            "job.planned.v1-refused",
            Kind::JobPlanned,
            Topic::Results,
            job,
            json!({"job": job, "outcome": "refused", "code": "unknown_column"}),
        ),
        ("batch.ready.v1", Kind::BatchReady, Topic::Batches, key, json!({"job": job, "batch": batch(1)})),
        ("batch.ready.v1-retry", Kind::BatchReady, Topic::Retries, key, json!({"job": job, "batch": batch(2)})),
        (
            "batch.dispatched.v1",
            Kind::BatchDispatched,
            Topic::Submissions,
            key,
            json!({
                "job": job, "batch": batch(1), "submission": {"outcome": "submitted", "provider_batch": "batch_abc123"},
            }),
        ),
        (
            "batch.dispatched.v1-unsent",
            Kind::BatchDispatched,
            Topic::Submissions,
            key,
            json!({
                "job": job, "batch": batch(1), "submission": {"outcome": "unsent"},
            }),
        ),
        (
            "batch.collected.v1",
            Kind::BatchCollected,
            Topic::Results,
            job,
            json!({
                "job": job, "batch": {"number": 7, "attempt": 1}, "last": false,
                "counts": {"rows": 50_000, "answered": 49_000, "failed": {"refused": 2}, "retried": 998},
            }),
        ),
        (
            "job.ended.v1",
            Kind::JobEnded,
            Topic::Status,
            job,
            ended(json!({"counts": counts, "tokens": tokens, "output": "s3://lake/out/products.csv"})),
        ),
        (
            "job.ended.v1-cost",
            Kind::JobEnded,
            Topic::Status,
            job,
            ended(json!({
                "counts": counts, "tokens": tokens, "output": "s3://lake/out/products.csv",
                "cost": {
                    "total": "0.36", "input": "0.075", "cached_input": "0.015", "output": "0.27", "realtime": "0.705",
                    "unmetered": 2, "entry": "openai/gpt-4o-mini", "as_of": "2026-06-21",
                },
            })),
        ),
        (
            "job.ended.v1-refused",
            Kind::JobEnded,
            Topic::Status,
            job,
            ended(json!({
                "counts": {"rows": 0, "answered": 0}, "tokens": zero,
                "refusal": {"code": "unknown_column", "message": "the template names the column \"titel\"; the input has: sku, title"},
            })),
        ),
        (
            "batch.ready.v1-blake3",
            Kind::BatchReady,
            Topic::Batches,
            key,
            json!({"job": job, "batch": summed_by_blake3()}),
        ),
    ]
}

fn example_document(kind: Kind, key: &str, data: &Value) -> Value {
    json!({
        "headers": {
            "content-type": "application/json", "ce_specversion": "1.0", "ce_id": "018f4e9a-7d43-7cc2-a5a1-1f0b6c8d9e10",
            "ce_source": "/batchmill/example", "ce_type": kind.ce_type(), "ce_subject": "spring-catalog",
            "ce_time": "2026-11-22T08:30:00.5Z", "ce_dataschema": kind.schema_id(), "ce_partitionkey": key,
        },
        "key": key,
        "data": data,
    })
}

/// Decodes an example's parts as a record.
fn decode_example(topic: Topic, document: &Value) -> events::Decoded {
    let headers: Vec<(&String, &str)> =
        document["headers"].as_object().unwrap().iter().map(|(n, v)| (n, v.as_str().unwrap())).collect();
    let value = serde_json::to_vec(&document["data"]).unwrap();
    decode(topic, document["key"].as_str().map(str::as_bytes), &headers, Some(&value)).unwrap()
}

#[test]
fn every_frozen_example_is_pinned_decodes_and_encodes_again_to_itself() {
    for (name, kind, topic, key, data) in examples() {
        let path = format!("examples/{name}.json");
        let pinned = example_document(kind, key, &data);
        if blessing() && !folder().join(&path).exists() {
            write(&path, &pinned);
        }
        let document = read(&path);
        assert_eq!(document, pinned, "schemas/{path} is frozen");
        let decoded = decode_example(topic, &document);
        assert_eq!((decoded.event.kind(), decoded.event.topic(), decoded.mode), (kind, topic, Mode::Binary), "{name}");
        let encoded = encode(&decoded.event, &decoded.envelope.unwrap()).unwrap();
        assert_eq!(encoded.key, key.as_bytes(), "{name}");
        assert_eq!(serde_json::from_slice::<Value>(&encoded.value).unwrap(), data, "{name}");
        let headers: serde_json::Map<String, Value> =
            encoded.headers.into_iter().map(|(n, v)| (n, String::from_utf8(v).unwrap().into())).collect();
        assert_eq!(Value::Object(headers), document["headers"], "{name}");
    }
}

#[test]
fn every_example_file_is_known_and_every_kind_has_one() {
    let names: BTreeSet<String> = examples().iter().map(|(name, ..)| format!("{name}.json")).collect();
    // While they are written, another test is at the folder.
    if !blessing() {
        let entries = std::fs::read_dir(folder().join("examples")).unwrap();
        let files: BTreeSet<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(files, names);
    }
    for kind in Kind::ALL {
        assert!(names.contains(&format!("{kind}.json")), "{kind}");
    }
}

#[test]
fn an_example_means_what_it_says() {
    let events: Vec<Event> = examples()
        .iter()
        .map(|(_, kind, topic, key, data)| decode_example(*topic, &example_document(*kind, key, data)).event)
        .collect();
    let Event::BatchDispatched(dispatched) = &events[6] else { panic!("{:?}", events[6]) };
    assert_eq!(dispatched.batch.id.to_string(), "00000007-a1");
    assert_eq!(dispatched.submission, events::Submission::Submitted { provider_batch: "batch_abc123".to_owned() });
    let Event::BatchCollected(collected) = &events[8] else { panic!("{:?}", events[8]) };
    assert!(collected.counts.is_conserved() && !collected.last);
    let Event::JobEnded(ended) = &events[9] else { panic!("{:?}", events[9]) };
    assert_eq!((ended.counts.failed_rows(), ended.tokens.output, &ended.cost), (10, 900_000, &None));
    let Event::JobEnded(ended) = &events[10] else { panic!("{:?}", events[10]) };
    let cost = ended.cost.clone().unwrap().cost;
    assert_eq!(cost.total, cost.input + cost.cached_input + cost.output);
    assert_eq!(cost.saved().unwrap().to_string(), "0.345");
    let Event::JobPlanned(planned) = &events[3] else { panic!("{:?}", events[3]) };
    assert_eq!(planned.outcome, events::PlanSummary::Refused { code: model::RefusalCode::UnknownColumn });
}

#[test]
fn every_example_fits_its_schema_and_damage_does_not() {
    for (name, kind, _, _, data) in examples() {
        let validator = jsonschema::validator_for(&event_schema(kind).1).unwrap();
        assert!(validator.is_valid(&data), "{name}");
        for field in
            data.as_object().unwrap().keys().filter(|field| ["job", "id", "batch", "outcome"].contains(&field.as_str()))
        {
            let mut damaged = data.clone();
            damaged[field] = json!(["damaged"]);
            assert!(!validator.is_valid(&damaged), "{name} {field}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_event_fits_its_schema(events in proptest::collection::vec(common::event(), 7)) {
        for event in events {
            // Limits are checked by `validate`, not by the reader: the schema is stricter there.
            if event.kind() == Kind::JobSubmitted {
                continue;
            }
            let value = encode(&event, &Envelope::new("1", "/x", jiff::Timestamp::UNIX_EPOCH)).unwrap().value;
            let validator = jsonschema::validator_for(&event_schema(event.kind()).1).unwrap();
            let data: Value = serde_json::from_slice(&value).unwrap();
            prop_assert!(validator.is_valid(&data), "{}", data);
        }
    }

    #[test]
    fn every_job_spec_within_its_limits_fits_its_schema(mut spec in common::spec()) {
        spec.batch = model::spec::BatchLimits::default();
        let validator = jsonschema::validator_for(&event_schema(Kind::JobSubmitted).1).unwrap();
        let data = serde_json::to_value(&spec).unwrap();
        prop_assert!(validator.is_valid(&data), "{}", data);
    }
}

#[test]
fn topics_and_keys_are_these() {
    let table: Vec<String> = examples()
        .iter()
        .map(|(name, kind, topic, key, data)| {
            let event = decode_example(*topic, &example_document(*kind, key, data)).event;
            format!("{name} {} {} {}", event.kind().ce_type(), Topics::default().name(event.topic()), event.key())
        })
        .collect();
    assert_eq!(
        table,
        [
            "job.submitted.v1 io.batchmill.job.submitted.v1 batchmill.jobs.v1 spring-catalog",
            "job.cancel_requested.v1 io.batchmill.job.cancel_requested.v1 batchmill.jobs.v1 spring-catalog",
            "job.planned.v1 io.batchmill.job.planned.v1 batchmill.results.v1 spring-catalog",
            "job.planned.v1-refused io.batchmill.job.planned.v1 batchmill.results.v1 spring-catalog",
            "batch.ready.v1 io.batchmill.batch.ready.v1 batchmill.batches.v1 spring-catalog/00000007",
            "batch.ready.v1-retry io.batchmill.batch.ready.v1 batchmill.retries.v1 spring-catalog/00000007",
            "batch.dispatched.v1 io.batchmill.batch.dispatched.v1 batchmill.submissions.v1 spring-catalog/00000007",
            "batch.dispatched.v1-unsent io.batchmill.batch.dispatched.v1 batchmill.submissions.v1 spring-catalog/00000007",
            "batch.collected.v1 io.batchmill.batch.collected.v1 batchmill.results.v1 spring-catalog",
            "job.ended.v1 io.batchmill.job.ended.v1 batchmill.status.v1 spring-catalog",
            "job.ended.v1-cost io.batchmill.job.ended.v1 batchmill.status.v1 spring-catalog",
            "job.ended.v1-refused io.batchmill.job.ended.v1 batchmill.status.v1 spring-catalog",
            "batch.ready.v1-blake3 io.batchmill.batch.ready.v1 batchmill.batches.v1 spring-catalog/00000007",
        ]
    );
}

/// The lines of one channel in the document: from its name to the next name at the same depth.
fn channel<'a>(document: &'a str, name: &str) -> Vec<&'a str> {
    let heading = format!("  {name}:");
    let body = document.lines().skip_while(|line| **line != *heading).skip(1);
    body.take_while(|line| line.starts_with("    ") || line.is_empty()).map(str::trim).collect()
}

#[test]
fn the_topic_document_agrees_with_the_code() {
    let document = std::fs::read_to_string(folder().join("asyncapi.yaml")).unwrap();
    for topic in Topic::ALL {
        let lines = channel(&document, topic.word());
        let says = |text: String| {
            assert!(lines.contains(&text.as_str()), "{topic}: asyncapi.yaml lacks {text:?} in {lines:#?}")
        };
        says(format!("address: {}", Topics::default().name(*topic)));
        says(format!("partitions: {}", topic.settings().partitions));
        for (name, value) in topic.settings().config() {
            says(if name == "cleanup.policy" {
                format!("cleanup.policy: [{value}]")
            } else {
                format!("{name}: {value}")
            });
        }
        let messages: Vec<&str> =
            lines.iter().filter_map(|line| line.strip_prefix("$ref: '#/components/messages/")).collect();
        let expected: Vec<String> = topic.kinds().iter().map(|kind| format!("{}'", message_name(*kind))).collect();
        assert_eq!(messages, expected, "{topic}");
    }
    assert!(channel(&document, "teamJobs").contains(&"address: batchmill.jobs.{team}.v1"));
    assert!(channel(&document, "deadLetters").contains(&"address: dlq.{group}.{topic}"));
    for kind in Kind::ALL {
        for text in [
            format!("name: {}", kind.ce_type()),
            format!("$ref: ./events/{kind}.json"),
            format!("const: {}", kind.schema_id()),
        ] {
            assert!(document.lines().any(|line| line.trim() == text), "asyncapi.yaml lacks {text:?}");
        }
    }
}

/// `batch.ready.v1` as the document names its message: `batchReady`.
fn message_name(kind: Kind) -> String {
    let mut words = kind.name().trim_end_matches(".v1").split(['.', '_']);
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| format!("{name}{}{}", word[..1].to_uppercase(), &word[1..]))
}

#[test]
fn the_column_documents_are_complete() {
    let batch = ["_row", "_error_kind", "_error", "_tries"];
    let result = [
        "_row",
        "response",
        "error",
        "status",
        "error_kind",
        "finish_reason",
        "model",
        "input_tokens",
        "cached_tokens",
        "output_tokens",
        "reasoning_tokens",
        "tries",
    ];
    for (path, expected) in [("tables/batch.v1.json", &batch[..]), ("tables/result.v1.json", &result[..])] {
        let document = read(path);
        let columns = document["columns"].as_array().unwrap();
        let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{path}");
        for column in columns {
            assert!(
                column["type"].is_string() && column["nullable"].is_boolean() && column["description"].is_string(),
                "{path} {column}"
            );
        }
    }
}
