//! The `batchmill` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    batchmill::keep_the_heap_small();
    batchmill::execute(batchmill::Cli::parse())
}
