//! Calls of providers. Two rooms make them, so the family is made once for a process, and they share it.

use std::time::Duration;

use prometheus::{HistogramVec, Registry};

use super::Series;

/// Bounds in seconds: from a look at a batch to an upload of 200 MB over a slow line.
const SECONDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

/// The durations of calls to providers. Clones share them.
#[derive(Debug, Clone)]
pub struct ProviderCalls(HistogramVec);

impl ProviderCalls {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Time of a call to a provider: of an upload and a download to its last byte, of all others to the \
                    end of the reply.";
        let name = "batchmill_provider_request_duration_seconds";
        Series::of(registry).histograms(name, help, &["provider", "operation", "outcome"], SECONDS).map(Self)
    }

    /// The series of one operation of a provider, at zero.
    pub fn born(&self, provider: &str, operation: &str, outcomes: &[&str]) {
        for outcome in outcomes {
            self.0.with_label_values(&[provider, operation, outcome]);
        }
    }

    /// A call ended.
    pub fn record_call(&self, provider: &str, operation: &str, outcome: &str, took: Duration) {
        self.0.with_label_values(&[provider, operation, outcome]).observe(took.as_secs_f64());
    }
}
