//! Checking a batch's input before it is accepted, as OpenAI does in `validating`.
//!
//! The first fault ends the scan and fails the whole batch: nothing of it runs and nothing is paid. Faults inside a
//! request's body other than its model are no faults of the batch: those rows fail alone, later, with a 400 of their own.
//!
//! The scan also stages the ledger's `rows`, so that a valid input is read once before its acceptance. Lines end at
//! `\n` bytes only, and memory is one line plus 16 bytes for each row (to find duplicate ids).

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, Write},
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::{
    models::{self, Model},
    wire::{BatchError, ENDPOINT, MAX_BATCH_BYTES, MAX_ROWS},
};

/// A valid input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    pub(crate) rows: u64,
    pub(crate) model: Model,
}

/// A request line, in as far as validation looks at it.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    custom_id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
}

/// One row in the ledger.
#[derive(Serialize)]
struct LedgerRow<'a> {
    custom_id: &'a str,
    /// SHA-256 of the last user message; null if the request has none (it will fail alone).
    prompt_sha256: Option<String>,
}

fn fault(code: &str, param: Option<&str>, message: impl Into<String>) -> BatchError {
    BatchError { code: code.into(), message: message.into(), param: param.map(str::to_owned), line: None }
}

fn missing(param: &str) -> BatchError {
    fault("missing_required_parameter", Some(param), format!("Missing required parameter: '{param}'."))
}

/// Checks a whole input file and writes its ledger rows, comma-separated, to `staged`.
///
/// # Errors
/// The file can't be read, or `staged` not be written. A fault of the input is no error but the inner `Err`.
pub(crate) fn scan(input: &File, staged: &mut impl Write) -> io::Result<Result<Scanned, BatchError>> {
    let bytes = input.metadata()?.len();
    if bytes == 0 {
        return Ok(Err(fault("empty_file", None, "The input file is empty. Upload a file with at least one request.")));
    }
    if bytes > MAX_BATCH_BYTES {
        let message = format!("The input file has {bytes} bytes; a batch may have {MAX_BATCH_BYTES} at most.");
        return Ok(Err(fault("file_too_large", None, message)));
    }
    let mut reader = BufReader::with_capacity(1 << 20, input);
    let mut scan = Scan { seen: HashSet::new(), model: None };
    let mut line = Vec::new();
    let mut rows = 0;
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        rows += 1;
        if rows > MAX_ROWS {
            let message = format!("The input file has more than {MAX_ROWS} requests, which is the limit of a batch.");
            return Ok(Err(fault("too_many_tasks", None, message)));
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        match scan.line(text) {
            Ok(row) => {
                if rows > 1 {
                    staged.write_all(b",")?;
                }
                serde_json::to_writer(&mut *staged, &row.ledger())?;
            }
            Err(error) => return Ok(Err(BatchError { line: Some(rows), ..error })),
        }
    }
    let model = scan.model.ok_or_else(|| io::Error::other("an input without lines is not empty"))?;
    Ok(Ok(Scanned { rows, model }))
}

struct Scan {
    /// Truncated digests of the ids seen: 128 bits don't collide by accident.
    seen: HashSet<[u8; 16]>,
    model: Option<Model>,
}

struct Row<'a> {
    custom_id: std::borrow::Cow<'a, str>,
    messages: Option<&'a RawValue>,
}

impl Row<'_> {
    fn ledger(&self) -> LedgerRow<'_> {
        let prompt = self.messages.and_then(models::last_user);
        LedgerRow {
            custom_id: &self.custom_id,
            prompt_sha256: prompt.map(|prompt| models::sha256_hex(prompt.as_bytes())),
        }
    }
}

impl Scan {
    fn line<'a>(&mut self, line: &'a [u8]) -> Result<Row<'a>, BatchError> {
        let invalid =
            |why: &str| fault("invalid_json_line", None, format!("This line is not parseable as valid JSON: {why}."));
        let text = std::str::from_utf8(line).map_err(|error| invalid(&error.to_string()))?;
        let line: Line<'a> = serde_json::from_str(text).map_err(|error| invalid(&error.to_string()))?;
        let custom_id = line.custom_id.ok_or_else(|| missing("custom_id"))?;
        let custom_id = models::text(custom_id)
            .ok_or_else(|| fault("invalid_request", Some("custom_id"), "'custom_id' must be a string."))?;
        let method = line.method.ok_or_else(|| missing("method"))?;
        if models::text(method).as_deref() != Some("POST") {
            return Err(fault("invalid_method", Some("method"), "'method' must be 'POST'."));
        }
        let url = line.url.ok_or_else(|| missing("url"))?;
        if models::text(url).as_deref() != Some(ENDPOINT) {
            let message = format!("The URL provided for this request does not match the batch endpoint {ENDPOINT}.");
            return Err(fault("invalid_url", Some("url"), message));
        }
        let body = line.body.ok_or_else(|| missing("body"))?;
        let body: Body<'a> = serde_json::from_str(body.get())
            .map_err(|_| fault("invalid_request", Some("body"), "'body' must be an object without repeated keys."))?;
        self.model(&body)?;
        if body.stream.is_some_and(|stream| stream.get() == "true") {
            return Err(fault("streaming_unsupported", Some("body.stream"), "A batch can't stream its answers."));
        }
        let digest = Sha256::digest(custom_id.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        if !self.seen.insert(key) {
            let message = format!("The custom_id for this request is a duplicate of another request: '{custom_id}'.");
            return Err(fault("duplicate_custom_id", Some("custom_id"), message));
        }
        Ok(Row { custom_id, messages: body.messages })
    }

    /// One model in a file, and one that exists.
    fn model(&mut self, body: &Body<'_>) -> Result<(), BatchError> {
        let raw = body.model.ok_or_else(|| missing("body.model"))?;
        let name = models::text(raw)
            .ok_or_else(|| fault("invalid_request", Some("body.model"), "'body.model' must be a string."))?;
        match self.model {
            Some(first) if first.name() == name => Ok(()),
            Some(first) => {
                let message =
                    format!("All requests of a batch must have the same model: '{}', then '{name}'.", first.name());
                Err(fault("mismatched_model", Some("body.model"), message))
            }
            None => {
                let message = || format!("The provided model '{name}' is not supported by the Batch API.");
                self.model =
                    Some(Model::named(&name).ok_or_else(|| fault("model_not_found", Some("body.model"), message()))?);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek as _;

    fn row(id: &str, model: &str) -> String {
        format!(
            r#"{{"custom_id":"{id}","method":"POST","url":"/v1/chat/completions","body":{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}}}"#
        )
    }

    fn check(input: &[u8]) -> (Result<Scanned, BatchError>, String) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(input).unwrap();
        file.rewind().unwrap();
        let mut staged = Vec::new();
        (scan(&file, &mut staged).unwrap(), String::from_utf8(staged).unwrap())
    }

    #[test]
    fn a_valid_file_stages_its_ledger_rows() {
        let unreadable = row("b\\u0022", "echo").replace(r#"[{"role":"user","content":"hi"}]"#, "7");
        let (scanned, staged) = check(format!("{}\n{unreadable}", row("a", "echo")).as_bytes());
        assert_eq!(scanned, Ok(Scanned { rows: 2, model: Model::Echo }));
        let hash = models::sha256_hex(b"hi");
        assert_eq!(
            staged,
            format!(r#"{{"custom_id":"a","prompt_sha256":"{hash}"}},{{"custom_id":"b\"","prompt_sha256":null}}"#)
        );
    }

    #[test]
    fn the_first_fault_is_named_with_its_line() {
        let good = row("a", "echo");
        let second = |line: &str| format!("{good}\n{line}\n{good}\n").into_bytes();
        let fresh = row("b", "echo");
        for (input, code, line) in [
            (Vec::new(), "empty_file", None),
            (b"\n".to_vec(), "invalid_json_line", Some(1)),
            (second("{"), "invalid_json_line", Some(2)),
            (second("7"), "invalid_json_line", Some(2)),
            (second("\"\u{2028}"), "invalid_json_line", Some(2)),
            ([good.as_bytes(), b"\n\"\xff\""].concat(), "invalid_json_line", Some(2)),
            (second(&good), "duplicate_custom_id", Some(2)),
            (second(&row("b", "digest")), "mismatched_model", Some(2)),
            (row("b", "gpt-4o").into_bytes(), "model_not_found", Some(1)),
            (second(&fresh.replace("completions", "completion")), "invalid_url", Some(2)),
            (second(&fresh.replace("POST", "GET")), "invalid_method", Some(2)),
            (second(&fresh.replace("\"custom_id\"", "\"id\"")), "missing_required_parameter", Some(2)),
            (second(&fresh.replace("\"model\"", "\"modell\"")), "missing_required_parameter", Some(2)),
            (second(&fresh.replace("\"model\"", "\"stream\":true,\"model\"")), "streaming_unsupported", Some(2)),
            (second(&fresh.replace("\"b\"", "7")), "invalid_request", Some(2)),
        ] {
            let error = check(&input).0.unwrap_err();
            assert_eq!((error.code.as_str(), error.line), (code, line), "{}", String::from_utf8_lossy(&input));
        }
    }

    #[test]
    fn fifty_thousand_rows_are_allowed_and_one_more_is_not() {
        let mut input = String::new();
        for id in 0..MAX_ROWS {
            input.push_str(&row(&id.to_string(), "echo"));
            input.push('\n');
        }
        assert_eq!(check(input.as_bytes()).0, Ok(Scanned { rows: MAX_ROWS, model: Model::Echo }));
        input.push_str(&row("more", "echo"));
        assert_eq!(check(input.as_bytes()).0.unwrap_err().code, "too_many_tasks");
    }

    #[test]
    fn a_file_over_the_byte_limit_is_refused_unread() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MAX_BATCH_BYTES + 1).unwrap();
        let error = scan(&file, &mut Vec::new()).unwrap().unwrap_err();
        assert_eq!(error.code, "file_too_large");
    }
}
