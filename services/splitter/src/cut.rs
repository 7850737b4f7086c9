//! Reading the input: decoder in, rows with their sizes out to [`Batches`], with the pure [`Cutter`] between them.
//!
//! Memory is a few chunks of the input and one open row group of the batch, whatever the sizes of both. The CPU's work runs
//! between awaits, in pieces of a chunk.

use std::ops::Range;

use model::spec::OnBadRow;
use model::{BatchRef, CustomId, JobFact, JobSpec, Nonce, PinnedInput, Refusal, RefusalCode};
use requests::Requests;
use runtime::cpu;
use runtime::locations::{Location, Pinned, ReadOn};
use tables::batch::Codec;
use tables::{Chunk, Decoder, Position, RowFault, Step};

use crate::batches::{Batches, Piece, Work};
use crate::decide::{Cutter, Limits, RowSize};
use crate::intake::{pinned, read_stop, table_stop};
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
        let batches = Batches::begin(&self.context, &self.metrics, spec, codec, batches);
        let cutter = Cutter::new(limits);
        let mut cut = Cut { spec, requests, cutter, row, chunk_start: resume.unwrap_or_default(), batches };
        let read = cut.read(decoder, &location, input).await;
        match read {
            Err(Ended::Reading(stop)) => Err(stop),
            Err(Ended::Writing) => match cut.batches.finish().await {
                Err(stop) => Err(stop),
                Ok(_) => Err(Stop::Failed(anyhow::anyhow!("batch data was no longer written, without an error"))),
            },
            Ok(rows) => Ok((rows, cut.batches.finish().await?)),
        }
    }

    fn limits(&self, spec: &JobSpec) -> Result<Limits, Refusal> {
        let provider = self.providers.of(spec)?.limits();
        let source = self.config.max_source_bytes;
        Ok(Limits::tightest(spec, provider.max_rows, provider.max_bytes, provider.max_line_bytes, source))
    }
}

/// One run over an input.
struct Cut<'a> {
    spec: &'a JobSpec,
    requests: Requests,
    cutter: Cutter,
    /// The next row to be placed.
    row: u64,
    /// Where the current chunk begins: a place to go on reading from, at or before any row of it.
    chunk_start: Position,
    batches: Batches,
}

/// Why the reading side stopped before the end.
enum Ended {
    /// The input, or the job, is to blame.
    Reading(Stop),
    /// The writing side takes no more: it says why.
    Writing,
}

impl From<Stop> for Ended {
    fn from(stop: Stop) -> Self {
        Self::Reading(stop)
    }
}

/// A chunk whose rows are measured.
struct Measured {
    sizes: Vec<RowSize>,
    faults: Vec<RowFault>,
}

impl Cut<'_> {
    async fn read(&mut self, mut decoder: Decoder, location: &Location, input: &PinnedInput) -> Result<u64, Ended> {
        let (spec, mut on) = (self.spec, ReadOn::new(matches!(decoder, Decoder::Csv(_))));
        loop {
            match cpu::run_blocking_section(|| decoder.step()).map_err(|e| table_stop(spec, e))? {
                Step::Need(ranges) => {
                    let pinned = Self::pinned(spec, location, input).await?;
                    let pieces = on.read(location, &ranges, &pinned).await.map_err(|e| read_stop(spec, e))?;
                    ranges.into_iter().zip(pieces).for_each(|(range, bytes)| decoder.push(range, bytes));
                }
                Step::Rows(chunk) => self.take(chunk).await?,
                Step::End(ended) => {
                    self.hand(Work::End(self.cutter.filled(), self.chunk_start)).await?;
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
    async fn take(&mut self, chunk: Chunk) -> Result<(), Ended> {
        let rows = chunk.rows.num_rows();
        let placed = usize::try_from(self.row.saturating_sub(chunk.first_row)).unwrap_or(usize::MAX).min(rows);
        let measured = cpu::run_blocking_section(|| self.measure(&chunk, placed)).map_err(Stop::from)?;
        let mut from = placed;
        for (index, size) in (placed..rows).zip(&measured.sizes) {
            if let Some(ended) = self.cutter.place(*size) {
                self.append(&chunk, from..index, &measured.faults).await?;
                self.hand(Work::End(ended, self.chunk_start)).await?;
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
        let mut requests = self.requests.of_chunk(chunk);
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

    /// Hands rows of a chunk over, those of one batch.
    async fn append(&mut self, chunk: &Chunk, rows: Range<usize>, faults: &[RowFault]) -> Result<(), Ended> {
        if rows.is_empty() {
            return Ok(());
        }
        let first_row = self.row;
        self.row += rows.len() as u64;
        let faults = faults
            .iter()
            .filter(|fault| rows.contains(&fault.row))
            .map(|fault| RowFault { row: fault.row - rows.start, ..fault.clone() })
            .collect();
        let rows = chunk.rows.slice(rows.start, rows.len());
        self.hand(Work::Rows(Piece { rows, first_row, chunk_start: self.chunk_start, faults })).await
    }

    async fn hand(&self, work: Work) -> Result<(), Ended> {
        if self.batches.take(work).await { Ok(()) } else { Err(Ended::Writing) }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_nonces_length_is_the_same_for_all() {
        assert_eq!(model::Nonce::from_bits(0).as_str().len(), model::Nonce::from_bits(u64::MAX).as_str().len());
    }
}
