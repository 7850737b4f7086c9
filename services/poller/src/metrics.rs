//! What the poller counts.

use model::{Counts, FailureKind, Tokens};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// The poller's series, all born at 0.
#[derive(Debug, Clone)]
pub struct Metrics {
    rows: IntCounterVec,
    failures: IntCounterVec,
    tokens: IntCounterVec,
    looks: IntCounter,
    strays: IntCounterVec,
}

const ROW_OUTCOMES: [&str; 3] = ["answered", "failed", "retried"];
const TOKEN_KINDS: [&str; 4] = ["input", "cached", "output", "reasoning"];
const STRAYS: [&str; 2] = ["unknown", "duplicate"];

impl Metrics {
    /// Registers the series.
    ///
    /// # Errors
    /// When a series of one of these names is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str, values: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), &[label])?;
            values.iter().for_each(|value| drop(vec.with_label_values(&[value])));
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let kinds: Vec<&str> = FailureKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let looks = IntCounter::new("batchmill_poller_looks_total", "Questions to the provider about a batch.")?;
        registry.register(Box::new(looks.clone()))?;
        Ok(Self {
            rows: vec(
                "batchmill_poller_rows_total",
                "Rows of collected attempts, by outcome.",
                "outcome",
                &ROW_OUTCOMES,
            )?,
            failures: vec("batchmill_poller_failed_rows_total", "Rows that failed for good, by kind.", "kind", &kinds)?,
            tokens: vec("batchmill_poller_tokens_total", "Tokens of collected rows.", "kind", &TOKEN_KINDS)?,
            strays: vec(
                "batchmill_poller_stray_lines_total",
                "Result lines that are no row's: an unknown custom id, or one more line for a row.",
                "reason",
                &STRAYS,
            )?,
            looks,
        })
    }

    /// The provider was asked about a batch.
    pub fn record_look(&self) {
        self.looks.inc();
    }

    /// A result fact was put, by us.
    pub fn record_collected(&self, counts: &Counts, tokens: &Tokens, unknown: u64, duplicates: u64) {
        for (outcome, rows) in ROW_OUTCOMES.iter().zip([counts.answered, counts.failed_rows(), counts.retried]) {
            self.rows.with_label_values(&[outcome]).inc_by(rows);
        }
        for (kind, rows) in &counts.failed {
            self.failures.with_label_values(&[kind.as_str()]).inc_by(*rows);
        }
        let by_kind = [tokens.input, tokens.cached, tokens.output, tokens.reasoning];
        for (kind, count) in TOKEN_KINDS.iter().zip(by_kind) {
            self.tokens.with_label_values(&[kind]).inc_by(count);
        }
        self.strays.with_label_values(&["unknown"]).inc_by(unknown);
        self.strays.with_label_values(&["duplicate"]).inc_by(duplicates);
    }
}
