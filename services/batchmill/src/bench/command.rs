//! The command lines of `bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Where `bench store` puts its object unless another key is given.
const OBJECT: &str = "bench/object";

/// `bench`.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// A CSV or Parquet file into batches.
    Split {
        /// The file.
        input: PathBuf,
        /// The folder for batch-00000.parquet, ….
        out: PathBuf,
        /// The job as JSON, without id, input and output [default: a catalogue's titles and descriptions].
        #[arg(long, value_name = "FILE")]
        spec: Option<PathBuf>,
        #[command(flatten)]
        args: BenchArgs,
    },
    /// Batches into the provider's requests.
    Encode {
        /// The folder that split wrote.
        batches: PathBuf,
        /// The folder for batch-00000.jsonl, ….
        out: PathBuf,
        #[command(flatten)]
        args: BenchArgs,
    },
    /// The provider's answers into results.
    Ingest {
        /// The folder with result-00000.jsonl, …: one file for each batch.
        results: PathBuf,
        /// The folder for result-00000.parquet, ….
        out: PathBuf,
        /// The folder that split wrote [default: b, beside the folder of the results].
        #[arg(long, value_name = "DIR")]
        batches: Option<PathBuf>,
        #[command(flatten)]
        args: BenchArgs,
    },
    /// One object into the store or out of it, through the code that the rooms use: what it takes, as JSON.
    Store {
        /// Which way.
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// A made-up job through all four rooms in this process, with a provider that answers at once: what it takes, as JSON.
    Scale {
        /// The folder for input, store and output, which must be empty or missing. They stay there.
        folder: PathBuf,
        /// The rows.
        #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        rows: u64,
        /// The most rows of a batch.
        #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
        batch_rows: u32,
        #[command(flatten)]
        args: BenchArgs,
    },
    /// Events through a room that does next to nothing: what one costs, as JSON.
    Events {
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
        #[command(flatten)]
        args: BenchArgs,
    },
    /// Batches and results into the answered file.
    Merge {
        /// The folder that split wrote.
        batches: PathBuf,
        /// The folder that ingest wrote.
        results: PathBuf,
        /// The file: of the input's format.
        out: PathBuf,
        #[command(flatten)]
        args: BenchArgs,
    },
}

/// Settings of a stage.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The settings file [default: batchmill.toml, if it is there].
    #[arg(long, value_name = "FILE", env = "BATCHMILL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// One setting over file and environment, as section.key=value. May be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `bench store`.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// A file into the store, in parts, hashed on its way.
    Put {
        /// The file.
        file: PathBuf,
        /// The object's key.
        #[arg(long, value_name = "KEY", default_value = OBJECT)]
        key: String,
        #[command(flatten)]
        args: BenchArgs,
    },
    /// An object out of the store to scratch disk, in parts side by side, checked against its checksum.
    Get {
        /// The object's size in bytes, as `put` told it.
        #[arg(long, value_name = "N")]
        bytes: u64,
        /// Its BLAKE3, as `put` told it.
        #[arg(long, value_name = "HEX")]
        blake3: String,
        /// The object's key.
        #[arg(long, value_name = "KEY", default_value = OBJECT)]
        key: String,
        #[command(flatten)]
        args: BenchArgs,
    },
    /// A caller's file, as the splitter reads it: ranged reads, each pinned to the version that was met.
    Read {
        /// The file's URI.
        uri: String,
        #[command(flatten)]
        args: BenchArgs,
    },
}
