//! A batch as it is shown: as it is, or as its faults have it.

use serde_json::{Value, json};

use crate::{
    faults::{Fault, fault::Which},
    records::{Record, Status},
    server::Simulator,
    wire,
};

/// The batch for a reply about itself.
pub(crate) fn batch(simulator: &Simulator, record: &Record) -> Value {
    let mut shown = wire::batch(record);
    for chosen in &record.faults {
        let spend = |most| simulator.faults.spend(&record.id, chosen, most);
        match &chosen.fault {
            Fault::CountsLie { total, completed, failed } if spend(None) => {
                shown["request_counts"] = json!({"total": total, "completed": completed, "failed": failed});
            }
            Fault::UsageLies { input_tokens, output_tokens } if spend(None) => {
                let usage = &mut shown["usage"];
                usage["input_tokens"] = json!(input_tokens);
                usage["output_tokens"] = json!(output_tokens);
                usage["total_tokens"] = json!(input_tokens.saturating_add(*output_tokens));
            }
            Fault::NullFileIds { which } if record.status.ended() && spend(None) => {
                file_ids(&mut shown, *which, &Value::Null);
            }
            Fault::EmptyFileIds { which } if record.status.ended() && spend(None) => {
                file_ids(&mut shown, *which, &json!(""));
            }
            Fault::FileIdsLate { looks } if record.status == Status::Completed && spend(Some(*looks)) => {
                file_ids(&mut shown, Which::Both, &Value::Null);
            }
            Fault::UnknownStatus { status, looks } if spend(*looks) => shown["status"] = json!(status),
            _ => {}
        }
    }
    shown
}

fn file_ids(shown: &mut Value, which: Which, id: &Value) {
    if which != Which::Error {
        shown["output_file_id"] = id.clone();
    }
    if which != Which::Output {
        shown["error_file_id"] = id.clone();
    }
}

/// Whether a question about the batch is answered with 404.
pub(crate) fn not_found(simulator: &Simulator, record: &Record) -> bool {
    record.faults.iter().any(|chosen| match chosen.fault {
        Fault::BatchNotFound { requests } => simulator.faults.spend(&record.id, chosen, Some(requests)),
        _ => false,
    })
}

/// Whether a list lacks the batch.
pub(crate) fn lags(simulator: &Simulator, record: &Record) -> bool {
    record.faults.iter().any(|chosen| match chosen.fault {
        Fault::ListLags { lists } => simulator.faults.spend(&record.id, chosen, Some(lists)),
        _ => false,
    })
}
