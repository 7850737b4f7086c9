//! Live tests: the suites that define the bus and the store, on a real Kafka broker and a real S3 server. `tests/run` starts
//! both and names them in the environment; without them these tests fail rather than pass.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of tests are tests, too

use std::time::Duration;

use bus::{Assignment, Bus, KafkaSettings, conformance};
use model::{Nonce, OutputClaim};
use runtime::settings::{LocationRules, Secret, StoreSettings};
use runtime::{Clock, Locations, PutOnce, ReadError, Store, probe};

fn named(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run these by tests/run"))
}

fn store_settings(prefix: &str) -> StoreSettings {
    StoreSettings {
        uri: format!("s3://{}/{prefix}", named("BATCHMILL_TEST_S3_BUCKET")),
        endpoint: Some(named("BATCHMILL_TEST_S3_ENDPOINT")),
        allow_http: true,
        region: Some("us-east-1".to_owned()),
        access_key_id: Some(Secret::from(named("AWS_ACCESS_KEY_ID"))),
        secret_access_key: Some(Secret::from(named("AWS_SECRET_ACCESS_KEY"))),
        ..StoreSettings::default()
    }
}

async fn a_real_broker_keeps_the_buses_promises(assignment: Assignment) {
    let suffix = format!("{assignment:?}-{}", std::process::id()).to_lowercase();
    let settings = KafkaSettings {
        brokers: named("BATCHMILL_TEST_KAFKA"),
        assignment,
        session_timeout: Duration::from_secs(6),
        ..KafkaSettings::default()
    };
    conformance::all(Bus::kafka(settings).unwrap(), &suffix).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_broker_keeps_the_buses_promises_with_cooperative_assignment() {
    a_real_broker_keeps_the_buses_promises(Assignment::CooperativeSticky).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_broker_keeps_the_buses_promises_with_range_assignment() {
    a_real_broker_keeps_the_buses_promises(Assignment::Range).await;
}

#[tokio::test]
async fn a_real_s3_server_passes_the_boot_probe() {
    let store = Store::open(&store_settings("probe-test")).unwrap();
    probe::probe(&store, &Clock::system()).await.unwrap();
    assert!(store.list("probe/").await.unwrap().is_empty(), "the probe cleans up");
}

#[tokio::test]
async fn of_two_writers_of_a_fact_on_a_real_s3_server_one_wins_and_both_know_who() {
    let store = Store::open(&store_settings("put-once")).unwrap();
    let claim = |n: u64| OutputClaim {
        schema: 1,
        nonce: Nonce::from_bits(n),
        job: format!("job-{n}").parse().unwrap(),
        uri: "s3://b/k".to_owned(),
    };
    for round in 0..10 {
        let key = format!("outputs/{round}");
        let (ours, theirs) = (claim(1), claim(2));
        let (a, b) = tokio::join!(store.put_once(&key, &ours), store.put_once(&key, &theirs));
        let winner: OutputClaim = store.get_json(&key).await.unwrap().unwrap();
        for (mine, outcome) in [(&ours, a.unwrap()), (&theirs, b.unwrap())] {
            match outcome {
                PutOnce::Won => assert_eq!(*mine, winner),
                PutOnce::Lost(other) => assert_eq!(other, winner),
            }
        }
    }
}

#[tokio::test]
async fn a_large_object_goes_up_in_parts_and_comes_back_and_an_overwritten_input_is_noticed() {
    let settings = store_settings("locations");
    let uri = format!("{}/large.bin", settings.uri);
    let rules = LocationRules { allow: vec![format!("{}/", settings.uri)], ..LocationRules::default() };
    let locations = Locations::new(rules, StoreSettings { uri: format!("{}-store", settings.uri), ..settings });
    let location = locations.resolve(&uri, &model::Team::shared()).unwrap();
    let content: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut writer = location.writer();
    for piece in content.chunks(1 << 20) {
        writer.write(piece.to_vec()).await.unwrap();
    }
    let written = writer.finish().await.unwrap();
    assert_eq!(written.checksum, model::digest::Checksum::of(&content));
    let pinned = location.head().await.unwrap().unwrap();
    assert_eq!(pinned.bytes, content.len() as u64);
    let ranges = [0..10, 9_999_990..10_000_010, pinned.bytes - 5..pinned.bytes];
    let pieces = location.read(&ranges, &pinned.etag).await.unwrap();
    for (range, piece) in ranges.iter().zip(pieces) {
        assert_eq!(piece, &content[range.start as usize..range.end as usize]);
    }
    let mut writer = location.writer();
    writer.write(b"another".to_vec()).await.unwrap();
    writer.finish().await.unwrap();
    let late = location.read(std::slice::from_ref(&(0..5)), &pinned.etag).await;
    assert!(matches!(late, Err(ReadError::Changed { .. })), "{late:?}");
}
