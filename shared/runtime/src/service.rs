//! A process around rooms: flags, settings, logs, probes, signals, the loops, and a clean end.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::room::Room;
use crate::settings::{Common, Settings};
use crate::work_loop::Loop;
use crate::{admin, lag, log, probe, reconcile};

/// The sections that one settings file for all services may have, beside those of this crate.
const SECTIONS: &[&str] = &["splitter", "dispatcher", "poller", "merger", "retry", "simulator", "providers", "front"];

/// The settings file that is read when none is named.
const SETTINGS_FILE: &str = "batchmill.toml";

/// The exit code for wrong settings.
const USAGE: u8 = 2;

/// The exit code after a second signal: 128 and SIGINT's number, as shells have it.
const INTERRUPTED: i32 = 130;

/// The flags of every service.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServiceArgs {
    /// The settings file (TOML); without the flag, batchmill.toml if it is there. The environment and --set win over it.
    #[arg(long, value_name = "FILE", env = "BATCHMILL_CONFIG")]
    pub config: Option<PathBuf>,
    /// One setting, as in --set loop.max_running=8; may be given several times.
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write section.key=value")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

impl ServiceArgs {
    /// The settings of file, environment and flags.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn settings(&self) -> anyhow::Result<Settings> {
        // Names or values that are not Unicode can't be settings.
        let text = |text: OsString| text.into_string().ok();
        let env = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        let usual = PathBuf::from(SETTINGS_FILE);
        let file = self.config.clone().or_else(|| usual.exists().then_some(usual));
        Ok(Settings::load(file.as_deref(), env, &self.set)?)
    }
}

#[derive(Debug, Parser)]
#[command(version, about = "One service of batchmill: takes events from Kafka until it is stopped by SIGTERM")]
struct Flags {
    #[command(flatten)]
    service: ServiceArgs,
}

/// What the `main` of one room's own binary does.
pub fn service_main<F>(name: &'static str, make_room: F) -> ExitCode
where
    F: AsyncFnOnce(&Context) -> anyhow::Result<Arc<dyn Room>>,
{
    let flags = Flags::parse();
    serve(name, &flags.service, async |context: &Context| Ok(vec![make_room(context).await?]))
}

/// Runs rooms in this process until a signal stops it: for the binaries of single rooms, and for the command.
pub fn serve<F>(name: &str, args: &ServiceArgs, make_rooms: F) -> ExitCode
where
    F: AsyncFnOnce(&Context) -> anyhow::Result<Vec<Arc<dyn Room>>>,
{
    match try_serve(args, make_rooms) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            if error.is::<crate::settings::Error>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn try_serve<F>(args: &ServiceArgs, make_rooms: F) -> anyhow::Result<()>
where
    F: AsyncFnOnce(&Context) -> anyhow::Result<Vec<Arc<dyn Room>>>,
{
    let mut settings = args.settings()?;
    let common = Common::declare(&mut settings)?;
    settings.check_sections(SECTIONS)?;
    log::init(&common.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        stop_on_signals(&shutdown)?;
        let context = Context::build(settings, shutdown)?;
        if !context.common.store.skip_probe {
            probe::probe(&context.store, &context.clock).await?;
        }
        admin::serve(&context).await?;
        let rooms = make_rooms(&context).await?;
        let ended = run_rooms(context.clone(), rooms).await;
        context.finish().await;
        ended
    });
    // Sections of blocking work that are still going on have been given up with their handlers.
    runtime.shutdown_background();
    result
}

/// The first SIGTERM or SIGINT cancels the token; the second ends the process at once.
///
/// # Errors
/// If signals can't be listened for.
pub fn stop_on_signals(shutdown: &CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                tracing::warn!("second signal: ends at once");
                std::process::exit(INTERRUPTED);
            }
            tracing::info!("stopping; a second signal ends at once");
            shutdown.cancel();
        }
    });
    Ok(())
}

/// Runs rooms, in one process over one bus, until `context.shutdown` is cancelled and they have drained. When one fails,
/// the others are stopped too.
///
/// # Errors
/// The first failure of a room's loop.
pub async fn run_rooms(context: Context, rooms: Vec<Arc<dyn Room>>) -> anyhow::Result<()> {
    let mut loops = JoinSet::new();
    // All join before any runs: on the memory bus a group that comes later misses what was sent before.
    let parts = rooms.iter().flat_map(|room| room.topics().into_iter().map(move |topic| (room, topic)));
    let join = |(room, topic): (&Arc<dyn Room>, _)| Loop::join(&context, Arc::clone(room), topic);
    let joined = parts.map(join).collect::<anyhow::Result<Vec<_>>>()?;
    for one in joined {
        loops.spawn(one.run());
    }
    // In a set of its own, so that it ends with this future, as the loops do.
    let mut beside = JoinSet::new();
    beside.spawn(reconcile::keep_reconciling(context.clone()));
    beside.spawn(lag::keep_reading_lag(context.clone(), rooms.clone()));
    beside.spawn(reconcile::keep_cleaning(context.clone(), rooms));
    let mut first_failure = None;
    while let Some(ended) = loops.join_next().await {
        let ended = ended.context("a room's loop panicked").and_then(|ended| ended);
        if let Err(error) = ended {
            tracing::error!(error = format!("{error:#}"), "a room's loop failed; the process stops");
            context.shutdown.cancel();
            first_failure.get_or_insert(error);
        }
    }
    beside.shutdown().await;
    first_failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_settings() {
        let flags =
            Flags::try_parse_from(["splitter", "--set", "loop.max_running=8", "--set", "log.filter=a=b"]).unwrap();
        assert_eq!(flags.service.set[1], ("log.filter".to_owned(), "a=b".to_owned()));
        let common = Common::declare(&mut flags.service.settings().unwrap()).unwrap();
        assert_eq!((common.work_loop.max_running, common.log.filter.as_str()), (8, "a=b"));
        assert!(Flags::try_parse_from(["splitter", "--set", "loop.max_running"]).is_err());
    }

    #[test]
    fn a_service_that_cannot_start_says_why_and_fails() {
        let set = |key: &str, value: &str| ServiceArgs { config: None, set: vec![(key.to_owned(), value.to_owned())] };
        let no_rooms = async |_: &Context| Ok(Vec::new());
        for (args, expected) in [
            (set("splittr.x", "1"), "did you mean `splitter`?"),
            (set("loop.max_runing", "1"), "did you mean `max_running`?"),
            (set("store.uri", "ftp://x"), "store.uri"),
            (set("log.filter", "=="), "log.filter"),
        ] {
            let error = format!("{:#}", try_serve(&args, no_rooms).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        let args = ServiceArgs { config: None, set: vec![("admin.listen".to_owned(), String::new())] };
        let error = try_serve(&args, async |_: &Context| Err(anyhow::anyhow!("no model"))).unwrap_err();
        assert_eq!(error.to_string(), "no model");
        // Without a room there is nothing to wait for.
        try_serve(&args, no_rooms).unwrap();
    }
}
