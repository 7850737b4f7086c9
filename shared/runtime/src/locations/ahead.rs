//! Reading on: a pinned file from its begin to its end, with the next ranges on their way while one is worked on.
//!
//! **Promise.** What is handed out is what [`Location::read`] would have given for the same ranges, in the same order. Memory is at
//! most [`AHEAD`] ranges of at most [`LONGEST`] bytes beyond the one that was asked for.
//!
//! Who asks for one range after the other, each where the last ended, gets those that follow ahead of the question. On an object
//! store each range costs a wait for its first byte, which is longer than what is done with a range of some megabytes. Only a
//! stream of bytes is read so: the row groups of a Parquet file have each their own length, so none can be foreseen. A file of
//! this machine is in memory before anybody asks, and on a runtime of one thread nothing is begun ahead, so that a simulation
//! stays deterministic.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{Location, Pinned, Place, ReadError};
use crate::cpu::has_many_threads;

/// Ranges that are on their way, or have come and wait, beyond the one that is worked on.
const AHEAD: usize = 3;
/// A longer range is asked for alone.
const LONGEST: u64 = 8 << 20;

/// A range on its way. Dropped, it stops.
type OnItsWay = (Range<u64>, AbortOnDropHandle<Result<Vec<Bytes>, ReadError>>);

/// Reads a pinned file on. Each question says which version it expects.
#[derive(Debug)]
pub struct ReadOn {
    is_stream: bool,
    /// In the order of the file.
    ahead: VecDeque<OnItsWay>,
    /// The version of what is on its way.
    etag: String,
}

impl ReadOn {
    /// Begins; whether the file is a stream of bytes, which is read in ranges of one length.
    #[must_use]
    pub fn new(is_stream: bool) -> Self {
        Self { is_stream, ahead: VecDeque::new(), etag: String::new() }
    }

    /// Parts of the pinned version, in the order of the ranges.
    ///
    /// # Errors
    /// As [`Location::read`].
    pub async fn read(
        &mut self,
        location: &Location,
        ranges: &[Range<u64>],
        pinned: &Pinned,
    ) -> Result<Vec<Bytes>, ReadError> {
        let alone = match ranges {
            [range] if self.is_stream && has_many_threads() && !matches!(location.place, Place::File(_)) => {
                (1..=LONGEST).contains(&(range.end - range.start)).then_some(range)
            }
            _ => None,
        };
        let Some(range) = alone else {
            self.ahead.clear();
            return location.read(ranges, &pinned.etag).await;
        };
        let asked_for = self.take(range, &pinned.etag);
        let asked_for = asked_for.unwrap_or_else(|| begin(location, range.clone(), &pinned.etag));
        self.go_on(location, range, pinned);
        asked_for
            .await
            .map_err(|error| ReadError::Transient { uri: location.uri.clone(), reason: error.to_string() })?
    }

    /// The range, if it was foreseen. If another one was, all that is on its way is for nothing.
    fn take(&mut self, range: &Range<u64>, etag: &str) -> Option<AbortOnDropHandle<Result<Vec<Bytes>, ReadError>>> {
        match self.ahead.pop_front() {
            Some((foreseen, coming)) if foreseen == *range && self.etag == etag => Some(coming),
            _ => {
                self.ahead.clear();
                etag.clone_into(&mut self.etag);
                None
            }
        }
    }

    /// Begins the ranges that are expected next: of the same size, up to the file's end.
    fn go_on(&mut self, location: &Location, range: &Range<u64>, pinned: &Pinned) {
        let size = range.end - range.start;
        while self.ahead.len() < AHEAD {
            let start = self.ahead.back().map_or(range.end, |(last, _)| last.end);
            if start >= pinned.bytes {
                return;
            }
            let next = start..(start + size).min(pinned.bytes);
            self.ahead.push_back((next.clone(), begin(location, next, &pinned.etag)));
        }
    }
}

fn begin(location: &Location, range: Range<u64>, etag: &str) -> AbortOnDropHandle<Result<Vec<Bytes>, ReadError>> {
    let (location, etag) = (location.clone(), etag.to_owned());
    let reading = async move { location.read(&[range], &etag).await };
    AbortOnDropHandle::new(tokio::spawn(reading.in_current_span()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locations::Locations;
    use crate::settings::LocationRules;
    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
    use std::sync::Arc;

    /// An object of a hundred bytes, each its own place; its location and version.
    async fn object(store: &Arc<dyn ObjectStore>) -> (Location, Pinned) {
        let bytes: Vec<u8> = (0..100).collect();
        store.put(&"lake/in.csv".into(), PutPayload::from(bytes)).await.unwrap();
        let locations = Locations::in_memory(LocationRules::default(), Arc::clone(store));
        let location = locations.resolve("s3://lake/in.csv", &model::Team::shared()).unwrap();
        let pinned = location.head().await.unwrap().unwrap();
        (location, pinned)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn ranges_come_as_they_are_asked_for_whether_they_were_foreseen_or_not() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (location, pinned) = object(&store).await;
        let mut on = ReadOn::new(true);
        for range in [0..30, 30..60, 60..90, 90..100, 20..50, 50..80, 50..60, 60..100] {
            let got = on.read(&location, std::slice::from_ref(&range), &pinned).await.unwrap();
            let due: Vec<u8> = (range.start as u8..range.end as u8).collect();
            assert_eq!(got, [Bytes::from(due)], "{range:?}");
            assert!(on.ahead.len() <= AHEAD && on.ahead.iter().all(|(next, _)| next.end <= 100));
        }
        let both = on.read(&location, &[0..2, 98..100], &pinned).await.unwrap();
        assert_eq!(both, [Bytes::from_static(&[0, 1]), Bytes::from_static(&[98, 99])]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_next_ranges_are_on_their_way_and_of_the_version_that_was_pinned() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (location, pinned) = object(&store).await;
        let mut on = ReadOn::new(true);
        on.read(&location, std::slice::from_ref(&(0..20)), &pinned).await.unwrap();
        let foreseen: Vec<Range<u64>> = on.ahead.iter().map(|(range, _)| range.clone()).collect();
        assert_eq!(foreseen, [20..40, 40..60, 60..80]);
        on.ahead.clear();
        store.put(&"lake/in.csv".into(), PutPayload::from(vec![0; 100])).await.unwrap();
        let changed = on.read(&location, std::slice::from_ref(&(20..40)), &pinned).await;
        assert!(matches!(changed, Err(ReadError::Changed { .. })), "{changed:?}");
    }

    #[tokio::test]
    async fn on_one_thread_nothing_is_begun_ahead() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (location, pinned) = object(&store).await;
        let mut on = ReadOn::new(true);
        on.read(&location, std::slice::from_ref(&(0..20)), &pinned).await.unwrap();
        assert!(on.ahead.is_empty());
    }
}
