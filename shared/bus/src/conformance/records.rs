//! Sending and reading: order, partitions, content, topics.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Fixture, spec, text, within};
use crate::{Error, Outgoing, TopicOutcome, murmur2};

/// Records of one key come in the order in which they were sent, from one partition.
pub async fn records_of_a_key_keep_their_order(fixture: &Fixture) {
    let topic = fixture.topic("order", 4).await;
    for number in 0..100 {
        fixture.send(&topic, Some(&format!("key-{}", number % 7)), &number.to_string()).await;
    }
    let mut member = fixture.join(&fixture.group("order"), &[&topic]);
    let mut seen: BTreeMap<Bytes, Vec<(i32, i64, i32)>> = BTreeMap::new();
    for (record, _) in member.records(100).await {
        let number = text(&record).parse().unwrap();
        seen.entry(record.key.unwrap()).or_default().push((record.partition, record.offset, number));
    }
    assert_eq!(seen.values().map(Vec::len).sum::<usize>(), 100);
    for (key, records) in seen {
        for pair in records.windows(2) {
            assert_eq!(pair[0].0, pair[1].0, "{key:?} lies in one partition");
            assert!(pair[0].1 < pair[1].1 && pair[0].2 + 7 == pair[1].2, "{key:?} out of order: {pair:?}");
        }
    }
}

/// A key's partition is the one of Kafka's Java client.
pub async fn a_key_lies_where_java_puts_it(fixture: &Fixture) {
    let topic = fixture.topic("keys", 7).await;
    for key in ["21", "foobar", "a-little-bit-long-string", "spring-catalog/00000007", "ä"] {
        let placed = fixture.send(&topic, Some(key), "").await;
        assert_eq!(placed.partition, murmur2::partition_of(key.as_bytes(), 7), "{key}");
    }
}

/// Key, headers, time and body come back as sent; absent and empty are kept apart.
pub async fn a_record_comes_back_as_it_was_sent(fixture: &Fixture) {
    let topic = fixture.topic("content", 1).await;
    let header = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
    let sent = [
        Outgoing {
            topic: topic.clone(),
            key: Some(Bytes::from_static(b"key")),
            headers: vec![header("a", b"1"), header("b", b"\x00\xff"), header("a", b"2"), header("empty", b"")],
            value: Some(Bytes::from_static(b"\x00\xffbody")),
            timestamp_ms: Some(1_700_000_000_123),
        },
        Outgoing { topic: topic.clone(), key: Some(Bytes::from_static(b"tombstone")), ..Outgoing::default() },
        Outgoing { topic: topic.clone(), value: Some(Bytes::from_static(b"no key")), ..Outgoing::default() },
        Outgoing { topic: topic.clone(), value: Some(Bytes::new()), ..Outgoing::default() },
    ];
    for (offset, out) in sent.iter().enumerate() {
        let placed = within("an acknowledgement", fixture.bus().send(out.clone())).await.unwrap();
        assert_eq!((placed.partition, placed.offset), (0, offset as i64));
    }
    let mut member = fixture.join(&fixture.group("content"), &[&topic]);
    for ((record, delivery), out) in member.records(sent.len()).await.iter().zip(&sent) {
        assert_eq!((&record.topic, &record.key, &record.value), (&out.topic, &out.key, &out.value));
        assert_eq!(record.headers, out.headers);
        if out.timestamp_ms.is_some() {
            assert_eq!(record.timestamp_ms, out.timestamp_ms);
        }
        assert_eq!(
            (delivery.topic(), delivery.partition(), delivery.offset()),
            (record.topic.as_str(), record.partition, record.offset)
        );
    }
}

/// A record over the limit is refused for what it is, and the bus goes on.
pub async fn a_record_too_large_is_refused(fixture: &Fixture) {
    let topic = fixture.topic("large", 1).await;
    let value = Some(Bytes::from(vec![7; 1_500_000]));
    let refused =
        within("a refusal", fixture.bus().send(Outgoing { topic: topic.clone(), value, ..Outgoing::default() }));
    match refused.await {
        Err(error @ Error::TooLarge { .. }) => assert!(!error.is_transient()),
        other => panic!("a record of 1.5 MB: {other:?}"),
    }
    assert_eq!(fixture.send(&topic, None, "small").await.offset, 0);
}

/// Creating a topic that exists changes nothing and says so.
pub async fn topics_are_created_once(fixture: &Fixture) {
    let (first, second) = (fixture.topic_name("once"), fixture.topic_name("twice"));
    let created = within("a topic", fixture.bus().create_topics(&[spec(&first, 3)])).await.unwrap();
    assert_eq!(created, [(first.clone(), TopicOutcome::Created)]);
    let again = within("topics", fixture.bus().create_topics(&[spec(&first, 5), spec(&second, 1)])).await.unwrap();
    assert_eq!(again, [(first.clone(), TopicOutcome::AlreadyExists), (second, TopicOutcome::Created)]);
    let mut member = fixture.join(&fixture.group("once"), &[&first]);
    member.own(3).await;
    assert!(within("no topics", fixture.bus().create_topics(&[])).await.unwrap().is_empty());
}

/// Records are read by their place, again and again, and no group's progress changes by it; which records a group has
/// finished can be seen from outside.
pub async fn a_topic_is_read_outside_any_group(fixture: &Fixture) {
    let (topic, group) = (fixture.topic("read", 2).await, fixture.group("read"));
    assert!(within("the topics", fixture.bus().topics()).await.unwrap().contains(&topic));
    let mut placed = Vec::new();
    for number in 0..8 {
        placed.push(fixture.send(&topic, Some(&format!("key-{number}")), &number.to_string()).await);
    }
    let standing = within("the standing", fixture.bus().standing(&group, &topic)).await.unwrap();
    assert_eq!(standing.iter().map(|standing| standing.partition).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(standing.iter().map(|standing| standing.end - standing.low).sum::<i64>(), 8);
    for (number, place) in placed.iter().enumerate() {
        let offsets = place.offset..place.offset + 1;
        for _ in 0..2 {
            let read =
                within("a record", fixture.bus().read(&topic, place.partition, offsets.clone(), 9)).await.unwrap();
            assert_eq!(read.len(), 1);
            assert_eq!(
                (text(&read[0]), read[0].offset, read[0].partition),
                (number.to_string(), place.offset, place.partition)
            );
        }
    }
    let mut seen = 0;
    for part in &standing {
        let all = within("records", fixture.bus().read(&topic, part.partition, 0..i64::MAX, 100)).await.unwrap();
        let some = within("records", fixture.bus().read(&topic, part.partition, 0..i64::MAX, 2)).await.unwrap();
        let none =
            within("no records", fixture.bus().read(&topic, part.partition, part.end..i64::MAX, 100)).await.unwrap();
        assert_eq!((some.as_slice(), none.len()), (&all[..all.len().min(2)], 0));
        seen += all.len();
    }
    assert_eq!(seen, 8);

    let mut member = fixture.join(&group, &[&topic]);
    let records = member.records(8).await;
    let odd = |record: &crate::Record| text(record).parse::<i32>().unwrap() % 2 == 1;
    for (_, delivery) in records.iter().filter(|(record, _)| odd(record)) {
        assert!(member.consumer.finish(delivery));
    }
    member.commit().await;
    let standing = within("the standing", fixture.bus().standing(&group, &topic)).await.unwrap();
    for (record, _) in &records {
        let part = standing.iter().find(|part| part.partition == record.partition).unwrap();
        assert_eq!(part.is_finished(record.offset), odd(record), "{record:?}");
    }
}
