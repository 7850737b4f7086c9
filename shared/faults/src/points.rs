//! Crash points: a name for each durable step.
//!
//! `BATCHMILL_CRASH_AT=dispatcher.created=kill@2` kills the process when it passes `dispatcher.created` for the second
//! time; `=stop` stops it there (SIGSTOP), and whoever sends SIGCONT later has a zombie: a process that goes on with a
//! deed that it was in the middle of, long after others took its work over. Without `@n` it is the first time. Points
//! stand between a deed and the next, so that a death at one is a death after its deed and before the one that follows.

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A durable step.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point { $($(#[$doc])* $variant,)* }

        impl Point {
            /// All of them, in the order of a job's way.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name, as the environment gives it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

points! {
    /// An event was taken; nothing was done for it yet.
    LoopTaken = "loop.taken",
    /// A handler has ended well; its offset is not finished yet.
    LoopHandled = "loop.handled",
    /// Offsets were committed.
    LoopCommitted = "loop.committed",
    /// An event was produced and acknowledged.
    LoopProduced = "loop.produced",
    /// A fact is about to be put.
    PutOncePutting = "put_once.putting",
    /// A fact was put, and the answer not looked at yet.
    PutOncePut = "put_once.put",
    /// `0-job.json` is there.
    SplitterTaken = "splitter.taken",
    /// The output is claimed.
    SplitterOwned = "splitter.owned",
    /// A batch's data is stored.
    SplitterStored = "splitter.stored",
    /// The whole input is read; there is no plan yet.
    SplitterRead = "splitter.read",
    /// The plan is put; nobody was told.
    SplitterPlanned = "splitter.planned",
    /// A claim was won.
    DispatcherClaimed = "dispatcher.claimed",
    /// The fence's first list had nothing.
    DispatcherListed = "dispatcher.listed",
    /// The fenced file is deleted.
    DispatcherDeleted = "dispatcher.deleted",
    /// The fence's second list had nothing.
    DispatcherFenced = "dispatcher.fenced",
    /// The file is uploaded; no entry names it.
    DispatcherUploaded = "dispatcher.uploaded",
    /// The file's entry is won; no create was sent.
    DispatcherRecorded = "dispatcher.recorded",
    /// The create was answered; the answer is not recorded.
    DispatcherCreated = "dispatcher.created",
    /// The log has ended with `Submitted`; nobody was told.
    DispatcherSubmitted = "dispatcher.submitted",
    /// The provider's files are on scratch disk.
    PollerDownloaded = "poller.downloaded",
    /// Result data is stored; no fact names it.
    PollerStored = "poller.stored",
    /// The result fact is put; nobody was told.
    PollerCollected = "poller.collected",
    /// The next attempt is told; the collection is not.
    PollerRetried = "poller.retried",
    /// All of the output is handed over, but it is not finished.
    MergerWritten = "merger.written",
    /// The output is there; the job has not ended.
    MergerMerged = "merger.merged",
    /// `5-end.json` is put; nobody was told.
    MergerEnded = "merger.ended",
    /// The end is told; the job is still among the open ones.
    MergerTold = "merger.told",
}

/// What happens at a point.
#[cfg(debug_assertions)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Kill,
    Stop,
}

/// What the environment asks for: where, what, and at the how-manieth passage.
#[cfg(debug_assertions)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Order {
    point: Point,
    deed: Deed,
    passage: u32,
}

#[cfg(debug_assertions)]
fn order(text: &str) -> Option<Order> {
    let (name, rest) = text.split_once('=')?;
    let (deed, passage) = rest.split_once('@').unwrap_or((rest, "1"));
    let deed = match deed {
        "kill" => Deed::Kill,
        "stop" => Deed::Stop,
        _ => return None,
    };
    let point = *Point::ALL.iter().find(|point| point.name() == name)?;
    Some(Order { point, deed, passage: passage.parse().ok().filter(|n| *n > 0)? })
}

/// Passes a point. Called by [`crate::crash_point`] alone.
#[cfg(debug_assertions)]
pub fn pass(point: Point) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    static ORDER: OnceLock<Option<Order>> = OnceLock::new();
    static PASSAGES: AtomicU32 = AtomicU32::new(0);
    let read = || match std::env::var("BATCHMILL_CRASH_AT") {
        Ok(text) => order(&text).or_else(|| {
            eprintln!("BATCHMILL_CRASH_AT={text} is no crash point: it is NAME=kill or NAME=stop, with @N or without");
            std::process::exit(2)
        }),
        Err(_) => None,
    };
    let Some(order) = ORDER.get_or_init(read) else { return };
    if order.point == point && PASSAGES.fetch_add(1, Ordering::Relaxed) + 1 == order.passage {
        signal(order.deed);
    }
}

/// By the system's own command: the standard library can't send signals. It does not return before the signal is sent.
#[cfg(debug_assertions)]
fn signal(deed: Deed) {
    let name = match deed {
        Deed::Kill => "-KILL",
        Deed::Stop => "-STOP",
    };
    let pid = std::process::id().to_string();
    if let Err(error) = std::process::Command::new("kill").args([name, &pid]).status() {
        eprintln!("kill {name} {pid}: {error}");
        std::process::exit(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[test]
    fn an_order_names_point_deed_and_passage() {
        let expected = |deed, passage| Some(Order { point: Point::DispatcherCreated, deed, passage });
        assert_eq!(order("dispatcher.created=kill"), expected(Deed::Kill, 1));
        assert_eq!(order("dispatcher.created=stop@3"), expected(Deed::Stop, 3));
        for wrong in ["", "dispatcher.created", "dispatcher.created=stop@0", "x=kill", "dispatcher.created=hang"] {
            assert_eq!(order(wrong), None, "{wrong}");
        }
    }
}
