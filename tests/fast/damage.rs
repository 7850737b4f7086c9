//! A damaged data object ends no job. In a store that is a folder a merge checks each object only as it passes: the rot must be
//! found wherever it lies, nothing be shown that was made of it, and the error name it.

use std::path::Path;

use events::{Event, JobPlanned, PlanSummary, Topic};
use model::keys::{self, Key};
use model::{EndFact, JobSpec, Team};
use runtime::{Context, Outbox, Received, Room, Store};
use serde_json::json;
use tests::mill::Mill;
use tests::provider::{Reply, ScriptedProvider};

use crate::failed_rows::parquet;
use crate::retries::{run_in, spec_with};

/// Rows that are done at once, that fail for good, and one that is answered only after more attempts than a merge reads side by
/// side.
fn provider() -> ScriptedProvider {
    ScriptedProvider::new(Box::new(|batch, prompt| match prompt {
        "good 16" if batch < 24 => Reply::Status(500),
        prompt if prompt.starts_with("bad") => Reply::Status(400),
        prompt => Reply::Answer(format!("<{prompt}>")),
    }))
}

fn csv(rows: usize) -> Vec<u8> {
    let title = |row: usize| if row % 5 == 3 { "bad" } else { "good" };
    let rows = (0..rows).map(|row| format!("{row},{} {row}\n", title(row)));
    std::iter::once("id,title\n".to_owned()).chain(rows).collect::<String>().into_bytes()
}

/// A mill in which the job ended, and all but its end in a folder.
async fn merged(spec: &JobSpec, input: &[u8], folder: &Path) -> (Mill, Context) {
    let mill = Mill::new(provider()).unwrap();
    let end = run_in(&mill, spec, input).await;
    assert!(end.attempts > 17, "the last words of some attempts are folded: {}", end.attempts);
    let (memory, local) = (mill.store(), Store::local(folder).unwrap());
    for listed in memory.list(&keys::job_folder(&spec.id)).await.unwrap() {
        if listed.key != keys::end(&spec.id) {
            let mut copy = local.upload(&listed.key);
            copy.write(memory.get_bytes(&listed.key).await.unwrap().unwrap()).await.unwrap();
            copy.finish().await.unwrap();
        }
    }
    let context = mill.context_on(local).unwrap();
    (mill, context)
}

async fn merge(context: &Context, spec: &JobSpec) -> anyhow::Result<()> {
    let event =
        Event::JobPlanned(JobPlanned { job: spec.id.clone(), outcome: PlanSummary::Planned { rows: 20, batches: 2 } });
    let received = Received { event, team: Team::shared(), topic: Topic::Results, tries: 0, envelope: None };
    let merger = merger::Merger::new(context)?;
    merger.handle(&received, &Outbox::new(context, "test")).await.map(drop)
}

/// Turns one bit of each of some bytes, which lie all over the file, one after the other.
async fn each_bit_of_rot_is_found(spec: &JobSpec, input: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let (mill, context) = merged(spec, input, folder.path()).await;
    let (due, output) = (mill.get(&spec.output.uri).await.unwrap(), &spec.output.uri);
    mill.put(output, b"what was there before").await.unwrap();
    let listed = context.store.list(&keys::job_folder(&spec.id)).await.unwrap();
    // Of later attempts only the results are merged.
    let is_merged = |key: &str| match keys::parse(key) {
        Some(Key::BatchData(_, id, _)) => id.attempt == 1,
        Some(Key::ResultData(..)) => true,
        _ => false,
    };
    let objects: Vec<_> = listed.iter().filter(|listed| is_merged(&listed.key)).collect();
    assert!(objects.len() > 20, "{}", objects.len());
    for object in objects {
        let path = folder.path().join(&object.key);
        let sound = std::fs::read(&path).unwrap();
        let places = (0..sound.len()).step_by(sound.len() / 9).chain([3, sound.len() - 5, sound.len() - 1]);
        for place in places {
            let mut rotten = sound.clone();
            rotten[place] ^= 0x10;
            std::fs::write(&path, rotten).unwrap();
            // Series are registered once a context.
            let context = mill.context_on(context.store.clone()).unwrap();
            let error = merge(&context, spec).await.unwrap_err();
            let what = format!("byte {place} of {} of {}: {error:?}", sound.len(), object.key);
            let found = error.downcast_ref::<runtime::store::Error>();
            assert!(matches!(found, Some(runtime::store::Error::Corrupt { key, .. }) if *key == object.key), "{what}");
            assert_eq!(context.store.get_json::<EndFact>(&keys::end(&spec.id)).await.unwrap(), None, "{what}");
            assert_eq!(mill.get(output).await.unwrap(), b"what was there before", "{what}");
            assert_eq!(mismatches(&context), 0.0, "rot is no contradiction between facts: {what}");
        }
        std::fs::write(&path, sound).unwrap();
    }
    merge(&context, spec).await.unwrap();
    assert_eq!(mill.get(output).await.unwrap(), due, "what is sound again is merged as it was");
}

fn mismatches(context: &Context) -> f64 {
    let families = context.registry.gather();
    let family = families.iter().find(|family| family.name() == "batchmill_merger_conservation_mismatches_total");
    family.unwrap().get_metric()[0].get_counter().get_value()
}

#[tokio::test(start_paused = true)]
async fn a_damaged_object_of_a_csv_job_ends_nothing_and_is_named() {
    let spec = spec_with(json!({"batch": {"max_rows": 10}, "retry": {"server_error": 30}}));
    each_bit_of_rot_is_found(&spec, &csv(20)).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_object_of_a_parquet_job_ends_nothing_and_is_named() {
    let spec = spec_with(json!({
        "input": {"uri": "s3://lake/in/t.parquet"}, "output": {"uri": "s3://lake/out/t.parquet"},
        "batch": {"max_rows": 10}, "retry": {"server_error": 30},
    }));
    each_bit_of_rot_is_found(&spec, &parquet(20)).await;
}
