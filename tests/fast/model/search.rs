//! The search: every state that can be reached, breadth first, so that the first broken promise has the shortest trace.

use super::state::{Entry, Life, Packed, Stage, State};
use super::steps::{Next, Steps};
use super::world::World;

/// What a search came to.
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) steps: usize,
    /// Steps of the longest of the shortest ways to a state.
    pub(crate) depth: usize,
    /// States whose log ended so: submitted, unsent.
    pub(crate) submitted: usize,
    pub(crate) unsent: usize,
    /// The first promise that is broken, and the steps that break it.
    pub(crate) broken: Option<(&'static str, Vec<String>)>,
}

/// What a state must keep; else the words for what it breaks.
pub(crate) type Promise = fn(&State) -> Option<&'static str>;

/// Searches a world for a state that breaks the promise. With `ends`, also that an end can be reached from every state.
pub(crate) fn search(world: World, promise: Promise, ends: bool) -> Found {
    let steps = Steps::new(world);
    let mut seen = Seen::default();
    let first = State::first(world.faults.unwrap_or(u8::MAX));
    seen.insert(first.canonical(world.one_epoch).0, 0);
    let mut found = Found { states: 0, steps: 0, depth: 0, submitted: 0, unsent: 0, broken: None };
    let (mut at, mut level_end) = (0, 1);
    let mut next = Next::new(false);
    while at < seen.keys.len() {
        if at == level_end {
            (level_end, found.depth) = (seen.keys.len(), found.depth + 1);
        }
        let state = State::unpack(&seen.keys[at]);
        match state.end() {
            Some(Entry::Submitted(_)) => found.submitted += 1,
            Some(_) => found.unsent += 1,
            None => {}
        }
        if let Some(broken) = promise(&state) {
            found.broken = Some((broken, trace(&steps, &seen, at)));
            break;
        }
        next.states.clear();
        steps.all(&state, &mut next);
        found.steps += next.states.len();
        for after in &next.states {
            seen.insert(after.canonical(world.one_epoch).0, at as u32);
        }
        at += 1;
    }
    found.states = seen.keys.len();
    if ends && found.broken.is_none() {
        found.broken = without_an_end(world, &seen).map(|at| ("no end can be reached", trace(&steps, &seen, at)));
    }
    found
}

/// At most one batch is billed.
pub(crate) fn paid_once(state: &State) -> Option<&'static str> {
    state.billed().nth(1).map(|_| "two batches are billed")
}

/// All that is promised of a state.
pub(crate) fn kept(state: &State) -> Option<&'static str> {
    if let Some(broken) = paid_once(state) {
        return Some(broken);
    }
    let end = state.end()?;
    let its_own = |batch: u8| matches!(end, Entry::Submitted(own) if own == batch);
    if state.billed().any(|batch| !its_own(batch)) {
        return Some("a batch is billed that the log's end does not name");
    }
    if matches!(end, Entry::Submitted(batch) if batch >= state.batch_count()) {
        return Some("the log's end names a batch that does not exist");
    }
    let about_to = |of: usize| {
        let creates = |stage| matches!(stage, Stage::Create | Stage::Sent);
        state.dispatchers.iter().any(|me| creates(me.stage) && me.file.is_some_and(|file| usize::from(file) == of))
    };
    let can_be_billed =
        |(of, file): (usize, &super::state::File)| file.life == Life::There && (file.flying > 0 || about_to(of));
    state.files.iter().enumerate().any(can_be_billed).then_some("a batch can be billed after the log's end")
}

/// A state from which a dispatcher that is left alone, without any further fault, does not get to the log's end.
fn without_an_end(world: World, seen: &Seen) -> Option<usize> {
    let steps = Steps::unbounded(world);
    let mut next = Next::new(false);
    // A state has two bits here, one for each dispatcher; those beyond the bounds are in a table of their own.
    let mut ends = vec![[false; 2]; seen.keys.len()];
    let mut beyond = std::collections::HashSet::new();
    for start in 0..seen.keys.len() {
        for d in 0..2 {
            let mut way: Vec<(Option<usize>, Packed, usize)> = Vec::new();
            let mut d = d;
            let mut state = State::unpack(&seen.keys[start]);
            let mut known = Some(start);
            while state.end().is_none() || state.dispatchers[d].stage != Stage::Idle {
                let packed = state.pack();
                match known {
                    Some(at) if ends[at][d] => break,
                    None if beyond.contains(&(packed, d)) => break,
                    _ => way.push((known, packed, d)),
                }
                if way.len() > 100 {
                    return Some(start);
                }
                let Some(after) = steps.undisturbed(&state, d, &mut next) else { return Some(start) };
                let (packed, mirrored) = after.canonical(world.one_epoch);
                state = State::unpack(&packed);
                d = if mirrored { 1 - d } else { d };
                known = seen.find(&packed);
            }
            for (known, packed, d) in way {
                match known {
                    Some(at) => ends[at][d] = true,
                    None => {
                        beyond.insert((packed, d));
                    }
                }
            }
        }
    }
    None
}

/// The steps to a state, in words.
fn trace(steps: &Steps, seen: &Seen, end: usize) -> Vec<String> {
    let mut way: Vec<usize> =
        std::iter::successors(Some(end), |at| (*at > 0).then(|| seen.parents[*at] as usize)).collect();
    way.pop();
    let mut words = Vec::new();
    // What was remembered may be the mirror image; the state itself keeps each dispatcher's name.
    let mut state = State::first(steps.world.faults.unwrap_or(u8::MAX));
    for at in way.into_iter().rev() {
        let mut next = Next::new(true);
        steps.all(&state, &mut next);
        let same = |after: &State| after.canonical(steps.world.one_epoch).0 == seen.keys[at];
        let step = next.states.iter().position(same).unwrap();
        words.push(next.told.unwrap().swap_remove(step));
        state = next.states[step];
    }
    words
}

/// The states seen, in order, and where each was reached from. A table of places with open addressing: the standard map
/// without optimisation would take most of the test's time.
#[derive(Default)]
struct Seen {
    keys: Vec<Packed>,
    parents: Vec<u32>,
    /// A place in `keys`, and one; 0 is free.
    slots: Vec<u32>,
}

impl Seen {
    fn insert(&mut self, key: Packed, parent: u32) {
        if self.slots.len() < self.keys.len() * 2 + 2 {
            self.grow();
        }
        let slot = self.slot(&key);
        if self.slots[slot] == 0 {
            self.keys.push(key);
            self.parents.push(parent);
            self.slots[slot] = self.keys.len() as u32;
        }
    }

    fn find(&self, key: &Packed) -> Option<usize> {
        (self.slots[self.slot(key)] as usize).checked_sub(1)
    }

    fn slot(&self, key: &Packed) -> usize {
        let mut hash = 0u64;
        for word in key {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != 0 && self.keys[self.slots[slot] as usize - 1] != *key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.slots = vec![0; (self.slots.len() * 2).max(1 << 16)];
        for at in 0..self.keys.len() {
            let slot = self.slot(&self.keys[at]);
            self.slots[slot] = at as u32 + 1;
        }
    }
}
