//! What an earlier split of the same job left: batch data that is durable but that no plan names yet.

use anyhow::Context as _;
use model::digest::Checksummer;
use model::{BatchRef, DataRef, JobId, keys};
use runtime::store::Listed;
use tables::Position;
use tables::batch::{BatchMeta, MetaStep};

use crate::decide::{Left, durable_chain};
use crate::{Splitter, Stop};

/// How much of an object's end is read at first: our footers are smaller.
const TAIL_BYTES: u64 = 64 << 10;
/// How much of an object is read at a time when its digest is made again.
const PIECE_BYTES: u64 = 8 << 20;

/// A batch data object that an earlier split left.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) meta: BatchMeta,
    pub(crate) key: String,
    pub(crate) bytes: u64,
    /// Where reading goes on behind it.
    pub(crate) end: Position,
}

impl Splitter {
    /// The unbroken chain of batches that earlier splits of this job made durable.
    pub(crate) async fn left_behind(&self, job: &JobId) -> Result<Vec<Left<Object>>, Stop> {
        let listed = self.context.store.list(&keys::batches_folder(job)).await.map_err(anyhow::Error::from)?;
        let mut left = Vec::new();
        for object in listed {
            let first_attempt =
                matches!(keys::parse(&object.key), Some(keys::Key::BatchData(_, id, _)) if id.attempt == 1);
            if first_attempt {
                left.extend(self.describe(object).await?);
            }
        }
        Ok(durable_chain(left))
    }

    /// What an object says of itself; none for one that is no batch data of this version, which is nobody's.
    async fn describe(&self, listed: Listed) -> Result<Option<Left<Object>>, Stop> {
        let mut wanted = TAIL_BYTES;
        let meta = loop {
            let from = listed.bytes.saturating_sub(wanted);
            let tail =
                self.context.store.get_range(&listed.key, from..listed.bytes).await.map_err(anyhow::Error::from)?;
            match BatchMeta::from_tail(&tail) {
                Ok(MetaStep::Meta(meta)) => break meta,
                Ok(MetaStep::Need(bytes)) if from > 0 => wanted = bytes as u64,
                not_batch_data => {
                    tracing::warn!(key = listed.key, reason = ?not_batch_data.err(), "left-over object is passed over");
                    return Ok(None);
                }
            }
        };
        let (number, first_row, rows, end) = (meta.id.number, meta.first.row, meta.rows, meta.end);
        Ok(Some(Left { number, first_row, rows, object: Object { meta, key: listed.key, bytes: listed.bytes, end } }))
    }

    /// The reference to a batch that was left; its digest is made from its bytes as they are now.
    pub(crate) async fn adopt(&self, job: &JobId, left: &Left<Object>) -> Result<BatchRef, Stop> {
        let Object { meta, key, bytes, .. } = &left.object;
        let mut digest = Checksummer::default();
        let mut at = 0;
        while at < *bytes {
            let end = (at + PIECE_BYTES).min(*bytes);
            let piece = self.context.store.get_range(key, at..end).await.context("reading batch data again")?;
            digest.update(&piece);
            at = end;
        }
        tracing::info!(job = %job, batch = %meta.id, rows = meta.rows, "batch of an earlier split is taken over");
        let data = DataRef { key: key.clone(), checksum: digest.finish(), bytes: *bytes, rows: meta.rows };
        let (id, nonce) = (meta.id, meta.nonce.clone());
        Ok(BatchRef {
            id,
            nonce,
            first_row: left.first_row,
            data,
            send_rows: meta.send_rows,
            send_bytes: meta.send_bytes,
        })
    }
}
