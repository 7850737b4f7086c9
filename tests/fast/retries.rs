//! How often each kind of failure is tried again, and what ends it.

use std::time::Duration;

use model::{EndFact, FailureKind, JobSpec, PlanFact, PlanOutcome, ResultFact, keys};
use providers::BatchStatus;
use serde_json::json;
use tables::batch::BatchReader;
use tests::mill::{Life, Mill};
use tests::provider::{OnCreate, Reply, ScriptedProvider};

pub(crate) const IN: &str = "s3://lake/in/products.csv";
pub(crate) const OUT: &str = "s3://lake/out/products.answers.csv";
pub(crate) const FAILED: &str = "s3://lake/out/products.answers.failed.csv";
pub(crate) const ONE_ROW: &[u8] = b"id,title\n1,a\n";

pub(crate) fn spec_with(more: serde_json::Value) -> JobSpec {
    let mut spec = json!({
        "id": "job", "input": {"uri": IN}, "output": {"uri": OUT},
        "request": {"model": "sim/echo", "template": "{{ title }}"},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

pub(crate) async fn run(provider: ScriptedProvider, spec: &JobSpec, input: &[u8]) -> (Mill, EndFact) {
    let mill = Mill::new(provider).unwrap();
    let end = run_in(&mill, spec, input).await;
    (mill, end)
}

pub(crate) async fn run_in(mill: &Mill, spec: &JobSpec, input: &[u8]) -> EndFact {
    mill.put(&spec.input.uri, input).await.unwrap();
    mill.open(spec).await.unwrap();
    mill.live(&spec.id).await.unwrap()
}

pub(crate) async fn text(mill: &Mill, uri: &str) -> String {
    String::from_utf8(mill.get(uri).await.unwrap()).unwrap()
}

async fn plan(mill: &Mill, job: &JobSpec) -> PlanFact {
    mill.store().get_json(&keys::plan(&job.id)).await.unwrap().unwrap()
}

/// A body that says nothing but this of its one choice.
fn choice(message: serde_json::Value, finish_reason: &str) -> Reply {
    Reply::Body(json!({"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}))
}

/// A provider that always says the same.
fn always(reply: Reply, status: BatchStatus) -> ScriptedProvider {
    ScriptedProvider::new(Box::new(move |_, _| reply.clone())).ending_as(status)
}

/// Kinds that a row can fail with at a provider, how, and how often they are tried again unless someone says otherwise.
fn kinds() -> Vec<(FailureKind, Reply, BatchStatus, u32)> {
    use BatchStatus::{Completed, Failed};
    use FailureKind as K;
    let error = |code: &str| Reply::Body(json!({"error": {"code": code, "message": "scripted"}}));
    vec![
        (K::ServerError, Reply::Status(500), Completed, 5),
        (K::Timeout, Reply::Status(504), Completed, 5),
        (K::Timeout, Reply::NotRun("request_timeout"), Completed, 5),
        (K::Missing, Reply::Nothing, Completed, 5),
        (K::Malformed, error("who_knows"), Completed, 5),
        (K::Malformed, Reply::Body(json!({"choices": []})), Completed, 5),
        (K::BatchFailed, Reply::Nothing, Failed, 5),
        (K::Refused, choice(json!({"refusal": "no"}), "stop"), Completed, 2),
        (K::InvalidRequest, Reply::Status(400), Completed, 0),
        (K::ContextTooLong, Reply::Status(413), Completed, 0),
        (K::Truncated, choice(json!({}), "length"), Completed, 0),
        (K::InvalidImage, Reply::NotRun("invalid_image_url"), Completed, 0),
    ]
}

#[tokio::test(start_paused = true)]
async fn each_kind_is_tried_again_as_often_as_its_limit_says_and_no_oftener() {
    for (kind, reply, status, default) in kinds() {
        for limit in [None, Some(0), Some(1), Some(3)] {
            let changes = limit.map_or(json!({}), |limit| json!({"retry": {kind.as_str(): limit}}));
            let (mill, end) = run(always(reply.clone(), status), &spec_with(changes), ONE_ROW).await;
            let what = format!("{kind} by {reply:?}, limit {limit:?}");
            assert_eq!(end.counts.failed.get(&kind), Some(&1), "{what}: {:?}", end.counts);
            let sent = 1 + limit.unwrap_or(default);
            assert_eq!((mill.provider().paid().len(), end.attempts), (sent as usize, sent), "{what}");
            let text_of = text(&mill, OUT).await.replace('"', "");
            assert!(text_of.contains(&format!("1,a,,{kind}: ")), "{what}: {text_of}");
            assert_eq!(text(&mill, FAILED).await.as_bytes(), ONE_ROW, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tries_are_counted_by_kind_and_survive_attempts_of_many_kinds() {
    // Attempts alternate: two server errors and two missing lines are no third of either.
    let script = |batch: usize, prompt: &str| match (prompt, batch % 2) {
        ("a", 0) => Reply::Status(500),
        ("a", _) => Reply::Nothing,
        _ => Reply::Answer("fine".to_owned()),
    };
    let spec = spec_with(json!({"retry": {"server_error": 2, "missing": 2}}));
    let (mill, end) = run(ScriptedProvider::new(Box::new(script)), &spec, b"id,title\n1,a\n2,b\n").await;
    assert_eq!((end.counts.answered, end.counts.failed.get(&FailureKind::ServerError)), (1, Some(&1)));
    // Server error, missing, server error, missing, server error: the third of its kind.
    assert_eq!((end.attempts, mill.provider().paid().iter().filter(|prompt| *prompt == "a").count()), (5, 5));
    let scratch = runtime::Scratch::new(None, 1 << 20).unwrap();
    let expected =
        ["server_error=1", "server_error=1,missing=1", "server_error=2,missing=1", "server_error=2,missing=2"];
    for (attempt, expected) in (1..).zip(expected) {
        let id = model::BatchId { number: 1, attempt };
        let fact: ResultFact = mill.store().get_json(&keys::result(&spec.id, id)).await.unwrap().unwrap();
        let next = fact.next.expect("there is a next attempt");
        let data = mill.store().fetch_verified(&next.data, &scratch).await.unwrap();
        let mut reader = BatchReader::open(data.try_clone().unwrap()).unwrap();
        let rows = reader.next().unwrap().unwrap();
        assert_eq!((rows.len(), rows.tries(0).to_string().as_str()), (1, expected), "attempt {attempt}");
        assert_eq!(rows.row_ids.value(0), 0);
    }
}

/// A job with a row that fails until the deadline: everything about how it ends.
async fn endless(reply: Reply, spec: &JobSpec, hours: i64, expected: &str) {
    let script = move |_: usize, prompt: &str| match prompt {
        "b" => reply.clone(),
        _ => Reply::Answer("fine".to_owned()),
    };
    let input = b"id,title\n1,a\n2,b\n3,c\n";
    let mut mill = Mill::new(ScriptedProvider::new(Box::new(script))).unwrap();
    // Days of a paused clock are short, were it not for all that happens each second.
    mill.set(&[("loop.commit_interval_ms", "60000"), ("backpressure.reading_ms", "60000")]).unwrap();
    let end = run_in(&mill, spec, input).await;
    let planned = plan(&mill, spec).await.planned_at;
    let took = end.ended_at.duration_since(planned);
    assert!((hours * 3_600..hours * 3_600 + 800).contains(&took.as_secs()), "{took:?}");
    let (kind, _) = expected.split_once(':').unwrap();
    let kind = FailureKind::parse(kind).unwrap();
    assert_eq!((end.counts.rows, end.counts.answered, end.counts.retried), (3, 2, 0));
    assert_eq!(end.counts.failed, [(kind, 1)].into(), "the last failure speaks, not the deadline");
    let tries = mill.provider().paid().iter().filter(|prompt| *prompt == "b").count();
    // The last attempt came too late to be sent.
    let attempts = tries + 1;
    assert_eq!((end.attempts as usize, mill.provider().paid().len()), (attempts, tries + 2));
    assert!(attempts > 20, "more attempts than are merged at a time: {attempts}");
    let text = text(&mill, OUT).await;
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert!(rows[0].starts_with("1,a,fine,,answered,") && rows[0].ends_with(",1,0.000000825"), "{text}");
    let kind = kind.as_str();
    assert!(rows[1].starts_with(&format!("2,b,,{expected},failed,{kind},")), "{text}");
    assert!(rows[1].ends_with(&format!(",{attempts},")), "{attempts}: {text}");
    assert!(rows[2].starts_with("3,c,fine,,answered,"), "{text}");
    assert_eq!(String::from_utf8(mill.get(FAILED).await.unwrap()).unwrap(), "id,title\n2,b\n");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_expires_forever_ends_at_the_deadline_with_its_last_kind_and_message() {
    endless(
        Reply::NotRun("batch_expired"),
        &spec_with(json!({"details": true})),
        72,
        "expired: batch_expired: scripted",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_job_has_a_deadline_of_its_own_and_any_kind_may_be_tried_until_it() {
    let spec =
        spec_with(json!({"details": true, "deadline_seconds": 6 * 3_600, "retry": {"server_error": "deadline"}}));
    endless(Reply::Status(503), &spec, 6, "server_error: scripted: scripted").await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_never_sent_before_the_deadline_say_so() {
    let provider = ScriptedProvider::echo().with_creates(Box::new(|_| OnCreate::RateLimit));
    let (mill, end) = run(provider, &spec_with(json!({"deadline_seconds": 3_600})), ONE_ROW).await;
    assert_eq!(end.counts.failed, [(FailureKind::Deadline, 1)].into());
    assert_eq!(mill.provider().paid(), Vec::<String>::new());
    assert_eq!(text(&mill, FAILED).await.as_bytes(), ONE_ROW);
}

#[tokio::test(start_paused = true)]
async fn what_the_plan_froze_holds_whatever_later_settings_say() {
    let mut mill = Mill::new(always(Reply::Status(500), BatchStatus::Completed)).unwrap();
    mill.set(&[("retry.server_error", "1"), ("retry.missing", "7"), ("splitter.deadline_hours", "5")]).unwrap();
    let spec = spec_with(json!({"retry": {"missing": 3}}));
    mill.put(IN, ONE_ROW).await.unwrap();
    mill.open(&spec).await.unwrap();
    let mut writes = 0;
    while !mill.store().exists(&keys::plan(&spec.id)).await.unwrap() {
        assert!(matches!(mill.live_until(&spec.id, writes, true).await.unwrap(), Life::Died));
        writes += 1;
    }
    let fact = plan(&mill, &spec).await;
    let PlanOutcome::Planned { deadline, retry, .. } = fact.outcome else { panic!("{fact:?}") };
    let hours = Duration::try_from(deadline.duration_since(fact.planned_at)).unwrap().as_secs_f64() / 3_600.0;
    assert!((4.99..=5.0).contains(&hours), "{hours}");
    let limit = |kind| retry[&kind].to_string();
    assert_eq!(limit(FailureKind::ServerError), "1", "the settings stand over the defaults");
    assert_eq!(limit(FailureKind::Missing), "3", "the job stands over the settings");
    assert_eq!(limit(FailureKind::Expired), "deadline", "the rest are the defaults");
    mill.set(&[("retry.server_error", "9"), ("splitter.deadline_hours", "1")]).unwrap();
    let end = mill.live(&spec.id).await.unwrap();
    assert_eq!((end.attempts, mill.provider().paid().len()), (2, 2), "one more try, as the plan says");
}

#[test]
fn settings_that_try_what_never_can_be_or_what_nobody_knows_are_refused_with_a_hint() {
    let read = |key: &str, value: &str| {
        let flags = [(format!("retry.{key}"), value.to_owned())];
        let settings = runtime::settings::Settings::load(None, std::iter::empty(), &flags).unwrap();
        settings.section::<model::retry::RetryTable>("retry").map(|table| serde_json::to_value(table).unwrap())
    };
    assert_eq!(read("server_error", "deadline").unwrap()["server_error"], "deadline");
    assert_eq!(read("expired", "3").unwrap()["expired"], 3);
    for (key, value, says) in [
        ("expird", "1", "unknown setting `retry.expird`; did you mean `expired`?"),
        ("bad_row", "1", "`retry.bad_row`: bad_row is never tried again"),
        ("refused", "often", "expected a number of tries beyond the first, or \"deadline\""),
        ("refused", "-1", "expected a number of tries"),
    ] {
        let error = read(key, value).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("flag --set retry."), "{error}");
    }
    let mut settings = runtime::settings::Settings::default();
    settings.declare::<model::retry::RetryTable>("retry").unwrap();
    let shown = settings.show();
    let of = |key: &str| shown.iter().find(|shown| shown.key == key).unwrap().value.clone();
    assert_eq!((of("retry.expired").as_str(), of("retry.refused").as_str()), ("\"deadline\"", "2"));
}

#[test]
fn a_plan_of_before_the_table_was_frozen_still_reads() {
    let old = json!({
        "schema": 1, "nonce": "9f8e7d6c5b4a3210", "planned_at": "2026-11-22T08:30:00Z", "outcome": "planned", "rows": 0,
        "deadline": "2026-11-25T08:30:00Z", "batches": [],
    });
    let fact: PlanFact = serde_json::from_value(old).unwrap();
    assert!(matches!(fact.outcome, PlanOutcome::Planned { retry, .. } if retry.is_empty()));
}
