//! The sections that every service has. Each room adds its own, named after it.
//!
//! Every field has a default, so an empty file is a working one-process setup: memory bus, no cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use model::Team;
use serde::{Deserialize, Serialize, Serializer};

use super::prices::PriceSettings;
use super::{Result, Settings};

/// A value that is never shown: its `Debug` and its JSON are `***`.
#[derive(Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself. Hand it to the client that needs it and to nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// `[kafka]`: the bus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kafka {
    /// The brokers to start from, `host:port,host:port`. Empty: the bus is the memory of this process.
    pub brokers: String,
    /// What the topics' names begin with.
    pub prefix: String,
    /// What the consumer groups' names begin with; the room's name follows.
    pub group_prefix: String,
    /// After this long without a heartbeat, in milliseconds, a member's partitions go to the others.
    pub session_timeout_ms: u64,
    /// How long a send is tried, in milliseconds, before its outcome is called unknown.
    pub delivery_timeout_ms: u64,
    /// How long metadata, offsets and topics are asked for, in milliseconds.
    pub request_timeout_ms: u64,
    /// More properties of librdkafka for every client: `security.protocol`, `sasl.username`, … Any may be a password.
    pub properties: BTreeMap<String, Secret>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            prefix: "batchmill".to_owned(),
            group_prefix: "batchmill-".to_owned(),
            session_timeout_ms: 45_000,
            delivery_timeout_ms: 120_000,
            request_timeout_ms: 10_000,
            properties: BTreeMap::new(),
        }
    }
}

/// `[store]`: where facts and data lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreSettings {
    /// `s3://bucket/prefix`, `file:///folder` or `memory://`.
    pub uri: String,
    /// The S3 endpoint, unless it is AWS's own; also for the locations of inputs and outputs.
    pub endpoint: Option<String>,
    /// The S3 region.
    pub region: Option<String>,
    /// Whether the endpoint may be plain `http://`.
    pub allow_http: bool,
    /// Whether the bucket is part of the endpoint's host name (AWS) or of the path (most other servers).
    pub virtual_hosted: bool,
    /// The access key's id. Without it the standard `AWS_…` variables and the machine's role are used.
    pub access_key_id: Option<Secret>,
    /// The access key.
    pub secret_access_key: Option<Secret>,
    /// The token of a temporary access key.
    pub session_token: Option<Secret>,
    /// The codec of batch and result data: `snappy`, `zstd`, `lz4` or `none`.
    pub codec: String,
    /// The size of the parts of a large upload, in bytes; S3 takes 5 MiB and more.
    pub part_bytes: usize,
    /// Whether to start without the probe that conditional puts work. Only for a bucket that is known to pass.
    pub skip_probe: bool,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            uri: "memory://".to_owned(),
            endpoint: None,
            region: None,
            allow_http: false,
            virtual_hosted: false,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            codec: "snappy".to_owned(),
            part_bytes: crate::store::PART_BYTES,
            skip_probe: false,
        }
    }
}

/// `[locations]`: where inputs may be read and outputs written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct LocationRules {
    /// Prefixes such as `s3://lake/` or `s3://lake/in`, matched by whole segments. Empty: any bucket of the
    /// endpoint, unless teams have lists: then nothing.
    pub allow: Vec<String>,
    /// Whether `file://` may be named at all. Only for one person's own machine.
    pub allow_file: bool,
    /// For a team with a topic of its own: its list, instead of the shared one. A team that is not named here has no topic.
    pub teams: BTreeMap<Team, TeamLocations>,
}

/// `[locations.teams.<team>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct TeamLocations {
    /// Prefixes as in `locations.allow`. Empty: nothing.
    pub allow: Vec<String>,
}

/// `[admin]`: the port for probes and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Admin {
    /// `address:port`; port 0 takes a free one, which is logged. Empty: off.
    pub listen: String,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9090".to_owned() }
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// A level, or a filter such as `info,object_store=debug`.
    pub filter: String,
    /// How logs are written.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// `[loop]`: how events are worked on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loop {
    /// Handlers that run at a time, for each topic.
    pub max_running: usize,
    /// Unfinished events that a room holds, for each topic; there the topic pauses.
    pub max_waiting: usize,
    /// The first wait after a transient error, in milliseconds; it doubles with each in a row.
    pub retry_min_ms: u64,
    /// The longest of these waits, in milliseconds.
    pub retry_max_ms: u64,
    /// How long running handlers may go on after a stop was asked for, in seconds.
    pub drain_timeout_seconds: u64,
    /// How often finished events are committed, in milliseconds.
    pub commit_interval_ms: u64,
    /// After so many panics of its handler an event goes to the dead letters.
    pub max_panics: u32,
    /// How old a task's newest fact must be, in seconds, until its event is emitted again.
    pub reconcile_after_seconds: u64,
}

impl Default for Loop {
    fn default() -> Self {
        Self {
            max_running: 4,
            max_waiting: 100_000,
            retry_min_ms: 500,
            retry_max_ms: 60_000,
            drain_timeout_seconds: 100,
            commit_interval_ms: 1_000,
            max_panics: 5,
            reconcile_after_seconds: 3_600,
        }
    }
}

/// `[scratch]`: local disk for downloads in the making.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScratchSpace {
    /// The folder; without one the system's temporary folder.
    pub dir: Option<PathBuf>,
    /// Bytes of all files together.
    pub max_bytes: u64,
}

impl Default for ScratchSpace {
    fn default() -> Self {
        Self { dir: None, max_bytes: 16 * 1024 * 1024 * 1024 }
    }
}

/// When a stage holds back and when it goes on, in events that the stage after it has not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// At this lag emitting waits.
    pub high: u64,
    /// At this lag it goes on.
    pub low: u64,
}

/// `[backpressure]`: by edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backpressure {
    /// From the splitter to the dispatchers.
    pub batches: Marks,
    /// From the dispatchers to the pollers: in effect, batches at the providers.
    pub submissions: Marks,
    /// From the pollers to the mergers.
    pub results: Marks,
    /// How old a reading of the lag may be on Kafka, in milliseconds.
    pub reading_ms: u64,
}

impl Default for Backpressure {
    fn default() -> Self {
        Self {
            batches: Marks { high: 256, low: 192 },
            submissions: Marks { high: 1_000, low: 900 },
            results: Marks { high: 256, low: 192 },
            reading_ms: 500,
        }
    }
}

/// `[cleanup]`: what is removed after a job's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cleanup {
    /// How long after a job's end its data stays, in hours; 0: for ever. Its facts always stay.
    pub retention_hours: u32,
    /// How often the pollers look for what may go, in hours.
    pub every_hours: u32,
    /// Whether files at the provider go too: what was uploaded for ended jobs and collected batches, and their results.
    pub provider_files: bool,
}

impl Default for Cleanup {
    fn default() -> Self {
        Self { retention_hours: 168, every_hours: 24, provider_files: true }
    }
}

/// `[metrics]`: what the metrics may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricsSettings {
    /// How often a service reads its own lag, in seconds; 0: never.
    pub lag_seconds: u64,
    /// How many teams, and how many models, are labels of their own; the rest count as `other`.
    pub max_label_values: usize,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { lag_seconds: 15, max_label_values: 100 }
    }
}

/// `[tracing]`: where spans go. The trace contexts in the events' headers and the ids in the logs need none of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tracing {
    /// The base URL of an OTLP/HTTP collector, `http://collector:4318`; `/v1/traces` follows it. Empty: no spans are sent.
    pub otlp_endpoint: String,
    /// Headers for the collector, `name=value,name=value`.
    pub otlp_headers: Option<Secret>,
    /// The part of traces that is sent, 0 to 1.
    pub sample_ratio: f64,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { otlp_endpoint: String::new(), otlp_headers: None, sample_ratio: 1.0 }
    }
}

/// All sections of this module, read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Common {
    /// `[kafka]`
    pub kafka: Kafka,
    /// `[store]`
    pub store: StoreSettings,
    /// `[locations]`
    pub locations: LocationRules,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: Log,
    /// `[loop]`
    pub work_loop: Loop,
    /// `[scratch]`
    pub scratch: ScratchSpace,
    /// `[backpressure]`
    pub backpressure: Backpressure,
    /// `[cleanup]`
    pub cleanup: Cleanup,
    /// `[metrics]`
    pub metrics: MetricsSettings,
    /// `[prices]`
    pub prices: PriceSettings,
    /// `[tracing]`
    pub tracing: Tracing,
}

impl Common {
    /// Reads and declares them all.
    ///
    /// # Errors
    /// The first value that does not fit.
    pub fn declare(settings: &mut Settings) -> Result<Self> {
        Ok(Self {
            kafka: settings.declare("kafka")?,
            store: settings.declare("store")?,
            locations: settings.declare("locations")?,
            admin: settings.declare("admin")?,
            log: settings.declare("log")?,
            work_loop: settings.declare("loop")?,
            scratch: settings.declare("scratch")?,
            backpressure: settings.declare("backpressure")?,
            cleanup: settings.declare("cleanup")?,
            metrics: settings.declare("metrics")?,
            prices: settings.declare("prices")?,
            tracing: settings.declare("tracing")?,
        })
    }
}
