//! Reading the input and writing batch data: decoder in, batch writer out, with the pure [`Cutter`] between them.
//!
//! Memory is one chunk of the input and one open row group of the batch, whatever the sizes of both. The CPU's work runs
//! between awaits, in pieces of a chunk.

use arrow::datatypes::SchemaRef;
use model::spec::OnBadRow;
use model::{BatchId, BatchRef, CustomId, DataRef, JobFact, JobSpec, Nonce, PinnedInput, Refusal, RefusalCode, keys};
use requests::Requests;
use runtime::locations::{Location, Pinned, ReadOn};
use runtime::store::ObjectWriter;
use runtime::{Context, cpu};
use tables::batch::{BatchHead, BatchWriter, Codec};
use tables::{Chunk, Decoder, Position, RowFault, Step};

use crate::decide::{Cutter, Filled, Limits, RowSize};
use crate::intake::{pinned, read_stop, table_stop};
use crate::metrics::Metrics;
use crate::{Splitter, Stop};

impl Splitter {
    /// Cuts a job's input into batch data; gives the rows and the batches. Goes on behind what an earlier split left.
    pub(crate) async fn cut(&self, job: &JobFact) -> Result<(u64, Vec<BatchRef>), Stop> {
        let (input, table) = pinned(job)?;
        let spec = &job.spec;
        let limits = self.limits(spec)?;
        let requests = Requests::new(spec, table, self.providers.of(spec)?.as_ref(), limits.max_line_bytes)?;
        let location = self.context.locations.resolve(&spec.input.uri, &job.team)?;
        let left = self.left_behind(&spec.id).await?;
        let resume = left.last().map(|l| l.object.end);
        let decoder = Decoder::open(table, input.bytes, self.config.caps(), resume).map_err(|e| table_stop(spec, e))?;
        let row = left.iter().map(|l| l.rows).sum();
        let mut batches = Vec::with_capacity(left.len());
        for batch in left {
            batches.push(self.adopt(&spec.id, &batch).await?);
        }
        let codec = Codec::for_table(table, self.codec);
        let cutter = Cutter::new(limits);
        let mut cut = Cut {
            context: &self.context,
            metrics: &self.metrics,
            spec,
            codec,
            requests,
            cutter,
            open: None,
            row,
            chunk_start: resume.unwrap_or_default(),
            batches,
        };
        let rows = cut.read(decoder, &location, input).await?;
        Ok((rows, cut.batches))
    }

    fn limits(&self, spec: &JobSpec) -> Result<Limits, Refusal> {
        let provider = self.providers.of(spec)?.limits();
        let source = self.config.max_source_bytes;
        Ok(Limits::tightest(spec, provider.max_rows, provider.max_bytes, provider.max_line_bytes, source))
    }
}

/// One run over an input.
struct Cut<'a> {
    context: &'a Context,
    metrics: &'a Metrics,
    spec: &'a JobSpec,
    codec: Codec,
    requests: Requests,
    cutter: Cutter,
    open: Option<OpenBatch>,
    /// The next row to be placed.
    row: u64,
    /// Where the current chunk begins: a place to go on reading from, at or before any row of it.
    chunk_start: Position,
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

/// A chunk whose rows are measured.
struct Measured {
    sizes: Vec<RowSize>,
    faults: Vec<RowFault>,
}

impl Cut<'_> {
    async fn read(&mut self, mut decoder: Decoder, location: &Location, input: &PinnedInput) -> Result<u64, Stop> {
        let (spec, mut on) = (self.spec, ReadOn::default());
        loop {
            match cpu::run_blocking_section(|| decoder.step()).map_err(|e| table_stop(spec, e))? {
                Step::Need(ranges) => {
                    let pinned = Self::pinned(spec, location, input).await?;
                    let pieces = on.read(location, &ranges, &pinned).await.map_err(|e| read_stop(spec, e))?;
                    ranges.into_iter().zip(pieces).for_each(|(range, bytes)| decoder.push(range, bytes));
                }
                Step::Rows(chunk) => self.take(chunk).await?,
                Step::End(ended) => {
                    self.close(self.cutter.filled()).await?;
                    return Ok(ended.rows);
                }
            }
        }
    }

    /// The version of the input that is read: the one that the job began with.
    async fn pinned(spec: &JobSpec, location: &Location, input: &PinnedInput) -> Result<Pinned, Stop> {
        if faults::is_broken(faults::Mutation::NoIfMatch)
            && let Some(now) = location.head().await.map_err(|e| read_stop(spec, e))?
        {
            return Ok(now);
        }
        Ok(Pinned { etag: input.etag.clone(), bytes: input.bytes })
    }

    /// Places a chunk's rows, ending batches where the cutter says so. A resumed reader may begin before the next row:
    /// what was placed already is passed over.
    async fn take(&mut self, chunk: Chunk) -> Result<(), Stop> {
        let rows = chunk.rows.num_rows();
        let placed = usize::try_from(self.row.saturating_sub(chunk.first_row)).unwrap_or(usize::MAX).min(rows);
        let measured = cpu::run_blocking_section(|| self.measure(&chunk, placed))?;
        let mut from = placed;
        for (index, size) in (placed..rows).zip(&measured.sizes) {
            if let Some(ended) = self.cutter.place(*size) {
                self.append(&chunk, from..index, &measured.faults).await?;
                self.close(ended).await?;
                from = index;
            }
        }
        self.append(&chunk, from..rows, &measured.faults).await?;
        self.chunk_start = chunk.end;
        Ok(())
    }

    /// Sizes each row's request. A malformed row refuses the job, or fails alone, as the job says.
    fn measure(&self, chunk: &Chunk, placed: usize) -> Result<Measured, Refusal> {
        // The id's length is what counts here: nonces are alike in it, and the cutter adds the row number's digits.
        let nonce = Nonce::from_bits(0);
        let id = CustomId { nonce: nonce.as_str(), row: 0 };
        let mut malformed = chunk.faults.iter().filter(|fault| fault.row >= placed).peekable();
        let mut measured = Measured { sizes: Vec::with_capacity(chunk.rows.num_rows() - placed), faults: Vec::new() };
        let source_bytes = chunk.source_bytes();
        let mut requests = self.requests.of(&chunk.rows);
        for row in placed..chunk.rows.num_rows() {
            let encoded = match malformed.next_if(|fault| fault.row == row) {
                Some(fault) if self.spec.on_bad_row == OnBadRow::FailJob => return Err(self.bad_row(fault)),
                Some(fault) => Err(fault.clone()),
                None => requests.size(row, &id).map_err(|failure| RowFault {
                    row,
                    kind: failure.kind,
                    message: failure.message,
                }),
            };
            let source = source_bytes.get(row).copied().unwrap_or_default();
            measured.sizes.push(RowSize { encoded: encoded.as_ref().ok().copied(), source });
            measured.faults.extend(encoded.err());
        }
        Ok(measured)
    }

    fn bad_row(&self, fault: &RowFault) -> Refusal {
        let message = format!(
            "{}: {}. Mend the row, or let such rows fail alone with on_bad_row fail_row",
            self.spec.input.uri, fault.message
        );
        Refusal::new(RefusalCode::BadRow, message)
    }

    /// Appends rows of a chunk to the open batch, opening one if there is none.
    async fn append(&mut self, chunk: &Chunk, rows: std::ops::Range<usize>, faults: &[RowFault]) -> Result<(), Stop> {
        if rows.is_empty() {
            return Ok(());
        }
        let first_row = self.row;
        self.row += rows.len() as u64;
        let schema = chunk.rows.schema();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(&schema, first_row)?,
        };
        let slice = chunk.rows.slice(rows.start, rows.len());
        let faults: Vec<RowFault> = faults
            .iter()
            .filter(|fault| rows.contains(&fault.row))
            .map(|fault| RowFault { row: fault.row - rows.start, ..fault.clone() })
            .collect();
        let encoded = cpu::run_blocking_section(|| {
            open.writer.push(&slice, first_row, &faults)?;
            Ok::<_, tables::Error>(open.writer.take())
        })
        .map_err(|e| table_stop(self.spec, e))?;
        open.object.write(encoded).await.map_err(anyhow::Error::from)?;
        self.open = Some(open);
        Ok(())
    }

    fn begin(&self, schema: &SchemaRef, first_row: u64) -> Result<OpenBatch, Stop> {
        let number = u32::try_from(self.batches.len() + 1).map_err(anyhow::Error::from)?;
        let id = BatchId { number, attempt: 1 };
        let nonce = self.context.clock.nonce();
        let key = keys::batch_data(&self.spec.id, id, &nonce);
        let first = Position { row: first_row, ..self.chunk_start };
        let head = BatchHead { job: self.spec.id.clone(), id, nonce: nonce.clone(), first };
        let writer = BatchWriter::new(schema, head, self.codec).map_err(|e| table_stop(self.spec, e))?;
        let object = self.context.store.upload(&key);
        Ok(OpenBatch { id, nonce, key, first_row, writer, object })
    }

    /// Ends the open batch, if there is one, and makes it durable.
    async fn close(&mut self, filled: Filled) -> Result<(), Stop> {
        let Some(OpenBatch { id, nonce, key, first_row, writer, mut object }) = self.open.take() else { return Ok(()) };
        let (end, spec) = (self.chunk_start, self.spec);
        let (encoded, meta) = cpu::run_blocking_section(|| writer.finish(end, filled.send_rows, filled.send_bytes))
            .map_err(|e| table_stop(spec, e))?;
        object.write(encoded).await.map_err(anyhow::Error::from)?;
        let written = object.finish().await.map_err(anyhow::Error::from)?;
        faults::crash_point!(SplitterStored);
        tracing::info!(job = %spec.id, batch = %id, rows = meta.rows, bytes = written.bytes, "batch is stored");
        self.metrics.record_batch(meta.rows, filled.send_rows);
        let data = DataRef { key, checksum: written.checksum, bytes: written.bytes, rows: meta.rows };
        let (send_rows, send_bytes) = (filled.send_rows, filled.send_bytes);
        self.batches.push(BatchRef { id, nonce, first_row, data, send_rows, send_bytes });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_nonces_length_is_the_same_for_all() {
        assert_eq!(model::Nonce::from_bits(0).as_str().len(), model::Nonce::from_bits(u64::MAX).as_str().len());
    }
}
