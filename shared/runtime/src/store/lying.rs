//! A store in memory whose replies to puts are not the truth, as a script says.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens to one put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It works as it should.
    Honest,
    /// It lands, is answered 5xx, is tried again by the client, and so is answered `AlreadyExists`.
    LandedThenExists,
    /// It lands, and the reply is lost.
    TimeOutLanded,
    /// It is lost.
    TimeOutNotLanded,
    /// Two writes met; neither landed.
    Conflict,
    /// The server is busy.
    Busy,
    /// It lands, the reply is lost, and so is the reply to the read that follows.
    LandedUnreadable,
    /// It is lost on the way and lands only before the put after the next one.
    LandsLate,
    /// The condition is ignored.
    Overwrites,
    /// The condition is refused.
    NotSupported,
}

#[derive(Debug, Default)]
struct Script {
    fates: VecDeque<Fate>,
    unreadable: u32,
    late: Vec<(u32, Path, Vec<u8>)>,
}

#[derive(Debug)]
pub(crate) struct Lying {
    inner: InMemory,
    script: Mutex<Script>,
}

impl Lying {
    pub(crate) fn new(fates: Vec<Fate>) -> Arc<Self> {
        let script = Script { fates: fates.into(), ..Script::default() };
        Arc::new(Self { inner: InMemory::new(), script: Mutex::new(script) })
    }

    fn lost(reason: &'static str) -> Error {
        Error::Generic { store: "lying", source: reason.into() }
    }

    async fn land(&self, path: &Path, body: Vec<u8>) -> Result<PutResult> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.inner.put_opts(path, PutPayload::from(body), options).await
    }

    /// Puts that were under way all the time.
    async fn land_late_ones(&self) {
        let due: Vec<(Path, Vec<u8>)> = {
            let mut script = self.script.lock().unwrap();
            script.late.iter_mut().for_each(|late| late.0 -= 1);
            script.late.extract_if(.., |late| late.0 == 0).map(|late| (late.1, late.2)).collect()
        };
        for (path, body) in due {
            let _ = self.land(&path, body).await;
        }
    }
}

impl fmt::Display for Lying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lying")
    }
}

#[async_trait]
impl ObjectStore for Lying {
    async fn put_opts(&self, path: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        self.land_late_ones().await;
        let body = Bytes::from(payload).to_vec();
        let fate = self.script.lock().unwrap().fates.pop_front().unwrap_or(Fate::Honest);
        // Writers take turns at each step, so that they meet in every order.
        tokio::task::yield_now().await;
        match fate {
            Fate::Honest => self.land(path, body).await,
            Fate::LandedThenExists => {
                let _ = self.land(path, body.clone()).await;
                self.land(path, body).await
            }
            Fate::TimeOutLanded => {
                let _ = self.land(path, body).await;
                Err(Self::lost("timed out"))
            }
            Fate::LandedUnreadable => {
                let _ = self.land(path, body).await;
                self.script.lock().unwrap().unreadable += 1;
                Err(Self::lost("timed out"))
            }
            Fate::TimeOutNotLanded => Err(Self::lost("timed out")),
            Fate::Conflict => Err(Error::AlreadyExists { path: path.to_string(), source: "409".into() }),
            Fate::Busy => Err(Self::lost("503")),
            Fate::Overwrites => self.inner.put_opts(path, PutPayload::from(body), PutOptions::default()).await,
            Fate::NotSupported => Err(Self::lost("501 NotImplemented")),
            Fate::LandsLate => {
                self.script.lock().unwrap().late.push((2, path.clone(), body));
                Err(Self::lost("timed out"))
            }
        }
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        tokio::task::yield_now().await;
        {
            let mut script = self.script.lock().unwrap();
            if script.unreadable > 0 {
                script.unreadable -= 1;
                return Err(Self::lost("timed out"));
            }
        }
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
