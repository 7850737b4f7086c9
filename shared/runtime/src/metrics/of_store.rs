//! How puts of facts end, and errors of the store.

use prometheus::{IntCounterVec, Registry};

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

/// What the store counts.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    puts: IntCounterVec,
    errors: IntCounterVec,
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
        Ok(Self { puts, errors })
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
        let all = OPERATIONS.iter().flat_map(|operation| KINDS.iter().map(move |kind| (*operation, *kind)));
        assert_eq!(all.map(|(operation, kind)| counted(operation, kind)).sum::<u64>(), 3);
    }
}
