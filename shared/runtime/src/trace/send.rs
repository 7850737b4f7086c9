//! The trace of an event that is on its way out: the handler's, or one of its own where nothing is handled.

use std::sync::Arc;

use events::Event;
use jiff::Timestamp;

use super::{FinishedSpan, Handling, SpanKind, TraceContext, TraceParent, Tracer};

/// Who emits.
#[derive(Debug, Clone)]
pub(crate) enum Traced {
    /// The handler of an event.
    By(Arc<Handling>),
    /// A command, or the reconciler: each event begins a trace.
    Anew,
}

/// An event that is being sent.
#[derive(Debug)]
pub(crate) struct Sending {
    /// The span that sends it.
    pub(crate) trace: TraceContext,
    /// The span with which it all began.
    pub(crate) origin: TraceContext,
    /// The span of its own.
    own: Option<(TraceParent, Timestamp)>,
}

impl Traced {
    /// An event is to be sent.
    pub(crate) fn sending(&self, tracer: &Tracer) -> Sending {
        match self {
            Self::By(handling) => {
                let (trace, origin) = handling.outgoing();
                Sending { trace, origin, own: None }
            }
            Self::Anew => {
                let own = tracer.new_trace();
                Sending { trace: own.into(), origin: own.into(), own: Some((own, tracer.clock.now())) }
            }
        }
    }
}

impl Sending {
    /// It was sent, or failed.
    pub(crate) fn sent(self, tracer: &Tracer, who: &str, topic: &str, event: &Event, error: Option<String>) {
        let Some((context, began)) = self.own.filter(|(context, _)| context.is_sampled()) else { return };
        let mut attributes = vec![
            ("messaging.system", tracer.system.into()),
            ("messaging.operation.type", "send".into()),
            ("messaging.operation.name", "send".into()),
            ("messaging.destination.name", topic.into()),
            ("batchmill.job", event.job().to_string().into()),
        ];
        if error.is_some() {
            attributes.push(("error.type", "failed".into()));
        }
        tracer.take(FinishedSpan {
            who: who.to_owned(),
            name: format!("{topic} send"),
            kind: SpanKind::Producer,
            context,
            parent: None,
            link: None,
            began,
            ended: tracer.clock.now(),
            attributes,
            error,
        });
    }
}
