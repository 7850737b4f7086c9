//! Reading a job's facts.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use model::facts::JobFacts;
use model::keys::{self, Key};
use model::{BatchId, JobId, ResultFact, SubmissionEntry, SubmissionStep};

use crate::store::{Error, Listed, Result, Store};

/// Facts that are read at a time.
const PARALLEL_READS: usize = 16;

/// All facts of a job: which exist, and what the small ones say. Of each submission log the latest entry.
///
/// # Errors
/// If any could not be read: part of the facts is no state.
pub async fn load_facts(store: &Store, job: &JobId) -> Result<JobFacts> {
    let listed = store.list(&keys::job_folder(job)).await?;
    load_listed(store, job, &listed).await
}

/// The same from a listing of the job's folder that is there already.
pub(crate) async fn load_listed(store: &Store, job: &JobId, listed: &[Listed]) -> Result<JobFacts> {
    let found: Vec<Key> = listed.iter().filter_map(|object| keys::parse(&object.key)).collect();
    let mut latest: BTreeMap<BatchId, u32> = BTreeMap::new();
    let mut results = Vec::new();
    for key in &found {
        match key {
            Key::Submission(_, id, seq) => {
                let last = latest.entry(*id).or_default();
                *last = (*last).max(*seq);
            }
            Key::Result(_, id) => results.push(*id),
            _ => {}
        }
    }
    let submissions = latest.into_iter().map(async |(id, seq)| {
        let entry: SubmissionEntry = required(store, &keys::submission(job, id, seq)).await?;
        Ok::<(BatchId, (u32, SubmissionStep)), Error>((id, (seq, entry.step)))
    });
    let results = results.into_iter().map(async |id| {
        let fact: ResultFact = required(store, &keys::result(job, id)).await?;
        Ok::<(BatchId, ResultFact), Error>((id, fact))
    });
    Ok(JobFacts {
        open: store.get_json(&keys::open(job)).await?,
        job: store.get_json(&keys::job(job)).await?,
        plan: store.get_json(&keys::plan(job)).await?,
        submissions: stream::iter(submissions).buffer_unordered(PARALLEL_READS).try_collect().await?,
        results: stream::iter(results).buffer_unordered(PARALLEL_READS).try_collect().await?,
        cancelled: found.iter().any(|key| matches!(key, Key::Cancel(_))),
        end: store.get_json(&keys::end(job)).await?,
    })
}

async fn required<T: serde::de::DeserializeOwned>(store: &Store, key: &str) -> Result<T> {
    store.get_json(key).await?.ok_or_else(|| Error::Missing { key: key.to_owned() })
}
