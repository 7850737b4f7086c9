//! `io.batchmill.job.planned.v1`: the splitter committed a plan, or refused the job.
//!
//! It tells the merger that there is something to wait for, or a refusal to write down. The plan itself is a fact in the
//! store; here are only its totals.

use model::{JobId, RefusalCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A job was planned or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobPlanned {
    /// The job.
    pub job: JobId,
    /// What the splitter came to.
    #[serde(flatten)]
    pub outcome: PlanSummary,
}

/// A plan's totals, or the code of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum PlanSummary {
    /// The whole input was read and is valid.
    Planned {
        /// Rows of the input.
        rows: u64,
        /// Batches of the plan; 0 for an input without rows.
        batches: u32,
    },
    /// Nothing is spent on this job.
    Refused {
        /// Why, as a stable code; the message is in the plan fact.
        code: RefusalCode,
    },
}
