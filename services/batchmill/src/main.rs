//! The `batchmill` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    batchmill::execute(batchmill::Cli::parse())
}
