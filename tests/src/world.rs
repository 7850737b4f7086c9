//! A batchmill in memory to which anything can be sent: the four rooms over a memory bus whose topics have one partition,
//! so that what comes behind a bad record is in its way.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)] // the helpers of tests are tests, too

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::provider::{Reply, ScriptedProvider};
use bus::{Outgoing, Polled, Record, TopicSpec};
use bytes::Bytes;
use events::{Topic, Topics};
use model::{EndFact, JobId, Team, keys};
use object_store::memory::InMemory;
use providers::{Provider, Providers};
use runtime::settings::{LocationRules, Settings};
use runtime::{Context, Locations, Reconcile, Room};
use tokio::task::JoinHandle;

/// Nothing of the corpus takes longer, in the paused clock's time.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);
/// How often is looked whether it is over.
const LOOK: Duration = Duration::from_millis(20);

/// The world.
pub struct World {
    /// What its rooms share.
    pub context: Context,
    /// The scripted provider, where it is the one that is used.
    pub provider: Arc<ScriptedProvider>,
    /// The callers' files without the settings' rules.
    anywhere: Locations,
    running: JoinHandle<anyhow::Result<()>>,
}

impl World {
    /// A world in which the shared topic and the team `search` may use two folders of one bucket. A row whose prompt begins
    /// with `again` fails at its first attempt, so that every topic is used.
    pub async fn start() -> Self {
        let seen = Mutex::new(HashSet::new());
        let rows = move |_: usize, prompt: &str| match prompt.starts_with("again") {
            true if seen.lock().unwrap().insert(prompt.to_owned()) => Reply::Status(500),
            _ => Reply::Answer(prompt.to_owned()),
        };
        Self::with(ScriptedProvider::new(Box::new(rows)), &[]).await
    }

    /// The same with this provider and more settings.
    pub async fn with(provider: ScriptedProvider, settings: &[(&str, &str)]) -> Self {
        let provider = Arc::new(provider);
        let providers = BTreeMap::from([("sim".to_owned(), Arc::clone(&provider) as Arc<dyn Provider>)]);
        Self { provider, ..Self::of(&Providers::of_map(providers), settings).await }
    }

    /// The same with these providers and more settings.
    pub async fn of(providers: &Providers, settings: &[(&str, &str)]) -> Self {
        let allow = r#"["s3://lake/in", "s3://lake/out"]"#;
        let set = [("locations.allow", allow), ("locations.teams.search.allow", allow)];
        let set: Vec<_> = set.iter().chain(settings).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let settings = Settings::load(None, std::iter::empty(), &set).unwrap();
        let mut context = Context::in_memory(3, settings).unwrap();
        context.reconcile = Reconcile::Off;
        let lake: Arc<InMemory> = Arc::default();
        context.locations = Locations::in_memory(context.common.locations.clone(), Arc::clone(&lake) as _);
        let anywhere = Locations::in_memory(LocationRules::default(), lake);
        let specs: Vec<TopicSpec> = Self::topics(&context)
            .into_iter()
            .flat_map(|(_, topic, dead)| [topic, dead])
            .map(|name| TopicSpec { name, partitions: 1, replication: -1, config: Vec::new() })
            .collect();
        context.bus.create_topics(&specs).await.unwrap();
        let rooms: Vec<Arc<dyn Room>> = vec![
            Arc::new(splitter::Splitter::new(&context, providers).unwrap()),
            Arc::new(dispatcher::Dispatcher::new(&context, providers).unwrap()),
            Arc::new(poller::Poller::new(&context, providers).unwrap()),
            Arc::new(merger::Merger::new(&context).unwrap()),
        ];
        let running = tokio::spawn(runtime::run_rooms(context.clone(), rooms));
        Self { context, provider: Arc::new(ScriptedProvider::echo()), anywhere, running }
    }

    /// Each consumer group with each of its topics and that one's dead letters.
    fn topics(context: &Context) -> Vec<(String, String, String)> {
        let of = |(topic, room): (Topic, &str)| {
            let group = context.group(room);
            let names = context.topic_names(topic).into_iter();
            names
                .map(move |name| (group.clone(), name.clone(), Topics::dead_letters(&group, &name)))
                .collect::<Vec<_>>()
        };
        Topic::consumed().flat_map(of).collect()
    }

    /// Puts a caller's file.
    pub async fn put(&self, uri: &str, content: Vec<u8>) {
        let mut writer = self.anywhere.resolve(uri, &Team::shared()).unwrap().writer();
        for piece in content.chunks(1 << 20) {
            writer.write(piece.to_vec()).await.unwrap();
        }
        writer.finish().await.unwrap();
    }

    /// Reads a caller's file.
    pub async fn get(&self, uri: &str) -> Option<Vec<u8>> {
        let place = self.anywhere.resolve(uri, &Team::shared()).ok()?;
        let pinned = place.head().await.unwrap()?;
        Some(place.read(std::slice::from_ref(&(0..pinned.bytes)), &pinned.etag).await.unwrap().concat())
    }

    /// Sends a bare spec to the shared topic, or that of a team.
    pub async fn submit(&self, topic: &str, value: Vec<u8>) {
        let topic = topic.to_owned();
        self.send(Outgoing { topic, value: Some(Bytes::from(value)), ..Outgoing::default() }).await;
    }

    /// Sends a record.
    pub async fn send(&self, record: Outgoing) {
        self.context.bus.send(record).await.unwrap();
    }

    /// Waits until the job has ended, or any record has died; gives the end.
    pub async fn end_or_death(&self, job: Option<&JobId>) -> Option<EndFact> {
        self.until(async || {
            if let Some(job) = job
                && !self.context.store.exists(&keys::open(job)).await.unwrap()
                && let Some(end) = self.context.store.get_json::<EndFact>(&keys::end(job)).await.unwrap()
            {
                return Some(Some(end));
            }
            (!self.dead().await.is_empty()).then_some(None)
        })
        .await
    }

    /// Waits until a job has ended.
    pub async fn end(&self, job: &JobId) -> EndFact {
        let store = &self.context.store;
        self.until(async || {
            let closed = !store.exists(&keys::open(job)).await.unwrap();
            store.get_json::<EndFact>(&keys::end(job)).await.unwrap().filter(|_| closed)
        })
        .await
    }

    /// Waits until every record of every topic is finished.
    pub async fn idle(&self) {
        self.until(async || {
            for (group, topic, _) in Self::topics(&self.context) {
                if self.context.bus.lag(&group, &topic).await.unwrap().exact > 0 {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    async fn until<T>(&self, look: impl AsyncFn() -> Option<T>) -> T {
        let clock = &self.context.clock;
        let begun = clock.monotonic();
        while clock.monotonic() - begun < PATIENCE {
            if let Some(found) = look().await {
                return found;
            }
            clock.sleep(LOOK).await;
        }
        panic!("it is stuck; the dead letters are {:?}", self.dead().await)
    }

    /// All dead letters.
    pub async fn dead(&self) -> Vec<Record> {
        let mut letters = Vec::new();
        for (_, _, topic) in Self::topics(&self.context) {
            let lag = self.context.bus.lag("reader", &topic).await.unwrap().exact;
            let mut consumer = self.context.bus.consumer("reader", &[topic]).unwrap();
            let mut left = lag;
            while left > 0 {
                if let Polled::Record(record, _) = consumer.next().await.unwrap() {
                    letters.push(record);
                    left -= 1;
                }
            }
        }
        letters
    }

    /// Stops the rooms; a loop that failed fails the test.
    pub async fn stop(self) {
        self.context.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// A header's text.
pub fn header(record: &Record, name: &str) -> String {
    let found = record.headers.iter().rev().find(|(found, _)| found == name);
    found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}
