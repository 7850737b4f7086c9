//! The dispatcher's settings, `[dispatcher]`.

use serde::{Deserialize, Serialize};

/// How batches are sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Encoded bytes that are handed to the upload at a time.
    pub piece_bytes: usize,
    /// The first wait after a create that was refused for a limit (429) without a word on how long, in milliseconds; it doubles
    /// with each.
    pub limited_wait_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { piece_bytes: 1 << 20, limited_wait_ms: 30_000 }
    }
}
