//! A mill on this machine: the data folder with one job's store, its lock, and the settings and the simulator that go with it.
//!
//! `run` and the cancelling of an interrupted `run` work in such a folder. The memory bus dies with the process, the facts
//! in the folder don't.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use model::{JobSpec, Refusal, RefusalCode};
use runtime::settings::Settings;
use runtime::{Context, Reconcile};
use tokio_util::sync::CancellationToken;

use crate::cli::ConfigArgs;
use crate::operate::load_settings;

/// The provider that is started here where the settings don't say where one is.
const SIMULATOR: &str = "sim";

/// Does `work` on a context over the folder, with a simulator if the job needs one, and takes both down.
pub(crate) async fn in_folder<T>(
    data: &Data,
    args: &ConfigArgs,
    spec: &JobSpec,
    work: impl AsyncFnOnce(&Context) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut settings = settings_over(args, data)?;
    let simulator = start_simulator(spec, data, &mut settings).await?;
    let shutdown = CancellationToken::new();
    runtime::stop_on_signals(&shutdown)?;
    let mut context = Context::build(settings.load()?, shutdown.clone())?;
    runtime::log::init(&context.common.log)?;
    // Other jobs of this folder are left alone: `to_the_end` rebuilds the work of this one only.
    context.reconcile = Reconcile::Off;
    let outcome = work(&context).await;
    shutdown.cancel();
    context.finish().await;
    if let Some(simulator) = simulator {
        simulator.stop().await;
    }
    outcome
}

/// The data folder, locked by this process: the lock goes with the process, however it ends.
pub(crate) struct Data {
    folder: PathBuf,
    _lock: File,
}

impl Data {
    /// Locks the folder, which is made if it is missing.
    pub(crate) fn lock(folder: &Path) -> anyhow::Result<Self> {
        let shown = folder.display();
        std::fs::create_dir_all(folder).with_context(|| format!("{shown}: can't be made"))?;
        let folder = folder.canonicalize().with_context(|| format!("{shown}: can't be resolved"))?;
        let lock = File::create(folder.join("lock")).with_context(|| format!("{shown}: can't be locked"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => {
                anyhow::bail!("{shown} is in use by another batchmill: wait for it, or give another folder with --data")
            }
            Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("{shown}: can't be locked")),
        }
    }

    /// The folder, absolute.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, name: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
    }
}

/// Settings in the making: file and environment, with what a job on this machine must have over them.
struct SettingsOver {
    args: ConfigArgs,
    over: Vec<(String, String)>,
}

impl SettingsOver {
    fn load(&self) -> anyhow::Result<Settings> {
        load_settings(&self.args, &self.over)
    }
}

fn settings_over(args: &ConfigArgs, data: &Data) -> anyhow::Result<SettingsOver> {
    let over = [
        ("kafka.brokers", String::new()),
        ("store.uri", format!("file://{}", data.path("store")?)),
        ("scratch.dir", data.path("scratch")?),
        ("locations.allow_file", "true".to_owned()),
        ("admin.listen", String::new()),
        // An interrupted run goes on from its facts: there is nothing to wait for.
        ("loop.drain_timeout_seconds", "2".to_owned()),
    ];
    let mut over: Vec<_> = over.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let given = load_settings(args, &[])?;
    if !given.mentions("log") {
        over.push(("log.filter".to_owned(), "warn".to_owned()));
    }
    if !given.mentions("loop") {
        // Four rooms share this machine's processors: more at a time would only cost memory, and more of it the longer
        // the file, because only in a long one do all rooms come to work at once.
        over.push(("loop.max_running".to_owned(), "1".to_owned()));
    }
    let args = ConfigArgs { config: args.config.clone(), set: args.set.clone() };
    Ok(SettingsOver { args, over })
}

/// Starts a simulator if the model is one of its own and the settings don't say where one is.
async fn start_simulator(
    spec: &JobSpec,
    data: &Data,
    settings: &mut SettingsOver,
) -> anyhow::Result<Option<simulator::Running>> {
    let known = settings.load()?.section::<providers::ProviderMap>("providers")?;
    if spec.provider() != SIMULATOR || known.contains_key(SIMULATOR) {
        return Ok(None);
    }
    if !simulator::models().any(|name| name == spec.provider_model()) {
        let known: Vec<String> = simulator::models().map(|name| format!("{SIMULATOR}/{name}")).collect();
        let (model, known) = (&spec.request.model, known.join(", "));
        let message = format!("model {model:?}: the simulator has no such model (it has {known})");
        return Err(Refusal::new(RefusalCode::ModelUnknown, message).into());
    }
    let config = simulator::Config::new(data.folder.join("simulator"));
    let running = simulator::start(config).await?;
    for (key, value) in
        [("kind", "openai"), ("base_url", running.url.as_str()), ("poll.first_ms", "20"), ("poll.most_ms", "1000")]
    {
        settings.over.push((format!("providers.{SIMULATOR}.{key}"), value.to_owned()));
    }
    Ok(Some(running))
}
