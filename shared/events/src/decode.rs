//! The bytes of a Kafka record as an event, in whichever of three modes it came.
//!
//! *Structured* if the content type begins with `application/cloudevents` (in any case of letters); else *binary* if there is any
//! `ce_` header; else *plain*: a bare job spec, which only the jobs topics take, since people produce those with whatever
//! client is at hand. A record that can't be read is [`Poison`], with a stable code. Nothing here panics, whatever the
//! bytes: they come from outside.
//!
//! On the jobs topics any record key will do. On the others it must be the event's, because what works on a batch alone
//! relies on its partition.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::envelope::Envelope;
use crate::event::{Event, Kind};
use crate::headers::{CONTENT_TYPE, Headers};
use crate::json_path::describe;
use crate::poison::{Poison, shorten};
use crate::topic::Topic;
use crate::trace::TraceContext;
use crate::{BatchCollected, BatchDispatched, BatchReady, JobCancelRequested, JobEnded, JobPlanned, JobSubmitted};
use crate::{MAX_MESSAGE_BYTES, MAX_SPEC_BYTES};

/// How a record carried its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in headers, data in the value.
    Binary,
    /// Attributes and data in one JSON object.
    Structured,
    /// A bare job spec.
    Plain,
}

/// An event as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The event.
    pub event: Event,
    /// Its context; none in plain mode.
    pub envelope: Option<Envelope>,
    /// How it came.
    pub mode: Mode,
}

/// The attributes of a structured message. Others are ignored.
#[derive(Deserialize)]
struct Structured<'a> {
    #[serde(borrow)]
    specversion: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    ce_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    datacontenttype: Option<Cow<'a, str>>,
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tracestate: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The attributes that matter, from either mode.
struct Attributes<'a> {
    specversion: Option<&'a str>,
    ce_type: Option<&'a str>,
    id: Option<&'a str>,
    source: Option<&'a str>,
    time: Option<&'a str>,
    content_type: Option<&'a str>,
    trace: Option<TraceContext>,
    origin: Option<TraceContext>,
}

/// Reads a record.
///
/// # Errors
/// [`Poison`] for a record that will never be readable.
pub fn decode<N: AsRef<str>, V: AsRef<[u8]>>(
    topic: Topic,
    key: Option<&[u8]>,
    headers: &[(N, V)],
    value: Option<&[u8]>,
) -> Result<Decoded, Poison> {
    let value = value.ok_or(Poison::Tombstone)?;
    if value.len() > MAX_MESSAGE_BYTES {
        return Err(Poison::TooLarge { what: "the value", bytes: value.len(), limit: MAX_MESSAGE_BYTES });
    }
    let headers = Headers(headers);
    let content_type = headers.text(CONTENT_TYPE)?;
    let decoded = if content_type.is_some_and(is_cloudevents) {
        structured(topic, content_type.unwrap_or_default(), headers.trace(), value)?
    } else if headers.has_attributes() {
        binary(topic, content_type, &headers, value)?
    } else if topic == Topic::Jobs {
        Decoded { event: parse(Kind::JobSubmitted, value)?, envelope: None, mode: Mode::Plain }
    } else {
        return Err(Poison::NotCloudEvent { topic });
    };
    check_place(topic, key, &decoded.event)?;
    Ok(decoded)
}

fn structured(topic: Topic, content_type: &str, trace: Option<TraceContext>, value: &[u8]) -> Result<Decoded, Poison> {
    match media_type(content_type).as_str() {
        "application/cloudevents" | "application/cloudevents+json" => {}
        other if other.starts_with("application/cloudevents-batch") => return Err(Poison::BatchMode),
        _ => return Err(Poison::UnsupportedContentType { found: shorten(content_type, 80) }),
    }
    if is_list(value) {
        let message = "it is a list: send one object with attributes and data".to_owned();
        return Err(Poison::InvalidAttribute { name: "of the message", message });
    }
    let message: Structured<'_> = serde_json::from_slice(value).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Poison::InvalidAttribute { name: "of the message", message: describe(value, &error) }
        }
        _ => Poison::NotJson { message: error.to_string() },
    })?;
    let attributes = Attributes {
        specversion: message.specversion.as_deref(),
        ce_type: message.ce_type.as_deref(),
        id: message.id.as_deref(),
        source: message.source.as_deref(),
        time: message.time.as_deref(),
        content_type: message.datacontenttype.as_deref(),
        trace,
        origin: TraceContext::parse(message.traceparent.as_deref(), message.tracestate.as_deref()),
    };
    let kind = attributes.kind(topic)?;
    let envelope = attributes.envelope()?;
    let data = message
        .data
        .ok_or_else(|| Poison::InvalidData { kind, message: "there is no data: put the JSON into data".to_owned() })?;
    Ok(Decoded { event: parse(kind, data.get().as_bytes())?, envelope: Some(envelope), mode: Mode::Structured })
}

fn binary<N: AsRef<str>, V: AsRef<[u8]>>(
    topic: Topic,
    content_type: Option<&str>,
    headers: &Headers<'_, N, V>,
    value: &[u8],
) -> Result<Decoded, Poison> {
    let attributes = Attributes {
        specversion: headers.attribute("specversion")?,
        ce_type: headers.attribute("type")?,
        id: headers.attribute("id")?,
        source: headers.attribute("source")?,
        time: headers.attribute("time")?,
        content_type,
        trace: headers.trace(),
        origin: headers.origin(),
    };
    let kind = attributes.kind(topic)?;
    let envelope = attributes.envelope()?;
    Ok(Decoded { event: parse(kind, value)?, envelope: Some(envelope), mode: Mode::Binary })
}

impl Attributes<'_> {
    /// The kind of event, if this is a `CloudEvents` 1.0 message with JSON data of a kind that the topic carries.
    fn kind(&self, topic: Topic) -> Result<Kind, Poison> {
        let version = self.specversion.unwrap_or_default();
        if version != "1.0" {
            return Err(Poison::UnsupportedSpecversion { found: shorten(version, 80) });
        }
        let found = required("type", self.ce_type)?;
        let kind = Kind::of_type(found).ok_or_else(|| Poison::UnknownType { found: shorten(found, 200) })?;
        if !topic.carries(kind) {
            let right = Topic::ALL.iter().copied().find(|topic| topic.carries(kind)).unwrap_or(topic);
            return Err(Poison::WrongTopic { kind, topic, right });
        }
        match self.content_type {
            Some(found) if !is_json(found) => Err(Poison::UnsupportedContentType { found: shorten(found, 80) }),
            _ => Ok(kind),
        }
    }

    fn envelope(self) -> Result<Envelope, Poison> {
        let time = self.time.map(str::parse::<Timestamp>).transpose();
        let time = time.map_err(|_| Poison::InvalidAttribute {
            name: "time",
            message: "it is no RFC 3339 time, as in 2026-11-22T08:30:00Z".to_owned(),
        })?;
        Ok(Envelope {
            id: required("id", self.id)?.to_owned(),
            source: required("source", self.source)?.to_owned(),
            time,
            // Who sets only one of the two means both.
            trace: self.trace.clone().or_else(|| self.origin.clone()),
            origin: self.origin.or(self.trace),
        })
    }
}

fn required<'a>(name: &'static str, text: Option<&'a str>) -> Result<&'a str, Poison> {
    text.filter(|text| !text.is_empty()).ok_or(Poison::MissingAttribute { name })
}

/// Whether a content type means the structured mode (or the batch mode, which is told apart later).
fn is_cloudevents(content_type: &str) -> bool {
    media_type(content_type).starts_with("application/cloudevents")
}

fn is_json(content_type: &str) -> bool {
    let media = media_type(content_type);
    media.ends_with("/json") || media.ends_with("+json")
}

/// The media type without parameters, in lower case.
fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn parse(kind: Kind, json: &[u8]) -> Result<Event, Poison> {
    let event = match kind {
        Kind::JobSubmitted => from_json::<JobSubmitted>(kind, json)?.into(),
        Kind::JobCancelRequested => from_json::<JobCancelRequested>(kind, json)?.into(),
        Kind::JobPlanned => from_json::<JobPlanned>(kind, json)?.into(),
        Kind::BatchReady => from_json::<BatchReady>(kind, json)?.into(),
        Kind::BatchDispatched => from_json::<BatchDispatched>(kind, json)?.into(),
        Kind::BatchCollected => from_json::<BatchCollected>(kind, json)?.into(),
        Kind::JobEnded => from_json::<JobEnded>(kind, json)?.into(),
    };
    check_data(&event)?;
    Ok(event)
}

fn from_json<T: DeserializeOwned>(kind: Kind, json: &[u8]) -> Result<T, Poison> {
    if is_list(json) {
        let message = "it is a list: send one object an event".to_owned();
        return Err(Poison::InvalidData { kind, message });
    }
    serde_json::from_slice(json).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Poison::InvalidData { kind, message: describe(json, &error) },
        _ => Poison::NotJson { message: error.to_string() },
    })
}

/// Whether a JSON text is a list. Serde would take one for an object, field by field in the order of our source.
fn is_list(json: &[u8]) -> bool {
    json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// What the types alone don't say: batches and attempts count from 1, and a spec must fit an event when it is emitted again.
fn check_data(event: &Event) -> Result<(), Poison> {
    let id = match event {
        Event::JobSubmitted(submitted) => {
            let bytes = serde_json::to_vec(submitted).map_or(usize::MAX, |json| json.len());
            if bytes > MAX_SPEC_BYTES {
                return Err(Poison::TooLarge { what: "the job spec as compact JSON", bytes, limit: MAX_SPEC_BYTES });
            }
            return Ok(());
        }
        Event::BatchReady(event) => event.batch.id,
        Event::BatchDispatched(event) => event.batch.id,
        Event::BatchCollected(event) => event.id,
        Event::JobCancelRequested(_) | Event::JobPlanned(_) | Event::JobEnded(_) => return Ok(()),
    };
    if id.number == 0 || id.attempt == 0 {
        let message = "batch: number and attempt count from 1, and one of them is 0".to_owned();
        return Err(Poison::InvalidData { kind: event.kind(), message });
    }
    Ok(())
}

fn check_place(topic: Topic, key: Option<&[u8]>, event: &Event) -> Result<(), Poison> {
    if event.topic() != topic {
        return Err(Poison::WrongTopic { kind: event.kind(), topic, right: event.topic() });
    }
    let right = event.key();
    if topic != Topic::Jobs && key != Some(right.as_bytes()) {
        return Err(Poison::WrongKey { right });
    }
    Ok(())
}
