//! What the facts say of the places: which batches have been taken on and are not collected.
//!
//! A batch attempt holds a place from the first entry of its submission log to its result fact. Both are there for all to see, so
//! every dispatcher comes to the same count, whoever took the batch on and whatever has died since. A job waits as long as its
//! plan has batches without a log.
//!
//! A reading first lists the logs from the first batch on that had none (where there are only few such among many, it asks for those
//! and lists what is behind), and then follows each batch that is not done: is its result
//! there, does that order another attempt, has that a log ([`super::chains`]). An attempt is only taken on after the result
//! that orders it. So what was taken on before the reading began is in it, and what it misses was taken on while it was made.
//! Of what is done nothing is read again, so a reading is about as long as what is in flight, not as the job; the first of a process
//! reads the results of all that is done. (A listing from a key on is short where the server begins there, as S3 does; a folder of
//! this machine is walked through.)

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use model::keys::{self, Key};
use model::{BatchId, JobFact, JobId, PlanFact, PlanOutcome, ResultFact};
use runtime::Store;
use runtime::store::Error;

use super::chains::{Chains, Stage};
use super::decide::{Cap, Standing};

/// Jobs that are read at a time, and batches of each.
const PARALLEL: usize = 16;
/// Batches that are followed before it is noted where they stand: an error later on does not lose that.
const NOTED: usize = 1_000;

/// A batch attempt of a job.
pub(super) type Attempt = (JobId, BatchId);

/// What never changes about a job.
#[derive(Debug, Clone)]
struct Planned {
    provider: String,
    model: String,
    batches: usize,
}

/// What is known of a job that has a plan. It only grows.
#[derive(Debug, Clone)]
struct Known {
    /// None for a job that was refused, that no cap covers, or whose facts can't be read.
    planned: Option<Planned>,
    cancelled: bool,
    chains: Chains,
}

impl Known {
    /// How the job stands, with first attempts that this process has let in itself and the reading may not have seen.
    fn standing(&self, ours: impl Iterator<Item = BatchId>) -> Option<Standing> {
        let planned = self.planned.as_ref()?;
        let unseen = ours.filter(|id| !self.chains.has_begun(id.number)).count() as u64;
        let waiting = (planned.batches as u64).saturating_sub(self.chains.begun() + unseen);
        Some(Standing {
            provider: planned.provider.clone(),
            model: planned.model.clone(),
            held: self.chains.held() + unseen,
            // The batches of a cancelled job need no place.
            waiting: if self.cancelled { 0 } else { waiting },
        })
    }
}

/// What was read of all open jobs.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    jobs: &'a BTreeMap<JobId, Known>,
}

impl Reading<'_> {
    /// How the jobs stand, with what this process has let in itself and the reading may not have seen.
    pub(super) fn standings(&self, ours: &BTreeSet<Attempt>) -> BTreeMap<JobId, Standing> {
        let standing = |(job, known): (&JobId, &Known)| {
            let ours = ours.iter().filter(|(of, _)| of == job).map(|(_, id)| *id);
            Some((job.clone(), known.standing(ours)?))
        };
        self.jobs.iter().filter_map(standing).collect()
    }
}

/// Reads facts, and keeps what can't change.
#[derive(Debug)]
pub(super) struct Reader {
    store: Store,
    caps: Vec<Cap>,
    known: BTreeMap<JobId, Known>,
}

impl Reader {
    /// A reader of the jobs that these caps cover; others are of no interest.
    pub(super) fn new(store: &Store, caps: &[Cap]) -> Self {
        Self { store: store.clone(), caps: caps.to_vec(), known: BTreeMap::new() }
    }

    /// Reads all open jobs, and these.
    ///
    /// # Errors
    /// When the store can't be read: part of the facts is no count.
    pub(super) async fn read(&mut self, also: BTreeSet<JobId>) -> Result<Reading<'_>, Error> {
        let open = self.store.list(keys::OPEN).await?;
        let open = open.iter().filter_map(|object| keys::parse(&object.key));
        let open = open.filter_map(|key| if let Key::Open(job) = key { Some(job) } else { None });
        let jobs: BTreeSet<JobId> = open.chain(also).collect();
        let mut before = std::mem::take(&mut self.known);
        // What was read of each is kept, also where some could not be read.
        let (mut begun, mut failed) = (Vec::with_capacity(jobs.len()), None);
        // One plan at a time: they may be large.
        for job in jobs {
            let known = match before.remove(&job) {
                Some(known) => Ok(Some(known)),
                None => plan(&self.store, &self.caps, &job).await,
            };
            match known {
                Ok(known) => begun.extend(known.map(|known| (job, known))),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let reads = begun.into_iter().map(|(job, mut known)| {
            let store = self.store.clone();
            async move {
                let read = update(&store, &job, &mut known).await;
                (job, known, read)
            }
        });
        let reads: Vec<(JobId, Known, Result<(), Error>)> = stream::iter(reads).buffered(PARALLEL).collect().await;
        for (job, known, read) in reads {
            self.known.insert(job, known);
            failed = failed.or(read.err());
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(Reading { jobs: &self.known }),
        }
    }
}

/// Reads what is new of a job.
async fn update(store: &Store, job: &JobId, known: &mut Known) -> Result<(), Error> {
    let Some(planned) = &known.planned else { return Ok(()) };
    // Once all have begun none waits, cancelled or not.
    if known.chains.begun() < planned.batches as u64 {
        known.cancelled = known.cancelled || store.exists(&keys::cancel(job)).await?;
        begin(store, job, planned.batches, &mut known.chains).await?;
    }
    advance(store, job, &mut known.chains).await
}

/// Finds the batches that have begun.
async fn begin(store: &Store, job: &JobId, batches: usize, chains: &mut Chains) -> Result<(), Error> {
    let (gaps, from) = chains.gaps(PARALLEL).unwrap_or_else(|| (Vec::new(), chains.first_missing()));
    let asked = gaps.into_iter().map(|number| {
        let (store, log) = (store.clone(), keys::submission(job, BatchId { number, attempt: 1 }, 1));
        async move { Ok::<_, Error>((number, store.exists(&log).await?)) }
    });
    let asked: Vec<(u32, bool)> = stream::iter(asked).buffered(PARALLEL).try_collect().await?;
    let listed = store.list_after(&keys::submissions_folder(job), &keys::submissions_from(job, from)).await?;
    let listed = listed.iter().filter_map(|object| match keys::parse(&object.key) {
        Some(Key::Submission(_, id, _)) => Some(id.number),
        _ => None,
    });
    let there = asked.into_iter().filter(|(_, there)| *there).map(|(number, _)| number);
    // No batch of ours lies beyond the plan; others are not counted.
    let planned = there.chain(listed).filter(|number| *number as usize <= batches);
    planned.for_each(|number| chains.begin(number));
    Ok(())
}

/// What a job's plan says; none as long as there is no plan.
async fn plan(store: &Store, caps: &[Cap], job: &JobId) -> Result<Option<Known>, Error> {
    let planned = match planned(store, caps, job).await {
        Err(error @ Error::Corrupt { .. }) => {
            tracing::warn!(%job, %error, "a job's facts can't be read: it counts for no cap");
            Some(None)
        }
        read => read?,
    };
    Ok(planned.map(|planned| Known { planned, cancelled: false, chains: Chains::default() }))
}

/// None without a plan; the inner none for a job that was refused or that no cap covers.
async fn planned(store: &Store, caps: &[Cap], job: &JobId) -> Result<Option<Option<Planned>>, Error> {
    let Some(plan) = store.get_json::<PlanFact>(&keys::plan(job)).await? else { return Ok(None) };
    let fact = store.get_json::<JobFact>(&keys::job(job)).await?;
    let (Some(fact), PlanOutcome::Planned { batches, .. }) = (fact, plan.outcome) else { return Ok(Some(None)) };
    let (provider, model) = (fact.spec.provider().to_owned(), fact.spec.provider_model().to_owned());
    let is_covered = caps.iter().any(|cap| cap.is_on(&provider, &model));
    Ok(Some(is_covered.then_some(Planned { provider, model, batches: batches.len() })))
}

/// Follows the batches that are not done to where they stand now.
async fn advance(store: &Store, job: &JobId, chains: &mut Chains) -> Result<(), Error> {
    let collected = match chains.list_results_from(PARALLEL) {
        Some(lowest) => Some(collected(store, job, lowest).await?),
        None => None,
    };
    let has_news = |number: u32, stage: Stage| match (stage, &collected) {
        (Stage::Taken(attempt), Some(collected)) => collected.contains(&BatchId { number, attempt }),
        _ => true,
    };
    let open: Vec<(u32, Stage)> = chains.open().filter(|(number, stage)| has_news(*number, *stage)).collect();
    for part in open.chunks(NOTED) {
        let steps = part.iter().copied().map(|(number, stage)| {
            let (store, job) = (store.clone(), job.clone());
            async move { Ok::<_, Error>((number, follow(&store, &job, number, stage).await?)) }
        });
        let stages: Vec<(u32, Stage)> = stream::iter(steps).buffered(PARALLEL).try_collect().await?;
        stages.into_iter().for_each(|(number, stage)| chains.set(number, stage));
    }
    Ok(())
}

/// The attempts with a result, of this batch and those with higher numbers.
async fn collected(store: &Store, job: &JobId, lowest: u32) -> Result<BTreeSet<BatchId>, Error> {
    let listed = store.list_after(&keys::results_folder(job), &keys::results_from(job, lowest)).await?;
    let keys = listed.iter().filter_map(|object| keys::parse(&object.key));
    Ok(keys.filter_map(|key| if let Key::Result(_, id) = key { Some(id) } else { None }).collect())
}

/// Where a batch stands now that stood there when it was last read.
async fn follow(store: &Store, job: &JobId, number: u32, mut stage: Stage) -> Result<Stage, Error> {
    loop {
        stage = match stage {
            Stage::Done => return Ok(stage),
            Stage::Taken(attempt) => {
                match store.get_json::<ResultFact>(&keys::result(job, BatchId { number, attempt })).await {
                    Ok(None) => return Ok(stage),
                    Ok(Some(ResultFact { next: Some(_), .. })) => Stage::Ordered(attempt.saturating_add(1)),
                    Ok(Some(_)) => Stage::Done,
                    // It is collected, whatever the fact says. Should it have ordered another attempt, that has a log one day.
                    Err(error @ Error::Corrupt { .. }) => {
                        tracing::warn!(%job, number, attempt, %error, "a result fact can't be read: it frees its place");
                        Stage::Ordered(attempt.saturating_add(1))
                    }
                    Err(error) => return Err(error),
                }
            }
            Stage::Ordered(attempt) => {
                let log = keys::submission(job, BatchId { number, attempt }, 1);
                if !store.exists(&log).await? {
                    return Ok(stage);
                }
                Stage::Taken(attempt)
            }
        };
    }
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
