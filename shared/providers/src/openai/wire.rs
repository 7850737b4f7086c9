//! The objects of the Files and Batches API as they really arrive. Only ids and creation times are asked for: they are what
//! the fence against double billing stands on. Everything else may be missing, null or of another type.

use std::collections::BTreeMap;

use model::Tokens;
use serde::Deserialize;

use super::errors::shortened;
use super::lenient::{LooseList, LooseObject, Text};
use crate::provider::{BatchError, BatchStatus, Error, FileEntry, FilePage, Page, ProviderBatch, Result, UploadedFile};

/// Errors of a batch that are kept.
const MAX_BATCH_ERRORS: usize = 100;

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct File<'a> {
    #[serde(default)]
    id: Text<'a>,
    #[serde(default)]
    created_at: Text<'a>,
    #[serde(default)]
    filename: Text<'a>,
    #[serde(default)]
    bytes: Text<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Batch<'a> {
    #[serde(default)]
    id: Text<'a>,
    #[serde(default)]
    status: Text<'a>,
    #[serde(default)]
    created_at: Text<'a>,
    #[serde(default)]
    expires_at: Text<'a>,
    #[serde(default)]
    input_file_id: Text<'a>,
    #[serde(default)]
    output_file_id: Text<'a>,
    #[serde(default)]
    error_file_id: Text<'a>,
    #[serde(default)]
    metadata: LooseObject<'a, BTreeMap<String, Text<'a>>>,
    #[serde(default)]
    errors: LooseObject<'a, Faults<'a>>,
    #[serde(default)]
    request_counts: LooseObject<'a, RequestCounts<'a>>,
    #[serde(default)]
    usage: LooseObject<'a, Usage<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Faults<'a> {
    #[serde(default)]
    data: LooseList<'a, LooseObject<'a, Fault<'a>>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Fault<'a> {
    #[serde(default)]
    code: Text<'a>,
    #[serde(default)]
    message: Text<'a>,
    #[serde(default)]
    line: Text<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct RequestCounts<'a> {
    #[serde(default)]
    total: Text<'a>,
    #[serde(default)]
    completed: Text<'a>,
    #[serde(default)]
    failed: Text<'a>,
}

/// Usage of a batch or of a row: the names of Chat Completions, or those of Responses.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Usage<'a> {
    #[serde(default, alias = "input_tokens")]
    prompt_tokens: Text<'a>,
    #[serde(default, alias = "output_tokens")]
    completion_tokens: Text<'a>,
    #[serde(default, alias = "input_tokens_details")]
    prompt_tokens_details: LooseObject<'a, UsageDetails<'a>>,
    #[serde(default, alias = "output_tokens_details")]
    completion_tokens_details: LooseObject<'a, UsageDetails<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct UsageDetails<'a> {
    #[serde(default)]
    cached_tokens: Text<'a>,
    #[serde(default)]
    reasoning_tokens: Text<'a>,
}

impl Usage<'_> {
    pub(super) fn tokens(&self) -> Tokens {
        let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        Tokens {
            input: count(self.prompt_tokens.number()),
            cached: count(self.prompt_tokens_details.object().and_then(|details| details.cached_tokens.number())),
            output: count(self.completion_tokens.number()),
            reasoning: count(
                self.completion_tokens_details.object().and_then(|details| details.reasoning_tokens.number()),
            ),
        }
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a, T: Deserialize<'de>"))]
struct ListReply<'a, T> {
    data: Vec<T>,
    has_more: Option<bool>,
    #[serde(default)]
    last_id: Text<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct DeleteReply<'a> {
    #[serde(default)]
    deleted: LooseFlag,
    #[serde(default)]
    id: Text<'a>,
}

/// `deleted`: true unless it says otherwise.
#[derive(Deserialize, Default, PartialEq)]
#[serde(untagged)]
enum LooseFlag {
    Flag(bool),
    #[default]
    Other,
}

fn unreadable(what: &str) -> Error {
    Error::Retry { what: format!("the provider's reply can't be read: {what}"), retry_after: None }
}

fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T> {
    // serde_json's message can show text of the reply; the place is enough.
    serde_json::from_slice(body)
        .map_err(|error| unreadable(&format!("not as documented at line {} column {}", error.line(), error.column())))
}

/// A file object.
pub(super) fn file(body: &[u8]) -> Result<UploadedFile> {
    let file: File<'_> = parse(body)?;
    let entry = entry(&file)?;
    Ok(UploadedFile { id: entry.id, created_at: entry.created_at })
}

/// The length that a file object gives.
pub(super) fn file_bytes(body: &[u8]) -> Option<u64> {
    let file: File<'_> = serde_json::from_slice(body).ok()?;
    file.bytes.number().and_then(|bytes| u64::try_from(bytes).ok())
}

fn entry(file: &File<'_>) -> Result<FileEntry> {
    Ok(FileEntry {
        id: file.id.filled().ok_or_else(|| unreadable("a file without an id"))?.to_owned(),
        name: file.filename.text().unwrap_or_default().to_owned(),
        created_at: file.created_at.number().ok_or_else(|| unreadable("a file without created_at"))?,
    })
}

/// A batch object.
pub(super) fn batch(body: &[u8]) -> Result<ProviderBatch> {
    provider_batch(&parse(body)?)
}

fn provider_batch(batch: &Batch<'_>) -> Result<ProviderBatch> {
    let file = |id: &Text<'_>| id.filled().map(str::to_owned);
    let raw_status = batch.status.text().unwrap_or_default().to_owned();
    let metadata = batch.metadata.object().into_iter().flatten();
    let faults = batch.errors.object().map_or(&[][..], |faults| faults.data.items());
    let progress = batch.request_counts.object().and_then(|counts| {
        let number = |text: &Text<'_>| text.number().and_then(|number| u64::try_from(number).ok());
        Some((number(&counts.completed)? + number(&counts.failed).unwrap_or(0), number(&counts.total)?))
    });
    Ok(ProviderBatch {
        id: batch.id.filled().ok_or_else(|| unreadable("a batch without an id"))?.to_owned(),
        status: status(&raw_status),
        raw_status,
        input_file: file(&batch.input_file_id),
        metadata: metadata.filter_map(|(key, value)| Some((key.clone(), value.text()?.to_owned()))).collect(),
        created_at: batch.created_at.number().ok_or_else(|| unreadable("a batch without created_at"))?,
        output_file: file(&batch.output_file_id),
        error_file: file(&batch.error_file_id),
        errors: faults.iter().filter_map(|fault| fault.object()).take(MAX_BATCH_ERRORS).map(batch_error).collect(),
        progress,
        usage: batch.usage.object().map(Usage::tokens),
        expires_at: batch.expires_at.number(),
    })
}

fn batch_error(fault: &Fault<'_>) -> BatchError {
    BatchError {
        code: fault.code.text().unwrap_or_default().to_owned(),
        message: shortened(fault.message.text().unwrap_or_default(), super::MAX_MESSAGE_CHARS),
        line: fault.line.number().and_then(|line| u64::try_from(line).ok()),
    }
}

fn status(raw: &str) -> BatchStatus {
    match raw.to_ascii_lowercase().as_str() {
        "validating" | "queued" | "pending" => BatchStatus::Queued,
        "in_progress" | "running" => BatchStatus::Running,
        "finalizing" => BatchStatus::Finalizing,
        "completed" => BatchStatus::Completed,
        "failed" => BatchStatus::Failed,
        "expired" => BatchStatus::Expired,
        // Together spells it with one l, undocumented.
        "cancelling" | "canceling" => BatchStatus::Cancelling,
        "cancelled" | "canceled" => BatchStatus::Cancelled,
        _ => BatchStatus::Unknown,
    }
}

/// A page of batches. One that can't be read makes the page unreadable: leaving it out could hide the very one looked for.
pub(super) fn batches(body: &[u8]) -> Result<Page> {
    let reply: ListReply<'_, Batch<'_>> = parse(body)?;
    let batches = reply.data.iter().map(provider_batch).collect::<Result<Vec<_>>>()?;
    let next = next(&reply, batches.last().map(|batch| batch.id.as_str()))?;
    Ok(Page { batches, next })
}

/// A page of files.
pub(super) fn files(body: &[u8]) -> Result<FilePage> {
    let reply: ListReply<'_, File<'_>> = parse(body)?;
    let files = reply.data.iter().map(entry).collect::<Result<Vec<_>>>()?;
    let next = next(&reply, files.last().map(|file| file.id.as_str()))?;
    Ok(FilePage { files, next })
}

/// Where the next page begins. A server that does not say whether there is more is asked until a page is empty.
fn next<T>(reply: &ListReply<'_, T>, last: Option<&str>) -> Result<Option<String>> {
    match (reply.has_more, last) {
        (Some(false), _) | (None, None) => Ok(None),
        (Some(true), None) => Err(unreadable("an empty page that is not the last")),
        (_, Some(last)) => Ok(Some(reply.last_id.filled().unwrap_or(last).to_owned())),
    }
}

/// Whether the reply to a delete says that the file is still there.
pub(super) fn says_not_deleted(body: &[u8]) -> bool {
    serde_json::from_slice::<DeleteReply<'_>>(body)
        .is_ok_and(|reply| reply.deleted == LooseFlag::Flag(false) && reply.id.text().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMPLETE: &str = r#"{"id":"batch_1","object":"batch","endpoint":"/v1/chat/completions","errors":null,"input_file_id":"file-in",
        "completion_window":"24h","status":"completed","output_file_id":"file-out","error_file_id":"","created_at":1711471533,
        "expires_at":1711557933,"request_counts":{"total":100,"completed":95,"failed":5},"metadata":{"a":"b","n":7},
        "usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":4},"output_tokens":20,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":30}}"#;

    #[test]
    fn a_documented_batch_is_read_and_an_empty_file_id_is_none() {
        let batch = batch(COMPLETE.as_bytes()).unwrap();
        assert_eq!((batch.status, batch.raw_status.as_str()), (BatchStatus::Completed, "completed"));
        assert_eq!(
            (batch.input_file.as_deref(), batch.output_file.as_deref(), batch.error_file),
            (Some("file-in"), Some("file-out"), None)
        );
        assert_eq!(
            batch.metadata,
            BTreeMap::from([("a".to_owned(), "b".to_owned()), ("n".to_owned(), "7".to_owned())])
        );
        assert_eq!(
            (batch.created_at, batch.expires_at, batch.progress),
            (1_711_471_533, Some(1_711_557_933), Some((100, 100)))
        );
        assert_eq!(batch.usage, Some(Tokens { input: 10, cached: 4, output: 20, reasoning: 5 }));
    }

    #[test]
    fn a_failed_batch_says_why_by_line() {
        let body = r#"{"id":"b","created_at":1,"status":"failed","output_file_id":null,"metadata":null,
            "errors":{"object":"list","data":[{"code":"invalid_json_line","message":"This line is not parseable as valid JSON.","param":null,"line":3},{"code":null,"message":"x","line":null},7]}}"#;
        let errors = batch(body.as_bytes()).unwrap().errors;
        assert_eq!(errors.len(), 2);
        assert_eq!((errors[0].code.as_str(), errors[0].line), ("invalid_json_line", Some(3)));
        assert_eq!((errors[1].code.as_str(), errors[1].line), ("", None));
    }

    #[test]
    fn every_status_is_known_and_any_other_is_not_over() {
        for (raw, expected, over) in [
            ("validating", BatchStatus::Queued, false),
            ("in_progress", BatchStatus::Running, false),
            ("finalizing", BatchStatus::Finalizing, false),
            ("completed", BatchStatus::Completed, true),
            ("failed", BatchStatus::Failed, true),
            ("expired", BatchStatus::Expired, true),
            ("cancelling", BatchStatus::Cancelling, false),
            ("CANCELING", BatchStatus::Cancelling, false),
            ("cancelled", BatchStatus::Cancelled, true),
            ("resting", BatchStatus::Unknown, false),
            ("", BatchStatus::Unknown, false),
        ] {
            assert_eq!((status(raw), status(raw).is_terminal()), (expected, over), "{raw}");
        }
    }

    #[test]
    fn a_field_of_another_type_counts_as_missing() {
        let body = r#"{"id":"b","created_at":1711471533.25,"status":null,"output_file_id":7.5,"error_file_id":{"x":1},"errors":"none",
            "metadata":[1],"request_counts":[],"usage":"much","expires_at":"never","extra":{"deep":[1]}}"#;
        let batch = batch(body.as_bytes()).unwrap();
        assert_eq!((batch.created_at, batch.status, batch.expires_at), (1_711_471_533, BatchStatus::Unknown, None));
        assert!(
            batch.errors.is_empty() && batch.metadata.is_empty() && batch.error_file.is_none() && batch.usage.is_none()
        );
    }

    #[test]
    fn what_the_fence_stands_on_is_asked_for() {
        for body in [
            r#"{"created_at":1}"#,
            r#"{"id":"","created_at":1}"#,
            r#"{"id":"b"}"#,
            r#"{"id":"b","created_at":null}"#,
            "[]",
            "null",
            "",
        ] {
            assert!(batch(body.as_bytes()).unwrap_err().is_transient(), "{body}");
            assert!(file(body.as_bytes()).unwrap_err().is_transient(), "{body}");
            let page =
                format!(r#"{{"data":[{COMPLETE},{}],"has_more":false}}"#, if body.is_empty() { "1" } else { body });
            assert!(batches(page.as_bytes()).is_err(), "{page}");
        }
    }

    #[test]
    fn pages_follow_one_another_until_the_provider_says_so() {
        let page = |text: &str| batches(text.as_bytes()).map(|page| page.next);
        let one = r#"{"id":"b1","created_at":1}"#;
        assert_eq!(page(&format!(r#"{{"data":[{one}],"has_more":true,"last_id":"b1"}}"#)), Ok(Some("b1".to_owned())));
        assert_eq!(page(&format!(r#"{{"data":[{one}],"has_more":true}}"#)), Ok(Some("b1".to_owned())));
        assert_eq!(page(&format!(r#"{{"data":[{one}],"has_more":false,"last_id":"b1"}}"#)), Ok(None));
        assert_eq!(page(&format!(r#"{{"data":[{one}]}}"#)), Ok(Some("b1".to_owned())));
        assert_eq!(page(r#"{"data":[]}"#), Ok(None));
        assert!(page(r#"{"data":[],"has_more":true}"#).is_err());
        assert!(page(r#"{"has_more":false}"#).is_err());
    }

    #[test]
    fn a_file_is_as_long_as_it_says_if_it_says_so() {
        assert_eq!(file_bytes(br#"{"id":"f","bytes":12}"#), Some(12));
        assert_eq!(file_bytes(br#"{"bytes":"12"}"#), Some(12));
        for silent in [&b""[..], b"{}", b"[]", br#"{"bytes":null}"#, br#"{"bytes":-1}"#, br#"{"bytes":"many"}"#] {
            assert_eq!(file_bytes(silent), None);
        }
    }

    #[test]
    fn a_delete_that_says_no_is_heard() {
        assert!(says_not_deleted(br#"{"id":"file-1","deleted":false}"#));
        for gone in
            [&br#"{"id":"file-1","object":"file","deleted":true}"#[..], b"", b"{}", br#"{"id":"f","deleted":"yes"}"#]
        {
            assert!(!says_not_deleted(gone));
        }
    }

    proptest! {
        #[test]
        fn no_reply_makes_a_parser_panic(cut in 0usize..COMPLETE.len(), at in 0usize..COMPLETE.len(), byte: u8) {
            let mut body = COMPLETE.as_bytes()[..cut.max(1)].to_vec();
            let at = at % body.len();
            body[at] = byte;
            let _ = (batch(&body), batches(&body), file(&body), files(&body), says_not_deleted(&body));
        }
    }
}
