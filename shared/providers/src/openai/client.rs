//! The calls, on reqwest.
//!
//! Two connection pools. `calls` is for everything that may be asked again. `sends` carries uploads and creates, and is set
//! up so that nothing can send a create twice behind our back: no kept connection (a stale one makes HTTP libraries try
//! again), HTTP/1.1 (HTTP/2 streams may be refused and repeated), no retry policy, no redirect. Neither follows redirects:
//! the key goes to no host but the one in the settings.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use model::spec::Request;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, multipart, redirect, retry};
use secrecy::{ExposeSecret, SecretString};

use super::errors::{self, Refused};
use super::streams;
use super::{ENDPOINT, Encoder, decode, wire};
use crate::provider::{
    Answer, BadLine, ByteStream, Class, CreateOutcome, Deleted, Download, Encode, EncodeError, Error, FilePage, Limits,
    Outcome, Page, Provider, ProviderBatch, Result, UploadedFile,
};
use crate::registry::{PollSchedule, ProviderSettings};

/// Where OpenAI itself is.
const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";
/// The most bytes of a reply that is no file. A page of a hundred batches with full metadata is about 1 MB.
const MAX_REPLY_BYTES: usize = 16 * 1024 * 1024;
/// Entries of a page of batches; the API's own limit.
const PAGE: &str = "100";
/// The slowest upload that is waited for, in bytes a second.
const SLOWEST_UPLOAD: u64 = 256 * 1024;

/// A client of one account.
pub struct Client {
    calls: reqwest::Client,
    sends: reqwest::Client,
    base: Url,
    key: Option<SecretString>,
    timeout: Duration,
    poll: PollSchedule,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client with these settings. Nothing is sent.
    ///
    /// # Errors
    /// What is wrong with the settings, without showing an address or a key.
    pub fn new(settings: &ProviderSettings) -> Result<Self, String> {
        let base = base_url(settings.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL))?;
        let key = settings.api_key.clone().filter(|key| !key.expose_secret().trim().is_empty());
        let mut headers = HeaderMap::new();
        // Ranges count the bytes of the file as it is, so it must not come compressed.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(key) = &key {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret().trim()));
            let mut bearer = bearer.map_err(|_| {
                "api_key has characters that no HTTP header may have: check it for line ends".to_owned()
            })?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let timeout = Duration::from_millis(settings.request_timeout_ms.max(1));
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("batchmill/", env!("CARGO_PKG_VERSION")))
                .default_headers(headers.clone())
                .connect_timeout(Duration::from_millis(settings.connect_timeout_ms.max(1)))
                .redirect(redirect::Policy::none())
                .retry(retry::never())
                .referer(false)
        };
        let failed = |error: reqwest::Error| format!("the HTTP client can't be set up: {}", errors::network(error));
        Ok(Self {
            calls: builder().read_timeout(timeout).build().map_err(failed)?,
            sends: builder().pool_max_idle_per_host(0).http1_only().build().map_err(failed)?,
            base,
            key,
            timeout,
            poll: settings.poll,
        })
    }

    /// The address of a path below the base, each segment escaped.
    fn url(&self, segments: &[&str]) -> Result<Url> {
        let fits = |segment: &&str| !segment.is_empty() && *segment != "." && *segment != ".." && segment.len() <= 256;
        if !segments.iter().all(fits) {
            return Err(Error::NotFound { message: "an empty or impossible id".to_owned() });
        }
        let mut url = self.base.clone();
        // The base was checked: it can have a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        Ok(url)
    }

    fn call(&self, method: Method, segments: &[&str]) -> Result<RequestBuilder> {
        Ok(self.calls.request(method, self.url(segments)?).timeout(self.timeout))
    }

    /// Sends a call that may be asked again, and gives its reply's body if it is a success.
    async fn reply(&self, request: RequestBuilder) -> Result<Bytes> {
        let response = request.send().await.map_err(|error| self.lost(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(response).await;
        if status.is_success() {
            body
        } else {
            Err(self.scrubbed(errors::error_of(status, &headers, &body.unwrap_or_default())))
        }
    }

    /// Reads a reply to its end, as far as [`MAX_REPLY_BYTES`].
    async fn body(&self, mut response: Response) -> Result<Bytes> {
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(error))? {
            if body.len() + chunk.len() > MAX_REPLY_BYTES {
                return Err(Error::Retry {
                    what: format!("the provider's reply is longer than {MAX_REPLY_BYTES} bytes"),
                    retry_after: None,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn lost(&self, error: reqwest::Error) -> Error {
        Error::Retry { what: self.scrub(errors::network(error)), retry_after: None }
    }

    /// The text without the key, should the provider have repeated it.
    fn scrub(&self, text: String) -> String {
        match &self.key {
            Some(key) if text.contains(key.expose_secret().trim()) => text.replace(key.expose_secret().trim(), "[key]"),
            _ => text,
        }
    }

    fn scrubbed(&self, error: Error) -> Error {
        match error {
            Error::Retry { what, retry_after } => Error::Retry { what: self.scrub(what), retry_after },
            Error::RateLimited { message, retry_after } => {
                Error::RateLimited { message: self.scrub(message), retry_after }
            }
            Error::Auth { status, message } => Error::Auth { status, message: self.scrub(message) },
            Error::NotFound { message } => Error::NotFound { message: self.scrub(message) },
            Error::Rejected { status, code, message } => {
                Error::Rejected { status, code: self.scrub(code), message: self.scrub(message) }
            }
            other @ (Error::Source(_) | Error::Unsupported(_)) => other,
        }
    }

    /// The batch without the key, should the provider have repeated it.
    fn scrubbed_batch(&self, mut batch: ProviderBatch) -> ProviderBatch {
        for error in &mut batch.errors {
            error.code = self.scrub(std::mem::take(&mut error.code));
            error.message = self.scrub(std::mem::take(&mut error.message));
        }
        batch
    }

    async fn list(&self, segment: &str, query: &[(&str, &str)], after: Option<&str>) -> Result<Bytes> {
        let mut url = self.url(&[segment])?;
        url.query_pairs_mut().extend_pairs(query);
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("after", after);
        }
        self.reply(self.calls.get(url).timeout(self.timeout)).await
    }

    /// What the reply to a create proves.
    async fn created(&self, response: Response) -> CreateOutcome {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = match self.body(response).await {
            Ok(body) => body,
            Err(error) => return CreateOutcome::Unknown { reason: format!("HTTP {}, then {error}", status.as_u16()) },
        };
        if status.is_success() {
            return match wire::batch(&body) {
                Ok(batch) => CreateOutcome::Accepted(Box::new(self.scrubbed_batch(batch))),
                Err(error) => CreateOutcome::Unknown { reason: format!("HTTP {}, but {error}", status.as_u16()) },
            };
        }
        match (status.as_u16(), errors::refused(&body)) {
            (status @ (400 | 401 | 403 | 404 | 413 | 422 | 429), Some(Refused { code, message })) => {
                CreateOutcome::Rejected {
                    status,
                    code: self.scrub(code),
                    message: self.scrub(message),
                    retry_after: errors::retry_after(&headers),
                }
            }
            (status, _) => CreateOutcome::Unknown { reason: format!("HTTP {status}") },
        }
    }
}

fn base_url(text: &str) -> Result<Url, String> {
    let wrong = || {
        "base_url is not an http:// or https:// address without credentials and query, as in https://api.openai.com/v1"
            .to_owned()
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if plain && url.has_host() && matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(wrong()) }
}

#[async_trait]
impl Provider for Client {
    fn class(&self) -> Class {
        Class::B
    }

    fn limits(&self) -> Limits {
        // The API reference: 50,000 requests and 200 MB a file. No limit of a line is documented.
        Limits {
            max_rows: model::spec::MAX_BATCH_ROWS,
            max_bytes: model::spec::MAX_BATCH_BYTES,
            max_line_bytes: 16 * 1024 * 1024,
        }
    }

    fn poll_schedule(&self) -> PollSchedule {
        self.poll
    }

    fn encoder(&self, request: &Request) -> Result<Box<dyn Encode>, EncodeError> {
        Ok(Box::new(Encoder::new(request)?))
    }

    fn line_id<'l>(&self, line: &'l [u8]) -> Option<Cow<'l, str>> {
        decode::line_id(line)
    }

    fn decode_line<'l>(&self, line: &'l [u8]) -> Result<Answer<'l>, BadLine> {
        let mut answer = decode::decode_line(line)?;
        if let Outcome::Failed { message, .. } = &mut answer.outcome {
            *message = Cow::Owned(self.scrub(std::mem::take(message).into_owned()));
        }
        Ok(answer)
    }

    async fn upload(&self, name: &str, length: u64, body: ByteStream) -> Result<UploadedFile> {
        let (body, source) = streams::exact(body, length);
        let file = multipart::Part::stream_with_length(reqwest::Body::wrap_stream(body), length)
            .file_name(name.to_owned())
            .mime_str("application/jsonl")
            .map_err(|error| self.lost(error))?;
        let form = multipart::Form::new().text("purpose", "batch").part("file", file);
        let patience = self.timeout + Duration::from_secs(length / SLOWEST_UPLOAD);
        let sent = self.reply(self.sends.post(self.url(&["files"])?).multipart(form).timeout(patience)).await;
        match (sent, source.fault()) {
            (_, Some(fault)) => Err(Error::Source(fault)),
            (sent, None) => wire::file(&sent?),
        }
    }

    async fn delete_file(&self, id: &str) -> Result<Deleted> {
        match self.reply(self.call(Method::DELETE, &["files", id])?).await {
            Ok(body) if wire::says_not_deleted(&body) => Err(Error::Retry {
                what: "the provider says that the file is not deleted".to_owned(),
                retry_after: None,
            }),
            Ok(_) => Ok(Deleted::Deleted),
            Err(Error::NotFound { .. }) => Ok(Deleted::NotFound),
            Err(error) => Err(error),
        }
    }

    async fn file_bytes(&self, id: &str) -> Result<Option<u64>> {
        Ok(wire::file_bytes(&self.reply(self.call(Method::GET, &["files", id])?).await?))
    }

    async fn list_files(&self, after: Option<&str>) -> Result<FilePage> {
        wire::files(&self.list("files", &[("purpose", "batch"), ("order", "desc"), ("limit", "1000")], after).await?)
    }

    async fn list_batches(&self, after: Option<&str>) -> Result<Page> {
        let page = wire::batches(&self.list("batches", &[("limit", PAGE)], after).await?)?;
        let batches = page.batches.into_iter().map(|batch| self.scrubbed_batch(batch)).collect();
        Ok(Page { batches, ..page })
    }

    async fn create(&self, file_id: &str, metadata: &BTreeMap<String, String>) -> CreateOutcome {
        let body = serde_json::json!({
            "input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": "24h", "metadata": metadata,
        });
        let url = match self.url(&["batches"]) {
            Ok(url) => url,
            Err(error) => return CreateOutcome::Unknown { reason: error.to_string() },
        };
        match self.sends.post(url).json(&body).timeout(self.timeout).send().await {
            Ok(response) => self.created(response).await,
            Err(error) => CreateOutcome::Unknown { reason: self.scrub(errors::network(error)) },
        }
    }

    async fn get(&self, id: &str) -> Result<ProviderBatch> {
        wire::batch(&self.reply(self.call(Method::GET, &["batches", id])?).await?)
            .map(|batch| self.scrubbed_batch(batch))
    }

    async fn cancel(&self, id: &str) -> Result<ProviderBatch> {
        let cancelled = wire::batch(&self.reply(self.call(Method::POST, &["batches", id, "cancel"])?).await?)?;
        Ok(self.scrubbed_batch(cancelled))
    }

    async fn download(&self, file_id: &str, from: u64) -> Result<Download> {
        // No time-out for the whole: only between two reads.
        let mut request = self.calls.get(self.url(&["files", file_id, "content"])?);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = request.send().await.map_err(|error| self.lost(error))?;
        let range = ContentRange::of(&response);
        let (skip, total) = match (response.status(), range) {
            (StatusCode::PARTIAL_CONTENT, Some(range)) if range.first == Some(from) => (0, range.total),
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(ContentRange { total: Some(total), .. })) if total == from => {
                return Ok(Download { stream: stream::empty().boxed(), total: Some(total) });
            }
            // A server may ignore a range and send all of it.
            (StatusCode::OK, _) => (from, response.content_length()),
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, _) => {
                return Err(Error::Rejected {
                    status: response.status().as_u16(),
                    code: "range".to_owned(),
                    message: format!(
                        "the file has no bytes from {from} on, or the provider sent others: download it from its start"
                    ),
                });
            }
            (status, _) => {
                let headers = response.headers().clone();
                let body = self.body(response).await.unwrap_or_default();
                return Err(self.scrubbed(errors::error_of(status, &headers, &body)));
            }
        };
        let key = self.key.clone();
        let lost = move |error: reqwest::Error| {
            let what = errors::network(error);
            let what =
                key.as_ref().map_or_else(|| what.clone(), |key| what.replace(key.expose_secret().trim(), "[key]"));
            Error::Retry { what, retry_after: None }
        };
        let chunks = response.bytes_stream().map(move |chunk| chunk.map_err(&lost));
        Ok(Download { stream: streams::counted(chunks.boxed(), skip, from, total), total })
    }
}

/// `Content-Range: bytes 5-9/10`, or `bytes */10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    first: Option<u64>,
    total: Option<u64>,
}

impl ContentRange {
    fn of(response: &Response) -> Option<Self> {
        Self::parse(response.headers().get(CONTENT_RANGE)?.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        Some(Self {
            first: range.split_once('-').and_then(|(first, _)| first.trim().parse().ok()),
            total: total.trim().parse().ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let range = |first, total| Some(ContentRange { first, total });
        assert_eq!(ContentRange::parse("bytes 5-9/10"), range(Some(5), Some(10)));
        assert_eq!(ContentRange::parse("bytes 5-9/*"), range(Some(5), None));
        assert_eq!(ContentRange::parse("bytes */10"), range(None, Some(10)));
        assert_eq!(ContentRange::parse("items 5-9/10"), None);
    }

    #[test]
    fn ids_can_not_leave_their_path() {
        let settings =
            ProviderSettings { base_url: Some("https://host/v1/".to_owned()), ..ProviderSettings::new("openai") };
        let client = Client::new(&settings).unwrap();
        assert_eq!(
            client.url(&["files", "file-1", "content"]).unwrap().as_str(),
            "https://host/v1/files/file-1/content"
        );
        assert_eq!(client.url(&["files", "a/../b?c#d"]).unwrap().as_str(), "https://host/v1/files/a%2F..%2Fb%3Fc%23d");
        for id in ["", ".", "..", &"x".repeat(300)] {
            assert!(client.url(&["files", id]).is_err(), "{id}");
        }
    }

    #[test]
    fn a_client_shows_no_key() {
        let settings = ProviderSettings { api_key: Some("sk-canary".into()), ..ProviderSettings::new("openai") };
        let client = Client::new(&settings).unwrap();
        assert!(!format!("{client:?}").contains("canary"));
        assert_eq!(
            client.scrub("Incorrect API key provided: sk-canary.".to_owned()),
            "Incorrect API key provided: [key]."
        );
        assert!(
            Client::new(&ProviderSettings { api_key: Some("a\nb".into()), ..ProviderSettings::new("openai") }).is_err()
        );
    }
}
