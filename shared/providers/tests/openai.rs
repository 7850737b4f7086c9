//! The OpenAI client against a server that answers from a script, byte for byte: what is sent, how often, and what the
//! caller learns from each reply.

#![allow(clippy::unwrap_used)] // helpers of tests are tests, though clippy sees only `#[test]` functions as such

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use providers::{BatchStatus, ByteStream, CreateOutcome, Deleted, Error, Provider, ProviderSettings, open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const KEY: &str = "sk-canary-0123456789";
const BATCH: &str = r#"{"id":"batch_1","object":"batch","status":"validating","input_file_id":"file-1","created_at":100,"metadata":{"k":"v"}}"#;
const SHAPED: &str = r#"{"error":{"message":"No.","type":"invalid_request_error","param":null,"code":"some_code"}}"#;

/// What the server does with one request.
#[derive(Clone)]
enum Reply {
    /// Writes these bytes and closes.
    Raw(Vec<u8>),
    /// Closes without a word.
    Drop,
    /// Says nothing and keeps the connection open.
    Silence,
}

fn reply(status: u16, headers: &str, body: &str) -> Reply {
    raw(status, headers, body.as_bytes(), body.len())
}

fn raw(status: u16, headers: &str, body: &[u8], announced: usize) -> Reply {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {announced}\r\nConnection: close\r\n{headers}\r\n");
    Reply::Raw([head.as_bytes(), body].concat())
}

/// A request as it came.
#[derive(Debug, Clone)]
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

#[derive(Clone, Default)]
struct Server {
    script: Arc<Mutex<VecDeque<Reply>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// A server that answers so, one reply a request, and a client for it.
    async fn with(replies: impl IntoIterator<Item = Reply>) -> (Self, Arc<dyn Provider>) {
        let server = Self::default();
        server.script.lock().unwrap().extend(replies);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = ProviderSettings {
            api_key: Some(KEY.into()),
            base_url: Some(format!("http://{}/v1", listener.local_addr().unwrap())),
            request_timeout_ms: 2_000,
            ..ProviderSettings::new("openai")
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        (server, open("test", &settings).unwrap())
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let mut seen = Seen { head: String::from_utf8(bytes[..head].to_vec()).unwrap(), body: Vec::new() };
        let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
        while bytes.len() < head + length {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                break;
            }
        }
        seen.body = bytes[head..].to_vec();
        self.seen.lock().unwrap().push(seen);
        let reply = self.script.lock().unwrap().pop_front().unwrap_or_else(|| reply(500, "", "the script is over"));
        match reply {
            Reply::Raw(bytes) => drop(stream.write_all(&bytes).await),
            Reply::Drop => {}
            Reply::Silence => std::future::pending().await,
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("k".to_owned(), "v".to_owned())])
}

/// The outcome of one create, and how many requests it took.
async fn create(answer: Reply) -> (CreateOutcome, Vec<Seen>) {
    let (server, provider) = Server::with([answer, reply(200, "", BATCH)]).await;
    let outcome = provider.create("file-1", &metadata()).await;
    (outcome, server.seen())
}

fn bytes(chunks: &[&'static str]) -> ByteStream {
    stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect::<Vec<_>>()).boxed()
}

#[tokio::test]
async fn a_create_is_one_post_as_documented() {
    let (outcome, seen) = create(reply(200, "", BATCH)).await;
    let CreateOutcome::Accepted(batch) = outcome else { panic!("{outcome:?}") };
    assert_eq!((batch.id.as_str(), batch.status, batch.created_at), ("batch_1", BatchStatus::Queued, 100));
    assert_eq!((batch.input_file.as_deref(), &batch.metadata), (Some("file-1"), &metadata()));
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line(), "POST /v1/batches");
    assert_eq!(seen[0].header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    let expected = serde_json::json!({"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"k": "v"}});
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&seen[0].body).unwrap(), expected);
}

#[tokio::test]
async fn a_create_whose_outcome_is_not_proved_is_unknown_and_never_repeated() {
    let long = "x".repeat(100);
    for (name, answer) in [
        ("dropped", Reply::Drop),
        ("silent", Reply::Silence),
        ("cut head", Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec())),
        ("cut body", raw(200, "", &BATCH.as_bytes()[..50], BATCH.len())),
        ("cut refusal", raw(400, "", SHAPED.as_bytes(), SHAPED.len() + 1)),
        ("500", reply(500, "", SHAPED)),
        ("503", reply(503, "Retry-After: 1\r\n", "")),
        ("502", reply(502, "", "<html>Bad Gateway</html>")),
        ("408", reply(408, "", SHAPED)),
        ("409", reply(409, "", SHAPED)),
        ("429 of a proxy", reply(429, "Retry-After: 1\r\n", "slow down")),
        ("400 of a proxy", reply(400, "", "<html>")),
        ("404 of a proxy", reply(404, "", r#"{"detail":"Not Found"}"#)),
        ("307", reply(307, "Location: /v1/batches\r\n", "")),
        ("302", reply(302, "Location: /v1/batches\r\n", "")),
        ("200 without a batch", reply(200, "", "{}")),
        ("200 without sense", reply(200, "", &long)),
        ("not HTTP", Reply::Raw(b"hello\r\n\r\n".to_vec())),
    ] {
        let (outcome, seen) = create(answer).await;
        assert!(matches!(outcome, CreateOutcome::Unknown { .. }), "{name}: {outcome:?}");
        assert_eq!(seen.len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_create_that_the_provider_refuses_in_its_own_words_is_rejected() {
    for status in [400, 401, 403, 404, 413, 422, 429] {
        let (outcome, seen) = create(reply(status, "Retry-After: 20\r\n", SHAPED)).await;
        let expected = CreateOutcome::Rejected {
            status,
            code: "some_code".to_owned(),
            message: "No.".to_owned(),
            retry_after: Some(Duration::from_secs(20)),
        };
        assert_eq!((outcome, seen.len()), (expected, 1));
    }
}

#[tokio::test]
async fn a_provider_that_can_not_be_reached_leaves_a_create_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let provider = open("test", &ProviderSettings::simulator(base_url)).unwrap();
    assert!(matches!(provider.create("file-1", &metadata()).await, CreateOutcome::Unknown { .. }));
    assert!(provider.get("batch_1").await.unwrap_err().is_transient());
}

#[tokio::test]
async fn creates_share_no_connection() {
    let kept = |body: &str| {
        Reply::Raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    };
    let (server, provider) = Server::with([kept(BATCH), kept(BATCH)]).await;
    for _ in 0..2 {
        assert!(matches!(provider.create("file-1", &metadata()).await, CreateOutcome::Accepted(_)));
    }
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn an_upload_is_streamed_with_its_exact_length() {
    let (server, provider) = Server::with([reply(
        200,
        "",
        r#"{"id":"file-1","object":"file","bytes":12,"created_at":77,"filename":"n","purpose":"batch"}"#,
    )])
    .await;
    let file = provider.upload("job-00000001-a1.jsonl", 12, bytes(&["first\n", "", "other\n"])).await.unwrap();
    assert_eq!((file.id.as_str(), file.created_at), ("file-1", 77));
    let seen = server.seen().remove(0);
    assert_eq!(seen.line(), "POST /v1/files");
    assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()));
    assert_eq!(seen.header("transfer-encoding"), None);
    let body = String::from_utf8(seen.body).unwrap();
    assert!(body.contains("name=\"purpose\"\r\n\r\nbatch\r\n"), "{body}");
    assert!(
        body.contains("name=\"file\"; filename=\"job-00000001-a1.jsonl\"")
            && body.contains("\r\n\r\nfirst\nother\n\r\n--"),
        "{body}"
    );
}

#[tokio::test]
async fn a_stream_that_is_not_as_promised_is_the_callers_fault() {
    let failing: ByteStream =
        stream::iter([Ok(Bytes::from_static(b"first\n")), Err(std::io::Error::other("disk gone"))]).boxed();
    for (name, body, expected) in [
        ("short", bytes(&["first\n"]), "6 bytes"),
        ("long", bytes(&["first\n", "second\n"]), "more than"),
        ("failing", failing, "disk gone"),
    ] {
        let (_server, provider) = Server::with([reply(200, "", "{}")]).await;
        let error = provider.upload("n", 12, body).await.unwrap_err();
        assert!(matches!(&error, Error::Source(fault) if fault.contains(expected)), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_cut_download_resumes_where_it_broke_off() {
    let content = b"0123456789";
    let (server, provider) = Server::with([
        raw(200, "", &content[..4], content.len()),
        raw(206, "Content-Range: bytes 4-9/10\r\n", &content[4..], 6),
    ])
    .await;
    let mut got = Vec::new();
    let mut first = provider.download("file-1", 0).await.unwrap();
    assert_eq!(first.total, Some(10));
    let error = loop {
        match first.stream.next().await.unwrap() {
            Ok(chunk) => got.extend_from_slice(&chunk),
            Err(error) => break error,
        }
    };
    assert!(error.is_transient());
    assert!(first.stream.next().await.is_none());
    assert_eq!(got, b"0123");
    let mut second = provider.download("file-1", 4).await.unwrap();
    assert_eq!(second.total, Some(10));
    while let Some(chunk) = second.stream.next().await {
        got.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(got, content);
    let seen = server.seen();
    assert_eq!((seen[0].line(), seen[0].header("range")), ("GET /v1/files/file-1/content", None));
    assert_eq!(seen[1].header("range"), Some("bytes=4-"));
    assert_eq!(seen[1].header("accept-encoding"), Some("identity"));
}

/// The bytes of a download from byte 4, up to an error.
async fn from_4(answer: Reply) -> Result<(Vec<u8>, Option<u64>, bool), Error> {
    let (_server, provider) = Server::with([answer]).await;
    let mut download = provider.download("file-1", 4).await?;
    let (mut got, mut whole) = (Vec::new(), true);
    while let Some(chunk) = download.stream.next().await {
        match chunk {
            Ok(chunk) => got.extend_from_slice(&chunk),
            Err(_) => whole = false,
        }
    }
    Ok((got, download.total, whole))
}

#[tokio::test]
async fn every_answer_to_a_range_gives_the_right_bytes_or_an_error() {
    let chunked = |end: &str| {
        Reply::Raw(
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n012\r\n4\r\n3456\r\n{end}").into_bytes(),
        )
    };
    assert_eq!(from_4(reply(200, "", "0123456")).await, Ok((b"456".to_vec(), Some(7), true)), "a range ignored");
    assert_eq!(from_4(chunked("0\r\n\r\n")).await, Ok((b"456".to_vec(), None, true)), "no length");
    assert_eq!(from_4(chunked("")).await.map(|(.., whole)| whole), Ok(false), "chunks without an end");
    assert_eq!(from_4(reply(200, "", "012")).await, Ok((Vec::new(), Some(3), false)), "a file shorter than asked for");
    assert_eq!(
        from_4(reply(416, "Content-Range: bytes */4\r\n", "")).await,
        Ok((Vec::new(), Some(4), true)),
        "the file's end"
    );
    assert_eq!(
        from_4(reply(206, "Content-Range: bytes 4-5/9\r\n", "45")).await,
        Ok((b"45".to_vec(), Some(9), false)),
        "less than the rest"
    );
    for wrong in [
        reply(416, "Content-Range: bytes */3\r\n", ""),
        reply(416, "", ""),
        reply(206, "Content-Range: bytes 0-3/4\r\n", "0123"),
        reply(206, "", "4"),
    ] {
        assert!(matches!(from_4(wrong).await, Err(Error::Rejected { .. })));
    }
    assert!(matches!(from_4(reply(404, "", SHAPED)).await, Err(Error::NotFound { .. })));
    assert!(from_4(reply(503, "", "")).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn only_the_providers_word_counts_for_a_delete() {
    let deleted = |answer| async move {
        let (server, provider) = Server::with([answer]).await;
        let result = provider.delete_file("file-1").await;
        assert_eq!(server.seen()[0].line(), "DELETE /v1/files/file-1");
        result
    };
    assert_eq!(
        deleted(reply(200, "", r#"{"id":"file-1","object":"file","deleted":true}"#)).await,
        Ok(Deleted::Deleted)
    );
    assert_eq!(deleted(reply(404, "", SHAPED)).await, Ok(Deleted::NotFound));
    for unproved in [
        reply(404, "", "<html>no such host</html>"),
        reply(200, "", r#"{"id":"file-1","deleted":false}"#),
        reply(500, "", SHAPED),
        reply(302, "Location: /\r\n", ""),
        Reply::Drop,
    ] {
        assert!(deleted(unproved).await.unwrap_err().is_transient());
    }
    assert!(matches!(deleted(reply(403, "", SHAPED)).await, Err(Error::Auth { status: 403, .. })));
}

#[tokio::test]
async fn batches_are_listed_page_by_page() {
    let page = |ids: &[u32], more: bool| {
        let data: Vec<String> =
            ids.iter().map(|id| format!(r#"{{"id":"b{id}","created_at":{id},"status":"completed"}}"#)).collect();
        reply(200, "", &format!(r#"{{"object":"list","data":[{}],"has_more":{more}}}"#, data.join(",")))
    };
    let (server, provider) = Server::with([page(&[3, 2], true), page(&[1], false), reply(502, "", "")]).await;
    let first = provider.list_batches(None).await.unwrap();
    assert_eq!(first.next.as_deref(), Some("b2"));
    let second = provider.list_batches(first.next.as_deref()).await.unwrap();
    assert_eq!(second.next, None);
    let ids: Vec<String> = first.batches.into_iter().chain(second.batches).map(|batch| batch.id).collect();
    assert_eq!(ids, ["b3", "b2", "b1"]);
    assert!(provider.list_batches(None).await.unwrap_err().is_transient());
    let lines: Vec<String> = server.seen().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(lines[..2], ["GET /v1/batches?limit=100", "GET /v1/batches?limit=100&after=b2"]);
}

#[tokio::test]
async fn files_are_listed_by_name_newest_first() {
    let body = r#"{"object":"list","data":[{"id":"file-2","created_at":5,"filename":"b.jsonl"},{"id":"file-1","created_at":4}],"has_more":false}"#;
    let (server, provider) = Server::with([reply(200, "", body)]).await;
    let page = provider.list_files(Some("file-3")).await.unwrap();
    assert_eq!((page.files[0].name.as_str(), page.files[1].name.as_str(), page.next), ("b.jsonl", "", None));
    assert_eq!(server.seen()[0].line(), "GET /v1/files?purpose=batch&order=desc&limit=1000&after=file-3");
}

#[tokio::test]
async fn a_look_at_a_batch_says_what_to_do_next() {
    let look = |answer| async move { Server::with([answer]).await.1.get("batch_1").await };
    assert_eq!(look(reply(200, "", BATCH)).await.unwrap().id, "batch_1");
    let limited = look(reply(429, "Retry-After: 3\r\n", SHAPED)).await.unwrap_err();
    assert!(matches!(limited, Error::RateLimited { .. }));
    assert_eq!(limited.retry_after(), Some(Duration::from_secs(3)));
    let busy = look(reply(503, "Retry-After: 4\r\n", "")).await.unwrap_err();
    assert!(busy.is_transient());
    assert_eq!(busy.retry_after(), Some(Duration::from_secs(4)));
    assert!(look(Reply::Drop).await.unwrap_err().is_transient());
    assert!(look(reply(200, "", "{")).await.unwrap_err().is_transient());
    assert!(matches!(look(reply(404, "", SHAPED)).await, Err(Error::NotFound { .. })));
    assert!(matches!(look(reply(400, "", SHAPED)).await, Err(Error::Rejected { status: 400, .. })));
}

#[tokio::test]
async fn a_cancel_is_a_post_to_the_batch() {
    let (server, provider) =
        Server::with([reply(200, "", &BATCH.replace("validating", "cancelling")), reply(409, "", SHAPED)]).await;
    assert_eq!(provider.cancel("batch_1").await.unwrap().status, BatchStatus::Cancelling);
    assert!(matches!(provider.cancel("batch_1").await, Err(Error::Rejected { status: 409, .. })));
    assert_eq!(server.seen()[0].line(), "POST /v1/batches/batch_1/cancel");
}

#[tokio::test]
async fn no_error_carries_the_key() {
    let echo = format!(r#"{{"error":{{"message":"Incorrect API key provided: {KEY}.","code":"{KEY}"}}}}"#);
    for status in [400, 401, 404, 429, 500] {
        let (_server, provider) = Server::with(vec![reply(status, "", &echo); 3]).await;
        let errors = format!(
            "{:?} {:?} {:?}",
            provider.get("b").await.unwrap_err(),
            provider.download("f", 0).await.unwrap_err(),
            provider.create("f", &metadata()).await
        );
        assert!(!errors.contains("canary"), "{errors}");
    }
}

#[tokio::test]
async fn without_a_key_none_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider =
        open("sim", &ProviderSettings::simulator(format!("http://{}/v1", listener.local_addr().unwrap()))).unwrap();
    let server = Server::default();
    server.script.lock().unwrap().push_back(reply(200, "", BATCH));
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener.accept().await.unwrap().0).await });
    provider.get("batch_1").await.unwrap();
    assert_eq!(server.seen()[0].header("authorization"), None);
}
