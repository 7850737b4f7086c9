//! `io.batchmill.batch.dispatched.v1`: the dispatcher is done with a batch attempt, and the poller accounts for its rows.
//!
//! An attempt with nothing to send comes along here like any other, so every row takes the same way.

use model::{BatchRef, JobId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A batch attempt left the dispatcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchDispatched {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub batch: BatchRef,
    /// Whether the provider has it.
    pub submission: Submission,
}

/// How a submission ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Submission {
    /// The provider has the batch.
    Submitted {
        /// The provider's batch id.
        provider_batch: String,
    },
    /// Nothing was sent; the submission log says why.
    Unsent,
}
