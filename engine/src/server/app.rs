//! What all requests share: the engine, once it is there, and how it is served.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use tokio::sync::watch;

use crate::driver::Replica;
use crate::emulated::Entrance;
use crate::server::access_log::AccessLog;
use crate::server::connection::ConnectionLimits;
use crate::server::error::ApiError;
use crate::server::keys::Keys;
use crate::server::metrics::Metrics;
use crate::text::Tokenizer;
use crate::weights::Adapter;

/// Reads an adapter of a name from a folder.
pub type AdapterLoader =
    Box<dyn Fn(&str, &Path) -> Result<Adapter, AdapterLoadError> + Send + Sync>;

/// Why an adapter could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterLoadError {
    /// What the client may know: what does not fit, and nothing of the file system.
    pub public: String,
    /// The same for whoever runs the server.
    pub detail: String,
}

/// What requests may ask for, and how long they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Of connections, before there is a request.
    pub connections: ConnectionLimits,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_read_timeout: Duration,
    /// Generations that one request may begin: prompts times answers.
    pub generations_max: usize,
    /// How long requests may take to end when the server is asked to.
    pub drain_timeout: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            connections: ConnectionLimits::default(),
            body_bytes_max: 8 * 1024 * 1024,
            body_read_timeout: Duration::from_secs(60),
            generations_max: 1024,
            drain_timeout: Duration::from_secs(300),
        }
    }
}

/// A model that can be asked.
pub struct Engine {
    /// The replica that computes.
    pub replica: Replica,
    /// Its tokenizer, with the chat template.
    pub tokenizer: Arc<Tokenizer>,
    /// The names of the base model; the first is what metrics say.
    pub names: Vec<String>,
    /// Tokens that end a text, unless a request ignores them.
    pub eos_token_ids: Vec<u32>,
    /// How adapters are read at run time, if that is allowed.
    pub adapter_loader: Option<AdapterLoader>,
    /// What requests have to pass on their way in, if another server is emulated.
    pub entrance: Option<Entrance>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Engine")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// What all requests share.
#[derive(Debug)]
pub struct App {
    pub(crate) settings: ServerSettings,
    pub(crate) keys: Option<Keys>,
    pub(crate) log: AccessLog,
    pub(crate) metrics: Metrics,
    /// Requests that are being answered.
    pub(crate) in_flight: watch::Sender<usize>,
    engine: OnceLock<Engine>,
    draining: AtomicBool,
    /// When each model came, in seconds since 1970: what `/v1/models` shows.
    created: Mutex<BTreeMap<String, u64>>,
}

impl App {
    /// A server that has no engine yet, and answers 503 until it has.
    /// Without keys, everybody is let in.
    #[must_use]
    pub fn new(settings: ServerSettings, keys: Option<Keys>, log: AccessLog) -> Arc<Self> {
        Arc::new(Self {
            settings,
            keys,
            log,
            metrics: Metrics::default(),
            in_flight: watch::Sender::new(0),
            engine: OnceLock::new(),
            draining: AtomicBool::new(false),
            created: Mutex::default(),
        })
    }

    /// Takes requests from now on. A second engine is not taken.
    pub fn ready(&self, engine: Engine) {
        let adapters = engine.replica.adapters();
        for name in engine.names.iter().chain(&adapters) {
            self.note_model(name);
        }
        // The engine that is there stays.
        let _ = self.engine.set(engine);
        if self.is_draining() {
            self.drain();
        }
    }

    /// Takes no more requests, and finishes those that it has.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        // Who is on the way in was taken, so that `serve` drains the replica once they are in.
        if let Some(engine) = self.engine.get()
            && engine.entrance.is_none()
        {
            engine.replica.drain();
        }
    }

    /// Requests that are being answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        *self.in_flight.borrow()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// The engine, whether or not it takes requests.
    pub(crate) fn engine_if_there(&self) -> Option<&Engine> {
        self.engine.get()
    }

    /// The engine, if it takes requests.
    pub(crate) fn engine(&self) -> Result<&Engine, ApiError> {
        let engine = self.engine.get();
        let engine = engine.ok_or_else(|| {
            ApiError::unavailable("the model is being loaded; try again later")
                .with_code("starting")
        })?;
        if self.is_draining() {
            let message = "the server is shutting down and takes no new requests";
            return Err(ApiError::unavailable(message).with_code("draining"));
        }
        if engine.replica.is_ended() {
            let message = "the replica has ended; the server has to be started again";
            return Err(ApiError::unavailable(message).with_code("replica_ended"));
        }
        Ok(engine)
    }

    pub(crate) fn note_model(&self, name: &str) {
        self.created().insert(name.to_owned(), seconds_since_1970());
    }

    pub(crate) fn created_at(&self, name: &str) -> u64 {
        self.created().get(name).copied().unwrap_or_default()
    }

    fn created(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        // An insertion is whole or not there.
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// What a name asks for: `None` is the base model, else an adapter.
    pub(crate) fn resolve(&self, model: &str) -> Result<Option<String>, ApiError> {
        if self.names.iter().any(|name| name == model) {
            return Ok(None);
        }
        let adapters = self.replica.adapters();
        if adapters.iter().any(|name| name == model) {
            return Ok(Some(model.to_owned()));
        }
        Err(unknown_model(model, &self.names, &adapters))
    }

    pub(crate) fn max_model_len(&self) -> usize {
        self.replica.settings().limits.max_model_len
    }

    pub(crate) fn vocab_size(&self) -> usize {
        self.replica.settings().vocab_size
    }
}

/// Most names that an error lists.
const NAMES_MAX: usize = 10;

fn unknown_model(model: &str, names: &[String], adapters: &[String]) -> ApiError {
    let all: Vec<_> = names.iter().chain(adapters).map(String::as_str).collect();
    let mut there = all[..all.len().min(NAMES_MAX)].join(", ");
    if all.len() > NAMES_MAX {
        there += ", and more: see /v1/models";
    }
    let model: String = model.chars().take(128).collect();
    let message = format!("the model `{model}` is not served here; there are: {there}");
    ApiError::new(StatusCode::NOT_FOUND, message)
        .with_param("model")
        .with_code("model_not_found")
}

/// Now, as the API has it.
pub(crate) fn seconds_since_1970() -> u64 {
    // A clock before 1970 is a clock that was never set.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
