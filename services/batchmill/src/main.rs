//! The `batchmill` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    batchmill::keep_one_heap();
    batchmill::execute(batchmill::Cli::parse())
}
