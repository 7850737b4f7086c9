//! The merger's settings, `[merger]`. There are none yet; an unknown key is refused all the same.

use serde::{Deserialize, Serialize};

/// Nothing to set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}
