//! What an operator does around the services: submit a job, look at it, make the topics, look at the settings.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use events::{Event, JobSubmitted, Topic, Topics};
use model::facts::SCHEMA;
use model::retry::RetryTable;
use model::{EndFact, JobId, OpenJob, Team, keys};
use runtime::settings::{Common, Log, LogFormat, PriceSettings, Settings};
use runtime::{Context, Outbox, PutOnce};
use tokio_util::sync::CancellationToken;

use crate::cli::{ConfigArgs, ConfigCommand, StatusArgs, SubmitArgs, TopicsCommand};
use crate::progress::Progress;
use crate::tracker::{Status, Tracker};
use crate::{NOT_FOUND, USAGE, UsageError, cost, failures, spec, summary};

/// How often `watch` looks whether the job has ended, and at all its facts if that is quickly done.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Settings from file, environment and `--set`, with `over` over all.
pub(crate) fn load_settings(args: &ConfigArgs, over: &[(String, String)]) -> anyhow::Result<Settings> {
    let mut overrides = args
        .set
        .iter()
        .map(|set| {
            let (key, value) = set
                .split_once('=')
                .ok_or_else(|| UsageError(format!("--set {set:?} has no =: write section.key=value")))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect::<Result<Vec<_>, UsageError>>()?;
    overrides.extend_from_slice(over);
    let service = runtime::ServiceArgs { config: args.config.clone(), set: overrides };
    let mut settings = service.settings().map_err(|error| UsageError(format!("{error:#}")))?;
    declare(&mut settings).map_err(|error| UsageError(format!("{error:#}")))?;
    Ok(settings)
}

/// Names every section there is, so that a misspelt one is found and each default is shown.
fn declare(settings: &mut Settings) -> anyhow::Result<()> {
    Common::declare(settings)?;
    settings.declare::<splitter::Config>("splitter")?;
    settings.declare::<dispatcher::Config>("dispatcher")?;
    settings.declare::<poller::Config>("poller")?;
    settings.declare::<merger::Config>("merger")?;
    settings.declare::<RetryTable>("retry")?;
    // Providers have names of the operator's choice: there are no defaults to show.
    settings.section::<providers::ProviderMap>("providers")?;
    settings.check_sections(&["providers"])?;
    Ok(())
}

/// A context for a command that is no service: no admin port. Of the log it shows what goes wrong, since only the Kafka client's
/// own words say why a broker is not reached (a password, a certificate); `[log]` in the settings wins.
pub(crate) fn context(args: &ConfigArgs) -> anyhow::Result<Context> {
    let settings = load_settings(args, &[("admin.listen".to_owned(), String::new())])?;
    let errors = Log { filter: "error".to_owned(), format: LogFormat::Text };
    runtime::log::init(&if settings.mentions("log") { settings.section("log")? } else { errors })?;
    Context::build(settings, CancellationToken::new())
}

/// The same for a command that is of no use without a cluster.
pub(crate) fn on_cluster(args: &ConfigArgs) -> anyhow::Result<Context> {
    let context = context(args)?;
    anyhow::ensure!(
        !context.common.kafka.brokers.is_empty(),
        "kafka.brokers is not set: name the brokers in the settings"
    );
    Ok(context)
}

/// `submit`: `open/<job>` first, so that the job survives the loss of the topic, then the event.
pub(crate) async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let spec = spec::from_args(&args.job)?;
    spec.validate()?;
    let team = match &args.team {
        Some(team) => team.parse::<Team>().map_err(|error| UsageError(format!("--team: {error}")))?,
        None => Team::shared(),
    };
    let context = context(&args.config)?;
    anyhow::ensure!(
        !context.common.kafka.brokers.is_empty(),
        "kafka.brokers is not set: name the brokers in the settings, or use run for a job on this machine"
    );
    // Before anything is put: else a job that could not be told would be taken up later all the same.
    context.bus.probe().await?;
    if context.store.get_json::<EndFact>(&keys::end(&spec.id)).await?.is_none() {
        let (nonce, opened_at) = (context.clock.nonce(), context.clock.now());
        let open = OpenJob { schema: SCHEMA, nonce, team: team.clone(), spec: spec.clone(), opened_at };
        if let PutOnce::Lost(theirs) = context.store.put_once(&keys::open(&spec.id), &open).await? {
            anyhow::ensure!(
                theirs.spec.digest() == spec.digest() && theirs.team == team,
                "job_id_conflict: job {} is open with another spec: choose another id",
                spec.id
            );
        }
    }
    let job = spec.id.clone();
    let emitted = Outbox::new(&context, "submit").emit_for(Event::JobSubmitted(JobSubmitted { spec }), &team).await;
    context.finish().await;
    emitted?;
    println!("{job}");
    Ok(ExitCode::SUCCESS)
}

/// `status`.
pub(crate) async fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let context = context(&args.config)?;
    let job = job_id(&args.job)?;
    let status = Tracker::new(&context, &job).look().await?;
    if status.state == "unknown" && !context.store.exists(&keys::open(&job)).await? {
        return Ok(not_found(&job));
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(end) = &status.end {
        summary::print(end, false)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_status(&status);
    Ok(ExitCode::SUCCESS)
}

fn print_status(status: &Status) {
    let of = |known: Option<u64>| known.map_or_else(|| "?".to_owned(), |n| n.to_string());
    println!("job       {}", status.job);
    println!("state     {}{}", status.state, if status.cancelled { ", cancelled" } else { "" });
    println!("split     {} of {} batches", status.batches_split, of(status.batches_planned));
    println!("submitted {} of {} rows", status.rows_submitted, of(status.rows));
    println!("collected {} of {} rows", status.counts.rows, of(status.rows));
    println!("failed    {}", status.counts.failed_rows());
    for line in failures::lines(&status.counts) {
        println!("          {line}");
    }
    println!("tokens    {}", cost::tokens(&status.tokens));
    if status.rows.is_some() {
        println!("cost      {} so far", cost::text(status.cost.as_ref()));
    }
}

/// `watch`.
pub(crate) async fn watch(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let context = context(&args.config)?;
    let job = job_id(&args.job)?;
    let mut tracker = Tracker::new(&context, &job);
    let progress = Progress::new();
    loop {
        if tracker.is_due().await? {
            let status = tracker.look().await?;
            if status.state == "unknown" && !context.store.exists(&keys::open(&job)).await? {
                return Ok(not_found(&job));
            }
            progress.show(&status);
            if let Some(end) = status.end {
                progress.finish();
                return summary::print(&end, args.json);
            }
        }
        context.clock.sleep(LOOK_EVERY).await;
    }
}

pub(crate) fn job_id(text: &str) -> anyhow::Result<JobId> {
    Ok(text.parse().map_err(|error| UsageError(format!("{error}")))?)
}

pub(crate) fn not_found(job: &JobId) -> ExitCode {
    eprintln!("error: there is no job {job} in this store: check the id and store.uri");
    ExitCode::from(NOT_FOUND)
}

/// `topics`.
pub(crate) async fn topics(command: TopicsCommand) -> anyhow::Result<ExitCode> {
    let TopicsCommand::Apply(args) = command;
    let context = context(&args.config)?;
    let kafka = &context.common.kafka;
    anyhow::ensure!(!kafka.brokers.is_empty(), "kafka.brokers is not set: name the brokers in the settings");
    let topics = &context.topics;
    let mut specs = Vec::new();
    let mut add = |name: String, settings: events::TopicSettings| -> anyhow::Result<()> {
        let config = settings.config().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let partitions = i32::try_from(settings.partitions).context("too many partitions")?;
        specs.push(bus::TopicSpec { name, partitions, replication: args.replication.unwrap_or(-1), config });
        Ok(())
    };
    for topic in Topic::ALL {
        add(topics.name(*topic), topic.settings())?;
    }
    for team in &args.teams {
        let team: Team = team.parse().map_err(|error| UsageError(format!("--team: {error}")))?;
        add(topics.jobs_of(&team), Topic::Jobs.settings())?;
    }
    for (topic, room) in Topic::consumed() {
        for name in context.topic_names(topic) {
            add(Topics::dead_letters(&context.group(room), &name), events::TopicSettings::DEAD_LETTER)?;
        }
    }
    for (name, outcome) in context.bus.create_topics(&specs).await? {
        let word = match outcome {
            bus::TopicOutcome::Created => "created",
            bus::TopicOutcome::AlreadyExists => "exists",
        };
        println!("{word:<8} {name}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What lies outside the settings themselves: the list of prices.
fn check(settings: &Settings) -> anyhow::Result<()> {
    settings.section::<PriceSettings>("prices")?.list()?;
    Ok(())
}

/// `config`.
pub(crate) fn config(command: ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Show(args) => {
            for shown in load_settings(&args, &[])?.show() {
                println!("{} = {}    # {}", shown.key, shown.value, shown.origin);
            }
            Ok(ExitCode::SUCCESS)
        }
        ConfigCommand::Check(args) => match load_settings(&args, &[]).and_then(|settings| check(&settings)) {
            Ok(_) => {
                println!("the settings are sound");
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                Ok(ExitCode::from(USAGE))
            }
        },
    }
}
