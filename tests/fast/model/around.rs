//! What happens around the dispatchers: creates, deletions and puts land, other jobs' batches come, and the model forgets
//! what can't matter any more.

use super::state::{BATCHES, Batch, Dispatcher, Entry, FILES, File, Life, REFUSALS, Refusal, Stage, State};
use super::steps::{Next, Steps, name, pay, with};
use super::world::Broken;

impl Steps {
    /// A create arrives at the provider: its sender's, which gets the answer, or one that nobody waits for.
    pub(super) fn create_lands(&self, state: &State, sender: Option<usize>, of: u8, next: &mut Next) {
        let mut before = *state;
        if sender.is_none() {
            before.files[usize::from(of)].flying -= 1;
        }
        let answered = |state: &State, stage, arg| match sender {
            Some(d) => with(state, d, Dispatcher { arg, file: None, ..state.dispatchers[d].at(stage) }),
            None => *state,
        };
        let whose = || sender.map_or("a late".to_owned(), |d| format!("{}'s", name(d)));
        let mut accept = |doomed: bool| {
            let mut after = before;
            if after.batch_count() >= self.batch_room() {
                assert!(!self.unbounded, "a run without faults needs more batches than there is room for");
                return;
            }
            let place = after.accept(Batch { file: Some(of), doomed, hidden: self.world.list_lags });
            let after = answered(&after, Stage::PutSubmitted, place);
            let doom = if doomed { ", and will fail" } else { "" };
            next.add(after, || format!("{} create of file {of} is accepted as batch {place}{doom}", whose()));
            if self.world.false_refusals
                && let Some(faulty) = pay(&after)
            {
                let refused = answered(&faulty, Stage::PutRejected, Refusal::Limit as u8);
                next.add(refused, || format!("{} create of file {of} is accepted, and answered by 429", whose()));
            }
        };
        let there = state.files[usize::from(of)].life == Life::There;
        if there || self.world.ignores_deletions {
            accept(false);
        }
        if !there {
            let refused = answered(&before, Stage::PutRejected, Refusal::NoFile as u8);
            next.add(refused, || format!("{} create of the deleted file {of} is refused", whose()));
            if self.world.dooms {
                let mut doomed = before;
                if doomed.batch_count() < self.batch_room() {
                    let place = doomed.accept(Batch { file: Some(of), doomed: true, hidden: self.world.list_lags });
                    let doomed = answered(&doomed, Stage::PutSubmitted, place);
                    next.add(doomed, || {
                        format!(
                            "{} create of the deleted file {of} is accepted as batch {place}, and will fail",
                            whose()
                        )
                    });
                }
            }
        } else if sender.is_some()
            && let Some(faulty) = pay(&before)
        {
            for refusal in REFUSALS {
                let refused = answered(&faulty, Stage::PutRejected, refusal as u8);
                next.add(refused, || format!("{} create of file {of} is refused: {refusal:?}", whose()));
            }
        }
    }

    fn batch_room(&self) -> u8 {
        if self.unbounded { BATCHES as u8 } else { self.world.files as u8 + self.world.strangers }
    }

    pub(super) fn provider(&self, state: &State, next: &mut Next) {
        for of in 0..FILES as u8 {
            let file = state.files[usize::from(of)];
            if file.flying > 0 {
                self.create_lands(state, None, of, next);
            }
            if file.late_delete {
                let mut after = *state;
                after.files[usize::from(of)].life = Life::Deleted;
                next.add(after, || format!("a late deletion of file {of} lands"));
            }
        }
        let strangers = state.batches.iter().flatten().filter(|batch| batch.file.is_none()).count();
        if strangers < usize::from(self.world.strangers) {
            let mut after = *state;
            after.accept(Batch { file: None, doomed: false, hidden: false });
            next.add(after, || "another job's batch is accepted".to_owned());
        }
        for place in 0..usize::from(state.batch_count()) {
            let mut after = *state;
            if let Some(batch @ Batch { hidden: true, .. }) = &mut after.batches[place] {
                batch.hidden = false;
                next.add(after, || format!("batch {place} appears in the list"));
            }
        }
    }

    pub(super) fn late_puts(&self, state: &State, next: &mut Next) {
        if state.log_len() >= self.world.entries {
            return;
        }
        for code in (1..32).filter(|code| state.late_puts >> code & 1 == 1) {
            let mut after = *state;
            let entry = Entry::from_code(code);
            after.land(entry, self.furthest_behind());
            next.add(after, || format!("a late put of {entry:?} lands"));
        }
    }

    /// Forgets what can't matter any more, so that states that differ in it alone are one.
    pub(super) fn forget(&self, state: &mut State) {
        if state.end().is_some() {
            state.late_puts = 0;
        }
        // Whose next put has lost already, and does nothing before it that another could see, is as good as idle.
        let unseen = |me: &&mut Dispatcher| me.behind > 0 && !self.is_seen(me.stage);
        state.dispatchers.iter_mut().filter(unseen).for_each(|me| *me = Dispatcher::IDLE);
        let mut used = [false; FILES];
        for entry in state.entries() {
            if let Entry::File(file) = entry {
                used[usize::from(file)] = true;
            }
        }
        for dispatcher in &state.dispatchers {
            if let Some(file) = dispatcher.file {
                used[usize::from(file)] = true;
            }
        }
        for batch in state.batches.iter().flatten() {
            if let Some(file) = batch.file {
                used[usize::from(file)] = true;
            }
        }
        for (of, file) in state.files.iter_mut().enumerate() {
            if file.life == Life::Deleted {
                file.late_delete = false;
                if !self.world.dooms && !self.world.ignores_deletions {
                    file.flying = 0;
                }
            }
            // An upload that no entry records, no process remembers and no create names costs nothing.
            if !used[of] && file.flying == 0 && state.late_puts >> (8 + of) & 1 == 0 {
                *file = File::default();
            }
        }
    }

    /// Whether a dispatcher at this stage does more, before its next put or by its loss, than to begin again.
    fn is_seen(&self, stage: Stage) -> bool {
        match stage {
            Stage::FirstList | Stage::Delete | Stage::Create | Stage::Sent => true,
            Stage::PutClaim => self.world.breaks(Broken::LostClaim),
            Stage::SecondList | Stage::Upload => {
                self.world.breaks(Broken::LostClaim) || self.world.breaks(Broken::CreateFirst)
            }
            _ => false,
        }
    }
}
