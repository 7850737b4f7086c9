//! The conformance suite on the mock cluster of the Kafka client library. `tests/live` runs it on a real broker.

#![allow(clippy::unwrap_used, reason = "its helpers are test code, too")]

use std::sync::Mutex;
use std::time::Duration;

use bus::{Assignment, Bus, Consumer, Delivery, Error, KafkaSettings, Outgoing, Polled, conformance};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

fn settings(brokers: &str, assignment: Assignment) -> KafkaSettings {
    KafkaSettings {
        brokers: brokers.to_owned(),
        assignment,
        session_timeout: Duration::from_secs(6),
        ..KafkaSettings::default()
    }
}

/// Runs the suite on a mock cluster. It can't create topics over the wire, so that case is left out, and the topics
/// are made by the mock itself. Its pointer may not leave its thread; so the mock serves requests from this one.
async fn on_a_mock_cluster(assignment: Assignment) {
    let (requests, mut wanted) = tokio::sync::mpsc::unbounded_channel::<(String, i32, std::sync::mpsc::Sender<()>)>();
    let (address, addresses) = std::sync::mpsc::channel();
    let mock = std::thread::spawn(move || {
        let mock = MockCluster::new(1).unwrap();
        address.send(mock.bootstrap_servers()).unwrap();
        while let Some((topic, partitions, done)) = wanted.blocking_recv() {
            mock.create_topic(&topic, partitions, 1).unwrap();
            done.send(()).unwrap();
        }
    });
    let bus = Bus::kafka(settings(&addresses.recv().unwrap(), assignment)).unwrap();
    let requests = Mutex::new(Some(requests));
    let fixture = conformance::Fixture::with_topics(bus, "mock", move |topic, partitions| {
        let (done, made) = std::sync::mpsc::channel();
        requests.lock().unwrap().as_ref().unwrap().send((topic.to_owned(), partitions, done)).unwrap();
        made.recv().unwrap();
    });
    conformance::all_but_topics(&fixture).await;
    drop(fixture);
    mock.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_its_promises_with_cooperative_assignment() {
    on_a_mock_cluster(Assignment::CooperativeSticky).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_its_promises_with_range_assignment() {
    on_a_mock_cluster(Assignment::Range).await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_unreachable_and_no_more() {
    // Port 1 takes no connections.
    let timeouts = KafkaSettings {
        request_timeout: Duration::from_millis(300),
        delivery_timeout: Duration::from_millis(300),
        ..settings("127.0.0.1:1", Assignment::default())
    };
    let bus = Bus::kafka(timeouts).unwrap();
    let sent = bus.send(Outgoing { topic: "jobs".to_owned(), ..Outgoing::default() }).await;
    for error in [bus.probe().await.unwrap_err(), bus.lag("group", "jobs").await.unwrap_err(), sent.unwrap_err()] {
        assert!(matches!(error, Error::Unreachable { .. }) && error.is_transient(), "{error:?}");
    }
    let consumer = bus.consumer("group", &["jobs".to_owned()]).unwrap();
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn a_missing_topic_is_named() {
    let mock = MockCluster::new(1).unwrap();
    let bus = Bus::kafka(settings(&mock.bootstrap_servers(), Assignment::default())).unwrap();
    let unknown = Error::UnknownTopic { topic: "missing".to_owned() };
    assert_eq!(bus.lag("group", "missing").await.unwrap_err(), unknown);
}

/// A look-up that fails at first must not lose the position, nor end the consumer.
#[tokio::test]
async fn a_broker_that_fails_look_ups_at_first_costs_nothing() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    let bus = Bus::kafka(settings(&mock.bootstrap_servers(), Assignment::default())).unwrap();
    for _ in 0..3 {
        bus.send(Outgoing { topic: "t".to_owned(), ..Outgoing::default() }).await.unwrap();
    }
    let mut consumer = bus.consumer("g", &["t".to_owned()]).unwrap();
    let deliveries = read(&mut consumer, 3).await;
    assert!(consumer.finish(&deliveries[1]));
    consumer.commit().await.unwrap();
    drop(consumer);

    // The client library itself tries again on passing errors; this one it hands to its caller.
    mock.request_errors(RDKafkaApiKey::OffsetFetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_GROUP_ID; 2]);
    let mut consumer = bus.consumer("g", &["t".to_owned()]).unwrap();
    let offsets: Vec<i64> = read(&mut consumer, 2).await.iter().map(Delivery::offset).collect();
    assert_eq!(offsets, [0, 2]);
}

fn impatient(mock: &MockCluster<'_, DefaultProducerContext>) -> Bus {
    let request_timeout = Duration::from_millis(500);
    Bus::kafka(KafkaSettings { request_timeout, ..settings(&mock.bootstrap_servers(), Assignment::default()) }).unwrap()
}

/// A broker that is down ends neither a send nor a consumer.
#[tokio::test]
async fn a_broker_that_goes_and_comes_back_loses_nothing() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    let bus = Bus::kafka(settings(&mock.bootstrap_servers(), Assignment::default())).unwrap();
    let out = Outgoing { topic: "t".to_owned(), ..Outgoing::default() };
    bus.send(out.clone()).await.unwrap();
    let mut consumer = bus.consumer("g", &["t".to_owned()]).unwrap();
    let first = read(&mut consumer, 1).await;
    assert!(consumer.finish(&first[0]));
    mock.broker_down(1).unwrap();
    let sent = tokio::spawn({
        let bus = bus.clone();
        async move { bus.send(out).await }
    });
    // It notices: the probe would answer at once otherwise.
    assert!(impatient(&mock).probe().await.unwrap_err().is_transient());
    mock.broker_up(1).unwrap();
    assert_eq!(sent.await.unwrap().unwrap().offset, 1);
    assert_eq!(read(&mut consumer, 1).await[0].offset(), 1);
    consumer.commit().await.unwrap();
    assert_eq!(bus.lag("g", "t").await.unwrap().exact, 1);
}

async fn read(consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        if let Polled::Record(_, delivery) = consumer.next().await.unwrap() {
            deliveries.push(delivery);
        }
    }
    deliveries
}
