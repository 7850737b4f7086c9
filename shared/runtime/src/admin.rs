//! The admin port: `/healthz`, `/readyz`, `/metrics`, `/version`.
//!
//! It is for probes and Prometheus, reads only, and is off the bus: it answers also when Kafka and the store are down, and says
//! so. What a probe finds out is kept for some seconds, so that asking often costs nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::TextEncoder;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::context::Context;
use crate::metrics::BusOperation;

/// How old an answer of bus and store may be.
const CACHED_FOR: Duration = Duration::from_secs(5);

/// How long bus and store together may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// What bus and store said, and when.
type Answer = (Duration, Result<(), String>);

#[derive(Clone)]
struct Admin {
    context: Context,
    readiness: Arc<Mutex<Option<Answer>>>,
}

/// The admin port's routes.
pub fn router(context: &Context) -> Router {
    let admin = Admin { context: context.clone(), readiness: Arc::default() };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .with_state(admin)
}

/// Serves the admin port for as long as the process lives, so that it answers while draining too; does
/// nothing if it is off. Returns the address.
///
/// # Errors
/// If the address can't be had.
pub async fn serve(context: &Context) -> anyhow::Result<Option<std::net::SocketAddr>> {
    let listen = context.common.admin.listen.as_str();
    if listen.is_empty() {
        return Ok(None);
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        anyhow::anyhow!("setting admin.listen {listen:?}: {error}; use another port, or an empty text for none")
    })?;
    let address = listener.local_addr()?;
    let routes = router(context);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "the admin port failed");
        }
    });
    tracing::info!(%address, "admin port listens");
    Ok(Some(address))
}

async fn healthz(State(admin): State<Admin>) -> Response {
    match admin.context.health.stuck(&admin.context.clock) {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some((room, silence)) => {
            let text = format!("the {room}'s loop has stood still for {} s\n", silence.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.context.health.is_draining() || admin.context.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    match admin.ready().await {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

impl Admin {
    async fn ready(&self) -> Result<(), String> {
        let mut cached = self.readiness.lock().await;
        let now = self.context.clock.monotonic();
        if let Some((at, answer)) = cached.as_ref()
            && now.saturating_sub(*at) < CACHED_FOR
        {
            return answer.clone();
        }
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.ask()).await;
        let answer = answer.unwrap_or_else(|_| Err("bus or store do not answer in time".to_owned()));
        *cached = Some((now, answer.clone()));
        answer
    }

    async fn ask(&self) -> Result<(), String> {
        let counted = |error: bus::Error| {
            self.context.bus_metrics.record_error(BusOperation::Probe, &error);
            error.to_string()
        };
        self.context.bus.probe().await.map_err(counted)?;
        // Any answer will do; that there is no such object is one.
        self.context.store.exists("probe/ready").await.map(|_| ()).map_err(|error| error.to_string())
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match TextEncoder::new().encode_to_string(&admin.context.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn version() -> &'static str {
    concat!(env!("CARGO_PKG_VERSION"), "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use events::Topic;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn context(listen: &str) -> Context {
        let set = [("admin.listen".to_owned(), listen.to_owned())];
        Context::in_memory(1, Settings::load(None, std::iter::empty(), &set).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn probes_metrics_and_version_are_served_and_a_drain_is_not_ready() {
        let context = context("127.0.0.1:0");
        let address = serve(&context).await.unwrap().unwrap();
        assert_eq!(get(address, "/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(get(address, "/readyz").await, (200, "ready\n".to_owned()));
        assert_eq!(get(address, "/version").await, (200, format!("{}\n", env!("CARGO_PKG_VERSION"))));
        let at = crate::metrics::At { room: "splitter", topic: "batchmill.jobs.v1", group: "batchmill-splitter" };
        context.metrics.born(at, std::iter::empty());
        let (status, text) = get(address, "/metrics").await;
        assert_eq!(status, 200);
        assert!(
            text.contains(r#"batchmill_loop_events_total{outcome="done",room="splitter",topic="batchmill.jobs.v1"} 0"#),
            "{text}"
        );
        assert_eq!(get(address, "/nothing").await.0, 404);
        context.shutdown.cancel();
        assert_eq!(get(address, "/readyz").await, (503, "draining\n".to_owned()));
        assert_eq!(get(address, "/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn an_empty_address_is_off_and_a_taken_one_names_the_setting() {
        assert_eq!(serve(&context("")).await.unwrap(), None);
        let taken = serve(&context("127.0.0.1:0")).await.unwrap().unwrap();
        let error = serve(&context(&taken.to_string())).await.unwrap_err().to_string();
        assert!(error.contains("admin.listen"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_is_not_alive() {
        let context = context("");
        context.health.beat(("splitter", Topic::Jobs), &context.clock);
        context.clock.sleep(Duration::from_secs(29)).await;
        assert_eq!(context.health.stuck(&context.clock), None);
        context.clock.sleep(Duration::from_secs(2)).await;
        assert_eq!(context.health.stuck(&context.clock).unwrap().0, "splitter");
        context.health.ended(("splitter", Topic::Jobs));
        assert_eq!(context.health.stuck(&context.clock), None);
    }
}
