//! Faults of rows: what a result file says of a row instead of the truth.
//!
//! A row that an error takes the place of was not answered and is not billed. All other lies are about rows that were
//! executed: they are billed, whatever becomes of their lines.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    faults::{Chosen, Fault, Faults, Target, When, fault::Shape, roll},
    models,
};

/// The faults of one batch's rows.
#[derive(Debug)]
pub(crate) struct RowFaults {
    faults: Arc<Faults>,
    chosen: Vec<Chosen>,
    seed: u64,
}

/// What is written of one row. Lines have no line ends.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) output: Vec<Vec<u8>>,
    pub(crate) errors: Vec<Vec<u8>>,
    /// Whether the row was executed.
    pub(crate) billed: bool,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
}

impl RowFaults {
    /// Those of a batch's faults that are about rows. `seed` decides about chances.
    pub(crate) fn of(faults: &Arc<Faults>, chosen: &[Chosen], seed: u64) -> Self {
        let of_rows = |chosen: &&Chosen| chosen.fault.target() == Target::Rows;
        Self { faults: Arc::clone(faults), chosen: chosen.iter().filter(of_rows).cloned().collect(), seed }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// Writes the row's line as its faults have it; none if the row has no fault. `number` counts the input's lines from 1.
    pub(crate) fn lie(&self, number: u64, custom_id: &str, body: &RawValue, line: &Value) -> Option<Written> {
        let hit = |chosen: &&Chosen| {
            let Some(rows) = &chosen.rows else { return true };
            fits(rows, custom_id, body) && rows.counts(number, || roll(&[self.seed, chosen.rule as u64, number]))
        };
        let hits: Vec<&Chosen> = self.chosen.iter().filter(hit).collect();
        if hits.is_empty() {
            return None;
        }
        let mut line = line.clone();
        let answered = line["response"]["status_code"] == 200;
        for chosen in &hits {
            self.faults.fired(chosen);
            change(&mut line, &chosen.fault);
        }
        let mut written = Written { billed: answered, ..Written::default() };
        place(&hits, &line, answered, &mut written);
        Some(written)
    }
}

fn fits(rows: &When, custom_id: &str, body: &RawValue) -> bool {
    let prompt = |part: &String| {
        let body = serde_json::from_str::<Body<'_>>(body.get()).ok();
        let prompt = body.and_then(|body| body.messages).and_then(models::last_user);
        prompt.is_some_and(|prompt| prompt.contains(part.as_str()))
    };
    rows.custom_id.as_ref().is_none_or(|part| custom_id.contains(part.as_str()))
        && rows.prompt.as_ref().is_none_or(prompt)
}

/// Changes what the line says.
fn change(line: &mut Value, fault: &Fault) {
    let response_body = |line: &mut Value, at: &str, value: Value| {
        if let Some(place) = line.pointer_mut(&format!("/response/body/choices/0/{at}")) {
            *place = value;
        }
    };
    let content = line.pointer("/response/body/choices/0/message/content").and_then(Value::as_str).map(str::to_owned);
    let content = content.unwrap_or_default();
    match fault {
        Fault::RowSeparator {} => response_body(line, "message/content", json!(format!("{content}\u{2028}and on"))),
        Fault::RowLong { bytes } => {
            let padded = content + &"x".repeat(*bytes);
            response_body(line, "message/content", json!(padded));
        }
        Fault::RowRefused {} => {
            response_body(line, "message/refusal", json!("I'm sorry, I can't help with that."));
            response_body(line, "message/content", Value::Null);
        }
        Fault::RowFiltered {} => {
            response_body(line, "finish_reason", json!("content_filter"));
            response_body(line, "message/content", json!(""));
        }
        Fault::RowTruncated { characters } => {
            response_body(line, "finish_reason", json!("length"));
            response_body(line, "message/content", json!(content.chars().take(*characters).collect::<String>()));
        }
        Fault::RowError { shape, status, code, message, .. } => {
            let error = json!({"message": message, "type": code, "param": null, "code": code});
            (line["response"], line["error"]) = match shape {
                Shape::Response => {
                    (json!({"status_code": status, "request_id": "req_fault", "body": {"error": error}}), Value::Null)
                }
                Shape::StatusZero => (json!({"status_code": 0, "request_id": "", "body": null}), Value::Null),
                Shape::NoResponse => (Value::Null, json!({"code": code, "message": message})),
            };
        }
        _ => {}
    }
}

/// Writes the line where it belongs, as often as it should be there, and as far as it should.
fn place(hits: &[&Chosen], line: &Value, answered: bool, written: &mut Written) {
    let mut lines = vec![line.clone()];
    let mut errors = Vec::new();
    let (mut keep, mut is_error) = (None, !answered);
    for chosen in hits {
        match &chosen.fault {
            Fault::RowMissing {} => lines.clear(),
            Fault::RowDuplicate { error_first: false } => lines.push(line.clone()),
            Fault::RowDuplicate { error_first: true } => {
                let mut error = line.clone();
                error["response"] = Value::Null;
                error["error"] = json!({"code": "server_error", "message": "The first try of this request failed."});
                lines.insert(0, error);
            }
            Fault::RowUnknownId { custom_id, keep } => {
                let mut stray = line.clone();
                stray["custom_id"] = json!(custom_id);
                if *keep { lines.push(stray) } else { lines = vec![stray] }
            }
            Fault::RowMalformed { keep_bytes } => keep = Some(*keep_bytes),
            Fault::RowError { output_file, .. } => {
                written.billed = false;
                is_error = !output_file;
            }
            _ => {}
        }
    }
    if is_error {
        std::mem::swap(&mut lines, &mut errors);
    }
    let bytes = |line: &Value| {
        let mut bytes = line.to_string().into_bytes();
        if let Some(keep) = keep {
            bytes.truncate(keep.unwrap_or(bytes.len() / 2));
        }
        bytes
    };
    written.output = lines.iter().map(bytes).collect();
    written.errors = errors.iter().map(bytes).collect();
}
