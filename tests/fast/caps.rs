//! Caps, with whole jobs: what is held is counted from the facts all the time, by this test's own count.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use model::keys::{self, Key};
use model::{BatchId, EndFact, JobId, JobSpec, Team};
use object_store::memory::InMemory;
use providers::{Caps, Provider, Providers};
use runtime::settings::{LocationRules, Settings};
use runtime::{Clock, Context, Locations, Outbox, Room, Store};
use tests::provider::{OnCreate, Reply, ScriptedProvider};
use tokio::task::JoinHandle;

/// Places of a dispatcher, each of which may let one batch in that the others do not see yet.
const MAX_RUNNING: usize = 3;

/// All rooms in one process, and perhaps more dispatchers, over one store and one bus.
struct Mills {
    contexts: Vec<Context>,
    running: Vec<JoinHandle<anyhow::Result<()>>>,
}

/// What was held at some time, by job and model.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Held {
    by_job: BTreeMap<String, usize>,
    /// Jobs with batches that nobody has taken on.
    waiting: BTreeSet<String>,
}

impl Held {
    fn all(&self) -> usize {
        self.by_job.values().sum()
    }
}

impl Mills {
    fn start(provider: ScriptedProvider, caps: Caps, dispatchers: usize) -> Self {
        let (clock, store, bus, lake) =
            (Clock::seeded(7), Store::in_memory(), bus::Bus::memory(), Arc::new(InMemory::new()));
        let provider = Arc::new(provider) as Arc<dyn Provider>;
        let providers = Providers::of_map([("sim".to_owned(), provider)].into()).with_caps("sim", caps);
        let context = |_| {
            let set = [("loop.max_running".to_owned(), MAX_RUNNING.to_string())];
            let settings = Settings::load(None, std::iter::empty(), &set).unwrap();
            let locations = Locations::in_memory(LocationRules::default(), Arc::clone(&lake) as _);
            Context::of_parts(clock.clone(), settings, store.clone(), locations, bus.clone()).unwrap()
        };
        let contexts: Vec<Context> = (0..dispatchers).map(context).collect();
        let rooms = |(number, context): (usize, &Context)| {
            let mut rooms: Vec<Arc<dyn Room>> =
                vec![Arc::new(dispatcher::Dispatcher::new(context, &providers).unwrap())];
            if number == 0 {
                rooms.push(Arc::new(splitter::Splitter::new(context, &providers).unwrap()));
                rooms.push(Arc::new(poller::Poller::new(context, &providers).unwrap()));
                rooms.push(Arc::new(merger::Merger::new(context).unwrap()));
            }
            tokio::spawn(runtime::run_rooms(context.clone(), rooms))
        };
        let running = contexts.iter().enumerate().map(rooms).collect();
        Self { contexts, running }
    }

    async fn pass(&self, time: Duration) {
        self.contexts[0].clock.sleep(time).await;
    }

    /// Asks for a job of so many batches of one row.
    async fn submit(&self, id: &str, model: &str, batches: usize) -> JobId {
        let spec: JobSpec = serde_json::from_value(serde_json::json!({
            "id": id, "input": {"uri": format!("s3://lake/{id}.csv")}, "output": {"uri": format!("s3://lake/out/{id}.csv")},
            "request": {"model": format!("sim/{model}"), "template": "{{ title }}"}, "batch": {"max_rows": 1}
        }))
        .unwrap();
        let rows: String = (0..batches).map(|row| format!("{id} {row}\n")).collect();
        let mut writer = self.contexts[0].locations.resolve(&spec.input.uri, &Team::shared()).unwrap().writer();
        writer.write(format!("title\n{rows}").into_bytes()).await.unwrap();
        writer.finish().await.unwrap();
        let job = spec.id.clone();
        Outbox::new(&self.contexts[0], "test").emit(events::JobSubmitted { spec }).await.unwrap();
        job
    }

    async fn held(&self) -> Held {
        let mut held = Held::default();
        let (mut taken, mut planned) = (BTreeSet::new(), BTreeSet::new());
        let mut collected: BTreeSet<(JobId, BatchId)> = BTreeSet::new();
        for object in self.contexts[0].store.list(keys::JOBS).await.unwrap() {
            match keys::parse(&object.key) {
                Some(Key::Submission(job, id, _)) => drop(taken.insert((job, id))),
                Some(Key::Result(job, id)) => drop(collected.insert((job, id))),
                Some(Key::BatchData(job, id, _)) if id.attempt == 1 => drop(planned.insert((job, id))),
                _ => {}
            }
        }
        for (job, _) in taken.difference(&collected) {
            *held.by_job.entry(job.to_string()).or_default() += 1;
        }
        held.waiting = planned.difference(&taken).map(|(job, _)| job.to_string()).collect();
        held
    }

    /// Lives until these jobs have ended, looking at each turn; gives the jobs in the order of their ends.
    async fn live(&self, jobs: &[JobId], mut look: impl FnMut(&Held)) -> Vec<(JobId, EndFact)> {
        let mut ended: Vec<(JobId, EndFact)> = Vec::new();
        for _ in 0..20_000 {
            look(&self.held().await);
            for job in jobs {
                let known = ended.iter().any(|(other, _)| other == job);
                if !known && let Some(end) = self.contexts[0].store.get_json(&keys::end(job)).await.unwrap() {
                    ended.push((job.clone(), end));
                }
            }
            if ended.len() == jobs.len() {
                return ended;
            }
            self.pass(Duration::from_millis(100)).await;
        }
        panic!("only {:?} ended of {jobs:?}", ended.iter().map(|(job, _)| job).collect::<Vec<_>>())
    }

    async fn stop(self) {
        self.contexts.iter().for_each(|context| context.shutdown.cancel());
        for running in self.running {
            running.await.unwrap().unwrap();
        }
    }
}

fn caps(account: Option<u64>, model: Option<(&str, u64)>) -> Caps {
    let some = |limit| NonZeroU64::new(limit).unwrap();
    Caps {
        account: account.map(some),
        models: model.map(|(name, limit)| (name.to_owned(), some(limit))).into_iter().collect(),
    }
}

fn slow() -> ScriptedProvider {
    ScriptedProvider::echo().shown_running(20)
}

#[tokio::test(start_paused = true)]
async fn a_job_alone_fills_a_cap_and_never_goes_beyond_it() {
    let mills = Mills::start(slow(), caps(Some(4), None), 1);
    let job = mills.submit("alone", "echo", 17).await;
    let mut most = 0;
    mills.live(&[job], |held| most = most.max(held.all())).await;
    assert_eq!(most, 4);
    mills.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_small_job_does_not_wait_for_a_large_one_that_holds_a_whole_cap() {
    let mills = Mills::start(slow(), caps(Some(4), None), 1);
    let large = mills.submit("large", "echo", 40).await;
    mills.pass(Duration::from_secs(5)).await;
    assert_eq!(mills.held().await.by_job, [("large".to_owned(), 4)].into());
    let small = mills.submit("small", "echo", 3).await;
    let mut before = mills.held().await;
    let ended = mills
        .live(&[large, small.clone()], |held| {
            let of = |held: &Held| held.by_job.get("large").copied().unwrap_or_default();
            // While the other waits, nothing is added to what is half of the cap or more.
            let waits = before.waiting.contains("small") && held.waiting.contains("small");
            assert!(!waits || of(held) <= of(&before).max(2), "{before:?} → {held:?}");
            before = held.clone();
        })
        .await;
    assert_eq!(ended[0].0, small);
    mills.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_has_a_cap_of_its_own_within_that_of_the_account() {
    let mills = Mills::start(slow(), caps(Some(5), Some(("echo", 2))), 1);
    let jobs = [mills.submit("capped", "echo", 9).await, mills.submit("free", "digest", 20).await];
    let (mut most, mut most_capped) = (0, 0);
    mills
        .live(&jobs, |held| {
            most = most.max(held.all());
            most_capped = most_capped.max(held.by_job.get("capped").copied().unwrap_or_default());
        })
        .await;
    assert_eq!((most, most_capped), (5, 2));
    mills.stop().await;
}

#[tokio::test(start_paused = true)]
async fn several_dispatchers_go_beyond_a_cap_by_no_more_than_their_running_handlers() {
    let mills = Mills::start(slow(), caps(Some(6), None), 3);
    let jobs = [mills.submit("a", "echo", 40).await, mills.submit("b", "echo", 40).await];
    let mut most = 0;
    mills.live(&jobs, |held| most = most.max(held.all())).await;
    assert!((6..=6 + 2 * MAX_RUNNING).contains(&most), "{most}");
    mills.stop().await;
}

#[tokio::test(start_paused = true)]
async fn under_a_cap_of_one_retries_and_lost_creates_still_come_to_an_end() {
    let rows = |batch: usize, prompt: &str| match batch {
        0..4 => Reply::Status(500),
        _ => Reply::Answer(prompt.to_owned()),
    };
    let creates = |create: usize| match create % 5 {
        1 => OnCreate::Lose,
        2 => OnCreate::AcceptAndLose,
        3 => OnCreate::RateLimit,
        _ => OnCreate::Accept,
    };
    let provider = ScriptedProvider::new(Box::new(rows)).with_creates(Box::new(creates)).shown_running(3);
    let mills = Mills::start(provider, caps(Some(1), None), 2);
    let jobs = [mills.submit("a", "echo", 6).await, mills.submit("b", "echo", 6).await];
    for (_, end) in mills.live(&jobs, |_| {}).await {
        assert_eq!((end.counts.rows, end.counts.answered), (6, 6));
        assert!(end.attempts > 6 || end.job.as_str() == "b");
    }
    mills.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_that_waits_for_a_place_is_not_sent() {
    let mills = Mills::start(slow(), caps(Some(1), None), 1);
    let job = mills.submit("changed-its-mind", "echo", 5).await;
    mills.pass(Duration::from_secs(3)).await;
    assert_eq!(mills.held().await.all(), 1);
    let cancel = events::JobCancelRequested { job: job.clone() };
    Outbox::new(&mills.contexts[0], "test").emit(cancel).await.unwrap();
    let (_, end) = mills.live(&[job], |_| {}).await.remove(0);
    assert_eq!((end.counts.rows, end.counts.answered), (5, 1), "the four that waited were never sent");
    mills.stop().await;
}
