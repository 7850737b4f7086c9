//! A batch's walk: validating → in_progress → finalizing → completed, or → cancelling → cancelled, or → failed.
//!
//! Each batch has one task that sleeps where the pace says so and hands the rows to a blocking thread, so that no batch,
//! however large, holds up the server. Each step is saved. After a restart the walk goes on in the status it had; the
//! rows are answered again, into the same files with the same ids and bytes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    Error, clock, folder,
    records::{Batch, FileMeta, Record, Status},
    server::Simulator,
    wire::ApiError,
    work::{Produced, Work},
};

/// With a pace, the rows of a batch are answered in this many portions.
const PORTIONS: u32 = 20;

/// Lets a batch run.
pub(crate) fn launch(simulator: &Simulator, batch: Arc<Batch>) {
    let walker = simulator.clone();
    simulator.tasks.spawn(async move {
        let stopping = walker.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            walked = walk(&walker, &batch) => {
                if let Err(error) = walked {
                    tracing::error!("batch {} stands still until the next start: {}", batch.id, error.message);
                }
            }
        }
    });
}

/// Waits, but not past a cancel.
async fn pause(batch: &Batch, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = batch.cancel.cancelled() => {}
    }
}

/// Changes the record on a blocking thread.
async fn change(
    simulator: &Simulator,
    batch: &Arc<Batch>,
    change: impl FnOnce(&mut Record) + Send + 'static,
) -> Result<Record, ApiError> {
    let (store, batch) = (Arc::clone(&simulator.store), Arc::clone(batch));
    let save = move || {
        store.change(&batch, |record| {
            change(record);
            Ok::<(), Error>(())
        })
    };
    simulator.blocking(save).await
}

async fn walk(simulator: &Simulator, batch: &Arc<Batch>) -> Result<(), ApiError> {
    let pace = simulator.config.pace;
    let record = batch.record();
    if record.status == Status::Validating {
        pause(batch, pace.validating).await;
    }
    if !record.errors.is_empty() {
        return fail(simulator, batch).await;
    }
    let started = change(simulator, batch, |record| {
        if record.status == Status::Validating {
            record.status = Status::InProgress;
            record.in_progress_at = Some(clock::seconds());
        }
        record.counts.total = record.rows;
    });
    let record = started.await?;
    let work = answer(simulator, batch, &record).await?;
    let record = change(simulator, batch, |record| {
        if record.status == Status::InProgress {
            record.status = Status::Finalizing;
            record.finalizing_at = Some(clock::seconds());
        }
    });
    record.await?;
    let turn = simulator.workers.acquire().await.map_err(ApiError::internal)?;
    let produced = simulator.blocking(move || {
        work.finish("batch_cancelled", "This request was not executed: the batch was cancelled.").map_err(results)
    });
    let produced = produced.await?;
    drop(turn);
    tokio::time::sleep(pace.finalizing).await;
    publish(simulator, batch, produced).await
}

fn results(source: std::io::Error) -> Error {
    Error::io("write", "results".as_ref())(source)
}

/// Ends a batch whose input is bad.
async fn fail(simulator: &Simulator, batch: &Arc<Batch>) -> Result<(), ApiError> {
    let failed = change(simulator, batch, |record| {
        record.status = Status::Failed;
        record.failed_at = Some(clock::seconds());
    });
    failed.await.map(|_| ())
}

/// Answers the rows: all at once, or evenly over the time that the pace gives, or as far as a cancel lets it.
async fn answer(simulator: &Simulator, batch: &Arc<Batch>, record: &Record) -> Result<Work, ApiError> {
    let store = &simulator.store;
    let name = batch.id.trim_start_matches("batch_").to_owned();
    let linked = store.batch_path(&batch.id, "input");
    let input = if linked.exists() { linked } else { store.data_path(&record.input_file_id) };
    let (output, errors) = (store.batch_path(&batch.id, "output"), store.batch_path(&batch.id, "error"));
    let (created, seed) = (record.in_progress_at.unwrap_or(record.created_at), store.seed_for(&batch.id));
    let total = usize::try_from(record.rows).unwrap_or(usize::MAX);
    let open = move || {
        let opened = Work::open(&name, &input, output, errors, created, seed, total);
        opened.map_err(Error::io("read", &input))
    };
    let mut work = simulator.blocking(open).await?;
    if record.status == Status::Cancelling {
        let done = record.counts.completed + record.counts.failed;
        return advance(simulator, batch, work, usize::try_from(done).unwrap_or(usize::MAX), false).await;
    }
    let time = simulator.config.pace.in_progress;
    let portions = if time.is_zero() { 1 } else { PORTIONS };
    for portion in 1..=portions {
        let until = work.total() * portion as usize / portions as usize;
        work = advance(simulator, batch, work, until, true).await?;
        pause(batch, time / portions).await;
        if batch.cancel.is_cancelled() {
            break;
        }
    }
    Ok(work)
}

/// Does a portion of the work on a blocking thread, of which only so many run at a time.
async fn advance(
    simulator: &Simulator,
    batch: &Arc<Batch>,
    mut work: Work,
    until: usize,
    heed_cancel: bool,
) -> Result<Work, ApiError> {
    let _turn = simulator.workers.acquire().await.map_err(ApiError::internal)?;
    let (worker, batch) = (simulator.clone(), Arc::clone(batch));
    let advance = move || {
        let go_on = |counts, usage| {
            worker.store.progress(&batch, counts, usage);
            let cancelled = heed_cancel && batch.cancel.is_cancelled();
            !cancelled && !worker.stopping.is_cancelled()
        };
        work.advance(until, go_on).map_err(results)?;
        Ok(work)
    };
    let work = simulator.blocking(advance).await?;
    if simulator.stopping.is_cancelled() {
        // The rows may have stopped short of `until`: nothing may be concluded from them any more.
        std::future::pending::<()>().await;
    }
    Ok(work)
}

/// Makes the result files exist, and ends the batch.
async fn publish(simulator: &Simulator, batch: &Arc<Batch>, produced: Produced) -> Result<(), ApiError> {
    let (worker, batch) = (simulator.clone(), Arc::clone(batch));
    let publish = move || {
        let store = &worker.store;
        let record = batch.record();
        let keep = |path: Option<PathBuf>, kind: &str| match path {
            Some(path) => add_results(&worker, &record, &path, kind).map(Some),
            None => folder::remove(&store.batch_path(&batch.id, kind)).map(|()| None),
        };
        let (output, errors) = (keep(produced.output, "output")?, keep(produced.errors, "error")?);
        store.change(&batch, |record| {
            let now = Some(clock::seconds());
            (record.counts, record.usage) = (produced.counts, produced.usage);
            (record.output_file_id, record.error_file_id) = (output, errors);
            if record.status == Status::Cancelling {
                (record.status, record.cancelled_at) = (Status::Cancelled, now);
            } else {
                (record.status, record.completed_at) = (Status::Completed, now);
            }
            Ok::<(), Error>(())
        })?;
        folder::remove(&store.batch_path(&batch.id, "input"))
    };
    simulator.blocking(publish).await
}

/// Turns a finished result file into a file that clients can download. Gives its id, the same after a restart.
fn add_results(simulator: &Simulator, record: &Record, path: &std::path::Path, kind: &str) -> Result<String, Error> {
    let store = &simulator.store;
    let id = store.id("file-", &format!("{}/{kind}", record.id));
    let bytes = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    let data = store.data_path(&id);
    std::fs::rename(path, &data).map_err(Error::io("write", &data))?;
    let created_at = clock::seconds();
    store.add_file(FileMeta {
        id: id.clone(),
        seq: store.next_seq(),
        bytes,
        created_at,
        expires_at: record.output_expires_after.map(|seconds| created_at + seconds),
        filename: format!("{}_{kind}.jsonl", record.id),
        purpose: "batch_output".to_owned(),
    })?;
    Ok(id)
}
