//! From settings to a backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};

use super::{Error, Result, Store};
use crate::settings::StoreSettings;

/// S3 takes no smaller parts (Amazon S3 user guide, "multipart upload limits").
const SMALLEST_PART: usize = 5 * 1024 * 1024;

/// How long the client itself tries a request again. Beyond that the event is tried again as a whole.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// How long one request may take with its body; a data object may have hundreds of megabytes.
const WHOLE_REQUEST: &str = "10 minutes";
/// How long a body may make no progress.
const SILENCE: &str = "30 seconds";

pub(super) fn open(settings: &StoreSettings) -> Result<Store> {
    if settings.part_bytes < SMALLEST_PART {
        return Err(wrong("store.part_bytes", format!("{} is below S3's least, {SMALLEST_PART}", settings.part_bytes)));
    }
    let uri = settings.uri.as_str();
    let store = if uri == "memory://" {
        Store::in_memory()
    } else if let Some(path) = uri.strip_prefix("file://") {
        if !path.starts_with('/') {
            return Err(wrong("store.uri", format!("{uri:?}: a local store is file:// and an absolute path")));
        }
        local(&PathBuf::from(path))?
    } else if let Some(rest) = uri.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty()
            || bucket.contains(['?', '#', '@', ':'])
            || prefix.split('/').any(|part| matches!(part, "." | ".."))
        {
            return Err(wrong("store.uri", format!("{uri:?}: write s3://bucket or s3://bucket/prefix")));
        }
        Store::new(s3_bucket(settings, bucket)?, prefix)
    } else {
        return Err(wrong("store.uri", format!("{uri:?}: write s3://bucket/prefix, file:///folder or memory://")));
    };
    Ok(store.with_part_bytes(settings.part_bytes))
}

pub(super) fn local(dir: &Path) -> Result<Store> {
    let unusable = |reason: String| wrong("store.uri", format!("folder {}: {reason}", dir.display()));
    std::fs::create_dir_all(dir).map_err(|error| unusable(error.to_string()))?;
    let files = LocalFileSystem::new_with_prefix(dir).map_err(|error| unusable(error.to_string()))?;
    Ok(Store::in_folder(files.with_fsync(true).with_automatic_cleanup(true)))
}

/// A client of one bucket at the configured endpoint.
///
/// What the settings leave open comes from the standard `AWS_…` variables, which also cover roles of machines and pods.
pub(crate) fn s3_bucket(settings: &StoreSettings, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    if settings.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) && !settings.allow_http {
        let reason =
            "it is plain http://, which carries data and signatures openly; use https://, or set store.allow_http";
        return Err(wrong("store.endpoint", reason.to_owned()));
    }
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(RetryConfig { retry_timeout: RETRY_FOR, ..RetryConfig::default() })
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), WHOLE_REQUEST)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), SILENCE)
        // The other way to put if absent, a lock table, would be a database.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_virtual_hosted_style_request(settings.virtual_hosted);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if settings.allow_http {
        builder = builder.with_allow_http(true);
    }
    if let (Some(id), Some(key)) = (&settings.access_key_id, &settings.secret_access_key) {
        builder = builder.with_access_key_id(id.expose()).with_secret_access_key(key.expose());
    }
    if let Some(token) = &settings.session_token {
        builder = builder.with_token(token.expose());
    }
    let client = builder.build().map_err(|error| wrong("store", error.to_string()))?;
    Ok(Arc::new(client))
}

fn wrong(setting: &'static str, reason: String) -> Error {
    Error::Settings { setting, reason }
}
