//! Dead letters over the memory bus: what is listed, and what a replay sends back.

use std::sync::Arc;
use std::time::Duration;

use bus::{Outgoing, Polled, Record};
use bytes::Bytes;
use events::{Topic, Topics};
use runtime::dead_letters::{self, ERROR_HEADERS, Place, REPLAY_HEADER, Replayed};
use runtime::settings::Settings;
use runtime::{Context, Outbox, Received, Room, Verdict};

/// A room that wants nothing: each of its records is poison.
struct Nobody;

#[async_trait::async_trait]
impl Room for Nobody {
    fn name(&self) -> &'static str {
        "splitter"
    }

    fn topics(&self) -> Vec<Topic> {
        vec![Topic::Jobs]
    }

    async fn handle(&self, _: &Received, _: &Outbox) -> anyhow::Result<Verdict> {
        panic!("nothing that was sent can be read")
    }
}

fn header(name: &str, value: &'static [u8]) -> (String, Bytes) {
    (name.to_owned(), Bytes::from_static(value))
}

/// A context in which so many records have died; and what they were.
async fn graveyard(count: usize) -> (Context, Vec<Outgoing>, String) {
    let context = Context::in_memory(1, Settings::default()).unwrap();
    let source = context.topics.name(Topic::Jobs);
    let letters = Topics::dead_letters(&context.group("splitter"), &source);
    let running = tokio::spawn(runtime::run_rooms(context.clone(), vec![Arc::new(Nobody)]));
    let sent: Vec<Outgoing> = (0..count)
        .map(|n| Outgoing {
            topic: source.clone(),
            key: Some(Bytes::from(format!("job-{n}"))),
            headers: vec![header("x", b"\x00\xff"), header("x", b""), header("trace", b"1")],
            value: Some(Bytes::from(format!("\u{0}not json {n}"))),
            timestamp_ms: Some(1_700_000_000_000 + i64::try_from(n).unwrap()),
        })
        .collect();
    for out in &sent {
        context.bus.send(out.clone()).await.unwrap();
    }
    while dead_letters::boxes(&context).await.unwrap().iter().map(|found| found.kept).sum::<u64>() < count as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    context.shutdown.cancel();
    running.await.unwrap().unwrap();
    (context, sent, letters)
}

/// All that comes on the topic the letters came from.
async fn come(context: &Context) -> Vec<Record> {
    let source = context.topics.name(Topic::Jobs);
    let mut consumer = context.bus.consumer(&context.group("splitter"), &[source]).unwrap();
    let mut records = Vec::new();
    while let Ok(polled) = tokio::time::timeout(Duration::from_secs(5), consumer.next()).await {
        if let Polled::Record(record, delivery) = polled.unwrap() {
            consumer.finish(&delivery);
            records.push(record);
        }
    }
    consumer.close().await.unwrap();
    records.sort_by(|a, b| a.key.cmp(&b.key));
    records
}

#[tokio::test(start_paused = true)]
async fn letters_are_listed_newest_first_with_reason_and_job() {
    let (context, _, topic) = graveyard(9).await;
    let boxes = dead_letters::boxes(&context).await.unwrap();
    let found = boxes.iter().find(|found| found.name == topic).unwrap();
    assert_eq!((found.kept, found.open, found.source.as_str()), (9, 9, "batchmill.jobs.v1"));
    let newest = dead_letters::newest(&context, &topic, 4).await.unwrap();
    let jobs: Vec<String> = newest.iter().map(|letter| letter.job().unwrap().to_string()).collect();
    assert_eq!(jobs, ["job-8", "job-7", "job-6", "job-5"]);
    assert_eq!(newest[0].noted("code").as_deref(), Some("not_json"));
    assert!(newest.iter().all(|letter| !letter.replayed));
    let one = dead_letters::letter(&context, &newest[1].place()).await.unwrap().unwrap();
    assert_eq!(one, newest[1]);
    let nowhere = Place { offset: 1_000, ..newest[1].place() };
    assert_eq!(dead_letters::letter(&context, &nowhere).await.unwrap(), None);
    assert!(dead_letters::newest(&context, "batchmill.jobs.v1", 4).await.is_err(), "no topic of dead letters");
}

#[tokio::test(start_paused = true)]
async fn a_replay_sends_each_letter_back_once_and_byte_for_byte() {
    let (context, sent, topic) = graveyard(9).await;
    let one = dead_letters::newest(&context, &topic, 9).await.unwrap()[3].place();
    let once = Replayed { sent: 1, before: 0 };
    assert_eq!(dead_letters::replay_one(&context, &one, false).await.unwrap(), once);
    let first = come(&context).await;
    assert_eq!((first.len(), first[0].key.as_deref()), (1, Some(&b"job-5"[..])));

    assert_eq!(dead_letters::replay_all(&context, &topic).await.unwrap().sent, 8, "all but the one");
    assert_eq!(dead_letters::replay_all(&context, &topic).await.unwrap().sent, 0, "and then none");
    let mut all = come(&context).await;
    all.extend(first);
    all.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(all.len(), sent.len());
    for (record, out) in all.iter().zip(&sent) {
        assert_eq!((&record.key, &record.value), (&out.key, &out.value));
        let (mark, rest) = record.headers.split_last().unwrap();
        assert_eq!(rest, out.headers);
        assert!(mark.0 == REPLAY_HEADER && mark.1.starts_with(topic.as_bytes()), "{mark:?}");
        assert!(!record.headers.iter().any(|(name, _)| name.starts_with(ERROR_HEADERS)));
    }
}

#[tokio::test(start_paused = true)]
async fn two_who_replay_at_a_time_send_each_letter_once() {
    let (context, sent, topic) = graveyard(30).await;
    let (a, b) = tokio::join!(dead_letters::replay_all(&context, &topic), dead_letters::replay_all(&context, &topic));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.sent + b.sent, sent.len(), "{a:?} {b:?}");
    assert_eq!(come(&context).await.len(), sent.len());
}
