//! What to do about one batch attempt, from its submission log and a few facts. No IO: the protocol that keeps a row from
//! being paid for twice is all here, small enough to be proofread and to be model-checked.
//!
//! The log is a sequence of entries, each put once; winning the next sequence number *is* the compare-and-swap, and the
//! latest entry rules. The rules, in the order of the steps:
//!
//! 1. A dispatcher that wants to act wins a `Claim`. Who loses waits.
//! 2. If an earlier entry recorded an uploaded file and no entry says how its create ended, a create for that file may
//!    be under way in a dead or a stopped process. The file is the fence: look through the provider's list, delete the
//!    file, look again. A batch found is adopted. A list that failed on any page proves nothing.
//! 3. Only then is a new file uploaded, and recorded as `File`; who loses that number waits.
//! 4. One create is sent for that file, and never again: an unknown outcome begins again at 1.

use std::time::Duration;

use model::{FailureKind, Nonce, SubmissionStep};

/// A file that may still be used by a create whose outcome nobody recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// The provider's file id.
    pub file_id: String,
    /// The provider's own time of the upload, unix seconds.
    pub created_at: i64,
}

/// Why a batch attempt is not to be sent (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// No row of it is to be sent: each failed locally.
    NothingToSend,
    /// The job was cancelled.
    Cancelled,
    /// The job's deadline has passed.
    Deadline,
}

/// What the log and the job's facts say is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The log has ended with this step: tell the poller.
    Emit(SubmissionStep),
    /// End the log with `Unsent` at this sequence number; no create can be under way.
    Unsend {
        /// The number to win.
        seq: u32,
        /// The kind that the sent rows fail with; none when each failed locally.
        kind: Option<FailureKind>,
        /// What happened, for people.
        message: String,
    },
    /// Win a claim at this number; then fence the open file, if any; then, if there is a reason to stop, `Unsent`;
    /// else upload and create.
    Claim {
        /// The number to win, or the number that was won already.
        seq: u32,
        /// Whether the latest entry is this process's own claim: nobody has claimed since, and no file was recorded
        /// under it, so the work goes on without another.
        held: bool,
        /// The file to fence first.
        fence: Option<OpenFile>,
        /// Why nothing is sent once the fence holds.
        stop: Option<Stop>,
    },
}

/// How often a create may be refused for want of its file before the refusal is believed: providers answer so for a moment after an
/// upload ("Cannot find file", as users of OpenAI have reported).
pub const NOT_FOUND_TRIES: usize = 5;

/// Decides from the log, first entry first. `epoch` marks this process's claims.
#[must_use]
pub fn next(log: &[SubmissionStep], epoch: &Nonce, stop: Option<Stop>) -> Next {
    let entries = u32::try_from(log.len()).unwrap_or(u32::MAX);
    let seq = entries.saturating_add(1);
    match log.last() {
        Some(step @ (SubmissionStep::Submitted { .. } | SubmissionStep::Unsent { .. })) => Next::Emit(step.clone()),
        Some(SubmissionStep::Rejected { status, code, message }) if is_final(log, *status) => Next::Unsend {
            seq,
            kind: Some(rejected_kind(code)),
            message: format!("the provider refused the batch ({status} {code}): {message}"),
        },
        _ => match (open_file(log), stop) {
            (None, Some(stop)) => Next::Unsend { seq, kind: stop.kind(), message: stop.message().to_owned() },
            (fence, stop) => {
                let held = matches!(log.last(), Some(SubmissionStep::Claim { epoch: theirs }) if theirs == epoch);
                Next::Claim { seq: if held { entries } else { seq }, held, fence, stop }
            }
        },
    }
}

/// The latest file whose create has no recorded outcome. Earlier ones were fenced before the latest was uploaded.
fn open_file(log: &[SubmissionStep]) -> Option<OpenFile> {
    log.iter().rev().find_map(|step| match step {
        SubmissionStep::Rejected { .. } => Some(None),
        SubmissionStep::File { file_id, created_at, .. } => {
            Some(Some(OpenFile { file_id: file_id.clone(), created_at: *created_at }))
        }
        _ => None,
    })?
}

/// Whether a clean refusal will be the same next time. Limits (429) pass; credentials (401, 403) are mended by an operator
/// and cost no row its tries; 404 is believed after a few times.
fn is_final(log: &[SubmissionStep], status: u16) -> bool {
    match status {
        401 | 403 | 429 => false,
        _ if says_no_file(log.last()) => log.iter().filter(|step| says_no_file(Some(step))).count() >= NOT_FOUND_TRIES,
        _ => true,
    }
}

/// Whether a refusal says that the uploaded file is not there: with 404, or with 400 and words to that effect.
fn says_no_file(step: Option<&SubmissionStep>) -> bool {
    let Some(SubmissionStep::Rejected { status, code, message }) = step else { return false };
    let words = || message.to_ascii_lowercase().contains("find file") || code.contains("file_not_found");
    *status == 404 || (*status == 400 && words())
}

fn rejected_kind(code: &str) -> FailureKind {
    match code {
        "context_length_exceeded" => FailureKind::ContextTooLong,
        _ => FailureKind::BatchRejected,
    }
}

impl Stop {
    /// The kind that the batch's rows fail with.
    #[must_use]
    pub fn kind(self) -> Option<FailureKind> {
        match self {
            Self::NothingToSend => None,
            Self::Cancelled => Some(FailureKind::Cancelled),
            Self::Deadline => Some(FailureKind::Deadline),
        }
    }

    /// The reason, for people.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::NothingToSend => "no row of the batch can be sent",
            Self::Cancelled => "the job was cancelled before the batch was sent",
            Self::Deadline => "the job's deadline passed before the batch was sent",
        }
    }
}

/// How long to wait after a clean refusal that may pass: the provider's word if it gave one, else by status, longer with
/// each refusal. `limited` is the first wait after a 429.
#[must_use]
pub fn wait_after_refusal(status: u16, retry_after: Option<Duration>, tries: u32, limited: Duration) -> Duration {
    let usual = match status {
        429 => limited,
        401 | 403 => Duration::from_secs(60),
        _ => Duration::from_secs(2),
    };
    retry_after.unwrap_or_else(|| growing(usual, tries)).min(Duration::from_secs(3_600))
}

/// How long a batch of rows to try again waits before it is sent, so that what failed at once does not fail again at
/// once: from the provider's shortest look, doubled with each attempt. First attempts don't wait.
#[must_use]
pub fn wait_before_attempt(attempt: u32, shortest_look: Duration) -> Option<Duration> {
    (attempt > 1).then(|| growing(shortest_look, attempt - 2))
}

/// Doubled with each try, up to ten minutes.
#[must_use]
pub fn growing(first: Duration, tries: u32) -> Duration {
    first.saturating_mul(1 << tries.min(16)).min(Duration::from_secs(600).max(first))
}

/// Whether a batch of the provider's list was made of the open file. The mark, which all creates of one attempt share,
/// counts only where the provider does not say which file a batch was made of: a create for an earlier, deleted file may
/// have been accepted only to fail later, and must not be taken for the one that is looked for.
#[must_use]
pub fn is_ours(input_file: Option<&str>, mark: Option<&str>, open: &OpenFile, our_mark: &str) -> bool {
    match input_file {
        Some(file) => file == open.file_id,
        None => mark == Some(our_mark),
    }
}

/// By how many seconds the clocks of a provider's own machines may differ: those that stamp its files and its batches.
const CLOCKS_APART: i64 = 300;

/// Whether a list, newest first, has been read far enough: this batch is older than the file by the provider's own clock,
/// so no later one can be made of it.
#[must_use]
pub fn is_older_than(created_at: i64, open: &OpenFile) -> bool {
    created_at < open.created_at.saturating_sub(CLOCKS_APART)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_read_on_until_its_batches_are_older_than_the_file_beyond_any_difference_of_clocks() {
        let open = OpenFile { file_id: "file".to_owned(), created_at: 1_000 };
        assert!(!is_older_than(1_000, &open) && !is_older_than(700, &open));
        assert!(is_older_than(699, &open));
    }

    fn claim() -> SubmissionStep {
        SubmissionStep::Claim { epoch: Nonce::from_bits(1) }
    }

    /// Another process's epoch.
    fn other() -> Nonce {
        Nonce::from_bits(2)
    }

    fn file(id: &str) -> SubmissionStep {
        SubmissionStep::File { epoch: Nonce::from_bits(1), file_id: id.to_owned(), created_at: 7 }
    }

    fn rejected(status: u16) -> SubmissionStep {
        SubmissionStep::Rejected { status, code: "c".to_owned(), message: "m".to_owned() }
    }

    fn submitted() -> SubmissionStep {
        SubmissionStep::Submitted { provider_batch: "b".to_owned(), adopted: false }
    }

    fn open(id: &str) -> OpenFile {
        OpenFile { file_id: id.to_owned(), created_at: 7 }
    }

    #[test]
    fn an_empty_log_is_claimed_without_a_fence() {
        assert_eq!(next(&[], &other(), None), Next::Claim { seq: 1, held: false, fence: None, stop: None });
    }

    #[test]
    fn a_file_without_an_outcome_is_fenced_before_anything_else() {
        let log = [claim(), file("f1")];
        assert_eq!(
            next(&log, &other(), None),
            Next::Claim { seq: 3, held: false, fence: Some(open("f1")), stop: None }
        );
        let log = [claim(), file("f1"), claim()];
        assert_eq!(
            next(&log, &other(), None),
            Next::Claim { seq: 4, held: false, fence: Some(open("f1")), stop: None }
        );
    }

    #[test]
    fn our_own_claim_is_gone_on_with_and_its_fence_is_held_again() {
        let ours = Nonce::from_bits(1);
        assert_eq!(next(&[claim()], &ours, None), Next::Claim { seq: 1, held: true, fence: None, stop: None });
        let log = [claim(), file("f1"), claim()];
        assert_eq!(next(&log, &ours, None), Next::Claim { seq: 3, held: true, fence: Some(open("f1")), stop: None });
        let log = [claim(), file("f1")];
        assert!(
            matches!(next(&log, &ours, None), Next::Claim { seq: 3, held: false, .. }),
            "a create may be under way"
        );
    }

    #[test]
    fn a_cancelled_job_fences_an_open_file_before_it_gives_up() {
        let log = [claim(), file("f1")];
        assert_eq!(
            next(&log, &other(), Some(Stop::Cancelled)),
            Next::Claim { seq: 3, held: false, fence: Some(open("f1")), stop: Some(Stop::Cancelled) }
        );
    }

    #[test]
    fn a_cancelled_job_with_no_open_file_is_left_unsent_at_once() {
        for log in [vec![], vec![claim()], vec![claim(), file("f1"), rejected(429)]] {
            let Next::Unsend { seq, kind, .. } = next(&log, &other(), Some(Stop::Cancelled)) else { panic!("{log:?}") };
            assert_eq!((seq as usize, kind), (log.len() + 1, Some(FailureKind::Cancelled)));
        }
    }

    #[test]
    fn a_refusal_that_may_pass_is_tried_with_a_new_claim_and_no_fence() {
        for status in [401, 403, 429, 404] {
            let log = [claim(), file("f1"), rejected(status)];
            assert_eq!(
                next(&log, &other(), None),
                Next::Claim { seq: 4, held: false, fence: None, stop: None },
                "{status}"
            );
        }
    }

    #[test]
    fn a_refusal_that_is_final_leaves_the_batch_unsent() {
        for status in [400, 413, 422] {
            let log = [claim(), file("f1"), rejected(status)];
            assert!(matches!(
                next(&log, &other(), None),
                Next::Unsend { seq: 4, kind: Some(FailureKind::BatchRejected), .. }
            ));
        }
        let mut log = Vec::new();
        (0..NOT_FOUND_TRIES).for_each(|_| log.extend([claim(), file("f"), rejected(404)]));
        assert!(matches!(next(&log, &other(), None), Next::Unsend { .. }));
    }

    #[test]
    fn a_log_that_has_ended_is_only_told_again_whatever_the_job_became() {
        assert_eq!(next(&[claim(), file("f"), submitted()], &other(), Some(Stop::Cancelled)), Next::Emit(submitted()));
    }

    #[test]
    fn a_file_that_is_not_there_yet_is_tried_again_whether_it_says_404_or_400() {
        let no_file =
            SubmissionStep::Rejected { status: 400, code: "x".to_owned(), message: "Cannot find file f".to_owned() };
        assert!(matches!(
            next(&[claim(), file("f"), no_file.clone()], &other(), None),
            Next::Claim { fence: None, .. }
        ));
        let log: Vec<_> = (0..NOT_FOUND_TRIES).flat_map(|_| [claim(), file("f"), no_file.clone()]).collect();
        assert!(matches!(next(&log, &other(), None), Next::Unsend { .. }));
    }

    #[test]
    fn a_batch_of_another_file_is_not_ours_though_it_has_our_mark() {
        assert!(is_ours(Some("f1"), None, &open("f1"), "m"));
        assert!(!is_ours(Some("f0"), Some("m"), &open("f1"), "m"), "a late create for a file that was fenced before");
        assert!(is_ours(None, Some("m"), &open("f1"), "m") && !is_ours(None, None, &open("f1"), "m"));
    }

    #[test]
    fn waits_grow_and_have_an_end() {
        let second = Duration::from_secs(1);
        assert_eq!(wait_before_attempt(1, second), None);
        assert_eq!(wait_before_attempt(2, second), Some(second));
        assert_eq!(wait_before_attempt(4, second), Some(second * 4));
        assert_eq!(wait_before_attempt(99, second), Some(Duration::from_secs(600)));
        assert_eq!(wait_after_refusal(429, Some(second), 9, second * 30), second);
        assert_eq!(wait_after_refusal(429, None, 1, second * 30), second * 60);
    }

    fn any_step() -> impl Strategy<Value = SubmissionStep> {
        prop_oneof![Just(claim()), Just(file("f")), (400u16..430).prop_map(rejected)]
    }

    proptest! {
        /// No decision gives up, or uploads anew, past a file whose create has no recorded outcome.
        #[test]
        fn an_open_file_is_never_passed_over(log in proptest::collection::vec(any_step(), 0..12), cancelled: bool) {
            let last_file = log.iter().rposition(|step| matches!(step, SubmissionStep::File { .. }));
            let resolved = last_file.is_none_or(|at| log[at..].iter().any(|step| matches!(step, SubmissionStep::Rejected { .. })));
            let decision = next(&log, &other(), cancelled.then_some(Stop::Cancelled));
            let fences = matches!(decision, Next::Claim { fence: Some(_), .. });
            prop_assert_eq!(fences, !resolved);
        }
    }
}
