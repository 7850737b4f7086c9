//! What the merger decides: whether a plan is covered, which attempt speaks for a row, and whether the sums agree. No IO.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::facts::ResultFact;
use model::{BatchId, BatchRef, Counts, JobId, RowStatus, Team, Tokens};

/// Which batches of a job are covered, as far as events said. A hint that may be thrown away at any time: before a merge
/// the facts are asked. It goes stale by itself, since a partition that went to another process and came back brings
/// events of only some batches.
#[derive(Debug, Default)]
pub struct Covered {
    jobs: BTreeMap<JobId, Noted>,
}

#[derive(Debug)]
struct Noted {
    team: Team,
    batches: BTreeSet<u32>,
    /// The batches of the plan.
    planned: usize,
    /// Until when it is not looked again, on the process's monotonic clock.
    fresh_until: Duration,
}

/// After this long the facts are looked at again.
const FRESH: Duration = Duration::from_secs(60);
/// A look takes at most this part of the time: one over hundreds of thousands of batches takes minutes.
const SHARE: u32 = 20;

impl Covered {
    /// Starts from what a look at the facts said: it went on from `began` to `now`, and found these of so many planned batches
    /// covered. One too many only means that they are looked at again sooner.
    pub fn list(
        &mut self,
        (job, team): (&JobId, &Team),
        batches: impl IntoIterator<Item = u32>,
        planned: usize,
        (began, now): (Duration, Duration),
    ) {
        let fresh_until = now + FRESH.max(now.saturating_sub(began) * SHARE);
        let noted = Noted { team: team.clone(), batches: batches.into_iter().collect(), planned, fresh_until };
        self.jobs.insert(job.clone(), noted);
    }

    /// Notes one more batch of a job that was listed.
    pub fn note(&mut self, job: &JobId, batch: u32) {
        if let Some(noted) = self.jobs.get_mut(job) {
            noted.batches.insert(batch);
        }
    }

    /// The team of a job whose batches are surely not all covered yet: it was looked at lately, and some were not noted since.
    #[must_use]
    pub fn lacks_some(&self, job: &JobId, now: Duration) -> Option<&Team> {
        let noted = self.jobs.get(job)?;
        (noted.batches.len() < noted.planned && now < noted.fresh_until).then_some(&noted.team)
    }

    /// Forgets a job.
    pub fn forget(&mut self, job: &JobId) {
        self.jobs.remove(job);
    }

    /// Forgets all jobs: others may have had their events.
    pub fn forget_all(&mut self) {
        self.jobs.clear();
    }
}

/// The attempts of one batch, first to last; `None` while the last is not collected.
#[must_use]
pub fn attempts_of<'r>(first: &BatchRef, results: &'r BTreeMap<BatchId, ResultFact>) -> Option<Vec<&'r ResultFact>> {
    let mut chain = Vec::new();
    let mut id = first.id;
    loop {
        let fact = results.get(&id)?;
        chain.push(fact);
        match &fact.next {
            Some(next) => id = next.id,
            None => return Some(chain),
        }
    }
}

/// A contradiction between facts and data: the job must not end on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("batch {batch}: {what}")]
pub struct Contradiction {
    /// The batch.
    pub batch: u32,
    /// What contradicts what.
    pub what: String,
}

/// Of the attempts that have this row at their head, the latest: its answer is the row's. `heads[a]` is the input row at
/// the head of attempt `a`, or `None` when that attempt has no rows left. Returns how many attempts, from the first on,
/// stand at the row.
///
/// # Errors
/// When an attempt stands at an earlier row (a row that its predecessor doesn't have), or a later attempt has a row that
/// the one before it has not.
pub fn speaker(batch: u32, row: u64, heads: &[Option<u64>]) -> Result<usize, Contradiction> {
    let standing = heads.iter().take_while(|head| **head == Some(row)).count();
    let contradiction = |what: String| Err(Contradiction { batch, what });
    if standing == 0 {
        return contradiction(format!("the first attempt's results have no line for row {row}: {heads:?}"));
    }
    match heads[standing..].iter().flatten().find(|head| **head <= row) {
        Some(head) => contradiction(format!("an attempt has row {head} where the one before it is past it")),
        None => Ok(standing),
    }
}

/// Whether the row's last word fits its place: only the last attempt may end a row, and none may leave it `retried`.
///
/// # Errors
/// When the row is left open, or an earlier attempt had ended it.
pub fn check_word(batch: u32, row: u64, statuses: &[RowStatus]) -> Result<(), Contradiction> {
    let (last, earlier) = statuses.split_last().unwrap_or((&RowStatus::Retried, &[]));
    let open = *last == RowStatus::Retried;
    if open || earlier.iter().any(|status| *status != RowStatus::Retried) {
        return Err(Contradiction { batch, what: format!("row {row} is not ended exactly once: {statuses:?}") });
    }
    Ok(())
}

/// Whether a job's sums agree with its plan (invariant 8): each row exactly once, answered or failed.
#[must_use]
pub fn is_conserved(counts: &Counts, planned_rows: u64) -> bool {
    counts.rows == planned_rows && counts.retried == 0 && counts.is_conserved()
}

/// Whether what was merged of a batch agrees with the facts of its attempts: all answers, and with one attempt every kind
/// of failure. Over several attempts the kinds may differ, since a row that the deadline took keeps an earlier word.
#[must_use]
pub fn agrees(merged: &Counts, attempts: &[&ResultFact]) -> bool {
    match attempts {
        [only] => *merged == only.counts,
        _ => merged.answered == attempts.iter().map(|attempt| attempt.counts.answered).sum::<u64>(),
    }
}

/// The tokens of all attempts of all batches.
#[must_use]
pub fn tokens<'r>(results: impl IntoIterator<Item = &'r ResultFact>) -> Tokens {
    let mut sum = Tokens::default();
    results.into_iter().for_each(|result| sum += result.tokens);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::digest::Checksum;
    use model::{DataRef, FailureKind, Nonce};
    use proptest::prelude::*;

    #[test]
    fn the_latest_attempt_that_has_the_row_speaks_for_it() {
        assert_eq!(speaker(1, 7, &[Some(7), Some(7), Some(9)]), Ok(2));
        assert_eq!(speaker(1, 8, &[Some(8), Some(9), None]), Ok(1));
    }

    #[test]
    fn rows_out_of_place_are_contradictions() {
        for heads in [vec![Some(8)], vec![None], vec![Some(7), Some(6)], vec![Some(7), None, Some(7)]] {
            assert!(speaker(1, 7, &heads).is_err(), "{heads:?}");
        }
    }

    #[test]
    fn a_row_ends_once_and_in_its_last_attempt() {
        use RowStatus::{Answered, Failed, Retried};
        assert!(check_word(1, 0, &[Retried, Answered]).is_ok() && check_word(1, 0, &[Failed]).is_ok());
        for wrong in [vec![Retried], vec![Answered, Answered], vec![], vec![Failed, Retried]] {
            assert!(check_word(1, 0, &wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn each_row_gets_the_word_of_its_last_attempt(tries in proptest::collection::vec(1usize..5, 0..60)) {
            let attempts = tries.iter().copied().max().unwrap_or(0);
            let mut columns: Vec<Vec<u64>> = (0..attempts)
                .map(|attempt| (0..tries.len()).rev().filter(|row| tries[*row] > attempt).map(|row| row as u64).collect())
                .collect();
            for row in 0..tries.len() as u64 {
                let heads: Vec<Option<u64>> = columns.iter().map(|c| c.last().copied()).collect();
                let standing = speaker(1, row, &heads).unwrap();
                prop_assert_eq!(standing, tries[row as usize]);
                columns[..standing].iter_mut().for_each(|column| column.truncate(column.len() - 1));
            }
            prop_assert!(columns.iter().all(Vec::is_empty));
        }
    }

    fn names() -> (JobId, Team) {
        ("j".parse().unwrap(), Team::shared())
    }

    #[test]
    fn what_events_said_saves_a_look_only_while_it_is_fresh() {
        let ((job, team), mut covered) = (names(), Covered::default());
        let at = Duration::from_secs;
        assert_eq!(covered.lacks_some(&job, at(0)), None, "a job that was never looked at is looked at");
        covered.note(&job, 1);
        assert_eq!(covered.lacks_some(&job, at(0)), None, "an event alone is not enough");
        covered.list((&job, &team), [1], 3, (at(0), at(0)));
        covered.note(&job, 2);
        assert_eq!(covered.lacks_some(&job, at(1)), Some(&team));
        assert_eq!(covered.lacks_some(&job, at(61)), None, "what another process did meanwhile is unknown");
        covered.note(&job, 3);
        assert_eq!(covered.lacks_some(&job, at(1)), None);
    }

    #[test]
    fn a_look_that_takes_long_is_not_made_often() {
        let ((job, team), mut covered) = (names(), Covered::default());
        let at = Duration::from_secs;
        covered.list((&job, &team), [1], 3, (at(100), at(400)));
        assert_eq!(covered.lacks_some(&job, at(6_399)), Some(&team));
        assert_eq!(covered.lacks_some(&job, at(6_400)), None);
    }

    #[test]
    fn after_a_change_of_owners_the_facts_are_looked_at_again() {
        let ((job, team), mut covered) = (names(), Covered::default());
        covered.list((&job, &team), [1], 3, (Duration::ZERO, Duration::ZERO));
        assert!(covered.lacks_some(&job, Duration::ZERO).is_some());
        // Another merger had batch 2; batch 3 is the last.
        covered.forget_all();
        covered.note(&job, 3);
        assert_eq!(covered.lacks_some(&job, Duration::ZERO), None);
    }

    fn fact(number: u32, counts: Counts) -> ResultFact {
        ResultFact {
            schema: 1,
            nonce: Nonce::from_bits(number.into()),
            collected_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            id: BatchId { number: 1, attempt: number },
            data: DataRef { key: String::new(), checksum: Checksum::of(b""), bytes: 0, rows: counts.rows },
            counts,
            tokens: Tokens::default(),
            cost: None,
            provider_tokens: None,
            provider_batch: None,
            provider_status: None,
            unknown_ids: 0,
            duplicates: 0,
            next: None,
        }
    }

    #[test]
    fn what_was_merged_must_be_what_the_facts_of_the_attempts_say() {
        let counts = |answered: u64, failed: &[FailureKind]| {
            let mut counts = Counts::default();
            (0..answered).for_each(|_| counts.record(RowStatus::Answered, None));
            failed.iter().for_each(|kind| counts.record(RowStatus::Failed, Some(*kind)));
            counts
        };
        let (refused, late) = (FailureKind::Refused, FailureKind::Deadline);
        let one = fact(1, counts(3, &[refused]));
        assert!(agrees(&counts(3, &[refused]), &[&one]));
        assert!(!agrees(&counts(3, &[late]), &[&one]) && !agrees(&counts(4, &[]), &[&one]));
        let (first, second) = (fact(1, counts(2, &[])), fact(2, counts(1, &[late])));
        assert!(agrees(&counts(3, &[refused]), &[&first, &second]), "the deadline leaves a row its earlier word");
        assert!(!agrees(&counts(2, &[refused, refused]), &[&first, &second]));
    }

    #[test]
    fn sums_that_miss_a_row_are_not_conserved() {
        let mut counts = Counts::default();
        counts.record(RowStatus::Answered, None);
        assert!(is_conserved(&counts, 1));
        assert!(!is_conserved(&counts, 2));
        counts.record(RowStatus::Retried, None);
        assert!(!is_conserved(&counts, 2));
    }
}
