//! A store in memory that takes its process down at a chosen write: before it lands, or just after.
//!
//! The write never answers, and [`MortalStore::died`] tells whoever runs the process to drop it. What landed stays.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

/// The store.
#[derive(Debug)]
pub struct MortalStore {
    inner: Arc<InMemory>,
    /// Writes until death; negative: never.
    left: AtomicI64,
    /// Whether the last write lands.
    lands: bool,
    death: Notify,
}

impl MortalStore {
    /// A store over `inner` that dies at the write number `after`, counted from 0; never for a negative number.
    #[must_use]
    pub fn new(inner: Arc<InMemory>, after: i64, lands: bool) -> Arc<Self> {
        let left = if after < 0 { i64::MAX } else { after };
        Arc::new(Self { inner, left: AtomicI64::new(left), lands, death: Notify::new() })
    }

    /// Waits for the death.
    pub async fn died(&self) {
        self.death.notified().await;
    }

    /// Whether this write is the last, which never answers.
    fn is_last(&self) -> bool {
        self.left.fetch_sub(1, Ordering::Relaxed) <= 0
    }
}

impl fmt::Display for MortalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mortal")
    }
}

#[async_trait]
impl ObjectStore for MortalStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.is_last() {
            if self.lands {
                self.inner.put_opts(path, payload, options).await.ok();
            }
            self.death.notify_one();
            std::future::pending::<()>().await;
            unreachable!("a dead process does not go on")
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
