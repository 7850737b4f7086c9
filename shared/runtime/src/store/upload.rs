//! Writing an object as a stream, with a bounded part of it in memory.
//!
//! **Promise.** Nothing is visible before [`ObjectWriter::finish`] returns; a writer that is dropped leaves nothing behind,
//! as far as the store can be reached. Memory: at most four parts, and the
//! chunks that they were cut from, whatever the object's size.
//!
//! What is written is not copied together: a part is a list of the pieces that came, cut where the part ends. All parts but
//! the last have the same size, which some stores insist on.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use model::digest::{Checksum, Checksummer};
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::to_file::FileTarget;
use super::{Error, Result};
use crate::cpu::run_blocking_section;
use crate::metrics::{Request, StoreMetrics};

/// The size of a part unless the settings say otherwise: 8 MiB.
pub(crate) const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts on their way at a time.
const PARTS_IN_FLIGHT: usize = 3;
/// From this size on hashing is worth moving other tasks away.
const LONG_HASH: usize = 1024 * 1024;

/// A file is written when so much waits: 1 MiB.
const FILE_BYTES: usize = 1024 * 1024;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its size.
    pub bytes: u64,
    /// What its bytes come to.
    pub checksum: Checksum,
}

/// An object in the making.
pub struct ObjectWriter {
    key: String,
    target: Target,
    part_bytes: usize,
    /// What is not on its way yet, and how much it is.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    bytes: u64,
    /// Of what goes to a store; a file is hashed as it is written.
    hasher: Checksummer,
    /// Counts failed uploads to the store.
    metrics: Option<StoreMetrics>,
}

#[derive(Debug)]
enum Target {
    /// The key was not valid.
    Invalid(Error),
    /// Nothing is sent yet; a small object is one put.
    Store(Arc<dyn ObjectStore>, Key),
    /// Parts are on their way.
    Parts(Parts),
    /// A file of the caller's.
    File(FileTarget),
}

impl fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWriter").field("key", &self.key).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl ObjectWriter {
    pub(super) fn to_store(inner: Arc<dyn ObjectStore>, path: Result<Key>, key: &str, part_bytes: usize) -> Self {
        let target = match path {
            Ok(path) => Target::Store(inner, path),
            Err(error) => Target::Invalid(error),
        };
        Self::new(key, target, part_bytes)
    }

    /// Writes to a key of any backend.
    pub(crate) fn to_key(inner: Arc<dyn ObjectStore>, path: Key, key: &str, part_bytes: usize) -> Self {
        Self::new(key, Target::Store(inner, path), part_bytes)
    }

    /// Writes to a file, which appears under its name when it is finished.
    pub(crate) fn to_file(path: &Path) -> Self {
        Self::new(&path.display().to_string(), Target::File(FileTarget::new(path)), PART_BYTES)
    }

    fn new(key: &str, target: Target, part_bytes: usize) -> Self {
        let (waiting, hasher) = (VecDeque::new(), Checksummer::default());
        Self { key: key.to_owned(), target, part_bytes, waiting, waiting_bytes: 0, bytes: 0, hasher, metrics: None }
    }

    /// The same, which counts how often it failed.
    pub(super) fn counted_by(self, metrics: Option<StoreMetrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes. Waits while too many parts are on their way.
    ///
    /// # Errors
    /// That of any part so far; the object can't be finished then.
    pub async fn write(&mut self, chunk: impl Into<Bytes>) -> Result<()> {
        let written = self.try_write(chunk.into()).await;
        counted(self.metrics.as_ref(), written)
    }

    async fn try_write(&mut self, chunk: Bytes) -> Result<()> {
        if let Target::Invalid(error) = &self.target {
            return Err(error.clone());
        }
        self.bytes += chunk.len() as u64;
        if !chunk.is_empty() {
            self.hash(&chunk);
            self.waiting_bytes += chunk.len();
            self.waiting.push_back(chunk);
        }
        if let Target::File(file) = &mut self.target {
            if self.waiting_bytes >= FILE_BYTES {
                self.waiting_bytes = 0;
                let written = file.append(self.waiting.drain(..).collect()).await;
                written.map_err(|error| file_error(&self.key, &error))?;
            }
            return Ok(());
        }
        while self.waiting_bytes > self.part_bytes {
            let part = self.next_part();
            self.send(part).await?;
        }
        Ok(())
    }

    fn hash(&mut self, chunk: &[u8]) {
        let hasher = &mut self.hasher;
        match &self.target {
            Target::File(_) => {}
            _ if chunk.len() >= LONG_HASH => run_blocking_section(|| hasher.update(chunk)),
            _ => hasher.update(chunk),
        }
    }

    /// The pieces of the next part, the last of them cut.
    fn next_part(&mut self) -> PutPayload {
        let (mut part, mut room) = (Vec::new(), self.part_bytes);
        while let Some(mut piece) = self.waiting.pop_front() {
            if piece.len() > room {
                let rest = piece.split_off(room);
                self.waiting.push_front(rest);
            }
            room -= piece.len();
            part.push(piece);
            if room == 0 {
                break;
            }
        }
        self.waiting_bytes -= self.part_bytes - room;
        part.into_iter().collect()
    }

    fn count_puts(&self, count: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.record_requests(Request::Put, count);
        }
    }

    async fn send(&mut self, part: PutPayload) -> Result<()> {
        // An upload in parts begins with a request of its own.
        self.count_puts(if matches!(self.target, Target::Store(..)) { 2 } else { 1 });
        match &mut self.target {
            Target::Invalid(error) => Err(error.clone()),
            // A file takes all that waits.
            Target::File(_) => Ok(()),
            Target::Parts(parts) => parts.send(part).await.map_err(Error::reading(&self.key)),
            Target::Store(inner, path) => {
                let upload = inner.put_multipart(path).await.map_err(Error::reading(&self.key))?;
                let mut parts = Parts { upload: Some(upload), sending: JoinSet::new() };
                let sent = parts.send(part).await;
                self.target = Target::Parts(parts);
                sent.map_err(Error::reading(&self.key))
            }
        }
    }

    /// Makes the object visible, whole.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: it may or may not be there.
    pub async fn finish(self) -> Result<Written> {
        let metrics = self.metrics.clone();
        let finished = self.try_finish().await;
        if let (Some(metrics), Ok(written)) = (&metrics, &finished) {
            metrics.record_written(written.bytes);
        }
        counted(metrics.as_ref(), finished)
    }

    async fn try_finish(mut self) -> Result<Written> {
        let last: Vec<Bytes> = self.waiting.drain(..).collect();
        let mut hasher = std::mem::take(&mut self.hasher);
        // The last part and the end, or all of a small object.
        self.count_puts(if matches!(self.target, Target::Parts(_)) { 1 + u64::from(!last.is_empty()) } else { 1 });
        match &mut self.target {
            Target::Invalid(error) => return Err(error.clone()),
            Target::Store(inner, path) => {
                inner.put(path, last.into_iter().collect()).await.map_err(Error::reading(&self.key))?;
            }
            Target::Parts(parts) => parts.finish(last).await.map_err(Error::reading(&self.key))?,
            Target::File(file) => {
                hasher = file.finish(last).await.map_err(|error| file_error(&self.key, &error))?;
            }
        }
        Ok(Written { bytes: self.bytes, checksum: hasher.finish() })
    }

    /// Gives the object up and removes what was sent of it.
    pub async fn abort(mut self) {
        if let Target::Parts(parts) = &mut self.target {
            parts.sending.abort_all();
            if let Some(mut upload) = parts.upload.take()
                && let Err(error) = upload.abort().await
            {
                tracing::debug!(
                    key = self.key,
                    error = super::said(&error),
                    "an upload could not be aborted; the store's clean-up removes it"
                );
            }
        }
    }
}

fn counted<T>(metrics: Option<&StoreMetrics>, result: Result<T>) -> Result<T> {
    if let (Some(metrics), Err(error)) = (metrics, &result) {
        metrics.record_error("upload", error);
    }
    result
}

/// A multipart upload that is aborted, as far as possible, when it is dropped unfinished.
#[derive(Debug)]
struct Parts {
    upload: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<object_store::Result<()>>,
}

impl Parts {
    async fn send(&mut self, part: PutPayload) -> object_store::Result<()> {
        while self.sending.len() >= PARTS_IN_FLIGHT {
            self.one_sent().await?;
        }
        if let Some(upload) = &mut self.upload {
            self.sending.spawn(upload.put_part(part).in_current_span());
        }
        Ok(())
    }

    async fn one_sent(&mut self) -> object_store::Result<()> {
        match self.sending.join_next().await {
            Some(joined) => joined?,
            None => Ok(()),
        }
    }

    async fn finish(&mut self, last: Vec<Bytes>) -> object_store::Result<()> {
        if !last.is_empty() {
            self.send(last.into_iter().collect()).await?;
        }
        while !self.sending.is_empty() {
            self.one_sent().await?;
        }
        if let Some(upload) = &mut self.upload {
            upload.complete().await?;
        }
        self.upload = None;
        Ok(())
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.sending.abort_all();
        if let (Some(mut upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn(async move { upload.abort().await }));
        }
    }
}

fn file_error(key: &str, error: &std::io::Error) -> Error {
    Error::Unavailable { key: key.to_owned(), reason: error.to_string() }
}
