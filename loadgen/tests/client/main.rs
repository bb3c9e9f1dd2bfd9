//! The client against real sockets: every way an exchange can end, connections that are kept and
//! lost, HTTP/2 and TLS. Servers are scripts of bytes, on the loopback.

mod connections;
mod endings;
mod http2;
mod server;
mod tls;

use std::time::{Duration, Instant};

use bytes::Bytes;
use foresail_loadgen::client::{Cancellation, Client, Settings, Target};
use foresail_loadgen::clock::RunClock;
use foresail_loadgen::exchange::{Attempt, Exchange, Patience};

/// Longer than anything here takes on the busiest machine, so that a bug ends a test.
const PATIENCE: Patience = Patience {
    connect_ns: Some(20_000_000_000),
    first_output_ns: None,
    stall_ns: None,
    total_ns: Some(20_000_000_000),
};

const MILLISECOND_NS: u64 = 1_000_000;

fn attempt(is_streamed: bool, patience: Patience) -> Attempt {
    let body = Bytes::from_static(br#"{"model":"m","prompt":"hello"}"#);
    Attempt {
        body,
        is_streamed,
        patience,
    }
}

fn client(settings: &Settings) -> Client {
    client_until(settings, Cancellation::new())
}

fn client_until(settings: &Settings, cancellation: Cancellation) -> Client {
    let target = Target::resolve(settings).expect("the settings are in order");
    Client::new(target, RunClock::starting_at(Instant::now()), cancellation)
}

/// Runs this as a worker of a run would.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

/// One streamed exchange, with this much patience.
fn exchange(server: &server::Server, patience: Patience) -> Exchange {
    let client = client(&server.settings());
    run(client.exchange(attempt(true, patience)))
}

/// Both at once, on this thread.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    tokio::join!(a, b)
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
