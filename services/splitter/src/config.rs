//! The splitter's settings, `[splitter]`.

use std::time::Duration;

use model::JobSpec;
use model::spec::MAX_DEADLINE_SECONDS;
use serde::{Deserialize, Serialize};

/// How the splitter cuts and how long jobs may take.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The most uncompressed bytes of the caller's columns in one batch.
    pub max_source_bytes: u64,
    /// Hours from the plan after which nothing new is tried, for jobs that don't say it themselves. At most a year.
    pub deadline_hours: u32,
    /// The longest CSV record, in bytes.
    pub max_record_bytes: usize,
    /// The most columns of an input.
    pub max_columns: usize,
    /// The most text bytes for each gzipped byte, past the first 64 MiB of text.
    pub max_gzip_ratio: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_source_bytes: 256_000_000,
            deadline_hours: 72,
            max_record_bytes: 16 << 20,
            max_columns: 16_384,
            max_gzip_ratio: 200,
        }
    }
}

impl Config {
    /// How long after its plan a job's deadline is: the job's own word, else the settings'.
    #[must_use]
    pub fn deadline(&self, spec: &JobSpec) -> Duration {
        let seconds = spec.deadline_seconds.unwrap_or(u64::from(self.deadline_hours) * 3_600);
        Duration::from_secs(seconds.min(MAX_DEADLINE_SECONDS))
    }

    /// The caps that stand before the decoders.
    #[must_use]
    pub fn caps(&self) -> tables::Caps {
        tables::Caps {
            max_record_bytes: self.max_record_bytes,
            max_columns: self.max_columns,
            max_gzip_ratio: self.max_gzip_ratio,
            ..tables::Caps::default()
        }
    }
}
