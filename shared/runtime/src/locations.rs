//! Locations: the callers' own files, which a job spec names by URI.
//!
//! **Promise.** A job reaches only what the settings allow its team. A spec is text from outside, so the URI is read here by
//! a parser that knows two forms and refuses everything that another reader could take for something else: `..`, empty
//! segments, encoded dots and slashes, queries, hosts. What is left is taken literally, with no decoding. The store's own
//! objects are never a location.
//!
//! Reading is pinned: each ranged read says which ETag it expects, so a file that changes while it is read is noticed.
//! Writing shows nothing before it is finished.

mod ahead;
mod file;
#[cfg(test)]
mod tests;
mod uri;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::{Refusal, RefusalCode, Team};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use crate::settings::{LocationRules, StoreSettings};
use crate::store::{self, ObjectWriter};
pub use ahead::ReadOn;
use uri::Uri;

/// Ranged reads of one call on their way at a time.
const PARALLEL_READS: usize = 8;

/// Which locations there are, and whose. Clones share the clients.
#[derive(Clone)]
pub struct Locations {
    inner: Arc<Inner>,
}

struct Inner {
    rules: LocationRules,
    store: StoreSettings,
    buckets: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    /// Holds every bucket, in tests.
    memory: Option<Arc<dyn ObjectStore>>,
}

/// A place for one file.
#[derive(Clone)]
pub struct Location {
    uri: String,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Object { bucket: Arc<dyn ObjectStore>, key: Key, part_bytes: usize },
    File(std::path::PathBuf),
}

/// A file's version: what every later read must find again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Its ETag.
    pub etag: String,
    /// Its size.
    pub bytes: u64,
}

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not the pinned version any more.
    #[error("{uri} has changed since the job began")]
    Changed {
        /// The location.
        uri: String,
    },
    /// It is not there, or not any more.
    #[error("there is nothing at {uri}")]
    Missing {
        /// The location.
        uri: String,
    },
    /// Reading is not permitted. It stays so until someone acts.
    #[error("{uri} may not be read: {reason}")]
    Denied {
        /// The location.
        uri: String,
        /// What was said.
        reason: String,
    },
    /// Try again.
    #[error("{uri} can't be read now: {reason}")]
    Transient {
        /// The location.
        uri: String,
        /// What was said.
        reason: String,
    },
}

// Clients show their access key's id.
impl std::fmt::Debug for Locations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locations").field("rules", &self.inner.rules).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Location").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Locations {
    /// The locations of the settings. S3 locations are at the store's endpoint, with its credentials.
    #[must_use]
    pub fn new(rules: LocationRules, store: StoreSettings) -> Self {
        Self { inner: Arc::new(Inner { rules, store, buckets: Mutex::default(), memory: None }) }
    }

    /// Locations in which `s3://bucket/key` is the object `bucket/key` of a store in memory.
    #[must_use]
    pub fn in_memory(rules: LocationRules, memory: Arc<dyn ObjectStore>) -> Self {
        let store = StoreSettings::default();
        Self { inner: Arc::new(Inner { rules, store, buckets: Mutex::default(), memory: Some(memory) }) }
    }

    /// The place that a URI names, if this team may use it.
    ///
    /// # Errors
    /// A refusal with the code `location_refused`.
    pub fn resolve(&self, text: &str, team: &Team) -> Result<Location, Refusal> {
        let refused = |reason: String| {
            Refusal::new(RefusalCode::LocationRefused, format!("location {:?}: {reason}", uri::without_secrets(text)))
        };
        let uri = uri::parse(text).map_err(|reason| refused(reason.to_owned()))?;
        self.check_allowed(&uri, text, team).map_err(refused)?;
        let place = match uri {
            Uri::File { path } => Place::File(path.into()),
            Uri::S3 { bucket, key } => self.object(bucket, key).map_err(|error| refused(error.to_string()))?,
        };
        Ok(Location { uri: text.to_owned(), place })
    }

    fn check_allowed(&self, uri: &Uri<'_>, text: &str, team: &Team) -> Result<(), String> {
        let rules = &self.inner.rules;
        if matches!(uri, Uri::File { .. }) && !rules.allow_file {
            return Err("files of the machine can't be named here; use s3://bucket/key".to_owned());
        }
        if uri::is_in_store(text, &self.inner.store.uri) {
            return Err("the store of batchmill itself is there; use another prefix".to_owned());
        }
        let allow = match rules.teams.get(team) {
            Some(own) => &own.allow,
            // Without any rule all is allowed. Beside teams that would open theirs to whoever uses the shared topic.
            None if *team == Team::shared() && rules.allow.is_empty() && rules.teams.is_empty() => return Ok(()),
            None if *team == Team::shared() && rules.allow.is_empty() => {
                return Err(
                    "teams have lists of their own, so the shared topic needs one, too (setting locations.allow)"
                        .to_owned(),
                );
            }
            None if *team == Team::shared() => &rules.allow,
            None => return Err(format!("team {team} has no list of locations (setting locations.teams.{team}.allow)")),
        };
        if allow.iter().any(|prefix| uri::is_below(text, prefix)) {
            return Ok(());
        }
        Err(format!(
            "it is outside what team {team} may use: {}",
            if allow.is_empty() { "nothing".to_owned() } else { allow.join(", ") }
        ))
    }

    fn object(&self, bucket: &str, key: &str) -> store::Result<Place> {
        let invalid = |error: object_store::path::Error| store::Error::InvalidKey {
            key: key.to_owned(),
            reason: error.to_string(),
        };
        let part_bytes = self.inner.store.part_bytes;
        if let Some(memory) = &self.inner.memory {
            let key = Key::parse(format!("{bucket}/{key}")).map_err(invalid)?;
            return Ok(Place::Object { bucket: Arc::clone(memory), key, part_bytes });
        }
        let key = Key::parse(key).map_err(invalid)?;
        let mut buckets = self.inner.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match buckets.get(bucket) {
            Some(client) => Arc::clone(client),
            None => {
                let client = store::s3_bucket(&self.inner.store, bucket)?;
                buckets.insert(bucket.to_owned(), Arc::clone(&client));
                client
            }
        };
        Ok(Place::Object { bucket: client, key, part_bytes })
    }
}

impl Location {
    /// The URI.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The version that is there now; `None` if nothing is.
    ///
    /// # Errors
    /// [`ReadError::Transient`] or [`ReadError::Denied`].
    pub async fn head(&self) -> Result<Option<Pinned>, ReadError> {
        let found = match &self.place {
            Place::File(path) => file::head(path.clone()).await.map_err(|error| self.file_error(&error)),
            Place::Object { bucket, key, .. } => match bucket.head(key).await {
                Ok(meta) => match meta.e_tag {
                    Some(etag) => Ok(Pinned { etag, bytes: meta.size }),
                    None => {
                        Err(ReadError::Denied { uri: self.uri.clone(), reason: "the server gives no ETag".to_owned() })
                    }
                },
                Err(error) => Err(self.object_error(&error)),
            },
        };
        match found {
            Ok(pinned) => Ok(Some(pinned)),
            Err(ReadError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether anything is there.
    ///
    /// # Errors
    /// [`ReadError::Transient`] or [`ReadError::Denied`].
    pub async fn exists(&self) -> Result<bool, ReadError> {
        Ok(self.head().await?.is_some())
    }

    /// Parts of the pinned version, in the order of the ranges.
    ///
    /// # Errors
    /// [`ReadError::Changed`] if the file is another version now.
    pub async fn read(&self, ranges: &[Range<u64>], etag: &str) -> Result<Vec<Bytes>, ReadError> {
        match &self.place {
            Place::File(path) => {
                let read = file::read(path.clone(), ranges.to_vec(), etag.to_owned()).await;
                read.map_err(|error| self.file_error(&error))?
                    .ok_or_else(|| ReadError::Changed { uri: self.uri.clone() })
            }
            Place::Object { bucket, key, .. } => {
                let reads = ranges.iter().cloned().map(|range| self.read_object(bucket, key, range, etag));
                futures::stream::iter(reads).buffered(PARALLEL_READS).try_collect().await
            }
        }
    }

    async fn read_object(
        &self,
        bucket: &Arc<dyn ObjectStore>,
        key: &Key,
        range: Range<u64>,
        etag: &str,
    ) -> Result<Bytes, ReadError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let wanted = range.end - range.start;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: Some(etag.to_owned()),
            ..GetOptions::default()
        };
        let got = bucket.get_opts(key, options).await.map_err(|error| self.object_error(&error))?;
        // A server that ignores If-Match is told by what it sends.
        if got.meta.e_tag.as_deref() != Some(etag) {
            return Err(ReadError::Changed { uri: self.uri.clone() });
        }
        let bytes = got.bytes().await.map_err(|error| self.object_error(&error))?;
        if bytes.len() as u64 != wanted {
            let reason = format!("{} bytes came instead of {wanted}", bytes.len());
            return Err(ReadError::Transient { uri: self.uri.clone(), reason });
        }
        Ok(bytes)
    }

    /// Begins a new version of the file, which is there once the writer is finished.
    #[must_use]
    pub fn writer(&self) -> ObjectWriter {
        match &self.place {
            Place::File(path) => ObjectWriter::to_file(path),
            Place::Object { bucket, key, part_bytes } => {
                ObjectWriter::to_key(Arc::clone(bucket), key.clone(), &self.uri, *part_bytes)
            }
        }
    }

    /// Removes what is there; nothing there is as good.
    ///
    /// # Errors
    /// [`ReadError::Transient`] or [`ReadError::Denied`].
    pub async fn remove(&self) -> Result<(), ReadError> {
        let removed = match &self.place {
            Place::File(path) => file::remove(path.clone()).await.map_err(|error| self.file_error(&error)),
            Place::Object { bucket, key, .. } => bucket.delete(key).await.map_err(|error| self.object_error(&error)),
        };
        match removed {
            Err(ReadError::Missing { .. }) => Ok(()),
            removed => removed,
        }
    }

    fn object_error(&self, error: &object_store::Error) -> ReadError {
        let uri = self.uri.clone();
        match error {
            object_store::Error::NotFound { .. } => ReadError::Missing { uri },
            object_store::Error::Precondition { .. } => ReadError::Changed { uri },
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                ReadError::Denied { uri, reason: store::said(error) }
            }
            error => ReadError::Transient { uri, reason: store::said(error) },
        }
    }

    fn file_error(&self, error: &std::io::Error) -> ReadError {
        let uri = self.uri.clone();
        match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => ReadError::Missing { uri },
            std::io::ErrorKind::PermissionDenied
            | std::io::ErrorKind::IsADirectory
            | std::io::ErrorKind::InvalidFilename => ReadError::Denied { uri, reason: error.to_string() },
            _ => ReadError::Transient { uri, reason: error.to_string() },
        }
    }
}
