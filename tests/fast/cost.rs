//! What a job costs: the sum over its result rows of all attempts, by the price that its plan froze; in its end, its details
//! and its metrics. The figures are computed here from the provider's ledger, in another way.

use std::collections::BTreeMap;

use model::price::{Pricing, Usd};
use model::{EndFact, FailureKind, JobSpec, PlanFact, PlanOutcome, ResultFact, keys};
use runtime::load_facts;
use serde_json::{Value, json};
use tests::mill::{Life, Mill};
use tests::provider::{Reply, ScriptedProvider};
use tests::world::World;

const IN: &str = "s3://lake/in/products.csv";
const OUT: &str = "s3://lake/out/products.csv";
const ROWS: usize = 23;

/// Dollars for a billion tokens of `sim/echo`: input, cached input and output; in batches half of what it is at once.
const BATCH: [u128; 3] = [75, 37, 300];
const HALF_OF_CACHED: u128 = 500;

fn spec(more: Value) -> JobSpec {
    let mut spec = json!({
        "id": "job", "input": {"uri": IN}, "output": {"uri": OUT},
        "request": {"model": "sim/echo", "template": "{{ title }}"}, "batch": {"max_rows": 7}, "details": true,
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn table(rows: usize) -> String {
    std::iter::once("id,title\n".to_owned()).chain((0..rows).map(|row| format!("{row},row {row:02}\n"))).collect()
}

/// Input, cached and output tokens of a row, by its prompt.
fn usage(prompt: &str) -> [u64; 3] {
    let row: u64 = prompt[prompt.len() - 2..].parse().unwrap();
    [1_000 + 17 * row, 100 * (row % 4), 3 + row * row]
}

fn body(prompt: &str, message: Value, finish_reason: &str) -> Reply {
    let [input, cached, output] = usage(prompt);
    Reply::Body(json!({
        "model": "echo", "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {
            "prompt_tokens": input, "completion_tokens": output, "prompt_tokens_details": {"cached_tokens": cached},
        },
    }))
}

fn answer(prompt: &str) -> Reply {
    body(prompt, json!({"role": "assistant", "content": prompt}), "stop")
}

/// What a row gets in its first attempt (in one of the four first batches) and later.
fn reply(batch: usize, prompt: &str) -> Reply {
    let first = batch < ROWS.div_ceil(7);
    match &prompt[prompt.len() - 2..] {
        // Paid, and tried again.
        "03" | "11" | "19" if first => body(prompt, json!({"role": "assistant", "refusal": "no"}), "stop"),
        // Not paid.
        "05" if first => Reply::Status(500),
        "06" => Reply::Status(400),
        // Paid, and failed for good.
        "09" => body(prompt, json!({"role": "assistant", "content": ""}), "length"),
        // Answered without a word on usage.
        "13" => Reply::Body(json!({"choices": [{"message": {"content": "free"}, "finish_reason": "stop"}]})),
        _ => answer(prompt),
    }
}

/// How often a row was paid.
fn times_paid(row: usize) -> u128 {
    match row {
        3 | 11 | 19 => 2,
        6 | 13 => 0,
        _ => 1,
    }
}

/// What one row costs, in pico-dollars: dollars a billion are 1,000 pico-dollars a token. The cached price has a half.
fn row_pico(row: usize) -> u128 {
    let [input, cached, output] = usage(&format!("row {row:02}")).map(u128::from);
    let parts = [(input - cached) * BATCH[0], cached * BATCH[1], output * BATCH[2]];
    (parts.iter().sum::<u128>() * 1_000 + cached * HALF_OF_CACHED) * times_paid(row)
}

/// The column of costs, in the order of the rows.
fn column(output: &str) -> Vec<String> {
    let mut lines = output.lines();
    assert!(lines.next().unwrap().ends_with(",attempts,cost_usd"), "{output}");
    lines.map(|line| line.rsplit(',').next().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn rows_job_facts_and_metrics_say_the_same_sum_that_the_ledger_gives() {
    let world = World::with(ScriptedProvider::new(Box::new(reply)), &[]).await;
    world.put(IN, table(ROWS).into_bytes()).await;
    let spec = spec(json!({}));
    world.submit("batchmill.jobs.v1", serde_json::to_vec(&spec).unwrap()).await;
    let end = world.end(&spec.id).await;
    assert_eq!(end.counts.failed, [(FailureKind::Truncated, 1), (FailureKind::InvalidRequest, 1)].into());

    // The ledger: each line of it that told a usage.
    let expected: u128 = (0..ROWS).map(row_pico).sum();
    let mut ledger: BTreeMap<String, u128> = BTreeMap::new();
    world.provider.paid().into_iter().for_each(|prompt| *ledger.entry(prompt).or_default() += 1);
    for (prompt, times) in &ledger {
        let row: usize = prompt[4..].parse().unwrap();
        assert_eq!(*times, if row == 5 { 2 } else { times_paid(row).max(1) }, "{prompt}");
    }

    let job = end.cost.clone().unwrap();
    assert_eq!((job.entry.as_str(), job.simulated), ("sim/echo", true));
    assert_eq!((job.cost.total.pico(), job.cost.unmetered), (expected, 1));
    assert_eq!(job.cost.realtime.map(Usd::pico), Some(2 * expected));
    assert_eq!(job.cost.total, job.cost.input + job.cost.cached_input + job.cost.output);

    let facts = load_facts(&world.context.store, &spec.id).await.unwrap();
    let of_facts: Usd = facts.results.values().map(|fact| fact.cost.unwrap().total).sum();
    assert_eq!(of_facts, job.cost.total);
    for fact in facts.results.values() {
        let truth = fact.provider_tokens.unwrap();
        assert_eq!(
            (truth.input, truth.cached, truth.output),
            (fact.tokens.input, fact.tokens.cached, fact.tokens.output)
        );
    }

    let output = String::from_utf8(world.get(OUT).await.unwrap()).unwrap();
    for (row, cell) in column(&output).iter().enumerate() {
        match times_paid(row) {
            0 => assert_eq!(cell, "", "{row}"),
            _ => assert_eq!(cell.parse(), Ok(Usd::from_pico(row_pico(row))), "{row}"),
        }
    }

    let metric = |name: &str| -> f64 {
        let families = world.context.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
    };
    assert!((metric("batchmill_cost_usd_total") - job.cost.total.as_f64()).abs() < 1e-12);
    assert_eq!(
        (metric("batchmill_cost_unmetered_rows_total"), metric("batchmill_cost_usage_mismatches_total")),
        (1.0, 0.0)
    );
    world.stop().await;
}

async fn run(mill: &Mill, spec: &JobSpec, rows: usize) -> EndFact {
    mill.put(IN, table(rows).as_bytes()).await.unwrap();
    mill.open(spec).await.unwrap();
    mill.live(&spec.id).await.unwrap()
}

async fn output(mill: &Mill) -> String {
    String::from_utf8(mill.get(OUT).await.unwrap()).unwrap()
}

#[test]
fn each_model_of_the_simulator_has_a_price_that_says_that_it_is_simulated() {
    let prices = model::price::Prices::built_in().unwrap();
    for model in simulator::models() {
        let pricing = prices.of(&format!("sim/{model}"));
        assert!(pricing.listed().is_some_and(|price| price.simulated), "{model}");
    }
}

/// Lives until the job's plan is there.
async fn planned(mill: &Mill, spec: &JobSpec, rows: usize) -> PlanFact {
    mill.put(IN, table(rows).as_bytes()).await.unwrap();
    mill.open(spec).await.unwrap();
    let mut writes = 0;
    loop {
        if let Some(plan) = mill.store().get_json(&keys::plan(&spec.id)).await.unwrap() {
            return plan;
        }
        assert!(matches!(mill.live_until(&spec.id, writes, true).await.unwrap(), Life::Died));
        writes += 1;
    }
}

/// Settings with this price of `sim/echo`, in dollars a million.
fn priced(mill: &mut Mill, input: &str, output: &str) {
    let key = |part: &str| format!("prices.models.sim/echo.batch.{part}");
    mill.set(&[(&key("input"), input), (&key("output"), output)]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_price_that_the_plan_froze_holds_whatever_later_settings_say() {
    let mut mill = Mill::new(ScriptedProvider::echo()).unwrap();
    priced(&mut mill, "3", "1.5");
    let spec = spec(json!({}));
    let PlanOutcome::Planned { pricing: Some(Pricing::Listed(price)), .. } = planned(&mill, &spec, 10).await.outcome
    else {
        panic!("the model is listed")
    };
    assert_eq!(
        (price.entry.as_str(), price.batch.input.to_string(), price.realtime),
        ("sim/echo", "3".to_owned(), None)
    );
    priced(&mut mill, "500", "500");
    let cost = mill.live(&spec.id).await.unwrap().cost.unwrap().cost;
    // Ten answers of three tokens in and two out.
    assert_eq!((cost.input.to_string(), cost.output.to_string()), ("0.00009".to_owned(), "0.00003".to_owned()));
    assert_eq!((cost.total.to_string(), cost.realtime), ("0.00012".to_owned(), None));
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_price_has_an_unknown_cost_and_no_zero() {
    let mill = Mill::new(ScriptedProvider::echo()).unwrap();
    let spec = spec(json!({"request": {"model": "sim/unheard-of", "template": "{{ title }}"}}));
    let end = run(&mill, &spec, 3).await;
    assert_eq!((end.counts.answered, end.tokens.input, end.cost), (3, 9, None));
    assert_eq!(column(&output(&mill).await), [""; 3]);
    let plan: PlanFact = mill.store().get_json(&keys::plan(&spec.id)).await.unwrap().unwrap();
    assert!(matches!(plan.outcome, PlanOutcome::Planned { pricing: Some(Pricing::Unknown), .. }));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_planned_before_there_were_prices_ends_as_it_would_have() {
    let mill = Mill::new(ScriptedProvider::echo()).unwrap();
    let spec = spec(json!({}));
    let key = keys::plan(&spec.id);
    let mut old = serde_json::to_value(planned(&mill, &spec, 3).await).unwrap();
    old.as_object_mut().unwrap().remove("pricing").unwrap();
    mill.store().delete(&key).await.unwrap();
    let old: PlanFact = serde_json::from_value(old).unwrap();
    mill.store().put_once(&key, &old).await.unwrap();
    let end = mill.live(&spec.id).await.unwrap();
    assert_eq!((end.counts.answered, end.cost), (3, None));
    let output = output(&mill).await;
    assert!(output.starts_with("id,title,response,error,") && output.contains(",attempts\n"), "{output}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_usage_is_not_its_rows_is_noted_and_changes_nothing() {
    let lies = |batch: usize, truth: model::Tokens| match batch {
        0 => Some(model::Tokens { input: truth.input + 1, ..truth }),
        1 => None,
        _ => Some(truth),
    };
    let mill = Mill::new(ScriptedProvider::echo().with_usage(Box::new(lies))).unwrap();
    let spec = spec(json!({}));
    let end = run(&mill, &spec, 21).await;
    assert_eq!((end.counts.answered, end.tokens.input, end.tokens.output), (21, 63, 42));
    let mut said = Vec::new();
    for number in 1..=3 {
        let key = keys::result(&spec.id, model::BatchId { number, attempt: 1 });
        let fact: ResultFact = mill.store().get_json(&key).await.unwrap().unwrap();
        said.push(fact.provider_tokens.map(|tokens| tokens.input));
    }
    said.sort_unstable();
    assert_eq!(said, [None, Some(21), Some(22)]);
}

#[tokio::test(start_paused = true)]
async fn every_one_of_forty_attempts_was_paid_and_stands_in_the_rows_cost() {
    let refuse = |batch: usize, prompt: &str| match prompt.ends_with("01") && batch < 39 {
        true => body(prompt, json!({"role": "assistant", "refusal": "no"}), "stop"),
        false => answer(prompt),
    };
    let mill = Mill::new(ScriptedProvider::new(Box::new(refuse))).unwrap();
    let spec = spec(json!({"retry": {"refused": 100}, "deadline_seconds": 3_000_000}));
    let end = run(&mill, &spec, 3).await;
    assert_eq!((end.attempts, end.counts.answered), (40, 3));
    let cells: Vec<Usd> = column(&output(&mill).await).iter().map(|cell| cell.parse().unwrap()).collect();
    let once = |row: usize| row_pico(row) / times_paid(row);
    assert_eq!(cells.iter().map(|cell| cell.pico()).collect::<Vec<_>>(), [once(0), 40 * once(1), once(2)]);
    assert_eq!(end.cost.unwrap().cost.total, cells.into_iter().sum());
}
