//! Cancelling a job at each moment of its life: provider batches are cancelled, paid rows are kept, the output holds what
//! there is, and one ending wins.

use std::time::Duration;

use model::next::next_actions;
use model::{EndFact, FailureKind, JobSpec, Nonce, RefusalCode, keys};
use providers::BatchStatus;
use runtime::load_facts;
use tests::mill::{Life, Mill};
use tests::provider::{OnCreate, ScriptedProvider};

const IN: &str = "s3://lake/in/products.csv";
const OUT: &str = "s3://lake/out/products.csv";
const ROWS: usize = 12;

fn spec() -> JobSpec {
    serde_json::from_value(serde_json::json!({
        "id": "job", "input": {"uri": IN}, "output": {"uri": OUT},
        "request": {"model": "sim/echo", "template": "Describe {{ title }}"},
        "batch": {"max_rows": 4}
    }))
    .unwrap()
}

async fn world(provider: ScriptedProvider) -> Mill {
    let mill = Mill::new(provider).unwrap();
    let rows = (0..ROWS).map(|row| format!("{row:02},title {row:02}\n"));
    let table: String = std::iter::once("id,title\n".to_owned()).chain(rows).collect();
    mill.put(IN, table.as_bytes()).await.unwrap();
    mill.open(&spec()).await.unwrap();
    mill
}

/// What `batchmill cancel` does.
async fn cancel(mill: &Mill) {
    let (nonce, requested_at) = (Nonce::from_bits(9), jiff::Timestamp::UNIX_EPOCH);
    let fact = model::CancelFact { schema: 1, nonce, requested_at };
    mill.store().put_once(&keys::cancel(&spec().id), &fact).await.unwrap();
}

async fn exists(mill: &Mill, key: &str) -> bool {
    mill.store().exists(key).await.unwrap()
}

/// A world whose first process died at the first write behind which this is so.
async fn died_when(provider: impl Fn() -> ScriptedProvider, so: impl AsyncFn(&Mill) -> bool) -> Mill {
    for writes in 0.. {
        let mill = world(provider()).await;
        let life = mill.live_until(&spec().id, writes, true).await.unwrap();
        assert!(matches!(life, Life::Died), "the job ended before its time");
        if so(&mill).await {
            return mill;
        }
    }
    unreachable!("a job has an end")
}

/// The end of a job that is cancelled, while it runs, as soon as this is so.
async fn cancelled_once(mill: &Mill, so: impl AsyncFn(&Mill) -> bool) -> EndFact {
    let asker = async {
        while !so(mill).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cancel(mill).await;
    };
    let job = spec().id;
    let (end, ()) = tokio::join!(mill.live(&job), asker);
    end.unwrap()
}

/// Each row is in the output once: answered if it was paid, else cancelled. The answers, by row.
async fn answered(mill: &Mill, end: &EndFact) -> Vec<usize> {
    let text = String::from_utf8(mill.get(OUT).await.unwrap()).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("id,title,response,error"));
    let mut answered = Vec::new();
    for (row, line) in lines.enumerate() {
        let line = line.strip_prefix(&format!("{row:02},title {row:02},")).unwrap_or_else(|| panic!("{row}: {line}"));
        if line == format!("Describe title {row:02},") {
            answered.push(row);
        } else {
            assert!(line.starts_with(",cancelled: ") || line.starts_with(",\"cancelled: "), "{row}: {line}");
        }
    }
    assert_eq!(text.lines().count(), ROWS + 1);
    let mut paid = mill.provider().paid();
    paid.sort();
    let expected: Vec<String> = answered.iter().map(|row| format!("Describe title {row:02}")).collect();
    assert_eq!(paid, expected, "each paid row has its answer, and no other has one");
    let cancelled = end.counts.failed.get(&FailureKind::Cancelled).copied().unwrap_or_default();
    let counted = (end.counts.rows, end.counts.answered, cancelled);
    assert_eq!(counted, (ROWS as u64, answered.len() as u64, (ROWS - answered.len()) as u64));
    answered
}

/// The end is the only one there will ever be.
async fn is_over(mill: &Mill, end: &EndFact) {
    let facts = load_facts(&mill.store(), &spec().id).await.unwrap();
    assert_eq!((facts.end.as_ref(), next_actions(&facts)), (Some(end), Vec::new()));
}

async fn refused_as_cancelled(mill: &Mill) {
    let end = mill.live(&spec().id).await.unwrap();
    assert_eq!(end.refusal.as_ref().unwrap().code, RefusalCode::Cancelled);
    assert_eq!((mill.provider().batches(), mill.provider().paid().len()), (0, 0));
    assert!(mill.get(OUT).await.is_err(), "a job that was cancelled before its plan has no output");
    is_over(mill, &end).await;
}

#[tokio::test(start_paused = true)]
async fn cancelled_before_the_split_a_job_ends_without_an_output() {
    let mill = world(ScriptedProvider::echo()).await;
    cancel(&mill).await;
    refused_as_cancelled(&mill).await;
}

#[tokio::test(start_paused = true)]
async fn cancelled_during_the_split_a_job_ends_without_an_output() {
    let splitting = async |mill: &Mill| {
        let batches = mill.store().list(&keys::batches_folder(&spec().id)).await.unwrap().len();
        batches == 1 && !exists(mill, &keys::plan(&spec().id)).await
    };
    let mill = died_when(ScriptedProvider::echo, splitting).await;
    cancel(&mill).await;
    refused_as_cancelled(&mill).await;
}

#[tokio::test(start_paused = true)]
async fn cancelled_before_anything_was_sent_a_job_pays_nothing_and_ends_with_its_table() {
    let planned = async |mill: &Mill| exists(mill, &keys::plan(&spec().id)).await;
    let mill = died_when(ScriptedProvider::echo, planned).await;
    cancel(&mill).await;
    let end = mill.live(&spec().id).await.unwrap();
    assert_eq!(answered(&mill, &end).await, Vec::<usize>::new());
    assert_eq!(mill.provider().batches(), 0);
    is_over(&mill, &end).await;
}

#[tokio::test(start_paused = true)]
async fn cancelled_at_the_provider_the_batches_end_and_what_they_did_is_kept() {
    let mill = world(ScriptedProvider::echo().slow(1_000_000).cancellable(2)).await;
    let end = cancelled_once(&mill, async |mill| mill.provider().batches() >= 3).await;
    assert_eq!(mill.provider().cancelled(), 3, "each batch is cancelled at the provider");
    assert_eq!(answered(&mill, &end).await, [0, 1, 4, 5, 8, 9]);
    assert_eq!(end.attempts, 3, "nothing is tried again");
    is_over(&mill, &end).await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_does_not_cancel_in_time_is_waited_for_and_its_rows_are_kept() {
    // Its batches go on to their end whatever it is asked.
    let mill = world(ScriptedProvider::echo().slow(30)).await;
    let end = cancelled_once(&mill, async |mill| mill.provider().batches() >= 3).await;
    assert_eq!(answered(&mill, &end).await, (0..ROWS).collect::<Vec<_>>());
    is_over(&mill, &end).await;
}

#[tokio::test(start_paused = true)]
async fn cancelled_between_the_batches_what_was_collected_is_kept_and_the_rest_is_not_sent() {
    let first_only = |create: usize| if create == 0 { OnCreate::Accept } else { OnCreate::RateLimit };
    let mill = world(ScriptedProvider::echo().with_creates(Box::new(first_only))).await;
    let end = cancelled_once(&mill, async |mill| {
        mill.store().list(&keys::results_folder(&spec().id)).await.unwrap().len() >= 2
    })
    .await;
    assert_eq!((answered(&mill, &end).await.len(), mill.provider().batches()), (4, 1));
    is_over(&mill, &end).await;
}

#[tokio::test(start_paused = true)]
async fn a_create_without_an_answer_is_fenced_before_a_cancelled_batch_counts_as_unsent() {
    // The reply of each create is lost, and each batch runs: to call them unsent would lose paid rows.
    let provider = || ScriptedProvider::echo().with_creates(Box::new(|_| OnCreate::AcceptAndLose));
    let mill = died_when(provider, async |mill: &Mill| mill.provider().batches() == 1).await;
    cancel(&mill).await;
    let end = mill.live(&spec().id).await.unwrap();
    assert_eq!(answered(&mill, &end).await.len(), 4);
    is_over(&mill, &end).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_after_the_end_changes_nothing() {
    let mill = world(ScriptedProvider::echo().ending_as(BatchStatus::Completed)).await;
    let end = mill.live(&spec().id).await.unwrap();
    let before = (mill.get(OUT).await.unwrap(), mill.provider().paid());
    cancel(&mill).await;
    // Somebody asks for the job once more.
    mill.open(&spec()).await.unwrap();
    assert_eq!(mill.live(&spec().id).await.unwrap(), end);
    assert_eq!((mill.get(OUT).await.unwrap(), mill.provider().paid()), before);
    assert_eq!(answered(&mill, &end).await.len(), ROWS);
    is_over(&mill, &end).await;
}

/// At every write of a job's life, the last included, somebody cancels: one ending, each row once, each paid row kept.
#[tokio::test(start_paused = true)]
async fn a_cancel_at_any_write_leaves_one_ending_with_all_that_was_paid() {
    let (mut planned, mut refused) = (0, 0);
    for lands in [true, false] {
        for writes in 0.. {
            let mill = world(ScriptedProvider::echo().slow(9).cancellable(2)).await;
            if let Life::Ended(_) = mill.live_until(&spec().id, writes, lands).await.unwrap() {
                break;
            }
            cancel(&mill).await;
            let end = mill.live(&spec().id).await.unwrap();
            match &end.refusal {
                Some(refusal) => {
                    assert_eq!((refusal.code, mill.provider().paid().len()), (RefusalCode::Cancelled, 0));
                    refused += 1;
                }
                None => {
                    answered(&mill, &end).await;
                    planned += 1;
                }
            }
            is_over(&mill, &end).await;
        }
    }
    assert!(planned > 20 && refused > 5, "{planned} with a plan, {refused} without");
}
