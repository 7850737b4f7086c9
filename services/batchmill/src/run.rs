//! `run`: one job from start to end on this machine. The four rooms run in this process over the memory bus and a local
//! store; a simulator is started where the model asks for one.
//!
//! The memory bus dies with the process, the facts don't: at every start the work list is rebuilt from them, so the same
//! command goes on where it was killed, and pays for nothing twice.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use model::facts::SCHEMA;
use model::{EndFact, JobFact, JobSpec, OpenJob, OutputClaim, Refusal, RefusalCode, Team, keys};
use providers::Providers;
use runtime::{Context, PutOnce};

use crate::cli::RunArgs;
use crate::local::{Data, in_folder};
use crate::progress::Progress;
use crate::tracker::Tracker;
use crate::{FAILED, INTERRUPTED, UsageError, rooms, spec, summary};

/// How often the facts are looked at for the bars and the end: often at first, so that a small job ends at once. All facts of a
/// large job are looked at less often, as the tracker says.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// `run`.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let spec = match local_spec(&args) {
        Ok(spec) => spec,
        Err(error) => return refused_or(error),
    };
    if let Err(refusal) = spec.validate().and_then(|()| writable(&spec)) {
        return refused(&refusal);
    }
    let data = Data::lock(&args.data)?;
    in_folder(&data, &args.config, &spec, async |context| drive(context, &spec, &args).await).await
}

/// Runs the rooms until the job ends or a signal comes.
async fn drive(context: &Context, spec: &JobSpec, args: &RunArgs) -> anyhow::Result<ExitCode> {
    if let Err(refusal) = Providers::open(&context.settings.section("providers")?).of(spec) {
        return refused(&refusal);
    }
    let store = &context.store;
    if let Some(end) = store.get_json::<EndFact>(&keys::end(&spec.id)).await? {
        if end.refusal.is_none() {
            return ended(context, spec, &end, args.json).await;
        }
        // What it was refused for may have been mended since, and nothing was spent: it is looked at anew.
        forget(context, spec).await?;
    }
    if let Some(conflict) = open(context, spec).await? {
        return refused(&conflict);
    }
    match to_the_end(context, spec).await? {
        Some(end) => {
            let code = summary::print(&end, args.json)?;
            if end.refusal.is_some_and(|refusal| refusal.code == RefusalCode::OutputExists) {
                show_the_way_out(context, spec, &args.data).await?;
            }
            Ok(code)
        }
        None => {
            eprintln!("Interrupted. Run the same command again to go on; nothing is paid for twice.");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// Names the command that ends the job which still owns a file that this one would write, if one does.
async fn show_the_way_out(context: &Context, spec: &JobSpec, data: &Path) -> anyhow::Result<()> {
    let store = &context.store;
    for (uri, _) in splitter::decide::written(spec) {
        let claims = store.list(&keys::output_claims(&uri)).await?;
        let latest = claims.iter().filter_map(|listed| match keys::parse(&listed.key) {
            Some(keys::Key::OutputClaim(_, n)) => Some(n),
            _ => None,
        });
        let Some(n) = latest.max() else { continue };
        let claim = store.get_json::<OutputClaim>(&keys::output_claim(&uri, n)).await?;
        if let Some(OutputClaim { job, .. }) = claim
            && job != spec.id
            && !store.exists(&keys::end(&job)).await?
        {
            eprintln!("To end that job with what it has: batchmill cancel {job} --data {}", data.display());
            return Ok(());
        }
    }
    Ok(())
}

/// Runs the rooms until the job has ended; none if a signal came before.
pub(crate) async fn to_the_end(context: &Context, spec: &JobSpec) -> anyhow::Result<Option<EndFact>> {
    let rooms = rooms::all(context)?;
    let mut running = tokio::spawn(runtime::run_rooms(context.clone(), rooms));
    let work = async {
        runtime::reconcile(context, Duration::ZERO, Some(&spec.id)).await?;
        follow(context, spec).await
    };
    let end = tokio::select! {
        end = work => Some(end?),
        () = context.shutdown.cancelled() => None,
        stopped = &mut running => {
            stopped.context("the rooms panicked")??;
            None
        }
    };
    context.shutdown.cancel();
    if !running.is_finished() {
        running.await.context("the rooms panicked")??;
    }
    Ok(end)
}

/// A job that has ended: how it did, unless this is another job of the same id.
async fn ended(context: &Context, spec: &JobSpec, end: &EndFact, json: bool) -> anyhow::Result<ExitCode> {
    match context.store.get_json::<JobFact>(&keys::job(&spec.id)).await? {
        Some(job) if job.spec.digest() != spec.digest() => refused(&conflict(spec)),
        _ => {
            let gone = |path: &PathBuf| !path.exists();
            if let Some(path) = spec::local_path(&spec.output.uri).filter(gone) {
                let shown = path.display();
                eprintln!(
                    "warning: {shown} was there when the job ended and is gone; its answers are still in the data folder"
                );
            }
            summary::print(end, json)
        }
    }
}

/// Puts `open/<job>`; the refusal if the id is another job's.
async fn open(context: &Context, spec: &JobSpec) -> anyhow::Result<Option<Refusal>> {
    let store = &context.store;
    let known = store.get_json::<JobFact>(&keys::job(&spec.id)).await?;
    if known.is_some_and(|job| job.spec.digest() != spec.digest()) {
        return Ok(Some(conflict(spec)));
    }
    let (nonce, opened_at) = (context.clock.nonce(), context.clock.now());
    let open = OpenJob { schema: SCHEMA, nonce, team: Team::shared(), spec: spec.clone(), opened_at };
    Ok(match store.put_once(&keys::open(&spec.id), &open).await? {
        PutOnce::Lost(theirs) if theirs.spec.digest() != spec.digest() => Some(conflict(spec)),
        _ => None,
    })
}

fn conflict(spec: &JobSpec) -> Refusal {
    let message = format!("job {} in this data folder has another spec: give another --id, or another --data", spec.id);
    Refusal::new(RefusalCode::JobIdConflict, message)
}

/// Removes a refused job: its facts are all that there is of it.
async fn forget(context: &Context, spec: &JobSpec) -> anyhow::Result<()> {
    for listed in context.store.list(&keys::job_folder(&spec.id)).await? {
        context.store.delete(&listed.key).await?;
    }
    Ok(context.store.delete(&keys::open(&spec.id)).await?)
}

/// Shows the job's progress until it ends. An event that went to the dead letters would be waited for without end.
async fn follow(context: &Context, spec: &JobSpec) -> anyhow::Result<EndFact> {
    let mut tracker = Tracker::new(context, &spec.id);
    let progress = Progress::new();
    let mut wait = SHORTEST_LOOK;
    loop {
        if tracker.is_due().await? {
            let status = tracker.look().await?;
            progress.show(&status);
            if let Some(end) = status.end {
                progress.finish();
                return Ok(end);
            }
        }
        let dead = dead_letters(context);
        anyhow::ensure!(dead == 0, "a room could not handle an event of this job; the warning above says why");
        context.clock.sleep(wait).await;
        wait = (wait * 5 / 4).min(LONGEST_LOOK);
    }
}

/// How many events this process gave up.
fn dead_letters(context: &Context) -> u64 {
    let families = context.registry.gather();
    let counted = families.iter().filter(|family| family.name() == "batchmill_loop_dead_letters_total");
    counted.flat_map(|family| family.get_metric()).map(|metric| metric.get_counter().get_value() as u64).sum()
}

/// Whether the output's folder is there: it is better said now than after everything is paid.
fn writable(spec: &JobSpec) -> Result<(), Refusal> {
    let Some(path) = spec::local_path(&spec.output.uri) else { return Ok(()) };
    let folder = path.parent().unwrap_or(Path::new("/"));
    if folder.is_dir() && !path.is_dir() {
        return Ok(());
    }
    let message = format!(
        "{}: its folder does not exist, or it is a folder itself: make the folder, or choose another output",
        path.display()
    );
    Err(Refusal::new(RefusalCode::LocationRefused, message))
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
            None => {
                let message =
                    "give --id for an input that is no local file: nothing else tells one state of it from another";
                return Err(UsageError(message.to_owned()).into());
            }
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
