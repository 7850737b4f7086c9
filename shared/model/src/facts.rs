//! The facts: small JSON objects, each put once at a deterministic key and never rewritten. Together they are the state
//! of a job; there is no other. [`crate::keys`] says where each lies.
//!
//! Large data is not here: a [`DataRef`] names a Parquet object with its digest, size and rows, and an object that no fact
//! names does not exist for anyone. Every fact carries the nonce of the writer that put it, so that a writer whose put
//! was answered by an error can tell whether its own write landed.
//!
//! Readers ignore fields that they do not know (a newer minor version wrote them); `schema` tells the major version, and
//! a room that meets a larger one leaves the job alone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Checksum;
use crate::ids::{BatchId, JobId, Nonce, Team};
use crate::outcome::{Counts, FailureKind, Tokens};
use crate::price::{Cost, JobCost, Pricing};
use crate::refusal::Refusal;
use crate::retry::RetryLimit;
use crate::spec::JobSpec;
use crate::table::TableInfo;

/// The major version of the facts that this code writes and reads.
pub const SCHEMA: u32 = 1;

/// A data object by all that proves it: a fact that names it makes it exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataRef {
    /// Its key in the store.
    pub key: String,
    /// What its bytes must come to.
    #[serde(flatten)]
    pub checksum: Checksum,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

/// One attempt's batch: its data, and what of it goes to the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchRef {
    /// Which batch and attempt.
    #[serde(flatten)]
    pub id: BatchId,
    /// The nonce of this attempt's custom ids.
    pub nonce: Nonce,
    /// The input row (from 0) of its first row.
    pub first_row: u64,
    /// The batch data.
    pub data: DataRef,
    /// Rows that are sent; the others failed locally.
    pub send_rows: u64,
    /// Exact size of the encoded requests of those rows, in bytes.
    pub send_bytes: u64,
}

/// `open/<job>`: an accepted job that has not ended. Put first, removed after `5-end.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenJob {
    /// Major version of this fact.
    pub schema: u32,
    /// The writer's mark.
    pub nonce: Nonce,
    /// The team, from the topic.
    pub team: Team,
    /// The whole spec: should every topic be lost, this is the job.
    pub spec: JobSpec,
    /// When it was put.
    pub opened_at: Timestamp,
}

/// The input as it was when the job began. Every later read says If-Match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PinnedInput {
    /// The object's ETag.
    pub etag: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// `0-job.json`: the job as the splitter took it up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobFact {
    /// Major version of this fact.
    pub schema: u32,
    /// The writer's mark.
    pub nonce: Nonce,
    /// The team, from the topic.
    pub team: Team,
    /// The spec.
    pub spec: JobSpec,
    /// When the job was taken up.
    pub accepted_at: Timestamp,
    /// The pinned input; none if the job is refused.
    pub input: Option<PinnedInput>,
    /// The input's layout; none if the job is refused.
    pub table: Option<TableInfo>,
    /// Why the job is refused, if its spec or its input showed that at the first look. Kept here, so that a splitter that
    /// comes after one that died refuses it for the same reason, whatever the input has become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// `2-plan.json`: where the input was cut, or why the job is refused. The one object makes the two exclude each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanFact {
    /// Major version of this fact.
    pub schema: u32,
    /// The writer's mark.
    pub nonce: Nonce,
    /// When it was put; the deadline counts from here.
    pub planned_at: Timestamp,
    /// Plan or refusal.
    #[serde(flatten)]
    pub outcome: PlanOutcome,
}

/// What the splitter came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum PlanOutcome {
    /// The whole input was read and is valid; these are its batches, in order.
    Planned {
        /// All rows of the input.
        rows: u64,
        /// After this time nothing new is tried.
        deadline: Timestamp,
        /// How often each kind of failure is tried again: the splitter's settings with the job's own changes over them,
        /// frozen here so that all pollers agree and a changed setting changes no living job. Empty in plans of before
        /// there was such a setting: then the defaults and the job's changes hold.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        retry: BTreeMap<FailureKind, RetryLimit>,
        /// What the tokens of this job cost: what the splitter's list of prices said of its model, frozen here so that
        /// all pollers agree and a changed price changes no living job. None in plans of before there were prices: then
        /// the cost is unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pricing: Option<Pricing>,
        /// First attempts, by number from 1.
        batches: Vec<BatchRef>,
    },
    /// Nothing is spent on this job.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

/// One entry of a batch attempt's submission log, `3-submissions/<batch>/<seq>.json`. Winning a `seq` is the
/// compare-and-swap; the latest entry rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubmissionEntry {
    /// Major version of this fact.
    pub schema: u32,
    /// The writer's mark.
    pub nonce: Nonce,
    /// When it was put.
    pub at: Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub step: SubmissionStep,
}

/// The steps of a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum SubmissionStep {
    /// A dispatcher takes the batch on.
    Claim {
        /// The claimer's epoch: the nonce of its run at it.
        epoch: Nonce,
    },
    /// The encoded file is at the provider; a create for it may now be sent, once.
    File {
        /// The epoch of the claim that uploaded it.
        epoch: Nonce,
        /// The provider's file id: the fencing token.
        file_id: String,
        /// The provider's own creation time, unix seconds.
        created_at: i64,
    },
    /// The provider has the batch.
    Submitted {
        /// The provider's batch id.
        provider_batch: String,
        /// Whether it was found in the provider's list after an unknown outcome.
        adopted: bool,
    },
    /// The create was refused cleanly: nothing runs for that file.
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The provider's error code, or the HTTP reason.
        code: String,
        /// The provider's message.
        message: String,
    },
    /// Nothing is sent; the poller accounts for the rows.
    Unsent {
        /// Why; none when each row failed locally with a reason of its own.
        kind: Option<FailureKind>,
        /// What happened, for people.
        message: String,
    },
}

/// `4-results/<batch>.json`: the attempt is collected. One put commits its results and the next attempt's batch data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultFact {
    /// Major version of this fact.
    pub schema: u32,
    /// The writer's mark.
    pub nonce: Nonce,
    /// When it was put.
    pub collected_at: Timestamp,
    /// Which batch and attempt.
    #[serde(flatten)]
    pub id: BatchId,
    /// The result data: one row for each row of the batch data, in order.
    pub data: DataRef,
    /// Rows by outcome of this attempt.
    pub counts: Counts,
    /// Tokens of this attempt, summed from its rows.
    pub tokens: Tokens,
    /// What they cost by the plan's price, summed from the rows; none if the plan has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// The batch's tokens by the provider's own figure for the whole batch, if it gave one. Where it differs from the sum
    /// over the rows, the rows are what the cost is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_tokens: Option<Tokens>,
    /// The provider's batch id, if it was sent.
    pub provider_batch: Option<String>,
    /// The provider's final status, as it spelt it.
    pub provider_status: Option<String>,
    /// Lines whose custom id is not of this attempt.
    #[serde(default)]
    pub unknown_ids: u64,
    /// Lines beyond the first for one row.
    #[serde(default)]
    pub duplicates: u64,
    /// The next attempt's batch, if rows are tried again.
    pub next: Option<BatchRef>,
}

/// `cancel.json`: somebody asked that nothing more be spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelFact {
    /// Major version of this fact.
    pub schema: u32,
    /// The writer's mark.
    pub nonce: Nonce,
    /// When.
    pub requested_at: Timestamp,
}

/// `5-end.json`: the last fact, and the commit mark that others read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndFact {
    /// Major version of this fact.
    pub schema: u32,
    /// The writer's mark.
    pub nonce: Nonce,
    /// The job.
    pub job: JobId,
    /// The team.
    pub team: Team,
    /// When the job was taken up.
    pub accepted_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Batches of the plan.
    pub batches: u32,
    /// Batch attempts that were collected.
    pub attempts: u32,
    /// Rows by outcome; zero for a refusal.
    pub counts: Counts,
    /// Tokens over all attempts.
    pub tokens: Tokens,
    /// What they cost, over all attempts; none if the list of prices lacks the model, or the job was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<JobCost>,
    /// The output, unless the job was refused.
    pub output: Option<OutputRef>,
    /// The failed rows as a file of the input's format, ready to be run again; none if no row failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_rows: Option<OutputRef>,
    /// Why the job was refused, if it was.
    pub refusal: Option<Refusal>,
}

/// A file of the caller's as the merger wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputRef {
    /// Where it is.
    pub uri: String,
    /// Its size.
    pub bytes: u64,
    /// What its bytes come to.
    #[serde(flatten)]
    pub checksum: Checksum,
}

/// `outputs/<digest of the URI>/<n>`: which job may write there. Put once; n+1 only after job n has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputClaim {
    /// Major version of this fact.
    pub schema: u32,
    /// The writer's mark.
    pub nonce: Nonce,
    /// The owner.
    pub job: JobId,
    /// The file that is claimed: the output, or the file of its failed rows.
    pub uri: String,
}

/// All the facts of one job that [`crate::next::next_actions`] looks at: which exist, and what the small ones say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobFacts {
    /// `open/<job>`.
    pub open: Option<OpenJob>,
    /// `0-job.json`.
    pub job: Option<JobFact>,
    /// `2-plan.json`.
    pub plan: Option<PlanFact>,
    /// The latest entry of each submission log, with its sequence number.
    pub submissions: BTreeMap<BatchId, (u32, SubmissionStep)>,
    /// Result facts.
    pub results: BTreeMap<BatchId, ResultFact>,
    /// Whether `cancel.json` exists.
    pub cancelled: bool,
    /// `5-end.json`.
    pub end: Option<EndFact>,
}
