//! The HTTP server: OpenAI's API over a replica.
//!
//! ```text
//!  connection ──> observe ──────> route ──> request ──> text ────> generate::Plan ──> Replica::submit
//!  limits, time   id, key, log,   405, 404  fields,     template,                          │ tickets
//!  limits         metrics                   400s        tokens                             v
//!  <────────────────────────────── answer: JSON, or events <── generate::Run <── tokens, then text
//! ```
//!
//! What a client gets back is pulled by its connection: nothing is computed
//! for the network ahead of time, and dropping an answer that is under way,
//! as hyper does when a client goes away, drops the [`crate::driver::Ticket`]s
//! that it is made of, which frees their memory. There is no task a request.
//!
//! The server is there before the model is: until [`App::ready`], and again
//! from [`App::drain`] on, `/ready` and everything that computes answer 503.

mod access_log;
mod answer;
mod app;
mod connection;
mod error;
mod generate;
mod host;
mod keys;
mod metrics;
mod observe;
mod record;
mod request;
mod request_id;
mod routes;

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

pub use access_log::AccessLog;
pub use app::{AdapterLoadError, AdapterLoader, App, Engine, ServerSettings};
pub use connection::ConnectionLimits;
pub use error::ApiError;
pub use host::Host;
pub use keys::{Keys, KeysError};
pub use metrics::{Histogram, Metrics};

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Requests that were broken off, as the time to finish them was over.
    pub broken_off: usize,
}

/// Serves until `shutdown` is over, and then until what was begun is done, or
/// the time for that is up.
///
/// While requests are being finished, the socket stays open: new ones are told
/// that the server is going (503), and so is whoever asks `/ready`.
///
/// # Errors
/// If the socket cannot be used.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<Ended> {
    let (close, closing) = watch::channel(false);
    let router = routes::router(&app);
    let limits = app.settings.connections;
    let accepting = tokio::spawn(connection::accept(listener, router, limits, closing));
    shutdown.await;
    app.drain();
    let in_time = timeout(app.settings.drain_timeout, finished(&app)).await;
    let broken_off = match in_time {
        Ok(()) => 0,
        Err(_) => app.in_flight(),
    };
    close.send_replace(true);
    accepting.await?;
    Ok(Ended { broken_off })
}

/// Waits until the replica has nothing more to do, and every answer was sent.
async fn finished(app: &App) {
    if let Some(engine) = app.engine_if_there() {
        if let Some(entrance) = &engine.entrance {
            entrance.emptied().await;
        }
        engine.replica.drain();
        engine.replica.drained().await;
    }
    let mut in_flight = app.in_flight.subscribe();
    // The sender is the app's, and lives as long as it does.
    let _ = in_flight.wait_for(|count| *count == 0).await;
}
