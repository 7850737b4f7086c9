//! What the facts say of the places: which batches have been taken on and are not collected.
//!
//! A batch attempt holds a place from the first entry of its submission log to its result fact. Both are there for all to see, so
//! every dispatcher comes to the same count, whoever took the batch on and whatever has died since. A job waits as long as its
//! plan has batches without a log.
//!
//! A listing is in the order of the keys, and logs come before results: what was taken on before the listing began is in it, and
//! what it misses was taken on while it was made.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use model::keys::{self, Key};
use model::{BatchId, JobFact, JobId, PlanFact, PlanOutcome};
use runtime::Store;
use runtime::store::Error;

use super::decide::Standing;

/// Jobs that are listed at a time.
const PARALLEL: usize = 16;

/// A batch attempt of a job.
pub(super) type Attempt = (JobId, BatchId);

/// What never changes about a job.
#[derive(Debug, Clone)]
struct Planned {
    provider: String,
    model: String,
    batches: usize,
}

/// One job's folder, as it was listed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Folder {
    planned: bool,
    cancelled: bool,
    taken: BTreeSet<BatchId>,
    collected: BTreeSet<BatchId>,
}

impl Folder {
    fn of<'k>(listed: impl Iterator<Item = &'k str>) -> Self {
        let mut folder = Self::default();
        for key in listed.filter_map(keys::parse) {
            match key {
                Key::Plan(_) => folder.planned = true,
                Key::Cancel(_) => folder.cancelled = true,
                Key::Submission(_, id, _) => drop(folder.taken.insert(id)),
                Key::Result(_, id) => drop(folder.collected.insert(id)),
                _ => {}
            }
        }
        folder
    }
}

/// What was read of all open jobs.
#[derive(Debug, Default)]
pub(super) struct Reading {
    jobs: BTreeMap<JobId, (Planned, Folder)>,
}

impl Reading {
    /// How the jobs stand, with what this process has let in itself and the listing may not have seen.
    pub(super) fn standings(&self, ours: &BTreeSet<Attempt>) -> BTreeMap<JobId, Standing> {
        let standing = |(job, (planned, folder)): (&JobId, &(Planned, Folder))| {
            let ours = ours.iter().filter(|(of, _)| of == job).map(|(_, id)| *id);
            let taken: BTreeSet<BatchId> = folder.taken.iter().copied().chain(ours).collect();
            let begun = taken.iter().filter(|id| id.attempt == 1).count();
            let standing = Standing {
                provider: planned.provider.clone(),
                model: planned.model.clone(),
                held: taken.difference(&folder.collected).count() as u64,
                // The batches of a cancelled job need no place.
                waiting: if folder.cancelled { 0 } else { planned.batches.saturating_sub(begun) as u64 },
            };
            (job.clone(), standing)
        };
        self.jobs.iter().map(standing).collect()
    }
}

/// Reads facts, and keeps what can't change.
#[derive(Debug)]
pub(super) struct Reader {
    store: Store,
    /// None for a job that was refused or whose facts can't be read.
    known: BTreeMap<JobId, Option<Planned>>,
}

impl Reader {
    pub(super) fn new(store: &Store) -> Self {
        Self { store: store.clone(), known: BTreeMap::new() }
    }

    /// Reads all open jobs, and these.
    ///
    /// # Errors
    /// When the store can't be read: part of the facts is no count.
    pub(super) async fn read(&mut self, also: BTreeSet<JobId>) -> Result<Reading, Error> {
        let open = self.store.list(keys::OPEN).await?;
        let open = open.iter().filter_map(|object| keys::parse(&object.key));
        let open = open.filter_map(|key| if let Key::Open(job) = key { Some(job) } else { None });
        let jobs: BTreeSet<JobId> = open.chain(also).collect();
        self.known.retain(|job, _| jobs.contains(job));
        let refused: BTreeSet<&JobId> =
            self.known.iter().filter(|(_, planned)| planned.is_none()).map(|(job, _)| job).collect();
        let listings = jobs.into_iter().filter(|job| !refused.contains(job)).map(|job| {
            let store = self.store.clone();
            async move {
                let listed = store.list(&keys::job_folder(&job)).await?;
                Ok::<_, Error>((job, Folder::of(listed.iter().map(|object| object.key.as_str()))))
            }
        });
        let folders: Vec<(JobId, Folder)> = stream::iter(listings).buffered(PARALLEL).try_collect().await?;
        let mut reading = Reading::default();
        for (job, folder) in folders.into_iter().filter(|(_, folder)| folder.planned) {
            if let Some(planned) = self.planned(&job).await? {
                reading.jobs.insert(job, (planned, folder));
            }
        }
        Ok(reading)
    }

    async fn planned(&mut self, job: &JobId) -> Result<Option<Planned>, Error> {
        if let Some(known) = self.known.get(job) {
            return Ok(known.clone());
        }
        let planned = match self.plan(job).await {
            Err(error @ Error::Corrupt { .. }) => {
                tracing::warn!(%job, %error, "a job's facts can't be read: it counts for no cap");
                None
            }
            read => read?,
        };
        self.known.insert(job.clone(), planned.clone());
        Ok(planned)
    }

    async fn plan(&self, job: &JobId) -> Result<Option<Planned>, Error> {
        let fact = self.store.get_json::<JobFact>(&keys::job(job)).await?;
        let plan = self.store.get_json::<PlanFact>(&keys::plan(job)).await?;
        let (Some(fact), Some(PlanFact { outcome: PlanOutcome::Planned { batches, .. }, .. })) = (fact, plan) else {
            return Ok(None);
        };
        let (provider, model) = (fact.spec.provider().to_owned(), fact.spec.provider_model().to_owned());
        Ok(Some(Planned { provider, model, batches: batches.len() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32, attempt: u32) -> BatchId {
        BatchId { number, attempt }
    }

    fn reading(keys: &[String]) -> Reading {
        let planned = Planned { provider: "p".to_owned(), model: "m".to_owned(), batches: 3 };
        let folder = Folder::of(keys.iter().map(String::as_str));
        Reading { jobs: [(job(), (planned, folder))].into() }
    }

    fn job() -> JobId {
        "j".parse().unwrap()
    }

    fn counts(keys: &[String], ours: &[BatchId]) -> (u64, u64) {
        let ours = ours.iter().map(|id| (job(), *id)).collect();
        let standing = &reading(keys).standings(&ours)[&job()];
        (standing.held, standing.waiting)
    }

    #[test]
    fn a_batch_holds_a_place_from_its_first_log_entry_to_its_result() {
        let log = |of: BatchId, seq: u32| keys::submission(&job(), of, seq);
        let result = |of: BatchId| keys::result(&job(), of);
        assert_eq!(counts(&[keys::plan(&job())], &[]), (0, 3));
        assert_eq!(counts(&[log(id(1, 1), 1), log(id(1, 1), 2), log(id(2, 1), 1)], &[]), (2, 1));
        assert_eq!(counts(&[log(id(1, 1), 1), result(id(1, 1))], &[]), (0, 2));
        assert_eq!(counts(&[log(id(1, 1), 1), log(id(1, 2), 1), result(id(1, 1))], &[]), (1, 2), "a retry counts");
        assert_eq!(counts(&[log(id(1, 1), 1), keys::cancel(&job())], &[]), (1, 0), "a cancelled job needs no more");
    }

    #[test]
    fn our_own_places_count_once_whether_the_listing_has_them_or_not() {
        let (log, result) = (keys::submission(&job(), id(1, 1), 1), keys::result(&job(), id(1, 1)));
        assert_eq!(counts(&[], &[id(1, 1)]), (1, 2));
        assert_eq!(counts(std::slice::from_ref(&log), &[id(1, 1)]), (1, 2));
        assert_eq!(counts(&[log, result], &[id(1, 1)]), (0, 2), "collected before the reading was used");
    }

    #[tokio::test]
    async fn jobs_that_are_not_planned_or_refused_or_unreadable_count_for_nothing() {
        let store = Store::in_memory();
        for (key, body) in
            [("open/new", "{}"), ("open/bad", "{}"), ("jobs/bad/2-plan.json", "?"), ("jobs/bad/0-job.json", "?")]
        {
            let mut upload = store.upload(key);
            upload.write(body.as_bytes().to_vec()).await.unwrap();
            upload.finish().await.unwrap();
        }
        let mut reader = Reader::new(&store);
        for _ in 0..2 {
            assert!(reader.read(BTreeSet::new()).await.unwrap().jobs.is_empty());
        }
        assert_eq!(reader.known.len(), 1, "what can't be read is not read again, what is not planned is");
    }
}
