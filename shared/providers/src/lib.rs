//! Batch APIs of model providers, behind one trait.
//!
//! What the rooms may rely on:
//!
//! - **One create is one POST.** [`Provider::create`] never repeats itself, follows no redirect and uses a connection of its
//!   own, and its outcome tells *refused cleanly* from *unknown*: ARCHITECTURE's page on double billing rests on that.
//! - **An error says what the caller does next** ([`Error`]); no error and no log line carries a key, a prompt or a signed
//!   address.
//! - **No provider's format leaks.** Rows are encoded by [`Encode`] and result lines decoded by [`Provider::decode_line`].
//! - **Nothing is retried here** and nothing waits: backoff belongs to the runtime, which has the clock.
//!
//! To add a provider: a folder beside `openai`, its kind in [`registry`], and the suite of its class in [`conformance`].
//!
//! Deliberately lacking: classes other than B (the trait is shaped for them; [`registry`] refuses them), real-time calls,
//! and any knowledge of jobs.

pub mod caps;
pub mod conformance;
pub mod observe;
pub mod openai;
pub mod provider;
pub mod registry;

pub use caps::{Caps, ModelSettings};
pub use observe::{CallOutcome, Observer, Operation};
pub use provider::{
    Answer, BadLine, BatchError, BatchStatus, ByteStream, Class, CreateOutcome, Deleted, Download, Encode, EncodeError,
    Error, FileEntry, FilePage, Limits, Outcome, Page, Provider, ProviderBatch, Result, UploadedFile,
};
pub use registry::{PollSchedule, ProviderMap, ProviderSettings, Providers, UnsupportedProvider, open};
