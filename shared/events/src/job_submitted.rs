//! `io.batchmill.job.submitted.v1`: somebody wants a file answered.
//!
//! The data is the job spec itself and nothing else, so the same JSON serves as a file for the command, as a plain Kafka
//! message and as this event. The team is not in it: it follows from the topic.

use model::JobSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A job was submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct JobSubmitted {
    /// The whole job.
    pub spec: JobSpec,
}
