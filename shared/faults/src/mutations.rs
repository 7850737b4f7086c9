//! Mutations: rules of the protocol, each of which a test can break to see whether the tests notice.
//!
//! A rule is broken for the current thread alone ([`break_rule`]): a simulation runs a whole batchmill on one thread, so
//! that many of them, each with another rule broken, run side by side.

macro_rules! mutations {
    ($($(#[$doc:meta])* $variant:ident,)*) => {
        /// A broken rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutation { $($(#[$doc])* $variant,)* }

        impl Mutation {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

mutations! {
    /// An event's offset is finished before its handler has run.
    CommitBeforeWork,
    /// The window commits past a gap: the highest finished offset counts, not the lowest unfinished.
    CommitPastGap,
    /// A fact that is there is written over.
    OverwriteFact,
    /// Whoever loses an entry of a submission log goes on as if it had won.
    IgnoreLostEntry,
    /// The fence does not delete the file.
    SkipFence,
    /// The fence does not look again after the deletion.
    SkipSecondList,
    /// The fence looks at one page of the provider's list only.
    ListOnePage,
    /// A deletion that failed counts as done.
    TrustFailedDelete,
    /// A create whose outcome is unknown is sent again.
    RetryCreate,
    /// The create is sent before the log names its file.
    CreateUnrecorded,
    /// The provider's error file is not read.
    IgnoreErrorFile,
    /// A batch that is not *completed* is taken for empty.
    TrustStatus,
    /// The event of a collection goes out before the result fact is put, and not after.
    TellBeforePut,
    /// The input is read without saying which version of it.
    NoIfMatch,
    /// The merger ends a job whose batches are not all collected.
    MergeUncovered,
}

#[cfg(debug_assertions)]
mod switch {
    use super::Mutation;
    use std::cell::Cell;

    thread_local! {
        static BROKEN: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Breaks a rule on this thread until the guard is dropped.
    #[must_use]
    pub fn break_rule(mutation: Mutation) -> Guard {
        BROKEN.set(Some(mutation));
        Guard(())
    }

    /// A rule stays broken while this lives.
    #[derive(Debug)]
    pub struct Guard(());

    impl Drop for Guard {
        fn drop(&mut self) {
            BROKEN.set(None);
        }
    }

    pub(super) fn broken() -> Option<Mutation> {
        BROKEN.get()
    }
}

#[cfg(debug_assertions)]
pub use switch::{Guard, break_rule};

/// Whether a test has broken this rule. Never in a release build.
#[inline]
#[must_use]
pub fn is_broken(mutation: Mutation) -> bool {
    #[cfg(debug_assertions)]
    let broken = switch::broken() == Some(mutation);
    #[cfg(not(debug_assertions))]
    let broken = {
        let _ = mutation;
        false
    };
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_broken_on_one_thread_and_until_its_guard_is_dropped() {
        let guard = break_rule(Mutation::SkipFence);
        assert!(is_broken(Mutation::SkipFence) && !is_broken(Mutation::RetryCreate));
        assert!(!std::thread::spawn(|| is_broken(Mutation::SkipFence)).join().unwrap());
        drop(guard);
        assert!(!is_broken(Mutation::SkipFence));
    }
}
