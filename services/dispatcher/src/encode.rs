//! The upload's bytes: batch data in, encoded requests out, a piece at a time. Memory is a few pages and one piece.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use model::CustomId;
use requests::Job;
use runtime::cpu;
use tables::batch::{BatchChunks, BatchReader, BatchRows};

/// So many rows are unpacked at a time.
const CHUNK_ROWS: usize = 1_024;

/// A batch on its way to the provider.
pub(crate) struct Encoding {
    reader: BatchChunks,
    rows: Option<BatchRows>,
    /// The next row of `rows`.
    next: usize,
    job: Arc<Job>,
    piece_bytes: usize,
}

impl Encoding {
    pub(crate) fn open(data: File, job: Arc<Job>, piece_bytes: usize) -> anyhow::Result<Self> {
        let reader = BatchReader::open(data)?.with_views()?.into_chunks(CHUNK_ROWS);
        Ok(Self { reader, rows: None, next: 0, job, piece_bytes })
    }

    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::try_unfold(self, |mut encoding| async move {
            let piece = cpu::run_blocking_section(|| encoding.piece())?;
            Ok(piece.map(|piece| (piece, encoding)))
        })
    }

    /// The next piece; `None` at the end.
    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = Vec::with_capacity(self.piece_bytes + (64 << 10));
        while piece.len() < self.piece_bytes {
            let Some(rows) = self.rows.as_ref().filter(|rows| self.next < rows.len()) else {
                if !self.next_rows()? {
                    break;
                }
                continue;
            };
            let nonce = self.reader.meta().nonce.as_str();
            self.next = encode_rows(&self.job, nonce, rows, self.next, self.piece_bytes, &mut piece)?;
        }
        Ok((!piece.is_empty()).then(|| Bytes::from(piece)))
    }

    fn next_rows(&mut self) -> io::Result<bool> {
        self.next = 0;
        self.rows = self.reader.next().transpose().map_err(io::Error::other)?;
        Ok(self.rows.is_some())
    }
}

/// Encodes rows from `next` on until the piece is full; gives the row behind them. A row that was sized when the batch was cut
/// is encoded now: both times by the same code, so a failure here means that the batch data is not what it was.
fn encode_rows(
    job: &Job,
    nonce: &str,
    rows: &BatchRows,
    mut next: usize,
    piece_bytes: usize,
    piece: &mut Vec<u8>,
) -> io::Result<usize> {
    let mut requests = job.requests.of(&rows.carried);
    while next < rows.len() && piece.len() < piece_bytes {
        if rows.local_failure(next).is_none() {
            let place = rows.first_in_batch + next;
            let id = CustomId { nonce, row: u32::try_from(place).map_err(io::Error::other)? };
            requests
                .encode(next, &id, piece)
                .map_err(|failure| io::Error::other(format!("row {place} of the batch: {}", failure.message)))?;
        }
        next += 1;
    }
    Ok(next)
}
