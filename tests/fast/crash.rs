//! A death at every write of a job, before it lands and after: the next life goes on, the output is the same to the byte,
//! and each row is paid once.

use model::{JobSpec, Nonce};
use tests::mill::{Life, Mill};
use tests::provider::{OnCreate, ScriptedProvider};

const IN: &str = "s3://lake/in/products.csv";
const OUT: &str = "s3://lake/out/products.csv";

fn spec() -> JobSpec {
    serde_json::from_value(serde_json::json!({
        "id": "job", "input": {"uri": IN}, "output": {"uri": OUT},
        "request": {"model": "sim/echo", "template": "{{ id }}: {{ title }}"},
        "batch": {"max_rows": 4}
    }))
    .unwrap()
}

fn table() -> String {
    std::iter::once("id,title\r\n".to_owned())
        .chain((0..10).map(|row| format!("{row},\"a \"\"{row}\"\"\"\r\n")))
        .collect()
}

fn expected() -> String {
    let answered = |row| format!("{row},\"a \"\"{row}\"\"\",\"{row}: a \"\"{row}\"\"\",\r\n");
    std::iter::once("id,title,response,error\r\n".to_owned()).chain((0..10).map(answered)).collect()
}

async fn world() -> Mill {
    // Every third reply of a create is lost, after it was accepted or before.
    let creates = |create: usize| match create % 3 {
        1 => OnCreate::AcceptAndLose,
        2 => OnCreate::Lose,
        _ => OnCreate::Accept,
    };
    let mill = Mill::new(ScriptedProvider::echo().with_creates(Box::new(creates))).unwrap();
    mill.put(IN, table().as_bytes()).await.unwrap();
    mill.open(&spec()).await.unwrap();
    mill
}

async fn check(mill: &Mill, what: &str) {
    let mut paid = mill.provider().paid();
    paid.sort();
    let mut prompts: Vec<String> = (0..10).map(|row| format!("{row}: a \"{row}\"")).collect();
    prompts.sort();
    assert_eq!(paid, prompts, "each row is paid once: {what}");
    assert_eq!(String::from_utf8(mill.get(OUT).await.unwrap()).unwrap(), expected(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_write_costs_nothing() {
    for lands in [true, false] {
        let mut writes = 0;
        loop {
            let mill = world().await;
            let life = mill.live_until(&spec().id, writes, lands).await.unwrap();
            let Life::Died = life else { break };
            let end = mill.live(&spec().id).await.unwrap();
            assert_eq!((end.counts.rows, end.counts.answered), (10, 10));
            check(&mill, &format!("died at write {writes}, landed: {lands}")).await;
            writes += 1;
        }
        assert!(writes > 20, "a job of three batches has more than {writes} writes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_again_and_again_still_ends_its_job() {
    for seed in 0..40u64 {
        let mill = world().await;
        let mut state =
            Nonce::from_bits(seed).as_str().bytes().fold(seed, |a, b| a.wrapping_mul(31).wrapping_add(b.into()));
        let mut lives = 0;
        loop {
            // A small generator of its own: the seed decides all.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let death = i64::from(u32::try_from(state >> 33).unwrap() % 7);
            if let Life::Ended(_) = mill.live_until(&spec().id, death, state & (1 << 20) == 0).await.unwrap() {
                break;
            }
            lives += 1;
            assert!(lives < 500, "seed {seed} makes no headway");
        }
        check(&mill, &format!("seed {seed}")).await;
    }
}
