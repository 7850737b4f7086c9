//! The wire contracts of batchmill: what travels between the rooms, on which topic, with which key, in which bytes.
//!
//! Each event is a past-tense fact in a file of its own, and [`Event`] is all of them. On the wire an event is a
//! `CloudEvents` 1.0 message in Kafka's binary mode ([`encode`]); [`decode`] also takes the structured mode, and on the jobs
//! topics a bare job spec, because people produce those by hand. Events carry references and counts, never row data:
//! [`MAX_MESSAGE_BYTES`] bounds each message, and whatever is lost can be rebuilt from the facts.
//!
//! How the contracts change: within `v1` only optional fields are added, and readers ignore fields of an event that they
//! don't know. A job spec is stricter, since there a typo must not be ignored. Anything else, a new value of an enum
//! included, is a new version with a type and a topic of its own. The JSON Schemas under `schemas/` are generated from these types and
//! the tests compare them; the examples beside them are frozen, so a change that breaks a reader breaks a test.
//!
//! What this crate deliberately lacks: any client, clock or randomness. It turns values into bytes and back.

mod batch_collected;
mod batch_dispatched;
mod batch_ready;
mod decode;
mod encode;
mod envelope;
mod event;
mod headers;
mod job_cancel_requested;
mod job_ended;
mod job_planned;
mod job_submitted;
mod json_path;
mod poison;
mod topic;
mod trace;

pub use batch_collected::BatchCollected;
pub use batch_dispatched::{BatchDispatched, Submission};
pub use batch_ready::BatchReady;
pub use decode::{Decoded, Mode, decode};
pub use encode::{Encoded, Error, encode};
pub use envelope::Envelope;
pub use event::{Event, Kind};
pub use job_cancel_requested::JobCancelRequested;
pub use job_ended::JobEnded;
pub use job_planned::{JobPlanned, PlanSummary};
pub use job_submitted::JobSubmitted;
pub use poison::Poison;
pub use topic::{InvalidPrefix, Place, Retention, Topic, TopicSettings, Topics};
pub use trace::{MAX_STATE_BYTES, SpanId, TraceContext, TraceId, TraceParent};

/// The most bytes of one message: key, headers and value together when it is written, the value alone when it is read
/// (others may have added headers on the way).
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

pub use model::spec::MAX_SPEC_BYTES;
