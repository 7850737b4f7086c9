//! Faults of requests: what stands before the endpoints and sometimes answers in their place.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde::Deserialize;

use crate::{
    connection::Connection,
    faults::{
        Fault, Operation, Subject,
        fault::{ContentLength, End},
    },
    server::Simulator,
    wire::ApiError,
};

/// A create's body is never longer.
const MAX_CREATE_BYTES: usize = 2 << 20;
/// What was sent before a cut has left by then.
const FLUSH: Duration = Duration::from_millis(50);
/// What a wrong length promises beyond what there is.
const TOO_MANY: u64 = 1_000;

/// Lets a request through, or does to it what the script says.
pub(crate) async fn intercept(State(simulator): State<Simulator>, request: Request, next: Next) -> Response {
    let Some((on, id)) = operation(request.method(), request.uri().path()) else { return next.run(request).await };
    if !simulator.faults.has(on) {
        return next.run(request).await;
    }
    let connection = request.extensions().get::<ConnectInfo<Connection>>().map(|info| info.0.clone());
    let connection = connection.unwrap_or_default();
    let (fault, request) = match strike(&simulator, on, id.as_deref(), request).await {
        Ok(struck) => struck,
        Err(error) => return error.into_response(),
    };
    match fault {
        None => next.run(request).await,
        Some(fault) => act(&simulator, &connection, fault, request, next).await,
    }
}

/// What a request asks for, and of what.
fn operation(method: &Method, path: &str) -> Option<(Operation, Option<String>)> {
    let mut segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    if segments.first() == Some(&"v1") {
        segments.remove(0);
    }
    let (on, id) = match (method.as_str(), segments.as_slice()) {
        ("POST", ["files"]) => (Operation::Upload, None),
        ("GET", ["files"]) => (Operation::ListFiles, None),
        ("GET", ["files", id]) => (Operation::GetFile, Some(id)),
        ("GET", ["files", id, "content"]) => (Operation::Download, Some(id)),
        ("DELETE", ["files", id]) => (Operation::DeleteFile, Some(id)),
        ("POST", ["batches"]) => (Operation::Create, None),
        ("GET", ["batches"]) => (Operation::ListBatches, None),
        ("GET", ["batches", id]) => (Operation::GetBatch, Some(id)),
        ("POST", ["batches", id, "cancel"]) => (Operation::Cancel, Some(id)),
        _ => return None,
    };
    Some((on, id.map(|id| (*id).to_owned())))
}

/// What a create says that conditions can be about.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Order {
    input_file_id: String,
    metadata: BTreeMap<String, String>,
}

/// Asks the script about a request. A create's body is read for that and put back.
async fn strike(
    simulator: &Simulator,
    on: Operation,
    id: Option<&str>,
    request: Request,
) -> Result<(Option<Fault>, Request), ApiError> {
    let filename = |id: &str| simulator.store.file(id).map(|file| file.meta.filename.clone());
    let (order, request) = if on == Operation::Create {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, MAX_CREATE_BYTES).await.map_err(ApiError::internal)?;
        let order: Order = serde_json::from_slice(&body).unwrap_or_default();
        (Some(order), Request::from_parts(parts, Body::from(body)))
    } else {
        (None, request)
    };
    let batch = match on {
        Operation::GetBatch | Operation::Cancel => id.and_then(|id| simulator.store.batch(id)),
        _ => None,
    };
    let record = batch.map(|batch| batch.record());
    let file = match (&order, &record) {
        (Some(order), _) => Some(order.input_file_id.as_str()),
        (None, Some(record)) => Some(record.input_file_id.as_str()),
        (None, None) => id,
    };
    let filename = file.and_then(filename);
    let metadata = match (&order, &record) {
        (Some(order), _) => Some(&order.metadata),
        (None, Some(record)) => record.metadata.as_ref(),
        (None, None) => None,
    };
    let subject = Subject { metadata, filename: filename.as_deref() };
    Ok((simulator.faults.strike(on, &subject), request))
}

async fn act(
    simulator: &Simulator,
    connection: &Connection,
    fault: Fault,
    mut request: Request,
    next: Next,
) -> Response {
    match fault {
        Fault::CreateDroppedBefore {} => dropped(connection),
        Fault::CreateDroppedAfter {} => {
            next.run(request).await;
            dropped(connection)
        }
        Fault::CreateFailed { status, code } => refusal(status, &code, None),
        Fault::CreateFailedAccepted { status } => {
            next.run(request).await;
            refusal(status, "server_error", None)
        }
        Fault::CreateLimited { retry_after } => refusal(429, "rate_limit_exceeded", retry_after),
        Fault::CreateLate { after_ms } => late(simulator, Duration::from_millis(after_ms), request, next).await,
        Fault::UploadRefused { status, code } => {
            // Read to its end, or the client may see a broken connection instead of the answer.
            let mut body = request.into_body().into_data_stream();
            while let Some(Ok(_)) = body.next().await {}
            refusal(status, &code, None)
        }
        Fault::UploadDropped { after_bytes } => {
            let (mut body, mut read) = (request.into_body().into_data_stream(), 0);
            while read < after_bytes
                && let Some(Ok(chunk)) = body.next().await
            {
                read += chunk.len() as u64;
            }
            dropped(connection)
        }
        Fault::DeleteFailed { status } => {
            next.run(request).await;
            refusal(status, "server_error", None)
        }
        Fault::DeleteNotFound { done } => {
            if done {
                next.run(request).await;
            }
            refusal(404, "not_found", None)
        }
        Fault::RequestFails { status, retry_after, .. } => refusal(status, "server_error", retry_after),
        Fault::RangeIgnored {} => {
            request.headers_mut().remove(header::RANGE);
            next.run(request).await
        }
        Fault::DownloadCut { after_bytes, end, content_length } => {
            cut(connection.clone(), next.run(request).await, after_bytes, end, content_length)
        }
        _ => next.run(request).await,
    }
}

/// No answer at all.
fn dropped(connection: &Connection) -> Response {
    connection.cut();
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// An answer in the provider's error shape.
fn refusal(status: u16, code: &str, retry_after: Option<f64>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut error = ApiError::invalid("The fault script wants it so.").status(status).body();
    error["error"]["code"] = code.into();
    let mut response = (status, axum::Json(error)).into_response();
    if let Some(value) = retry_after.and_then(|seconds| HeaderValue::from_str(&seconds.to_string()).ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

/// Holds a request for a time and then serves it, whether or not its client is still there.
async fn late(simulator: &Simulator, after: Duration, request: Request, next: Next) -> Response {
    let stopping = simulator.stopping.clone();
    let served = simulator.tasks.spawn(async move {
        tokio::select! {
            () = stopping.cancelled() => None,
            () = tokio::time::sleep(after) => Some(next.run(request).await),
        }
    });
    served.await.ok().flatten().unwrap_or_else(|| StatusCode::SERVICE_UNAVAILABLE.into_response())
}

/// A download that ends too early.
fn cut(connection: Connection, response: Response, after: u64, end: End, length: ContentLength) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match (length, end) {
        (ContentLength::Right, _) => {}
        (ContentLength::Absent, _) => drop(parts.headers.remove(header::CONTENT_LENGTH)),
        (ContentLength::Wrong, end) => {
            let whole: u64 = announced.unwrap_or(0);
            let wrong = if end == End::Clean { whole.min(after) } else { whole + TOO_MANY };
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(wrong));
        }
    }
    let pieces = stream::unfold(Some((body.into_data_stream(), after)), move |state| {
        let connection = connection.clone();
        async move {
            let (mut body, left) = state?;
            let chunk = if left == 0 { None } else { body.next().await };
            match chunk {
                Some(Ok(chunk)) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                    Some((Ok(chunk.slice(..taken)), Some((body, left - taken as u64))))
                }
                _ if end == End::Clean => None,
                _ => {
                    tokio::time::sleep(FLUSH).await;
                    connection.cut();
                    Some((Err::<Bytes, _>(std::io::Error::other("the fault script cut the download")), None))
                }
            }
        }
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}
