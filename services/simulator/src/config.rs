//! What can be set, as a struct for other crates and as flags for the command line.
//!
//! Keys are named, never given: a flag with a secret in it would show in every process list.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::Context as _;

use crate::Script;

/// How long a batch stays in each status. Zero, the default, means: as long as the work takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Time in `validating`.
    pub validating: Duration,
    /// Time in `in_progress`; the rows are answered evenly over it.
    pub in_progress: Duration,
    /// Time in `finalizing`, and in `cancelling`.
    pub finalizing: Duration,
}

impl Pace {
    /// The same time in each status.
    pub fn each(time: Duration) -> Self {
        Self { validating: time, in_progress: time, finalizing: time }
    }
}

impl FromStr for Pace {
    type Err = String;

    /// One duration for every status (`2s`), or three, for validating, in_progress and finalizing (`1s,10s,500ms`).
    fn from_str(text: &str) -> Result<Self, String> {
        let times = text.split(',').map(duration).collect::<Result<Vec<_>, _>>()?;
        match times[..] {
            [time] => Ok(Self::each(time)),
            [validating, in_progress, finalizing] => Ok(Self { validating, in_progress, finalizing }),
            _ => Err(format!("'{text}': give one duration, or three separated by commas")),
        }
    }
}

/// A whole number with a unit: `250ms`, `2s`, `5m`, `1h`; a bare `0` too.
fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("'{text}': a duration is a number and a unit, as in 2s"))?;
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "" if number == 0 => Some(0),
        _ => None,
    };
    let millis = millis.ok_or_else(|| format!("'{text}': the unit is ms, s, m or h"))?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| format!("'{text}' is too long"))
}

/// Everything that a simulator is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder with all state; made if it isn't there. The ledger is `ledger.jsonl` in it.
    pub data: PathBuf,
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The keys that are let in. None at all: any bearer token is, and a request without one.
    pub api_keys: Vec<String>,
    /// How long a batch stays in each status.
    pub pace: Pace,
    /// Decides the order of result rows, together with the batch's id.
    pub seed: u64,
    /// A create for a file that isn't there is answered 200 and the batch turns `failed` later, as OpenAI sometimes does.
    /// By default the create is refused with 400. Either way nothing is written to the ledger.
    pub late_file_errors: bool,
    /// How many batches are worked on at the same time. Zero: one for each processor.
    pub workers: usize,
    /// What goes wrong on purpose.
    pub faults: Script,
}

impl Config {
    /// A simulator on a free loopback port that lets everybody in and works as fast as it can.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            api_keys: Vec::new(),
            pace: Pace::default(),
            seed: 0,
            late_file_errors: false,
            workers: 0,
            faults: Script::default(),
        }
    }
}

/// Run the provider simulator: an OpenAI Files and Batches server on this machine, for tests and dry runs.
///
/// Point any OpenAI client at the printed address. Models: `echo` answers with the last user message, `digest` with the
/// SHA-256 of it in lower-case hex. Every accepted batch is one line in DIR/ledger.jsonl.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Folder for all state: files, batches and ledger.jsonl. One process at a time
    #[arg(long, value_name = "DIR", default_value = "simulator-data")]
    pub data: PathBuf,

    /// Address to listen on; port 0 takes a free one. The address is printed when the server is ready
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8089")]
    pub listen: SocketAddr,

    /// Time a batch stays validating, in progress and finalizing: one duration for each, or three (2s or 1s,10s,500ms)
    #[arg(long, value_name = "DURATION", default_value = "0")]
    pub pace: Pace,

    /// Name of an environment variable with an API key to let in; may be repeated. Without it any key is let in
    #[arg(long, value_name = "NAME")]
    pub api_key_env: Vec<String>,

    /// Number that decides the order of result rows, together with each batch's id
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Batches worked on at the same time; 0 means one for each processor
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub workers: usize,

    /// JSON file with a fault script (docs/FAULTS.md): what goes wrong on purpose. `PUT /faults` replaces it
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,

    /// Answer a create for a missing input file with 200 and fail the batch later, instead of refusing it with 400
    #[arg(long)]
    pub late_file_errors: bool,
}

impl Args {
    /// The settings that the flags and the environment give.
    ///
    /// # Errors
    /// A named environment variable is not set, or empty; or the fault script can't be read.
    pub fn config(self) -> anyhow::Result<Config> {
        let key = |name: &String| {
            let value = std::env::var(name).with_context(|| format!("--api-key-env {name}: read the variable"))?;
            anyhow::ensure!(
                !value.is_empty(),
                "--api-key-env {name}: the variable is empty; set it to the key to let in"
            );
            Ok(value)
        };
        let faults = match &self.faults {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("--faults: read {}", path.display()))?;
                text.parse().map_err(|error| anyhow::anyhow!("--faults {}: {error}", path.display()))?
            }
            None => Script::default(),
        };
        Ok(Config {
            faults,
            api_keys: self.api_key_env.iter().map(key).collect::<anyhow::Result<_>>()?,
            data: self.data,
            listen: self.listen,
            pace: self.pace,
            seed: self.seed,
            late_file_errors: self.late_file_errors,
            workers: self.workers,
        })
    }
}

/// Runs a simulator until SIGTERM or SIGINT. Prints `listening on URL` on standard output when it is ready.
///
/// # Errors
/// The settings are wrong, the folder is in use or damaged, or the address can't be listened on.
pub async fn main_with(args: Args) -> anyhow::Result<()> {
    use std::io::Write as _;
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = crate::start(args.config()?).await?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on {}", running.url)?;
    out.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.stop().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_one_duration_or_three() {
        assert_eq!("2s".parse(), Ok(Pace::each(Duration::from_secs(2))));
        let three = Pace {
            validating: Duration::from_secs(1),
            in_progress: Duration::from_secs(120),
            finalizing: Duration::from_millis(5),
        };
        assert_eq!("1s,2m,5ms".parse(), Ok(three));
        assert_eq!("0".parse(), Ok(Pace::default()));
        for wrong in ["", "2", "s", "1s,2s", "1d", "-1s", "99999999999999999999h", "18446744073709551615h"] {
            assert!(wrong.parse::<Pace>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fault_script_that_is_wrong_is_refused_with_its_file_and_rule() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: Args,
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script.json");
        let config = || {
            let flags = ["simulator", "--faults", path.to_str().unwrap()];
            <Command as clap::Parser>::parse_from(flags).args.config()
        };
        assert!(config().unwrap_err().to_string().contains("script.json"));
        std::fs::write(&path, r#"[{"fault":"list_lags"},{"fault":"x"}]"#).unwrap();
        let error = config().unwrap_err().to_string();
        assert!(error.contains("script.json") && error.contains("rule 2 (x)"), "{error}");
        std::fs::write(&path, r#"[{"fault":"list_lags"}]"#).unwrap();
        assert_eq!(config().unwrap().faults, r#"[{"fault":"list_lags"}]"#.parse().unwrap());
    }

    #[test]
    fn a_key_variable_that_is_not_set_is_named() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: Args,
        }
        let command = <Command as clap::Parser>::parse_from(["simulator", "--api-key-env", "SURELY_NOT_SET_ANYWHERE"]);
        let error = command.args.config().unwrap_err();
        assert!(error.to_string().contains("SURELY_NOT_SET_ANYWHERE"));
    }
}
