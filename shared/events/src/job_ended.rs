//! `io.batchmill.job.ended.v1`: the job is over, and this is how it ended.
//!
//! It lies on a compacted topic under the job's key, so whoever reads that topic from its beginning has the last word on every
//! job. It is a copy of what `5-end.json` says, which stays the truth.

use jiff::Timestamp;
use model::price::JobCost;
use model::{Counts, EndFact, JobId, Refusal, Team, Tokens};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most bytes of a refusal's message in this event; the whole message is in `5-end.json`.
const MAX_REFUSAL_BYTES: usize = 4 * 1024;

/// A job ended: with an output, or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobEnded {
    /// The job.
    pub job: JobId,
    /// The team it belongs to.
    pub team: Team,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Rows by outcome; zero for a refusal.
    pub counts: Counts,
    /// Tokens over all attempts.
    pub tokens: Tokens,
    /// What they cost, over all attempts; none if that is not known, or the job was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<JobCost>,
    /// Where the output is, unless the job was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Where the failed rows are, ready to be run again; none if no row failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_rows: Option<String>,
    /// Why the job was refused, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

impl From<&EndFact> for JobEnded {
    /// The event of an end fact. A refusal's message is cut at 4 KiB, so that the event fits a message.
    fn from(end: &EndFact) -> Self {
        Self {
            job: end.job.clone(),
            team: end.team.clone(),
            ended_at: end.ended_at,
            counts: end.counts.clone(),
            tokens: end.tokens,
            cost: end.cost.clone(),
            output: end.output.as_ref().map(|output| output.uri.clone()),
            failed_rows: end.failed_rows.as_ref().map(|failed| failed.uri.clone()),
            refusal: end.refusal.as_ref().map(|refusal| {
                let cut = refusal.message.floor_char_boundary(MAX_REFUSAL_BYTES);
                Refusal::new(refusal.code, &refusal.message[..cut])
            }),
        }
    }
}
