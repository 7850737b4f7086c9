//! What is still to do, from the facts alone.
//!
//! Events are hints: should a topic be lost, or the memory bus die with its process, this one pure function names the
//! events that set every open job going again. It may name work that is already under way (redelivery is normal), but
//! after every prefix of fact writes it must name whatever moves the job on.

use crate::facts::{BatchRef, EndFact, JobFact, JobFacts, PlanOutcome, SubmissionStep};
use crate::ids::{BatchId, Team};
use crate::spec::JobSpec;

/// One thing to do next; each is one event, but for [`Action::Close`].
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// The splitter is to read the input, or go on reading it: `job.submitted`.
    Split {
        /// The team on whose topic the job came.
        team: Team,
        /// The spec.
        spec: Box<JobSpec>,
    },
    /// The dispatcher is to submit this batch attempt: `batch.ready`.
    Dispatch(BatchRef),
    /// The poller is to collect this batch attempt: `batch.dispatched`, with the log's latest step.
    Collect(BatchRef, SubmissionStep),
    /// The merger is to look whether the plan is covered (or refused): `job.planned`.
    Merge,
    /// The job has ended and is to be announced, `job.ended`, and `open/<job>` removed.
    Close(Box<EndFact>),
}

impl Action {
    /// What is done, in a word: `split`, `dispatch`, `collect`, `merge`, `close`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Split { .. } => "split",
            Self::Dispatch(_) => "dispatch",
            Self::Collect(..) => "collect",
            Self::Merge => "merge",
            Self::Close(_) => "close",
        }
    }

    /// The batch attempt that it is about; none if it is about the whole job.
    #[must_use]
    pub fn batch(&self) -> Option<BatchId> {
        match self {
            Self::Dispatch(batch) | Self::Collect(batch, _) => Some(batch.id),
            Self::Split { .. } | Self::Merge | Self::Close(_) => None,
        }
    }
}

/// The work that these facts leave to do, in the order of the pipeline.
#[must_use]
pub fn next_actions(facts: &JobFacts) -> Vec<Action> {
    if let Some(end) = &facts.end {
        return if facts.open.is_some() { vec![Action::Close(Box::new(end.clone()))] } else { Vec::new() };
    }
    let Some(plan) = &facts.plan else {
        return split_action(facts).into_iter().collect();
    };
    let PlanOutcome::Planned { batches, .. } = &plan.outcome else {
        return vec![Action::Merge];
    };
    let open: Vec<Action> = batches.iter().filter_map(|first| batch_action(facts, first)).collect();
    if open.is_empty() { vec![Action::Merge] } else { open }
}

fn split_action(facts: &JobFacts) -> Option<Action> {
    let from_job = facts.job.as_ref().map(|JobFact { team, spec, .. }| (team, spec));
    let from_open = facts.open.as_ref().map(|open| (&open.team, &open.spec));
    let (team, spec) = from_job.or(from_open)?;
    Some(Action::Split { team: team.clone(), spec: Box::new(spec.clone()) })
}

/// Follows one batch through its attempts to the first that has no result.
fn batch_action(facts: &JobFacts, first: &BatchRef) -> Option<Action> {
    let attempt = open_attempt(facts, first)?;
    let action = match facts.submissions.get(&attempt.id) {
        Some((_, step @ (SubmissionStep::Submitted { .. } | SubmissionStep::Unsent { .. }))) => {
            Action::Collect(attempt.clone(), step.clone())
        }
        _ => Action::Dispatch(attempt.clone()),
    };
    Some(action)
}

/// The first attempt of a batch that has no result fact; `None` when the batch is covered.
#[must_use]
pub fn open_attempt<'a>(facts: &'a JobFacts, first: &'a BatchRef) -> Option<&'a BatchRef> {
    let mut attempt = first;
    while let Some(result) = facts.results.get(&attempt.id) {
        attempt = result.next.as_ref()?;
    }
    Some(attempt)
}

/// Whether every batch of the plan has a result fact that names no further attempt (a plan of no batches has).
#[must_use]
pub fn is_covered(facts: &JobFacts, batches: &[BatchRef]) -> bool {
    batches.iter().all(|first| open_attempt(facts, first).is_none())
}

/// Whether a batch attempt's log has come to its end: nothing more is written to it.
#[must_use]
pub fn is_dispatched(facts: &JobFacts, id: BatchId) -> bool {
    matches!(facts.submissions.get(&id), Some((_, SubmissionStep::Submitted { .. } | SubmissionStep::Unsent { .. })))
}

#[cfg(test)]
mod tests;
