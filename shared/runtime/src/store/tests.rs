use std::future::Future;

use model::digest::Checksum;
use model::{BatchId, CancelFact, DataRef, Nonce, OutputClaim};
use proptest::prelude::*;

use super::lying::{Fate, Lying};
use super::*;
use crate::scratch::Scratch;

fn claim(bits: u64, job: &str) -> OutputClaim {
    OutputClaim {
        schema: 1,
        nonce: Nonce::from_bits(bits),
        job: job.parse().unwrap(),
        uri: "s3://b/out.csv".to_owned(),
    }
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Honest),
        Just(Fate::LandedThenExists),
        Just(Fate::TimeOutLanded),
        Just(Fate::TimeOutNotLanded),
        Just(Fate::Conflict),
        Just(Fate::Busy),
        Just(Fate::LandedUnreadable),
        Just(Fate::LandsLate),
    ]
}

proptest! {
    #[test]
    fn of_two_writers_one_wins_and_both_learn_the_truth(fates in prop::collection::vec(any_fate(), 0..12)) {
        let store = Store::new(Lying::new(fates), "p");
        let (ours, theirs) = (claim(1, "ours"), claim(2, "theirs"));
        let (one, two) = paused(async { tokio::join!(store.put_once("k", &ours), store.put_once("k", &theirs)) });
        let there: OutputClaim = paused(store.get_json("k")).unwrap().unwrap();
        let expected = |mine: &OutputClaim| if *mine == there { PutOnce::Won } else { PutOnce::Lost(there.clone()) };
        prop_assert_eq!(one.unwrap(), expected(&ours));
        prop_assert_eq!(two.unwrap(), expected(&theirs));
    }

    #[test]
    fn two_writers_that_say_the_same_have_both_won(fates in prop::collection::vec(any_fate(), 0..12)) {
        let store = Store::new(Lying::new(fates), "");
        let (ours, theirs) = (claim(1, "job"), claim(2, "job"));
        let (one, two) = paused(async { tokio::join!(store.put_once("k", &ours), store.put_once("k", &theirs)) });
        prop_assert_eq!((one.unwrap(), two.unwrap()), (PutOnce::Won, PutOnce::Won));
    }

    #[test]
    fn a_writer_is_the_same_before_and_after_its_crash_by_what_it_says(fates in prop::collection::vec(any_fate(), 0..6)) {
        let store = Store::new(Lying::new(fates), "");
        let first = paused(store.put_once("k", &claim(1, "job"))).unwrap();
        let again = paused(store.put_once("k", &claim(3, "job"))).unwrap();
        let other = paused(store.put_once("k", &claim(4, "other"))).unwrap();
        prop_assert_eq!((first, again), (PutOnce::Won, PutOnce::Won));
        prop_assert!(matches!(other, PutOnce::Lost(found) if found.job.as_str() == "job"));
    }

    #[test]
    fn an_upload_has_every_byte_whatever_the_chunks(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
        let all = chunks.concat();
        let (written, read) = paused(async {
            let store = Store::in_memory().with_part_bytes(32);
            let mut writer = store.upload("data");
            for chunk in chunks {
                writer.write(chunk).await.unwrap();
            }
            assert!(!store.exists("data").await.unwrap());
            (writer.finish().await.unwrap(), store.get_bytes("data").await.unwrap().unwrap())
        });
        prop_assert_eq!(&read[..], &all[..]);
        prop_assert_eq!(written, Written { bytes: all.len() as u64, checksum: Checksum::of(&all) });
    }
}

#[test]
fn a_store_that_stays_silent_is_an_error_after_a_minute() {
    let store = Store::new(Lying::new(vec![Fate::Busy; 1_000]), "");
    let error = paused(store.put_once("k", &claim(1, "job"))).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("503"), "{error}");
}

#[tokio::test]
async fn a_key_with_something_else_in_it_is_corrupt() {
    let store = Store::in_memory();
    let mut writer = store.upload("k");
    writer.write(b"not json".to_vec()).await.unwrap();
    writer.finish().await.unwrap();
    assert!(matches!(store.put_once("k", &claim(1, "job")).await, Err(Error::Corrupt { .. })));
    assert!(matches!(store.get_json::<CancelFact>("k").await, Err(Error::Corrupt { .. })));
}

async fn both_kinds(check: impl AsyncFn(Store)) {
    check(Store::in_memory()).await;
    check(Store::new(Arc::new(InMemory::new()), "/some/prefix/")).await;
    let dir = tempfile::tempdir().unwrap();
    check(Store::local(&dir.path().join("made/for/it")).unwrap()).await;
}

#[tokio::test]
async fn objects_are_listed_by_prefix_read_by_range_and_removed_twice() {
    both_kinds(async |store| {
        for key in ["a/1-x", "a/1-y", "a/2", "ab/3", "b"] {
            let mut writer = store.upload(key);
            writer.write(key.as_bytes().to_vec()).await.unwrap();
            writer.finish().await.unwrap();
        }
        let keys =
            async |prefix: &str| store.list(prefix).await.unwrap().into_iter().map(|o| o.key).collect::<Vec<_>>();
        assert_eq!(keys("").await, ["a/1-x", "a/1-y", "a/2", "ab/3", "b"]);
        assert_eq!(keys("a/").await, ["a/1-x", "a/1-y", "a/2"]);
        assert_eq!(keys("a/1-").await, ["a/1-x", "a/1-y"]);
        assert_eq!(keys("nothing/").await, [""; 0]);
        let after = async |folder: &str, after: &str| {
            store.list_after(folder, after).await.unwrap().into_iter().map(|o| o.key).collect::<Vec<_>>()
        };
        assert_eq!(after("a/", "a/1").await, ["a/1-x", "a/1-y", "a/2"]);
        assert_eq!(after("a/", "a/1-x").await, ["a/1-y", "a/2"]);
        assert_eq!(after("a/", "a/3").await, [""; 0]);
        assert_eq!(after("nothing/", "nothing/3").await, [""; 0]);
        assert_eq!(store.list("a/2").await.unwrap()[0].bytes, 3);
        assert_eq!(&store.get_range("a/1-x", 2..5).await.unwrap()[..], b"1-x");
        assert!(matches!(store.get_range("a/9", 0..1).await, Err(Error::Missing { .. })));
        assert_eq!(store.get_bytes("a/9").await.unwrap(), None);
        store.delete("a/1-x").await.unwrap();
        store.delete("a/1-x").await.unwrap();
        assert_eq!(keys("a/").await, ["a/1-y", "a/2"]);
    })
    .await;
}

#[tokio::test]
async fn a_put_once_on_each_backend_tells_who_won() {
    both_kinds(async |store| {
        let (ours, theirs) = (claim(1, "ours"), claim(2, "theirs"));
        assert_eq!(store.put_once("outputs/x/1", &ours).await.unwrap(), PutOnce::Won);
        assert_eq!(store.put_once("outputs/x/1", &theirs).await.unwrap(), PutOnce::Lost(ours.clone()));
        assert_eq!(store.put_once("outputs/x/1", &ours).await.unwrap(), PutOnce::Won);
        assert!(matches!(store.put_once("../x", &ours).await, Err(Error::InvalidKey { .. })));
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_is_given_up_or_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap().with_part_bytes(16);
    let mut aborted = store.upload("a");
    aborted.write(vec![1; 100]).await.unwrap();
    assert_eq!(aborted.bytes(), 100);
    aborted.abort().await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let mut dropped = store.upload("b");
    dropped.write(vec![1; 100]).await.unwrap();
    drop(dropped);
    assert!(!store.exists("b").await.unwrap());
    let mut invalid = store.upload("../c");
    assert!(matches!(invalid.write(vec![1]).await, Err(Error::InvalidKey { .. })));
}

async fn data(store: &Store, key: &str, bytes: &[u8]) -> DataRef {
    let mut writer = store.upload(key);
    writer.write(bytes.to_vec()).await.unwrap();
    let written = writer.finish().await.unwrap();
    DataRef { key: key.to_owned(), checksum: written.checksum, bytes: written.bytes, rows: 1 }
}

#[tokio::test]
async fn a_fetched_object_is_the_one_that_its_fact_names() {
    let store = Store::in_memory();
    let scratch = Scratch::new(None, 1_000).unwrap();
    let good = data(&store, "d", b"some rows").await;
    let file = store.fetch_verified(&good, &scratch).await.unwrap();
    assert_eq!(std::io::read_to_string(file.file()).unwrap(), "some rows");
    drop(file);
    data(&store, "d", b"some rowz").await;
    let error = store.fetch_verified(&good, &scratch).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { reason, .. } if reason.contains("checksum")), "{error}");
    data(&store, "d", b"some row").await;
    assert!(matches!(store.fetch_verified(&good, &scratch).await, Err(Error::Corrupt { .. })));
    let missing = DataRef { key: "e".to_owned(), ..good.clone() };
    assert!(matches!(store.fetch_verified(&missing, &scratch).await, Err(Error::Missing { .. })));
    let large = DataRef { bytes: 2_000, ..good };
    assert!(matches!(store.fetch_verified(&large, &scratch).await, Err(Error::ScratchFull { bytes: 2_000, .. })));
    assert_eq!(scratch.used(), 0);
}

#[tokio::test]
async fn an_object_of_a_local_folder_is_used_where_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let (store, scratch) = (Store::local(dir.path()).unwrap(), Scratch::new(None, 0).unwrap());
    let good = data(&store, "d/e", b"some rows").await;
    let file = store.fetch_verified(&good, &scratch).await.unwrap();
    store.delete("d/e").await.unwrap();
    assert_eq!(std::io::read_to_string(file.file()).unwrap(), "some rows", "it stays for who has it open");
    assert!(matches!(store.fetch_verified(&good, &scratch).await, Err(Error::Missing { .. })));
    for wrong in ["some rowz", "some row", "some rows!"] {
        data(&store, "d/e", wrong.as_bytes()).await;
        let error = store.fetch_verified(&good, &scratch).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn an_object_that_is_read_once_is_checked_as_it_passes() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), Scratch::new(None, 1_000).unwrap());
    for store in [Store::local(dir.path()).unwrap(), Store::in_memory()] {
        let good = data(&store, "d/e", b"0123456789").await;
        for reads in [vec![], vec![0..4, 4..10], vec![2..4, 4..5, 8..9], vec![3..3, 9..10]] {
            let mut passing = store.open_data(&good, &scratch).await.unwrap();
            assert_eq!((passing.bytes().unwrap(), passing.look(8..10).unwrap()), (10, b"89".to_vec()));
            for range in reads {
                let bytes = passing.pass(range.clone()).unwrap();
                assert_eq!(bytes, b"0123456789"[range.start as usize..range.end as usize]);
            }
            passing.check().unwrap();
        }
        assert!(store.open_data(&good, &scratch).await.unwrap().pass(9..11).is_err());
        let missing = DataRef { key: "d/f".to_owned(), ..good.clone() };
        assert!(matches!(store.open_data(&missing, &scratch).await, Err(Error::Missing { .. })));
        data(&store, "d/e", b"0123456780").await;
        let opened = store.open_data(&good, &scratch).await;
        let checked = opened.and_then(|mut passing| {
            passing.pass(2..4).unwrap();
            passing.check()
        });
        assert!(matches!(&checked, Err(Error::Corrupt { reason, .. }) if reason.contains("checksum")), "{checked:?}");
        data(&store, "d/e", b"012345678").await;
        assert!(matches!(store.open_data(&good, &scratch).await, Err(Error::Corrupt { .. })));
    }
}

#[tokio::test]
async fn what_passes_of_an_object_in_a_local_folder_never_lies_before_what_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, scratch) = (Store::local(dir.path()).unwrap(), Scratch::new(None, 0).unwrap());
    let good = data(&store, "d", &[7; 1_000_000]).await;
    let mut passing = store.open_data(&good, &scratch).await.unwrap();
    assert_eq!(passing.pass(100_000..900_000).unwrap(), [7; 800_000]);
    assert!(passing.pass(0..4).is_err());
    passing.check().unwrap();
}

#[tokio::test]
async fn a_large_object_comes_in_parts_and_is_checked_as_a_whole() {
    let (store, scratch) = (Store::in_memory().with_part_bytes(16), Scratch::new(None, 1_000).unwrap());
    for size in [0, 15, 16, 17, 32, 100, 113] {
        let bytes: Vec<u8> = (0..size).collect();
        let good = data(&store, "d", &bytes).await;
        let file = store.fetch_verified(&good, &scratch).await.unwrap();
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut file.file(), &mut read).unwrap();
        assert_eq!(read, bytes);
    }
    let good = data(&store, "d", &[7; 100]).await;
    for wrong in [vec![7; 99], vec![7; 101], vec![7; 200], [vec![7; 99], vec![8]].concat()] {
        data(&store, "d", &wrong).await;
        let error = store.fetch_verified(&good, &scratch).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{}: {error}", wrong.len());
    }
    let missing = DataRef { key: "e".to_owned(), ..good };
    assert!(matches!(store.fetch_verified(&missing, &scratch).await, Err(Error::Missing { .. })));
    assert_eq!(scratch.used(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_fetched_ahead_comes_in_the_order_asked_for_or_not_at_all() {
    let (store, scratch) = (Store::in_memory(), Scratch::new(None, 1_000).unwrap());
    let (one, two) = (data(&store, "1", b"one").await, data(&store, "2", b"two").await);
    let files = store.fetch_ahead(vec![two.clone(), one.clone()], &scratch).unwrap().files().await.unwrap();
    let texts: Vec<String> = files.iter().map(|file| std::io::read_to_string(file.file()).unwrap()).collect();
    assert_eq!(texts, ["two", "one"]);
    let large = DataRef { bytes: 2_000, ..one };
    assert!(store.fetch_ahead(vec![two, large], &scratch).unwrap().files().await.is_none());
}

#[test]
fn a_wrong_store_setting_names_itself() {
    for uri in ["", "s3://", "s3://b@c/x", "s3://b/../x", "file://relative", "http://x/y", "s3://b?x=1"] {
        let settings = StoreSettings { uri: uri.to_owned(), ..StoreSettings::default() };
        let error = Store::open(&settings).unwrap_err().to_string();
        assert!(error.contains("store.uri"), "{uri}: {error}");
    }
    let open_http = StoreSettings {
        uri: "s3://lake".to_owned(),
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        region: Some("eu-1".to_owned()),
        ..StoreSettings::default()
    };
    assert!(Store::open(&open_http).unwrap_err().to_string().contains("store.allow_http"));
    assert!(Store::open(&StoreSettings { allow_http: true, ..open_http }).is_ok());
    let small = StoreSettings { part_bytes: 1_000, ..StoreSettings::default() };
    assert!(Store::open(&small).unwrap_err().to_string().contains("store.part_bytes"));
}

#[tokio::test]
async fn keys_of_the_model_are_keys_of_the_store() {
    let store = Store::in_memory();
    let (job, id) = ("a-job".parse().unwrap(), BatchId { number: 7, attempt: 1 });
    let written = data(&store, &model::keys::result_data(&job, id, &Nonce::from_bits(1)), b"x").await;
    assert_eq!(store.list(&model::keys::results_folder(&job)).await.unwrap()[0].key, written.key);
}

#[tokio::test]
async fn the_folders_of_a_folder_are_listed_by_name_alone() {
    for store in [Store::in_memory(), Store::new(std::sync::Arc::new(InMemory::new()), "some/prefix")] {
        for key in ["jobs/b/0-job.json", "jobs/a/1-batches/x", "jobs/a/0-job.json", "open/c", "jobs/loose"] {
            let mut writer = store.upload(key);
            writer.write(b"x".to_vec()).await.unwrap();
            writer.finish().await.unwrap();
        }
        assert_eq!(store.folders("jobs/").await.unwrap(), ["a", "b"]);
        assert!(store.folders("none/").await.unwrap().is_empty());
    }
}
