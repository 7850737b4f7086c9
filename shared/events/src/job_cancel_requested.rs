//! `io.batchmill.job.cancel_requested.v1`: somebody wants no more spent on a job.
//!
//! A cancel is no ending of its own: the rooms stop sending, account for every row, and the merger merges as always.

use model::JobId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cancellation of a job was requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobCancelRequested {
    /// The job to cancel.
    pub job: JobId,
}
