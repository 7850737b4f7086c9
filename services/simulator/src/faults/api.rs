//! `/faults`: the script while the simulator runs. Outside `/v1`, since no provider has it; the same keys are let in.

use axum::{Json, extract::State};
use bytes::Bytes;
use serde_json::json;

use crate::{
    faults::rule::Script,
    server::Simulator,
    wire::{ApiError, Reply},
};

/// `GET /faults`: the rules, with how often each fired.
pub(crate) async fn show(State(simulator): State<Simulator>) -> Reply {
    Ok(Json(simulator.faults.shown()))
}

/// `PUT /faults`: another script. All counters begin at 0.
pub(crate) async fn replace(State(simulator): State<Simulator>, body: Bytes) -> Reply {
    let text = std::str::from_utf8(&body).map_err(|_| ApiError::invalid("A fault script is UTF-8 text."))?;
    let script: Script = text.parse().map_err(ApiError::invalid)?;
    simulator.faults.replace(script);
    show(State(simulator)).await
}

/// `DELETE /faults`: no more lies, but for batches that have theirs.
pub(crate) async fn clear(State(simulator): State<Simulator>) -> Reply {
    simulator.faults.replace(Script::default());
    Ok(Json(json!({"rules": []})))
}
