//! Many clients, some of which leave, and some of which dawdle.

use std::sync::Arc;
use std::time::Duration;

use foresail_engine::backend::Limits;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::device::limits;
use crate::server::{MODEL, Server, Setup};

const PATH: &str = "/v1/completions";

/// The server itself, and what accepts its connections.
const SERVER_TASKS: usize = 2;

fn body(prompt: &str, max_tokens: u32, stream: bool) -> Value {
    json!({"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "stream": stream})
}

/// Memory that this process has in RAM (bytes), where the system tells.
fn resident_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split(' ').nth(1)?.parse().ok()?;
    // Of 4 KiB on the machines that have this file and that this is built for.
    Some(pages * 4096)
}

/// A request, of which every third is dropped when its first token has come.
async fn request(server: &Server, number: usize) {
    let prompt = format!("request {number}");
    if number.is_multiple_of(3) {
        drop(
            server
                .client()
                .begin_stream(PATH, &body(&prompt, 500, true))
                .await,
        );
    } else if number.is_multiple_of(2) {
        let answer = server
            .post(PATH, &body(&prompt, 10, true))
            .await
            .with_status(200);
        assert_eq!(answer.events().len(), 10);
    } else {
        let answer = server
            .post(PATH, &body(&prompt, 10, false))
            .await
            .with_status(200);
        assert_eq!(answer.json()["usage"]["completion_tokens"], 10);
    }
}

async fn requests(server: &Arc<Server>, numbers: std::ops::Range<usize>) {
    let at_once = Arc::new(Semaphore::new(48));
    let mut running = JoinSet::new();
    for number in numbers {
        let permit = Arc::clone(&at_once)
            .acquire_owned()
            .await
            .expect("it is open");
        let server = Arc::clone(server);
        running.spawn(async move {
            request(&server, number).await;
            drop(permit);
        });
        while let Some(done) = running.try_join_next() {
            done.expect("the request was answered");
        }
    }
    while let Some(done) = running.join_next().await {
        done.expect("the request was answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_leave_nothing_behind() {
    let setup = Setup {
        // Long enough that those who leave are not served before they do.
        step: Duration::from_micros(100),
        ..Setup::default()
    };
    let server = Arc::new(Server::with(setup).await);
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let is_idle = |server: &Server| {
        let stats = server.replica.stats();
        stats.running + stats.waiting + stats.kv_blocks_used == 0 && server.app.in_flight() == 0
    };
    requests(&server, 0..1_000).await;
    server.wait("it is idle", || is_idle(&server)).await;
    let resident_before = resident_bytes();
    requests(&server, 1_000..10_000).await;
    server.wait("it is idle", || is_idle(&server)).await;
    server
        .wait("connections are closed", || tasks() <= SERVER_TASKS)
        .await;
    let stats = server.replica.stats();
    // Some have all their tokens before their client is seen to be gone.
    assert!(stats.cancelled > 1_000, "{stats:?}");
    assert_eq!(stats.finished + stats.cancelled, 10_000, "{stats:?}");
    if let (Some(before), Some(after)) = (resident_before, resident_bytes()) {
        let grown = after.saturating_sub(before);
        assert!(grown < 64 << 20, "from {before} to {after} bytes");
    }
    let server = Arc::into_inner(server).expect("no request is left");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_hold_up_nobody() {
    let limits = Limits {
        num_blocks: 8192,
        ..limits()
    };
    let setup = Setup {
        limits,
        ..Setup::default()
    };
    let server = Server::with(setup).await;
    // More than sockets hold, so that it has to wait for its reader.
    let mut long = body("slow", 2000, true);
    long["n"] = json!(8);
    long["logprobs"] = json!(10);
    let mut slow = Vec::new();
    for _ in 0..2 {
        slow.push(server.client().begin_stream(PATH, &long).await);
    }
    for number in 0..100 {
        let answer = server
            .post(PATH, &body(&format!("fast {number}"), 10, true))
            .await;
        assert_eq!(answer.with_status(200).events().len(), 10);
    }
    // The device has long done what nobody has read.
    server
        .until("all is computed", |stats| stats.running == 0)
        .await;
    assert_eq!(server.app.in_flight(), 2);
    for stream in &mut slow {
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end());
        read.await.expect("it ends");
        let text = stream.text();
        assert_eq!(text.matches("finish_reason\":\"length\"").count(), 8);
        assert!(text.contains("data: [DONE]"));
    }
    drop(slow);
    server.stop().await;
}
