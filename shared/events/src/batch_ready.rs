//! `io.batchmill.batch.ready.v1`: a batch attempt's data is in the store and may be sent.
//!
//! First attempts and later ones are the same event on two topics, so that new work can never hold up a retry.

use model::{BatchRef, JobId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A batch attempt is ready for a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchReady {
    /// The job.
    pub job: JobId,
    /// The attempt: its number, its data and what of it is sent.
    pub batch: BatchRef,
}
