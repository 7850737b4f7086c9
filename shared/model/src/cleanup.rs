//! What may be removed of a job that has ended.
//!
//! **Only data.** Batch data and result data of an ended job are nearly all of its bytes, and nothing will read them again. Its
//! facts all stay. They are small, and each is the answer that a sleeper gets who wakes up late: a dispatcher that was
//! stopped before a log entry must find that entry taken, or it would upload and create once more; a poller must find its
//! result fact, or its own would order another attempt; a splitter its plan; and who asks for the same id again, or for
//! its status, is answered from the job fact and the end. So after a clean-up [`crate::next::next_actions`] says what it said
//! before, and every *put once* is lost that would have been lost before.
//!
//! **Who meets what is removed** fails without harm. A merger that is still at work reads data that is gone, fails, and finds
//! `5-end.json` when it tries again. A poller that is still collecting can't read its batch data, fails, and finds the
//! result fact. A dispatcher that is still uploading fails likewise; should it have all it needs already, it loses the
//! next number of the log, and its file is an orphan. What such a one leaves behind (data that no fact names) is removed in
//! a later round.
//!
//! **The clock delays and never permits.** That a job has ended, and is not open any more, is a fact; the retention only
//! leaves people time to look.

use jiff::{SignedDuration, Timestamp};

use crate::facts::{JobFacts, SubmissionStep};
use crate::ids::{BatchId, JobId, Nonce};
use crate::keys::{self, Key};

/// The keys among `listed` (what lies in the job's folder) that may be removed: none while the job lives, nor until so long
/// after its end.
#[must_use]
pub fn removable<'l>(
    facts: &JobFacts,
    listed: impl IntoIterator<Item = &'l str>,
    now: Timestamp,
    retention: SignedDuration,
) -> Vec<&'l str> {
    let Some(end) = &facts.end else { return Vec::new() };
    if facts.open.is_some() || now.duration_since(end.ended_at) < retention {
        return Vec::new();
    }
    let is_data = |key: &str| match keys::parse(key) {
        Some(Key::BatchData(job, ..) | Key::ResultData(job, ..)) => job == end.job,
        _ => false,
    };
    listed.into_iter().filter(|key| is_data(key)).collect()
}

/// A file at a provider, by the name that its upload gave it ([`keys::upload_name`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The job.
    pub job: JobId,
    /// The batch attempt.
    pub attempt: BatchId,
    /// The epoch of the dispatcher that uploaded it.
    pub epoch: Nonce,
}

/// Reads an upload's name; none for any other file of the account.
#[must_use]
pub fn upload(name: &str) -> Option<Upload> {
    let rest = name.strip_prefix("batchmill-")?.strip_suffix(".jsonl")?;
    let (rest, epoch) = rest.rsplit_once('-')?;
    // The attempt's name has a dash of its own: 00000007-a1.
    let (rest, attempt) = rest.rsplit_once('-')?;
    let (job, number) = rest.rsplit_once('-')?;
    let (job, epoch): (JobId, Nonce) = (job.parse().ok()?, epoch.parse().ok()?);
    let attempt: BatchId = format!("{number}-{attempt}").parse().ok()?;
    (keys::upload_name(&job, attempt, &epoch) == name).then_some(Upload { job, attempt, epoch })
}

/// Whether an upload may be deleted at the provider: its attempt is collected or its job has ended, and `log`, the attempt's
/// whole submission log, shows that it is ours. A provider account may serve several stores with jobs of the same name; but
/// nobody uploads before its claim, which bears its epoch, is in the log.
///
/// The open file of a log, one whose create has no recorded outcome, is the fence of its batch: until the attempt is
/// collected nobody but the dispatcher may delete it.
#[must_use]
pub fn is_leftover(upload: &Upload, facts: &JobFacts, log: &[SubmissionStep]) -> bool {
    let is_ours = |step: &SubmissionStep| match step {
        SubmissionStep::Claim { epoch } | SubmissionStep::File { epoch, .. } => *epoch == upload.epoch,
        _ => false,
    };
    (facts.end.is_some() || facts.results.contains_key(&upload.attempt)) && log.iter().any(is_ours)
}

#[cfg(test)]
mod tests;
