//! How often each kind of failure is tried again, what ends it, and the failed rows as a file that can be run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
use arrow::datatypes::Int32Type;
use arrow::record_batch::RecordBatch;
use model::spec::OnBadRow;
use model::table::FileKind;
use model::{EndFact, FailureKind, JobSpec, PlanFact, PlanOutcome, RefusalCode, ResultFact, TableInfo, keys};
use providers::BatchStatus;
use serde_json::json;
use tables::batch::{BatchReader, Codec};
use tables::parquet_out::RowsOutput;
use tests::mill::{Life, Mill};
use tests::provider::{OnCreate, Reply, ScriptedProvider};

const IN: &str = "s3://lake/in/products.csv";
const OUT: &str = "s3://lake/out/products.answers.csv";
const FAILED: &str = "s3://lake/out/products.answers.failed.csv";
const ONE_ROW: &[u8] = b"id,title\n1,a\n";

fn spec_with(more: serde_json::Value) -> JobSpec {
    let mut spec = json!({
        "id": "job", "input": {"uri": IN}, "output": {"uri": OUT},
        "request": {"model": "sim/echo", "template": "{{ title }}"},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

async fn run(provider: ScriptedProvider, spec: &JobSpec, input: &[u8]) -> (Mill, EndFact) {
    let mill = Mill::new(provider).unwrap();
    let end = run_in(&mill, spec, input).await;
    (mill, end)
}

async fn run_in(mill: &Mill, spec: &JobSpec, input: &[u8]) -> EndFact {
    mill.put(&spec.input.uri, input).await.unwrap();
    mill.open(spec).await.unwrap();
    mill.live(&spec.id).await.unwrap()
}

async fn text(mill: &Mill, uri: &str) -> String {
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

/// Fails what begins with `bad`, until it is mended.
fn mendable() -> (ScriptedProvider, Arc<AtomicBool>) {
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let script = move |_: usize, prompt: &str| match prompt.starts_with("bad") && !is_mended.load(Ordering::Relaxed) {
        true => Reply::Status(400),
        false => Reply::Answer(format!("<{prompt}>")),
    };
    (ScriptedProvider::new(Box::new(script)), mended)
}

/// A job over the failed rows of another.
fn again(spec: &JobSpec) -> JobSpec {
    let mut again = spec.clone();
    again.id = "again".parse().unwrap();
    again.input.uri = spec.failed_rows_uri();
    again.output.uri = model::spec::before_extension(&again.input.uri, "answers");
    again
}

#[tokio::test(start_paused = true)]
async fn failed_rows_come_back_as_they_were_and_are_answered_when_they_are_run_again() {
    let header = "\u{feff}\"id\";title;\"note\"\r\n";
    let rows = [
        "\"007\";bad one;\" x \"\r\n",
        "2;good;\r\n",
        "3;\"bad; \"\"two\"\"\";\"two\r\nlines\"\r\n",
        "4;good;ü\r\n",
        "5;bad three;last",
    ];
    let failed = [header, rows[0], rows[2], rows[4]].concat();
    let (provider, mended) = mendable();
    let mill = Mill::new(provider).unwrap();
    let spec = spec_with(json!({"batch": {"max_rows": 2}}));
    let end = run_in(&mill, &spec, [header, &rows.concat()].concat().as_bytes()).await;
    assert_eq!((end.counts.answered, end.counts.failed_rows()), (2, 3));
    assert_eq!(text(&mill, FAILED).await, failed);
    let named = end.failed_rows.unwrap();
    let (bytes, sha256) = (failed.len() as u64, model::digest::sha256_hex(failed.as_bytes()));
    assert_eq!((named.uri.as_str(), named.bytes, named.sha256), (FAILED, bytes, sha256));

    mended.store(true, Ordering::Relaxed);
    let again = again(&spec);
    mill.open(&again).await.unwrap();
    let end = mill.live(&again.id).await.unwrap();
    assert_eq!((end.counts.rows, end.counts.answered, end.failed_rows), (3, 3, None));
    let answered = text(&mill, &again.output.uri).await;
    assert!(answered.contains("3;\"bad; \"\"two\"\"\";\"two\r\nlines\";\"<bad; \"\"two\"\">\";"), "{answered}");
    assert!(mill.get(&again.failed_rows_uri()).await.is_err(), "no row failed, no file");
    let paid = mill.provider().paid();
    assert_eq!(paid.iter().filter(|prompt| !prompt.starts_with("bad")).count(), 2, "answered rows are not paid again");
}

#[tokio::test(start_paused = true)]
async fn gzipped_and_tab_separated_inputs_get_failed_rows_of_their_kind() {
    for (input, output, failed) in [
        ("s3://lake/in/p.tsv", "s3://lake/out/p.tsv", "s3://lake/out/p.failed.tsv"),
        ("s3://lake/in/p.tsv", "s3://lake/out/p.csv.gz", "s3://lake/out/p.failed.csv.gz"),
    ] {
        let (provider, mended) = mendable();
        let mill = Mill::new(provider).unwrap();
        let spec = spec_with(json!({"input": {"uri": input}, "output": {"uri": output}}));
        let end = run_in(&mill, &spec, b"id\ttitle\n1\tgood\n2\tbad\n").await;
        assert_eq!(end.failed_rows.unwrap().uri, failed);
        let content = mill.get(failed).await.unwrap();
        assert_eq!(content.starts_with(&[0x1f, 0x8b]), failed.ends_with(".gz"));
        assert!(failed.ends_with(".gz") || content == b"id\ttitle\n2\tbad\n");
        mended.store(true, Ordering::Relaxed);
        let again = again(&spec);
        mill.open(&again).await.unwrap();
        assert_eq!(mill.live(&again.id).await.unwrap().counts.answered, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_row_that_failed_alone_comes_back_as_it_was() {
    let spec = JobSpec { on_bad_row: OnBadRow::FailRow, ..spec_with(json!({})) };
    let (mill, end) = run(ScriptedProvider::echo(), &spec, b"id,title\n1,a\n2,b,\"c\"\"\"\n3\n4,d\n").await;
    assert_eq!(end.counts.failed, [(FailureKind::BadRow, 2)].into());
    assert_eq!(text(&mill, FAILED).await, "id,title\n2,b,\"c\"\"\"\n3\n");
}

/// A Parquet file with a column of text, one of numbers and one of lists.
fn parquet(rows: usize) -> Vec<u8> {
    let title = StringArray::from_iter((0..rows).map(|row| match row % 5 {
        0 => None,
        3 => Some(format!("bad {row}")),
        _ => Some(format!("good {row}")),
    }));
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|row| (row % 2 == 0).then(|| vec![Some(row as i32), None])),
    );
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        ("title", Arc::new(title)),
        ("list", Arc::new(list)),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let info = TableInfo {
        kind: FileKind::Parquet,
        columns: Vec::new(),
        csv: None,
        arrow_schema: Some(tables::parquet_in::schema::encode(&batch.schema())),
        codec: None,
    };
    let mut output = RowsOutput::new(&info, Codec::Zstd).unwrap();
    output.push(&batch).unwrap();
    output.finish().unwrap()
}

fn read_parquet(content: Vec<u8>) -> RecordBatch {
    let content = bytes::Bytes::from(content);
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(content).unwrap();
    let schema = Arc::clone(builder.schema());
    let batches = builder.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

#[tokio::test(start_paused = true)]
async fn failed_rows_of_a_parquet_file_are_a_parquet_file() {
    let spec = spec_with(json!({
        "input": {"uri": "s3://lake/in/t.parquet"}, "output": {"uri": "s3://lake/out/t.parquet"}, "batch": {"max_rows": 7},
    }));
    let (provider, mended) = mendable();
    let mill = Mill::new(provider).unwrap();
    let end = run_in(&mill, &spec, &parquet(20)).await;
    // Rows without a title have an empty prompt.
    assert_eq!(end.counts.failed, [(FailureKind::InvalidRequest, 4), (FailureKind::EmptyPrompt, 4)].into());
    assert_eq!(end.failed_rows.unwrap().uri, "s3://lake/out/t.failed.parquet");
    let failed = read_parquet(mill.get("s3://lake/out/t.failed.parquet").await.unwrap());
    let wanted = arrow::array::UInt32Array::from_iter_values((0..20).filter(|row| row % 5 == 0 || row % 5 == 3));
    assert_eq!(failed, arrow::compute::take_record_batch(&read_parquet(parquet(20)), &wanted).unwrap());
    mended.store(true, Ordering::Relaxed);
    let again = again(&spec);
    mill.open(&again).await.unwrap();
    let end = mill.live(&again.id).await.unwrap();
    assert_eq!((end.counts.answered, end.counts.failed_rows()), (4, 4), "what is empty stays empty");
}

#[tokio::test(start_paused = true)]
async fn the_place_of_the_failed_rows_is_looked_at_before_anything_is_spent() {
    let input = b"id,title\n1,good\n2,bad\n";
    let (provider, _) = mendable();
    let mill = Mill::new(provider).unwrap();
    mill.put(FAILED, b"somebody's work").await.unwrap();
    let end = run_in(&mill, &spec_with(json!({})), input).await;
    let refusal = end.refusal.unwrap();
    assert_eq!(refusal.code, RefusalCode::OutputExists);
    assert!(refusal.message.contains(FAILED) && refusal.message.contains("failed rows would go"), "{refusal}");
    assert_eq!((text(&mill, FAILED).await.as_str(), mill.provider().paid().len()), ("somebody's work", 0));
    assert!(mill.get(OUT).await.is_err());

    let replace = json!({"id": "replace", "output": {"uri": OUT, "overwrite": true}});
    let end = run_in(&mill, &spec_with(replace), input).await;
    assert_eq!((end.counts.answered, end.failed_rows.is_some()), (1, true));
    assert_eq!(text(&mill, FAILED).await, "id,title\n2,bad\n");

    // No row fails: what the job before left would be taken for this one's.
    let all_good = json!({"id": "good", "output": {"uri": OUT, "overwrite": true}});
    let end = run_in(&mill, &spec_with(all_good), b"id,title\n1,good\n").await;
    assert_eq!((end.counts.answered, end.failed_rows), (1, None));
    assert!(mill.get(FAILED).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn no_job_writes_where_the_failed_rows_of_a_living_job_would_go() {
    let mill = Mill::new(ScriptedProvider::echo()).unwrap();
    let first = spec_with(json!({}));
    mill.put(IN, ONE_ROW).await.unwrap();
    mill.open(&first).await.unwrap();
    let mut writes = 0;
    while !mill.store().exists(&keys::plan(&first.id)).await.unwrap() {
        mill.live_until(&first.id, writes, true).await.unwrap();
        writes += 1;
    }
    let second = spec_with(json!({"id": "second", "output": {"uri": FAILED, "overwrite": true}}));
    mill.open(&second).await.unwrap();
    let refusal = mill.live(&second.id).await.unwrap().refusal.unwrap();
    assert_eq!(refusal.code, RefusalCode::OutputExists);
    assert!(refusal.message.contains("job job, which has not ended"), "{refusal}");
    assert_eq!(mill.live(&first.id).await.unwrap().counts.answered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_write_leaves_the_same_failed_rows() {
    let input = b"id,title\r\n1,good\r\n2,bad\r\n3,bad\r\n4,good\r\n5,good\r\n";
    let spec = spec_with(json!({"batch": {"max_rows": 2}}));
    for lands in [true, false] {
        let mut writes = 0;
        loop {
            let (provider, _) = mendable();
            let mill = Mill::new(provider).unwrap();
            mill.put(IN, input).await.unwrap();
            mill.open(&spec).await.unwrap();
            let Life::Died = mill.live_until(&spec.id, writes, lands).await.unwrap() else { break };
            let end = mill.live(&spec.id).await.unwrap();
            let what = format!("died at write {writes}, landed: {lands}");
            assert_eq!((end.counts.answered, end.counts.failed_rows()), (3, 2), "{what}");
            assert_eq!(text(&mill, FAILED).await, "id,title\r\n2,bad\r\n3,bad\r\n", "{what}");
            assert_eq!(mill.provider().paid().len(), 5, "{what}");
            writes += 1;
        }
        assert!(writes > 20, "a job of three batches has more than {writes} writes");
    }
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
