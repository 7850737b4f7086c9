//! `/v1/files`: upload, list, describe, download, delete. Bytes are streamed both ways.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{
        Multipart, Path, Query, State,
        multipart::{Field, MultipartRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, BufWriter};
use tokio_util::io::ReaderStream;

use crate::{
    clock, folder,
    records::{FileMeta, StoredFile},
    server::Simulator,
    wire::{self, ApiError, MAX_FILE_BYTES, Page, Reply},
};

/// Buffer for bytes on their way to and from disk.
const BUFFER: usize = 1 << 20;
/// Batch inputs live this long unless the upload says otherwise.
const BATCH_FILE_SECONDS: u64 = 30 * 24 * 3600;
const PURPOSES: [&str; 6] = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"];

/// An upload on its way. Dropped before it is kept (a refusal, a client that went away), it takes its bytes with it.
struct Upload {
    id: String,
    seq: u64,
    path: PathBuf,
    kept: bool,
    file: Option<(String, u64)>,
    purpose: Option<String>,
    expires_after: (Option<String>, Option<String>),
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = folder::remove(&self.path)
        {
            tracing::warn!("an unfinished upload stays on disk until the next start: {error}");
        }
    }
}

/// `POST /v1/files`
pub(crate) async fn upload(State(simulator): State<Simulator>, form: Result<Multipart, MultipartRejection>) -> Reply {
    let mut form = form.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
    let seq = simulator.store.next_seq();
    let id = simulator.store.id("file-", &seq.to_string());
    let path = simulator.store.data_path(&id);
    let mut upload = Upload { id, seq, path, kept: false, file: None, purpose: None, expires_after: (None, None) };
    while let Some(field) = form.next_field().await.map_err(unreadable)? {
        match field.name() {
            Some("file") => upload.receive(field).await?,
            Some("purpose") => upload.purpose = Some(field.text().await.map_err(unreadable)?),
            Some("expires_after[anchor]") => upload.expires_after.0 = Some(field.text().await.map_err(unreadable)?),
            Some("expires_after[seconds]") => upload.expires_after.1 = Some(field.text().await.map_err(unreadable)?),
            _ => {}
        }
    }
    let meta = upload.meta()?;
    let reply = wire::file(&meta);
    simulator.faults.uploaded(&meta.id, &meta.filename);
    let store = Arc::clone(&simulator.store);
    simulator.blocking(move || store.add_file(meta)).await?;
    upload.kept = true;
    Ok(Json(reply))
}

fn unreadable(error: axum::extract::multipart::MultipartError) -> ApiError {
    ApiError::invalid(format!("We could not read the multipart form: {}", error.body_text())).status(error.status())
}

impl Upload {
    /// Streams the form's file to disk.
    async fn receive(&mut self, mut field: Field<'_>) -> Result<(), ApiError> {
        let Some(name) = field.file_name().map(str::to_owned) else {
            return Err(ApiError::invalid("Invalid 'file': it must be a file with a name, not text.").param("file"));
        };
        let file = tokio::fs::File::create(&self.path).await.map_err(ApiError::internal)?;
        let mut out = BufWriter::with_capacity(BUFFER, file);
        let mut bytes = 0;
        while let Some(chunk) = field.chunk().await.map_err(unreadable)? {
            bytes += chunk.len() as u64;
            if bytes > MAX_FILE_BYTES {
                let error = ApiError::invalid(format!("File is too large: the limit is {MAX_FILE_BYTES} bytes."));
                return Err(error.param("file").status(StatusCode::PAYLOAD_TOO_LARGE));
            }
            out.write_all(&chunk).await.map_err(ApiError::internal)?;
        }
        out.flush().await.map_err(ApiError::internal)?;
        self.file = Some((name, bytes));
        Ok(())
    }

    /// The file's description, if the form was complete and right.
    fn meta(&self) -> Result<FileMeta, ApiError> {
        let purpose = self.purpose.as_deref().ok_or_else(|| ApiError::missing("purpose"))?;
        let (filename, bytes) = self.file.clone().ok_or_else(|| ApiError::missing("file"))?;
        if !PURPOSES.contains(&purpose) {
            let message = format!("Invalid value: '{purpose}'. Supported values are: {}.", PURPOSES.join(", "));
            return Err(ApiError::invalid(message).param("purpose").code("invalid_value"));
        }
        if purpose == "batch" && !filename.ends_with(".jsonl") {
            let message = format!("Invalid file format for Batch API: '{filename}'. Must be .jsonl");
            return Err(ApiError::invalid(message).param("file"));
        }
        let created_at = clock::seconds();
        let seconds = self.lifetime()?.or((purpose == "batch").then_some(BATCH_FILE_SECONDS));
        Ok(FileMeta {
            id: self.id.clone(),
            seq: self.seq,
            bytes,
            created_at,
            expires_at: seconds.map(|seconds| created_at + seconds),
            filename,
            purpose: purpose.to_owned(),
        })
    }

    fn lifetime(&self) -> Result<Option<u64>, ApiError> {
        let (anchor, seconds) = match &self.expires_after {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(ApiError::missing("expires_after.anchor")),
            (Some(_), None) => return Err(ApiError::missing("expires_after.seconds")),
            (Some(anchor), Some(seconds)) => (anchor, seconds),
        };
        lifetime("expires_after", anchor, seconds.parse().ok()).map(Some)
    }
}

/// Checks an expiry policy: `created_at`, and one hour to thirty days.
pub(crate) fn lifetime(param: &str, anchor: &str, seconds: Option<u64>) -> Result<u64, ApiError> {
    if anchor != "created_at" {
        let error = ApiError::invalid(format!("Invalid value: '{anchor}'. Supported values are: 'created_at'."));
        return Err(error.param(format!("{param}.anchor")).code("invalid_value"));
    }
    seconds.filter(|seconds| (3600..=BATCH_FILE_SECONDS).contains(seconds)).ok_or_else(|| {
        let message = format!("Invalid '{param}.seconds': expected an integer from 3600 to {BATCH_FILE_SECONDS}.");
        ApiError::invalid(message).param(format!("{param}.seconds")).code("invalid_value")
    })
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("No such File object: {id}")).param("id")
}

/// The file, unless it is not to be found for a while.
fn seen(simulator: &Simulator, id: &str) -> Result<Arc<StoredFile>, ApiError> {
    let file = find(simulator, id)?;
    if simulator.faults.hides(id) { Err(unknown(id)) } else { Ok(file) }
}

fn find(simulator: &Simulator, id: &str) -> Result<Arc<StoredFile>, ApiError> {
    simulator.store.file(id).ok_or_else(|| unknown(id))
}

/// `GET /v1/files`
pub(crate) async fn list(State(simulator): State<Simulator>, Query(query): Query<Vec<(String, String)>>) -> Reply {
    let page = Page::parse(&query, 10_000, 10_000)?;
    let after = page.after.as_deref().unwrap_or_default();
    let (files, more) = simulator
        .store
        .files_page(&page)
        .ok_or_else(|| ApiError::invalid(format!("No such File object: {after}")).param("after"))?;
    Ok(Json(wire::list(files.iter().map(|file| wire::file(&file.meta)).collect(), more)))
}

/// `GET /v1/files/{id}`
pub(crate) async fn retrieve(State(simulator): State<Simulator>, Path(id): Path<String>) -> Reply {
    Ok(Json(wire::file(&seen(&simulator, &id)?.meta)))
}

/// `GET /v1/files/{id}/content`
pub(crate) async fn content(
    State(simulator): State<Simulator>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let stored = seen(&simulator, &id)?;
    let len = stored.meta.bytes;
    let (status, first, count) = match wire::Range::parse(&headers, len) {
        wire::Range::Whole => (StatusCode::OK, 0, len),
        wire::Range::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        wire::Range::Unsatisfiable => {
            let error = ApiError::invalid(format!("The requested range is not satisfiable: the file has {len} bytes."));
            let reply = error.status(StatusCode::RANGE_NOT_SATISFIABLE).into_response();
            return Ok(([(header::CONTENT_RANGE, format!("bytes */{len}"))], reply).into_response());
        }
    };
    let mut file = match tokio::fs::File::open(simulator.store.data_path(&id)).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(unknown(&id)),
        opened => opened.map_err(ApiError::internal)?,
    };
    file.seek(std::io::SeekFrom::Start(first)).await.map_err(ApiError::internal)?;
    let mut reply = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{id}\""))
        .header(header::CONTENT_LENGTH, count);
    if status == StatusCode::PARTIAL_CONTENT {
        reply = reply.header(header::CONTENT_RANGE, format!("bytes {first}-{}/{len}", first + count - 1));
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(count), BUFFER));
    reply.body(body).map_err(ApiError::internal)
}

/// `DELETE /v1/files/{id}`. When this is answered, no create for the file can be accepted any more.
pub(crate) async fn delete(State(simulator): State<Simulator>, Path(id): Path<String>) -> Reply {
    let stored = find(&simulator, &id)?;
    let mut deleted = Arc::clone(&stored.gate).write_owned().await;
    if *deleted {
        return Err(unknown(&id));
    }
    let (store, name) = (Arc::clone(&simulator.store), id.clone());
    let removal = simulator.blocking(move || {
        store.remove_file(&name)?;
        *deleted = true;
        Ok(())
    });
    removal.await?;
    Ok(Json(json!({"id": id, "object": "file", "deleted": true})))
}
