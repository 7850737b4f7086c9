//! A job as the rooms behind the splitter see it: what its facts say, ready for use, and kept for the next batch.
//!
//! Events are hints. What a room acts on is looked up here: the job from `0-job.json` and `2-plan.json`, a batch attempt
//! from the plan or from the result fact that orders it. Both are immutable, so they may be kept. A plan is as long as its job
//! is large: its batches are kept packed, and of large jobs fewer are kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::Timestamp;
use model::price::ListedPrice;
use model::retry::RetryTable;
use model::{BatchId, BatchRef, JobFact, JobId, JobSpec, PlanFact, PlanOutcome, ResultFact, TableInfo, Team, keys};
use providers::{Provider, Providers};
use runtime::Store;
use tokio::sync::Mutex as AsyncMutex;

use crate::Requests;
use crate::first::FirstAttempts;

/// How many jobs are kept; a job beyond them is read again.
const KEPT: usize = 64;
/// How many batches all kept jobs have, unless one has more: 160 MB. Jobs in use come on top.
const KEPT_BATCHES: usize = 2_000_000;

/// A planned job.
pub struct Job {
    /// Its spec.
    pub spec: JobSpec,
    /// Its team.
    pub team: Team,
    /// The input's layout.
    pub table: TableInfo,
    /// After this time nothing new is tried.
    pub deadline: Timestamp,
    /// What is tried again, and how often, as the plan froze it.
    pub retry: RetryTable,
    /// What its tokens cost, as the plan froze it; none if the list of prices lacked its model.
    pub price: Option<ListedPrice>,
    /// First attempts, by number from 1.
    first: FirstAttempts,
    /// Makes its requests.
    pub requests: Requests,
    /// Answers them.
    pub provider: Arc<dyn Provider>,
}

/// An event that no fact stands behind: it was forged, or its job's objects were removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// There is no plan.
    #[error("job {0} has no plan with batches: the event is not from a room of this store")]
    Job(JobId),
    /// No fact orders this batch attempt.
    #[error("job {0} has no batch attempt {1}: the event is not from a room of this store")]
    Batch(JobId, BatchId),
    /// The provider was removed from the settings after the job was planned.
    #[error("job {0} needs the provider of {1}, which is not in the settings: add it, then replay this event")]
    Provider(JobId, String),
}

impl Unknown {
    /// Every stable code.
    pub const CODES: &'static [&'static str] = &["unknown_job", "unknown_batch", "unknown_provider"];

    /// The stable code for the dead letter.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Job(_) => "unknown_job",
            Self::Batch(..) => "unknown_batch",
            Self::Provider(..) => "unknown_provider",
        }
    }
}

/// The jobs that a room met lately.
pub struct Jobs {
    store: Store,
    providers: Providers,
    met: Mutex<Met>,
}

/// Jobs that need not be read again.
#[derive(Default)]
struct Met {
    /// The one that was needed last comes last.
    kept: VecDeque<Arc<Job>>,
    /// Others may still be in use, and are not put into memory twice.
    alive: BTreeMap<JobId, Weak<Job>>,
    /// Held by the one that reads a job: of many events of a job that nobody has met, one at a time reads its plan.
    turns: BTreeMap<JobId, Weak<AsyncMutex<()>>>,
}

impl Met {
    fn find(&mut self, id: &JobId) -> Option<Arc<Job>> {
        if let Some(place) = self.kept.iter().position(|job| job.spec.id == *id) {
            let job = self.kept.remove(place)?;
            self.kept.push_back(Arc::clone(&job));
            return Some(job);
        }
        self.alive.get(id)?.upgrade()
    }

    fn keep(&mut self, job: &Arc<Job>) {
        self.kept.retain(|other| other.spec.id != job.spec.id);
        self.kept.push_back(Arc::clone(job));
        let sizes: Vec<usize> = self.kept.iter().map(|job| job.first.len()).collect();
        drop(self.kept.drain(..surplus(&sizes)));
        self.alive.retain(|_, job| job.strong_count() > 0);
        self.alive.insert(job.spec.id.clone(), Arc::downgrade(job));
    }

    fn turn(&mut self, id: &JobId) -> Arc<AsyncMutex<()>> {
        self.turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = self.turns.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        self.turns.insert(id.clone(), Arc::downgrade(&turn));
        turn
    }
}

impl Jobs {
    /// None yet.
    #[must_use]
    pub fn new(store: &Store, providers: Providers) -> Self {
        Self { store: store.clone(), providers, met: Mutex::default() }
    }

    /// A job by its facts.
    ///
    /// # Errors
    /// When the store can't be read; the inner error when no plan stands behind the id.
    pub async fn get(&self, id: &JobId) -> anyhow::Result<Result<Arc<Job>, Unknown>> {
        let met = self.met().find(id);
        let read = match met {
            Some(job) => Ok(job),
            None => self.read_in_turn(id).await?,
        };
        if let Ok(job) = &read {
            runtime::trace::note_team(&job.team);
        }
        Ok(read)
    }

    async fn read_in_turn(&self, id: &JobId) -> anyhow::Result<Result<Arc<Job>, Unknown>> {
        let turn = self.met().turn(id);
        let _turn = turn.lock().await;
        let met = self.met().find(id);
        match met {
            Some(job) => Ok(Ok(job)),
            None => self.read(id).await,
        }
    }

    async fn read(&self, id: &JobId) -> anyhow::Result<Result<Arc<Job>, Unknown>> {
        let fact = self.store.get_json::<JobFact>(&keys::job(id)).await?;
        let plan = self.store.get_json::<PlanFact>(&keys::plan(id)).await?;
        let (Some(fact), Some(plan)) = (fact, plan) else { return Ok(Err(Unknown::Job(id.clone()))) };
        let job = match self.assemble(fact, plan)? {
            Ok(job) => Arc::new(job),
            Err(unknown) => return Ok(Err(unknown)),
        };
        self.met().keep(&job);
        Ok(Ok(job))
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assemble(&self, fact: JobFact, plan: PlanFact) -> anyhow::Result<Result<Job, Unknown>> {
        let id = fact.spec.id.clone();
        let (Some(table), PlanOutcome::Planned { deadline, retry, pricing, batches, .. }) = (fact.table, plan.outcome)
        else {
            return Ok(Err(Unknown::Job(id)));
        };
        let Ok(provider) = self.providers.of(&fact.spec) else {
            return Ok(Err(Unknown::Provider(id, fact.spec.request.model)));
        };
        // A plan of before the table was frozen: the job's own changes over the defaults, as it was then.
        let retry = RetryTable::new(if retry.is_empty() { &fact.spec.retry } else { &retry });
        let price = pricing.and_then(|pricing| pricing.listed().cloned());
        let first = FirstAttempts::new(&id, batches);
        let requests = Requests::new(&fact.spec, &table, provider.as_ref(), provider.limits().max_line_bytes)?;
        let provider = Arc::clone(provider);
        Ok(Ok(Job { spec: fact.spec, team: fact.team, table, deadline, retry, price, first, requests, provider }))
    }

    /// A batch attempt by the fact that orders it: the plan, or the result of the attempt before it.
    ///
    /// # Errors
    /// When the store can't be read; the inner error when no fact orders it.
    pub async fn batch(&self, job: &Job, id: BatchId) -> anyhow::Result<Result<BatchRef, Unknown>> {
        let job_id = &job.spec.id;
        let ordered = if id.attempt == 1 {
            job.first.get(job_id, id.number)
        } else {
            let before = BatchId { attempt: id.attempt - 1, ..id };
            self.store.get_json::<ResultFact>(&keys::result(job_id, before)).await?.and_then(|result| result.next)
        };
        Ok(ordered.filter(|batch| batch.id == id).ok_or_else(|| Unknown::Batch(job_id.clone(), id)))
    }
}

/// How many of the jobs that have been kept longest go, by the batches of each from the oldest on. The newest stays.
fn surplus(sizes: &[usize]) -> usize {
    let (mut jobs, mut batches) = (0, 0_usize);
    for size in sizes.iter().rev() {
        batches = batches.saturating_add(*size);
        if jobs > 0 && (jobs == KEPT || batches > KEPT_BATCHES) {
            break;
        }
        jobs += 1;
    }
    sizes.len() - jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_jobs_are_kept_as_have_room_and_the_newest_always() {
        assert_eq!(surplus(&[]), 0);
        assert_eq!(surplus(&[1; KEPT]), 0);
        assert_eq!(surplus(&[1; KEPT + 2]), 2);
        assert_eq!(surplus(&[KEPT_BATCHES, 1]), 1);
        assert_eq!(surplus(&[1, KEPT_BATCHES - 1]), 0);
        assert_eq!(surplus(&[1, KEPT_BATCHES + 1]), 1);
        assert_eq!(surplus(&[5, KEPT_BATCHES / 2, KEPT_BATCHES / 2]), 1);
    }
}
