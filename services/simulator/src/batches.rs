//! `/v1/batches`: create, list, retrieve, cancel.
//!
//! A create checks its input before it answers, because the ledger's line, which names every row, must be on disk by
//! then. Clients still see what OpenAI shows: a batch in `validating`, which turns `failed` afterwards if the input is
//! bad. A create runs to its end even if its client goes away: an accepted batch whose reply is lost is a case that
//! clients must survive, and the simulator has it for real.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Seek as _, Write as _},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::BytesRejection},
    http::StatusCode,
};
use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::OwnedRwLockReadGuard;

use crate::{
    Error, clock,
    faults::{Fault, Subject, Target, view},
    files::lifetime,
    folder,
    ledger::Head,
    records::{Batch, Record, Status, StoredFile},
    run,
    server::Simulator,
    store::{self, Store},
    validate::{self, Scanned},
    wire::{self, ApiError, BatchError, ENDPOINT, Page, Reply},
};

/// What a create asks for.
struct Order {
    input_file_id: String,
    metadata: Option<BTreeMap<String, String>>,
    output_expires_after: Option<u64>,
}

impl Order {
    fn parse(mut body: Map<String, Value>) -> Result<Self, ApiError> {
        let input_file_id = required(&mut body, "input_file_id")?;
        let endpoint = required(&mut body, "endpoint")?;
        if endpoint != ENDPOINT {
            let message = format!("Invalid value: '{endpoint}'. Supported values are: '{ENDPOINT}'.");
            return Err(ApiError::invalid(message).param("endpoint").code("invalid_value"));
        }
        let window = required(&mut body, "completion_window")?;
        if window != "24h" {
            let message = format!("Invalid value: '{window}'. Supported values are: '24h'.");
            return Err(ApiError::invalid(message).param("completion_window").code("invalid_value"));
        }
        let metadata = body.remove("metadata").map(metadata).transpose()?.flatten();
        let output_expires_after = body.remove("output_expires_after").map(output_lifetime).transpose()?.flatten();
        if let Some(name) = body.keys().next() {
            let error = ApiError::invalid(format!("Unknown parameter: '{name}'."));
            return Err(error.param(name.as_str()).code("unknown_parameter"));
        }
        Ok(Self { input_file_id, metadata, output_expires_after })
    }
}

fn wrong_type(param: &str, expected: &str) -> ApiError {
    ApiError::invalid(format!("Invalid type for '{param}': expected {expected}.")).param(param).code("invalid_type")
}

fn required(body: &mut Map<String, Value>, param: &str) -> Result<String, ApiError> {
    match body.remove(param) {
        Some(Value::String(value)) => Ok(value),
        Some(Value::Null) | None => Err(ApiError::missing(param)),
        Some(_) => Err(wrong_type(param, "a string")),
    }
}

/// At most 16 pairs of strings, keys of 64 characters and values of 512.
fn metadata(value: Value) -> Result<Option<BTreeMap<String, String>>, ApiError> {
    let pairs = match value {
        Value::Null => return Ok(None),
        Value::Object(pairs) => pairs,
        _ => return Err(wrong_type("metadata", "an object")),
    };
    let refused = |message: String, code| Err(ApiError::invalid(message).param("metadata").code(code));
    if pairs.len() > 16 {
        let message = format!("Invalid 'metadata': too many properties. Expected 16 at most, but got {}.", pairs.len());
        return refused(message, "object_above_max_properties");
    }
    let mut metadata = BTreeMap::new();
    for (key, value) in pairs {
        let Value::String(value) = value else { return Err(wrong_type("metadata", "values that are strings")) };
        if key.chars().count() > 64 {
            return refused("Invalid 'metadata': a key has more than 64 characters.".into(), "string_above_max_length");
        }
        if value.chars().count() > 512 {
            return refused(format!("Invalid 'metadata.{key}': more than 512 characters."), "string_above_max_length");
        }
        metadata.insert(key, value);
    }
    Ok(Some(metadata))
}

fn output_lifetime(value: Value) -> Result<Option<u64>, ApiError> {
    if value.is_null() {
        return Ok(None);
    }
    let anchor = value.get("anchor").and_then(Value::as_str).unwrap_or_default();
    lifetime("output_expires_after", anchor, value.get("seconds").and_then(Value::as_u64)).map(Some)
}

/// `POST /v1/batches`
pub(crate) async fn create(State(simulator): State<Simulator>, body: Result<Bytes, BytesRejection>) -> Reply {
    let order = Order::parse(wire::object(body)?)?;
    let input = match simulator.store.file(&order.input_file_id) {
        Some(file) if simulator.faults.hides(&file.meta.id) => None,
        Some(file) => {
            let gate = Arc::clone(&file.gate).read_owned().await;
            (!*gate).then_some((file, gate))
        }
        None => None,
    };
    let worker = simulator.clone();
    let record = simulator.blocking(move || Ok(begin(&worker, order, input))).await??;
    Ok(Json(wire::batch(&record)))
}

/// An input file, and its gate held so that no delete comes between.
type Input = (Arc<StoredFile>, OwnedRwLockReadGuard<bool>);

/// Accepts a batch, or one that will fail, and lets it run.
fn begin(simulator: &Simulator, order: Order, input: Option<Input>) -> Result<Record, ApiError> {
    let store = &simulator.store;
    let seq = store.next_seq();
    let mut record = Record::new(store.id("batch_", &seq.to_string()), seq, order.input_file_id, clock::seconds());
    record.metadata = order.metadata;
    record.output_expires_after = order.output_expires_after;
    if let Some((file, _)) = &input {
        let subject = Subject { metadata: record.metadata.as_ref(), filename: Some(&file.meta.filename) };
        record.faults =
            simulator.faults.choose(|fault| matches!(fault.target(), Target::Batch | Target::Rows), &subject);
    }
    match &input {
        Some((file, _)) if file.meta.purpose != "batch" => {
            let message = format!("Invalid purpose '{}' of the input file: it must be 'batch'.", file.meta.purpose);
            return Err(ApiError::invalid(message).param("input_file_id"));
        }
        Some((file, _)) => check_in(store, &mut record, &file.meta.id).map_err(ApiError::internal)?,
        None => {
            let message = format!("Cannot find file {}, or you do not have access to it.", record.input_file_id);
            if !simulator.config.late_file_errors {
                return Err(ApiError::invalid(message).param("file_id"));
            }
            record.errors =
                vec![BatchError { code: "file_not_found".into(), message, param: Some("file_id".into()), line: None }];
            store.save(&record).map_err(ApiError::internal)?;
        }
    }
    let batch = store.add_batch(record.clone());
    drop(input);
    run::launch(simulator, batch);
    Ok(record)
}

/// Validates the input. If it is good, the batch is in the ledger when this returns; if not, the record says why.
fn check_in(store: &Store, record: &mut Record, file: &str) -> Result<(), Error> {
    let data = store.data_path(file);
    let staging = store.batch_path(&record.id, "rows");
    let upload = File::open(&data).map_err(Error::io("open", &data))?;
    upload.sync_all().map_err(Error::io("sync", &data))?;
    let mut staged = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&staging)
        .map_err(Error::io("create", &staging))?;
    folder::remove(&staging)?;
    let mut out = BufWriter::with_capacity(1 << 20, &mut staged);
    let scanned = validate::scan(&upload, &mut out).map_err(Error::io("read", &data))?;
    out.flush().map_err(Error::io("write", &staging))?;
    drop(out);
    match scanned {
        Ok(Scanned { rows, model }) => {
            record.rows = rows;
            record.model = Some(model.name().to_owned());
            if let Some(error) = failed_on_purpose(record) {
                record.errors = vec![error];
                return store.save(record);
            }
            let accepted = accept(store, record, &data, staged);
            if accepted.is_err() {
                folder::remove(&store.batch_path(&record.id, "json"))?;
                folder::remove(&store.batch_path(&record.id, "input"))?;
            }
            accepted
        }
        Err(error) => {
            record.errors = vec![error];
            store.save(record)
        }
    }
}

/// The fault of a batch that is to fail as if its input were bad.
fn failed_on_purpose(record: &Record) -> Option<BatchError> {
    record.faults.iter().find_map(|chosen| match &chosen.fault {
        Fault::BatchFailed { code, message, line } => {
            Some(BatchError { code: code.clone(), message: message.clone(), param: None, line: *line })
        }
        _ => None,
    })
}

/// Everything that the batch needs, onto disk; then the ledger's line, which makes it real.
fn accept(store: &Store, record: &Record, data: &std::path::Path, mut staged: File) -> Result<(), Error> {
    let input = store.batch_path(&record.id, "input");
    link(data, &input).map_err(Error::io("link", &input))?;
    store.save(record)?;
    store.sync_batches()?;
    let head = Head {
        batch: record.id.clone(),
        file: record.input_file_id.clone(),
        at: record.created_at,
        metadata: record.metadata.clone().unwrap_or_default(),
    };
    let ledger = "ledger.jsonl";
    staged.rewind().map_err(Error::io("read", ledger.as_ref()))?;
    let mut rows = BufReader::with_capacity(1 << 20, staged);
    store::lock(&store.ledger).append(&head, &mut rows).map_err(Error::io("append to", ledger.as_ref()))
}

/// A second name for the same bytes; a copy on a file system that has no hard links.
fn link(from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to)?;
        File::open(to)?.sync_all()?;
    }
    Ok(())
}

fn find(simulator: &Simulator, id: &str) -> Result<Arc<Batch>, ApiError> {
    simulator.store.batch(id).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("No batch found with id '{id}'."))
}

/// `GET /v1/batches`
pub(crate) async fn list(State(simulator): State<Simulator>, Query(query): Query<Vec<(String, String)>>) -> Reply {
    let page = Page::parse(&query, 20, 100)?;
    let after = page.after.as_deref().unwrap_or_default();
    let (batches, more) = simulator
        .store
        .batches_page(&page)
        .ok_or_else(|| ApiError::invalid(format!("No batch found with id '{after}'.")).param("after"))?;
    let records = batches.iter().map(|batch| batch.record()).filter(|record| !view::lags(&simulator, record));
    Ok(Json(wire::list(records.map(|record| view::batch(&simulator, &record)).collect(), more)))
}

/// `GET /v1/batches/{id}`
pub(crate) async fn retrieve(State(simulator): State<Simulator>, Path(id): Path<String>) -> Reply {
    let record = find(&simulator, &id)?.record();
    if view::not_found(&simulator, &record) {
        return Err(unknown(&id));
    }
    Ok(Json(view::batch(&simulator, &record)))
}

/// `POST /v1/batches/{id}/cancel`
pub(crate) async fn cancel(State(simulator): State<Simulator>, Path(id): Path<String>) -> Reply {
    let batch = find(&simulator, &id)?;
    let store = Arc::clone(&simulator.store);
    let change = move || {
        let changed = store.change(&batch, |record| match record.status {
            Status::Validating | Status::InProgress => {
                record.status = Status::Cancelling;
                record.cancelling_at = Some(clock::seconds());
                Ok(())
            }
            Status::Cancelling => Ok(()),
            status => {
                let message = format!("Cannot cancel a batch with status '{}'.", status.name());
                Err(ApiError::invalid(message).status(StatusCode::CONFLICT))
            }
        });
        if changed.is_ok() {
            batch.cancel.cancel();
        }
        Ok(changed)
    };
    let record = simulator.blocking(change).await??;
    Ok(Json(view::batch(&simulator, &record)))
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::internal(error)
    }
}
