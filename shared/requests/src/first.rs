//! The first attempts of a plan, packed: a job may have hundreds of thousands of batches, and a room keeps many jobs.
//!
//! A reference to a batch is mostly text that follows from the rest (its key) or that is a number in hex. Without that a
//! batch takes 80 bytes. A reference that is not as this version writes them, say with a checksum of another algorithm,
//! is kept as it is: what comes out is always exactly what the plan says.

use std::collections::BTreeMap;

use model::digest::Checksum;
use model::{BatchId, BatchRef, DataRef, JobId, Nonce, keys};

/// The first attempts of one job, by number from 1.
pub(crate) struct FirstAttempts {
    usual: Vec<Packed>,
    /// Those that can't be packed, by their place.
    odd: BTreeMap<usize, BatchRef>,
}

/// All of a usual reference but the job and the number.
#[derive(Clone, Copy, Default)]
struct Packed {
    /// The BLAKE3 of its data, first half and second.
    checksum: [u128; 2],
    nonce: u64,
    first_row: u64,
    bytes: u64,
    rows: u64,
    send_rows: u64,
    send_bytes: u64,
}

impl FirstAttempts {
    pub(crate) fn new(job: &JobId, batches: Vec<BatchRef>) -> Self {
        let mut odd = BTreeMap::new();
        let mut usual = Vec::with_capacity(batches.len());
        for (place, batch) in batches.into_iter().enumerate() {
            match Packed::of(job, place, &batch) {
                Some(packed) => usual.push(packed),
                None => {
                    usual.push(Packed::default());
                    odd.insert(place, batch);
                }
            }
        }
        Self { usual, odd }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.usual.len()
    }

    /// The one of this number.
    pub(crate) fn get(&self, job: &JobId, number: u32) -> Option<BatchRef> {
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        match self.odd.get(&place) {
            Some(odd) => Some(odd.clone()),
            None => self.usual.get(place)?.unpack(job, place),
        }
    }
}

impl Packed {
    /// None for a reference that would not come out as it is.
    fn of(job: &JobId, place: usize, batch: &BatchRef) -> Option<Self> {
        let Checksum::Blake3(hex) = &batch.data.checksum else { return None };
        let half = |hex: Option<&str>| u128::from_str_radix(hex?, 16).ok();
        let packed = Self {
            checksum: [half(hex.get(..32))?, half(hex.get(32..))?],
            nonce: u64::from_str_radix(batch.nonce.as_str(), 16).ok()?,
            first_row: batch.first_row,
            bytes: batch.data.bytes,
            rows: batch.data.rows,
            send_rows: batch.send_rows,
            send_bytes: batch.send_bytes,
        };
        (packed.unpack(job, place).as_ref() == Some(batch)).then_some(packed)
    }

    fn unpack(&self, job: &JobId, place: usize) -> Option<BatchRef> {
        let id = BatchId { number: u32::try_from(place).ok()?.checked_add(1)?, attempt: 1 };
        let nonce = Nonce::from_bits(self.nonce);
        let [first, second] = self.checksum;
        let data = DataRef {
            key: keys::batch_data(job, id, &nonce),
            checksum: Checksum::Blake3(format!("{first:032x}{second:032x}")),
            bytes: self.bytes,
            rows: self.rows,
        };
        let Self { first_row, send_rows, send_bytes, .. } = *self;
        Some(BatchRef { id, nonce, first_row, data, send_rows, send_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        "spring-catalog".parse().unwrap()
    }

    fn batch(number: u32) -> BatchRef {
        let (id, nonce) = (BatchId { number, attempt: 1 }, Nonce::from_bits(u64::from(number)));
        let key = keys::batch_data(&job(), id, &nonce);
        let data = DataRef { key, checksum: Checksum::of(&number.to_le_bytes()), bytes: 1 << 40, rows: 50_000 };
        BatchRef { id, nonce, first_row: 7, data, send_rows: 49_999, send_bytes: 200_000_000 }
    }

    fn kept(batches: &[BatchRef]) -> FirstAttempts {
        FirstAttempts::new(&job(), batches.to_vec())
    }

    #[test]
    fn what_was_packed_comes_out_as_it_was() {
        let batches: Vec<BatchRef> = (1..=300).map(batch).collect();
        let first = kept(&batches);
        assert_eq!((first.len(), first.odd.len()), (300, 0));
        for batch in batches {
            assert_eq!(first.get(&job(), batch.id.number), Some(batch));
        }
        assert_eq!((first.get(&job(), 0), first.get(&job(), 301)), (None, None));
        assert!(size_of::<Packed>() <= 80);
    }

    #[test]
    fn what_is_not_usual_is_kept_as_it_is() {
        let mut batches: Vec<BatchRef> = (1..=5).map(batch).collect();
        batches[0].data.checksum = Checksum::Sha256("ab".repeat(32));
        batches[1].data.checksum = Checksum::Blake3("AB".repeat(32));
        batches[2].data.key = "elsewhere.parquet".to_owned();
        batches[3].id = BatchId { number: 9, attempt: 2 };
        let first = kept(&batches);
        assert_eq!(first.odd.len(), 4);
        for (number, batch) in (1..).zip(batches) {
            assert_eq!(first.get(&job(), number), Some(batch));
        }
    }
}
