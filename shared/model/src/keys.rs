//! Object keys: the only place that formats and parses them. Listing a job's prefix reads like the pipeline:
//!
//! ```text
//! open/<job>                                   an accepted job that has not ended
//! jobs/<job>/0-job.json                        the job as the splitter took it up
//! jobs/<job>/1-batches/00000007-a1-<nonce>.parquet
//! jobs/<job>/2-plan.json                       plan or refusal
//! jobs/<job>/3-submissions/00000007-a1/0001.json
//! jobs/<job>/4-results/00000007-a1-<nonce>.parquet
//! jobs/<job>/4-results/00000007-a1.json        the attempt is collected
//! jobs/<job>/5-end.json                        last
//! jobs/<job>/cancel.json
//! outputs/<sha256 of the URI>/<n>              whose output
//! ```
//!
//! Keys are relative to the store's own prefix. Ids keep to grammars without slashes or dots, so no key can climb out of
//! its folder.

use crate::digest::sha256_hex;
use crate::ids::{BatchId, JobId, Nonce};

/// The folder of jobs that have not ended.
pub const OPEN: &str = "open/";
/// The folder of all jobs.
pub const JOBS: &str = "jobs/";

/// `open/<job>`.
#[must_use]
pub fn open(job: &JobId) -> String {
    format!("{OPEN}{job}")
}

/// The folder of one job, with its closing slash.
#[must_use]
pub fn job_folder(job: &JobId) -> String {
    format!("{JOBS}{job}/")
}

/// `0-job.json`.
#[must_use]
pub fn job(job: &JobId) -> String {
    format!("{JOBS}{job}/0-job.json")
}

/// The folder of batch data.
#[must_use]
pub fn batches_folder(job: &JobId) -> String {
    format!("{JOBS}{job}/1-batches/")
}

/// One batch data object.
#[must_use]
pub fn batch_data(job: &JobId, id: BatchId, nonce: &Nonce) -> String {
    format!("{JOBS}{job}/1-batches/{id}-{nonce}.parquet")
}

/// `2-plan.json`.
#[must_use]
pub fn plan(job: &JobId) -> String {
    format!("{JOBS}{job}/2-plan.json")
}

/// The folder of all submission logs.
#[must_use]
pub fn submissions_folder(job: &JobId) -> String {
    format!("{JOBS}{job}/3-submissions/")
}

/// What comes right before the logs of this batch and of those with higher numbers, and behind all others.
#[must_use]
pub fn submissions_from(job: &JobId, number: u32) -> String {
    format!("{}{number:08}", submissions_folder(job))
}

/// The folder of one batch attempt's submission log.
#[must_use]
pub fn submission_log(job: &JobId, id: BatchId) -> String {
    format!("{JOBS}{job}/3-submissions/{id}/")
}

/// One entry of a submission log; entries count from 1.
#[must_use]
pub fn submission(job: &JobId, id: BatchId, seq: u32) -> String {
    format!("{JOBS}{job}/3-submissions/{id}/{seq:04}.json")
}

/// The folder of results.
#[must_use]
pub fn results_folder(job: &JobId) -> String {
    format!("{JOBS}{job}/4-results/")
}

/// What comes right before the results of this batch and of those with higher numbers, and behind all others.
#[must_use]
pub fn results_from(job: &JobId, number: u32) -> String {
    format!("{}{number:08}", results_folder(job))
}

/// One result data object.
#[must_use]
pub fn result_data(job: &JobId, id: BatchId, nonce: &Nonce) -> String {
    format!("{JOBS}{job}/4-results/{id}-{nonce}.parquet")
}

/// The result fact of one batch attempt.
#[must_use]
pub fn result(job: &JobId, id: BatchId) -> String {
    format!("{JOBS}{job}/4-results/{id}.json")
}

/// `5-end.json`.
#[must_use]
pub fn end(job: &JobId) -> String {
    format!("{JOBS}{job}/5-end.json")
}

/// `cancel.json`.
#[must_use]
pub fn cancel(job: &JobId) -> String {
    format!("{JOBS}{job}/cancel.json")
}

/// The folder of claims on one output.
#[must_use]
pub fn output_claims(uri: &str) -> String {
    format!("outputs/{}/", sha256_hex(uri.as_bytes()))
}

/// One claim on an output; claims count from 1.
#[must_use]
pub fn output_claim(uri: &str, n: u32) -> String {
    format!("{}{n}", output_claims(uri))
}

/// The name under which a batch attempt's encoded file is uploaded: what identifies it at the provider, to people and to
/// the clean-up.
#[must_use]
pub fn upload_name(job: &JobId, id: BatchId, epoch: &Nonce) -> String {
    format!("batchmill-{job}-{id}-{epoch}.jsonl")
}

/// What lies at a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `open/<job>`.
    Open(JobId),
    /// `0-job.json`.
    Job(JobId),
    /// Batch data.
    BatchData(JobId, BatchId, Nonce),
    /// `2-plan.json`.
    Plan(JobId),
    /// A submission log's entry.
    Submission(JobId, BatchId, u32),
    /// Result data.
    ResultData(JobId, BatchId, Nonce),
    /// A result fact.
    Result(JobId, BatchId),
    /// `5-end.json`.
    End(JobId),
    /// `cancel.json`.
    Cancel(JobId),
    /// A claim on an output: the digest of its URI, and the claim's number.
    OutputClaim(String, u32),
}

/// Reads a key back; `None` for a key that none of the functions here writes.
#[must_use]
pub fn parse(key: &str) -> Option<Key> {
    let parsed = parse_any(key)?;
    (format(&parsed) == key).then_some(parsed)
}

fn parse_any(key: &str) -> Option<Key> {
    let parts: Vec<&str> = key.split('/').collect();
    match parts.as_slice() {
        ["open", job] => Some(Key::Open(job.parse().ok()?)),
        ["outputs", digest, n] if is_digest(digest) => Some(Key::OutputClaim((*digest).to_owned(), n.parse().ok()?)),
        ["jobs", job, rest @ ..] => parse_in_job(job.parse().ok()?, rest),
        _ => None,
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn parse_in_job(job: JobId, rest: &[&str]) -> Option<Key> {
    match rest {
        ["0-job.json"] => Some(Key::Job(job)),
        ["2-plan.json"] => Some(Key::Plan(job)),
        ["5-end.json"] => Some(Key::End(job)),
        ["cancel.json"] => Some(Key::Cancel(job)),
        ["1-batches", name] => data_name(name).map(|(id, nonce)| Key::BatchData(job, id, nonce)),
        ["3-submissions", id, entry] => {
            let seq = entry.strip_suffix(".json")?.parse().ok()?;
            Some(Key::Submission(job, id.parse().ok()?, seq))
        }
        ["4-results", name] => match name.strip_suffix(".json") {
            Some(id) => Some(Key::Result(job, id.parse().ok()?)),
            None => data_name(name).map(|(id, nonce)| Key::ResultData(job, id, nonce)),
        },
        _ => None,
    }
}

fn data_name(name: &str) -> Option<(BatchId, Nonce)> {
    let (id, nonce) = name.strip_suffix(".parquet")?.rsplit_once('-')?;
    Some((id.parse().ok()?, nonce.parse().ok()?))
}

/// The key as text.
#[must_use]
pub fn format(key: &Key) -> String {
    match key {
        Key::Open(id) => open(id),
        Key::Job(id) => job(id),
        Key::BatchData(id, batch, nonce) => batch_data(id, *batch, nonce),
        Key::Plan(id) => plan(id),
        Key::Submission(id, batch, seq) => submission(id, *batch, *seq),
        Key::ResultData(id, batch, nonce) => result_data(id, *batch, nonce),
        Key::Result(id, batch) => result(id, *batch),
        Key::End(id) => end(id),
        Key::Cancel(id) => cancel(id),
        Key::OutputClaim(digest, n) => format!("outputs/{digest}/{n}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_key() -> impl Strategy<Value = Key> {
        let job = "[a-z0-9][a-z0-9_-]{0,20}".prop_map(|text| text.parse::<JobId>().unwrap());
        let batch = (1u32.., 1u32..).prop_map(|(number, attempt)| BatchId { number, attempt });
        let nonce = any::<u64>().prop_map(Nonce::from_bits);
        (0..10, job, batch, nonce, any::<u32>()).prop_map(|(which, job, batch, nonce, n)| match which {
            0 => Key::Open(job),
            1 => Key::Job(job),
            2 => Key::BatchData(job, batch, nonce),
            3 => Key::Plan(job),
            4 => Key::Submission(job, batch, n),
            5 => Key::ResultData(job, batch, nonce),
            6 => Key::Result(job, batch),
            7 => Key::End(job),
            8 => Key::Cancel(job),
            _ => Key::OutputClaim(sha256_hex(nonce.as_str().as_bytes()), n),
        })
    }

    proptest! {
        #[test]
        fn every_key_reads_back_as_what_it_is(key in any_key()) {
            prop_assert_eq!(parse(&format(&key)), Some(key));
        }

        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_takes_it_writes_again(text in "(jobs|open|outputs)?/?[a-z0-9./-]{0,60}") {
            if let Some(key) = parse(&text) {
                prop_assert_eq!(format(&key), text);
            }
        }
    }

    proptest! {
        /// Numbers have 8 digits: more batches than that no job has.
        #[test]
        fn a_place_in_a_folder_parts_lower_numbers_from_the_others(
            at in 1u32..99_999_999, number in 1u32..99_999_999, attempt in 1u32..200, seq in 1u32..9_999,
        ) {
            let (job, id) = ("j".parse::<JobId>().unwrap(), BatchId { number, attempt });
            let (log, result) = (submission(&job, id, seq), result(&job, id));
            prop_assert!(log.starts_with(&submissions_folder(&job)) && result.starts_with(&results_folder(&job)));
            prop_assert_eq!(log > submissions_from(&job, at), number >= at);
            prop_assert_eq!(result > results_from(&job, at), number >= at);
            prop_assert_eq!(result_data(&job, id, &Nonce::from_bits(7)) > results_from(&job, at), number >= at);
        }
    }

    #[test]
    fn a_key_that_climbs_or_is_not_canonical_is_none_of_ours() {
        for key in [
            "jobs/../0-job.json",
            "jobs/a/b/0-job.json",
            "jobs/a/4-results/7-a1.json",
            "open/",
            "jobs/a/3-submissions/00000001-a1/1.json",
        ] {
            assert_eq!(parse(key), None, "{key}");
        }
    }
}
