use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::facts::{DataRef, EndFact, OpenJob, ResultFact};
use crate::ids::Team;
use crate::next::next_actions;
use crate::outcome::{Counts, Tokens};

fn job() -> JobId {
    "j".parse().unwrap()
}

fn nonce(bits: u64) -> Nonce {
    Nonce::from_bits(bits)
}

fn end() -> EndFact {
    let fact = serde_json::json!({"schema": 1, "nonce": nonce(1), "job": "j", "team": Team::shared(),
        "accepted_at": "1970-01-01T00:00:00Z", "ended_at": "1970-01-01T00:00:00Z", "batches": 1, "attempts": 1,
        "counts": Counts::default(), "tokens": Tokens::default(), "output": null, "refusal": null});
    serde_json::from_value(fact).unwrap()
}

fn open() -> OpenJob {
    let spec = serde_json::json!({"id": "j", "input": {"uri": "s3://b/in.csv"}, "output": {"uri": "s3://b/out.csv"},
        "request": {"model": "sim/echo", "template": "{{ a }}"}});
    let spec = serde_json::from_value(spec).unwrap();
    OpenJob { schema: 1, nonce: nonce(1), team: Team::shared(), spec, opened_at: Timestamp::UNIX_EPOCH }
}

fn result(id: BatchId) -> ResultFact {
    ResultFact {
        schema: 1,
        nonce: nonce(1),
        collected_at: Timestamp::UNIX_EPOCH,
        id,
        data: DataRef { key: "k".to_owned(), checksum: crate::digest::Checksum::of(b""), bytes: 1, rows: 1 },
        counts: Counts::default(),
        tokens: Tokens::default(),
        cost: None,
        provider_tokens: None,
        provider_batch: None,
        provider_status: None,
        unknown_ids: 0,
        duplicates: 0,
        next: None,
    }
}

fn any_key() -> impl Strategy<Value = String> {
    let batch = (1u32..4, 1u32..3).prop_map(|(number, attempt)| BatchId { number, attempt });
    (0..12, batch, any::<u64>().prop_map(Nonce::from_bits), 1u32..5).prop_map(|(which, id, nonce, seq)| {
        let (job, other): (JobId, JobId) = (job(), "other".parse().unwrap());
        match which {
            0 => keys::job(&job),
            1 => keys::plan(&job),
            2 => keys::end(&job),
            3 => keys::cancel(&job),
            4 => keys::open(&job),
            5 => keys::submission(&job, id, seq),
            6 => keys::result(&job, id),
            7 => keys::output_claim("s3://b/out.csv", seq),
            8 => keys::batch_data(&other, id, &nonce),
            9 => format!("jobs/j/1-batches/notes-{seq}.txt"),
            10 => keys::batch_data(&job, id, &nonce),
            _ => keys::result_data(&job, id, &nonce),
        }
    })
}

/// What of a listing tells the state of a job: all but its data.
fn state(listed: &[String], removed: &[&str]) -> Vec<String> {
    let is_data = |key: &str| matches!(keys::parse(key), Some(Key::BatchData(..) | Key::ResultData(..)));
    let left = listed.iter().filter(|key| !removed.contains(&key.as_str()));
    left.filter(|key| !is_data(key)).cloned().collect()
}

proptest! {
    #[test]
    fn of_a_living_job_nothing_is_removable(listed in proptest::collection::vec(any_key(), 0..40), ended in any::<bool>(), seconds in 0i64..1_000_000_000) {
        // A job lives until it has ended and is not open any more.
        let facts = JobFacts { open: ended.then(open), end: ended.then(end), ..JobFacts::default() };
        let now = Timestamp::from_second(seconds).unwrap();
        prop_assert!(removable(&facts, listed.iter().map(String::as_str), now, SignedDuration::ZERO).is_empty());
    }

    #[test]
    fn of_an_ended_job_its_data_goes_and_every_fact_stays(listed in proptest::collection::vec(any_key(), 0..40)) {
        let facts = JobFacts { end: Some(end()), ..JobFacts::default() };
        let removed = removable(&facts, listed.iter().map(String::as_str), Timestamp::MAX, SignedDuration::ZERO);
        prop_assert_eq!(state(&listed, &removed), state(&listed, &[]));
        for key in &listed {
            let data = key.starts_with("jobs/j/") && key.ends_with(".parquet");
            prop_assert_eq!(removed.contains(&key.as_str()), data, "{}", key);
        }
        prop_assert!(next_actions(&facts).is_empty());
    }

    #[test]
    fn the_name_of_an_upload_reads_back(text in "[a-z0-9][a-z0-9_-]{0,63}", number in 1u32.., attempt in 1u32.., bits in any::<u64>()) {
        let (job, attempt, epoch): (JobId, _, _) = (text.parse().unwrap(), BatchId { number, attempt }, nonce(bits));
        let name = keys::upload_name(&job, attempt, &epoch);
        prop_assert_eq!(upload(&name), Some(Upload { job, attempt, epoch }));
    }

    #[test]
    fn other_names_are_nobodys(name in "(batchmill-)?[a-z0-9-]{0,40}(.jsonl)?") {
        if let Some(Upload { job, attempt, epoch }) = upload(&name) {
            prop_assert_eq!(keys::upload_name(&job, attempt, &epoch), name);
        }
    }
}

#[test]
fn the_retention_is_counted_from_the_end() {
    let facts = JobFacts { end: Some(end()), ..JobFacts::default() };
    let key = keys::batch_data(&job(), BatchId { number: 1, attempt: 1 }, &nonce(1));
    let after = |seconds| {
        let now = Timestamp::from_second(seconds).unwrap();
        removable(&facts, [key.as_str()], now, SignedDuration::from_hours(1)).len()
    };
    assert_eq!((after(0), after(3_599), after(3_600)), (0, 0, 1));
}

#[test]
fn an_upload_is_a_leftover_once_its_attempt_is_collected_and_only_if_our_log_has_its_epoch() {
    let attempt = BatchId { number: 1, attempt: 1 };
    let ours = Upload { job: job(), attempt, epoch: nonce(5) };
    let theirs = Upload { epoch: nonce(6), ..ours.clone() };
    let log = [
        SubmissionStep::Claim { epoch: nonce(5) },
        SubmissionStep::File { epoch: nonce(5), file_id: "f".to_owned(), created_at: 0 },
    ];
    let living = JobFacts::default();
    let other = JobFacts {
        results: BTreeMap::from([(BatchId { number: 2, attempt: 1 }, result(BatchId { number: 2, attempt: 1 }))]),
        ..JobFacts::default()
    };
    let collected = JobFacts { results: BTreeMap::from([(attempt, result(attempt))]), ..JobFacts::default() };
    let ended = JobFacts { end: Some(end()), ..JobFacts::default() };
    let said: Vec<bool> =
        [&living, &other, &collected, &ended].iter().map(|facts| is_leftover(&ours, facts, &log)).collect();
    assert_eq!(said, [false, false, true, true], "an open file is the fence of a batch that is not collected");
    assert!(!is_leftover(&theirs, &ended, &log), "a job of the same name in another store");
    assert!(!is_leftover(&ours, &ended, &[]));
}
