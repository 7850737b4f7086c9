//! Tokens, and what they cost, by who pays whom for what.
//!
//! A counter is a float, so these are for rates and alarms; what a job cost exactly is in its facts.

use model::ResultFact;
use prometheus::{Counter, CounterVec, Gauge, IntCounterVec, Opts, Result};
use runtime::metrics::Series;
use runtime::settings::PriceSettings;

use crate::decide;

/// The series. Those of a model are there when its first batch is met.
#[derive(Debug, Clone)]
pub(super) struct Money {
    tokens: IntCounterVec,
    cost: CounterVec,
    unpriced: IntCounterVec,
    unmetered: IntCounterVec,
    mismatches: IntCounterVec,
}

const TOKEN_KINDS: [&str; 3] = ["input", "cached_input", "output"];

impl Money {
    pub(super) fn new(series: &Series<'_>, prices: &PriceSettings) -> Result<Self> {
        let payer = &["provider", "model", "team"];
        let budget = series.add(Gauge::new(
            "batchmill_cost_budget_usd",
            "What may be spent in a day, in US dollars, from the settings; 0 without one. Nothing stops at it.",
        )?)?;
        budget.set(prices.daily_budget_usd.unwrap_or_default().as_f64());
        Ok(Self {
            tokens: series.counters(
                "batchmill_tokens_total",
                "Tokens of collected rows by the provider's own figures. Kinds don't overlap: input leaves out what was read \
                 from the provider's cache; output has reasoning in it.",
                &["provider", "model", "team", "kind"],
            )?,
            cost: series.add(CounterVec::new(
                Opts::new(
                    "batchmill_cost_usd_total",
                    "What these tokens cost in US dollars, by the prices that the jobs' plans froze. Models without a price \
                     are not in it: batchmill_cost_unpriced_tokens_total has their tokens.",
                ),
                payer,
            )?)?,
            unpriced: series.counters(
                "batchmill_cost_unpriced_tokens_total",
                "Tokens of models that the list of prices lacks: their cost is unknown.",
                payer,
            )?,
            unmetered: series.counters(
                "batchmill_cost_unmetered_rows_total",
                "Answers whose lines told no usage: what they cost is unknown.",
                payer,
            )?,
            mismatches: series.counters(
                "batchmill_cost_usage_mismatches_total",
                "Collected batches whose usage by the provider's own figure is not the sum over their rows.",
                &["provider", "model"],
            )?,
        })
    }

    fn cost(&self, payer: [&str; 3]) -> Counter {
        self.cost.with_label_values(&payer)
    }

    /// A model is met: its series are there before anything is counted in them.
    pub(super) fn met(&self, payer: [&str; 3]) {
        let [provider, model, team] = payer;
        TOKEN_KINDS.iter().for_each(|kind| drop(self.tokens.with_label_values(&[provider, model, team, kind])));
        self.cost(payer);
        self.unpriced.with_label_values(&payer);
        self.unmetered.with_label_values(&payer);
        self.mismatches.with_label_values(&[provider, model]);
    }

    /// A result fact was put, by us.
    pub(super) fn record(&self, payer: [&str; 3], fact: &ResultFact) {
        let ([provider, model, team], tokens) = (payer, &fact.tokens);
        let by_kind = [tokens.input.saturating_sub(tokens.cached), tokens.cached, tokens.output];
        for (kind, count) in TOKEN_KINDS.iter().zip(by_kind) {
            self.tokens.with_label_values(&[provider, model, team, kind]).inc_by(count);
        }
        match &fact.cost {
            Some(cost) => {
                self.cost(payer).inc_by(cost.total.as_f64());
                self.unmetered.with_label_values(&payer).inc_by(cost.unmetered);
            }
            None => self.unpriced.with_label_values(&payer).inc_by(tokens.input.saturating_add(tokens.output)),
        }
        let differs = decide::usage_differs(tokens, fact.provider_tokens.as_ref());
        self.mismatches.with_label_values(&[provider, model]).inc_by(differs.into());
    }
}
