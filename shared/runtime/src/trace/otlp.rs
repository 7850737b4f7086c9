//! Spans to a collector: OTLP over HTTP, protobuf.
//!
//! Handlers put spans into a bounded queue and never wait; a thread of the SDK sends them in batches. What does not fit, and
//! what the collector does not take in time, is lost: a collector that is away costs spans, not work, and is warned of once in
//! [`WARN_EVERY`]. The SDK's own log lines are not compiled in.
//!
//! Every room is a service of its own to a collector, also where several run in one process; so each has an exporter with its
//! resource, made when its first span is sent. Standard variables that the SDK reads by itself go on to count:
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`, `OTEL_BSP_…`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use events::{TraceContext, TraceParent};
use opentelemetry::trace::{self as otel, SpanContext, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, SpanData, SpanEvents, SpanExporter as Exporter, SpanLinks, SpanProcessor,
};

use super::{FinishedSpan, SpanKind, SpanSink, Value};
use crate::clock::Clock;
use crate::settings::Tracing;

/// What the names of the services begin with; the room's name follows.
const SERVICE: &str = "batchmill";
/// The rooms; whoever else makes spans is the command.
const ROOMS: &[&str] = &["splitter", "dispatcher", "poller", "merger"];
/// Where spans are taken, below the endpoint.
const PATH: &str = "/v1/traces";
/// The longest that a collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a collector that does not answer is warned of.
const WARN_EVERY: Duration = Duration::from_secs(300);

/// The queue and the thread behind it.
#[derive(Debug)]
pub(super) struct Otlp(BatchSpanProcessor);

impl Otlp {
    /// Nothing is sent yet, and the collector need not be there.
    ///
    /// # Errors
    /// An endpoint or headers that can't be.
    pub(super) fn open(settings: &Tracing, clock: &Clock) -> anyhow::Result<Self> {
        let target = Target { url: url(&settings.otlp_endpoint)?, headers: headers(settings)? };
        let command = target.exporter(SERVICE)?;
        let exporters = Mutex::new(HashMap::from([(SERVICE.to_owned(), Arc::new(command))]));
        let exporter = Services { target, exporters, clock: clock.clone(), failing: Mutex::default() };
        Ok(Self(BatchSpanProcessor::builder(exporter).build()))
    }
}

impl SpanSink for Otlp {
    fn take(&self, span: FinishedSpan) {
        self.0.on_end(data(span));
    }

    fn finish(&self, within: Duration) {
        // A failure was warned of.
        let _lost = self.0.shutdown_with_timeout(within);
    }
}

/// Where to, and with what.
#[derive(Clone)]
struct Target {
    url: String,
    headers: HashMap<String, String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("url", &self.url).finish_non_exhaustive()
    }
}

fn url(endpoint: &str) -> anyhow::Result<String> {
    let base = endpoint.trim().trim_end_matches('/');
    anyhow::ensure!(
        ["http://", "https://"].iter().any(|scheme| base.strip_prefix(scheme).is_some_and(|host| !host.is_empty())),
        "setting tracing.otlp_endpoint {endpoint:?}: give the URL of an OTLP/HTTP collector, as in http://collector:4318"
    );
    Ok(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") })
}

fn headers(settings: &Tracing) -> anyhow::Result<HashMap<String, String>> {
    let text = settings.otlp_headers.as_ref().map(|secret| secret.expose()).unwrap_or_default();
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            // Not what is wrong: it may be a part of a key.
            let (name, value) = pair
                .split_once('=')
                .filter(|(name, _)| !name.trim().is_empty())
                .ok_or_else(|| anyhow::anyhow!("setting tracing.otlp_headers: write name=value,name=value"))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

impl Target {
    fn exporter(&self, service: &str) -> anyhow::Result<SpanExporter> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(self.url.as_str())
            .with_timeout(TIMEOUT)
            .with_headers(self.headers.clone())
            .build();
        let mut exporter =
            exporter.map_err(|error| anyhow::anyhow!("section [tracing]: {error}; check otlp_endpoint"))?;
        let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
        let resource = if named { resource } else { resource.with_service_name(service.to_owned()) };
        exporter.set_resource(&resource.build());
        Ok(exporter)
    }
}

/// One exporter for each service.
#[derive(Debug)]
struct Services {
    target: Target,
    exporters: Mutex<HashMap<String, Arc<SpanExporter>>>,
    clock: Clock,
    failing: Mutex<Failing>,
}

#[derive(Debug, Default)]
struct Failing {
    warned: Option<Duration>,
    lost: usize,
}

impl Exporter for Services {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut by_service: HashMap<String, Vec<SpanData>> = HashMap::new();
        for span in batch {
            by_service.entry(span.instrumentation_scope.name().to_owned()).or_default().push(span);
        }
        for (service, spans) in by_service {
            let many = spans.len();
            let sent = match self.of(&service) {
                Ok(exporter) => exporter.export(spans).await.map_err(Into::into),
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                self.warn(&error, many);
            }
        }
        Ok(())
    }
}

impl Services {
    fn of(&self, service: &str) -> anyhow::Result<Arc<SpanExporter>> {
        let mut exporters = self.exporters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exporter) = exporters.get(service) {
            return Ok(Arc::clone(exporter));
        }
        let made = Arc::new(self.target.exporter(service)?);
        exporters.insert(service.to_owned(), Arc::clone(&made));
        Ok(made)
    }

    fn warn(&self, error: &anyhow::Error, lost: usize) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.lost += lost;
        let now = self.clock.monotonic();
        if failing.warned.is_none_or(|warned| now.saturating_sub(warned) >= WARN_EVERY) {
            let (lost, error) = (std::mem::take(&mut failing.lost), format!("{error:#}"));
            failing.warned = Some(now);
            tracing::warn!(lost, error, "spans could not be sent to tracing.otlp_endpoint; the work goes on without");
        }
    }
}

fn data(span: FinishedSpan) -> SpanData {
    let service =
        if ROOMS.contains(&span.who.as_str()) { format!("{SERVICE}-{}", span.who) } else { SERVICE.to_owned() };
    let attributes = span.attributes.into_iter().map(|(name, value)| match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Number(number) => KeyValue::new(name, number),
    });
    let mut links = SpanLinks::default();
    links.links.extend(span.link.map(|link| otel::Link::with_context(remote(&link))));
    SpanData {
        span_context: context(span.context, false, TraceState::default()),
        parent_span_id: span.parent.map_or(otel::SpanId::INVALID, |parent| otel::SpanId::from(parent.bits())),
        parent_span_is_remote: false,
        span_kind: match span.kind {
            SpanKind::Consumer => otel::SpanKind::Consumer,
            SpanKind::Producer => otel::SpanKind::Producer,
            SpanKind::Client => otel::SpanKind::Client,
        },
        name: span.name.into(),
        start_time: span.began.into(),
        end_time: span.ended.into(),
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder(service).with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

fn remote(link: &TraceContext) -> SpanContext {
    let state = link.state.as_deref().and_then(|state| state.parse().ok()).unwrap_or_default();
    context(link.parent, true, state)
}

fn context(parent: TraceParent, is_remote: bool, state: TraceState) -> SpanContext {
    let (trace, span) = (otel::TraceId::from(parent.trace.bits()), otel::SpanId::from(parent.span.bits()));
    SpanContext::new(trace, span, TraceFlags::new(parent.flags), is_remote, state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_a_base_url_and_the_headers_are_pairs() {
        for (endpoint, whole) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            (" https://c/otlp/ ", "https://c/otlp/v1/traces"),
            ("http://c/v1/traces", "http://c/v1/traces"),
        ] {
            assert_eq!(url(endpoint).unwrap(), whole);
        }
        for wrong in ["c:4318", "grpc://c", "http://"] {
            assert!(url(wrong).unwrap_err().to_string().contains("tracing.otlp_endpoint"), "{wrong}");
        }
        let read = |text: &str| headers(&Tracing { otlp_headers: Some(text.to_owned().into()), ..Tracing::default() });
        let pairs = HashMap::from([("a".to_owned(), "1=2".to_owned()), ("b".to_owned(), String::new())]);
        assert_eq!(read("a=1=2, b= ,").unwrap(), pairs);
        let said = read("hunter2").unwrap_err().to_string();
        assert!(said.contains("tracing.otlp_headers") && !said.contains("hunter2"), "{said}");
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_collector_that_is_away_is_warned_of_once_in_a_while() {
        let clock = Clock::seeded(1);
        let target = Target { url: url("http://127.0.0.1:1").unwrap(), headers: HashMap::new() };
        let services =
            Services { target, exporters: Mutex::default(), clock: clock.clone(), failing: Mutex::default() };
        let span = || {
            let context = TraceParent::new(clock.trace_id(), clock.span_id(), true);
            let (who, name) = ("poller".to_owned(), "x".to_owned());
            let (began, ended) = (clock.now(), clock.now());
            let (parent, link, attributes, error) = (None, None, Vec::new(), None);
            let kind = SpanKind::Consumer;
            data(FinishedSpan { who, name, kind, context, parent, link, began, ended, attributes, error })
        };
        let lines = Lines::default();
        let writer = lines.clone();
        let log = crate::settings::Log { filter: "warn".to_owned(), ..crate::settings::Log::default() };
        tracing::subscriber::with_default(crate::log::json(&log, move || writer.clone()).unwrap(), || {
            for _ in 0..3 {
                futures::executor::block_on(services.export(vec![span(), span()])).unwrap();
            }
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("spans could not be sent").count(), 1, "{text}");
        assert!(text.contains("\"lost\":2"), "{text}");
        assert_eq!(services.failing.lock().unwrap().lost, 4);
    }
}
