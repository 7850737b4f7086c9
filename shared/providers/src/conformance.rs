//! What any implementation of a class must do, checked against a running server. The dispatcher's protocol (ARCHITECTURE
//! section 4) is only as safe as these answers are true, so a new provider begins here.
//!
//! A suite runs real batches: use a server that answers quickly, or an account where a few tiny requests may be spent.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use model::ids::{CustomId, Nonce};
use model::spec::Request;

use crate::provider::{BatchStatus, Class, CreateOutcome, Deleted, Error, Outcome, Page, Provider, ProviderBatch};

/// An expectation that the provider did not meet.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(format!("unexpected error: {error}"))
    }
}

type Checked<T = ()> = Result<T, Failure>;

fn expect(met: bool, what: impl FnOnce() -> String) -> Checked {
    if met { Ok(()) } else { Err(Failure(what())) }
}

/// What a run of a suite needs.
pub struct Setup<W> {
    /// `provider/model`: a cheap model of this provider.
    pub model: String,
    /// Something unique to this run: it marks the run's files and batches.
    pub nonce: Nonce,
    /// Waits; between two looks at a batch.
    pub wait: W,
    /// The most looks at a batch.
    pub looks: u32,
}

/// The suite of class B: upload, then create; listable, deletable.
///
/// # Errors
/// The first expectation that was not met.
pub async fn class_b<W, F>(provider: &dyn Provider, setup: &Setup<W>) -> Checked
where
    W: Fn(Duration) -> F + Sync,
    F: Future<Output = ()> + Send,
{
    expect(provider.class() == Class::B, || format!("class is {:?}, not B", provider.class()))?;
    let lines = lines(provider, setup)?;
    let finished = a_batch_runs_and_is_found(provider, setup, &lines).await?;
    every_row_has_one_answer(provider, setup, &finished).await?;
    a_download_resumes_anywhere(provider, &finished).await?;
    a_deleted_file_fences_a_create_off(provider, setup, &lines).await?;
    a_listing_reaches_every_batch(provider, setup, &lines, &finished).await?;
    what_is_not_there_is_not_found(provider, setup).await
}

const ROWS: u32 = 3;

fn lines<W>(provider: &dyn Provider, setup: &Setup<W>) -> Checked<Vec<u8>> {
    let request =
        Request { model: setup.model.clone(), system: None, template: "-".to_owned(), params: serde_json::Map::new() };
    let encoder = provider.encoder(&request).map_err(|error| Failure(error.to_string()))?;
    let mut out = Vec::new();
    for row in 0..ROWS {
        let id = CustomId { nonce: setup.nonce.as_str(), row };
        let before = out.len() as u64;
        encoder.encode(&id, &format!("Say {row}.\n\"\u{2028}ü"), &mut out);
        expect(out.len() as u64 - before == encoder.encoded_len(&id, &format!("Say {row}.\n\"\u{2028}ü")), || {
            "encoded_len is not exact".to_owned()
        })?;
    }
    Ok(out)
}

async fn upload(provider: &dyn Provider, name: &str, lines: &[u8]) -> Checked<String> {
    let chunks: Vec<std::io::Result<Bytes>> =
        lines.chunks(100).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    Ok(provider.upload(name, lines.len() as u64, stream::iter(chunks).boxed()).await?.id)
}

fn metadata(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("batchmill".to_owned(), name.to_owned())])
}

async fn created(provider: &dyn Provider, file: &str, name: &str) -> Checked<ProviderBatch> {
    match provider.create(file, &metadata(name)).await {
        CreateOutcome::Accepted(batch) => Ok(*batch),
        other => Err(Failure(format!("a good create is not accepted: {other:?}"))),
    }
}

async fn ended<W, F>(provider: &dyn Provider, setup: &Setup<W>, id: &str) -> Checked<ProviderBatch>
where
    W: Fn(Duration) -> F + Sync,
    F: Future<Output = ()> + Send,
{
    for look in 1..=setup.looks {
        let batch = provider.get(id).await?;
        if batch.status.is_terminal() {
            return Ok(batch);
        }
        (setup.wait)(provider.poll_schedule().after(look)).await;
    }
    Err(Failure(format!("batch {id} is not over after {} looks", setup.looks)))
}

async fn a_batch_runs_and_is_found<W, F>(
    provider: &dyn Provider,
    setup: &Setup<W>,
    lines: &[u8],
) -> Checked<ProviderBatch>
where
    W: Fn(Duration) -> F + Sync,
    F: Future<Output = ()> + Send,
{
    let name = format!("{}-run.jsonl", setup.nonce);
    let file = upload(provider, &name, lines).await?;
    let files = provider.list_files(None).await?.files;
    expect(files.iter().any(|entry| entry.id == file && entry.name == name), || {
        format!("the new file {file} is not listed by its name")
    })?;
    let batch = created(provider, &file, &name).await?;
    expect(batch.input_file.as_deref() == Some(file.as_str()), || {
        format!("the batch names input {:?}, not {file}", batch.input_file)
    })?;
    let page = provider.list_batches(None).await?;
    let found = page.batches.iter().find(|listed| listed.id == batch.id);
    let found = found.ok_or_else(|| Failure(format!("the new batch {} is not on the first page", batch.id)))?;
    expect(found.metadata == metadata(&name), || format!("listed with metadata {:?}", found.metadata))?;
    expect(found.input_file == batch.input_file, || "listed without its input file".to_owned())?;
    let ended = ended(provider, setup, &batch.id).await?;
    expect(ended.status == BatchStatus::Completed, || {
        format!("a good batch ended as {} ({:?})", ended.raw_status, ended.errors)
    })?;
    Ok(ended)
}

async fn whole(provider: &dyn Provider, file: &str, from: u64) -> Checked<(Vec<u8>, Option<u64>)> {
    let download = provider.download(file, from).await?;
    let chunks: Vec<Bytes> = download.stream.try_collect().await?;
    Ok((chunks.concat(), download.total))
}

async fn every_row_has_one_answer<W>(provider: &dyn Provider, setup: &Setup<W>, batch: &ProviderBatch) -> Checked {
    let file =
        batch.output_file.as_deref().ok_or_else(|| Failure("a completed batch has no output file".to_owned()))?;
    let (content, _) = whole(provider, file, 0).await?;
    let mut rows = BTreeSet::new();
    for line in content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let answer = provider.decode_line(line).map_err(|error| Failure(error.to_string()))?;
        expect(provider.line_id(line).as_deref() == Some(answer.custom_id.as_ref()), || {
            "line_id and decode_line differ".to_owned()
        })?;
        let id = CustomId::parse(&answer.custom_id).filter(|id| id.nonce == setup.nonce.as_str() && id.row < ROWS);
        let id = id.ok_or_else(|| Failure(format!("custom id {:?} was never sent", answer.custom_id)))?;
        expect(rows.insert(id.row), || format!("row {} is there twice", id.row))?;
        expect(matches!(answer.outcome, Outcome::Answered { .. }), || {
            format!("row {} failed: {:?}", id.row, answer.outcome)
        })?;
    }
    expect(rows.len() == ROWS as usize, || format!("{} of {ROWS} rows have an answer", rows.len()))
}

async fn a_download_resumes_anywhere(provider: &dyn Provider, batch: &ProviderBatch) -> Checked {
    let file = batch.output_file.as_deref().unwrap_or_default();
    let (content, total) = whole(provider, file, 0).await?;
    let length = content.len() as u64;
    expect(total.is_none_or(|total| total == length), || format!("{length} bytes came of {total:?}"))?;
    for from in [1, length / 2, length - 1, length] {
        let (rest, total) = whole(provider, file, from).await?;
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        expect(content.get(start..) == Some(&rest[..]), || format!("the download from byte {from} gave other bytes"))?;
        expect(total.is_none_or(|total| total == length), || {
            format!("from byte {from} the whole is said to be {total:?}")
        })?;
    }
    Ok(())
}

async fn a_deleted_file_fences_a_create_off<W, F>(provider: &dyn Provider, setup: &Setup<W>, lines: &[u8]) -> Checked
where
    W: Fn(Duration) -> F + Sync,
    F: Future<Output = ()> + Send,
{
    let name = format!("{}-fence.jsonl", setup.nonce);
    let file = upload(provider, &name, lines).await?;
    let (first, second) = (provider.delete_file(&file).await?, provider.delete_file(&file).await?);
    expect(first == Deleted::Deleted, || format!("the first delete says {first:?}"))?;
    expect(second == Deleted::NotFound, || format!("the second delete says {second:?}"))?;
    match provider.create(&file, &metadata(&name)).await {
        CreateOutcome::Rejected { .. } => Ok(()),
        // Some accept anything and find out later: then nothing may have run.
        CreateOutcome::Accepted(batch) => {
            let ended = ended(provider, setup, &batch.id).await?;
            let nothing_ran =
                ended.status == BatchStatus::Failed && ended.output_file.is_none() && ended.error_file.is_none();
            expect(nothing_ran, || {
                format!("a batch of a deleted file ended as {}: deleting does not fence", ended.raw_status)
            })
        }
        CreateOutcome::Unknown { reason } => {
            Err(Failure(format!("a create for a deleted file has an unknown outcome: {reason}")))
        }
    }
}

async fn a_listing_reaches_every_batch<W, F>(
    provider: &dyn Provider,
    setup: &Setup<W>,
    lines: &[u8],
    older: &ProviderBatch,
) -> Checked
where
    W: Fn(Duration) -> F + Sync,
    F: Future<Output = ()> + Send,
{
    let name = format!("{}-newer.jsonl", setup.nonce);
    let file = upload(provider, &name, lines).await?;
    let newer = created(provider, &file, &name).await?;
    let Page { batches, .. } = provider.list_batches(None).await?;
    let place = |id: &str| batches.iter().position(|batch| batch.id == id);
    expect(place(&newer.id) < place(&older.id), || "batches are not listed newest first".to_owned())?;
    let behind = provider.list_batches(Some(&newer.id)).await?.batches;
    expect(behind.iter().all(|batch| batch.id != newer.id), || {
        "a page repeats the batch that it comes after".to_owned()
    })?;
    expect(behind.iter().any(|batch| batch.id == older.id), || {
        "the page after a batch lacks the older one".to_owned()
    })?;
    match provider.cancel(&newer.id).await {
        Ok(batch) => expect(batch.id == newer.id, || format!("cancel answers with batch {}", batch.id))?,
        // It was over already.
        Err(Error::Rejected { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let ended = ended(provider, setup, &newer.id).await?;
    let fits = matches!(ended.status, BatchStatus::Cancelled | BatchStatus::Completed);
    expect(fits, || format!("a cancelled batch ended as {}", ended.raw_status))
}

async fn what_is_not_there_is_not_found<W>(provider: &dyn Provider, setup: &Setup<W>) -> Checked {
    let nowhere = format!("nowhere-{}", setup.nonce);
    let got = provider.get(&nowhere).await;
    expect(matches!(got, Err(Error::NotFound { .. })), || format!("an unknown batch: {got:?}"))?;
    let got = provider.download(&nowhere, 0).await;
    expect(matches!(got, Err(Error::NotFound { .. })), || format!("an unknown file: {got:?}"))?;
    let got = provider.delete_file(&nowhere).await;
    expect(matches!(got, Ok(Deleted::NotFound)), || format!("deleting an unknown file: {got:?}"))
}
