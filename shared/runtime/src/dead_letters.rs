//! Dead letters, for an operator: which there are, what one says, and sending them back where they came from.
//!
//! **What was replayed is remembered** as the committed progress of a consumer group, `<group_prefix>dlq-replay`: records can't
//! be taken out of a topic, but the bus commits each finished record by itself, also behind unfinished ones. So a letter
//! is sent back once, whoever asks and however often, unless somebody says *again*. Who dies between the sending and the
//! commit sends it again, which every room takes for a redelivery.
//!
//! **Where a letter goes back to** is in its topic's name, `dlq.<group>.<topic>`, which the broker's access lists guard; its
//! headers could have been written by anyone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use bus::{Outgoing, Polled, Record};
use bytes::Bytes;
use jiff::Timestamp;
use model::JobId;

use crate::context::{Context, group};

/// What the names of the headers begin with that dead-lettering adds.
pub const ERROR_HEADERS: &str = "__batchmill.errors.";
/// The header of a record that was replayed: which letter it was.
pub const REPLAY_HEADER: &str = "__batchmill.replay";

/// Records that are read at a time.
const PAGE: usize = 100;
/// After so many sent letters there is a commit.
const COMMIT_AFTER: usize = 50;
/// So long nothing may come of what is wanted.
const PATIENCE: Duration = Duration::from_secs(60);

/// A topic of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterBox {
    /// Its name, `dlq.<group>.<topic>`.
    pub name: String,
    /// The consumer group that gave the records up.
    pub group: String,
    /// The topic that they were on.
    pub source: String,
    /// How many letters it holds.
    pub kept: u64,
    /// How many of them were not replayed yet.
    pub open: u64,
}

/// Where a letter lies: `topic/partition/offset`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic of dead letters.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no place of a dead letter: write TOPIC/PARTITION/OFFSET, as dlq ls shows it");
        let mut parts = text.split('/');
        let (Some(topic), Some(partition), Some(offset), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let (partition, offset) = (partition.parse().map_err(|_| wrong())?, offset.parse().map_err(|_| wrong())?);
        Ok(Self { topic: topic.to_owned(), partition, offset })
    }
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The record as it lies there.
    pub record: Record,
    /// Whether it was replayed.
    pub replayed: bool,
}

impl Letter {
    /// Where it lies.
    #[must_use]
    pub fn place(&self) -> Place {
        let Record { topic, partition, offset, .. } = &self.record;
        Place { topic: topic.clone(), partition: *partition, offset: *offset }
    }

    /// When the record was made.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.record.timestamp_ms?).ok()
    }

    /// What dead-lettering noted under this name: `code`, `message`, `attempts`, `topic`, … The last such header counts; one
    /// before it may have come with the record.
    #[must_use]
    pub fn noted(&self, name: &str) -> Option<String> {
        let full = format!("{ERROR_HEADERS}{name}");
        let (_, value) = self.record.headers.iter().rev().find(|(header, _)| *header == full)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// The job that the record's key names, if it names one.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        let key = std::str::from_utf8(self.record.key.as_deref()?).ok()?;
        key.split('/').next()?.parse().ok()
    }
}

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Letters that were sent back.
    pub sent: usize,
    /// Letters that were left alone, since they had been sent back before.
    pub before: usize,
}

/// The topics of dead letters that exist, in the order of their names.
///
/// # Errors
/// If the bus can't be used.
pub async fn boxes(context: &Context) -> anyhow::Result<Vec<LetterBox>> {
    let mut found = Vec::new();
    for name in context.bus.topics().await? {
        let Some((group, source)) = origin(context, &name) else { continue };
        let standing = context.bus.standing(&replay_group(context), &name).await?;
        let kept = standing.iter().map(|part| part.end.saturating_sub(part.low).max(0).unsigned_abs()).sum();
        let open = context.bus.lag(&replay_group(context), &name).await?.exact;
        found.push(LetterBox { name, group, source, kept, open });
    }
    Ok(found)
}

/// The newest letters of a topic, newest first, at most `most`.
///
/// # Errors
/// If the topic is none of dead letters, or the bus can't be used.
pub async fn newest(context: &Context, topic: &str, most: usize) -> anyhow::Result<Vec<Letter>> {
    known(context, topic)?;
    let span = i64::try_from(most).unwrap_or(i64::MAX);
    let mut letters = Vec::new();
    for part in context.bus.standing(&replay_group(context), topic).await? {
        let from = part.low.max(part.end.saturating_sub(span));
        for record in context.bus.read(topic, part.partition, from..part.end, most).await? {
            let replayed = part.is_finished(record.offset);
            letters.push(Letter { record, replayed });
        }
    }
    letters.sort_by_key(|letter| std::cmp::Reverse((letter.record.timestamp_ms, letter.record.offset)));
    letters.truncate(most);
    Ok(letters)
}

/// One letter; none if there is none at this place.
///
/// # Errors
/// If the topic is none of dead letters, or the bus can't be used.
pub async fn letter(context: &Context, place: &Place) -> anyhow::Result<Option<Letter>> {
    known(context, &place.topic)?;
    let standing = context.bus.standing(&replay_group(context), &place.topic).await?;
    let Some(part) = standing.iter().find(|part| part.partition == place.partition) else { return Ok(None) };
    let offsets = place.offset..place.offset.saturating_add(1).min(part.end);
    let read = context.bus.read(&place.topic, place.partition, offsets, 1).await?;
    let found = read.into_iter().find(|record| record.offset == place.offset);
    Ok(found.map(|record| Letter { replayed: part.is_finished(record.offset), record }))
}

/// Sends one letter back to the topic that it came from, unless that was done before.
///
/// # Errors
/// If there is none at this place, or the bus can't be used.
pub async fn replay_one(context: &Context, place: &Place, again: bool) -> anyhow::Result<Replayed> {
    let letter = letter(context, place).await?.with_context(|| format!("there is no dead letter at {place}"))?;
    if letter.replayed && !again {
        return Ok(Replayed { sent: 0, before: 1 });
    }
    if letter.replayed {
        send(context, &letter.record).await?;
        return Ok(Replayed { sent: 1, before: 0 });
    }
    replay(context, &place.topic, BTreeSet::from([(place.partition, place.offset)])).await
}

/// Sends all letters of a topic back that are there now and were not sent back before.
///
/// # Errors
/// If the topic is none of dead letters, or the bus can't be used: then some may have been sent back.
pub async fn replay_all(context: &Context, topic: &str) -> anyhow::Result<Replayed> {
    known(context, topic)?;
    let (mut wanted, mut before) = (BTreeSet::new(), 0);
    for part in context.bus.standing(&replay_group(context), topic).await? {
        let mut from = part.low;
        loop {
            let page = context.bus.read(topic, part.partition, from..part.end, PAGE).await?;
            let Some(last) = page.last() else { break };
            from = last.offset.saturating_add(1);
            for record in &page {
                if part.is_finished(record.offset) {
                    before += 1;
                } else {
                    wanted.insert((record.partition, record.offset));
                }
            }
        }
    }
    let done = replay(context, topic, wanted).await?;
    Ok(Replayed { sent: done.sent, before: done.before + before })
}

/// Takes these letters as a member of the replaying group, so that of two who replay at a time each letter has one.
async fn replay(context: &Context, topic: &str, mut wanted: BTreeSet<(i32, i64)>) -> anyhow::Result<Replayed> {
    let mut done = Replayed::default();
    if wanted.is_empty() {
        return Ok(done);
    }
    let group = replay_group(context);
    let mut consumer = context.bus.consumer(&group, &[topic.to_owned()])?;
    let outcome: anyhow::Result<()> = async {
        while !wanted.is_empty() {
            let polled = tokio::time::timeout(PATIENCE, consumer.next()).await.with_context(|| {
                format!("group {group} handed over nothing for {} s: is another replay under way?", PATIENCE.as_secs())
            })?;
            match polled? {
                Polled::Record(record, delivery) if wanted.remove(&(record.partition, record.offset)) => {
                    send(context, &record).await?;
                    consumer.finish(&delivery);
                    done.sent += 1;
                    if done.sent.is_multiple_of(COMMIT_AFTER) {
                        consumer.commit().await?;
                    }
                }
                Polled::Assigned(_) => {
                    // Another may have replayed some in between; those do not come any more.
                    let standing = context.bus.standing(&group, topic).await?;
                    let finished = |(partition, offset): &(i32, i64)| {
                        standing.iter().any(|part| part.partition == *partition && part.is_finished(*offset))
                    };
                    let before = wanted.len();
                    wanted.retain(|place| !finished(place));
                    done.before += before - wanted.len();
                }
                _ => {}
            }
        }
        Ok(())
    }
    .await;
    // What was sent is noted, whatever stopped the rest.
    let closed = consumer.close().await;
    outcome?;
    closed?;
    Ok(done)
}

async fn send(context: &Context, record: &Record) -> anyhow::Result<()> {
    let (_, source) = known(context, &record.topic)?;
    let outgoing = replayed(record, source);
    let topic = outgoing.topic.clone();
    context.bus.send(outgoing).await.with_context(|| format!("sending a dead letter back to {topic}"))?;
    Ok(())
}

/// The record as it was, byte for byte, with a header that says which letter it comes from. Its time is that of the replay:
/// with the old one the topic's retention might take it away at once.
fn replayed(record: &Record, source: String) -> Outgoing {
    let added = |name: &str| name.starts_with(ERROR_HEADERS) || name == REPLAY_HEADER;
    let mut headers: Vec<_> = record.headers.iter().filter(|(name, _)| !added(name)).cloned().collect();
    let place = format!("{}/{}/{}", record.topic, record.partition, record.offset);
    headers.push((REPLAY_HEADER.to_owned(), Bytes::from(place)));
    Outgoing { topic: source, key: record.key.clone(), headers, value: record.value.clone(), timestamp_ms: None }
}

/// The group whose progress says what was replayed.
fn replay_group(context: &Context) -> String {
    group(&context.common, "dlq-replay")
}

/// Group and topic of a topic of dead letters, from its name; none for another.
fn origin(context: &Context, name: &str) -> Option<(String, String)> {
    let (room, source) =
        name.strip_prefix("dlq.")?.strip_prefix(&context.common.kafka.group_prefix)?.split_once('.')?;
    context.topics.place(source)?;
    Some((group(&context.common, room), source.to_owned()))
}

fn known(context: &Context, name: &str) -> anyhow::Result<(String, String)> {
    origin(context, name).with_context(|| {
        format!("{name} is no topic of dead letters under these settings: `batchmill dlq ls` names them")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn header(name: &str, value: &'static str) -> (String, Bytes) {
        (name.to_owned(), Bytes::from_static(value.as_bytes()))
    }

    #[test]
    fn a_replayed_record_is_the_one_that_died_and_one_header() {
        let headers = vec![
            header("ce_id", "1"),
            header(REPLAY_HEADER, "of an earlier replay"),
            header("ce_id", "2"),
            header("__batchmill.errors.topic", "batchmill.jobs.v1"),
            header("__batchmill.errors.code", "not_json"),
        ];
        let record = Record {
            topic: "dlq.batchmill-splitter.batchmill.jobs.v1".to_owned(),
            partition: 2,
            offset: 7,
            timestamp_ms: Some(5),
            key: Some(Bytes::from_static(b"\xffkey")),
            headers,
            value: Some(Bytes::from_static(b"\x00\xff")),
        };
        let sent = replayed(&record, "batchmill.jobs.v1".to_owned());
        let place = "dlq.batchmill-splitter.batchmill.jobs.v1/2/7";
        assert_eq!(sent.headers, [header("ce_id", "1"), header("ce_id", "2"), header(REPLAY_HEADER, place)]);
        assert_eq!((&sent.key, &sent.value, sent.timestamp_ms), (&record.key, &record.value, None));
        let letter = Letter { record, replayed: false };
        assert_eq!((letter.noted("code").as_deref(), letter.place().to_string().as_str()), (Some("not_json"), place));
        assert_eq!(place.parse(), Ok(letter.place()));
        assert_eq!(letter.job(), None, "a key that is no text names no job");
    }

    #[tokio::test]
    async fn only_topics_of_dead_letters_are_taken_for_them() {
        let context = Context::in_memory(1, Settings::default()).unwrap();
        let of = |name: &str| origin(&context, name).map(|(group, source)| format!("{group} {source}"));
        assert_eq!(of("dlq.batchmill-poller.batchmill.jobs.a.v1").unwrap(), "batchmill-poller batchmill.jobs.a.v1");
        for other in ["batchmill.jobs.v1", "dlq.other-poller.batchmill.jobs.v1", "dlq.batchmill-poller.else.v1", "dlq."]
        {
            assert_eq!(of(other), None, "{other}");
        }
        for wrong in ["dlq.x", "a/b/c", "a/1/2/3", "a/1/"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
