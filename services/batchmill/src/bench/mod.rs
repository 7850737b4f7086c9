//! One stage on local files, for benchmarks: `bench split|encode|ingest|merge`; and parts by themselves: `bench events` the
//! loop, `bench store` the object store, `bench scale` a whole job of any size.
//!
//! Nothing is done here that a service does otherwise. The stage's room runs as in a service, over the memory bus, a store in a
//! local folder and the events that the reconciler makes of the facts; only the provider is another: [`provider::Folder`]
//! puts what is uploaded into a folder, and has the answers in one. So what is measured is the room, with its facts, its
//! checksums and its scratch files, and not a second implementation.
//!
//! A stage's folder holds its files under plain names (`batch-00000.parquet`, `batch-00000.jsonl`), and in `.facts` the
//! store as it is behind the stage. The next stage links what it needs of that into its own folder, so a stage can be run
//! again and again on the same files.

mod command;
mod events;
mod folder;
mod process;
mod provider;
mod scale;
mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use model::facts::SCHEMA;
use model::{BatchRef, JobFact, JobSpec, OpenJob, PlanFact, PlanOutcome, SubmissionEntry, SubmissionStep, Team, keys};
use providers::{Provider, Providers};
use runtime::{Context, Reconcile, Room};
use tokio_util::sync::CancellationToken;

use crate::cli::ConfigArgs;
use crate::operate::load_settings;
use crate::spec::local_uri;
use crate::tracker::{Status, Tracker};
pub(crate) use command::BenchCommand;
use command::{BenchArgs, StoreCommand};
use folder::Stage;
use provider::Folder;
use scale::Scale;

/// The job that is run unless another is given: `tests/compare` asks its peers for the same.
const JOB: &str = include_str!("job.json");
/// Its id.
const ID: &str = "bench";
/// The provider's name in it.
const PROVIDER: &str = "openai";
/// How often it is asked whether the fact is there with which a stage ends.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How often all facts are looked at where it takes more than one to tell. Each look lists the store.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// `bench`.
pub(crate) async fn bench(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Split { input, out, spec, args } => split(&input, &out, spec.as_deref(), &args).await?,
        BenchCommand::Encode { batches, out, args } => encode(&batches, &out, &args).await?,
        BenchCommand::Ingest { results, out, batches, args } => {
            ingest(&results, &out, &beside(&out, batches)?, &args).await?;
        }
        BenchCommand::Events { count, args } => {
            let over = [("store.uri", "memory://".to_owned()), ("kafka.brokers", String::new())];
            events::events(&built(&over, &args)?, count).await?;
        }
        BenchCommand::Store { command } => in_store(command).await?,
        BenchCommand::Scale { folder, rows, batch_rows, args } => {
            let scale = Scale { folder: &std::path::absolute(&folder)?, rows, batch_rows };
            scale.make_folder()?;
            scale.run(&built(&scale.settings()?, &args)?).await?;
        }
        BenchCommand::Merge { batches, results, out, args } => merge(&batches, &results, &out, &args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn in_store(command: StoreCommand) -> anyhow::Result<()> {
    match command {
        StoreCommand::Put { file, key, args } => store::put(&built(&[], &args)?, &file, &key).await,
        StoreCommand::Get { bytes, blake3, key, args } => store::get(&built(&[], &args)?, &key, bytes, &blake3).await,
        StoreCommand::Read { uri, args } => store::read(&built(&[], &args)?, &uri).await,
    }
}

/// The folder of the batches: as it was said, else the one called `b` beside the stage's own.
fn beside(out: &Path, batches: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let named = batches.or_else(|| Some(out.canonicalize().ok()?.parent()?.join("b")));
    named.context("the folder of the batches is not known: give it with --batches")
}

async fn split(input: &Path, out: &Path, spec: Option<&Path>, args: &BenchArgs) -> anyhow::Result<()> {
    let stage = Stage::make(out, &[])?;
    let text = match spec {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("{}: can't be read", path.display()))?,
        None => JOB.to_owned(),
    };
    let mut job: serde_json::Value = serde_json::from_str(&text).context("the job is not JSON")?;
    job["id"] = ID.into();
    job["input"] = serde_json::json!({ "uri": local_uri(path(input)?)? });
    let ending = input.extension().and_then(|ending| ending.to_str()).unwrap_or("csv");
    let output = stage.folder().join(format!(".merged.{ending}"));
    job["output"] = serde_json::json!({ "uri": local_uri(path(&output)?)?, "overwrite": true });
    let spec: JobSpec = serde_json::from_value(job).context("the job is not as schemas/job.v1.json has it")?;

    let context = context(&stage, args)?;
    let (nonce, opened_at) = (context.clock.nonce(), context.clock.now());
    let open = OpenJob { schema: SCHEMA, nonce, team: Team::shared(), spec: spec.clone(), opened_at };
    context.store.put_once(&keys::open(&spec.id), &open).await?;
    let room = Arc::new(splitter::Splitter::new(&context, &Folder::nowhere()?.named(PROVIDER))?);
    let planned_or_refused = |status: &Status| status.batches_planned.is_some() || status.end.is_some();
    run_until(&context, &spec, room, Some(&keys::plan(&spec.id)), planned_or_refused).await?;
    for batch in planned(&context, &spec.id).await? {
        stage.show(&batch.data.key, &format!("batch-{:05}.parquet", batch.id.number - 1))?;
    }
    Ok(())
}

async fn encode(batches: &Path, out: &Path, args: &BenchArgs) -> anyhow::Result<()> {
    let stage = Stage::make(out, &[batches])?;
    stage.take_over(batches)?;
    let context = context(&stage, args)?;
    let (spec, all) = job(&context).await?;
    let folder = Folder::new(stage.folder(), stage.folder(), &all)?;
    let room = Arc::new(dispatcher::Dispatcher::new(&context, &folder.named(PROVIDER))?);
    let sent: u64 = all.iter().map(|batch| batch.send_rows).sum();
    run(&context, &spec, room, |status| status.rows_submitted >= sent).await
}

async fn ingest(results: &Path, out: &Path, batches: &Path, args: &BenchArgs) -> anyhow::Result<()> {
    let stage = Stage::make(out, &[batches, results])?;
    stage.take_over(batches)?;
    let context = context(&stage, args)?;
    let (spec, all) = job(&context).await?;
    for batch in &all {
        let provider_batch = provider::batch_name(batch);
        let step = SubmissionStep::Submitted { provider_batch, adopted: false };
        let (nonce, at) = (context.clock.nonce(), context.clock.now());
        let entry = SubmissionEntry { schema: SCHEMA, nonce, at, step };
        context.store.put_once(&keys::submission(&spec.id, batch.id, 1), &entry).await?;
    }
    let folder = Folder::new(stage.folder(), results, &all)?;
    let room = Arc::new(poller::Poller::new(&context, &folder.named(PROVIDER))?);
    let rows: u64 = all.iter().map(|batch| batch.data.rows).sum();
    run(&context, &spec, room, |status| status.counts.rows >= rows).await?;
    for (batch, key) in stage.results(&spec.id, &all)? {
        stage.show(&key, &format!("result-{:05}.parquet", batch.id.number - 1))?;
    }
    Ok(())
}

async fn merge(batches: &Path, results: &Path, out: &Path, args: &BenchArgs) -> anyhow::Result<()> {
    let name = out.file_name().context("the output has no name")?;
    let stage = Stage::make(&out.with_file_name(format!(".{}.stage", name.to_string_lossy())), &[])?;
    stage.take_over(batches)?;
    stage.take_over(results)?;
    let context = context(&stage, args)?;
    let (mut spec, _) = job(&context).await?;
    // The split did not know where the output would be wanted.
    spec.output.uri = local_uri(path(out)?)?;
    stage.change::<JobFact>(&keys::job(&spec.id), |fact| fact.spec = spec.clone())?;
    let room = Arc::new(merger::Merger::new(&context)?);
    run_until(&context, &spec, room, Some(&keys::end(&spec.id)), |status| status.end.is_some()).await?;
    stage.remove()
}

/// A context over the stage's folder, as `run` has one.
fn context(stage: &Stage, args: &BenchArgs) -> anyhow::Result<Context> {
    built(&on_disk(&stage.facts(), &stage.facts().join("scratch"))?, args)
}

/// The settings of one process over a store in a folder.
fn on_disk(store: &Path, scratch: &Path) -> anyhow::Result<[(&'static str, String); 5]> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok([
        ("kafka.brokers", String::new()),
        ("store.uri", local_uri(path(store)?)?),
        ("scratch.dir", path(scratch)?.to_owned()),
        ("locations.allow_file", "true".to_owned()),
        ("loop.max_running", processors.to_string()),
    ])
}

fn built(over: &[(&str, String)], args: &BenchArgs) -> anyhow::Result<Context> {
    let quiet = [("admin.listen", String::new()), ("log.filter", "warn".to_owned())];
    // What the caller sets comes last, and wins.
    let over = over.iter().chain(&quiet).map(|(key, value)| format!("{key}={value}"));
    let config = ConfigArgs { config: args.config.clone(), set: over.chain(args.set.iter().cloned()).collect() };
    let mut context = Context::build(load_settings(&config, &[])?, CancellationToken::new())?;
    runtime::log::init(&context.common.log)?;
    context.reconcile = Reconcile::Off;
    Ok(context)
}

/// Runs a room on what the facts leave to do, until they say that it has done it.
async fn run(
    context: &Context,
    spec: &JobSpec,
    room: Arc<dyn Room>,
    done: impl Fn(&Status) -> bool,
) -> anyhow::Result<()> {
    run_until(context, spec, room, None, done).await
}

/// The same, where a stage is not at its end before there is this fact. A look at all facts lists the store: made as often as
/// that, they were a tenth of what a stage took.
async fn run_until(
    context: &Context,
    spec: &JobSpec,
    room: Arc<dyn Room>,
    last: Option<&str>,
    done: impl Fn(&Status) -> bool,
) -> anyhow::Result<()> {
    let mut running = tokio::spawn(runtime::run_rooms(context.clone(), vec![room]));
    let work = async {
        runtime::reconcile(context, Duration::ZERO, Some(&spec.id)).await?;
        let mut tracker = Tracker::new(context, &spec.id);
        loop {
            let over = match last {
                Some(last) => context.store.exists(last).await?,
                None => true,
            };
            if over {
                let status = tracker.look().await?;
                if done(&status) {
                    return anyhow::Ok(status);
                }
            }
            context.clock.sleep(if last.is_some() { ASK_EVERY } else { LOOK_EVERY }).await;
        }
    };
    let status = tokio::select! {
        status = work => status?,
        stopped = &mut running => anyhow::bail!("the room stopped: {stopped:?}"),
    };
    context.shutdown.cancel();
    running.await.context("the room panicked")??;
    match status.end.and_then(|end| end.refusal) {
        Some(refusal) => Err(refusal.into()),
        None => Ok(()),
    }
}

/// The job of a store, and its batches.
async fn job(context: &Context) -> anyhow::Result<(JobSpec, Vec<BatchRef>)> {
    let id = ID.parse()?;
    let fact = context.store.get_json::<JobFact>(&keys::job(&id)).await?;
    let fact = fact.context("the folder has no facts: give the folder that bench split wrote")?;
    Ok((fact.spec, planned(context, &id).await?))
}

async fn planned(context: &Context, id: &model::JobId) -> anyhow::Result<Vec<BatchRef>> {
    match context.store.get_json::<PlanFact>(&keys::plan(id)).await?.map(|plan| plan.outcome) {
        Some(PlanOutcome::Planned { batches, .. }) => Ok(batches),
        Some(PlanOutcome::Refused { refusal }) => Err(refusal.into()),
        None => anyhow::bail!("there is no plan"),
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

impl Folder {
    /// The one provider of a stage.
    fn named(self, name: &str) -> Providers {
        Providers::of_map([(name.to_owned(), Arc::new(self) as Arc<dyn Provider>)].into())
    }
}
