//! What a job cost, computed from its result rows in another way than the rooms do.

use model::EndFact;
use tables::result::Usage;

/// Tokens of all result rows of a job, over all attempts: input and output. The simulated provider has no cache.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told(u128, u128);

/// Pico-dollars of a token of `sim/echo` in a batch: 0.075 and 0.30 dollars a million.
const INPUT: u128 = 75_000;
const OUTPUT: u128 = 300_000;

impl Told {
    /// One more result row.
    pub(super) fn add(&mut self, usage: Usage) {
        self.0 += u128::from(usage.input.unwrap_or(0));
        self.1 += u128::from(usage.output.unwrap_or(0));
    }

    /// The end must say their sum, and its price.
    pub(super) fn check(self, end: &EndFact) -> Result<(), String> {
        let Self(input, output) = self;
        let tokens = (u128::from(end.tokens.input), u128::from(end.tokens.output));
        let cost = end.cost.as_ref().ok_or("the end knows no cost")?.cost;
        let said = (cost.total.pico(), cost.realtime.map(model::price::Usd::pico), cost.unmetered);
        let total = input * INPUT + output * OUTPUT;
        if tokens != (input, output) || said != (total, Some(2 * total), 0) {
            return Err(format!(
                "its rows have {input} and {output} tokens, its end says {:?} and {cost:?}",
                end.tokens
            ));
        }
        Ok(())
    }
}
