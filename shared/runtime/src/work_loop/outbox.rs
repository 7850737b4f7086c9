//! The way out: events to the bus, each acknowledged before the handler goes on.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use events::{Envelope, Event};
use model::{JobId, Team};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::gate::{Edge, Grant};
use crate::context::Context;
use crate::metrics::BusOperation;
use crate::trace::{Handling, Sending, Traced};

/// The process is to stop, so what would have to wait does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the process is stopping; the event stays open and is delivered again")]
pub struct Stopping;

/// Emits events for a handler, or for a command.
pub struct Outbox {
    context: Context,
    who: String,
    /// What its events say of their trace.
    traced: Traced,
    place: Option<Arc<Place>>,
}

/// The leave to put one batch to a provider. Hold it until `batch.dispatched` is emitted: until then it counts as one that the
/// pollers have not finished.
pub struct Admission {
    _grant: Grant,
}

impl Outbox {
    /// An outbox outside a handler. `who` becomes the events' source.
    #[must_use]
    pub fn new(context: &Context, who: &str) -> Self {
        Self { context: context.clone(), who: who.to_owned(), traced: Traced::Anew, place: None }
    }

    pub(super) fn of_handler(context: &Context, room: &str, handling: &Arc<Handling>, place: &Arc<Place>) -> Self {
        let traced = Traced::By(Arc::clone(handling));
        Self { traced, place: Some(Arc::clone(place)), ..Self::new(context, room) }
    }

    /// Emits an event on its topic and waits until it is acknowledged; before that, where the design says so, until the
    /// stage after this has caught up. While it waits the handler gives its running place back.
    ///
    /// # Errors
    /// [`Stopping`]; what the bus says (then it may be there or not, and the handler's event comes again); an event too
    /// large for a message.
    pub async fn emit(&self, event: impl Into<Event>) -> anyhow::Result<()> {
        self.emit_for(event, &Team::shared()).await
    }

    /// Like [`emit`](Self::emit), with the team whose jobs topic `job.submitted` and `job.cancel_requested` go to.
    ///
    /// # Errors
    /// As for [`emit`](Self::emit).
    pub async fn emit_for(&self, event: impl Into<Event>, team: &Team) -> anyhow::Result<()> {
        let event = event.into();
        let _grant = match Edge::of(&event) {
            Some(edge) => Some(self.wait(edge, event.job()).await?),
            None => None,
        };
        let sending = self.traced.sending(&self.context.tracer);
        let outgoing = self.outgoing(&event, team, &sending)?;
        let topic = outgoing.topic.clone();
        let sent = self.context.bus.send(outgoing).await;
        let failed = sent.as_ref().err().map(ToString::to_string);
        sending.sent(&self.context.tracer, &self.who, &topic, &event, failed);
        sent.inspect_err(|error| self.context.bus_metrics.record_error(BusOperation::Send, error))
            .with_context(|| format!("{} {} to {topic}", event.kind(), event.key()))?;
        faults::crash_point!(LoopProduced);
        self.context.metrics.record_emitted(event.kind());
        tracing::debug!(kind = event.kind().name(), key = event.key(), topic, "emitted");
        Ok(())
    }

    /// Waits until the stage after the edge has room for one more of this job. The dispatcher asks before it claims a batch,
    /// never after a create.
    ///
    /// # Errors
    /// [`Stopping`].
    pub async fn admit(&self, edge: Edge, job: &JobId) -> anyhow::Result<Admission> {
        Ok(Admission { _grant: self.wait(edge, job).await? })
    }

    async fn wait(&self, edge: Edge, job: &JobId) -> Result<Grant, Stopping> {
        let gate = self.context.gates.of(edge);
        if let Some(grant) = gate.try_acquire().await {
            return Ok(grant);
        }
        self.aside(gate.acquire(job)).await.ok_or(Stopping)
    }

    /// Waits for what is not the handler's own work: until it is there the handler gives its running place back, so that others
    /// run.
    pub async fn aside<T>(&self, waiting: impl Future<Output = T>) -> T {
        let Some(place) = &self.place else { return waiting.await };
        place.give_back();
        let come = waiting.await;
        place.take_again().await;
        come
    }

    fn outgoing(&self, event: &Event, team: &Team, sending: &Sending) -> anyhow::Result<bus::Outgoing> {
        let now = self.context.clock.now();
        let source = format!("/batchmill/{}", self.who);
        let envelope = Envelope {
            trace: Some(sending.trace.clone()),
            origin: Some(sending.origin.clone()),
            ..Envelope::new(self.context.clock.event_id(), source, now)
        };
        let encoded = events::encode(event, &envelope)?;
        let topic = match event.topic() {
            events::Topic::Jobs => self.context.topics.jobs_of(team),
            topic => self.context.topics.name(topic),
        };
        Ok(bus::Outgoing {
            topic,
            key: Some(Bytes::from(encoded.key)),
            headers: encoded.headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
            value: Some(Bytes::from(encoded.value)),
            timestamp_ms: Some(now.as_millisecond()),
        })
    }
}

/// A handler's running place, which it may give back while it waits.
pub(super) struct Place {
    places: Arc<Semaphore>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    /// Tells the loop that a place is free.
    freed: Arc<Notify>,
}

impl Place {
    pub(super) fn new(places: &Arc<Semaphore>, permit: OwnedSemaphorePermit, freed: &Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { places: Arc::clone(places), permit: Mutex::new(Some(permit)), freed: Arc::clone(freed) })
    }

    fn give_back(&self) {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.freed.notify_one();
    }

    /// Handlers that go on come before events that begin: the semaphore is fair, and the loop never queues for it.
    async fn take_again(&self) {
        if let Ok(permit) = Arc::clone(&self.places).acquire_owned().await {
            *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
        }
    }
}
