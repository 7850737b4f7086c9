//! The vocabulary of batchmill: what a job is, what it is made of, which facts the rooms write about it, and what
//! follows from them.
//!
//! Everything here is a value. There is no IO, no clock, no environment and no randomness, so each decision that is
//! made from these types can be tested by writing the facts down. What the parts are for:
//!
//! - [`ids`]: job, team, nonce, batch and row names, each with its grammar.
//! - [`spec`]: the job specification that a caller writes.
//! - [`keys`]: the only place that formats and parses object keys.
//! - [`facts`]: the small immutable objects that are the state of a job.
//! - [`outcome`]: how a row ended, by kind; counts and tokens.
//! - [`retry`]: which kinds of failure are tried again, and how often.
//! - [`price`]: what tokens cost, exactly, by a dated list.
//! - [`refusal`]: why a job is refused before anything is spent.
//! - [`next`]: `next_actions(facts)`: the work that the facts say is still to do.
//! - [`cleanup`]: what may be removed of a job that has ended.
//! - [`table`]: how the caller's file is laid out. [`value`]: one cell of it, as a template sees it.

pub mod cleanup;
pub mod digest;
pub mod facts;
pub mod ids;
pub mod keys;
pub mod next;
pub mod outcome;
pub mod price;
pub mod refusal;
pub mod retry;
pub mod spec;
pub mod table;
pub mod value;

pub use facts::{
    BatchRef, CancelFact, DataRef, EndFact, JobFact, OpenJob, OutputClaim, OutputRef, PinnedInput, PlanFact,
    PlanOutcome, ResultFact, SubmissionEntry, SubmissionStep,
};
pub use ids::{BatchId, CustomId, JobId, Nonce, Team};
pub use outcome::{Counts, FailureKind, RowStatus, Tokens};
pub use refusal::{Refusal, RefusalCode};
pub use spec::JobSpec;
pub use table::TableInfo;
pub use value::Value;
