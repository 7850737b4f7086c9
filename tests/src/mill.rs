//! A whole batchmill in one process: the four rooms over the memory bus, a store in memory, and a scripted provider, on
//! one thread and tokio's paused clock.
//!
//! It can die at any write and go on: each life has a bus of its own, since a memory bus dies with its process, and the
//! facts of those before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use model::facts::SCHEMA;
use model::{EndFact, JobId, JobSpec, OpenJob, Team, keys};
use object_store::memory::InMemory;
use providers::{Provider, Providers};
use runtime::settings::Settings;
use runtime::{Clock, Context, Reconcile, Room, Store};

use crate::mortal::MortalStore;
use crate::provider::ScriptedProvider;

/// How often the end is looked for, in the paused clock's time: often at first, seldom once a job takes days.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(60);
/// No job of a test takes longer than this, in the paused clock's time: then it is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The world: what outlives a process.
pub struct Mill {
    objects: Arc<InMemory>,
    first: Context,
    provider: Arc<ScriptedProvider>,
    clock: Clock,
    settings: Settings,
}

/// How a life ended.
#[derive(Debug)]
pub enum Life {
    /// The job ended.
    Ended(Box<EndFact>),
    /// The process died at its write.
    Died,
}

impl Mill {
    /// A world with this provider under the name `sim`.
    ///
    /// # Errors
    /// When the temporary folder can't be used.
    pub fn new(provider: ScriptedProvider) -> anyhow::Result<Self> {
        let first = Context::in_memory(1, Settings::default())?;
        let (clock, settings) = (first.clock.clone(), Settings::default());
        Ok(Self { objects: Arc::default(), clock, first, provider: Arc::new(provider), settings })
    }

    /// The provider.
    #[must_use]
    pub fn provider(&self) -> &ScriptedProvider {
        &self.provider
    }

    /// Every later life has these settings, as `--set` gives them.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn set(&mut self, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let flags: Vec<_> = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.settings = Settings::load(None, std::iter::empty(), &flags)?;
        Ok(())
    }

    /// The provider, to be shared with others.
    #[must_use]
    pub fn shared_provider(&self) -> Arc<ScriptedProvider> {
        Arc::clone(&self.provider)
    }

    /// The world's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The store as it is.
    #[must_use]
    pub fn store(&self) -> Store {
        Store::new(Arc::clone(&self.objects) as _, "")
    }

    /// What a process has that works on another store, with this world's clock and its callers' files.
    ///
    /// # Errors
    /// When the temporary folder can't be used.
    pub fn context_on(&self, store: Store) -> anyhow::Result<Context> {
        let mut context = Context::in_memory(3, self.settings.clone())?.with_store(store);
        context.clock = self.clock.clone();
        context.locations = self.first.locations.clone();
        Ok(context)
    }

    /// Puts a caller's file.
    ///
    /// # Errors
    /// When the location is refused.
    pub async fn put(&self, uri: &str, content: &[u8]) -> anyhow::Result<()> {
        let mut writer = self.first.locations.resolve(uri, &Team::shared())?.writer();
        writer.write(content.to_vec()).await?;
        writer.finish().await?;
        Ok(())
    }

    /// Reads a caller's file.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn get(&self, uri: &str) -> anyhow::Result<Vec<u8>> {
        let location = self.first.locations.resolve(uri, &Team::shared())?;
        let pinned = location.head().await?.with_context(|| format!("{uri} is not there"))?;
        let whole = location.read(std::slice::from_ref(&(0..pinned.bytes)), &pinned.etag).await?;
        Ok(whole.concat())
    }

    /// Opens a job, as `submit` and `run` do.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open(&self, spec: &JobSpec) -> anyhow::Result<()> {
        let (nonce, opened_at) = (self.clock.nonce(), self.clock.now());
        let open = OpenJob { schema: SCHEMA, nonce, team: Team::shared(), spec: spec.clone(), opened_at };
        self.store().put_once(&keys::open(&spec.id), &open).await?;
        Ok(())
    }

    /// Lives until the job ends.
    ///
    /// # Errors
    /// When the rooms fail or the job gets stuck.
    pub async fn live(&self, job: &JobId) -> anyhow::Result<EndFact> {
        match self.live_until(job, -1, true).await? {
            Life::Ended(end) => Ok(*end),
            Life::Died => anyhow::bail!("an immortal process died"),
        }
    }

    /// Lives until the job ends, or until the write number `death`, which lands or not.
    ///
    /// # Errors
    /// When the rooms fail or the job gets stuck.
    pub async fn live_until(&self, job: &JobId, death: i64, lands: bool) -> anyhow::Result<Life> {
        let mortal = MortalStore::new(Arc::clone(&self.objects), death, lands);
        let mut context =
            Context::in_memory(2, self.settings.clone())?.with_store(Store::new(Arc::clone(&mortal) as _, ""));
        context.clock = self.clock.clone();
        context.locations = self.first.locations.clone();
        context.reconcile = Reconcile::Off;
        let rooms = self.rooms(&context)?;
        let running = runtime::run_rooms(context.clone(), rooms);
        let work = async {
            runtime::reconcile(&context, Duration::ZERO, Some(job)).await?;
            self.end_of(job).await
        };
        tokio::select! {
            ended = work => {
                let end = ended?;
                Ok(Life::Ended(Box::new(end)))
            }
            stopped = running => {
                stopped?;
                anyhow::bail!("the rooms stopped before the job ended")
            }
            () = mortal.died() => Ok(Life::Died),
        }
    }

    async fn end_of(&self, job: &JobId) -> anyhow::Result<EndFact> {
        let store = self.store();
        let (begun, mut wait) = (self.clock.monotonic(), SHORTEST_LOOK);
        while self.clock.monotonic() - begun < STUCK_AFTER {
            let closed = !store.exists(&keys::open(job)).await?;
            if let (Some(end), true) = (store.get_json::<EndFact>(&keys::end(job)).await?, closed) {
                return Ok(end);
            }
            self.clock.sleep(wait).await;
            wait = (wait * 9 / 8).min(LONGEST_LOOK);
        }
        let facts = store.list(&keys::job_folder(job)).await?;
        let listed: Vec<String> = facts.into_iter().map(|listed| listed.key).collect();
        anyhow::bail!("job {job} is stuck: {listed:#?}")
    }

    fn rooms(&self, context: &Context) -> anyhow::Result<Vec<Arc<dyn Room>>> {
        let provider = Arc::clone(&self.provider) as Arc<dyn Provider>;
        let providers = Providers::of_map(BTreeMap::from([("sim".to_owned(), provider)]));
        Ok(vec![
            Arc::new(splitter::Splitter::new(context, &providers)?),
            Arc::new(dispatcher::Dispatcher::new(context, &providers)?),
            Arc::new(poller::Poller::new(context, &providers)?),
            Arc::new(merger::Merger::new(context)?),
        ])
    }
}
