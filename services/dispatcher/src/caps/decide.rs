//! Who has the next place under a cap. No IO and no clock.
//!
//! A batch is under the cap of its account, under that of its model, or under both, and needs a place under each. The rules:
//!
//! 1. A full cap lets nobody in.
//! 2. While another job waits for a cap, a job that holds half of it or more gets no further place there. A job alone may have all
//!    of it. A job waits for a cap only if its other cap would let it in: nothing is kept free for one who could not use it.
//! 3. Of those who may have a place, the job that holds least is next, then the one that has waited longest. Who holds nothing is
//!    never passed over for ever, since all others have as little only after those before them.
//!
//! So no place stays empty while somebody in this process could use it and no other process's job is waiting for it.

use std::collections::{BTreeMap, VecDeque};

use model::JobId;

/// A cap of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// The provider's name in the settings: the account.
    pub provider: String,
    /// The model as the provider names it; none: all of the account.
    pub model: Option<String>,
    /// The most batches at a time.
    pub limit: u64,
}

impl Cap {
    /// Whether it is a cap on this job's batches.
    #[must_use]
    pub fn covers(&self, job: &Standing) -> bool {
        self.is_on(&job.provider, &job.model)
    }

    /// Whether it is a cap on batches of this account and model.
    #[must_use]
    pub fn is_on(&self, provider: &str, model: &str) -> bool {
        self.provider == provider && self.model.as_deref().is_none_or(|of| of == model)
    }

    /// What all jobs hold of it.
    #[must_use]
    pub fn held(&self, jobs: &BTreeMap<JobId, Standing>) -> u64 {
        jobs.values().filter(|job| self.covers(job)).map(|job| job.held).sum()
    }
}

/// What is known of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its account.
    pub provider: String,
    /// Its model as the provider names it.
    pub model: String,
    /// Its batches that count: taken on by a dispatcher and not collected.
    pub held: u64,
    /// Its batches that nobody has taken on, here or elsewhere.
    pub waiting: u64,
}

/// The jobs that get the next places, in order and at most so many, of those that ask in this process. `asking` has the arrivals
/// of each one's requests, first to last; `jobs` stand afterwards as if the places were taken.
#[must_use]
pub fn grants(
    caps: &[Cap],
    jobs: &mut BTreeMap<JobId, Standing>,
    mut asking: BTreeMap<JobId, VecDeque<u64>>,
    most: usize,
) -> Vec<JobId> {
    let mut granted = Vec::new();
    while granted.len() < most {
        asking.retain(|_, arrivals| !arrivals.is_empty());
        let first = asking.iter().filter_map(|(id, arrivals)| Some((id, *arrivals.front()?)));
        let Some(next) = next(caps, jobs, first) else { break };
        if let Some(job) = jobs.get_mut(&next) {
            job.held += 1;
            job.waiting = job.waiting.saturating_sub(1);
        }
        asking.entry(next.clone()).or_default().pop_front();
        granted.push(next);
    }
    granted
}

/// The job that gets the next place.
fn next<'j>(
    caps: &[Cap],
    jobs: &BTreeMap<JobId, Standing>,
    asking: impl Iterator<Item = (&'j JobId, u64)>,
) -> Option<JobId> {
    let room: Vec<bool> = caps.iter().map(|cap| cap.held(jobs) < cap.limit).collect();
    let roomy = |job: &Standing, but: usize| {
        caps.iter().enumerate().all(|(index, cap)| index == but || room[index] || !cap.covers(job))
    };
    let contended = |index: usize, id: &JobId| {
        let cap = &caps[index];
        jobs.iter().any(|(other, job)| other != id && job.waiting > 0 && cap.covers(job) && roomy(job, index))
    };
    let may = |id: &JobId, job: &Standing| {
        caps.iter()
            .enumerate()
            .filter(|(_, cap)| cap.covers(job))
            .all(|(index, cap)| room[index] && !(job.held.saturating_mul(2) >= cap.limit && contended(index, id)))
    };
    let asking = asking.filter_map(|(id, arrival)| Some((id, arrival, jobs.get(id)?)));
    let allowed = asking.filter(|(id, _, job)| may(id, job));
    allowed.min_by_key(|(_, arrival, job)| (job.held, *arrival)).map(|(id, ..)| id.clone())
}

#[cfg(test)]
mod tests;
