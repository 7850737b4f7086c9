//! The `batchmill` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = batchmill::Cli::parse();
    batchmill::keep_the_heap_small(&cli);
    batchmill::execute(cli)
}
