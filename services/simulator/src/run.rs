//! A batch's walk: validating → in_progress → finalizing → completed, or → cancelling → cancelled, or → failed.
//!
//! Each batch has one task that sleeps where the pace says so and hands the rows to a blocking thread, so that no batch,
//! however large, holds up the server. Each step is saved. After a restart the walk goes on in the status it had; the
//! rows are answered again, into the same files with the same ids and bytes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    Error, clock,
    faults::{Chosen, Fault, fault::Stage, lines::RowFaults},
    folder,
    records::{Batch, FileMeta, Record, Status},
    server::Simulator,
    wire::ApiError,
    work::{Paths, Produced, Work},
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

/// The batch's fault of that sort.
fn fault<T>(record: &Record, pick: impl Fn(&Fault) -> Option<T>) -> Option<(&Chosen, T)> {
    record.faults.iter().find_map(|chosen| Some((chosen, pick(&chosen.fault)?)))
}

/// Stays where the batch is, for a time or for good, if it is to be stuck there; but not past a cancel.
async fn stick(simulator: &Simulator, batch: &Batch, record: &Record, at: Stage) {
    let stuck = |fault: &Fault| match fault {
        Fault::BatchStuck { status, for_ms, .. } if *status == at => Some(*for_ms),
        _ => None,
    };
    let Some((chosen, for_ms)) = fault(record, stuck) else { return };
    simulator.faults.fired(chosen);
    match for_ms {
        Some(time) if at == Stage::Finalizing => tokio::time::sleep(Duration::from_millis(time)).await,
        Some(time) => pause(batch, Duration::from_millis(time)).await,
        // A batch that is finalizing can't be cancelled any more.
        None if at == Stage::Finalizing => std::future::pending().await,
        None => batch.cancel.cancelled().await,
    }
}

/// How many of the rows are answered before something comes between.
fn answered_until(record: &Record, total: usize) -> usize {
    let percent = fault(record, |fault| match fault {
        Fault::BatchExpired { percent } | Fault::BatchCancelled { percent } => Some(*percent),
        Fault::BatchStuck { status: Stage::InProgress, percent, .. } => Some(*percent),
        _ => None,
    });
    percent.map_or(total, |(_, percent)| total * usize::from(percent.min(100)) / 100)
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
        stick(simulator, batch, &record, Stage::Validating).await;
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
    let expired = fault(&record, |fault| matches!(fault, Fault::BatchExpired { .. }).then_some(()));
    let cancelled = fault(&record, |fault| matches!(fault, Fault::BatchCancelled { .. }).then_some(()));
    let by_itself = cancelled.is_some();
    let halted = change(simulator, batch, move |record| {
        let now = Some(clock::seconds());
        if record.status == Status::InProgress && by_itself {
            (record.status, record.cancelling_at) = (Status::Cancelling, now);
        } else if record.status == Status::InProgress {
            (record.status, record.finalizing_at) = (Status::Finalizing, now);
        }
    });
    let now = halted.await?.status;
    let expired = expired.filter(|_| now == Status::Finalizing);
    cancelled.or(expired).iter().for_each(|(chosen, ())| simulator.faults.fired(chosen));
    let (code, message) = match expired {
        Some(_) => ("batch_expired", "This request could not be executed before the completion window expired."),
        None => ("batch_cancelled", "This request was not executed: the batch was cancelled."),
    };
    let turn = simulator.workers.acquire().await.map_err(ApiError::internal)?;
    let produced = simulator.blocking(move || work.finish(code, message).map_err(results)).await?;
    drop(turn);
    tokio::time::sleep(pace.finalizing).await;
    if now == Status::Finalizing {
        stick(simulator, batch, &record, Stage::Finalizing).await;
    }
    let end = if expired.is_some() { Status::Expired } else { Status::Completed };
    publish(simulator, batch, produced, end).await
}

fn results(source: std::io::Error) -> Error {
    Error::io("write", "results".as_ref())(source)
}

/// Ends a batch whose input is bad.
async fn fail(simulator: &Simulator, batch: &Arc<Batch>) -> Result<(), ApiError> {
    let (record, billed) = (batch.record(), Arc::clone(&simulator.billed));
    if let Some((chosen, ())) = fault(&record, |fault| matches!(fault, Fault::BatchFailed { .. }).then_some(())) {
        simulator.faults.fired(chosen);
    }
    let nothing = move || billed.append(&record, Status::Failed.name(), clock::seconds(), None);
    simulator.blocking(nothing).await?;
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
    let path = |part: &str| store.batch_path(&batch.id, part);
    let paths = Paths { input, output: path("output"), errors: path("error"), billed: path("billed") };
    let (created, seed) = (record.in_progress_at.unwrap_or(record.created_at), store.seed_for(&batch.id));
    let total = usize::try_from(record.rows).unwrap_or(usize::MAX);
    let faults = RowFaults::of(&simulator.faults, &record.faults, seed);
    let open = move || {
        let input = paths.input.clone();
        Work::open(&name, paths, created, seed, total, faults).map_err(Error::io("read", &input))
    };
    let mut work = simulator.blocking(open).await?;
    if record.status == Status::Cancelling {
        let done = record.counts.completed + record.counts.failed;
        return advance(simulator, batch, work, usize::try_from(done).unwrap_or(usize::MAX), false).await;
    }
    let time = simulator.config.pace.in_progress;
    let portions = if time.is_zero() { 1 } else { PORTIONS };
    let most = answered_until(record, total);
    for portion in 1..=portions {
        let until = (work.total() * portion as usize / portions as usize).min(most);
        work = advance(simulator, batch, work, until, true).await?;
        pause(batch, time / portions).await;
        if batch.cancel.is_cancelled() {
            return Ok(work);
        }
    }
    let stuck = |fault: &Fault| matches!(fault, Fault::BatchStuck { status: Stage::InProgress, .. }).then_some(());
    if fault(record, stuck).is_some() {
        stick(simulator, batch, record, Stage::InProgress).await;
        if batch.cancel.is_cancelled() {
            return Ok(work);
        }
        work = advance(simulator, batch, work, total, true).await?;
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
async fn publish(simulator: &Simulator, batch: &Arc<Batch>, produced: Produced, end: Status) -> Result<(), ApiError> {
    let (worker, batch) = (simulator.clone(), Arc::clone(batch));
    let publish = move || {
        let store = &worker.store;
        let record = batch.record();
        let end = if record.status == Status::Cancelling { Status::Cancelled } else { end };
        worker.billed.append(&record, end.name(), clock::seconds(), produced.billed.as_deref())?;
        let keep = |path: Option<PathBuf>, kind: &str| match path {
            Some(path) => add_results(&worker, &record, &path, kind).map(Some),
            None => folder::remove(&store.batch_path(&batch.id, kind)).map(|()| None),
        };
        let (output, errors) = (keep(produced.output, "output")?, keep(produced.errors, "error")?);
        store.change(&batch, |record| {
            let now = Some(clock::seconds());
            (record.counts, record.usage) = (produced.counts, produced.usage);
            (record.output_file_id, record.error_file_id) = (output, errors);
            record.status = end;
            match end {
                Status::Cancelled => record.cancelled_at = now,
                Status::Expired => record.expired_at = now,
                _ => record.completed_at = now,
            }
            Ok::<(), Error>(())
        })?;
        folder::remove(&store.batch_path(&batch.id, "billed"))?;
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
