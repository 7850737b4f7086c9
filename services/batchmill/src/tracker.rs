//! How far a job is, from durable facts alone: what is shown has happened, and shows again after a crash.
//!
//! Facts never change, so what was read once is not read again: a look costs one list, and a read for each new fact. The list
//! is as long as the job is large, so the larger the job, the more time is left between looks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::keys::{self, Key};
use model::price::{JobCost, Pricing};
use model::{
    BatchId, BatchRef, Counts, EndFact, JobFact, JobId, PlanFact, PlanOutcome, ResultFact, SubmissionEntry,
    SubmissionStep, Tokens,
};
use runtime::store::Listed;
use runtime::{Clock, Context, Store, rest_after};
use serde::Serialize;

/// No longer than that it is not looked at a job, however long the list.
const LONGEST_REST: Duration = Duration::from_secs(120);

/// Reads a job's facts again and again.
pub(crate) struct Tracker {
    store: Store,
    clock: Clock,
    job: JobId,
    /// On the process's monotonic clock: before that another look is too soon, unless the job has ended.
    next_look: Duration,
    fact: Option<JobFact>,
    plan: Option<PlanFact>,
    stored_batches: BTreeSet<BatchId>,
    logs: BTreeMap<BatchId, (u32, SubmissionStep)>,
    results: BTreeMap<BatchId, ResultFact>,
    cancelled: bool,
    end: Option<EndFact>,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// The job.
    pub(crate) job: JobId,
    /// In one word: unknown, splitting, running, merging, ended, refused.
    pub(crate) state: &'static str,
    /// Whether somebody asked that nothing more be spent.
    pub(crate) cancelled: bool,
    /// Batches whose data is stored.
    pub(crate) batches_split: u64,
    /// Batches of the plan, once there is one.
    pub(crate) batches_planned: Option<u64>,
    /// Rows of the input, once it is planned.
    pub(crate) rows: Option<u64>,
    /// Rows of batches that a provider has, or had.
    pub(crate) rows_submitted: u64,
    /// Rows that have ended, by outcome.
    pub(crate) counts: Counts,
    /// Tokens so far.
    pub(crate) tokens: Tokens,
    /// What they cost; none before the plan, and if the list of prices lacks the model.
    pub(crate) cost: Option<JobCost>,
    /// How it ended, once it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<EndFact>,
}

impl Tracker {
    pub(crate) fn new(context: &Context, job: &JobId) -> Self {
        Self {
            store: context.store.clone(),
            clock: context.clock.clone(),
            job: job.clone(),
            next_look: Duration::ZERO,
            fact: None,
            plan: None,
            stored_batches: BTreeSet::new(),
            logs: BTreeMap::new(),
            results: BTreeMap::new(),
            cancelled: false,
            end: None,
        }
    }

    /// Whether it is time for another look: it is as soon as the job has ended, which one question tells.
    pub(crate) async fn is_due(&self) -> anyhow::Result<bool> {
        Ok(self.clock.monotonic() >= self.next_look || self.store.exists(&keys::end(&self.job)).await?)
    }

    /// Reads what is new.
    pub(crate) async fn look(&mut self) -> anyhow::Result<Status> {
        let began = self.clock.monotonic();
        let listed = self.store.list(&keys::job_folder(&self.job)).await?;
        // What is read below is read once in all: it is the list that is made again and again.
        let rest = rest_after(self.clock.monotonic().saturating_sub(began), LONGEST_REST);
        self.read(listed).await?;
        self.next_look = self.clock.monotonic() + rest;
        Ok(self.status())
    }

    async fn read(&mut self, listed: Vec<Listed>) -> anyhow::Result<()> {
        let (mut logs, mut results): (BTreeMap<BatchId, u32>, Vec<BatchId>) = Default::default();
        for listed in listed {
            match keys::parse(&listed.key) {
                Some(Key::Job(_)) if self.fact.is_none() => self.fact = self.store.get_json(&listed.key).await?,
                Some(Key::Plan(_)) if self.plan.is_none() => self.plan = self.store.get_json(&listed.key).await?,
                Some(Key::End(_)) if self.end.is_none() => self.end = self.store.get_json(&listed.key).await?,
                Some(Key::Cancel(_)) => self.cancelled = true,
                Some(Key::BatchData(_, id, _)) if id.attempt == 1 => drop(self.stored_batches.insert(id)),
                Some(Key::Submission(_, id, seq)) => {
                    let latest = logs.entry(id).or_default();
                    *latest = seq.max(*latest);
                }
                Some(Key::Result(_, id)) if !self.results.contains_key(&id) => results.push(id),
                _ => {}
            }
        }
        logs.retain(|id, seq| self.logs.get(id).is_none_or(|(known, _)| known < seq));
        let (store, job) = (&self.store, &self.job);
        let results = store.get_each(results.into_iter().map(|id| (id, keys::result(job, id)))).await?;
        let logs = logs.into_iter().map(|(id, seq)| ((id, seq), keys::submission(job, id, seq)));
        let logs = store.get_each::<_, SubmissionEntry>(logs).await?;
        self.results.extend(results.into_iter().filter_map(|(id, result)| Some((id, result?))));
        self.logs.extend(logs.into_iter().filter_map(|((id, seq), entry)| Some((id, (seq, entry?.step)))));
        Ok(())
    }

    fn status(&self) -> Status {
        let planned = self.plan.as_ref().and_then(|plan| match &plan.outcome {
            PlanOutcome::Planned { rows, batches, pricing, .. } => Some((*rows, batches, pricing)),
            PlanOutcome::Refused { .. } => None,
        });
        let batches = planned.map_or(&[][..], |(_, batches, _)| batches);
        let price = planned.and_then(|(.., pricing)| pricing.as_ref()).and_then(Pricing::listed);
        let mut counts = Counts::default();
        let mut tokens = Tokens::default();
        for result in self.results.values() {
            counts += &result.counts;
            tokens += result.tokens;
        }
        // What was tried again counts once it has ended.
        counts.rows -= counts.retried;
        counts.retried = 0;
        Status {
            job: self.job.clone(),
            state: self.state(batches),
            cancelled: self.cancelled,
            batches_split: self.stored_batches.len() as u64,
            batches_planned: planned.map(|(_, batches, _)| batches.len() as u64),
            rows: planned.map(|(rows, ..)| rows),
            rows_submitted: batches.iter().filter(|batch| self.is_submitted(batch)).map(|batch| batch.data.rows).sum(),
            counts: self.end.as_ref().map_or(counts, |end| end.counts.clone()),
            tokens,
            cost: price.map(|price| price.job(self.results.values())),
            end: self.end.clone(),
        }
    }

    fn is_submitted(&self, batch: &BatchRef) -> bool {
        let ended = |(_, step): &(u32, SubmissionStep)| {
            matches!(step, SubmissionStep::Submitted { .. } | SubmissionStep::Unsent { .. })
        };
        self.results.contains_key(&batch.id) || self.logs.get(&batch.id).is_some_and(ended)
    }

    fn state(&self, batches: &[BatchRef]) -> &'static str {
        let covered = || batches.iter().all(|first| self.is_covered(first));
        match (&self.end, &self.plan, &self.fact) {
            (Some(end), ..) if end.refusal.is_some() => "refused",
            (Some(_), ..) => "ended",
            (None, Some(_), _) if covered() => "merging",
            (None, Some(_), _) => "running",
            (None, None, Some(_)) => "splitting",
            (None, None, None) => "unknown",
        }
    }

    fn is_covered(&self, first: &BatchRef) -> bool {
        let mut id = first.id;
        while let Some(result) = self.results.get(&id) {
            match &result.next {
                Some(next) => id = next.id,
                None => return true,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_has_ended_is_looked_at_at_once() {
        let context = Context::in_memory(1, runtime::settings::Settings::default()).unwrap();
        let mut tracker = Tracker::new(&context, &"j".parse().unwrap());
        assert!(tracker.is_due().await.unwrap(), "the first look");
        assert_eq!(tracker.look().await.unwrap().state, "unknown");
        tracker.next_look = Duration::from_secs(3_600);
        assert!(!tracker.is_due().await.unwrap());
        let mut end = context.store.upload(&keys::end(&tracker.job));
        end.write(b"{}".to_vec()).await.unwrap();
        end.finish().await.unwrap();
        assert!(tracker.is_due().await.unwrap());
    }
}
