//! Answering a batch's rows: input file in, output and error files out, one row in memory at a time.
//!
//! Rows are answered in a shuffled order, because OpenAI promises none and clients must not count on one. The order
//! comes from the simulator's seed and the batch's id, so work that a crash interrupted is done again with the same
//! result, byte for byte.
//!
//! A batch that waits for its next portion holds no rows: where each row lies is looked up again, and buffers are given
//! back. So memory goes with the batches that are being answered, not with those that have been accepted.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _, Write as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    faults::lines::RowFaults,
    models,
    records::{Counts, Usage},
    rows::{ResponseBody, ResponseRow, ResultRow, RowError, completion, row_id},
    wire::ApiError,
};

/// Progress is shown, and a cancel looked for, after this many rows.
const STRIDE: usize = 256;

/// Results are written this many bytes at a time.
const BUFFER: usize = 1 << 20;

/// A result file that is being written.
struct Results {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    rows: u64,
}

impl Results {
    fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::create(&path)?;
        Ok(Self { path, file, buffer: Vec::new(), rows: 0 })
    }

    fn write(&mut self, row: &ResultRow<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.buffer, row)?;
        self.end()
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(line);
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.rows += 1;
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER {
            self.file.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Writes what is in the buffer, and gives the buffer back.
    fn rest(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.file.write_all(&buffer)
    }

    fn finish(mut self) -> io::Result<Option<PathBuf>> {
        self.rest()?;
        Ok((self.rows > 0).then_some(self.path))
    }
}

/// A batch at work.
pub(crate) struct Work {
    /// The end of the batch's id, from which row and completion ids are made.
    name: String,
    created: u64,
    input: File,
    seed: u64,
    /// Where each row is, in the order of answering. Empty between portions.
    rows: Vec<(u64, u32)>,
    total: usize,
    done: usize,
    line: Vec<u8>,
    output: Results,
    errors: Results,
    /// The custom ids of the rows that were executed, a JSON string a line.
    billed: Results,
    faults: RowFaults,
    /// Where the lines begin, in the input's order; only for the faults of rows.
    starts: Vec<u64>,
    counts: Counts,
    usage: Usage,
}

/// Where a batch's files are.
pub(crate) struct Paths {
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) errors: PathBuf,
    pub(crate) billed: PathBuf,
}

/// What a finished batch has: files only where they have rows.
pub(crate) struct Produced {
    pub(crate) output: Option<PathBuf>,
    pub(crate) errors: Option<PathBuf>,
    pub(crate) billed: Option<PathBuf>,
    pub(crate) counts: Counts,
    pub(crate) usage: Usage,
}

#[derive(Deserialize)]
struct RequestLine<'a> {
    #[serde(borrow)]
    custom_id: Cow<'a, str>,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Work {
    /// Opens a batch's files. `created` is the time that completions bear, in Unix seconds; `total` counts the rows.
    pub(crate) fn open(
        name: &str,
        paths: Paths,
        created: u64,
        seed: u64,
        total: usize,
        faults: RowFaults,
    ) -> io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            created,
            input: File::open(&paths.input)?,
            seed,
            rows: Vec::new(),
            total,
            done: 0,
            line: Vec::new(),
            output: Results::create(paths.output)?,
            errors: Results::create(paths.errors)?,
            billed: Results::create(paths.billed)?,
            faults,
            starts: Vec::new(),
            counts: Counts { total: total as u64, ..Counts::default() },
            usage: Usage::default(),
        })
    }

    /// How many rows there are.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Finds the rows and shuffles them, the same way each time.
    fn wake(&mut self) -> io::Result<()> {
        self.rows = offsets(&self.input, self.total)?;
        if !self.faults.is_empty() {
            self.starts = self.rows.iter().map(|(start, _)| *start).collect();
        }
        fastrand::Rng::with_seed(self.seed).shuffle(&mut self.rows);
        Ok(())
    }

    /// Gives back what a batch at work holds in memory.
    fn rest(&mut self) -> io::Result<()> {
        (self.rows, self.line, self.starts) = (Vec::new(), Vec::new(), Vec::new());
        self.billed.rest()?;
        self.output.rest()?;
        self.errors.rest()
    }

    /// Answers rows until `until` of them are done, or `go_on` says no.
    pub(crate) fn advance(&mut self, until: usize, mut go_on: impl FnMut(Counts, Usage) -> bool) -> io::Result<()> {
        self.wake()?;
        while self.done < until.min(self.total) {
            if self.done.is_multiple_of(STRIDE) && !go_on(self.counts, self.usage) {
                return self.rest();
            }
            self.row()?;
        }
        go_on(self.counts, self.usage);
        self.rest()
    }

    /// Writes the rows that were not answered as errors of that code, and closes both files.
    pub(crate) fn finish(mut self, code: &'static str, message: &'static str) -> io::Result<Produced> {
        if self.done < self.total {
            self.wake()?;
        }
        while self.done < self.total {
            let at = self.read()?;
            let request: RequestLine<'_> = serde_json::from_slice(&self.line)?;
            let error = Some(RowError { code, message });
            let row = ResultRow { id: row_id(&self.name, at), custom_id: &request.custom_id, response: None, error };
            self.errors.write(&row)?;
        }
        let (output, errors, billed) = (self.output.finish()?, self.errors.finish()?, self.billed.finish()?);
        Ok(Produced { output, errors, billed, counts: self.counts, usage: self.usage })
    }

    /// Reads the next row's line. Gives the row's number in answering order.
    fn read(&mut self) -> io::Result<usize> {
        let (start, len) = self.rows[self.done];
        self.line.resize(len as usize, 0);
        self.input.read_exact_at(&mut self.line, start)?;
        self.done += 1;
        Ok(self.done - 1)
    }

    fn row(&mut self) -> io::Result<()> {
        let at = self.read()?;
        let text = std::str::from_utf8(&self.line).map_err(io::Error::other)?;
        let request: RequestLine<'_> = serde_json::from_str(text)?;
        let answered = models::answer(request.body);
        let (status, body) = match &answered {
            Ok(answer) => (200, ResponseBody::Completion(completion(&self.name, at, self.created, answer))),
            Err(error) => (error.status.as_u16(), ResponseBody::Error(ApiError::body(error))),
        };
        let response = ResponseRow { status_code: status, request_id: format!("{}{at:08x}", self.name), body };
        let id = row_id(&self.name, at);
        let row = ResultRow { id, custom_id: &request.custom_id, response: Some(response), error: None };
        let number = self.starts.binary_search(&self.rows[at].0).map_or(0, |line| line as u64 + 1);
        let lie = match self.faults.is_empty() {
            true => None,
            false => self.faults.lie(number, &request.custom_id, request.body, &serde_json::to_value(&row)?),
        };
        let billed = lie.as_ref().map_or(answered.is_ok(), |written| written.billed);
        match &answered {
            Ok(answer) if billed => {
                self.counts.completed += 1;
                self.usage.input_tokens += answer.prompt_tokens;
                self.usage.output_tokens += answer.completion_tokens;
                self.billed.line(&serde_json::to_vec(&request.custom_id)?)?;
            }
            _ => self.counts.failed += 1,
        }
        match lie {
            Some(written) => {
                written.output.iter().try_for_each(|line| self.output.line(line))?;
                written.errors.iter().try_for_each(|line| self.errors.line(line))
            }
            None if answered.is_ok() => self.output.write(&row),
            None => self.errors.write(&row),
        }
    }
}

/// Start and length of each of the `total` lines, without its `\n`.
fn offsets(mut input: &File, total: usize) -> io::Result<Vec<(u64, u32)>> {
    input.rewind()?;
    let mut reader = BufReader::with_capacity(1 << 20, input);
    let mut rows = Vec::with_capacity(total);
    let (mut position, mut start) = (0, 0);
    let mut push = |start: u64, end: u64| {
        let len = u32::try_from(end - start).map_err(io::Error::other)?;
        rows.push((start, len));
        io::Result::Ok(())
    };
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        for end in memchr::memchr_iter(b'\n', buffer) {
            let end = position + end as u64;
            push(start, end)?;
            start = end + 1;
        }
        let read = buffer.len();
        position += read as u64;
        reader.consume(read);
    }
    if start < position {
        push(start, position)?;
    }
    if rows.len() != total {
        return Err(io::Error::other(format!("the input has {} rows, not {total}", rows.len())));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn work(folder: &std::path::Path, rows: usize) -> Work {
        let line = |id: usize| {
            let messages = if id % 10 == 7 {
                "[]".to_owned()
            } else {
                format!(r#"[{{"role":"user","content":"row {id}\u2028"}}]"#)
            };
            format!(r#"{{"custom_id":"{id}","body":{{"model":"echo","messages":{messages}}}}}"#)
        };
        let input = folder.join("input");
        std::fs::write(&input, (0..rows).map(line).collect::<Vec<_>>().join("\n")).unwrap();
        let at = |name: &str| folder.join(name);
        let paths = Paths { input, output: at("out"), errors: at("err"), billed: at("billed") };
        let faults = std::sync::Arc::new(crate::faults::Faults::new(0, crate::Script::default()));
        Work::open("x", paths, 5, 1, rows, RowFaults::of(&faults, &[], 0)).unwrap()
    }

    fn rows(path: Option<&PathBuf>) -> Vec<Value> {
        let text = std::fs::read_to_string(path.unwrap()).unwrap();
        text.split_terminator('\n').map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn ids(rows: &[Value]) -> Vec<usize> {
        rows.iter().map(|row| row["custom_id"].as_str().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn every_row_is_in_one_file_once_and_the_order_is_shuffled() {
        let folder = tempfile::tempdir().unwrap();
        let mut work = work(folder.path(), 1000);
        work.advance(usize::MAX, |_, _| true).unwrap();
        let produced = work.finish("x", "x").unwrap();
        let (output, errors) = (rows(produced.output.as_ref()), rows(produced.errors.as_ref()));
        assert_eq!((output.len(), errors.len()), (900, 100));
        assert_eq!(produced.counts, Counts { total: 1000, completed: 900, failed: 100 });
        let (answered, failed) = (ids(&output), ids(&errors));
        assert_eq!(answered.iter().chain(&failed).collect::<BTreeSet<_>>().len(), 1000);
        assert!(!answered.is_sorted());
        assert!(failed.iter().all(|id| id % 10 == 7));
        for row in &output {
            let content = &row["response"]["body"]["choices"][0]["message"]["content"];
            assert_eq!(content, &format!("row {}\u{2028}", row["custom_id"].as_str().unwrap()));
        }
        let sum = |field: &str| {
            output.iter().map(|row| row["response"]["body"]["usage"][field].as_u64().unwrap()).sum::<u64>()
        };
        assert_eq!(
            (sum("prompt_tokens"), sum("completion_tokens")),
            (produced.usage.input_tokens, produced.usage.output_tokens)
        );
        assert_eq!(errors[0]["response"]["status_code"], 400);
        assert_eq!(errors[0]["response"]["body"]["error"]["code"], "empty_array");
        assert_eq!(errors[0]["error"], Value::Null);
    }

    #[test]
    fn work_stopped_midway_keeps_what_is_done_and_accounts_for_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let mut work = work(folder.path(), 1000);
        work.advance(300, |_, _| true).unwrap();
        work.advance(1000, |counts, _| counts.completed + counts.failed < 600).unwrap();
        let produced = work.finish("batch_cancelled", "cancelled").unwrap();
        let (output, errors) = (rows(produced.output.as_ref()), rows(produced.errors.as_ref()));
        let done = produced.counts.completed + produced.counts.failed;
        assert_eq!(done, 768, "the stride after the six hundredth row");
        assert_eq!(output.len() as u64, produced.counts.completed);
        let cancelled: Vec<_> = errors.iter().filter(|row| row["error"]["code"] == "batch_cancelled").collect();
        assert_eq!(cancelled.len() as u64, 1000 - done);
        assert!(cancelled.iter().all(|row| row["response"].is_null()));
        let all: BTreeSet<_> = ids(&output).into_iter().chain(ids(&errors)).collect();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn the_same_work_twice_gives_the_same_bytes() {
        let files = || {
            let folder = tempfile::tempdir().unwrap();
            let mut work = work(folder.path(), 50);
            work.advance(50, |_, _| true).unwrap();
            work.finish("x", "x").unwrap();
            (std::fs::read(folder.path().join("out")).unwrap(), std::fs::read(folder.path().join("err")).unwrap())
        };
        assert_eq!(files(), files());
    }

    #[test]
    fn a_batch_without_failed_rows_has_no_error_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut work = work(folder.path(), 3);
        work.advance(3, |_, _| true).unwrap();
        assert!(work.finish("x", "x").unwrap().errors.is_none());
    }
}
