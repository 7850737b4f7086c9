//! A faithful stand-in for a batch provider: OpenAI's Files and Batches wire protocol, with state on disk and a ledger.
//!
//! What it promises:
//! - The endpoints, shapes, statuses and errors of OpenAI's `/v1/files` and `/v1/batches`, close enough that the
//!   official SDK runs against it unmodified. Result rows come back shuffled; rows refused over HTTP go to the error
//!   file; a batch whose input is bad is accepted first and turns `failed` afterwards.
//! - **The ledger is the acceptance.** A create that the simulator accepts is one line in `<data>/ledger.jsonl`, on disk
//!   before the reply leaves. After any crash every complete line is a batch that can be listed and that runs to its
//!   end; nothing else is. Whoever counts what was paid reads that file, and nothing that a client believes.
//! - **A deleted file fences.** Once a delete has been answered, no create for that file is ever accepted; every create
//!   accepted before can be listed.
//! - Memory doesn't grow with file sizes: uploads, downloads and results are streamed.
//!
//! - **It lies when it is told to**, by a script of faults (`faults`, docs/FAULTS.md): lost replies, late creates, lists
//!   that lag, results with rows missing or doubled. The ledger stays true in all of them, and `<data>/billed.jsonl` says which rows
//!   were executed.
//!
//! What it deliberately lacks: other endpoints than chat completions, real models (`echo` and `digest` are functions of
//! the prompt, so a checker can compute every right answer), and rate limits of its own.
//!
//! One process owns a data folder, held by a lock of the operating system.

mod batches;
mod billed;
mod clock;
mod config;
mod connection;
mod faults;
mod files;
mod folder;
mod index;
mod ledger;
mod models;
mod records;
mod rows;
mod run;
mod server;
mod store;
mod validate;
mod wire;
mod work;

pub use config::{Args, Config, Pace, main_with};
pub use faults::rule::Script;
pub use server::{Running, Simulator, start};

/// The names of the models that every simulator has.
pub fn models() -> impl Iterator<Item = &'static str> {
    models::Model::ALL.into_iter().map(models::Model::name)
}

/// The names of all faults that a script can have.
pub fn faults() -> impl Iterator<Item = &'static str> {
    faults::fault::NAMES.into_iter()
}

/// What can keep a simulator from starting or going on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the data folder.
    #[error("the simulator's folder {0} is in use by another process; stop it, or give another --data")]
    Locked(std::path::PathBuf),
    /// The file system refused something.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// Where.
        path: std::path::PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A complete ledger line isn't one that the simulator wrote.
    #[error("{path} line {line} is not a ledger line ({source}); restore the file, or start with an empty folder")]
    Ledger {
        /// The ledger's path.
        path: std::path::PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A file that describes an upload or a batch can't be read.
    #[error("{path} is damaged ({source}); restore the file, or start with an empty folder")]
    Damaged {
        /// Its path.
        path: std::path::PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The address can't be listened on.
    #[error("cannot listen on {addr}: {source}; is another server there? give another --listen")]
    Listen {
        /// The address asked for.
        addr: std::net::SocketAddr,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Error {
    /// Says what was being done, and where, when the file system refused.
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}
