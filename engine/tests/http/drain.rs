//! Asked to stop, the server finishes what it has begun.

use std::time::Duration;

use foresail_engine::server::{Ended, ServerSettings};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::server::{MODEL, Server, Setup};

fn body(stream: bool, max_tokens: u32) -> Value {
    json!({"model": MODEL, "prompt": "a", "max_tokens": max_tokens, "stream": stream})
}

#[tokio::test]
async fn what_was_taken_is_finished() {
    let mut setup = Setup::default();
    setup.limits.max_num_seqs = 4;
    setup.step = Duration::from_millis(1);
    let server = Server::with(setup).await;
    let client = server.client();
    let mut answers = JoinSet::new();
    for number in 0..20 {
        let client = client.clone();
        answers.spawn(async move {
            let stream = number % 2 == 0;
            (
                stream,
                client.post("/v1/completions", &body(stream, 100)).await,
            )
        });
    }
    server
        .until("all are taken", |stats| stats.running + stats.waiting == 20)
        .await;
    let (app, replica) = (server.app.clone(), server.replica.clone());
    let served = server.ask_to_stop();
    while !replica.is_draining() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ready = client.get("/ready").await.with_status(503);
    assert_eq!(ready.header("connection"), Some("close"));
    client.get("/health").await.with_status(200);
    let refused = client
        .post("/v1/completions", &body(false, 1))
        .await
        .with_status(503);
    assert_eq!(refused.json()["error"]["code"], "draining");
    while let Some(answer) = answers.join_next().await {
        let (stream, answer) = answer.unwrap();
        let answer = answer.with_status(200);
        if stream {
            assert_eq!(answer.events().len(), 100);
        } else {
            assert_eq!(answer.json()["usage"]["completion_tokens"], 100);
        }
    }
    assert_eq!(served.await.unwrap().unwrap(), Ended { broken_off: 0 });
    assert_eq!((app.in_flight(), replica.stats().finished), (0, 20));
    assert!(replica.is_ended());
}

#[tokio::test]
async fn what_takes_too_long_is_broken_off() {
    let setup = Setup {
        step: Duration::from_millis(5),
        settings: ServerSettings {
            drain_timeout: Duration::from_millis(20),
            ..ServerSettings::default()
        },
        ..Setup::default()
    };
    let server = Server::with(setup).await;
    let mut stream = server
        .client()
        .begin_stream("/v1/completions", &body(true, 2000))
        .await;
    let app = server.app.clone();
    let ended = server.ask_to_stop().await.unwrap().unwrap();
    assert_eq!(ended, Ended { broken_off: 1 });
    assert_eq!(app.in_flight(), 0);
    stream.read_to_end().await;
    assert!(!stream.text().contains("[DONE]"));
}
