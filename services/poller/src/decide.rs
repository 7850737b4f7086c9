//! What the poller decides: whether to wait, collect or give up; what a row gets that no file speaks of; and which rows
//! are tried again. No IO.
//!
//! The words of a provider are taken for what they are worth: *completed* does not mean that every row succeeded,
//! *expired*, *cancelled* and *failed* do not mean that no row did, and counts are not looked at. Whatever the final
//! status, both files are read and each row is accounted for by its own line, or by the lack of one.

use model::retry::{RetryTable, Tries};
use model::{FailureKind, RowStatus, Tokens};
use providers::{BatchError, BatchStatus, ProviderBatch};

/// What to do after a look at a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Nothing yet: look again.
    Wait,
    /// The job wants no more of it: ask the provider to cancel, then look again.
    Cancel,
    /// It has ended: read both files. Rows of which neither speaks fail so.
    Collect(Unmentioned),
}

/// How a row fails that neither file speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmentioned {
    /// The kind.
    pub kind: FailureKind,
    /// What happened, for people.
    pub message: String,
}

/// `completed` is seen before the file ids appear (litellm #37713): so many more looks are taken before a batch of sent
/// rows without any file is believed.
pub const FILELESS_LOOKS: u32 = 6;

/// Decides from the provider's view. `unwanted` when the job was cancelled or its deadline passed; `looks` counts the
/// looks at which the batch was completed without a file.
#[must_use]
pub fn look(batch: &ProviderBatch, unwanted: bool, looks: u32) -> Look {
    let fileless = batch.output_file.is_none() && batch.error_file.is_none();
    match batch.status {
        BatchStatus::Completed if fileless && looks < FILELESS_LOOKS => Look::Wait,
        BatchStatus::Completed => Look::Collect(unmentioned(
            FailureKind::Missing,
            "the provider completed the batch without a word on this row",
        )),
        BatchStatus::Expired => {
            Look::Collect(unmentioned(FailureKind::Expired, "the provider's window closed before this row ran"))
        }
        BatchStatus::Cancelled => {
            Look::Collect(unmentioned(FailureKind::Cancelled, "the batch was cancelled before this row ran"))
        }
        BatchStatus::Failed => Look::Collect(failed(&batch.errors)),
        BatchStatus::Queued | BatchStatus::Running | BatchStatus::Unknown if unwanted => Look::Cancel,
        _ => Look::Wait,
    }
}

/// So many looks are given to a batch that its job wants no more: it is cancelled, finishes what it has begun, and writes its
/// files. With the default schedule that is five hours. One that is stuck for good must not keep its job from ending.
pub const UNWANTED_LOOKS: u32 = 60;

/// Whether to wait no longer for a batch that its job wants no more, and how its rows fail then. `looks` counts the looks
/// since it was unwanted.
#[must_use]
pub fn give_up(batch: &ProviderBatch, looks: u32) -> Option<Unmentioned> {
    (looks > UNWANTED_LOOKS && !batch.status.is_terminal()).then(|| Unmentioned {
        kind: FailureKind::Cancelled,
        message: format!("the provider did not end the batch (status {:?}) though it was asked to", batch.raw_status),
    })
}

/// Whether a result file that the provider does not find is gone for good. As long as the job wants its rows it is asked for
/// again and again; after that only as often as a missing file id is. `looks` counts the looks before this one that showed
/// the batch as ended.
#[must_use]
pub fn lost_files_are_gone(unwanted: bool, looks: u32) -> bool {
    unwanted && looks >= FILELESS_LOOKS
}

/// How many pages of a hundred batches are listed for so many that are waited for; 0: they are asked for one by one. One page
/// more than they fill, since others' batches stand between them.
#[must_use]
pub fn pages_to_list(waiting: usize) -> u32 {
    if waiting < LIST_FROM {
        return 0;
    }
    u32::try_from(waiting.div_ceil(PAGE)).map_or(MOST_PAGES, |pages| (pages + 1).min(MOST_PAGES))
}

/// From so many batches on a list costs less than asking for each.
const LIST_FROM: usize = 8;
/// Batches of a page, as providers list them.
const PAGE: usize = 100;
/// The most pages of one round.
const MOST_PAGES: u32 = 50;

fn unmentioned(kind: FailureKind, message: &str) -> Unmentioned {
    Unmentioned { kind, message: message.to_owned() }
}

/// What a batch that failed as a whole says about its rows: nothing, mostly. A full token queue passes; a batch that is
/// wrong in itself (an unknown model, a URL that does not fit) will be wrong again; the rest is worth another try.
fn failed(errors: &[BatchError]) -> Unmentioned {
    let Some(first) = errors.first() else {
        return unmentioned(FailureKind::BatchFailed, "the provider failed the batch and gave no reason");
    };
    let kind = match first.code.as_str() {
        "token_limit_exceeded" | "too_many_tasks" | "rate_limit_exceeded" => FailureKind::RateLimited,
        "model_not_found"
        | "mismatched_model"
        | "model_mismatch"
        | "invalid_url"
        | "url_mismatch"
        | "streaming_unsupported"
        | "missing_required_parameter"
        | "invalid_request" => FailureKind::BatchRejected,
        _ => FailureKind::BatchFailed,
    };
    let line = first.line.map(|line| format!(", line {line}")).unwrap_or_default();
    Unmentioned { kind, message: format!("the provider failed the batch ({}{line}): {}", first.code, first.message) }
}

/// How a batch that was never sent accounts for the rows that were to be sent.
#[must_use]
pub fn unsent(kind: Option<FailureKind>, message: &str) -> Unmentioned {
    Unmentioned { kind: kind.unwrap_or(FailureKind::BatchRejected), message: message.to_owned() }
}

/// A row's failure: final, or tried again with the tries so far.
#[must_use]
pub fn settle(kind: FailureKind, tries: &mut Tries, table: &RetryTable, unwanted: bool) -> RowStatus {
    let again = table.tries_again(kind, tries.of(kind), unwanted);
    tries.record(kind);
    if again { RowStatus::Retried } else { RowStatus::Failed }
}

/// The provider's sum of tokens over a batch, where it is to be believed: the batch has ended, and the sum is not all zeros,
/// which stand for no figure.
#[must_use]
pub fn batch_tokens(batch: &ProviderBatch) -> Option<Tokens> {
    batch.usage.filter(|tokens| batch.status.is_terminal() && *tokens != Tokens::default())
}

/// Whether the sum over the rows is not the provider's over the batch. Cached and reasoning tokens are compared only where
/// the batch tells them: many servers give the two main figures alone.
#[must_use]
pub fn usage_differs(rows: &Tokens, batch: Option<&Tokens>) -> bool {
    let part = |rows: u64, batch: u64| batch != 0 && batch != rows;
    batch.is_some_and(|batch| {
        (rows.input, rows.output) != (batch.input, batch.output)
            || part(rows.cached, batch.cached)
            || part(rows.reasoning, batch.reasoning)
    })
}

/// Of two lines for one row, whether the later one replaces the earlier: a success beats an error, else the first wins.
#[must_use]
pub fn replaces(earlier_answered: bool, later_answered: bool) -> bool {
    later_answered && !earlier_answered
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn batch(status: BatchStatus, output: Option<&str>, error: Option<&str>) -> ProviderBatch {
        ProviderBatch {
            id: "b".to_owned(),
            status,
            raw_status: "raw".to_owned(),
            input_file: None,
            metadata: BTreeMap::new(),
            created_at: 0,
            output_file: output.map(str::to_owned),
            error_file: error.map(str::to_owned),
            errors: Vec::new(),
            progress: None,
            usage: None,
            expires_at: None,
        }
    }

    #[test]
    fn a_batch_is_waited_for_until_it_ends_and_an_unknown_status_is_no_end() {
        for status in [BatchStatus::Queued, BatchStatus::Running, BatchStatus::Finalizing, BatchStatus::Unknown] {
            assert_eq!(look(&batch(status, None, None), false, 0), Look::Wait, "{status:?}");
        }
    }

    #[test]
    fn a_job_that_wants_no_more_cancels_what_still_runs_and_lets_the_rest_finish() {
        assert_eq!(look(&batch(BatchStatus::Running, None, None), true, 0), Look::Cancel);
        assert_eq!(look(&batch(BatchStatus::Finalizing, None, None), true, 0), Look::Wait);
        assert_eq!(look(&batch(BatchStatus::Cancelling, None, None), true, 0), Look::Wait);
        assert!(matches!(look(&batch(BatchStatus::Completed, Some("o"), None), true, 0), Look::Collect(_)));
    }

    #[test]
    fn a_batch_that_does_not_end_though_nobody_wants_it_is_given_up() {
        let stuck = batch(BatchStatus::Finalizing, None, None);
        assert_eq!(give_up(&stuck, UNWANTED_LOOKS), None);
        assert_eq!(give_up(&stuck, UNWANTED_LOOKS + 1).unwrap().kind, FailureKind::Cancelled);
        assert_eq!(give_up(&batch(BatchStatus::Cancelled, None, None), u32::MAX), None);
    }

    #[test]
    fn completed_without_files_is_not_believed_at_once() {
        let bare = batch(BatchStatus::Completed, None, None);
        assert_eq!(look(&bare, false, 0), Look::Wait);
        assert!(matches!(look(&bare, false, FILELESS_LOOKS), Look::Collect(_)));
        assert!(matches!(look(&batch(BatchStatus::Completed, None, Some("e")), false, 0), Look::Collect(_)));
    }

    #[test]
    fn a_lost_file_is_believed_gone_only_when_nobody_wants_it_and_not_at_once() {
        assert!(!lost_files_are_gone(false, u32::MAX));
        assert!(!lost_files_are_gone(true, FILELESS_LOOKS - 1));
        assert!(lost_files_are_gone(true, FILELESS_LOOKS));
    }

    #[test]
    fn what_nobody_mentions_fails_by_how_the_batch_ended() {
        for (status, kind) in [
            (BatchStatus::Completed, FailureKind::Missing),
            (BatchStatus::Expired, FailureKind::Expired),
            (BatchStatus::Cancelled, FailureKind::Cancelled),
            (BatchStatus::Failed, FailureKind::BatchFailed),
        ] {
            let Look::Collect(rows) = look(&batch(status, Some("o"), None), false, 0) else { panic!("{status:?}") };
            assert_eq!(rows.kind, kind);
        }
    }

    #[test]
    fn a_failed_batch_is_told_apart_by_its_first_error() {
        for (code, kind) in [
            ("token_limit_exceeded", FailureKind::RateLimited),
            ("model_not_found", FailureKind::BatchRejected),
            ("duplicate_custom_id", FailureKind::BatchFailed),
        ] {
            let error = BatchError { code: code.to_owned(), message: "m".to_owned(), line: Some(3) };
            assert_eq!(failed(&[error]).kind, kind, "{code}");
        }
    }

    #[test]
    fn a_batchs_usage_is_believed_once_it_has_ended_and_says_something() {
        let some = Tokens { input: 3, ..Tokens::default() };
        let with = |status, usage| ProviderBatch { usage, ..batch(status, None, None) };
        assert_eq!(batch_tokens(&with(BatchStatus::Completed, Some(some))), Some(some));
        assert_eq!(batch_tokens(&with(BatchStatus::Running, Some(some))), None);
        assert_eq!(batch_tokens(&with(BatchStatus::Expired, Some(Tokens::default()))), None);
        assert_eq!(batch_tokens(&with(BatchStatus::Completed, None)), None);
    }

    #[test]
    fn usage_differs_where_the_batch_says_another_figure() {
        let rows = Tokens { input: 10, cached: 4, output: 5, reasoning: 2 };
        assert!(!usage_differs(&rows, None) && !usage_differs(&rows, Some(&rows)));
        assert!(!usage_differs(&rows, Some(&Tokens { cached: 0, reasoning: 0, ..rows })));
        for other in [
            Tokens { input: 11, ..rows },
            Tokens { output: 0, ..rows },
            Tokens { cached: 3, ..rows },
            Tokens { reasoning: 1, ..rows },
        ] {
            assert!(usage_differs(&rows, Some(&other)), "{other:?}");
        }
    }

    #[test]
    fn many_batches_are_listed_and_few_are_asked_for() {
        let pages: Vec<u32> = [0, 7, 8, 100, 101, 1_000, 1_000_000].into_iter().map(pages_to_list).collect();
        assert_eq!(pages, [0, 0, 2, 2, 3, 11, 50]);
    }

    #[test]
    fn a_success_beats_an_error_and_else_the_first_line_wins() {
        assert!(replaces(false, true));
        assert!(!replaces(true, true) && !replaces(true, false) && !replaces(false, false));
    }

    proptest! {
        #[test]
        fn a_row_that_keeps_failing_comes_to_an_end(kind in proptest::sample::select(FailureKind::ALL), deadline_after in 1u32..50) {
            let (table, mut tries) = (RetryTable::default(), Tries::default());
            let ended = (0..).position(|n| settle(kind, &mut tries, &table, n >= deadline_after) == RowStatus::Failed).unwrap();
            prop_assert!(ended <= deadline_after as usize);
            prop_assert_eq!(tries.of(kind) as usize, ended + 1);
        }
    }
}
