//! `run`: one job from start to end on this machine. The four rooms run in this process over the memory bus and a local
//! store; a simulator is started where the model asks for one.
//!
//! The memory bus dies with the process, the facts don't: at every start the work list is rebuilt from them, so the same
//! command goes on where it was killed, and pays for nothing twice.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use model::facts::SCHEMA;
use model::{EndFact, JobFact, JobSpec, OpenJob, Refusal, RefusalCode, Team, keys};
use runtime::settings::Settings;
use runtime::{Context, Reconcile};
use tokio_util::sync::CancellationToken;

use crate::cli::{ConfigArgs, RunArgs};
use crate::operate::load_settings;
use crate::progress::Progress;
use crate::tracker::Tracker;
use crate::{FAILED, INTERRUPTED, rooms, spec, summary};

/// How often the facts are looked at for the bars and the end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The provider that the command starts itself.
const SIMULATOR: &str = "sim";

/// `run`.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let mut spec = match local_spec(&args) {
        Ok(spec) => spec,
        Err(error) => return refused_or(error),
    };
    if let Err(refusal) = spec.validate() {
        return refused(&refusal);
    }
    let data = Data::lock(&args.data)?;
    let mut settings = settings_over(&args.config, &data)?;
    let simulator = match start_simulator(&spec, &data, &mut settings).await {
        Ok(simulator) => simulator,
        Err(error) => return refused_or(error),
    };
    let shutdown = CancellationToken::new();
    // Other jobs of this folder are left alone: only this one's work is rebuilt, below.
    let mut context = Context::build(settings.load()?, shutdown.clone())?;
    context.reconcile = Reconcile::Off;
    // A refused job spent nothing, and what was wrong may be right by now: the same command tries again, as a new job.
    while spec::is_unnamed(&args.job) && was_refused(&context, &spec).await? {
        spec.id = spec::made_id(&spec, spec.id.as_str())?;
    }
    let outcome = drive(&context, &spec, args.json).await;
    shutdown.cancel();
    if let Some(simulator) = simulator {
        simulator.stop().await;
    }
    outcome
}

async fn was_refused(context: &Context, spec: &JobSpec) -> anyhow::Result<bool> {
    let end = context.store.get_json::<EndFact>(&keys::end(&spec.id)).await?;
    Ok(end.is_some_and(|end| end.refusal.is_some()))
}

/// Runs the rooms until the job ends or a signal comes.
async fn drive(context: &Context, spec: &JobSpec, json: bool) -> anyhow::Result<ExitCode> {
    let store = &context.store;
    if let Some(job) = store.get_json::<JobFact>(&keys::job(&spec.id)).await? {
        if job.spec.digest() != spec.digest() {
            let message = format!("job {} in this data folder has another spec: give another id", spec.id);
            return refused(&Refusal::new(RefusalCode::JobIdConflict, message));
        }
    }
    if let Some(end) = store.get_json::<EndFact>(&keys::end(&spec.id)).await? {
        return summary::print(&end, json);
    }
    let (nonce, opened_at) = (context.clock.nonce(), context.clock.now());
    let open = OpenJob { schema: SCHEMA, nonce, team: Team::shared(), spec: spec.clone(), opened_at };
    store.put_once(&keys::open(&spec.id), &open).await?;
    let rooms = rooms::all(context)?;
    let mut running = tokio::spawn(runtime::run_rooms(context.clone(), rooms));
    runtime::reconcile(context, Duration::ZERO, Some(&spec.id)).await?;
    let ended = tokio::select! {
        ended = follow(context, spec) => ended?,
        stopped = &mut running => {
            stopped.context("the rooms panicked")??;
            anyhow::bail!("the rooms stopped before the job ended");
        }
        _ = tokio::signal::ctrl_c() => None,
    };
    context.shutdown.cancel();
    running.await.context("the rooms panicked")??;
    match ended {
        Some(end) => summary::print(&end, json),
        None => {
            eprintln!("Interrupted. Run the same command again to go on; nothing is paid for twice.");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// Shows the job's progress until it ends.
async fn follow(context: &Context, spec: &JobSpec) -> anyhow::Result<Option<EndFact>> {
    let mut tracker = Tracker::new(&context.store, &spec.id);
    let progress = Progress::new();
    loop {
        let status = tracker.look().await?;
        progress.show(&status);
        if let Some(end) = status.end {
            progress.finish();
            return Ok(Some(end));
        }
        context.clock.sleep(LOOK_EVERY).await;
    }
}

/// The job with local paths as URIs, and an id of its own content.
fn local_spec(args: &RunArgs) -> anyhow::Result<JobSpec> {
    let mut job = spec::from_args(&args.job)?;
    job.input.uri = spec::local_uri(&job.input.uri)?;
    job.output.uri = spec::local_uri(&job.output.uri)?;
    if spec::is_unnamed(&args.job) {
        let rest = match spec::local_path(&job.input.uri) {
            Some(path) if !path.is_file() => {
                let message = format!("{}: there is no such file", path.display());
                return Err(Refusal::new(RefusalCode::InputMissing, message).into());
            }
            Some(path) => spec::fingerprint(&path)?,
            None => String::new(),
        };
        job.id = spec::made_id(&job, &rest)?;
    }
    Ok(job)
}

fn refused_or(error: anyhow::Error) -> anyhow::Result<ExitCode> {
    match error.downcast::<Refusal>() {
        Ok(refusal) => refused(&refusal),
        Err(error) => Err(error),
    }
}

/// A refusal before the job was taken up.
fn refused(refusal: &Refusal) -> anyhow::Result<ExitCode> {
    eprintln!("error: {refusal}");
    Ok(ExitCode::from(FAILED))
}

/// The data folder, locked by this process: the lock goes with the process, however it ends.
struct Data {
    folder: PathBuf,
    _lock: File,
}

impl Data {
    fn lock(folder: &Path) -> anyhow::Result<Self> {
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

    fn path(&self, name: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
    }
}

/// Settings in the making: file and environment, with what `run` must have over them.
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
    ];
    let over = over.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
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
