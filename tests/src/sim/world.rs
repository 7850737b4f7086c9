//! A world: what outlives every process, the processes, and the callers who submit, cancel and replace.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, MemoryBus, TopicSpec};
use events::{Event, JobCancelRequested, JobSubmitted, Topic};
use model::facts::SCHEMA;
use model::{OpenJob, Team, keys};
use object_store::PutMode;
use object_store::path::Path;
use providers::{Caps, Provider, Providers};
use runtime::settings::{LocationRules, Settings};
use runtime::{Clock, Context, Locations, Outbox, Reconcile, Room, Store};
use tokio_util::sync::CancellationToken;

use super::chance::Chance;
use super::faults::Faults;
use super::gate::{Deed, Fate, Gate, STEPS};
use super::journal::Journal;
use super::line::SimLine;
use super::plan::{JobPlan, Plan, ROOMS};
use super::provider::SimProvider;
use super::provider::hub::Hub;
use super::store::{Connection, Disk, SimStore};

/// Faults of processes and of the whole world.
pub const FAULTS: &[&str] = &["death", "stop", "zombie", "topics lost", "input replaced", "cancellation"];

/// After so long without a word a process's partitions go to others.
const SESSION: Duration = Duration::from_secs(10);
/// How often the end is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So long after the last fault everything must have ended.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);
/// So long the world goes on behind the end: what lands late has landed then, and what waited was done.
const AFTERWARDS: Duration = Duration::from_secs(700);

/// A world.
#[derive(Debug)]
pub struct World {
    /// What the seed made.
    pub plan: Plan,
    /// The journal.
    pub journal: Journal,
    /// The clock of everything.
    pub clock: Clock,
    /// batchmill's store.
    pub disk: Arc<Disk>,
    /// The callers' files.
    pub lake: Arc<Disk>,
    /// The provider.
    pub hub: Arc<Hub>,
    /// The bus, past all lines.
    pub bus: MemoryBus,
    /// The versions of each input that there were, by location and ETag.
    versions: Mutex<BTreeMap<(String, String), u8>>,
    faults: Faults,
    /// Told when the world is over.
    over: CancellationToken,
}

impl World {
    /// The world of a plan, before anything happens.
    ///
    /// # Errors
    /// When the inputs can't be put.
    pub async fn new(plan: &Plan, print: bool) -> anyhow::Result<Self> {
        let clock = Clock::seeded(plan.seed);
        let journal = Journal::new(&clock, print);
        let faults = Faults {
            rates: plan.rates,
            lossy: plan.lossy,
            until: plan.faults_until,
            ended: CancellationToken::new(),
            clock: clock.clone(),
            chance: Chance::new(plan.seed.wrapping_add(1).rotate_left(17)),
            journal: journal.clone(),
        };
        let bus = MemoryBus::default();
        let topics = events::Topics::new("batchmill")?;
        let partitions = plan.partitions;
        let spec =
            |topic: &Topic| TopicSpec { name: topics.name(*topic), partitions, replication: -1, config: Vec::new() };
        Bus::Memory(bus.clone()).create_topics(&Topic::ALL.iter().map(spec).collect::<Vec<_>>()).await?;
        let world = Self {
            disk: Disk::new("store", &journal, &clock),
            lake: Disk::new("lake", &journal, &clock),
            hub: Hub::new(&clock, &journal, plan.page),
            plan: plan.clone(),
            journal,
            clock,
            bus,
            versions: Mutex::default(),
            faults,
            over: CancellationToken::new(),
        };
        for job in &plan.jobs {
            world.put_input(job, 1).await?;
        }
        Ok(world)
    }

    async fn put_input(&self, job: &JobPlan, version: u8) -> anyhow::Result<()> {
        let table = super::table::Table { version, ..job.table.clone() };
        let path = Path::parse(lake_path(&job.spec.input.uri))?;
        let put = self.lake.land(&path, table.bytes().into(), PutMode::Overwrite).await?;
        let key = (job.spec.input.uri.clone(), put.e_tag.context("no ETag")?);
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).insert(key, version);
        Ok(())
    }

    /// Which version of an input had this ETag.
    pub(super) fn input_version(&self, uri: &str, etag: &str) -> Option<u8> {
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.get(&(uri.to_owned(), etag.to_owned())).copied()
    }

    /// A store without faults.
    #[must_use]
    pub fn store(&self) -> Store {
        let gate = Arc::new(Gate::new("the caller", &self.faults, None));
        Store::new(Arc::new(SimStore(Connection::new(&self.disk, &gate, &self.faults, 0))), "")
    }

    /// Lives until every job has ended, and a while longer.
    ///
    /// # Errors
    /// When a process fails, or a job does not end.
    pub async fn live(&self) -> anyhow::Result<()> {
        let work = async {
            self.wait_for_ends().await?;
            self.journal.note(format_args!("all jobs have ended"));
            self.faults.ended.cancel();
            self.clock.sleep(AFTERWARDS).await;
            self.over.cancel();
            Ok(())
        };
        let processes =
            futures::future::try_join_all((0..self.plan.processes.len()).map(|number| self.process(number)));
        let callers = futures::future::try_join_all(self.plan.jobs.iter().map(|job| self.caller(job)));
        let result: anyhow::Result<()> =
            tokio::try_join!(processes, callers, self.wiper(), work).map(|_: (Vec<()>, Vec<()>, (), ())| ());
        result
    }

    async fn wait_for_ends(&self) -> anyhow::Result<()> {
        let last = self.plan.faults_until + PATIENCE;
        loop {
            let open = |job: &&JobPlan| {
                let (end, open) = (keys::end(&job.spec.id), keys::open(&job.spec.id));
                self.disk.body(&end).is_none() || (self.disk.body(&open).is_some() && !self.disk.was_removed(&open))
            };
            let Some(job) = self.plan.jobs.iter().find(open) else { return Ok(()) };
            if self.clock.monotonic() > last {
                let folder = keys::job_folder(&job.spec.id);
                let paths: Vec<String> =
                    self.disk.paths().into_iter().filter(|path| path.starts_with(&folder)).collect();
                anyhow::bail!("job {} does not end: {paths:#?}", job.spec.id);
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    async fn wiper(&self) -> anyhow::Result<()> {
        if let Some(at) = self.plan.wiped_at {
            self.clock.sleep(at).await;
            if self.faults.fire() {
                self.journal.fault("topics lost", "all");
                self.bus.lose_records();
            }
        }
        Ok(())
    }

    /// Submits a job, and may change its mind.
    async fn caller(&self, job: &JobPlan) -> anyhow::Result<()> {
        self.clock.sleep(job.at).await;
        let context = self.context(Bus::Memory(self.bus.clone()), self.store())?;
        let out = Outbox::new(&context, "caller");
        if job.open_first {
            let (nonce, opened_at) = (self.clock.nonce(), self.clock.now());
            let open = OpenJob { schema: SCHEMA, nonce, team: Team::shared(), spec: job.spec.clone(), opened_at };
            self.store().put_once(&keys::open(&job.spec.id), &open).await?;
        }
        out.emit(Event::JobSubmitted(JobSubmitted { spec: job.spec.clone() })).await?;
        let cancel = async {
            if let Some(after) = job.cancel_at {
                self.clock.sleep(after).await;
                if self.disk.body(&keys::end(&job.spec.id)).is_none() {
                    self.journal.fault("cancellation", job.spec.id.as_str());
                    out.emit(Event::JobCancelRequested(JobCancelRequested { job: job.spec.id.clone() })).await?;
                }
            }
            anyhow::Ok(())
        };
        let replace = async {
            if let Some(after) = job.replace_at {
                self.clock.sleep(after).await;
                if self.disk.body(&keys::end(&job.spec.id)).is_none() {
                    self.journal.fault("input replaced", job.spec.id.as_str());
                    self.put_input(job, 2).await?;
                }
            }
            anyhow::Ok(())
        };
        tokio::try_join!(cancel, replace)?;
        Ok(())
    }

    fn context(&self, bus: Bus, store: Store) -> anyhow::Result<Context> {
        let settings = Settings::load(None, std::iter::empty(), &self.plan.settings)?;
        let lake = Arc::new(SimStore(Connection::new(
            &self.lake,
            &Arc::new(Gate::new("the caller", &self.faults, None)),
            &self.faults,
            0,
        )));
        Context::of_parts(
            self.clock.clone(),
            settings,
            store,
            Locations::in_memory(LocationRules::default(), lake),
            bus,
        )
    }

    /// One process, life after life.
    async fn process(&self, number: usize) -> anyhow::Result<()> {
        for life in 1.. {
            let name = format!("p{number}.{life}");
            let gate = Arc::new(Gate::new(&name, &self.faults, self.fate()));
            if self.one_life(number, &gate).await? {
                return Ok(());
            }
            gate.kill();
            tokio::select! {
                biased;
                () = self.over.cancelled() => return Ok(()),
                () = self.faults.wait(50, 30_000) => {}
            }
        }
        Ok(())
    }

    fn fate(&self) -> Option<Fate> {
        let chance = &self.faults.chance;
        if !self.faults.fire() || !chance.hits(self.plan.rates.life) {
            return None;
        }
        let step = self.plan.step.or_else(|| chance.hits(600).then(|| *chance.pick(STEPS)));
        let passage = if step.is_some() { chance.between(1, 4) } else { chance.between(1, 60) };
        let deed = if chance.hits(600) { Deed::Die } else { Deed::Stop(chance.duration(1_000, 300_000)) };
        Some(Fate { step, passage, deed })
    }

    /// One life of a process; whether the world has ended.
    async fn one_life(&self, number: usize, gate: &Arc<Gate>) -> anyhow::Result<bool> {
        let line = SimLine::new(gate, &self.faults);
        let bus = self.bus.with_line(line);
        let (context, rooms) = self.rooms(number, gate, bus.clone())?;
        let running = runtime::run_rooms(context.clone(), rooms);
        tokio::pin!(running);
        let fates = self.fates(gate, &bus);
        tokio::pin!(fates);
        tokio::select! {
            biased;
            () = &mut fates => {
                self.hear_alarms(&context, gate);
                return Ok(false);
            }
            () = self.over.cancelled() => {}
            stopped = &mut running => {
                stopped.with_context(|| format!("process {}", gate.name()))?;
                anyhow::bail!("process {} stopped by itself", gate.name());
            }
        }
        // An orderly end: everything is finished and committed.
        context.shutdown.cancel();
        running.await.with_context(|| format!("the orderly end of process {}", gate.name()))?;
        self.hear_alarms(&context, gate);
        Ok(true)
    }

    /// What a process itself holds for impossible: a handler that panicked, a contradiction between facts, an event that
    /// can't be handled.
    fn hear_alarms(&self, context: &Context, gate: &Gate) {
        for family in context.registry.gather() {
            let (of_all, of_panics) = match family.name() {
                "batchmill_merger_conservation_mismatches_total" | "batchmill_loop_dead_letters_total" => (true, false),
                "batchmill_loop_events_total" => (false, true),
                _ => continue,
            };
            let mut alarms = 0.0;
            for metric in family.get_metric() {
                let panicked = metric.get_label().iter().any(|label| label.value() == "panicked");
                if of_all || (of_panics && panicked) {
                    alarms += metric.get_counter().get_value();
                }
            }
            if alarms > 0.0 {
                self.journal.violation(format!("{}: {} is {alarms}", gate.name(), family.name()));
            }
        }
    }

    /// Lets fate do its work; ends with the process's death.
    async fn fates(&self, gate: &Gate, bus: &MemoryBus) {
        loop {
            match gate.struck().await {
                Deed::Die => {
                    self.journal.fault("death", gate.name());
                    return;
                }
                Deed::Stop(pause) => {
                    self.journal.fault("stop", gate.name());
                    self.clock.sleep(pause.min(SESSION)).await;
                    if pause > SESSION {
                        self.journal.fault("zombie", gate.name());
                        bus.end_session();
                        self.clock.sleep(pause - SESSION).await;
                    }
                    self.journal.note(format_args!("{} goes on", gate.name()));
                    gate.go_on();
                }
            }
        }
    }

    fn rooms(&self, number: usize, gate: &Arc<Gate>, bus: MemoryBus) -> anyhow::Result<(Context, Vec<Arc<dyn Room>>)> {
        let connect = |disk, rate| Arc::new(SimStore(Connection::new(disk, gate, &self.faults, rate)));
        let store = Store::new(connect(&self.disk, self.plan.rates.store), "");
        let mut context = self.context(Bus::Memory(bus), store)?;
        context.locations = Locations::in_memory(LocationRules::default(), connect(&self.lake, self.plan.rates.lake));
        context.reconcile = if self.plan.lossy { Reconcile::AtStart } else { Reconcile::Off };
        let provider = SimProvider::new(&self.hub, gate, &self.faults) as Arc<dyn Provider>;
        let caps = Caps { account: self.plan.cap.and_then(NonZeroU64::new), ..Caps::default() };
        let providers = Providers::of_map(BTreeMap::from([("sim".to_owned(), provider)])).with_caps("sim", caps);
        let mut rooms: Vec<Arc<dyn Room>> = Vec::new();
        for room in &self.plan.processes[number] {
            rooms.push(match ROOMS[*room] {
                "splitter" => Arc::new(splitter::Splitter::new(&context, &providers)?),
                "dispatcher" => Arc::new(dispatcher::Dispatcher::new(&context, &providers)?),
                "poller" => Arc::new(poller::Poller::new(&context, &providers)?),
                _ => Arc::new(merger::Merger::new(&context)?),
            });
        }
        Ok((context, rooms))
    }

    /// What a room's group has not finished, by topic.
    pub(super) async fn lag(&self) -> Vec<(String, u64)> {
        let mut left = Vec::new();
        let Ok(topics) = events::Topics::new("batchmill") else { return left };
        for (topic, room) in Topic::consumed() {
            let name = topics.name(topic);
            let lag = Bus::Memory(self.bus.clone()).lag(&format!("batchmill-{room}"), &name).await;
            if let Ok(lag) = lag
                && lag.exact > 0
            {
                left.push((name, lag.exact));
            }
        }
        left
    }
}

/// The path of a location in the lake's store.
pub(super) fn lake_path(uri: &str) -> &str {
    uri.trim_start_matches("s3://")
}
