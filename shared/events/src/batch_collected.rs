//! `io.batchmill.batch.collected.v1`: a batch attempt's rows are accounted for, each with a result.
//!
//! A hint for the merger to look whether the plan is covered. The counts are for whoever watches; the merger reads facts.

use model::{BatchId, Counts, JobId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A batch attempt was collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchCollected {
    /// The job.
    pub job: JobId,
    /// Which batch and attempt.
    #[serde(rename = "batch")]
    pub id: BatchId,
    /// Whether this was the batch's last attempt: no row of it is tried again.
    pub last: bool,
    /// Rows of this attempt by outcome.
    pub counts: Counts,
}
