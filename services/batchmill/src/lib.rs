//! The command: `run` for one job on a laptop, a subcommand for each service, and what an operator needs around them.
//!
//! - `cli`: every command and flag, with its help. `spec`: from flags to a job spec.
//! - `run`: the four rooms in this process over the memory bus and a local store. `rooms`: how rooms are made, for
//!   `run`, `all` and the single services.
//! - `tracker`: how far a job is, from durable facts alone. `progress`: the bars. `summary`: the end, for people and as
//!   JSON. `failures`: failed rows by kind.
//! - `heap`: why memory stays flat.
//! - `bench`: one stage on local files, for benchmarks.
//! - `operate`: `submit`, `status`, `watch`, `topics`, `config`. `cancel`, `reconcile`, `dlq`, `healthcheck`: the commands
//!   of these names.
//!
//! Exit codes: 0 all answered, 1 failed or refused, 2 usage, 3 ended with failed rows, 4 no such job, 130 interrupted.

mod bench;
mod cancel;
mod cli;
mod cost;
mod dlq;
mod failures;
mod healthcheck;
mod heap;
mod local;
mod operate;
mod progress;
mod reconcile;
mod rooms;
mod run;
mod spec;
mod summary;
mod tracker;

use std::process::ExitCode;
use std::sync::Arc;

use runtime::{Context, Room, ServiceArgs};

pub use cli::Cli;
use cli::Command;
pub use heap::keep_the_heap_small;

/// Threads for blocking work on files.
const BLOCKING_THREADS: usize = 8;

/// Something failed, or the job was refused.
pub(crate) const FAILED: u8 = 1;
/// The command line, or a setting, is wrong.
pub(crate) const USAGE: u8 = 2;
/// The job ended with failed rows.
pub(crate) const FAILED_ROWS: u8 = 3;
/// There is no such job.
pub(crate) const NOT_FOUND: u8 = 4;
/// Interrupted by a signal.
pub(crate) const INTERRUPTED: u8 = 130;

/// Runs a command to its end.
#[must_use]
pub fn execute(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Splitter(args) => serve("splitter", &args, rooms::splitter),
        Command::Dispatcher(args) => serve("dispatcher", &args, rooms::dispatcher),
        Command::Poller(args) => serve("poller", &args, rooms::poller),
        Command::Merger(args) => serve("merger", &args, rooms::merger),
        Command::All(args) => runtime::serve("all", &args, async |context| rooms::all(context)),
        Command::Simulator(args) => on_runtime(simulate(args)),
        Command::Run(args) => on_runtime(run::run(*args)),
        Command::Submit(args) => on_runtime(operate::submit(*args)),
        Command::Status(args) => on_runtime(operate::status(args)),
        Command::Watch(args) => on_runtime(operate::watch(args)),
        Command::Cancel(args) => on_runtime(cancel::cancel(args)),
        Command::Reconcile(args) => on_runtime(reconcile::reconcile(args)),
        Command::Dlq { command } => on_runtime(dlq::dlq(command)),
        Command::Topics { command } => on_runtime(operate::topics(command)),
        Command::Config { command } => report(operate::config(command)),
        Command::Bench { command } => on_runtime(bench::bench(command)),
        Command::Healthcheck(args) => report(healthcheck::healthcheck(&args)),
    }
}

/// One room as a service.
fn serve(name: &str, args: &ServiceArgs, make: fn(&Context) -> anyhow::Result<Arc<dyn Room>>) -> ExitCode {
    runtime::serve(name, args, async |context| Ok(vec![make(context)?]))
}

async fn simulate(args: simulator::Args) -> anyhow::Result<ExitCode> {
    runtime::log::init(&runtime::settings::Log::default())?;
    simulator::main_with(args).await?;
    Ok(ExitCode::SUCCESS)
}

fn on_runtime(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    // Each thread keeps memory of its own: no more of them than files that are read and written at a time.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build();
    match runtime {
        Ok(runtime) => report(runtime.block_on(command)),
        Err(error) => report(Err(error.into())),
    }
}

/// An error ends the command with its whole chain on stderr.
fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(if error.is::<UsageError>() { USAGE } else { FAILED })
    })
}

/// A command line that clap can't find wrong by itself.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
