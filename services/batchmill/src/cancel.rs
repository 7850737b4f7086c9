//! `cancel`: asks that nothing more be spent on a job, and lets it end with what it has.
//!
//! A cancel is one fact, `cancel.json`. It is no ending of its own: what was not sent fails as `cancelled`, the provider's
//! batches are cancelled and what they answered is kept, and the merger ends the job as always. So one ending wins, and a
//! cancel that comes after it changes nothing.
//!
//! **A job of the services.** The command puts the fact itself, since that is what the rooms heed and the loss of a
//! topic can't undo; then it says `job.cancel_requested` for those who listen. If Kafka is down, the job is cancelled all the
//! same.
//!
//! **An interrupted `run`.** With `--data` the command takes the folder as `run` would, puts the fact, and drives the job to
//! its end right away: then its batches are cancelled at the provider, and its output is free for another job.

use std::path::Path;
use std::process::ExitCode;

use events::JobCancelRequested;
use model::facts::SCHEMA;
use model::{CancelFact, EndFact, JobFact, JobId, JobSpec, OpenJob, Team, keys};
use runtime::{Clock, Outbox, Store};
use serde_json::json;

use crate::cli::CancelArgs;
use crate::local::{Data, in_folder};
use crate::operate::{context, job_id, not_found};
use crate::run::to_the_end;
use crate::{INTERRUPTED, UsageError, summary};

/// `cancel`.
pub(crate) async fn cancel(args: CancelArgs) -> anyhow::Result<ExitCode> {
    let job = job_id(&args.job)?;
    match &args.data {
        Some(folder) => interrupted_run(&args, folder, &job).await,
        None => job_of_services(&args, &job).await,
    }
}

/// What is there to cancel.
enum Found {
    Nothing,
    Ended(Box<EndFact>),
    Open(Team, Box<JobSpec>),
}

async fn find(store: &Store, job: &JobId) -> anyhow::Result<Found> {
    if let Some(end) = store.get_json::<EndFact>(&keys::end(job)).await? {
        return Ok(Found::Ended(Box::new(end)));
    }
    let open = store.get_json::<OpenJob>(&keys::open(job)).await?.map(|open| (open.team, open.spec));
    let known = match open {
        Some(open) => Some(open),
        None => store.get_json::<JobFact>(&keys::job(job)).await?.map(|job| (job.team, job.spec)),
    };
    Ok(known.map_or(Found::Nothing, |(team, spec)| Found::Open(team, Box::new(spec))))
}

/// Puts the wish; who put it first makes no difference.
async fn put(store: &Store, clock: &Clock, job: &JobId) -> anyhow::Result<()> {
    let fact = CancelFact { schema: SCHEMA, nonce: clock.nonce(), requested_at: clock.now() };
    store.put_once(&keys::cancel(job), &fact).await?;
    Ok(())
}

async fn job_of_services(args: &CancelArgs, job: &JobId) -> anyhow::Result<ExitCode> {
    let context = context(&args.config)?;
    if context.common.store.uri == "memory://" {
        let message = "store.uri is not set: name the services' store in the settings, or an interrupted run's folder with --data";
        return Err(UsageError(message.to_owned()).into());
    }
    let team = match find(&context.store, job).await? {
        Found::Nothing => return Ok(not_found(job)),
        Found::Ended(end) => return before(&end, args.json),
        Found::Open(team, _) => team,
    };
    put(&context.store, &context.clock, job).await?;
    if let Found::Ended(end) = find(&context.store, job).await? {
        return before(&end, args.json);
    }
    if !context.common.kafka.brokers.is_empty() {
        let event = JobCancelRequested { job: job.clone() };
        if let Err(error) = Outbox::new(&context, "cancel").emit_for(event, &team).await {
            eprintln!("warning: the job is cancelled, but job.cancel_requested could not be sent: {error:#}");
        }
        context.finish().await;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&json!({"job": job, "state": "cancelling"}))?);
    } else {
        println!("{job} is cancelled: nothing more is sent, and what is paid for is kept.");
        println!("`batchmill watch {job}` waits for its end.");
    }
    Ok(ExitCode::SUCCESS)
}

/// A job that had ended: its end stands.
fn before(end: &EndFact, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string_pretty(&json!({"job": end.job, "state": "ended", "end": end}))?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} has ended already, and that stands: {}", end.job, words(end));
    Ok(ExitCode::SUCCESS)
}

fn words(end: &EndFact) -> String {
    match &end.refusal {
        Some(refusal) => format!("refused ({})", refusal.code),
        None => {
            let counts = &end.counts;
            format!("{} rows answered, {} failed, at {}", counts.answered, counts.failed_rows(), end.ended_at)
        }
    }
}

async fn interrupted_run(args: &CancelArgs, folder: &Path, job: &JobId) -> anyhow::Result<ExitCode> {
    if !folder.join("store").is_dir() {
        eprintln!("error: {} holds no job: name the folder that run had as --data", folder.display());
        return Ok(ExitCode::from(crate::NOT_FOUND));
    }
    let data = Data::lock(folder)?;
    let store = Store::local(&data.folder().join("store"))?;
    let spec = match find(&store, job).await? {
        Found::Nothing => return Ok(not_found(job)),
        Found::Ended(end) => return before(&end, args.json),
        Found::Open(_, spec) => spec,
    };
    put(&store, &Clock::system(), job).await?;
    let end = in_folder(&data, &args.config, &spec, async |context| to_the_end(context, &spec).await).await?;
    let Some(end) = end else {
        eprintln!("Interrupted. {job} is cancelled; the same command, or its run, goes on to its end.");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if args.json {
        summary::print(&end, true)?;
    } else if end.refusal.is_some() {
        println!("{job} is cancelled: {}. Nothing was spent, and there is no output.", words(&end));
    } else {
        summary::print(&end, false)?;
        println!(
            "{job} is cancelled: its output holds what there was. Another job needs another output, or --overwrite."
        );
    }
    Ok(ExitCode::SUCCESS)
}
