use model::digest::Checksum;
use model::{BatchRef, Counts, DataRef, Nonce, Tokens};

use super::*;

fn id(number: u32, attempt: u32) -> BatchId {
    BatchId { number, attempt }
}

fn job() -> JobId {
    "j".parse().unwrap()
}

async fn put(store: &Store, key: &str, body: &str) {
    let mut upload = store.upload(key);
    upload.write(body.as_bytes().to_vec()).await.unwrap();
    upload.finish().await.unwrap();
}

/// Puts the first entry of a log.
async fn take(store: &Store, of: BatchId) {
    put(store, &keys::submission(&job(), of, 1), "{}").await;
}

/// Puts a result, which may order another attempt.
async fn collect(store: &Store, of: BatchId, again: bool) {
    let data = DataRef { key: String::new(), checksum: Checksum::of(b""), bytes: 0, rows: 1 };
    let next = id(of.number, of.attempt + 1);
    let next = BatchRef {
        id: next,
        nonce: Nonce::from_bits(1),
        first_row: 0,
        data: data.clone(),
        send_rows: 1,
        send_bytes: 1,
    };
    let fact = ResultFact {
        schema: 1,
        nonce: Nonce::from_bits(1),
        collected_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        id: of,
        data,
        counts: Counts::default(),
        tokens: Tokens::default(),
        cost: None,
        provider_tokens: None,
        provider_batch: None,
        provider_status: None,
        unknown_ids: 0,
        duplicates: 0,
        next: again.then_some(next),
    };
    store.put_once(&keys::result(&job(), of), &fact).await.unwrap();
}

/// A reader that has met a job of so many batches.
fn reader(store: &Store, batches: usize) -> Reader {
    let planned = Planned { provider: "p".to_owned(), model: "m".to_owned(), batches };
    let known = Known { planned: Some(planned), cancelled: false, chains: Chains::default() };
    Reader { known: [(job(), known)].into(), ..Reader::new(store, &[]) }
}

/// What is held and what waits.
async fn counts(reader: &mut Reader, ours: &[BatchId]) -> (u64, u64) {
    let ours = ours.iter().map(|id| (job(), *id)).collect();
    let standing = &reader.read([job()].into()).await.unwrap().standings(&ours)[&job()];
    (standing.held, standing.waiting)
}

#[tokio::test]
async fn a_batch_holds_a_place_from_its_first_log_entry_to_its_result() {
    let store = Store::in_memory();
    let mut reader = reader(&store, 3);
    assert_eq!(counts(&mut reader, &[]).await, (0, 3));
    take(&store, id(2, 1)).await;
    put(&store, &keys::submission(&job(), id(2, 1), 2), "{}").await;
    assert_eq!(counts(&mut reader, &[]).await, (1, 2));
    take(&store, id(1, 1)).await;
    assert_eq!(counts(&mut reader, &[]).await, (2, 1));
    collect(&store, id(1, 1), true).await;
    assert_eq!(counts(&mut reader, &[]).await, (1, 1), "what is only ordered holds none");
    take(&store, id(1, 2)).await;
    assert_eq!(counts(&mut reader, &[]).await, (2, 1), "a retry counts");
    collect(&store, id(1, 2), false).await;
    put(&store, &keys::result(&job(), id(2, 1)), "?").await;
    assert_eq!(counts(&mut reader, &[]).await, (0, 1), "whatever the result says");
    put(&store, &keys::cancel(&job()), "{}").await;
    assert_eq!(counts(&mut reader, &[]).await, (0, 0), "a cancelled job needs no more");
}

#[tokio::test]
async fn our_own_places_count_once_whether_the_reading_has_them_or_not() {
    let store = Store::in_memory();
    let mut reader = reader(&store, 3);
    assert_eq!(counts(&mut reader, &[id(1, 1)]).await, (1, 2));
    take(&store, id(1, 1)).await;
    assert_eq!(counts(&mut reader, &[id(1, 1)]).await, (1, 2));
    collect(&store, id(1, 1), false).await;
    assert_eq!(counts(&mut reader, &[id(1, 1)]).await, (0, 2), "collected before the reading was used");
}

#[tokio::test]
async fn one_that_reads_now_and_then_counts_as_one_that_begins_anew() {
    let store = Store::in_memory();
    let mut before = reader(&store, 100);
    // Enough at a time that results are listed, with a straggler, attempts that follow one another, and gaps.
    for round in 0..3_u32 {
        for number in (1..=30).map(|number| round * 30 + number).filter(|number| *number != 7) {
            take(&store, id(number, 1)).await;
            if number % 3 != 0 && number != 1 {
                collect(&store, id(number, 1), number % 2 == 0).await;
            }
            if number % 12 == 2 {
                take(&store, id(number, 2)).await;
                collect(&store, id(number, 2), true).await;
                take(&store, id(number, 3)).await;
            }
        }
        assert_eq!(counts(&mut before, &[]).await, counts(&mut reader(&store, 100), &[]).await);
    }
    // Of 89 a third are not collected, and neither is the first; eight are at their third attempt.
    assert_eq!(counts(&mut before, &[]).await, (30 + 1 + 8, 11));
    assert_eq!(before.known[&job()].chains.first_missing(), 7);
    assert_eq!(before.known[&job()].chains.list_results_from(PARALLEL), Some(1));
}

#[tokio::test]
async fn a_batch_that_begins_long_after_later_ones_is_found() {
    let store = Store::in_memory();
    let mut reader = reader(&store, 1_000);
    for number in (1..=900).filter(|number| ![5, 800].contains(number)) {
        take(&store, id(number, 1)).await;
    }
    assert_eq!(counts(&mut reader, &[]).await, (898, 102));
    assert_eq!(reader.known[&job()].chains.gaps(PARALLEL), Some((vec![5, 800], 901)));
    for number in [5, 950] {
        take(&store, id(number, 1)).await;
    }
    assert_eq!(counts(&mut reader, &[]).await, (900, 100));
}

#[tokio::test]
async fn jobs_that_are_not_planned_or_refused_or_unreadable_count_for_nothing() {
    let store = Store::in_memory();
    for (key, body) in
        [("open/new", "{}"), ("open/bad", "{}"), ("jobs/bad/2-plan.json", "?"), ("jobs/bad/0-job.json", "?")]
    {
        put(&store, key, body).await;
    }
    let mut reader = Reader::new(&store, &[]);
    for _ in 0..2 {
        assert!(reader.read(BTreeSet::new()).await.unwrap().standings(&BTreeSet::new()).is_empty());
    }
    assert_eq!(reader.known.len(), 1, "what can't be read is not read again, what is not planned is");
}
