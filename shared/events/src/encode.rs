//! An event as the bytes of a Kafka record: `CloudEvents` 1.0, binary mode.
//!
//! The value is the event's data as compact JSON, everything about it is in headers; so a reader that knows nothing of
//! `CloudEvents` still finds plain JSON. The record key is repeated in `ce_partitionkey`. There are two trace contexts: the
//! sender's span where Kafka instrumentation looks (`traceparent`), and the span with which it all began where the
//! `CloudEvents` extension has it (`ce_traceparent`).

use crate::envelope::Envelope;
use crate::event::{Event, Kind};
use crate::headers::CONTENT_TYPE;
use crate::{MAX_MESSAGE_BYTES, MAX_SPEC_BYTES};

/// A record's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The record key.
    pub key: Vec<u8>,
    /// The headers, in the order in which they are written.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The value.
    pub value: Vec<u8>,
}

impl Encoded {
    /// The bytes of key, headers and value together.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + headers + self.value.len()
    }
}

/// An event that can't be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is larger than a message may be.
    #[error(
        "{kind} {key} has {bytes} bytes, and at most {limit} are allowed: shorten the template, the system prompt or the parameters"
    )]
    TooLarge {
        /// The event's kind.
        kind: Kind,
        /// Its key.
        key: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The envelope lacks what every reader requires.
    #[error("the envelope of {kind} {key} has an empty {attribute}: set it")]
    EmptyAttribute {
        /// The event's kind.
        kind: Kind,
        /// Its key.
        key: String,
        /// The attribute.
        attribute: &'static str,
    },
    /// It does not serialise.
    #[error("{kind} {key} does not serialise as JSON: {source}")]
    Json {
        /// The event's kind.
        kind: Kind,
        /// Its key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Writes an event as a record in binary mode.
///
/// # Errors
/// [`Error::TooLarge`] beyond [`MAX_MESSAGE_BYTES`], or [`MAX_SPEC_BYTES`] for a job spec; [`Error::EmptyAttribute`] for
/// an envelope without id or source.
pub fn encode(event: &Event, envelope: &Envelope) -> Result<Encoded, Error> {
    let (kind, key) = (event.kind(), event.key());
    for (attribute, text) in [("id", &envelope.id), ("source", &envelope.source)] {
        if text.is_empty() {
            return Err(Error::EmptyAttribute { kind, key, attribute });
        }
    }
    let value = data(event).map_err(|source| Error::Json { kind, key: key.clone(), source })?;
    if kind == Kind::JobSubmitted && value.len() > MAX_SPEC_BYTES {
        return Err(Error::TooLarge { kind, key, bytes: value.len(), limit: MAX_SPEC_BYTES });
    }
    let encoded = Encoded { headers: headers(event, envelope, &key), key: key.into_bytes(), value };
    if encoded.size() > MAX_MESSAGE_BYTES {
        return Err(Error::TooLarge { kind, key: event.key(), bytes: encoded.size(), limit: MAX_MESSAGE_BYTES });
    }
    Ok(encoded)
}

fn data(event: &Event) -> Result<Vec<u8>, serde_json::Error> {
    match event {
        Event::JobSubmitted(event) => serde_json::to_vec(event),
        Event::JobCancelRequested(event) => serde_json::to_vec(event),
        Event::JobPlanned(event) => serde_json::to_vec(event),
        Event::BatchReady(event) => serde_json::to_vec(event),
        Event::BatchDispatched(event) => serde_json::to_vec(event),
        Event::BatchCollected(event) => serde_json::to_vec(event),
        Event::JobEnded(event) => serde_json::to_vec(event),
    }
}

fn headers(event: &Event, envelope: &Envelope, key: &str) -> Vec<(String, Vec<u8>)> {
    let mut list: Vec<(&str, String)> = vec![
        (CONTENT_TYPE, "application/json".to_owned()),
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", envelope.id.clone()),
        ("ce_source", envelope.source.clone()),
        ("ce_type", event.kind().ce_type().to_owned()),
        ("ce_subject", event.job().to_string()),
    ];
    if let Some(time) = envelope.time {
        list.push(("ce_time", time.to_string()));
    }
    list.push(("ce_dataschema", event.kind().schema_id()));
    list.push(("ce_partitionkey", key.to_owned()));
    let traces =
        [(&envelope.origin, ["ce_traceparent", "ce_tracestate"]), (&envelope.trace, ["traceparent", "tracestate"])];
    for (context, [parent, state]) in traces {
        let Some(context) = context else { continue };
        list.push((parent, context.parent.to_string()));
        list.extend(context.state.clone().map(|text| (state, text)));
    }
    list.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect()
}
