//! Tokens and what they cost, for people. Exact sums are in the JSON forms.

use model::Tokens;
use model::price::{JobCost, Usd};

use crate::failures::grouped;

/// `1,200 in (200 cached), 900 out`.
pub(crate) fn tokens(tokens: &Tokens) -> String {
    let cached = if tokens.cached > 0 { format!(" ({} cached)", grouped(tokens.cached)) } else { String::new() };
    format!("{} in{cached}, {} out", grouped(tokens.input), grouped(tokens.output))
}

/// What a job cost, what it would have cost at once, and what that rests on.
pub(crate) fn text(cost: Option<&JobCost>) -> String {
    let Some(JobCost { cost, entry, as_of, simulated }) = cost else {
        return "unknown: no price of the model was known when the job was planned (see [prices] in the settings)"
            .to_owned();
    };
    let total = dollars(cost.total);
    let mut text = match cost.unmetered {
        0 => total,
        answers => format!("at least {total} ({} answers told no usage)", grouped(answers)),
    };
    if let (Some(realtime), Some(saved)) = (cost.realtime, cost.saved()) {
        text += &format!("; at once {}, saved {}", dollars(realtime), dollars(saved));
    }
    let as_of = as_of.map(|day| format!(" of {day}")).unwrap_or_default();
    text += &format!(" ({entry}, price{as_of})");
    if *simulated { format!("{text}, simulated: nobody is paid") } else { text }
}

/// Cents where there are many, else as many places as say something.
fn dollars(sum: Usd) -> String {
    let rounded = if sum >= Usd::from_pico(10u128.pow(12)) { format!("{sum:.2}") } else { format!("{sum:.6}") };
    format!("${rounded}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::price::Cost;

    fn cost() -> JobCost {
        let usd = |text: &str| text.parse().unwrap();
        let cost = Cost { total: usd("12.345678"), realtime: Some(usd("24.691356")), ..Cost::default() };
        JobCost { cost, entry: "a/b".to_owned(), as_of: Some("2026-06-21".parse().unwrap()), simulated: false }
    }

    #[test]
    fn a_cost_says_what_it_rests_on() {
        assert_eq!(text(Some(&cost())), "$12.35; at once $24.69, saved $12.35 (a/b, price of 2026-06-21)");
        let mut bare = JobCost { as_of: None, simulated: true, ..cost() };
        bare.cost = Cost { total: "0.0000123".parse().unwrap(), realtime: None, unmetered: 1_200, ..bare.cost };
        assert_eq!(
            text(Some(&bare)),
            "at least $0.000012 (1,200 answers told no usage) (a/b, price), simulated: nobody is paid"
        );
    }

    #[test]
    fn an_unknown_cost_is_no_zero() {
        assert!(text(None).starts_with("unknown") && text(None).contains("[prices]"));
    }

    #[test]
    fn cached_tokens_are_named_where_there_are_some() {
        let all = Tokens { input: 1_200, cached: 200, output: 900, reasoning: 0 };
        assert_eq!(tokens(&all), "1,200 in (200 cached), 900 out");
        assert_eq!(tokens(&Tokens { cached: 0, ..all }), "1,200 in, 900 out");
    }
}
