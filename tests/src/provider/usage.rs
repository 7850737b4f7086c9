//! A batch's own usage figure: the sum over the lines that it wrote, or what a script makes of it.

use model::Tokens;
use serde_json::Value;

/// Decides what a batch (counted from 0) says of its usage, from the truth.
pub type UsageScript = Box<dyn Fn(usize, Tokens) -> Option<Tokens> + Send + Sync>;

/// The tokens that a line of a result file tells.
pub(super) fn of_line(line: &Value) -> Tokens {
    let usage = &line["response"]["body"]["usage"];
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    Tokens {
        input: count(&usage["prompt_tokens"]),
        cached: count(&usage["prompt_tokens_details"]["cached_tokens"]),
        output: count(&usage["completion_tokens"]),
        reasoning: 0,
    }
}
