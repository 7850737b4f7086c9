//! Object storage: one truth, which watches that facts stay what they are, and for each process a connection to it that
//! fails in every way that a real one does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use model::keys::{self, Key};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use runtime::Clock;

use super::faults::Faults;
use super::gate::Gate;
use super::journal::Journal;

/// All faults of a store.
pub const FAULTS: &[&str] = &[
    "store put landed 5xx",
    "store put landed time-out",
    "store put lost time-out",
    "store put refused",
    "store put lands late",
    "store put slow",
    "store put 409 nothing landed",
    "store put exists, its own",
    "store get fails",
    "store get slow",
    "store get cut",
    "store list fails",
    "store list partial",
    "store list slow",
    "store delete fails",
    "store delete done, fails",
];

const PUTS: &[&str] = FAULTS.split_at(6).0;
const FACT_PUTS: &[&str] = FAULTS.split_at(8).0;
const GETS: &[&str] = FAULTS.split_at(11).0.split_at(8).1;
const LISTS: &[&str] = FAULTS.split_at(14).0.split_at(11).1;
const DELETES: &[&str] = FAULTS.split_at(14).1;

/// What lies in a store, whoever looks.
#[derive(Debug)]
pub struct Disk {
    inner: InMemory,
    name: &'static str,
    journal: Journal,
    clock: Clock,
    written: Mutex<BTreeMap<String, Written>>,
    removed: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
struct Written {
    at: Duration,
    body: Bytes,
}

impl Disk {
    /// An empty one.
    #[must_use]
    pub fn new(name: &'static str, journal: &Journal, clock: &Clock) -> Arc<Self> {
        let (journal, clock) = (journal.clone(), clock.clone());
        Arc::new(Self {
            inner: InMemory::new(),
            name,
            journal,
            clock,
            written: Mutex::default(),
            removed: Mutex::default(),
        })
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<String, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes at a path.
    #[must_use]
    pub fn body(&self, path: &str) -> Option<Bytes> {
        self.written().get(path).map(|written| Bytes::clone(&written.body))
    }

    /// Whether something was there and was removed. A put that timed out before may have brought it back since.
    #[must_use]
    pub fn was_removed(&self, path: &str) -> bool {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    /// Every path, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.written().keys().cloned().collect()
    }

    /// Writes, and watches.
    ///
    /// # Errors
    /// `AlreadyExists` for a put that must not write over anything.
    pub async fn land(&self, path: &Path, body: Bytes, mode: PutMode) -> Result<PutResult> {
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = self.inner.put_opts(path, PutPayload::from(Bytes::clone(&body)), options).await;
        let digest = &model::digest::sha256_hex(&body)[..8];
        let outcome = if put.is_ok() { "put" } else { "is there:" };
        self.journal.note(format_args!("{} {outcome} {path} {digest}", self.name));
        if put.is_ok() {
            let written = Written { at: self.clock.monotonic(), body };
            let before = self.written().insert(path.to_string(), written);
            let now = self.body(path.as_ref());
            if before.is_some_and(|before| is_fact(path.as_ref()) && Some(before.body) != now) {
                self.journal.violation(format!("a fact is rewritten: {path}"));
            }
        }
        put
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        self.journal.note(format_args!("{} delete {path}", self.name));
        if let Some(job) = job_of(path.as_ref())
            && self.body(&keys::end(&job)).is_none()
            && self.body(path.as_ref()).is_some()
        {
            self.journal.violation(format!("{path} is deleted while its job lives"));
        }
        if self.written().remove(path.as_ref()).is_some() {
            self.removed.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_string());
        }
        self.inner.delete(path).await
    }

    /// With the world's time as the time of writing.
    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let at = self.written().get(meta.location.as_ref()).map(|written| written.at).unwrap_or_default();
        let start = Duration::from_millis(u64::try_from(self.start().as_millisecond()).unwrap_or_default());
        meta.last_modified = Default::default();
        meta.last_modified += start + at;
        meta
    }

    fn start(&self) -> jiff::Timestamp {
        let since = jiff::SignedDuration::try_from(self.clock.monotonic()).unwrap_or_default();
        self.clock.now().checked_sub(since).unwrap_or_default()
    }
}

fn is_fact(path: &str) -> bool {
    matches!(keys::parse(path), Some(key) if !matches!(key, Key::BatchData(..) | Key::ResultData(..)))
}

/// The job that needs what lies there, unless it has ended.
fn job_of(path: &str) -> Option<model::JobId> {
    match keys::parse(path)? {
        Key::Open(job) | Key::Job(job) | Key::Plan(job) | Key::End(job) | Key::Cancel(job) => Some(job),
        Key::Submission(job, ..) | Key::Result(job, _) => Some(job),
        _ => None,
    }
}

/// A process's connection.
#[derive(Debug)]
pub struct Connection {
    disk: Arc<Disk>,
    gate: Arc<Gate>,
    faults: Faults,
    rate: u64,
}

impl Connection {
    /// A connection whose calls fail at this rate.
    #[must_use]
    pub fn new(disk: &Arc<Disk>, gate: &Arc<Gate>, faults: &Faults, rate: u64) -> Arc<Self> {
        Arc::new(Self { disk: Arc::clone(disk), gate: Arc::clone(gate), faults: faults.clone(), rate })
    }

    fn draw(&self, kinds: &[&'static str], path: &str) -> Option<&'static str> {
        self.faults.draw(self.rate, kinds, path)
    }

    async fn put(&self, path: &Path, body: Bytes, mode: PutMode) -> Result<PutResult> {
        let create = mode == PutMode::Create;
        let Some(fault) = self.draw(if create { FACT_PUTS } else { PUTS }, path.as_ref()) else {
            return self.disk.land(path, body, mode).await;
        };
        match fault {
            "store put landed 5xx" => self.disk.land(path, body, mode).await.and(Err(broken("500"))),
            "store put landed time-out" => {
                let landed = self.disk.land(path, body, mode).await;
                self.faults.wait(1_000, 40_000).await;
                landed.and(Err(broken("timed out")))
            }
            "store put lost time-out" => {
                self.faults.wait(1_000, 40_000).await;
                Err(broken("timed out"))
            }
            "store put lands late" => {
                let (disk, path, late) =
                    (Arc::clone(&self.disk), path.clone(), self.faults.chance.duration(1_000, 90_000));
                let clock = self.faults.clock.clone();
                tokio::spawn(async move {
                    clock.sleep(late).await;
                    drop(disk.land(&path, body, mode).await);
                });
                self.faults.wait(500, 30_000).await;
                Err(broken("timed out"))
            }
            "store put slow" => {
                self.faults.wait(100, 30_000).await;
                self.disk.land(path, body, mode).await
            }
            "store put 409 nothing landed" => Err(exists(path)),
            "store put exists, its own" => {
                self.disk.land(path, body, mode).await?;
                Err(exists(path))
            }
            _ => Err(broken("503")),
        }
    }

    async fn delete_one(self: Arc<Self>, path: Path) -> Result<Path> {
        self.gate.step("delete<").await;
        let fault = self.draw(DELETES, path.as_ref());
        if fault != Some("store delete fails") {
            self.disk.remove(&path).await?;
        }
        self.gate.step("delete>").await;
        if fault.is_some() { Err(broken("503")) } else { Ok(path) }
    }
}

fn broken(reason: &'static str) -> Error {
    Error::Generic { store: "simulated", source: reason.into() }
}

fn exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "409".into() }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.disk.name, self.gate.name())
    }
}

/// A connection as a store. (What a stream of deletions needs is a connection that it can own.)
#[derive(Debug)]
pub struct SimStore(pub Arc<Connection>);

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let this = &self.0;
        this.gate.step("put<").await;
        let put = this.put(path, Bytes::from(payload), options.mode).await;
        this.gate.step("put>").await;
        put
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let this = &self.0;
        this.gate.open().await;
        let head = options.head;
        let fault = this.draw(GETS, path.as_ref());
        match fault {
            Some("store get fails") => return Err(broken("500")),
            Some("store get slow") => this.faults.wait(100, 30_000).await,
            _ => {}
        }
        let mut got = this.disk.inner.get_opts(path, options).await;
        if let Ok(got) = &mut got {
            got.meta = this.disk.dated(got.meta.clone());
        }
        this.gate.open().await;
        if fault == Some("store get cut") && !head {
            return cut(got?).await;
        }
        got
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.gate.open().await;
        self.0.disk.inner.get_ranges(path, ranges).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.gate.open().await;
        self.0.disk.inner.put_multipart_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = Arc::clone(&self.0);
        paths.and_then(move |path| Arc::clone(&this).delete_one(path)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (Arc::clone(&self.0), prefix.cloned());
        let listed = async move {
            this.gate.open().await;
            let about = prefix.as_ref().map(Path::to_string).unwrap_or_default();
            let fault = this.draw(LISTS, &about);
            if fault == Some("store list slow") {
                this.faults.wait(100, 30_000).await;
            }
            let found: Vec<Result<ObjectMeta>> = this.disk.inner.list(prefix.as_ref()).collect().await;
            let mut found: Vec<Result<ObjectMeta>> =
                found.into_iter().map(|meta| meta.map(|meta| this.disk.dated(meta))).collect();
            match fault {
                Some("store list fails") => found = vec![Err(broken("500"))],
                Some("store list partial") => {
                    found.truncate(found.len() / 2);
                    found.push(Err(broken("connection reset")));
                }
                _ => {}
            }
            this.gate.open().await;
            futures::stream::iter(found)
        };
        futures::stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.gate.open().await;
        self.0.disk.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".to_owned(), implementer: "simulated".to_owned() })
    }
}

/// The first half of a body, then an error.
async fn cut(got: GetResult) -> Result<GetResult> {
    let (meta, range, attributes, extensions) =
        (got.meta.clone(), got.range.clone(), got.attributes.clone(), got.extensions.clone());
    let body = got.bytes().await?;
    let half = body.slice(..body.len() / 2);
    let stream = futures::stream::iter([Ok(half), Err(broken("connection reset"))]).boxed();
    Ok(GetResult { payload: GetResultPayload::Stream(stream), meta, range, attributes, extensions })
}
