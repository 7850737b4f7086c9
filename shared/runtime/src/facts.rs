//! Reading a job's facts.

use std::collections::BTreeMap;

use model::facts::JobFacts;
use model::keys::{self, Key};
use model::{BatchId, JobId, ResultFact, SubmissionEntry};
use serde::de::DeserializeOwned;

use crate::store::{Error, Listed, Result, Store};

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
    let submissions = latest.into_iter().map(|(id, seq)| ((id, seq), keys::submission(job, id, seq)));
    let results = results.into_iter().map(|id| (id, keys::result(job, id)));
    Ok(JobFacts {
        open: store.get_json(&keys::open(job)).await?,
        job: store.get_json(&keys::job(job)).await?,
        plan: store.get_json(&keys::plan(job)).await?,
        submissions: required(store, submissions, |(id, seq), entry: SubmissionEntry| (id, (seq, entry.step))).await?,
        results: required(store, results, |id, fact: ResultFact| (id, fact)).await?,
        cancelled: found.iter().any(|key| matches!(key, Key::Cancel(_))),
        end: store.get_json(&keys::end(job)).await?,
    })
}

/// Facts that were listed, so each of them must be there.
async fn required<K, T: DeserializeOwned, V>(
    store: &Store,
    wanted: impl Iterator<Item = (K, String)>,
    of: impl Fn(K, T) -> (BatchId, V),
) -> Result<BTreeMap<BatchId, V>> {
    let read = store.get_each(wanted.map(|(name, key)| ((name, key.clone()), key))).await?;
    let read = read.into_iter().map(|((name, key), fact)| Ok(of(name, fact.ok_or(Error::Missing { key })?)));
    read.collect()
}
