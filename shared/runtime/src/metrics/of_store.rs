//! How puts of facts end, and errors of the store.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::Series;
use crate::store::Error;

/// What may be asked of the store, as the label `operation` has it.
const OPERATIONS: [&str; 8] = ["get", "get_range", "exists", "list", "delete", "fetch", "put_once", "upload"];
const KINDS: [&str; 8] =
    ["unavailable", "refused", "missing", "corrupt", "scratch_full", "scratch", "invalid_key", "settings"];

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Unavailable { .. } => "unavailable",
        Error::Refused { .. } => "refused",
        Error::Missing { .. } => "missing",
        Error::Corrupt { .. } => "corrupt",
        Error::ScratchFull { .. } => "scratch_full",
        Error::Scratch { .. } => "scratch",
        Error::InvalidKey { .. } => "invalid_key",
        Error::Settings { .. } => "settings",
    }
}

/// A request as S3 bills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// An object, or a range of one.
    Get,
    /// Whether there is an object.
    Head,
    /// A page of a listing.
    List,
    /// An object, a part of one, or the begin or the end of an upload in parts.
    Put,
    /// The end of an object.
    Delete,
}

impl Request {
    const ALL: [Self; 5] = [Self::Get, Self::Head, Self::List, Self::Put, Self::Delete];

    fn label(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

/// What the store counts.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    puts: IntCounterVec,
    errors: IntCounterVec,
    requests: IntCounterVec,
    read: IntCounter,
    written: IntCounter,
}

impl StoreMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let series = Series::of(registry);
        let help =
            "Facts put, by how that ended; unsure counts tries whose reply told nothing, so the key was read back.";
        let puts = series.counters("batchmill_store_put_once_total", help, &["outcome"])?;
        ["won", "lost", "unsure", "failed"].iter().for_each(|outcome| drop(puts.with_label_values(&[outcome])));
        let help = "Calls of the store that ended in an error. That an object which may be missing is missing is none.";
        let errors = series.counters("batchmill_store_errors_total", help, &["operation", "kind"])?;
        for operation in OPERATIONS {
            KINDS.iter().for_each(|kind| drop(errors.with_label_values(&[operation, kind])));
        }
        let help = "Requests to the store as S3 bills them: each part of a large object and each thousand keys of a listing is \
                    one. What the client repeats by itself is not counted.";
        let requests = series.counters("batchmill_store_requests_total", help, &["request"])?;
        Request::ALL.iter().for_each(|request| drop(requests.with_label_values(&[request.label()])));
        let help = "Bytes of objects that the store gave or took. Those of callers' files are not among them.";
        let bytes = series.counters("batchmill_store_bytes_total", help, &["direction"])?;
        let (read, written) = (bytes.with_label_values(&["read"]), bytes.with_label_values(&["written"]));
        Ok(Self { puts, errors, requests, read, written })
    }

    /// Requests were made.
    pub(crate) fn record_requests(&self, request: Request, count: u64) {
        self.requests.with_label_values(&[request.label()]).inc_by(count);
    }

    /// The store gave bytes.
    pub(crate) fn record_read(&self, bytes: u64) {
        self.read.inc_by(bytes);
    }

    /// The store took bytes.
    pub(crate) fn record_written(&self, bytes: u64) {
        self.written.inc_by(bytes);
    }

    /// A put of a fact ended, or a try of it did.
    pub(crate) fn record_put(&self, outcome: &str) {
        self.puts.with_label_values(&[outcome]).inc();
    }

    /// A call failed.
    pub(crate) fn record_error(&self, operation: &str, error: &Error) {
        self.errors.with_label_values(&[operation, kind(error)]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use crate::store::Store;

    #[tokio::test]
    async fn errors_are_counted_by_call_and_kind_and_what_may_be_missing_is_none() {
        let metrics = StoreMetrics::new(&Registry::new()).unwrap();
        let store = Store::in_memory().counted_by(metrics.clone());
        let scratch = Scratch::new(None, 1_000).unwrap();
        let data =
            model::DataRef { key: "x".to_owned(), checksum: model::digest::Checksum::of(b""), bytes: 1, rows: 1 };
        assert_eq!(store.get_bytes("x").await.unwrap(), None);
        assert!(!store.exists("x").await.unwrap());
        store.fetch_verified(&data, &scratch).await.unwrap_err();
        store.upload("a//b").finish().await.unwrap_err();
        store.upload("x").finish().await.unwrap();
        store.get_json::<String>("x").await.unwrap_err();
        let counted = |operation, kind| metrics.errors.with_label_values(&[operation, kind]).get();
        assert_eq!(
            (counted("fetch", "missing"), counted("upload", "invalid_key"), counted("get", "corrupt")),
            (1, 1, 1)
        );
        assert_eq!((metrics.read.get(), metrics.written.get()), (0, 0));
        let all = OPERATIONS.iter().flat_map(|operation| KINDS.iter().map(move |kind| (*operation, *kind)));
        assert_eq!(all.map(|(operation, kind)| counted(operation, kind)).sum::<u64>(), 3);
    }

    #[tokio::test]
    async fn requests_are_counted_as_a_bill_has_them() {
        let metrics = StoreMetrics::new(&Registry::new()).unwrap();
        let store = Store::in_memory().with_part_bytes(4).counted_by(metrics.clone());
        let mut parts = store.upload("a/parts");
        parts.write(vec![1; 10]).await.unwrap();
        let written = parts.finish().await.unwrap();
        store.upload("a/empty").finish().await.unwrap();
        let data = model::DataRef { key: "a/parts".to_owned(), checksum: written.checksum, bytes: 10, rows: 1 };
        store.fetch_verified(&data, &Scratch::new(None, 1_000).unwrap()).await.unwrap();
        assert_eq!(store.get_range("a/parts", 2..5).await.unwrap().len(), 3);
        assert!(store.exists("a/parts").await.unwrap());
        assert_eq!((store.list("a/").await.unwrap().len(), store.list("b/").await.unwrap().len()), (2, 0));
        store.delete("a/empty").await.unwrap();
        let counted = Request::ALL.map(|request| metrics.requests.with_label_values(&[request.label()]).get());
        // Three parts each way and one range; a begin and an end beside three parts, and one small object.
        assert_eq!(counted, [4, 1, 2, 6, 1]);
        assert_eq!((metrics.read.get(), metrics.written.get()), (13, 10));
    }
}
