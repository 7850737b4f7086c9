//! Whole jobs through the four rooms over memory: what comes out, what was paid, and how failures end.

use model::spec::OnBadRow;
use model::{EndFact, FailureKind, JobSpec, RefusalCode};
use providers::BatchStatus;
use tests::mill::Mill;
use tests::provider::{OnCreate, Reply, ScriptedProvider};

const IN: &str = "s3://lake/in/products.csv";
const OUT: &str = "s3://lake/out/products.csv";

fn spec(max_rows: u32) -> JobSpec {
    serde_json::from_value(serde_json::json!({
        "id": "job", "input": {"uri": IN}, "output": {"uri": OUT},
        "request": {"model": "sim/echo", "template": "Describe {{ title }}"},
        "batch": {"max_rows": max_rows}
    }))
    .unwrap()
}

/// A table of so many rows.
fn table(rows: usize) -> String {
    std::iter::once("id,title\n".to_owned())
        .chain((0..rows).map(|row| format!("{row:03},\"Title, {row}\"\n")))
        .collect()
}

/// Runs one job to its end in a world with this provider and this input.
async fn run(provider: ScriptedProvider, spec: &JobSpec, input: &[u8]) -> (Mill, EndFact) {
    let mill = Mill::new(provider).unwrap();
    mill.put(&spec.input.uri, input).await.unwrap();
    mill.open(spec).await.unwrap();
    let end = mill.live(&spec.id).await.unwrap();
    (mill, end)
}

async fn output(mill: &Mill) -> String {
    String::from_utf8(mill.get(OUT).await.unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_table_in_many_batches_comes_back_whole_in_order_with_its_answers() {
    let (mill, end) = run(ScriptedProvider::echo(), &spec(7), table(60).as_bytes()).await;
    assert_eq!((end.counts.rows, end.counts.answered, end.batches, end.attempts), (60, 60, 9, 9));
    let expected: String = std::iter::once("id,title,response,error\n".to_owned())
        .chain((0..60).map(|row| format!("{row:03},\"Title, {row}\",\"Describe Title, {row}\",\n")))
        .collect();
    assert_eq!(output(&mill).await, expected);
    let written = end.output.unwrap();
    assert_eq!(
        (written.bytes as usize, written.checksum),
        (expected.len(), model::digest::Checksum::of(expected.as_bytes()))
    );
    assert_eq!(mill.provider().paid().len(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_header_without_rows_is_a_success_with_no_rows() {
    let (mill, end) = run(ScriptedProvider::echo(), &spec(7), b"id,title\n").await;
    assert_eq!((end.counts.rows, end.refusal), (0, None));
    assert_eq!(output(&mill).await, "id,title,response,error\n");
    assert_eq!(mill.provider().paid(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn rows_that_fail_for_a_while_are_tried_again_and_only_those() {
    let script = |batch: usize, prompt: &str| match prompt.ends_with('3') && batch < 2 {
        true => Reply::Status(500),
        false => Reply::Answer(format!("{batch}: {prompt}")),
    };
    let (mill, end) = run(ScriptedProvider::new(Box::new(script)), &spec(100), table(20).as_bytes()).await;
    assert_eq!((end.counts.answered, end.attempts), (20, 3));
    let text = output(&mill).await;
    assert!(text.contains("003,\"Title, 3\",\"2: Describe Title, 3\",\n"), "{text}");
    assert!(text.contains("004,\"Title, 4\",\"0: Describe Title, 4\",\n"), "{text}");
    assert_eq!(mill.provider().paid().len(), 20 + 2 + 2, "two rows, twice more");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_keeps_failing_ends_with_its_kind_after_its_tries() {
    let script = |_: usize, prompt: &str| match prompt.ends_with('3') {
        true => Reply::Status(503),
        false => Reply::Answer(prompt.to_owned()),
    };
    let (mill, end) = run(ScriptedProvider::new(Box::new(script)), &spec(100), table(5).as_bytes()).await;
    assert_eq!((end.counts.answered, end.counts.failed.get(&FailureKind::ServerError)), (4, Some(&1)));
    assert_eq!(end.attempts, 6, "the first and five more");
    assert!(output(&mill).await.contains("003,\"Title, 3\",,server_error: "));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_get_better_is_not_tried_again() {
    let script = |_: usize, prompt: &str| match prompt.ends_with('3') {
        true => Reply::Status(400),
        false => Reply::Answer(prompt.to_owned()),
    };
    let (mill, end) = run(ScriptedProvider::new(Box::new(script)), &spec(100), table(5).as_bytes()).await;
    assert_eq!((end.counts.failed.get(&FailureKind::InvalidRequest), end.attempts), (Some(&1), 1));
    assert_eq!(mill.provider().paid().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_expired_batch_keeps_its_paid_rows_and_tries_the_others_again() {
    let script = |batch: usize, prompt: &str| match (batch, prompt.ends_with('3')) {
        (0, true) => Reply::NotRun("batch_expired"),
        (0, false) if prompt.ends_with('4') => Reply::Nothing,
        _ => Reply::Answer(format!("{batch}")),
    };
    let provider = ScriptedProvider::new(Box::new(script)).ending_as(BatchStatus::Expired);
    let (mill, end) = run(provider, &spec(100), table(5).as_bytes()).await;
    assert_eq!((end.counts.answered, end.attempts), (5, 2));
    let answers: String =
        output(&mill).await.lines().skip(1).map(|line| line.split(',').nth(3).unwrap().to_owned()).collect();
    assert_eq!(answers, "00011");
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_reply_is_lost_is_adopted_and_not_sent_again() {
    let lose_first = |create: usize| if create == 0 { OnCreate::AcceptAndLose } else { OnCreate::Accept };
    let provider = ScriptedProvider::echo().with_creates(Box::new(lose_first));
    let (mill, end) = run(provider, &spec(5), table(10).as_bytes()).await;
    assert_eq!(end.counts.answered, 10);
    assert_eq!((mill.provider().batches(), mill.provider().paid().len()), (2, 10));
}

#[tokio::test(start_paused = true)]
async fn a_create_that_was_lost_on_its_way_is_fenced_and_sent_with_a_new_file() {
    let lose_first = |create: usize| if create == 0 { OnCreate::Lose } else { OnCreate::Accept };
    let provider = ScriptedProvider::echo().with_creates(Box::new(lose_first));
    let (mill, end) = run(provider, &spec(5), table(10).as_bytes()).await;
    assert_eq!(end.counts.answered, 10);
    assert_eq!((mill.provider().batches(), mill.provider().paid().len()), (2, 10));
}

#[tokio::test(start_paused = true)]
async fn many_batches_at_the_provider_are_asked_for_by_lists() {
    let (mill, end) = run(ScriptedProvider::echo().slow(150), &spec(2), table(80).as_bytes()).await;
    assert_eq!((end.counts.answered, end.batches), (80, 40));
    let (asked, listed) = mill.provider().questions();
    // Asking for each of 40 batches in each round would be 40 questions for every list.
    assert!(listed > 50 && asked < 120, "{asked} asked, {listed} listed");
    assert_eq!(mill.provider().paid().len(), 80);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_is_waited_out() {
    let limited = |create: usize| if create < 4 { OnCreate::RateLimit } else { OnCreate::Accept };
    let provider = ScriptedProvider::echo().with_creates(Box::new(limited));
    let (mill, end) = run(provider, &spec(5), table(10).as_bytes()).await;
    assert_eq!((end.counts.answered, mill.provider().paid().len()), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn a_malformed_row_refuses_the_job_or_fails_alone_as_the_job_says() {
    let input = "id,title\n1,a\n2,b,c\n3,d\n";
    let (mill, end) = run(ScriptedProvider::echo(), &spec(5), input.as_bytes()).await;
    let refusal = end.refusal.unwrap();
    assert_eq!(refusal.code, RefusalCode::BadRow);
    assert!(refusal.message.contains("row 2") && refusal.message.contains(IN), "{refusal}");
    assert_eq!(mill.provider().paid(), Vec::<String>::new());
    let alone = JobSpec { on_bad_row: OnBadRow::FailRow, ..spec(5) };
    let (mill, end) = run(ScriptedProvider::echo(), &alone, input.as_bytes()).await;
    assert_eq!((end.counts.answered, end.counts.failed.get(&FailureKind::BadRow)), (2, Some(&1)));
    let text = output(&mill).await;
    assert!(text.contains("\n2,b,c,,bad_row: row 2 ") || text.contains("\n2,b,c,,\"bad_row: row 2 "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_row_with_an_empty_prompt_or_one_too_large_fails_alone_and_is_not_paid() {
    let mut spec = spec(5);
    spec.request.template = "{{ title }}".to_owned();
    spec.batch.max_bytes = 1_000;
    let input = format!("id,title\n1,a\n2,\n3,{}\n4,d\n", "x".repeat(2_000));
    let (mill, end) = run(ScriptedProvider::echo(), &spec, input.as_bytes()).await;
    let failed = |kind| end.counts.failed.get(&kind).copied();
    assert_eq!(
        (failed(FailureKind::EmptyPrompt), failed(FailureKind::TooLarge), end.counts.answered),
        (Some(1), Some(1), 2)
    );
    let mut paid = mill.provider().paid();
    paid.sort();
    assert_eq!(paid, ["a", "d"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_before_its_batches_are_sent_pays_nothing_and_ends_with_its_table() {
    let mill = Mill::new(ScriptedProvider::echo().with_creates(Box::new(|_| OnCreate::RateLimit))).unwrap();
    let spec = spec(5);
    mill.put(IN, table(7).as_bytes()).await.unwrap();
    mill.open(&spec).await.unwrap();
    // It dies behind the plan's put: what the log says is the same however far it came.
    let mut death = 4;
    while !mill.store().exists(&model::keys::plan(&spec.id)).await.unwrap() {
        mill.live_until(&spec.id, death, true).await.unwrap();
        death += 1;
    }
    let nonce = model::Nonce::from_bits(9);
    let cancel = model::CancelFact { schema: 1, nonce, requested_at: jiff::Timestamp::UNIX_EPOCH };
    mill.store().put_once(&model::keys::cancel(&spec.id), &cancel).await.unwrap();
    let end = mill.live(&spec.id).await.unwrap();
    assert_eq!(end.counts.failed.get(&FailureKind::Cancelled), Some(&7));
    assert_eq!(mill.provider().paid(), Vec::<String>::new());
    assert_eq!(output(&mill).await.lines().count(), 8);
}

#[tokio::test(start_paused = true)]
async fn refused_jobs_say_why_and_pay_nothing() {
    let mut unknown_column = spec(5);
    unknown_column.request.template = "{{ titel }}".to_owned();
    let mut clash = spec(5);
    clash.response_column = "title".to_owned();
    let mut other_format = spec(5);
    other_format.output.uri = "s3://lake/out/x.parquet".to_owned();
    let mut no_provider = spec(5);
    no_provider.request.model = "nobody/x".to_owned();
    for (spec, input, code, says) in [
        (unknown_column, "id,title\n1,a\n", RefusalCode::UnknownColumn, "titel"),
        (clash, "id,title\n1,a\n", RefusalCode::ColumnClash, "title"),
        (other_format, "id,title\n1,a\n", RefusalCode::OutputFormat, "CSV"),
        (no_provider, "id,title\n1,a\n", RefusalCode::ModelUnknown, "nobody"),
        (spec(5), "", RefusalCode::InputEmpty, IN),
        (spec(5), "id,id\n1,a\n", RefusalCode::DuplicateColumn, "id"),
    ] {
        let (mill, end) = run(ScriptedProvider::echo(), &spec, input.as_bytes()).await;
        let refusal = end.refusal.unwrap_or_else(|| panic!("{code} was not refused"));
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(says), "{refusal}");
        assert_eq!(mill.provider().batches(), 0);
    }
}
