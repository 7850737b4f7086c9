use proptest::prelude::*;

use super::*;

fn listed() -> ListedPrice {
    let prices = |input: &str, cached: Option<&str>, output: &str| TokenPrices {
        input: input.parse().unwrap(),
        cached_input: cached.map(|cached| cached.parse().unwrap()),
        output: output.parse().unwrap(),
    };
    ListedPrice {
        entry: "openai/gpt-4o-mini".to_owned(),
        as_of: Some("2026-06-21".parse().unwrap()),
        source: None,
        simulated: false,
        batch: prices("0.075", None, "0.30"),
        realtime: Some(prices("0.15", Some("0.075"), "0.60")),
    }
}

fn texts(cost: &Cost) -> [String; 4] {
    [cost.total, cost.input, cost.cached_input, cost.output].map(|sum| sum.to_string())
}

#[test]
fn cached_input_has_its_own_price_and_else_that_of_the_input() {
    let tokens = Tokens { input: 1_000_000, cached: 400_000, output: 2_000_000, reasoning: 5 };
    let mut price = listed();
    assert_eq!(texts(&price.cost(&tokens)), ["0.675", "0.045", "0.03", "0.6"]);
    // 0.6 × 0.15 + 0.4 × 0.075 + 2 × 0.60
    assert_eq!(price.cost(&tokens).realtime, Some("1.32".parse().unwrap()));
    assert_eq!(price.cost(&tokens).saved(), Some("0.645".parse().unwrap()));
    price.batch.cached_input = Some("0.0375".parse().unwrap());
    assert_eq!(texts(&price.cost(&tokens)), ["0.66", "0.045", "0.015", "0.6"]);
}

#[test]
fn a_provider_that_says_more_cached_tokens_than_input_is_paid_for_the_input() {
    let tokens = Tokens { input: 10, cached: 11, output: 0, reasoning: 0 };
    let cost = listed().cost(&tokens);
    assert_eq!((cost.input, cost.cached_input), (Usd::ZERO, "0.00000075".parse().unwrap()));
}

#[test]
fn a_frozen_price_reads_back_and_one_of_a_newer_version_too() {
    for pricing in [Pricing::Unknown, Pricing::Listed(listed())] {
        let json = serde_json::to_string(&pricing).unwrap();
        assert_eq!(serde_json::from_str::<Pricing>(&json).unwrap(), pricing);
    }
    let newer = r#"{"price":"listed","entry":"a/b","batch":{"input":"1","output":"2","audio":"3"},"region":"eu"}"#;
    let Pricing::Listed(price) = serde_json::from_str(newer).unwrap() else { panic!("{newer}") };
    assert_eq!((price.realtime, price.simulated, price.as_of), (None, false, None));
}

#[test]
fn what_at_once_would_have_cost_is_unknown_as_soon_as_a_part_is() {
    let mut sum = listed().nothing();
    sum += &Cost { realtime: None, ..listed().nothing() };
    assert_eq!((sum.realtime, sum.saved()), (None, None));
}

fn row() -> impl Strategy<Value = Tokens> {
    (0..1u64 << 40, any::<u32>(), 0..1u64 << 40).prop_map(|(input, cached, output)| Tokens {
        input,
        cached: cached.into(),
        output,
        reasoning: 0,
    })
}

proptest! {
    #[test]
    fn rows_add_up_to_attempts_and_attempts_to_the_job_in_any_order(
        rows in proptest::collection::vec(row(), 0..60),
        attempts in 1usize..8,
        seed in any::<u64>(),
    ) {
        let price = listed();
        let whole: Usd = rows.iter().map(|tokens| price.cost(tokens).total).sum();
        let mut sums = vec![price.nothing(); attempts];
        for (place, tokens) in rows.iter().enumerate() {
            let at = (seed.rotate_left(u32::try_from(place).unwrap()) % attempts as u64) as usize;
            sums[at] += &price.cost(tokens);
        }
        sums.sort_by_key(|sum| sum.total);
        let mut job = price.nothing();
        sums.iter().rev().for_each(|sum| job += sum);
        prop_assert_eq!(job.total, whole);
        prop_assert_eq!(job.total, job.input + job.cached_input + job.output);
        let realtime: Usd = rows.iter().map(|tokens| price.cost(tokens).realtime.unwrap()).sum();
        prop_assert_eq!(job.realtime, Some(realtime));
    }
}
