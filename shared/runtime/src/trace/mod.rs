//! Traces: which span an event came from, what its handling is called in logs, and where spans go.
//!
//! **Promise.** Each event that a room takes gets a trace of its own, linked to the span that sent it; what the handler emits
//! carries the handler's span. A job takes hours, so one trace from end to end would be of no use: links and `batchmill.job`
//! join the rooms. Ids and headers are made whether or not a collector is configured, so that a log line of one service leads
//! to those of the next.
//!
//! **How a trace is made up.** An event that waits is handled again and again. All of that is one trace: the first time is its
//! root, every later time a child of it, each linked to the sender. Calls of providers are children of the handling that makes
//! them. Whether a trace is sent to the collector is decided once, by its id ([`Tracer`]).
//!
//! **What it lacks on purpose.** No span for each log line, row or object. Nothing decides anything by a trace, and no fact has
//! one: work that the reconciler finds in the facts begins a new trace.

mod handling;
#[cfg(feature = "otlp")]
mod otlp;
mod send;
mod span;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use events::{SpanId, TraceContext, TraceId, TraceParent};

pub(crate) use handling::{HANDLING, Handling, Trail};
pub use handling::{client_call, note_team};
pub(crate) use send::{Sending, Traced};
pub use span::{FinishedSpan, SpanKind, SpanSink, Value};

use crate::clock::Clock;
use crate::settings::Tracing;

/// The target of the span around a handler: whatever the log's filter shows, it shows with job and batch.
pub(crate) const TARGET: &str = "handling";

/// Makes spans. Clones share where they go.
#[derive(Debug, Clone)]
pub(crate) struct Tracer {
    clock: Clock,
    sink: Option<Arc<dyn SpanSink>>,
    /// A trace is sent if the lower 63 bits of its id are below this.
    sent_below: u64,
    /// What semantic conventions call the bus.
    system: &'static str,
}

impl Tracer {
    /// By the settings.
    ///
    /// # Errors
    /// A setting that does not fit, or an endpoint in a build without OTLP.
    pub(crate) fn open(settings: &Tracing, clock: &Clock, system: &'static str) -> anyhow::Result<Self> {
        let ratio = settings.sample_ratio;
        anyhow::ensure!((0.0..=1.0).contains(&ratio), "setting tracing.sample_ratio is {ratio}: give 0 to 1");
        let sink = if settings.otlp_endpoint.trim().is_empty() { None } else { Some(open_sink(settings, clock)?) };
        let whole = 1_u64 << 63;
        // A ratio of 1 takes all: as a float it would round.
        let sent_below = if ratio >= 1.0 { whole } else { (ratio * whole as f64) as u64 };
        Ok(Self { clock: clock.clone(), sink, sent_below, system })
    }

    /// The same, with spans that go there.
    pub(crate) fn into_sink(self, sink: Arc<dyn SpanSink>) -> Self {
        Self { sink: Some(sink), ..self }
    }

    /// Sends what is left. It takes no longer than that.
    pub(crate) async fn finish(&self, within: Duration) {
        if let Some(sink) = self.sink.as_ref().map(Arc::clone) {
            let finished = tokio::task::spawn_blocking(move || sink.finish(within));
            // A collector that hangs is left behind.
            let _late = tokio::time::timeout(within, finished).await;
        }
    }

    /// Whether the trace is sent. Every process says the same of one id.
    fn samples(&self, trace: TraceId) -> bool {
        const MASK: u128 = (1 << 63) - 1;
        self.sink.is_some() && (trace.bits() & MASK) < u128::from(self.sent_below)
    }

    fn new_trace(&self) -> TraceParent {
        let trace = self.clock.trace_id();
        TraceParent::new(trace, self.clock.span_id(), self.samples(trace))
    }

    fn child_of(&self, parent: TraceParent) -> TraceParent {
        TraceParent { span: self.clock.span_id(), ..parent }
    }

    fn take(&self, span: FinishedSpan) {
        if let (Some(sink), true) = (&self.sink, span.context.is_sampled()) {
            sink.take(span);
        }
    }
}

#[cfg(feature = "otlp")]
fn open_sink(settings: &Tracing, clock: &Clock) -> anyhow::Result<Arc<dyn SpanSink>> {
    Ok(Arc::new(otlp::Otlp::open(settings, clock)?))
}

#[cfg(not(feature = "otlp"))]
fn open_sink(_settings: &Tracing, _clock: &Clock) -> anyhow::Result<Arc<dyn SpanSink>> {
    anyhow::bail!(
        "setting tracing.otlp_endpoint: this build has no OTLP: use one that was made with `cargo build --features otlp`"
    )
}
