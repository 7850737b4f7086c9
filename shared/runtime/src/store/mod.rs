//! The store: facts, which are put once, and data objects, which are streamed.
//!
//! **Promise.** [`Store::put_once`] tells the truth about who won a key, whatever the server's replies say. An
//! [`ObjectWriter`] shows nothing before it is finished. [`Store::list`] gives the whole listing or an error.
//!
//! **Why so thin.** All backends go through one trait of `object_store`; what is added is only what the design needs of it,
//! so a backend is trusted for four things: put if absent (which the probe checks), read after write, whole listings (also
//! from a key on) and atomic objects.
//!
//! **What it lacks on purpose.** No compare-and-swap (the local store has none), no rename, no cache: facts are immutable, so
//! a room may keep what it read.

mod error;
mod fetch;
mod open;
mod passing;
mod put_once;
mod to_file;
mod upload;

#[cfg(test)]
mod lying;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::de::DeserializeOwned;

use crate::metrics::{Request, StoreMetrics};
use crate::settings::StoreSettings;

pub(crate) use error::said;
pub use error::{Error, Result};
pub use fetch::Ahead;
pub use passing::Passing;
pub use put_once::{Fact, PutOnce};
pub use upload::{ObjectWriter, Written};

#[cfg(test)]
pub(crate) use lying::{Fate, Lying};
pub(crate) use open::s3_bucket;
pub(crate) use upload::PART_BYTES;

/// Facts that are read at a time.
const PARALLEL_READS: usize = 16;

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key, relative to the store's prefix.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When the store says it was written. Good for liveness, not for safety.
    pub modified: Timestamp,
}

/// An object store and a prefix in it. Clones are handles to the same one.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    /// The same, if it is a folder of this machine: its objects are files, which need no copy.
    folder: Option<Arc<LocalFileSystem>>,
    prefix: String,
    part_bytes: usize,
    /// Counts what becomes of calls, if anybody wants to know.
    metrics: Option<StoreMetrics>,
}

// A client shows its access key's id.
impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("store", &self.inner.to_string())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The store of the settings.
    ///
    /// # Errors
    /// [`Error::Settings`] if the URI or another setting is wrong, or the folder of a local store can't be made.
    pub fn open(settings: &StoreSettings) -> Result<Self> {
        open::open(settings)
    }

    /// A store in a folder, which is made if it is missing. Each put is on the disk when it returns.
    ///
    /// # Errors
    /// [`Error::Settings`] if the folder can't be made.
    pub fn local(dir: &Path) -> Result<Self> {
        open::local(dir)
    }

    /// An empty store in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(Arc::new(InMemory::new()), "")
    }

    /// A store on any backend, under a prefix without slashes at its ends.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/').to_owned();
        Self { inner, folder: None, prefix, part_bytes: PART_BYTES, metrics: None }
    }

    /// A store in a folder of this machine.
    fn in_folder(files: LocalFileSystem) -> Self {
        let files = Arc::new(files);
        Self { folder: Some(Arc::clone(&files)), ..Self::new(files, "") }
    }

    /// The same store with another part size for large uploads.
    #[must_use]
    pub fn with_part_bytes(self, part_bytes: usize) -> Self {
        Self { part_bytes, ..self }
    }

    /// The same store, which counts what becomes of its calls.
    pub(crate) fn counted_by(self, metrics: StoreMetrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    fn count_put(&self, outcome: &str) {
        if let Some(metrics) = &self.metrics {
            metrics.record_put(outcome);
        }
    }

    fn count_requests(&self, request: Request, count: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.record_requests(request, count);
        }
    }

    fn count_read(&self, bytes: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.record_read(bytes);
        }
    }

    fn count_written(&self, bytes: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.record_written(bytes);
        }
    }

    /// The result, counted if it is an error.
    fn counted<T>(&self, operation: &str, result: Result<T>) -> Result<T> {
        if let (Some(metrics), Err(error)) = (&self.metrics, &result) {
            metrics.record_error(operation, error);
        }
        result
    }

    /// The backend itself, without the prefix.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner)
    }

    /// A key with the prefix, as the backend has it.
    pub(crate) fn path(&self, key: &str) -> Result<Key> {
        let joined = if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        Key::parse(&joined).map_err(|error| Error::InvalidKey { key: key.to_owned(), reason: error.to_string() })
    }

    /// An object's bytes; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store can't say.
    pub async fn get_bytes(&self, key: &str) -> Result<Option<Bytes>> {
        self.count_requests(Request::Get, 1);
        let read = async {
            self.inner
                .get(&self.path(key)?)
                .await
                .map_err(Error::reading(key))?
                .bytes()
                .await
                .map_err(Error::reading(key))
        };
        match read.await {
            Ok(bytes) => {
                self.count_read(bytes.len() as u64);
                Ok(Some(bytes))
            }
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => self.counted("get", Err(error)),
        }
    }

    /// Part of an object.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is none; [`Error::Unavailable`].
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.count_requests(Request::Get, 1);
        let read = self.inner.get_range(&self.path(key)?, range).await.map_err(Error::reading(key));
        self.count_read(read.as_ref().map_or(0, |bytes| bytes.len() as u64));
        self.counted("get_range", read)
    }

    /// Facts by their keys, some at a time and in no order, each with what came with its key; `None` where there is
    /// none.
    ///
    /// # Errors
    /// Those of [`Store::get_json`], of the first that could not be read.
    pub async fn get_each<K, T: DeserializeOwned>(
        &self,
        wanted: impl IntoIterator<Item = (K, String)>,
    ) -> Result<Vec<(K, Option<T>)>> {
        let reads = wanted.into_iter().map(async |(name, key)| Ok((name, self.get_json(&key).await?)));
        stream::iter(reads).buffer_unordered(PARALLEL_READS).try_collect().await
    }

    /// A fact; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if what is there is not one; [`Error::Unavailable`].
    pub async fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(bytes) = self.get_bytes(key).await? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes);
        let parsed = parsed.map(Some).map_err(|error| Error::Corrupt {
            key: key.to_owned(),
            reason: format!("not the fact that belongs there: {error}"),
        });
        self.counted("get", parsed)
    }

    /// Whether there is an object.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store can't say.
    pub async fn exists(&self, key: &str) -> Result<bool> {
        self.count_requests(Request::Head, 1);
        match self.inner.head(&self.path(key)?).await.map_err(Error::reading(key)) {
            Ok(_) => Ok(true),
            Err(Error::Missing { .. }) => Ok(false),
            Err(error) => self.counted("exists", Err(error)),
        }
    }

    /// Every object whose key begins with the prefix, in the order of keys: all of them, or an error.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if any page failed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        // Backends list whole folders; what the last part of the prefix excludes is left out here.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = self.path(folder)?;
        let found = self.inner.list(Some(&path)).try_collect().await.map_err(Error::reading(prefix));
        self.in_order(found, |key| key.starts_with(prefix))
    }

    /// The objects of a folder whose keys come after `after`, in the order of keys: all of them, or an error. `folder` ends with
    /// a slash.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if any page failed.
    pub async fn list_after(&self, folder: &str, after: &str) -> Result<Vec<Listed>> {
        let (path, offset) = (self.path(folder.trim_end_matches('/'))?, self.path(after)?);
        let found = self.inner.list_with_offset(Some(&path), &offset).try_collect().await;
        self.in_order(found.map_err(Error::reading(folder)), |key| key.starts_with(folder) && key > after)
    }

    /// What was listed, counted, in the order of keys.
    fn in_order(
        &self,
        found: Result<Vec<object_store::ObjectMeta>>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<Listed>> {
        let found = self.counted("list", found)?;
        self.count_requests(Request::List, pages(found.len()));
        let mut listed: Vec<Listed> = found.into_iter().filter_map(|meta| self.listed(&meta)).collect();
        listed.retain(|object| wanted(&object.key));
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    /// The names of the folders right below this one, in order: all of them, or an error. `folder` ends with a slash.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if any page failed.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.path(folder.trim_end_matches('/'))?;
        let listed = self.inner.list_with_delimiter(Some(&path)).await.map_err(Error::reading(folder));
        let listed = self.counted("list", listed)?;
        self.count_requests(Request::List, pages(listed.common_prefixes.len() + listed.objects.len()));
        let mut names: Vec<String> =
            listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    fn listed(&self, meta: &object_store::ObjectMeta) -> Option<Listed> {
        let full = meta.location.as_ref();
        let key = if self.prefix.is_empty() { full } else { full.strip_prefix(&self.prefix)?.strip_prefix('/')? };
        let modified = Timestamp::from_millisecond(meta.last_modified.timestamp_millis()).unwrap_or_default();
        Some(Listed { key: key.to_owned(), bytes: meta.size, modified })
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; then it may or may not be gone.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.count_requests(Request::Delete, 1);
        match self.inner.delete(&self.path(key)?).await.map_err(Error::reading(key)) {
            Ok(()) | Err(Error::Missing { .. }) => Ok(()),
            Err(error) => self.counted("delete", Err(error)),
        }
    }

    /// Begins an object, which is there once the writer is finished. A key that is not valid fails at the first write.
    #[must_use]
    pub fn upload(&self, key: &str) -> ObjectWriter {
        ObjectWriter::to_store(Arc::clone(&self.inner), self.path(key), key, self.part_bytes)
            .counted_by(self.metrics.clone())
    }
}

/// The pages of a listing of so many keys: S3 gives a thousand on each.
fn pages(keys: usize) -> u64 {
    (keys as u64).div_ceil(1_000).max(1)
}
