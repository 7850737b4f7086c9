//! What a run of the model assumes: the bounds, the provider's manners, and which rule of the protocol is broken on
//! purpose. It also holds what the real code says, asked once for each case and remembered: the searches ask millions
//! of times.

use std::cell::RefCell;
use std::collections::HashMap;

use ::model::{Nonce, SubmissionStep};
use dispatcher::decide::{self, Next, OpenFile, Stop};

use super::state::{BATCHES, Batch, Entry, FILES, Owner, Refusal, State};

/// A rule of the protocol that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// After an unknown outcome the batch is simply created again.
    NoFence,
    /// The list is read before a create is sent again, and no file is deleted.
    ListAlone,
    /// The list is read back to our own clock's time of the upload, and our clock is ahead of the provider's.
    OurClock,
    /// The fence ends with the deletion.
    NoSecondList,
    /// The list is read twice, and no file is deleted in between.
    NoDelete,
    /// The create is sent before the file's entry is won.
    CreateFirst,
    /// A dispatcher that lost its claim goes on as if it had won.
    LostClaim,
    /// A deletion that was answered by an error counts as done.
    FailedDelete,
    /// A list whose page failed counts as read to its end.
    FailedPage,
    /// A batch with our mark is adopted, whatever file it was made of.
    Mark,
}

/// What a run of the model assumes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    /// Both dispatchers live in one process: two tasks for one batch, as after a partition came back.
    pub(crate) one_epoch: bool,
    /// The provider's list says which file a batch was made of.
    pub(crate) names_files: bool,
    /// A create for a deleted file may be accepted, and fails later.
    pub(crate) dooms: bool,
    /// An accepted batch may appear in the list later.
    pub(crate) list_lags: bool,
    /// A create for a deleted file may be accepted, and runs.
    pub(crate) ignores_deletions: bool,
    /// A create may be refused in the provider's own words, and run all the same.
    pub(crate) false_refusals: bool,
    /// All happens within one second of the provider's clock. Else it tells each batch from the one before.
    pub(crate) one_second: bool,
    /// How many batches of other jobs appear.
    pub(crate) strangers: u8,
    /// How many faults happen: deaths, time-outs, lost answers, refusals. None: without bound.
    pub(crate) faults: Option<u8>,
    /// Log entries, and files with a use, that a state may have.
    pub(crate) entries: usize,
    pub(crate) files: usize,
    pub(crate) broken: Option<Broken>,
}

impl World {
    /// Two processes, a provider of the kind that we use, and bounds that a search of a few seconds gets through.
    pub(crate) const USUAL: Self = Self {
        one_epoch: false,
        names_files: true,
        dooms: true,
        list_lags: false,
        ignores_deletions: false,
        false_refusals: false,
        one_second: false,
        strangers: 0,
        faults: Some(2),
        entries: 8,
        files: 3,
        broken: None,
    };

    pub(crate) fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    pub(crate) fn owner(&self, dispatcher: usize) -> Owner {
        if dispatcher == 0 || self.one_epoch { Owner::First } else { Owner::Second }
    }
}

/// `dispatcher::decide::next` in the model's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Ended,
    Unsend,
    Claim { held: bool, fence: Option<u8>, stop: bool },
}

/// The real code's answers.
pub(crate) struct Answers {
    decisions: RefCell<HashMap<(u64, u8, bool), Decision>>,
    /// By the batch's file (the last: another job's), and the open file.
    ours: [[bool; FILES]; FILES + 1],
    /// By a batch's time and a file's.
    older: [[bool; BATCHES + 2]; BATCHES],
}

const OUR_MARK: &str = "job/1/1/nonce";

impl Answers {
    pub(crate) fn new(world: &World) -> Self {
        let mut ours = [[false; FILES]; FILES + 1];
        for (file, row) in ours.iter_mut().enumerate() {
            let stranger = file == FILES;
            let named = if stranger { "file-strange".to_owned() } else { file_id(file as u8) };
            let named = (world.names_files && !world.breaks(Broken::Mark)).then_some(named);
            let mark = if stranger { None } else { Some(OUR_MARK) };
            for (at, answer) in row.iter_mut().enumerate() {
                *answer = decide::is_ours(named.as_deref(), mark, &open(at as u8, 0), OUR_MARK);
            }
        }
        let mut older = [[false; BATCHES + 2]; BATCHES];
        for (time, row) in (0i64..).zip(&mut older) {
            for (since, answer) in (0i64..).zip(row) {
                // A thousand seconds lie between two: more than the margin for a provider's clocks.
                let apart = if world.one_second { 0 } else { 1000 };
                *answer = decide::is_older_than(time * apart, &open(0, since * apart));
            }
        }
        Self { decisions: RefCell::default(), ours, older }
    }

    pub(crate) fn is_ours(&self, batch: Batch, open: u8) -> bool {
        self.ours[batch.file.map_or(FILES, usize::from)][usize::from(open)]
    }

    pub(crate) fn is_older(&self, place: u8, since: u8) -> bool {
        self.older[usize::from(place)][usize::from(since)]
    }

    pub(crate) fn decide(&self, state: &State, owner: Owner, stop: bool) -> Decision {
        let key = (state.log, owner as u8, stop);
        if let Some(known) = self.decisions.borrow().get(&key) {
            return *known;
        }
        let steps: Vec<_> = state.entries().map(step).collect();
        let decision = really_decide(&steps, owner, stop);
        // The model forgets whose the claims before the last entry were: the code must not ask.
        let mut owned = steps;
        for step in owned.iter_mut().rev().skip(1) {
            if let SubmissionStep::Claim { epoch: whose } = step {
                *whose = epoch(owner);
            }
        }
        assert_eq!(really_decide(&owned, owner, stop), decision, "an earlier claim's owner matters: {owned:?}");
        self.decisions.borrow_mut().insert(key, decision);
        decision
    }
}

fn really_decide(log: &[SubmissionStep], owner: Owner, stop: bool) -> Decision {
    let length = log.len() as u32;
    match decide::next(log, &epoch(owner), stop.then_some(Stop::Cancelled)) {
        Next::Emit(step) => {
            assert_eq!(Some(&step), log.last(), "what is told is how the log ended");
            Decision::Ended
        }
        Next::Unsend { seq, .. } => {
            assert_eq!(seq, length + 1, "the model puts at the next number");
            Decision::Unsend
        }
        Next::Claim { seq, held, fence, stop } => {
            assert_eq!(seq, if held { length } else { length + 1 }, "the model puts at the next number");
            let fence = fence.map(|open| {
                let file = file_of(&open.file_id);
                assert_eq!(open.created_at, recorded_time(file), "the fence has the time that was recorded");
                file
            });
            Decision::Claim { held, fence, stop: stop.is_some() }
        }
    }
}

fn step(entry: Entry) -> SubmissionStep {
    match entry {
        Entry::Claim(owner) => SubmissionStep::Claim { epoch: epoch(owner) },
        Entry::File(file) => {
            SubmissionStep::File { epoch: epoch(Owner::Dead), file_id: file_id(file), created_at: recorded_time(file) }
        }
        Entry::Submitted(batch) => {
            SubmissionStep::Submitted { provider_batch: format!("batch-{batch}"), adopted: false }
        }
        Entry::Rejected(refusal) => {
            let (status, code) = match refusal {
                Refusal::Limit => (429, "rate_limit_exceeded"),
                Refusal::Invalid => (400, "invalid_request"),
                Refusal::NoFile => (404, "not_found"),
            };
            SubmissionStep::Rejected { status, code: code.to_owned(), message: "no".to_owned() }
        }
        Entry::Unsent => SubmissionStep::Unsent { kind: None, message: "not sent".to_owned() },
    }
}

fn epoch(owner: Owner) -> Nonce {
    Nonce::from_bits(owner as u64)
}

fn file_id(file: u8) -> String {
    format!("file-{file}")
}

fn file_of(id: &str) -> u8 {
    id["file-".len()..].parse().unwrap()
}

/// Stands for the time in a `File` entry: the time itself is kept with the file.
fn recorded_time(file: u8) -> i64 {
    1_000 + i64::from(file)
}

fn open(file: u8, since: i64) -> OpenFile {
    OpenFile { file_id: file_id(file), created_at: since }
}
