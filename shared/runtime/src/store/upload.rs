//! Writing an object as a stream, with a bounded part of it in memory.
//!
//! **Promise.** Nothing is visible before [`ObjectWriter::finish`] returns; a writer that is dropped leaves nothing behind,
//! as far as the store can be reached. Memory: at most four parts, whatever the object's size.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::digest::{Checksum, Checksummer};
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::{Error, Result};
use crate::cpu::run_blocking_section;
use crate::metrics::StoreMetrics;

/// The size of a part unless the settings say otherwise: 8 MiB.
pub(crate) const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts on their way at a time.
const PARTS_IN_FLIGHT: usize = 3;
/// From this size on hashing is worth moving other tasks away.
const LONG_HASH: usize = 1024 * 1024;

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
    buffer: Vec<u8>,
    bytes: u64,
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
    /// A file of the caller's, under a temporary name beside its own.
    File(Option<tempfile::NamedTempFile>, PathBuf),
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
        Self::new(&path.display().to_string(), Target::File(None, path.to_owned()), PART_BYTES)
    }

    fn new(key: &str, target: Target, part_bytes: usize) -> Self {
        let (buffer, hasher) = (Vec::new(), Checksummer::default());
        Self { key: key.to_owned(), target, part_bytes, buffer, bytes: 0, hasher, metrics: None }
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
    pub async fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
        let written = self.try_write(chunk).await;
        counted(self.metrics.as_ref(), written)
    }

    async fn try_write(&mut self, chunk: Vec<u8>) -> Result<()> {
        if let Target::Invalid(error) = &self.target {
            return Err(error.clone());
        }
        self.bytes += chunk.len() as u64;
        let hasher = &mut self.hasher;
        if chunk.len() >= LONG_HASH {
            run_blocking_section(|| hasher.update(&chunk));
        } else {
            hasher.update(&chunk);
        }
        if self.buffer.is_empty() {
            self.buffer = chunk;
        } else {
            self.buffer.extend_from_slice(&chunk);
        }
        while self.buffer.len() > self.part_bytes {
            let rest = self.buffer.split_off(self.part_bytes);
            let part = std::mem::replace(&mut self.buffer, rest);
            self.send(part).await?;
        }
        Ok(())
    }

    async fn send(&mut self, part: Vec<u8>) -> Result<()> {
        match &mut self.target {
            Target::Invalid(error) => Err(error.clone()),
            Target::Parts(parts) => parts.send(part).await.map_err(Error::reading(&self.key)),
            Target::Store(inner, path) => {
                let upload = inner.put_multipart(path).await.map_err(Error::reading(&self.key))?;
                let mut parts = Parts { upload: Some(upload), sending: JoinSet::new() };
                let sent = parts.send(part).await;
                self.target = Target::Parts(parts);
                sent.map_err(Error::reading(&self.key))
            }
            Target::File(file, path) => append(file, path, part).await.map_err(|error| file_error(&self.key, &error)),
        }
    }

    /// Makes the object visible, whole.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: it may or may not be there.
    pub async fn finish(self) -> Result<Written> {
        let metrics = self.metrics.clone();
        counted(metrics.as_ref(), self.try_finish().await)
    }

    async fn try_finish(mut self) -> Result<Written> {
        let last = std::mem::take(&mut self.buffer);
        let written = Written { bytes: self.bytes, checksum: std::mem::take(&mut self.hasher).finish() };
        match &mut self.target {
            Target::Invalid(error) => return Err(error.clone()),
            Target::Store(inner, path) => {
                inner.put(path, PutPayload::from(last)).await.map_err(Error::reading(&self.key))?;
            }
            Target::Parts(parts) => parts.finish(last).await.map_err(Error::reading(&self.key))?,
            Target::File(file, path) => {
                let result = async {
                    append(file, path, last).await?;
                    publish(file.take(), path.clone()).await
                };
                result.await.map_err(|error| file_error(&self.key, &error))?;
            }
        }
        Ok(written)
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
    async fn send(&mut self, part: Vec<u8>) -> object_store::Result<()> {
        while self.sending.len() >= PARTS_IN_FLIGHT {
            self.one_sent().await?;
        }
        if let Some(upload) = &mut self.upload {
            self.sending.spawn(upload.put_part(PutPayload::from(part)).in_current_span());
        }
        Ok(())
    }

    async fn one_sent(&mut self) -> object_store::Result<()> {
        match self.sending.join_next().await {
            Some(joined) => joined?,
            None => Ok(()),
        }
    }

    async fn finish(&mut self, last: Vec<u8>) -> object_store::Result<()> {
        if !last.is_empty() {
            self.send(last).await?;
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

/// Opens the temporary file at first need, and appends on a thread for blocking work.
async fn append(file: &mut Option<tempfile::NamedTempFile>, path: &Path, part: Vec<u8>) -> std::io::Result<()> {
    let (opened, path) = (file.take(), path.to_owned());
    let written = blocking(move || {
        let mut file = match opened {
            Some(file) => file,
            None => temporary_beside(&path)?,
        };
        std::io::Write::write_all(&mut file, &part)?;
        Ok(file)
    });
    *file = Some(written.await?);
    Ok(())
}

fn temporary_beside(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    // The rights that a file gets which is simply written; the default of the library is the owner alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(".batchmill-").suffix(".part").tempfile_in(folder)
}

async fn publish(file: Option<tempfile::NamedTempFile>, path: PathBuf) -> std::io::Result<()> {
    blocking(move || {
        let Some(file) = file else { return Ok(()) };
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        match path.parent() {
            Some(folder) => std::fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
