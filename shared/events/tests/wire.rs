//! The wire contract from outside: three modes in, one mode out, and nothing that panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)] // helpers of tests

mod common;

use events::{
    Decoded, Encoded, Envelope, Error, Event, Kind, MAX_MESSAGE_BYTES, Mode, Poison, Topic, TraceContext, decode,
    encode,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

const SPEC: &str = r#"{"id":"spring-catalog","input":{"uri":"s3://lake/in/products.csv"},"output":{"uri":"s3://lake/out/products.csv"},
"request":{"model":"openai/gpt-4o-mini","template":"Describe {{ title }} in 20 words."}}"#;
const CANCEL: &[u8] = br#"{"job":"spring-catalog"}"#;
const NONE: &[(&str, &str)] = &[];
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn read(encoded: &Encoded, topic: Topic) -> Result<Decoded, Poison> {
    decode(topic, Some(&encoded.key), &encoded.headers, Some(&encoded.value))
}

fn headers(ce_type: &str) -> Vec<(&str, &str)> {
    vec![("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/acme"), ("ce_type", ce_type)]
}

fn cancel_headers() -> Vec<(&'static str, &'static str)> {
    headers("io.batchmill.job.cancel_requested.v1")
}

fn code(topic: Topic, headers: &[(&str, &str)], value: &[u8]) -> &'static str {
    decode(topic, Some(b"spring-catalog"), headers, Some(value)).unwrap_err().code()
}

#[test]
fn a_plain_job_spec_is_a_job_on_the_jobs_topics_alone() {
    let decoded = decode(Topic::Jobs, None, NONE, Some(SPEC.as_bytes())).unwrap();
    assert_eq!((decoded.mode, decoded.envelope, decoded.event.kind()), (Mode::Plain, None, Kind::JobSubmitted));
    let typed = [("Content-Type", "application/json")];
    assert_eq!(decode(Topic::Jobs, None, &typed, Some(SPEC.as_bytes())).unwrap().mode, Mode::Plain);
    for topic in Topic::ALL.iter().filter(|topic| **topic != Topic::Jobs) {
        assert_eq!(code(*topic, NONE, SPEC.as_bytes()), "not_cloudevent");
    }
}

#[test]
fn a_structured_message_is_read_and_its_unknown_attributes_are_ignored() {
    let message = json!({
        "specversion": "1.0", "id": "1", "source": "/acme", "type": "io.batchmill.job.cancel_requested.v1",
        "time": "2026-11-22T08:30:00+01:00", "datacontenttype": "application/json; charset=utf-8", "acmeshard": 7,
        "data": {"job": "spring-catalog", "reason": "a field of a later minor version"},
    });
    for content_type in
        ["application/cloudevents+json; charset=UTF-8", "Application/CloudEvents+JSON", "application/cloudevents"]
    {
        let headers = [("Content-Type", content_type)];
        let decoded = decode(Topic::Jobs, None, &headers, Some(message.to_string().as_bytes())).unwrap();
        assert_eq!((decoded.mode, decoded.event.kind()), (Mode::Structured, Kind::JobCancelRequested));
        let envelope = decoded.envelope.unwrap();
        assert_eq!((envelope.id.as_str(), envelope.source.as_str()), ("1", "/acme"));
        assert_eq!(envelope.time.unwrap().to_string(), "2026-11-22T07:30:00Z");
    }
}

#[test]
fn a_binary_message_is_read_with_either_prefix_in_any_case() {
    for prefix in ["ce_", "ce-", "CE_"] {
        let headers: Vec<(String, &str)> =
            cancel_headers().into_iter().map(|(name, value)| (name.replace("ce_", prefix), value)).collect();
        let decoded = decode(Topic::Jobs, Some(b"any"), &headers, Some(CANCEL)).unwrap();
        assert_eq!((decoded.mode, decoded.event.job().as_str()), (Mode::Binary, "spring-catalog"));
    }
}

#[test]
fn each_poison_has_its_code() {
    let with = |name: &'static str, value: &'static str| {
        let mut list = cancel_headers();
        list.push((name, value));
        list
    };
    let structured = [("content-type", "application/cloudevents+json")];
    let big = vec![b' '; MAX_MESSAGE_BYTES + 1];
    type Case<'a> = (Topic, Vec<(&'a str, &'a str)>, &'a [u8], &'a str);
    let cases: &[Case<'_>] = &[
        (Topic::Jobs, vec![], &big, "too_large"),
        (Topic::Jobs, vec![], b"", "not_json"),
        (Topic::Jobs, vec![], b"{\"id\":", "not_json"),
        (Topic::Jobs, vec![], b"\xff", "not_json"),
        (Topic::Jobs, vec![], b"{\"id\":\"a\"}", "invalid_data"),
        (Topic::Jobs, with("ce_specversion", "2.0"), CANCEL, "unsupported_specversion"),
        (Topic::Jobs, vec![("ce_id", "1")], CANCEL, "unsupported_specversion"),
        (Topic::Jobs, with("ce_id", ""), CANCEL, "missing_attribute"),
        (Topic::Jobs, with("ce_time", "yesterday"), CANCEL, "invalid_attribute"),
        (Topic::Jobs, with("content-type", "application/avro"), CANCEL, "unsupported_content_type"),
        (Topic::Jobs, with("ce_type", "io.batchmill.batch.ready.v2"), CANCEL, "unknown_type"),
        (Topic::Jobs, with("ce_type", "io.batchmill.batch.ready.v1"), CANCEL, "wrong_topic"),
        (Topic::Status, cancel_headers(), CANCEL, "wrong_topic"),
        (Topic::Jobs, cancel_headers(), b"{\"job\":\"../etc\"}", "invalid_data"),
        (Topic::Jobs, structured.to_vec(), b"[]", "invalid_attribute"),
        (Topic::Jobs, structured.to_vec(), b"{", "not_json"),
        (Topic::Jobs, structured.to_vec(), br#"{"specversion":1.0}"#, "invalid_attribute"),
        (Topic::Jobs, structured.to_vec(), br#"{"specversion":"1.0"}"#, "missing_attribute"),
        (Topic::Jobs, vec![("content-type", "application/cloudevents-batch+json")], b"[]", "batch_mode"),
        (Topic::Jobs, vec![("content-type", "application/cloudevents+avro")], b"", "unsupported_content_type"),
    ];
    for (topic, headers, value, expected) in cases {
        assert_eq!(code(*topic, headers, value), *expected, "{headers:?} {:?}", value.get(..40));
    }
    let not_text: &[(&str, &[u8])] = &[("ce_id", b"\xff"), ("ce_type", b"x"), ("ce_specversion", b"1.0")];
    let _ = decode(Topic::Jobs, None, not_text, Some(CANCEL)).unwrap_err();
    assert_eq!(decode(Topic::Jobs, Some(b"a"), &cancel_headers(), None), Err(Poison::Tombstone));
}

#[test]
fn a_structured_message_without_data_is_named_so() {
    let message = json!({"specversion": "1.0", "id": "1", "source": "/acme", "type": "io.batchmill.job.cancel_requested.v1", "data": null});
    let headers = [("content-type", "application/cloudevents+json")];
    let error = decode(Topic::Jobs, None, &headers, Some(message.to_string().as_bytes())).unwrap_err();
    assert!(error.to_string().contains("there is no data"), "{error}");
}

#[test]
fn an_error_in_the_data_names_the_field_and_keeps_the_prompt_to_itself() {
    let typo = SPEC.replace("\"template\"", "\"tempalte\"");
    let error = decode(Topic::Jobs, None, NONE, Some(typo.as_bytes())).unwrap_err().to_string();
    assert!(error.contains("request.tempalte: unknown field"), "{error}");
    let wrong = SPEC.replace("\"Describe", "\"x\",\"params\":\"a secret prompt\",\"system\":\"Describe");
    let error = decode(Topic::Jobs, None, NONE, Some(wrong.as_bytes())).unwrap_err().to_string();
    assert!(error.contains("request.params: invalid type: string, expected a map"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn batches_count_from_one() {
    let value = br#"{"job":"a","batch":{"number":0,"attempt":1},"last":true,"counts":{"rows":0,"answered":0}}"#;
    let error =
        decode(Topic::Results, Some(b"a"), &headers("io.batchmill.batch.collected.v1"), Some(value)).unwrap_err();
    assert_eq!(error.code(), "invalid_data");
}

fn of_size(template: usize) -> Event {
    let mut spec: model::JobSpec = serde_json::from_str(SPEC).unwrap();
    spec.id = "x".repeat(64).parse().unwrap();
    spec.request.template = "t".repeat(template);
    events::JobSubmitted { spec }.into()
}

#[test]
fn the_largest_spec_that_is_accepted_fits_a_message_and_a_larger_one_is_refused_on_both_sides() {
    let trace = TraceContext::parse(Some(TRACE), Some(&"x".repeat(512)));
    assert_eq!(trace.as_ref().unwrap().state.as_ref().unwrap().len(), 512);
    let envelope = Envelope {
        trace: trace.clone(),
        origin: trace,
        ..Envelope::new("018f4e9a-7d43-7cc2-a5a1-1f0b6c8d9e10", "/batchmill/command", Timestamp::MAX)
    };
    let overhead = encode(&of_size(0), &envelope).unwrap().value.len();
    let fits = of_size(events::MAX_SPEC_BYTES - overhead);
    let encoded = encode(&fits, &envelope).unwrap();
    assert!(encoded.size() <= MAX_MESSAGE_BYTES, "{}", encoded.size());
    assert_eq!(read(&encoded, Topic::Jobs).unwrap().event, fits);
    let larger = of_size(events::MAX_SPEC_BYTES - overhead + 1);
    assert!(matches!(encode(&larger, &envelope), Err(Error::TooLarge { limit: events::MAX_SPEC_BYTES, .. })));
    let Event::JobSubmitted(submitted) = larger else { panic!("it is a job") };
    let json = serde_json::to_vec(&submitted).unwrap();
    assert_eq!(decode(Topic::Jobs, None, NONE, Some(&json)).unwrap_err().code(), "too_large");
    // The largest text that a valid spec may have leaves room for all else.
    let Event::JobSubmitted(valid) = of_size(56 * 1024) else { panic!("it is a job") };
    assert_eq!(valid.spec.validate(), Ok(()));
    assert!(encode(&valid.into(), &envelope).is_ok());
}

#[test]
fn an_event_that_is_too_large_or_an_envelope_without_an_id_is_refused() {
    let ended = |output: String| {
        let json = json!({"job": "a", "team": "default", "ended_at": "2026-11-22T08:30:00Z", "counts": {"rows": 0, "answered": 0},
            "tokens": {"input": 0, "cached": 0, "output": 0, "reasoning": 0}, "output": output});
        Event::from(serde_json::from_value::<events::JobEnded>(json).unwrap())
    };
    let envelope = Envelope::new("1", "/x", Timestamp::UNIX_EPOCH);
    assert!(encode(&ended(String::new()), &envelope).is_ok());
    assert!(matches!(encode(&ended("x".repeat(MAX_MESSAGE_BYTES)), &envelope), Err(Error::TooLarge { .. })));
    let nameless = Envelope::new("", "/x", Timestamp::UNIX_EPOCH);
    assert!(matches!(encode(&ended(String::new()), &nameless), Err(Error::EmptyAttribute { attribute: "id", .. })));
}

#[test]
fn the_end_of_a_job_refused_with_a_long_message_still_fits() {
    let end = model::EndFact {
        schema: 1,
        nonce: model::Nonce::from_bits(1),
        job: "a".parse().unwrap(),
        team: model::Team::shared(),
        accepted_at: Timestamp::UNIX_EPOCH,
        ended_at: Timestamp::UNIX_EPOCH,
        batches: 0,
        attempts: 0,
        counts: model::Counts::default(),
        tokens: model::Tokens::default(),
        cost: None,
        output: None,
        failed_rows: None,
        refusal: Some(model::Refusal::new(model::RefusalCode::BadRow, "\u{1}ä".repeat(50_000))),
    };
    let event: Event = events::JobEnded::from(&end).into();
    let encoded = encode(&event, &Envelope::new("1", "/x", Timestamp::UNIX_EPOCH)).unwrap();
    assert_eq!(read(&encoded, Topic::Status).unwrap().event, event);
}

#[test]
fn a_producers_trace_is_taken_from_the_header_or_the_attribute_and_one_that_cannot_be_read_is_ignored() {
    let other = TRACE.replace("4bf9", "0000");
    let traces = |more: &[(&'static str, &str)]| {
        let headers: Vec<_> = cancel_headers().into_iter().chain(more.iter().copied()).collect();
        let envelope = decode(Topic::Jobs, None, &headers, Some(CANCEL)).unwrap().envelope.unwrap();
        let text = |trace: Option<TraceContext>| trace.map(|trace| trace.parent.to_string());
        (text(envelope.trace), text(envelope.origin))
    };
    let (one, two) = (Some(TRACE.to_owned()), Some(other.clone()));
    assert_eq!(traces(&[("traceparent", TRACE)]), (one.clone(), one.clone()));
    assert_eq!(traces(&[("ce_traceparent", TRACE), ("traceparent", "x")]), (one.clone(), one.clone()));
    assert_eq!(traces(&[("ce_traceparent", &other), ("traceparent", TRACE)]), (one.clone(), two));
    assert_eq!(traces(&[("ce_traceparent", ""), ("tracestate", "a=1")]), (None, None));
    let sender = TraceContext::of_headers(&[("Traceparent", TRACE), ("tracestate", "a=1")]).unwrap();
    assert_eq!((Some(sender.parent.to_string()), sender.state.as_deref()), (one, Some("a=1")));
}

fn some_headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let names = [
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_time",
        "content-type",
        "traceparent",
        "tracestate",
        "ce_traceparent",
    ];
    let kinds: Vec<String> = Kind::ALL.iter().map(|kind| kind.ce_type().to_owned()).collect();
    let known = ["1.0", "application/json", "application/cloudevents+json", "application/cloudevents-batch+json"]
        .map(str::to_owned);
    let texts: Vec<String> = known.into_iter().chain(kinds).collect();
    let name = prop_oneof![4 => proptest::sample::select(names.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"];
    let value = prop_oneof![
        4 => proptest::sample::select(texts).prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec((name, value), 0..10)
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(event in common::event(), envelope in common::envelope()) {
        let encoded = encode(&event, &envelope).unwrap();
        prop_assert!(encoded.size() <= MAX_MESSAGE_BYTES);
        let decoded = read(&encoded, event.topic()).unwrap();
        prop_assert_eq!(&decoded.event, &event);
        prop_assert_eq!(decoded.envelope.as_ref(), Some(&envelope));
        prop_assert_eq!(decoded.mode, Mode::Binary);
        prop_assert_eq!(encode(&decoded.event, &envelope).unwrap(), encoded);
    }

    #[test]
    fn the_structured_mode_says_the_same_as_the_binary(event in common::event(), envelope in common::envelope()) {
        let encoded = encode(&event, &envelope).unwrap();
        let mut message = serde_json::Map::new();
        let mut headers = vec![("content-type", "application/cloudevents+json".to_owned())];
        for (name, value) in &encoded.headers {
            let text = String::from_utf8(value.clone()).unwrap();
            match name.strip_prefix("ce_") {
                Some(attribute) => { message.insert(attribute.to_owned(), text.into()); }
                None if name.starts_with("trace") => headers.push((name, text)),
                None => {}
            }
        }
        message.insert("data".to_owned(), serde_json::from_slice(&encoded.value).unwrap());
        let value = serde_json::to_vec(&message).unwrap();
        let decoded = decode(event.topic(), Some(&encoded.key), &headers, Some(&value)).unwrap();
        prop_assert_eq!(decoded, Decoded { event, envelope: Some(envelope), mode: Mode::Structured });
    }

    #[test]
    fn an_event_is_taken_from_its_own_topic_under_its_own_key_alone(event in common::event(), envelope in common::envelope()) {
        let encoded = encode(&event, &envelope).unwrap();
        for topic in Topic::ALL.iter().filter(|topic| **topic != event.topic()) {
            prop_assert_eq!(read(&encoded, *topic).unwrap_err().code(), "wrong_topic");
        }
        let elsewhere = decode(event.topic(), Some(b"another/key"), &encoded.headers, Some(&encoded.value));
        prop_assert_eq!(elsewhere.is_ok(), event.topic() == Topic::Jobs);
    }

    #[test]
    fn no_record_makes_the_reader_panic(
        topic in proptest::sample::select(Topic::ALL),
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..10)),
        headers in some_headers(),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100)),
    ) {
        let _ = decode(topic, key.as_deref(), &headers, value.as_deref());
    }

    #[test]
    fn no_damaged_event_makes_the_reader_panic(event in common::event(), headers in some_headers(), at: prop::sample::Index, byte: u8) {
        let mut encoded = encode(&event, &Envelope::new("1", "/x", Timestamp::UNIX_EPOCH)).unwrap();
        let place = at.index(encoded.value.len());
        encoded.value[place] = byte;
        encoded.headers.extend(headers);
        let _ = read(&encoded, event.topic());
    }
}
