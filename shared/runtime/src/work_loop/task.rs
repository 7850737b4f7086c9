//! One event in its handler: a task that can be aborted, and never takes the loop down with it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bus::Record;
use futures::FutureExt;
use tracing::Instrument;

use super::dead_letter::{self, Letter};
use super::outbox::{Outbox, Place, Stopping};
use crate::context::Context;
use crate::room::{Received, Room, Verdict};
use crate::trace::{HANDLING, Handling};

/// How a task ended.
pub(super) enum Ended {
    /// The event is handled, or its letter is sent: finish it.
    Finished { rejected: bool },
    /// It comes again after this time.
    Later(Duration),
    /// A transient error.
    Failed(anyhow::Error),
    /// The handler panicked.
    Panicked(String),
}

/// Everything that a task needs.
pub(super) struct Task {
    pub(super) context: Context,
    pub(super) room: Arc<dyn Room>,
    pub(super) group: String,
    pub(super) record: Record,
}

impl Task {
    /// Handles the event once.
    pub(super) async fn handle(self, received: Received, place: Arc<Place>, handling: Arc<Handling>) -> Ended {
        let log = handling.log.clone();
        HANDLING.scope(Arc::clone(&handling), self.handle_traced(received, place, handling)).instrument(log).await
    }

    async fn handle_traced(self, received: Received, place: Arc<Place>, handling: Arc<Handling>) -> Ended {
        faults::crash_point!(LoopTaken);
        let out = Outbox::of_handler(&self.context, self.room.name(), &handling, &place);
        // A handler keeps what matters in the store, so nothing of it can be left half done in memory.
        let verdict = AssertUnwindSafe(self.room.handle(&received, &out)).catch_unwind().await;
        match verdict {
            Ok(Ok(Verdict::Done)) => {
                handling.end("done", None);
                faults::crash_point!(LoopHandled);
                Ended::Finished { rejected: false }
            }
            Ok(Ok(Verdict::Later(wait))) => {
                handling.end("later", None);
                Ended::Later(wait)
            }
            Ok(Ok(Verdict::Reject(reason))) => {
                handling.end("rejected", Some(format!("{}: {}", reason.code, reason.message)));
                let letter =
                    Letter { code: reason.code.to_owned(), message: reason.message, attempts: received.tries + 1 };
                self.bury(letter).await
            }
            Ok(Err(error)) if error.is::<Stopping>() => {
                handling.end("stopping", None);
                Ended::Failed(error)
            }
            Ok(Err(error)) => {
                handling.end("failed", Some(format!("{error:#}")));
                Ended::Failed(error)
            }
            Err(panic) => {
                let words = words(&*panic);
                handling.end("panicked", Some(words.clone()));
                Ended::Panicked(words)
            }
        }
    }

    /// Sends the record to the dead letters.
    pub(super) async fn bury(self, letter: Letter) -> Ended {
        tracing::error!(
            room = self.room.name(),
            topic = self.record.topic,
            partition = self.record.partition,
            offset = self.record.offset,
            code = letter.code,
            reason = letter.message,
            "a record goes to the dead letters"
        );
        dead_letter::send(&self.context, &self.group, &self.record, &letter).await;
        self.context.metrics.record_dead_letter(self.room.name(), &self.record.topic, &letter.code);
        Ended::Finished { rejected: true }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}
