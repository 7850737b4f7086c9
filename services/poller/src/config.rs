//! The poller's settings, `[poller]`.

use serde::{Deserialize, Serialize};

/// How lines of the provider's files are read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The longest line of a result file that is read, in bytes; a longer one costs its row.
    pub max_line_bytes: usize,
    /// The most bytes of answers that one batch holds in memory; the lines beyond wait on scratch disk and are read twice.
    pub max_decoded_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_line_bytes: 16 << 20, max_decoded_bytes: 32 << 20 }
    }
}
