//! Cleaning up: nothing that a living job needs, and of an ended one its data and its files at the provider, while every fact
//! stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{BatchId, JobSpec, Nonce, SubmissionStep, keys};
use poller::Poller;
use poller::clean::Cleaned;
use providers::{Provider, Providers};
use runtime::settings::Settings;
use runtime::{Context, load_facts};
use tests::mill::{Life, Mill};
use tests::provider::{OnCreate, ScriptedProvider};

const IN: &str = "s3://lake/in/products.csv";
const OUT: &str = "s3://lake/out/products.csv";
const LONG: Duration = Duration::from_secs(8 * 24 * 3_600);

fn spec() -> JobSpec {
    serde_json::from_value(serde_json::json!({
        "id": "job", "input": {"uri": IN}, "output": {"uri": OUT},
        "request": {"model": "sim/echo", "template": "{{ title }}"},
        "batch": {"max_rows": 2}
    }))
    .unwrap()
}

async fn world(provider: ScriptedProvider) -> Mill {
    let mill = Mill::new(provider).unwrap();
    mill.put(IN, b"id,title\n1,a\n2,b\n3,c\n4,d\n").await.unwrap();
    mill.open(&spec()).await.unwrap();
    mill
}

/// One round of a poller over the world's store and provider.
async fn clean(mill: &Mill, dry_run: bool) -> Cleaned {
    let mut context = Context::in_memory(3, Settings::default()).unwrap().with_store(mill.store());
    // Each context's clock begins anew with its process; this one is as late as the world.
    context.clock = mill.clock();
    let provider = mill.shared_provider() as Arc<dyn Provider>;
    let providers = Providers::of_map(BTreeMap::from([("sim".to_owned(), provider)]));
    Poller::new(&context, &providers).unwrap().clean_up(dry_run).await.unwrap()
}

async fn data(mill: &Mill) -> usize {
    let listed = mill.store().list(&keys::job_folder(&spec().id)).await.unwrap();
    listed.iter().filter(|listed| listed.key.ends_with(".parquet")).count()
}

#[tokio::test(start_paused = true)]
async fn an_ended_job_loses_its_data_after_the_retention_and_no_fact() {
    let mill = world(ScriptedProvider::echo()).await;
    let end = mill.live(&spec().id).await.unwrap();
    let facts = load_facts(&mill.store(), &spec().id).await.unwrap();
    let early = clean(&mill, false).await;
    assert_eq!((early.jobs, early.objects, data(&mill).await), (0, 0, 4), "people may still look");
    assert_eq!(early.files, 2, "what was uploaded for collected batches is of no use to them");
    tokio::time::sleep(LONG).await;

    let files = mill.provider().files();
    let would = clean(&mill, true).await;
    assert_eq!((would.jobs, would.objects, data(&mill).await, mill.provider().files()), (1, 4, 4, files));
    let did = clean(&mill, false).await;
    assert_eq!((did.jobs, did.objects, did.files), (1, 4, 2));
    assert_eq!((data(&mill).await, mill.provider().files()), (0, 0));
    assert_eq!(clean(&mill, false).await, Cleaned::default(), "there is nothing left");

    assert_eq!(load_facts(&mill.store(), &spec().id).await.unwrap(), facts);
    let paid = mill.provider().paid();
    mill.open(&spec()).await.unwrap();
    assert_eq!(mill.live(&spec().id).await.unwrap(), end, "the same id again is answered as before");
    assert_eq!(mill.provider().paid(), paid);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_lives_is_left_alone_however_old_it_is() {
    for writes in 0.. {
        let lose = |create: usize| if create.is_multiple_of(2) { OnCreate::AcceptAndLose } else { OnCreate::Accept };
        let mill = world(ScriptedProvider::echo().with_creates(Box::new(lose))).await;
        if let Life::Ended(_) = mill.live_until(&spec().id, writes, true).await.unwrap() {
            assert!(writes > 10);
            break;
        }
        let ended = mill.store().exists(&keys::end(&spec().id)).await.unwrap();
        let before = data(&mill).await;
        tokio::time::sleep(LONG).await;
        let did = clean(&mill, false).await;
        if !ended {
            assert_eq!((did.jobs, did.objects, data(&mill).await), (0, 0, before), "died at write {writes}");
        }
        let end = mill.live(&spec().id).await.unwrap();
        assert_eq!(end.counts.rows, 4);
        let mut paid = mill.provider().paid();
        paid.sort();
        // The deadline is long past, so what was not sent by then is not sent any more; nothing is sent twice.
        paid.dedup();
        assert_eq!(paid.len() as u64, end.counts.answered, "died at write {writes}");
    }
}

#[tokio::test(start_paused = true)]
async fn leftover_uploads_go_and_the_fence_of_an_open_batch_and_strangers_files_stay() {
    let mill = world(ScriptedProvider::echo()).await;
    mill.live(&spec().id).await.unwrap();
    let (job, first) = (spec().id, BatchId { number: 1, attempt: 1 });
    let entry: model::SubmissionEntry =
        mill.store().get_json(&keys::submission(&job, first, 1)).await.unwrap().unwrap();
    let SubmissionStep::Claim { epoch } = entry.step else { panic!("a log begins with a claim") };
    // What a dispatcher left that died between its upload and the log.
    mill.provider().plant(&keys::upload_name(&job, first, &epoch));
    for stranger in [
        keys::upload_name(&job, first, &Nonce::from_bits(1)),
        keys::upload_name(&"other".parse().unwrap(), first, &epoch),
        "holiday-photos.jsonl".to_owned(),
    ] {
        mill.provider().plant(&stranger);
    }
    let files = mill.provider().files();
    let did = clean(&mill, false).await;
    // The two batches' own uploads are leftovers too: both are collected.
    assert_eq!((did.files, did.objects), (3, 0), "a leftover needs no retention");
    assert_eq!(mill.provider().files(), files - 3);
}
