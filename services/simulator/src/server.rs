//! The server: routes, keys, starting and stopping.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Error, batches,
    billed::Billed,
    connection::{Connection, Door},
    faults::{self, Faults},
    files,
    models::Model,
    run,
    store::Store,
    wire::{self, ApiError, Reply},
};

/// How long a stop waits for transfers that are under way.
const GRACE: Duration = Duration::from_secs(5);

/// The provider, without a socket: state, and batches at work. Clones are the same simulator.
#[derive(Clone, Debug)]
pub struct Simulator {
    pub(crate) store: Arc<Store>,
    pub(crate) config: Arc<Config>,
    pub(crate) billed: Arc<Billed>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    pub(crate) workers: Arc<Semaphore>,
}

impl Simulator {
    /// Opens the data folder and lets the batches go on that haven't ended.
    ///
    /// # Errors
    /// The folder is in use, damaged, or can't be written.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let workers = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let (data, seed) = (config.data.clone(), config.seed);
        let opened = tokio::task::spawn_blocking(move || Store::open(&data, seed)).await;
        let store = opened.map_err(|panic| Error::io("open", &config.data)(std::io::Error::other(panic)))??;
        let simulator = Self {
            store: Arc::new(store),
            billed: Arc::new(Billed::new(config.data.join("billed.jsonl"))),
            faults: Arc::new(Faults::new(config.seed, config.faults.clone())),
            config: Arc::new(config),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            workers: Arc::new(Semaphore::new(workers)),
        };
        for batch in simulator.store.open_batches() {
            run::launch(&simulator, batch);
        }
        Ok(simulator)
    }

    /// All endpoints.
    pub fn router(&self) -> Router {
        let v1 = Router::new()
            .route("/files", post(files::upload).get(files::list).layer(DefaultBodyLimit::disable()))
            .route("/files/{id}", get(files::retrieve).delete(files::delete))
            .route("/files/{id}/content", get(files::content))
            .route("/batches", post(batches::create).get(batches::list))
            .route("/batches/{id}", get(batches::retrieve))
            .route("/batches/{id}/cancel", post(batches::cancel))
            .route("/models", get(models))
            .route("/models/{id}", get(model))
            .layer(middleware::from_fn_with_state(self.clone(), faults::requests::intercept))
            .layer(middleware::from_fn_with_state(self.clone(), authenticate));
        let scripts = get(faults::api::show).put(faults::api::replace).delete(faults::api::clear);
        let scripts = scripts.layer(middleware::from_fn_with_state(self.clone(), authenticate));
        Router::new()
            .nest("/v1", v1)
            .route("/faults", scripts)
            .route("/healthz", get(|| async { "ok" }))
            .fallback(unknown)
            .method_not_allowed_fallback(not_allowed)
            .layer(middleware::from_fn_with_state(self.clone(), name_request))
            .with_state(self.clone())
    }

    /// The fault script, with how often each rule fired, as `GET /faults` shows it.
    pub fn faults(&self) -> Value {
        self.faults.shown()
    }

    /// A counter that moves whenever anything about a batch changes: waiting without asking again and again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.store.changes()
    }

    /// Stops the work and gives the data folder free. Batches go on when the folder is next opened.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.release();
    }

    /// Runs file work where it can't hold up the server. It is done to the end even if the caller goes away.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.tasks.spawn_blocking(work).await.map_err(ApiError::internal)?.map_err(ApiError::internal)
    }
}

/// A simulator that listens.
#[derive(Debug)]
pub struct Running {
    /// The address it listens on.
    pub addr: SocketAddr,
    /// What an OpenAI client takes as its base URL: `http://127.0.0.1:PORT/v1`.
    pub url: String,
    simulator: Simulator,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Running {
    /// The simulator behind the socket.
    pub fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    /// Stops listening, lets transfers finish for up to five seconds, stops the work, and gives the data folder free.
    pub async fn stop(mut self) {
        self.simulator.stopping.cancel();
        // A receiver that is gone means that the server has already ended.
        let _ = self.stop.send(());
        if tokio::time::timeout(GRACE, &mut self.server).await.is_err() {
            self.server.abort();
        }
        self.simulator.stop().await;
    }
}

/// Starts a simulator.
///
/// # Errors
/// The data folder is in use, damaged, or can't be written; or the address can't be listened on.
pub async fn start(config: Config) -> Result<Running, Error> {
    let listen = config.listen;
    let listener = TcpListener::bind(listen).await.map_err(|source| Error::Listen { addr: listen, source })?;
    let addr = listener.local_addr().map_err(|source| Error::Listen { addr: listen, source })?;
    let simulator = Simulator::open(config).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let router = simulator.router();
    let server = tokio::spawn(async move {
        let until = async {
            // An error means that the handle was dropped; the server then lives as long as the process.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let service = router.into_make_service_with_connect_info::<Connection>();
        if let Err(error) = axum::serve(Door(listener), service).with_graceful_shutdown(until).await {
            tracing::error!("the server ended: {error}");
        }
    });
    Ok(Running { addr, url: format!("http://{addr}/v1"), simulator, stop, server })
}

/// Lets in whoever has a right key; anybody if no keys are set.
async fn authenticate(State(simulator): State<Simulator>, request: Request, next: Next) -> Response {
    let keys = &simulator.config.api_keys;
    if keys.is_empty() {
        return next.run(request).await;
    }
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(key) if keys.iter().any(|right| right == key) => next.run(request).await,
        Some(_) => unauthorized("Incorrect API key provided.").code("invalid_api_key").into_response(),
        None => unauthorized("You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.").into_response(),
    }
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::invalid(message).status(StatusCode::UNAUTHORIZED)
}

/// Names each reply, as OpenAI does; clients quote it when something is wrong.
async fn name_request(State(simulator): State<Simulator>, request: Request, next: Next) -> Response {
    let id = simulator.store.id("req_", &simulator.store.next_seq().to_string());
    let mut response = next.run(request).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(format!("Invalid URL ({method} {})", uri.path())).code("unknown_url")
}

async fn not_allowed(method: Method, uri: Uri) -> ApiError {
    let message = format!("Not allowed to {method} on {}", uri.path());
    ApiError::invalid(message).status(StatusCode::METHOD_NOT_ALLOWED).code("method_not_supported")
}

fn model_object(model: Model) -> Value {
    json!({"id": model.name(), "object": "model", "created": 0, "owned_by": "batchmill"})
}

/// `GET /v1/models`
async fn models() -> Reply {
    Ok(Json(wire::list(Model::ALL.into_iter().map(model_object).collect(), false)))
}

/// `GET /v1/models/{id}`
async fn model(Path(id): Path<String>) -> Reply {
    let model = Model::named(&id).ok_or_else(|| {
        ApiError::not_found(format!("The model '{id}' does not exist")).param("model").code("model_not_found")
    })?;
    Ok(Json(model_object(model)))
}
