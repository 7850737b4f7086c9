//! Every command and flag, with its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use runtime::ServiceArgs;

use crate::bench::BenchCommand;

/// Answers files of prompts through provider batch APIs, at half the price of real-time calls: no row lost, no row paid
/// for twice.
#[derive(Debug, Parser)]
#[command(name = "batchmill", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 all rows answered, 1 failed or refused, 2 usage, 3 ended with failed rows, 4 no such job, 130 interrupted.

Example, with no keys and no servers:
  batchmill run products.csv --template 'Describe {{ title }}' --model sim/echo";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer one file: all four rooms in this process, over a local folder.
    ///
    /// Run the same command again after Ctrl-C or a crash and it goes on where it stopped, paying for nothing twice; run
    /// it again after its end and it says how the job ended.
    Run(Box<RunArgs>),
    /// Run all four rooms in this process, as services.
    All(ServiceArgs),
    /// Run the splitter: reads inputs, refuses what can't be answered, cuts the rest into batches.
    Splitter(ServiceArgs),
    /// Run the dispatcher: submits batches to the provider, never twice.
    Dispatcher(ServiceArgs),
    /// Run the poller: waits for the provider and accounts for every row.
    Poller(ServiceArgs),
    /// Run the merger: writes the outputs.
    Merger(ServiceArgs),
    /// Run the simulator: a provider on this machine, with OpenAI's Files and Batches API and a ledger of what was paid.
    Simulator(simulator::Args),
    /// Submit a job to the services: produces job.submitted to Kafka.
    Submit(Box<SubmitArgs>),
    /// Say how far a job is, or how it ended.
    Status(StatusArgs),
    /// Show a job's progress until it ends.
    Watch(StatusArgs),
    /// Ask that nothing more be spent on a job: it ends with what it has.
    ///
    /// What was not sent fails as cancelled, the provider's batches are cancelled, and every paid row is kept. With --data an
    /// interrupted run is ended right away; else the services end the job. A job that has ended stays as it is.
    Cancel(CancelArgs),
    /// Emit what the facts of open jobs leave to do, after topics were lost.
    ///
    /// The services do this by themselves, now and then (loop.reconcile_after_seconds). It does no harm at any time: a room
    /// takes what it knows already for a redelivery.
    Reconcile(ReconcileArgs),
    /// Look at dead letters, and send them back.
    Dlq {
        /// What to do with them.
        #[command(subcommand)]
        command: DlqCommand,
    },
    /// Manage the Kafka topics.
    Topics {
        /// What to do with them.
        #[command(subcommand)]
        command: TopicsCommand,
    },
    /// Look at the settings.
    Config {
        /// What to look at.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Measure one stage, the loop, the store, or a whole job of any size: for benchmarks.
    #[command(hide = true)]
    Bench {
        /// Which stage.
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Ask a service whether it is ready: exit 0 if it is. For the health check of a container.
    Healthcheck(HealthcheckArgs),
}

/// `healthcheck`.
#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// What to ask: any http:// address that answers 200 when all is well.
    #[arg(default_value = "http://127.0.0.1:9090/readyz")]
    pub(crate) url: String,
}

/// What is asked of which file: the flags that `run` and `submit` share.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The input: a CSV, TSV, gzipped CSV or Parquet file (a path for run, s3://bucket/key for submit).
    #[arg(required_unless_present = "spec", conflicts_with = "spec")]
    pub(crate) input: Option<String>,
    /// The prompt: a Jinja template over the row's columns, or @FILE to read it from a file.
    #[arg(short, long, value_name = "TEXT|@FILE", required_unless_present = "spec", conflicts_with = "spec")]
    pub(crate) template: Option<String>,
    /// The model as provider/model: openai/gpt-4o-mini, or sim/echo and sim/digest, which need no key.
    #[arg(short, long, value_name = "PROVIDER/MODEL", required_unless_present = "spec", conflicts_with = "spec")]
    pub(crate) model: Option<String>,
    /// A system prompt, sent as it stands with every row, or @FILE.
    #[arg(long, value_name = "TEXT|@FILE", conflicts_with = "spec")]
    pub(crate) system: Option<String>,
    /// A parameter of the request, as JSON: temperature=0, max_tokens=60. May be given again.
    #[arg(long = "param", value_name = "KEY=JSON", conflicts_with = "spec")]
    pub(crate) params: Vec<String>,
    /// The output [default: the input's name with .answers before its extension].
    #[arg(short, long, value_name = "PATH", conflicts_with = "spec")]
    pub(crate) output: Option<String>,
    /// The name of the column with the answers.
    #[arg(long, value_name = "NAME", default_value = "response", conflicts_with = "spec")]
    pub(crate) response_column: String,
    /// Add the columns beyond answer and error too: status, error_kind, finish_reason, model, tokens, attempts, cost_usd.
    #[arg(long, conflicts_with = "spec")]
    pub(crate) details: bool,
    /// The most rows of a batch.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=50_000), conflicts_with = "spec")]
    pub(crate) batch_rows: u32,
    /// The most encoded bytes of a batch.
    #[arg(long, value_name = "N", default_value_t = 200_000_000, value_parser = clap::value_parser!(u64).range(1..=200_000_000), conflicts_with = "spec")]
    pub(crate) batch_bytes: u64,
    /// What a malformed row does: refuse the whole job, or fail alone.
    #[arg(long, value_enum, default_value_t = BadRow::FailJob, conflicts_with = "spec")]
    pub(crate) on_bad_row: BadRow,
    /// How often a kind of failure is tried again, over the settings: expired=deadline, refused=0. May be given again.
    #[arg(long = "retry", value_name = "KIND=N|deadline", conflicts_with = "spec")]
    pub(crate) retries: Vec<String>,
    /// How long after its plan nothing new is tried and the job ends with what there is: 90m, 48h, 3d [default: the
    /// settings' hours, 72].
    #[arg(long, value_name = "DURATION", conflicts_with = "spec")]
    pub(crate) deadline: Option<String>,
    /// The input's format, when its content and name mislead.
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "spec")]
    pub(crate) format: Option<Format>,
    /// The CSV delimiter, when detection misleads: one ASCII character.
    #[arg(long, value_name = "CHAR", conflicts_with = "spec")]
    pub(crate) delimiter: Option<char>,
    /// Replace an output that is there and is not this job's.
    #[arg(long, conflicts_with = "spec")]
    pub(crate) overwrite: bool,
    /// The job's name [default: made from the job and the input].
    #[arg(long, value_name = "ID", conflicts_with = "spec")]
    pub(crate) id: Option<String>,
    /// Read the whole job from a JSON file instead of the flags above.
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: Option<PathBuf>,
}

/// `on_bad_row`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum BadRow {
    /// Refuse the whole job, naming the first malformed row.
    FailJob,
    /// Let the row fail alone.
    FailRow,
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Delimited text.
    Csv,
    /// Tab-separated text.
    Tsv,
    /// Gzipped delimited text.
    #[value(name = "csv.gz")]
    CsvGz,
    /// Apache Parquet.
    Parquet,
}

/// Settings for commands that are no services.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The settings file [default: batchmill.toml, if it is there].
    #[arg(long, value_name = "FILE", env = "BATCHMILL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// One setting over file and environment, as section.key=value. May be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// The folder for everything that is not the output: facts, batches, the simulator's ledger.
    #[arg(long, value_name = "DIR", default_value = ".batchmill")]
    pub(crate) data: PathBuf,
    /// Print the summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Submit on this team's topic instead of the shared one.
    #[arg(long, value_name = "TEAM")]
    pub(crate) team: Option<String>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `status` and `watch`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The job.
    pub(crate) job: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The job.
    pub(crate) job: String,
    /// The --data folder of an interrupted run.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `reconcile`.
#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// This job alone.
    #[arg(long, value_name = "ID")]
    pub(crate) job: Option<String>,
    /// Leave tasks alone whose newest fact is younger, as in 90s, 10m or 1h30m: they are probably under way.
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub(crate) older_than: String,
    /// Say what would be emitted and removed, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Then remove what ended jobs need no more (section cleanup of the settings), as the pollers do now and then.
    #[arg(long, conflicts_with = "job")]
    pub(crate) clean: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `dlq`.
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List the topics of dead letters, and the newest letters of each.
    Ls(DlqListArgs),
    /// Show one letter with its headers and its body.
    Show(DlqShowArgs),
    /// Send letters back to the topic that they came from, byte for byte, each once.
    ///
    /// What was sent back is remembered as the progress of the consumer group dlq-replay, so the same command again sends
    /// nothing twice. The record gets the header __batchmill.replay, and loses those that dead-lettering added.
    Replay(DlqReplayArgs),
}

/// `dlq ls`.
#[derive(Debug, Args)]
pub(crate) struct DlqListArgs {
    /// This topic alone.
    pub(crate) topic: Option<String>,
    /// The most letters of each topic.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `dlq show`.
#[derive(Debug, Args)]
pub(crate) struct DlqShowArgs {
    /// The letter, as dlq ls shows it.
    #[arg(value_name = "TOPIC/PARTITION/OFFSET")]
    pub(crate) letter: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `dlq replay`.
#[derive(Debug, Args)]
pub(crate) struct DlqReplayArgs {
    /// One letter, as dlq ls shows it; with --all a topic of dead letters.
    #[arg(value_name = "TOPIC/PARTITION/OFFSET|TOPIC")]
    pub(crate) what: String,
    /// Send back all letters of the topic that were not sent back before.
    #[arg(long)]
    pub(crate) all: bool,
    /// Send the letter back though it was sent back before.
    #[arg(long, conflicts_with = "all")]
    pub(crate) again: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `topics`.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// Create the topics that are missing, with their partitions and retention, and the dead-letter topics.
    Apply(TopicsArgs),
}

/// `topics apply`.
#[derive(Debug, Args)]
pub(crate) struct TopicsArgs {
    /// A team to make a jobs topic for, beside the shared one. May be given again.
    #[arg(long = "team", value_name = "TEAM")]
    pub(crate) teams: Vec<String>,
    /// Replicas of each partition [default: the broker's].
    #[arg(long, value_name = "N")]
    pub(crate) replication: Option<i32>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting with its value and where that came from; secrets are hidden.
    Show(ConfigArgs),
    /// Check file, environment and flags; exit 2 and say what is wrong if something is.
    Check(ConfigArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_and_flag_has_help() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(check);
    }

    #[test]
    fn a_batch_of_no_rows_is_a_usage_error() {
        let flags = ["batchmill", "run", "x.csv", "-t", "a", "-m", "sim/echo", "--batch-rows", "0"];
        assert_eq!(Cli::try_parse_from(flags).unwrap_err().exit_code(), 2);
    }
}
