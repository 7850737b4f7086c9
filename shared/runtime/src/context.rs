//! What a service is made of: one value that `main` makes and everything else is given.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::Bus;
use events::{Topic, Topics};
use object_store::memory::InMemory;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::health::Health;
use crate::locations::Locations;
use crate::metrics::{BusMetrics, Labels, LoopMetrics, ProviderCalls, StoreMetrics, build_info};
use crate::scratch::Scratch;
use crate::settings::{Common, Settings};
use crate::store::Store;
use crate::trace::{SpanSink, Tracer};
use crate::work_loop::Gates;

/// Scratch space of a context in memory.
const TEST_SCRATCH_BYTES: u64 = 1024 * 1024 * 1024;

/// How long the end may take that comes after the drain.
const LONGEST_FINISH: Duration = Duration::from_secs(5);

/// When [`run_rooms`](crate::run_rooms) rebuilds work from the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconcile {
    /// Never: the caller does it.
    Off,
    /// Now and then, for work that has not moved for long. For a cluster.
    Periodic,
    /// At the start for all open jobs, then now and then. For one process, whose bus dies with it.
    AtStart,
}

/// Everything that a room may use. Clones share it.
#[derive(Clone)]
pub struct Context {
    /// Time and chance.
    pub clock: Clock,
    /// Facts and data.
    pub store: Store,
    /// The bus.
    pub bus: Bus,
    /// Local disk.
    pub scratch: Scratch,
    /// All settings; a room reads its own section.
    pub settings: Arc<Settings>,
    /// The sections that all services have.
    pub common: Arc<Common>,
    /// Where metrics are registered.
    pub registry: Registry,
    /// The callers' files.
    pub locations: Locations,
    /// The names of the topics.
    pub topics: Topics,
    /// When work is rebuilt from the facts.
    pub reconcile: Reconcile,
    /// Cancelled when the process is to stop. Long handlers may look at it and make a checkpoint.
    pub shutdown: CancellationToken,
    /// The labels of metrics whose values callers choose.
    pub labels: Labels,
    /// Durations of calls to providers.
    pub provider_calls: ProviderCalls,
    pub(crate) metrics: LoopMetrics,
    pub(crate) bus_metrics: BusMetrics,
    pub(crate) health: Arc<Health>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) tracer: Tracer,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("store", &self.store).field("bus", &self.bus).finish_non_exhaustive()
    }
}

impl Context {
    /// Opens everything that the settings name, on the machine's clock. Nothing is contacted yet.
    ///
    /// # Errors
    /// A setting that does not fit.
    pub fn build(mut settings: Settings, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let common = Common::declare(&mut settings)?;
        let store = Store::open(&common.store)?;
        let locations = Locations::new(common.locations.clone(), common.store.clone());
        let bus = open_bus(&common)?;
        let scratch = Scratch::new(common.scratch.dir.as_deref(), common.scratch.max_bytes)?;
        Self::new(Clock::system(), settings, common, (store, locations, bus, scratch), shutdown)
    }

    /// Everything in memory, with a seeded clock: for tests and simulations. Every `s3://` location exists in memory too.
    ///
    /// # Errors
    /// If the temporary folder can't be used, or a setting does not fit.
    pub fn in_memory(seed: u64, mut settings: Settings) -> anyhow::Result<Self> {
        let common = Common::declare(&mut settings)?;
        let locations = Locations::in_memory(common.locations.clone(), Arc::new(InMemory::new()));
        let scratch = Scratch::new(None, TEST_SCRATCH_BYTES)?;
        let parts = (Store::in_memory(), locations, Bus::memory(), scratch);
        Self::new(Clock::seeded(seed), settings, common, parts, CancellationToken::new())
    }

    /// Of parts made elsewhere: one process of a simulation in which several share a clock, a store and a bus.
    ///
    /// # Errors
    /// If the temporary folder can't be used, or a setting does not fit.
    pub fn of_parts(
        clock: Clock,
        mut settings: Settings,
        store: Store,
        locations: Locations,
        bus: Bus,
    ) -> anyhow::Result<Self> {
        let common = Common::declare(&mut settings)?;
        let scratch = Scratch::new(None, TEST_SCRATCH_BYTES)?;
        Self::new(clock, settings, common, (store, locations, bus, scratch), CancellationToken::new())
    }

    fn new(
        clock: Clock,
        settings: Settings,
        common: Common,
        (store, locations, bus, scratch): (Store, Locations, Bus, Scratch),
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let topics = Topics::new(&common.kafka.prefix).context("setting kafka.prefix")?;
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        build_info(&registry)?;
        let (metrics, bus_metrics) = (LoopMetrics::new(&registry)?, BusMetrics::new(&registry)?);
        let reconcile = if matches!(bus, Bus::Memory(_)) { Reconcile::AtStart } else { Reconcile::Periodic };
        let system = if matches!(bus, Bus::Memory(_)) { "batchmill.memory" } else { "kafka" };
        let tracer = Tracer::open(&common.tracing, &clock, system)?;
        let common = Arc::new(common);
        let gates = Gates::new(&common, &topics, &bus, &clock, (&metrics, &bus_metrics), &shutdown);
        Ok(Self {
            clock,
            store: store.counted_by(StoreMetrics::new(&registry)?),
            bus,
            scratch,
            settings: Arc::new(settings),
            labels: Labels::new(&common),
            provider_calls: ProviderCalls::new(&registry)?,
            common,
            registry,
            locations,
            topics,
            reconcile,
            shutdown,
            metrics,
            bus_metrics,
            health: Arc::default(),
            gates: Arc::new(gates),
            tracer,
        })
    }

    /// The same, with spans that go there instead of where the settings say.
    #[must_use]
    pub fn with_spans(self, sink: Arc<dyn SpanSink>) -> Self {
        Self { tracer: self.tracer.into_sink(sink), ..self }
    }

    /// To be called when all work is done: sends the spans that are left, within the time of a drain and at most five seconds.
    pub async fn finish(&self) {
        self.tracer.finish(self.drain_timeout().min(LONGEST_FINISH)).await;
    }

    /// The same, with the store of another: for tests in which a process dies and another goes on, or several share a store
    /// and a bus.
    #[must_use]
    pub fn with_store(self, store: Store) -> Self {
        Self { store, ..self }
    }

    /// The consumer group of a room.
    #[must_use]
    pub fn group(&self, room: &str) -> String {
        group(&self.common, room)
    }

    /// The names of a topic: for [`Topic::Jobs`] the shared one and one for each team of the settings.
    #[must_use]
    pub fn topic_names(&self, topic: Topic) -> Vec<String> {
        let mut names = vec![self.topics.name(topic)];
        if topic == Topic::Jobs {
            names.extend(self.common.locations.teams.keys().map(|team| self.topics.jobs_of(team)));
            names.dedup();
        }
        names
    }

    /// `loop.drain_timeout_seconds`.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.common.work_loop.drain_timeout_seconds)
    }
}

pub(crate) fn group(common: &Common, room: &str) -> String {
    format!("{}{room}", common.kafka.group_prefix)
}

fn open_bus(common: &Common) -> anyhow::Result<Bus> {
    let kafka = &common.kafka;
    if kafka.brokers.trim().is_empty() {
        return Ok(Bus::memory());
    }
    let settings = bus::KafkaSettings {
        brokers: kafka.brokers.clone(),
        session_timeout: Duration::from_millis(kafka.session_timeout_ms),
        delivery_timeout: Duration::from_millis(kafka.delivery_timeout_ms),
        request_timeout: Duration::from_millis(kafka.request_timeout_ms),
        properties: kafka.properties.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
        ..bus::KafkaSettings::default()
    };
    Bus::kafka(settings).context("section [kafka]")
}
