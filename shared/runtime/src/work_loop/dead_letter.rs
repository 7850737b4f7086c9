//! Dead letters: `dlq.<group>.<topic>` gets the record byte for byte, and headers that say why it is there.
//!
//! Only what can never be handled goes there: a record that can't be read, an event that the room refuses, one whose handler
//! panics again and again. The record is finished only after its letter is acknowledged, so nothing is lost between.

use std::time::Duration;

use bus::{Outgoing, Record, TopicSpec};
use bytes::Bytes;
use events::{TopicSettings, Topics};

use crate::context::Context;
use crate::dead_letters::ERROR_HEADERS;
use crate::metrics::BusOperation;

/// Why a record goes to the dead letters.
pub(super) struct Letter {
    pub(super) code: String,
    pub(super) message: String,
    /// How often its handler was tried.
    pub(super) attempts: u32,
}

/// Sends the letter, for as long as it takes.
pub(super) async fn send(context: &Context, group: &str, record: &Record, letter: &Letter) {
    let outgoing = outgoing(group, record, letter);
    let mut wait = Duration::from_millis(context.common.work_loop.retry_min_ms.max(1));
    loop {
        let error = match context.bus.send(outgoing.clone()).await {
            Ok(_) => return,
            Err(error) => error,
        };
        context.bus_metrics.record_error(BusOperation::Send, &error);
        tracing::error!(topic = outgoing.topic, %error, "a dead letter could not be sent; its record stays open");
        if matches!(error, bus::Error::UnknownTopic { .. }) {
            create(context, &outgoing.topic).await;
        }
        context.clock.sleep(context.clock.jitter(wait)).await;
        wait = (wait * 2).min(Duration::from_millis(context.common.work_loop.retry_max_ms.max(1)));
    }
}

fn outgoing(group: &str, record: &Record, letter: &Letter) -> Outgoing {
    let mut headers = record.headers.clone();
    let mut add = |name: &str, value: String| headers.push((format!("{ERROR_HEADERS}{name}"), Bytes::from(value)));
    add("topic", record.topic.clone());
    add("partition", record.partition.to_string());
    add("offset", record.offset.to_string());
    if let Some(timestamp) = record.timestamp_ms {
        add("timestamp", timestamp.to_string());
    }
    add("group", group.to_owned());
    add("attempts", letter.attempts.to_string());
    add("code", letter.code.clone());
    add("message", letter.message.clone());
    Outgoing {
        topic: Topics::dead_letters(group, &record.topic),
        key: record.key.clone(),
        headers,
        value: record.value.clone(),
        timestamp_ms: record.timestamp_ms,
    }
}

/// A cluster where nobody ran `topics apply` for this group.
async fn create(context: &Context, topic: &str) {
    let settings = TopicSettings::DEAD_LETTER;
    let spec = TopicSpec {
        name: topic.to_owned(),
        partitions: i32::try_from(settings.partitions).unwrap_or(1),
        replication: -1,
        config: settings.config().into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    };
    if let Err(error) = context.bus.create_topics(&[spec]).await {
        tracing::error!(topic, %error, "the dead-letter topic could not be created");
    }
}
