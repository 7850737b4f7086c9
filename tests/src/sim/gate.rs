//! A process's gate: everything that it does beyond its own memory passes here, so here it dies, or stops for a while.
//!
//! A process that may do nothing outside its memory is as good as stopped: what it still computes nobody sees. A stop that
//! is longer than a session makes it a zombie: others have its work when it goes on, in the middle of its deed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::faults::Faults;

/// A durable step, before (`<`) or after (`>`) it is done.
pub type Step = &'static str;

/// All durable steps.
pub const STEPS: &[Step] = &[
    "put<",
    "put>",
    "delete<",
    "delete>",
    "produce<",
    "produce>",
    "commit<",
    "commit>",
    "upload<",
    "upload>",
    "create<",
    "create>",
    "fence<",
    "fence>",
    "list>",
    "cancel<",
    "cancel>",
    "download>",
];

/// What happens to a process at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It dies.
    Die,
    /// It stands still for so long.
    Stop(Duration),
}

/// When what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// At which step; none: at any.
    pub step: Option<Step>,
    /// At the how-manieth passage, from 1.
    pub passage: u64,
    /// What happens.
    pub deed: Deed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Alive,
    Stopped,
    Dead,
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    name: String,
    faults: Faults,
    state: Mutex<(Mode, Option<Fate>)>,
    /// Told when the mode changes.
    changed: Notify,
    /// Told when fate strikes.
    struck: Notify,
}

impl Gate {
    /// The gate of a process with this fate.
    #[must_use]
    pub fn new(name: &str, faults: &Faults, fate: Option<Fate>) -> Self {
        let state = Mutex::new((Mode::Alive, fate));
        Self { name: name.to_owned(), faults: faults.clone(), state, changed: Notify::new(), struck: Notify::new() }
    }

    /// The process's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn lock(&self) -> MutexGuard<'_, (Mode, Option<Fate>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a durable step: at once, after a stop, or never.
    pub async fn step(&self, step: Step) {
        self.open().await;
        if let Some(deed) = self.strike(step) {
            self.faults.journal.note(format_args!("{} {deed:?} at {step}", self.name));
            self.lock().0 = if deed == Deed::Die { Mode::Dead } else { Mode::Stopped };
            self.lock().1 = Some(Fate { step: None, passage: 0, deed });
            self.struck.notify_one();
            self.open().await;
        }
    }

    /// What happens at this step. Once all jobs have ended nothing strikes any more.
    fn strike(&self, step: Step) -> Option<Deed> {
        if self.faults.ended.is_cancelled() {
            return None;
        }
        let mut state = self.lock();
        let fate = state.1.as_mut().filter(|fate| fate.passage > 0 && fate.step.is_none_or(|at| at == step))?;
        fate.passage -= 1;
        (fate.passage == 0).then_some(fate.deed)
    }

    /// Waits while the process is stopped; for ever once it is dead.
    pub async fn open(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().0 == Mode::Alive {
                return;
            }
            changed.await;
        }
    }

    /// Waits until fate strikes.
    pub async fn struck(&self) -> Deed {
        self.struck.notified().await;
        self.lock().1.map_or(Deed::Die, |fate| fate.deed)
    }

    /// Lets a stopped process go on.
    pub fn go_on(&self) {
        let mut state = self.lock();
        if state.0 == Mode::Stopped {
            *state = (Mode::Alive, None);
            self.changed.notify_waiters();
        }
    }

    /// Nothing that is left of the process does anything any more.
    pub fn kill(&self) {
        *self.lock() = (Mode::Dead, None);
    }
}
