//! A provider whose files lie in a folder: what is uploaded is written to `batch-00000.jsonl`, and each batch has ended with
//! the answers of `result-00000.jsonl`. The lines are OpenAI's, and are encoded and decoded as those of OpenAI are.
//!
//! The other programs that `tests/compare` times call the input's row 12 `t-000000000012`, whichever batch it is in. Where
//! a result has such an id it is read as the id that the row has here, so all are given the same files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use model::BatchRef;
use model::spec::Request;
use providers::{
    Answer, BadLine, BatchStatus, ByteStream, Class, CreateOutcome, Deleted, Download, Encode, EncodeError, Error,
    Limits, Page, PollSchedule, Provider, ProviderBatch, ProviderSettings, UploadedFile,
};

/// How much of a file is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A provider in a folder.
#[derive(Debug)]
pub(super) struct Folder {
    /// Encodes and decodes.
    openai: Arc<dyn Provider>,
    uploads: PathBuf,
    results: PathBuf,
    batches: Vec<BatchRef>,
}

/// The name of a batch, and of the file with its answers.
pub(super) fn batch_name(batch: &BatchRef) -> String {
    format!("result-{:05}", batch.id.number - 1)
}

impl Folder {
    /// A provider for these batches.
    pub(super) fn new(uploads: &Path, results: &Path, batches: &[BatchRef]) -> anyhow::Result<Self> {
        let openai = providers::open("openai", &ProviderSettings::new("openai"))?;
        Ok(Self { openai, uploads: uploads.to_owned(), results: results.to_owned(), batches: batches.to_vec() })
    }

    /// A provider that nothing is sent to.
    pub(super) fn nowhere() -> anyhow::Result<Self> {
        Self::new(Path::new(""), Path::new(""), &[])
    }

    /// The custom id of an input's row, by the number that the other programs give it.
    fn translated(&self, id: &str) -> Option<String> {
        let row: u64 = id.strip_prefix("t-")?.parse().ok()?;
        let place = self.batches.partition_point(|batch| batch.first_row <= row).checked_sub(1)?;
        let batch = self.batches.get(place)?;
        let (mut digits, mut at, mut rest) = ([b'0'; 20], 20, row - batch.first_row);
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(rest % 10).ok()?;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        // By hand, since it is done for each row, and is no part of what is measured.
        let mut id = String::with_capacity(40);
        id.push_str(batch.nonce.as_str());
        id.push('-');
        id.push_str(std::str::from_utf8(digits.get(at..)?).ok()?);
        Some(id)
    }

    fn result_file(&self, id: &str) -> PathBuf {
        self.results.join(format!("{id}.jsonl"))
    }
}

/// A batch that has ended, as is its file of answers called.
pub(super) fn ended(id: &str) -> ProviderBatch {
    ProviderBatch {
        id: id.to_owned(),
        status: BatchStatus::Completed,
        raw_status: "completed".to_owned(),
        input_file: None,
        metadata: BTreeMap::new(),
        created_at: 0,
        output_file: Some(id.to_owned()),
        error_file: None,
        errors: Vec::new(),
        progress: None,
        usage: None,
        expires_at: None,
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::Source(format!("{}: {error}", path.display()))
}

#[async_trait]
impl Provider for Folder {
    fn class(&self) -> Class {
        self.openai.class()
    }

    fn limits(&self) -> Limits {
        self.openai.limits()
    }

    fn poll_schedule(&self) -> PollSchedule {
        self.openai.poll_schedule()
    }

    fn encoder(&self, request: &Request) -> Result<Box<dyn Encode>, EncodeError> {
        self.openai.encoder(request)
    }

    fn line_id<'l>(&self, line: &'l [u8]) -> Option<Cow<'l, str>> {
        let id = self.openai.line_id(line)?;
        Some(self.translated(&id).map_or(id, Cow::Owned))
    }

    fn decode_line<'l>(&self, line: &'l [u8]) -> Result<Answer<'l>, BadLine> {
        let mut answer = self.openai.decode_line(line)?;
        if let Some(id) = self.translated(&answer.custom_id) {
            answer.custom_id = Cow::Owned(id);
        }
        Ok(answer)
    }

    async fn upload(&self, name: &str, length: u64, mut body: ByteStream) -> Result<UploadedFile, Error> {
        let of = |batch: &&BatchRef| name.contains(&batch.id.to_string());
        let batch = self.batches.iter().find(of).ok_or_else(|| Error::Source(format!("{name} is of no batch")))?;
        let path = self.uploads.join(format!("batch-{:05}.jsonl", batch.id.number - 1));
        let mut file = File::create(&path).map_err(|error| failed(&path, &error))?;
        let mut written = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| Error::Source(error.to_string()))?;
            file.write_all(&piece).map_err(|error| failed(&path, &error))?;
            written += piece.len() as u64;
        }
        if written != length {
            return Err(Error::Source(format!("{name} has {written} bytes, {length} were promised")));
        }
        Ok(UploadedFile { id: batch_name(batch), created_at: 0 })
    }

    async fn delete_file(&self, _id: &str) -> Result<Deleted, Error> {
        Ok(Deleted::NotFound)
    }

    async fn list_batches(&self, _after: Option<&str>) -> Result<Page, Error> {
        Ok(Page { batches: self.batches.iter().map(|batch| ended(&batch_name(batch))).collect(), next: None })
    }

    async fn create(&self, file_id: &str, _metadata: &BTreeMap<String, String>) -> CreateOutcome {
        CreateOutcome::Accepted(Box::new(ended(file_id)))
    }

    async fn get(&self, id: &str) -> Result<ProviderBatch, Error> {
        Ok(ended(id))
    }

    async fn cancel(&self, id: &str) -> Result<ProviderBatch, Error> {
        Ok(ended(id))
    }

    async fn file_bytes(&self, id: &str) -> Result<Option<u64>, Error> {
        let path = self.result_file(id);
        Ok(Some(path.metadata().map_err(|error| failed(&path, &error))?.len()))
    }

    async fn download(&self, file_id: &str, from: u64) -> Result<Download, Error> {
        let path = self.result_file(file_id);
        let open = || -> std::io::Result<(File, u64)> {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(from))?;
            let total = file.metadata()?.len();
            Ok((file, total))
        };
        let (file, total) = open().map_err(|error| failed(&path, &error))?;
        let pieces = stream::unfold(Some(file), |file| async {
            let mut file = file?;
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            match Read::take(&mut file, PIECE_BYTES as u64).read_to_end(&mut piece) {
                Ok(0) => None,
                Ok(_) => Some((Ok(Bytes::from(piece)), Some(file))),
                Err(error) => Some((Err(Error::Source(error.to_string())), None)),
            }
        });
        Ok(Download { stream: pieces.boxed(), total: Some(total) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::digest::Checksum;
    use model::{BatchId, DataRef, Nonce, keys};

    fn batch(number: u32, first_row: u64) -> BatchRef {
        let data = DataRef {
            key: keys::batch_data(&"b".parse().unwrap(), BatchId { number, attempt: 1 }, &Nonce::from_bits(1)),
            checksum: Checksum::of(b""),
            bytes: 0,
            rows: 3,
        };
        let (id, nonce) = (BatchId { number, attempt: 1 }, Nonce::from_bits(number.into()));
        BatchRef { id, nonce, first_row, data, send_rows: 3, send_bytes: 0 }
    }

    #[test]
    fn a_row_by_its_number_in_the_input_is_found_in_its_batch() {
        let folder = Folder::new(Path::new("."), Path::new("."), &[batch(1, 0), batch(2, 3)]).unwrap();
        let id = |text: &str| folder.translated(text);
        assert_eq!(id("t-000000000002").unwrap(), "0000000000000001-2");
        assert_eq!(id("t-000000000003").unwrap(), "0000000000000002-0");
        assert_eq!((id("0000000000000002-0"), id("t-x")), (None, None));
    }
}
