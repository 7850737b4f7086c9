//! Writing batch data, in a task of its own beside the one that reads the input.
//!
//! Reading and sizing rows takes about as long as compressing them does, so each side keeps a core busy. What waits between
//! them is bounded: [`WAITING`] chunks. The writing side knows nothing of limits: it is told which rows come next, and
//! where a batch ends.
//!
//! An error of the writing side ends its task; the reading side finds that nobody takes its rows any more and asks what
//! became of them. A reading side that gives up drops its end, and with it the task and the object that it was writing.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use model::{BatchId, BatchRef, DataRef, JobSpec, Nonce, keys};
use runtime::store::ObjectWriter;
use runtime::{Context, cpu};
use tables::batch::{BatchHead, BatchWriter, Codec};
use tables::{Position, RowFault};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::Stop;
use crate::decide::Filled;
use crate::intake::table_stop;
use crate::metrics::Metrics;

/// How many pieces of work may wait for the writing side: a chunk each, about a mebibyte.
const WAITING: usize = 2;

/// What is to be written next.
pub(crate) enum Work {
    /// Rows of the open batch; it is opened if there is none.
    Rows(Piece),
    /// The open batch has all its rows; does nothing if there is none.
    End(Filled, Position),
}

/// Consecutive rows of one chunk.
pub(crate) struct Piece {
    /// The carried columns.
    pub(crate) rows: RecordBatch,
    /// The number of the first of them in the input.
    pub(crate) first_row: u64,
    /// A place at or before them from which reading may go on.
    pub(crate) chunk_start: Position,
    /// Those that fail locally, by their index here.
    pub(crate) faults: Vec<RowFault>,
}

/// The reading side's end: takes work, and gives the batches at last.
pub(crate) struct Batches {
    work: mpsc::Sender<Work>,
    writing: AbortOnDropHandle<Result<Vec<BatchRef>, Stop>>,
}

impl Batches {
    /// Begins to write behind `batches`, which an earlier split left.
    pub(crate) fn begin(
        context: &Context,
        metrics: &Metrics,
        spec: &JobSpec,
        codec: Codec,
        batches: Vec<BatchRef>,
    ) -> Self {
        let (context, metrics, spec) = (context.clone(), metrics.clone(), spec.clone());
        let (work, coming) = mpsc::channel(WAITING);
        let writer = Writer { context, metrics, spec, codec, open: None, batches };
        let writing = tokio::spawn(writer.write(coming).in_current_span());
        Self { work, writing: AbortOnDropHandle::new(writing) }
    }

    /// Hands work over. Waits while the writing side is behind. False when it has ended: [`Batches::finish`] says why.
    pub(crate) async fn take(&self, work: Work) -> bool {
        self.work.send(work).await.is_ok()
    }

    /// All batches, once they are durable.
    pub(crate) async fn finish(self) -> Result<Vec<BatchRef>, Stop> {
        drop(self.work);
        self.writing.await.map_err(anyhow::Error::from)?
    }
}

/// The writing side.
struct Writer {
    context: Context,
    metrics: Metrics,
    spec: JobSpec,
    codec: Codec,
    open: Option<OpenBatch>,
    batches: Vec<BatchRef>,
}

/// The batch that is being written.
struct OpenBatch {
    id: BatchId,
    nonce: Nonce,
    key: String,
    first_row: u64,
    writer: BatchWriter,
    object: ObjectWriter,
}

impl Writer {
    async fn write(mut self, mut coming: mpsc::Receiver<Work>) -> Result<Vec<BatchRef>, Stop> {
        while let Some(work) = coming.recv().await {
            match work {
                Work::Rows(piece) => self.append(piece).await?,
                Work::End(filled, end) => self.close(filled, end).await?,
            }
        }
        Ok(self.batches)
    }

    async fn append(&mut self, piece: Piece) -> Result<(), Stop> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(&piece.rows.schema(), &piece)?,
        };
        let encoded = cpu::run_blocking_section(|| {
            open.writer.push(&piece.rows, piece.first_row, &piece.faults)?;
            Ok::<_, tables::Error>(open.writer.take())
        })
        .map_err(|e| table_stop(&self.spec, e))?;
        open.object.write(encoded).await.map_err(anyhow::Error::from)?;
        self.open = Some(open);
        Ok(())
    }

    fn begin(&self, schema: &SchemaRef, piece: &Piece) -> Result<OpenBatch, Stop> {
        let number = u32::try_from(self.batches.len() + 1).map_err(anyhow::Error::from)?;
        let id = BatchId { number, attempt: 1 };
        let nonce = self.context.clock.nonce();
        let key = keys::batch_data(&self.spec.id, id, &nonce);
        let first = Position { row: piece.first_row, ..piece.chunk_start };
        let head = BatchHead { job: self.spec.id.clone(), id, nonce: nonce.clone(), first };
        let writer = BatchWriter::new(schema, head, self.codec).map_err(|e| table_stop(&self.spec, e))?;
        let object = self.context.store.upload(&key);
        Ok(OpenBatch { id, nonce, key, first_row: piece.first_row, writer, object })
    }

    /// Ends the open batch, if there is one, and makes it durable.
    async fn close(&mut self, filled: Filled, end: Position) -> Result<(), Stop> {
        let Some(OpenBatch { id, nonce, key, first_row, writer, mut object }) = self.open.take() else { return Ok(()) };
        let (encoded, meta) = cpu::run_blocking_section(|| writer.finish(end, filled.send_rows, filled.send_bytes))
            .map_err(|e| table_stop(&self.spec, e))?;
        object.write(encoded).await.map_err(anyhow::Error::from)?;
        let written = object.finish().await.map_err(anyhow::Error::from)?;
        faults::crash_point!(SplitterStored);
        tracing::info!(job = %self.spec.id, batch = %id, rows = meta.rows, bytes = written.bytes, "batch is stored");
        self.metrics.record_batch(meta.rows, filled.send_rows);
        let data = DataRef { key, checksum: written.checksum, bytes: written.bytes, rows: meta.rows };
        let (send_rows, send_bytes) = (filled.send_rows, filled.send_bytes);
        self.batches.push(BatchRef { id, nonce, first_row, data, send_rows, send_bytes });
        Ok(())
    }
}
