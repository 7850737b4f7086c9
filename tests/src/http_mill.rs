//! A whole batchmill in one process with the real provider: the four rooms over the memory bus and a store in memory, and
//! OpenAI's protocol over HTTP to a simulator with a fault script.
//!
//! It lives in real time, since tokio's paused clock would run ahead of the network; all waits that can be set are short.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use model::facts::SCHEMA;
use model::{EndFact, JobId, JobSpec, OpenJob, Team, keys};
use providers::{PollSchedule, ProviderSettings, Providers};
use runtime::settings::Settings;
use runtime::{Context, Reconcile, Room};
use serde_json::Value;
use simulator::{Config, Running, Script};
use tempfile::TempDir;

/// How often the end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The settings of the rooms: short waits.
const SETTINGS: [(&str, &str); 3] =
    [("loop.retry_min_ms", "10"), ("loop.retry_max_ms", "200"), ("dispatcher.limited_wait_ms", "50")];

/// One batchmill and its provider.
pub struct HttpMill {
    context: Context,
    providers: Providers,
    running: Running,
    folder: TempDir,
}

/// A batch that the provider accepted, or one that ended: its rows' custom ids, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRows {
    /// The provider's id.
    pub batch: String,
    /// Each row's custom id, and the SHA-256 of its prompt where the file has it.
    pub rows: Vec<(String, Option<String>)>,
}

impl HttpMill {
    /// A batchmill whose provider `sim` is a simulator with this script. `patience` is the provider's request time-out.
    ///
    /// # Errors
    /// When a folder or a port can't be had.
    pub async fn start(script: Script, patience: Duration) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let running = simulator::start(Config { faults: script, ..Config::new(folder.path()) }).await?;
        let provider = ProviderSettings {
            request_timeout_ms: u64::try_from(patience.as_millis())?,
            poll: PollSchedule { first_ms: 5, most_ms: 20 },
            ..ProviderSettings::simulator(running.url.clone())
        };
        let providers = Providers::open(&BTreeMap::from([("sim".to_owned(), provider)]));
        let overrides = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = Settings::load(None, std::iter::empty(), &overrides)?;
        let mut context = Context::in_memory(1, settings)?;
        context.reconcile = Reconcile::Off;
        Ok(Self { context, providers, running, folder })
    }

    /// Puts a caller's file.
    ///
    /// # Errors
    /// When the location is refused.
    pub async fn put(&self, uri: &str, content: &[u8]) -> anyhow::Result<()> {
        let mut writer = self.context.locations.resolve(uri, &Team::shared())?.writer();
        writer.write(content.to_vec()).await?;
        writer.finish().await?;
        Ok(())
    }

    /// Reads a caller's file.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn get(&self, uri: &str) -> anyhow::Result<Vec<u8>> {
        let location = self.context.locations.resolve(uri, &Team::shared())?;
        let pinned = location.head().await?.with_context(|| format!("{uri} is not there"))?;
        let whole = location.read(std::slice::from_ref(&(0..pinned.bytes)), &pinned.etag).await?;
        Ok(whole.concat())
    }

    /// Runs a job to its end.
    ///
    /// # Errors
    /// When the rooms fail, or the job has not ended in time.
    pub async fn run(&self, spec: &JobSpec, at_most: Duration) -> anyhow::Result<EndFact> {
        let (context, clock) = (&self.context, &self.context.clock);
        let (nonce, opened_at) = (clock.nonce(), clock.now());
        let open = OpenJob { schema: SCHEMA, nonce, team: Team::shared(), spec: spec.clone(), opened_at };
        context.store.put_once(&keys::open(&spec.id), &open).await?;
        let rooms: Vec<Arc<dyn Room>> = vec![
            Arc::new(splitter::Splitter::new(context, &self.providers)?),
            Arc::new(dispatcher::Dispatcher::new(context, &self.providers)?),
            Arc::new(poller::Poller::new(context, &self.providers)?),
            Arc::new(merger::Merger::new(context)?),
        ];
        let work = async {
            runtime::reconcile(context, Duration::ZERO, Some(&spec.id)).await?;
            self.end_of(&spec.id).await
        };
        tokio::select! {
            ended = work => ended,
            stopped = runtime::run_rooms(context.clone(), rooms) => {
                stopped?;
                anyhow::bail!("the rooms stopped before the job ended")
            }
            () = clock.sleep(at_most) => {
                let facts = context.store.list(&keys::job_folder(&spec.id)).await?;
                let listed: Vec<String> = facts.into_iter().map(|listed| listed.key).collect();
                anyhow::bail!("the job is stuck: {listed:#?}")
            }
        }
    }

    async fn end_of(&self, job: &JobId) -> anyhow::Result<EndFact> {
        let store = &self.context.store;
        loop {
            let closed = !store.exists(&keys::open(job)).await?;
            if let (Some(end), true) = (store.get_json::<EndFact>(&keys::end(job)).await?, closed) {
                return Ok(end);
            }
            self.context.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// The batches that the provider accepted, in order.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn ledger(&self) -> anyhow::Result<Vec<BatchRows>> {
        read_rows(&self.folder.path().join("ledger.jsonl"))
    }

    /// The batches that have ended, with the rows that were executed.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn billed(&self) -> anyhow::Result<Vec<BatchRows>> {
        read_rows(&self.folder.path().join("billed.jsonl"))
    }

    /// How often each rule of the script fired, with its fault's name.
    #[must_use]
    pub fn fired(&self) -> Vec<(String, u64)> {
        let shown = self.running.simulator().faults();
        let rules = shown["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        let one = |rule: &Value| {
            let name = rule["rule"]["fault"].as_str().unwrap_or_default().to_owned();
            (name, rule["fired"].as_u64().unwrap_or_default())
        };
        rules.iter().map(one).collect()
    }

    /// Waits until something changes at the provider, at most so long.
    pub async fn change(&self, at_most: Duration) {
        let mut changes = self.running.simulator().changes();
        let changed = changes.changed();
        // Either way the caller looks again.
        let _ = tokio::time::timeout(at_most, changed).await;
    }

    /// Stops the provider.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

fn read_rows(path: &Path) -> anyhow::Result<Vec<BatchRows>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let line = |line: &str| -> anyhow::Result<BatchRows> {
        let line: Value = serde_json::from_str(line)?;
        let row = |row: &Value| match row.as_str() {
            Some(id) => (id.to_owned(), None),
            None => {
                let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
                (text("custom_id"), Some(text("prompt_sha256")))
            }
        };
        let rows = line["rows"].as_array().context("rows")?.iter().map(row).collect();
        Ok(BatchRows { batch: line["batch"].as_str().context("batch")?.to_owned(), rows })
    };
    text.split_terminator('\n').map(line).collect()
}
