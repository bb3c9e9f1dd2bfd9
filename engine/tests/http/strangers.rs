//! Clients that are not let in, that dawdle, or that are too many.

use std::time::Duration;

use foresail_engine::server::{Keys, ServerSettings};
use serde_json::json;
use tokio::time::timeout;

use crate::client::Wire;
use crate::server::{MODEL, Server, Setup};

/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn keys_let_in() {
    let setup = Setup {
        keys: Some(Keys::parse("one\ntwo").unwrap()),
        ..Setup::default()
    };
    let server = Server::with(setup).await;
    let client = server.client();
    for path in ["/health", "/ready", "/metrics", "/version"] {
        client.get(path).await.with_status(200);
    }
    for path in [
        "/v1/models",
        "/tokenize",
        "/v1/load_lora_adapter",
        "/no/such/route",
    ] {
        let refused = client.get(path).await.with_status(401);
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        assert_eq!(refused.json()["error"]["code"], "missing_api_key");
    }
    let wrong = client.clone().with("authorization", "Bearer three");
    let refused = wrong.get("/v1/models").await.with_status(401).json();
    assert_eq!(refused["error"]["code"], "invalid_api_key");
    assert!(!refused.to_string().contains("three"));
    let right = client.clone().with("authorization", "Bearer two");
    let body = json!({"model": MODEL, "prompt": "a"});
    right.post("/v1/completions", &body).await.with_status(200);
    server.stop().await;
}

fn with_connections(limit: impl Fn(&mut ServerSettings)) -> Setup {
    let mut settings = ServerSettings::default();
    limit(&mut settings);
    Setup {
        settings,
        ..Setup::default()
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_ends_the_connection() {
    let setup = with_connections(|settings| {
        settings.connections.header_read_timeout = Duration::from_millis(50);
    });
    let server = Server::with(setup).await;
    let mut wire = Wire::connect(server.address).await;
    wire.write(b"GET /health HTTP/1.1\r\nhost: te").await;
    timeout(PATIENCE, wire.read_to_end())
        .await
        .expect("the connection ends");
    server.client().get("/health").await.with_status(200);
    server.stop().await;
}

#[tokio::test]
async fn a_connection_too_many_is_told_so() {
    let setup = with_connections(|settings| settings.connections.connections_max = 2);
    let server = Server::with(setup).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::connect(server.address).await;
        wire.write(b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n")
            .await;
        // It is served, so it is counted.
        assert!(wire.read().await);
        idle.push(wire);
    }
    let refused = server.client().get("/health").await.with_status(503);
    assert_eq!(refused.json()["error"]["code"], "too_many_connections");
    drop(idle);
    let again = async {
        while server.client().get("/health").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("there is room again");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_request_up() {
    let mut setup = Setup::default();
    setup.limits.max_num_seqs = 1;
    setup.step = Duration::from_millis(1);
    let server = Server::with(setup).await;
    let long = json!({"model": MODEL, "prompt": "a", "max_tokens": 2000, "stream": true});
    let running = server.client().begin_stream("/v1/completions", &long).await;
    let mut waiting = Vec::new();
    for stream in [true, false] {
        let body = json!({"model": MODEL, "prompt": "b", "max_tokens": 2000, "stream": stream});
        let client = server.client().with("content-type", "application/json");
        let body = body.to_string();
        waiting.push(
            client
                .begin("POST", "/v1/completions", body.as_bytes())
                .await,
        );
    }
    server
        .until("two wait", |stats| stats.waiting == 2 && stats.running == 1)
        .await;
    drop(waiting);
    server.until("none waits", |stats| stats.waiting == 0).await;
    assert_eq!(server.replica.stats().running, 1);
    drop(running);
    server
        .until("none runs", |stats| {
            stats.running == 0 && stats.kv_blocks_used == 0
        })
        .await;
    // One that runs, whose client waits for the whole.
    let body = json!({"model": MODEL, "prompt": "c", "max_tokens": 2000}).to_string();
    let client = server.client().with("content-type", "application/json");
    let whole = client
        .begin("POST", "/v1/completions", body.as_bytes())
        .await;
    server.until("one runs", |stats| stats.running == 1).await;
    drop(whole);
    server
        .until("none runs", |stats| {
            stats.running == 0 && stats.kv_blocks_used == 0
        })
        .await;
    assert_eq!(server.replica.stats().cancelled, 4);
    server
        .wait("nothing is in flight", || server.app.in_flight() == 0)
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let setup = with_connections(|settings| {
        settings.connections.write_timeout = Duration::from_millis(200);
    });
    let server = Server::with(setup).await;
    // More than sockets hold, by far.
    let body = json!({"model": MODEL, "prompt": "a", "max_tokens": 2000, "n": 16, "logprobs": 20,
        "stream": true});
    let silent = server.client().begin_stream("/v1/completions", &body).await;
    server
        .wait("it is given up", || server.app.in_flight() == 0)
        .await;
    drop(silent);
    server.stop().await;
}
