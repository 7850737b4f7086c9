//! One handling of one event: its span, and the fields that every log line under it has.

use std::sync::{Arc, OnceLock};

use bus::Record;
use events::Event;
use jiff::Timestamp;
use model::{BatchId, JobId, Team};

use super::{FinishedSpan, SpanId, SpanKind, TARGET, TraceContext, TraceParent, Tracer, Value};
use crate::room::Received;

tokio::task_local! {
    /// What is handled by this task.
    pub(crate) static HANDLING: Arc<Handling>;
}

/// Where an event comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    /// The span that sent it.
    pub(crate) sender: Option<TraceContext>,
    /// The span with which it all began.
    pub(crate) first: Option<TraceContext>,
}

impl Origins {
    /// Of a record as it was read.
    pub(crate) fn of(record: &Record, received: &Received) -> Self {
        match &received.envelope {
            Some(envelope) => Self { sender: envelope.trace.clone(), first: envelope.origin.clone() },
            None => {
                let sender = TraceContext::of_headers(&record.headers);
                Self { first: sender.clone(), sender }
            }
        }
    }
}

/// The trace of an event that is open: what its handlings have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trail(TraceParent);

/// One handling. When it is dropped without an end, it was cancelled.
#[derive(Debug)]
pub(crate) struct Handling {
    tracer: Tracer,
    context: TraceParent,
    parent: Option<SpanId>,
    origins: Origins,
    began: Timestamp,
    room: &'static str,
    job: JobId,
    batch: Option<BatchId>,
    team: OnceLock<Team>,
    tries: u32,
    /// What only a span that is sent needs.
    sent: Option<Sent>,
    ended: OnceLock<(&'static str, Option<String>)>,
    /// The span of the log.
    pub(crate) log: tracing::Span,
}

#[derive(Debug)]
struct Sent {
    topic: String,
    partition: i32,
    offset: i64,
    group: String,
    message: Option<String>,
}

impl Handling {
    /// Begins. The trail is made by the first handling of an event.
    pub(crate) fn begin(
        tracer: &Tracer,
        (room, group): (&'static str, &str),
        record: &Record,
        received: &Received,
        trail: &mut Option<Trail>,
    ) -> Arc<Self> {
        let (context, parent) = match trail {
            Some(Trail(first)) => (tracer.child_of(*first), Some(first.span)),
            None => (tracer.new_trace(), None),
        };
        trail.get_or_insert(Trail(context));
        let job = received.event.job().clone();
        let batch = batch_of(&received.event);
        let handling = Self {
            tracer: tracer.clone(),
            context,
            parent,
            origins: Origins::of(record, received),
            began: tracer.clock.now(),
            room,
            log: log_span(room, &job, batch, context),
            job,
            batch,
            team: OnceLock::new(),
            tries: received.tries,
            sent: context.is_sampled().then(|| Sent {
                topic: record.topic.clone(),
                partition: record.partition,
                offset: record.offset,
                group: group.to_owned(),
                message: received.envelope.as_ref().map(|envelope| envelope.id.clone()),
            }),
            ended: OnceLock::new(),
        };
        // On the other topics only the facts say whose the job is.
        if received.topic == events::Topic::Jobs {
            handling.note_team(&received.team);
        }
        Arc::new(handling)
    }

    /// What an event that is emitted now says of its trace: the span that sends it, and the one with which it all began.
    pub(crate) fn outgoing(&self) -> (TraceContext, TraceContext) {
        // A job that came without a trace began when it was first taken.
        let root = TraceParent { span: self.parent.unwrap_or(self.context.span), ..self.context };
        (self.context.into(), self.origins.first.clone().unwrap_or_else(|| root.into()))
    }

    /// Notes how it ended, and why it failed if it did.
    pub(crate) fn end(&self, outcome: &'static str, error: Option<String>) {
        let _once = self.ended.set((outcome, error));
    }

    fn note_team(&self, team: &Team) {
        if self.team.set(team.clone()).is_ok() {
            self.log.record("team", tracing::field::display(team));
        }
    }

    fn about(&self) -> Vec<(&'static str, Value)> {
        let mut about: Vec<(&'static str, Value)> = vec![("batchmill.job", self.job.to_string().into())];
        if let Some(batch) = self.batch {
            about.push(("batchmill.batch", batch.to_string().into()));
            about.push(("batchmill.attempt", Value::Number(batch.attempt.into())));
        }
        about.extend(self.team.get().map(|team| ("batchmill.team", team.to_string().into())));
        about
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        let Some(sent) = self.sent.take() else { return };
        let (outcome, error) = self.ended.take().unwrap_or(("cancelled", None));
        let mut attributes = vec![
            ("messaging.system", self.tracer.system.into()),
            ("messaging.operation.type", "process".into()),
            ("messaging.operation.name", "process".into()),
            ("messaging.destination.name", sent.topic.clone().into()),
            ("messaging.destination.partition.id", sent.partition.to_string().into()),
            ("messaging.kafka.offset", Value::Number(sent.offset)),
            ("messaging.consumer.group.name", sent.group.into()),
            ("batchmill.tries", Value::Number(self.tries.into())),
            ("batchmill.outcome", outcome.into()),
        ];
        attributes.extend(sent.message.map(|id| ("messaging.message.id", id.into())));
        attributes.extend(self.about());
        if error.is_some() {
            attributes.push(("error.type", outcome.into()));
        }
        self.tracer.take(FinishedSpan {
            who: self.room.to_owned(),
            name: format!("{} process", sent.topic),
            kind: SpanKind::Consumer,
            context: self.context,
            parent: self.parent,
            link: self.origins.sender.take(),
            began: self.began,
            ended: self.tracer.clock.now(),
            attributes,
            error,
        });
    }
}

fn batch_of(event: &Event) -> Option<BatchId> {
    match event {
        Event::BatchReady(event) => Some(event.batch.id),
        Event::BatchDispatched(event) => Some(event.batch.id),
        Event::BatchCollected(event) => Some(event.id),
        Event::JobSubmitted(_) | Event::JobCancelRequested(_) | Event::JobPlanned(_) | Event::JobEnded(_) => None,
    }
}

/// Of the level `ERROR`, so that no filter hides it from the lines that it does show.
fn log_span(room: &str, job: &JobId, batch: Option<BatchId>, context: TraceParent) -> tracing::Span {
    let (trace_id, span_id) = (context.trace, context.span);
    let (attempt, batch) = (batch.map(|id| id.attempt), batch.map(tracing::field::display));
    tracing::error_span!(
        target: TARGET, "event", room, %job, batch, attempt, team = tracing::field::Empty, %trace_id, %span_id
    )
}

/// Notes whose job it is that this task handles, once its facts were read.
pub fn note_team(team: &Team) {
    let _outside = HANDLING.try_with(|handling| handling.note_team(team));
}

/// Begins a call of a server, as a child of what this task handles. What it gives is called with the outcome when the call
/// has ended; a call whose outcome is not `ok` counts as failed.
pub fn client_call(server: &str, operation: &'static str) -> impl FnOnce(&'static str) + Send + use<> {
    let handling = HANDLING.try_with(Arc::clone).ok().filter(|handling| handling.context.is_sampled());
    let begun = handling.map(|handling| (handling.tracer.clock.now(), server.to_owned(), handling));
    move |outcome| {
        let Some((began, server, handling)) = begun else { return };
        let mut attributes = vec![
            ("batchmill.provider", server.clone().into()),
            ("batchmill.operation", operation.into()),
            ("batchmill.outcome", outcome.into()),
        ];
        attributes.extend(handling.about());
        let failed = outcome != "ok";
        if failed {
            attributes.push(("error.type", outcome.into()));
        }
        handling.tracer.take(FinishedSpan {
            who: handling.room.to_owned(),
            name: format!("{operation} {server}"),
            kind: SpanKind::Client,
            context: handling.tracer.child_of(handling.context),
            parent: Some(handling.context.span),
            link: None,
            began,
            ended: handling.tracer.clock.now(),
            attributes,
            error: failed.then(|| outcome.to_owned()),
        });
    }
}
