//! The simulator as a process of its own. Everything it does is in the library; this file parses flags.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "simulator", version, about)]
struct Command {
    #[command(flatten)]
    args: simulator::Args,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Command::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match simulator::main_with(command.args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}
