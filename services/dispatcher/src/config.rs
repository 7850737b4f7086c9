//! The dispatcher's settings, `[dispatcher]`.

use serde::{Deserialize, Serialize};

/// How batches are sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Encoded bytes that are handed to the upload at a time.
    pub piece_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { piece_bytes: 1 << 20 }
    }
}
