use bytes::Bytes;

use super::*;

fn out(topic: &str, key: Option<&'static str>) -> Outgoing {
    Outgoing { topic: topic.to_owned(), key: key.map(Bytes::from), ..Outgoing::default() }
}

fn spec(name: &str, partitions: i32) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions, replication: -1, config: Vec::new() }
}

async fn take(consumer: &mut MemoryConsumer, count: usize) -> Vec<(i32, i64, Delivery)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        if let Polled::Record(record, delivery) = consumer.next().await.unwrap() {
            taken.push((record.partition, record.offset, delivery));
        }
    }
    taken
}

#[tokio::test]
async fn records_without_a_key_go_round() {
    let bus = MemoryBus::default();
    bus.create_topics(&[spec("t", 3)]).unwrap();
    let partitions: Vec<i32> = (0..5).map(|_| bus.append(out("t", None)).unwrap().partition).collect();
    assert_eq!(partitions, [0, 1, 2, 0, 1]);
}

#[tokio::test]
async fn partitions_take_turns() {
    let bus = MemoryBus::default();
    bus.create_topics(&[spec("t", 2)]).unwrap();
    for _ in 0..6 {
        bus.append(out("t", None)).unwrap();
    }
    let mut consumer = bus.consumer("g", &["t".to_owned()]);
    let order: Vec<i32> = take(&mut consumer, 6).await.into_iter().map(|(partition, ..)| partition).collect();
    assert_eq!(order, [0, 1, 0, 1, 0, 1]);
}

#[tokio::test]
async fn what_every_group_has_committed_is_dropped() {
    let bus = MemoryBus::default();
    bus.create_topics(&[spec("t", 1)]).unwrap();
    let mut first = bus.consumer("first", &["t".to_owned()]);
    let mut second = bus.consumer("second", &["t".to_owned()]);
    for _ in 0..10 {
        bus.append(out("t", Some("k"))).unwrap();
    }
    for (_, _, delivery) in take(&mut first, 10).await {
        first.finish(&delivery);
    }
    first.commit().await.unwrap();
    assert_eq!(bus.0.lock().kept("t"), 10, "the second group has not read them");
    for (_, offset, delivery) in take(&mut second, 10).await {
        if offset != 4 {
            second.finish(&delivery);
        }
    }
    second.commit().await.unwrap();
    assert_eq!(bus.0.lock().kept("t"), 6);
    drop(second);
    let mut second = bus.consumer("second", &["t".to_owned()]);
    let again = take(&mut second, 1).await;
    assert_eq!(again[0].1, 4);
    assert_eq!(bus.lag("second", "t"), Lag { exact: 1, raw: 6 });
}

#[tokio::test]
async fn a_topic_without_partitions_is_refused() {
    let bus = MemoryBus::default();
    assert!(matches!(bus.create_topics(&[spec("t", 0)]), Err(Error::Settings { .. })));
}

#[tokio::test]
async fn a_topic_that_nobody_created_has_four_partitions() {
    let bus = MemoryBus::default();
    let mut consumer = bus.consumer("g", &["t".to_owned()]);
    let all = (0..4).map(|number| ("t".to_owned(), number)).collect();
    assert_eq!(consumer.next().await.unwrap(), Polled::Assigned(all));
    assert_eq!(bus.create_topics(&[spec("t", 9)]).unwrap()[0].1, TopicOutcome::AlreadyExists);
}

#[tokio::test(start_paused = true)]
async fn a_busy_consumer_lets_other_tasks_run() {
    let bus = MemoryBus::default();
    let mut consumer = bus.consumer("g", &["t".to_owned()]);
    for _ in 0..10_000 {
        bus.append(out("t", None)).unwrap();
    }
    let reader = tokio::spawn(async move { take(&mut consumer, 10_000).await.len() });
    tokio::task::yield_now().await;
    assert!(!reader.is_finished(), "the reader gave way before it had read all");
    assert_eq!(reader.await.unwrap(), 10_000);
}

/// A line that lets everything through.
#[derive(Debug)]
struct Open;

impl line::Line for Open {
    fn send<'a>(&'a self, bus: MemoryBus, out: Outgoing) -> line::Passage<'a, Placed> {
        Box::pin(async move { bus.append(out) })
    }

    fn pass(&self, _: Call) -> line::Passage<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn a_zombie_finds_its_partitions_with_another_and_commits_nothing() {
    let bus = MemoryBus::default();
    bus.create_topics(&[spec("t", 1)]).unwrap();
    let (one, two) = (bus.with_line(Arc::new(Open)), bus.with_line(Arc::new(Open)));
    let mut zombie = one.consumer("g", &["t".to_owned()]);
    let mut other = two.consumer("g", &["t".to_owned()]);
    bus.append(out("t", Some("k"))).unwrap();
    let (_, _, delivery) = take(&mut zombie, 1).await.remove(0);
    one.end_session();
    let again = take(&mut other, 1).await.remove(0);
    assert_eq!((again.0, again.1), (0, 0), "the other gets the open record");
    assert!(!zombie.finish(&delivery));
    zombie.commit().await.unwrap();
    assert_eq!(bus.lag("g", "t"), Lag { exact: 1, raw: 1 });
    assert_eq!(zombie.next().await.unwrap(), Polled::Revoked(vec![("t".to_owned(), 0)]));
    drop(other);
    assert_eq!(zombie.next().await.unwrap(), Polled::Assigned(vec![("t".to_owned(), 0)]), "it is a member again");
    assert_eq!(take(&mut zombie, 1).await[0].1, 0);
}

#[tokio::test]
async fn topics_that_are_lost_have_no_records_and_go_on_behind_them() {
    let bus = MemoryBus::default();
    bus.create_topics(&[spec("t", 1)]).unwrap();
    let mut consumer = bus.consumer("g", &["t".to_owned()]);
    for _ in 0..3 {
        bus.append(out("t", Some("k"))).unwrap();
    }
    bus.lose_records();
    bus.append(out("t", Some("k"))).unwrap();
    assert_eq!(take(&mut consumer, 1).await[0].1, 3);
    assert_eq!(bus.lag("g", "t"), Lag { exact: 1, raw: 1 });
}
