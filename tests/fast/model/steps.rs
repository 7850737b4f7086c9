//! What may happen next: a dispatcher's step as `submit.rs` and `fence.rs` take it, or a fault. What happens around them is in
//! `around.rs`.
//!
//! Either dispatcher may act at any time and for ever, so each is also the other's zombie. A fault ends a dispatcher's
//! turn: its error is handled by beginning again, with what it had sent still on its way; a death takes the epoch, too.

use super::state::{BEGIN, Dispatcher, ENTRIES, Entry, FILES, Life, Refusal, Stage, State};
use super::world::{Answers, Broken, Decision, World};

/// What may follow a state. `told` are the words for each, if they were asked for.
pub(crate) struct Next {
    pub(crate) states: Vec<State>,
    pub(crate) told: Option<Vec<String>>,
}

impl Next {
    pub(crate) fn new(telling: bool) -> Self {
        Self { states: Vec::new(), told: telling.then(Vec::new) }
    }

    pub(super) fn add(&mut self, state: State, words: impl FnOnce() -> String) {
        self.states.push(state);
        if let Some(told) = &mut self.told {
            told.push(words());
        }
    }
}

/// The protocol in a world.
pub(crate) struct Steps {
    pub(crate) world: World,
    pub(crate) answers: Answers,
    /// Room to go on past the world's bounds, for runs that look for an end.
    pub(super) unbounded: bool,
}

/// What a page of the list came to.
enum Page {
    Found(u8),
    More(u8),
    Nothing,
}

impl Steps {
    pub(crate) fn new(world: World) -> Self {
        Self { world, answers: Answers::new(&world), unbounded: false }
    }

    pub(crate) fn unbounded(world: World) -> Self {
        Self { unbounded: true, ..Self::new(world) }
    }

    /// All that may happen in a state.
    pub(crate) fn all(&self, state: &State, next: &mut Next) {
        for d in 0..2 {
            self.own(state, d, next);
            self.sudden(state, d, next);
        }
        self.provider(state, next);
        self.late_puts(state, next);
        for after in &mut next.states {
            self.forget(after);
        }
    }

    /// What a dispatcher does when nothing goes wrong and nothing else happens; none if the log has ended for it.
    pub(crate) fn undisturbed(&self, state: &State, d: usize, next: &mut Next) -> Option<State> {
        next.states.clear();
        self.own(state, d, next);
        let mut first = next.states.first().copied()?;
        self.forget(&mut first);
        Some(first)
    }

    /// A dispatcher's own steps; the first is the one in which nothing goes wrong.
    fn own(&self, state: &State, d: usize, next: &mut Next) {
        let me = state.dispatchers[d];
        match me.stage {
            Stage::Idle => self.read_log(state, d, next),
            Stage::PutClaim => self.put(state, d, Entry::Claim(self.world.owner(d)), next),
            Stage::FirstList | Stage::SecondList => self.read_page(state, d, next),
            Stage::Delete => self.delete(state, d, next),
            Stage::Upload => self.upload(state, d, next),
            Stage::PutFile => self.put(state, d, Entry::File(file(me)), next),
            Stage::Create => self.send(state, d, next),
            Stage::Sent => self.create_lands(state, Some(d), file(me), next),
            Stage::PutSubmitted => self.put(state, d, Entry::Submitted(me.arg), next),
            Stage::PutRejected => self.put(state, d, Entry::Rejected(Refusal::from_code(me.arg)), next),
            Stage::PutUnsent => self.put(state, d, Entry::Unsent, next),
        }
    }

    /// Reads the log and looks for a reason to stop. A deadline is judged by each process's own clock, so the two need
    /// not agree about it, nor one with itself.
    fn read_log(&self, state: &State, d: usize, next: &mut Next) {
        for stop in [false, true] {
            let me = Dispatcher { stop, ..Dispatcher::IDLE };
            let me = match self.answers.decide(state, self.world.owner(d), stop) {
                Decision::Ended => return,
                Decision::Unsend => me.at(Stage::PutUnsent),
                Decision::Claim { held, fence, stop } => {
                    let me = Dispatcher { file: fence, stop, ..me };
                    if held { self.after_claim(me) } else { me.at(Stage::PutClaim) }
                }
            };
            next.add(with(state, d, me), || {
                format!(
                    "{} reads the log{}, is at {:?}",
                    name(d),
                    if stop { " and sees a reason to stop" } else { "" },
                    me.stage
                )
            });
        }
    }

    fn after_claim(&self, me: Dispatcher) -> Dispatcher {
        match me.file {
            Some(_) if !self.world.breaks(Broken::NoFence) => Dispatcher { arg: BEGIN, ..me.at(Stage::FirstList) },
            _ => after_fence(me),
        }
    }

    /// Puts an entry. Its answer may be lost: then the store is read back, and the answer is known after all; or the
    /// store is out of reach, and the entry is there, or still on its way.
    fn put(&self, state: &State, d: usize, entry: Entry, next: &mut Next) {
        let me = state.dispatchers[d];
        if me.behind > 0 {
            let goes_on = me.stage == Stage::PutClaim && self.world.breaks(Broken::LostClaim);
            let me =
                if goes_on { self.after_claim(Dispatcher { behind: me.behind - 1, ..me }) } else { Dispatcher::IDLE };
            next.add(with(state, d, me), || {
                format!("{} puts {entry:?} and loses{}", name(d), if goes_on { ", but goes on" } else { "" })
            });
            return;
        }
        if state.log_len() >= if self.unbounded { ENTRIES } else { self.world.entries } {
            assert!(!self.unbounded, "a run without faults needs more than {ENTRIES} entries");
            return;
        }
        let mut landed = with(state, d, Dispatcher::IDLE);
        landed.land(entry, self.furthest_behind());
        let me_then = match me.stage {
            Stage::PutClaim => self.after_claim(me),
            Stage::PutFile if !self.world.breaks(Broken::CreateFirst) => me.at(Stage::Create),
            _ => Dispatcher::IDLE,
        };
        next.add(with(&landed, d, me_then), || format!("{} puts {entry:?} and wins", name(d)));
        if let Some(faulty) = pay(&landed) {
            next.add(faulty, || format!("{} puts {entry:?}, which lands, and hears of nothing", name(d)));
        }
        if let Some(mut faulty) = pay(&with(state, d, Dispatcher::IDLE)) {
            faulty.late_puts |= 1 << entry.code();
            next.add(faulty, || format!("{} puts {entry:?}, hears of nothing, and it is on its way", name(d)));
        }
    }

    pub(super) fn furthest_behind(&self) -> u8 {
        if self.world.breaks(Broken::LostClaim) { 3 } else { 1 }
    }

    /// Reads a page of the list: of one batch, so that most can happen between two, and a list ends as early as it can.
    fn read_page(&self, state: &State, d: usize, next: &mut Next) {
        let me = state.dispatchers[d];
        let done = || {
            if me.stage == Stage::SecondList || self.world.breaks(Broken::ListAlone) {
                after_fence(me)
            } else if self.world.breaks(Broken::NoDelete) {
                Dispatcher { arg: BEGIN, ..me.at(Stage::SecondList) }
            } else {
                me.at(Stage::Delete)
            }
        };
        let (then, words) = match self.page(state, me) {
            Page::Found(batch) => {
                (Dispatcher { arg: batch, file: None, ..me.at(Stage::PutSubmitted) }, "finds a batch")
            }
            Page::More(cursor) => (Dispatcher { arg: cursor, ..me }, "goes on"),
            Page::Nothing => (done(), "finds nothing"),
        };
        next.add(with(state, d, then), || format!("{} reads a page in {:?}, {words}", name(d), me.stage));
        if self.world.breaks(Broken::FailedPage)
            && let Some(faulty) = pay(state)
        {
            next.add(with(&faulty, d, done()), || {
                format!("{} fails to read a page in {:?}, goes on", name(d), me.stage)
            });
        }
    }

    /// As `fence.rs` reads one.
    fn page(&self, state: &State, me: Dispatcher) -> Page {
        let open = file(me);
        let newest = if me.arg == BEGIN { state.batch_count().checked_sub(1) } else { Some(me.arg) };
        let Some(newest) = newest else { return Page::Nothing };
        let shown = |place: &u8| state.batches[usize::from(*place)].is_some_and(|batch| !batch.hidden);
        let Some(place) = (0..=newest).rev().find(shown) else { return Page::Nothing };
        let Some(batch) = state.batches[usize::from(place)] else { return Page::Nothing };
        if self.answers.is_ours(batch, open) {
            return Page::Found(place);
        }
        let ahead = if self.world.breaks(Broken::OurClock) { 2 } else { 0 };
        let far_enough = self.answers.is_older(place, state.files[usize::from(open)].since + ahead);
        if far_enough || place == 0 { Page::Nothing } else { Page::More(place - 1) }
    }

    fn delete(&self, state: &State, d: usize, next: &mut Next) {
        let me = state.dispatchers[d];
        let then = if self.world.breaks(Broken::NoSecondList) {
            after_fence(me)
        } else {
            Dispatcher { arg: BEGIN, ..me.at(Stage::SecondList) }
        };
        let mut deleted = with(state, d, then);
        deleted.files[usize::from(file(me))].life = Life::Deleted;
        next.add(deleted, || format!("{} deletes file {}", name(d), file(me)));
        let failed = if self.world.breaks(Broken::FailedDelete) { then } else { Dispatcher::IDLE };
        let Some(faulty) = pay(state) else { return };
        let unheard = State { faults: faulty.faults, ..with(&deleted, d, failed) };
        next.add(unheard, || format!("{} deletes file {} and hears of nothing", name(d), file(me)));
        let mut late = with(&faulty, d, failed);
        late.files[usize::from(file(me))].late_delete = true;
        next.add(late, || format!("{} fails to delete file {}, or not yet", name(d), file(me)));
    }

    fn upload(&self, state: &State, d: usize, next: &mut Next) {
        let free = state.files.iter().position(|file| file.life == Life::Absent);
        let room = if self.unbounded { FILES } else { self.world.files };
        let Some(free) = free.filter(|free| *free < room) else {
            assert!(!self.unbounded, "a run without faults needs more than {FILES} files");
            return;
        };
        let first = if self.world.breaks(Broken::CreateFirst) { Stage::Create } else { Stage::PutFile };
        let me = Dispatcher { file: Some(free as u8), ..state.dispatchers[d].at(first) };
        let mut after = with(state, d, me);
        after.files[free].life = Life::There;
        after.files[free].since = state.batch_count();
        next.add(after, || format!("{} uploads file {free}", name(d)));
        if let Some(faulty) = pay(state) {
            for refusal in [Refusal::Limit, Refusal::Invalid] {
                let me = Dispatcher { arg: refusal as u8, ..state.dispatchers[d].at(Stage::PutRejected) };
                next.add(with(&faulty, d, me), || format!("{}'s upload is refused: {refusal:?}", name(d)));
            }
        }
    }

    fn send(&self, state: &State, d: usize, next: &mut Next) {
        let me = state.dispatchers[d];
        let mut after = with(state, d, me.at(Stage::Sent));
        if self.world.breaks(Broken::CreateFirst) {
            after = with(state, d, me.at(Stage::PutFile));
            after.files[usize::from(file(me))].flying += 1;
        }
        next.add(after, || format!("{} sends the create of file {}", name(d), file(me)));
    }

    /// A turn ends with an error, whatever the error is; or the process dies.
    fn sudden(&self, state: &State, d: usize, next: &mut Next) {
        let Some(faulty) = pay(state) else { return };
        let stage = state.dispatchers[d].stage;
        if stage != Stage::Idle {
            next.add(abandon(&faulty, d), || format!("{} fails in {stage:?}", name(d)));
        }
        let mut dead = abandon(&faulty, d);
        if self.world.one_epoch {
            dead = abandon(&dead, 1 - d);
        }
        dead.disown(self.world.owner(d));
        if (State { faults: state.faults, ..dead }) == *state {
            return;
        }
        next.add(dead, || format!("{} dies in {stage:?}", name(d)));
    }
}

/// Ends a dispatcher's turn. Its create, if one was sent, goes on.
fn abandon(state: &State, d: usize) -> State {
    let me = state.dispatchers[d];
    let mut after = with(state, d, Dispatcher::IDLE);
    if let (Stage::Sent, Some(file)) = (me.stage, me.file) {
        after.files[usize::from(file)].flying += 1;
    }
    after
}

fn after_fence(me: Dispatcher) -> Dispatcher {
    let stage = if me.stop { Stage::PutUnsent } else { Stage::Upload };
    Dispatcher { file: None, ..me.at(stage) }
}

pub(super) fn with(state: &State, d: usize, me: Dispatcher) -> State {
    let mut after = *state;
    after.dispatchers[d] = me;
    after
}

/// The state with one fault less to come, if there is one left.
pub(super) fn pay(state: &State) -> Option<State> {
    match state.faults {
        u8::MAX => Some(*state),
        faults => faults.checked_sub(1).map(|faults| State { faults, ..*state }),
    }
}

fn file(me: Dispatcher) -> u8 {
    me.file.unwrap_or_else(|| unreachable!("{:?} has a file", me.stage))
}

pub(super) fn name(d: usize) -> char {
    ['A', 'B'][d]
}
