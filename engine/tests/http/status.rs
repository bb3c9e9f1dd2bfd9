//! How the server is: models, health, metrics, ids, and the log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use foresail_engine::server::{self, AccessLog, App, ServerSettings};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::Client;
use crate::server::{ALIAS, MODEL, Server, Setup};

#[tokio::test]
async fn models_have_names_with_slashes() {
    let server = Server::start().await;
    let client = server.client();
    let list = client.get("/v1/models").await.with_status(200).json();
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(ids, [MODEL, ALIAS]);
    let one = client
        .get(&format!("/v1/models/{MODEL}"))
        .await
        .with_status(200)
        .json();
    assert_eq!(one, list["data"][0]);
    assert_eq!(
        (&one["object"], &one["max_model_len"]),
        (&json!("model"), &json!(2048))
    );
    let encoded = MODEL.replace('/', "%2F");
    client
        .get(&format!("/v1/models/{encoded}"))
        .await
        .with_status(200);
    let unknown = client.get("/v1/models/gpt-4").await.with_status(404).json();
    assert_eq!(unknown["error"]["code"], "model_not_found");
    server.stop().await;
}

#[tokio::test]
async fn ids_are_given_back() {
    let server = Server::start().await;
    let given = server
        .client()
        .with("x-request-id", "given-1")
        .get("/health")
        .await;
    assert_eq!(given.header("x-request-id"), Some("given-1"));
    let new = server.client().get("/health").await;
    assert_eq!(new.header("x-request-id").map(str::len), Some(32));
    server.stop().await;
}

#[tokio::test]
async fn before_the_model_is_there_nothing_is_computed() {
    let app = App::new(ServerSettings::default(), None, AccessLog::none());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(listener.local_addr().unwrap());
    let served = tokio::spawn(server::serve(listener, app, std::future::pending()));
    client.get("/health").await.with_status(200);
    client.get("/metrics").await.with_status(200);
    client.get("/version").await.with_status(200);
    for path in ["/ready", "/v1/models"] {
        let answer = client.get(path).await.with_status(503);
        assert_eq!(answer.json()["error"]["code"], "starting");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    served.abort();
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = Server::start().await;
    let body = json!({"model": MODEL, "prompt": "Hello", "max_tokens": 4, "n": 2});
    server.post("/v1/completions", &body).await.with_status(200);
    let page = server.client().get("/metrics").await.with_status(200);
    assert_eq!(
        page.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let page = page.text();
    let labels = format!("{{model_name=\"{MODEL}\",engine=\"0\"");
    for (name, more, value) in [
        ("vllm:num_requests_running", "", "0"),
        ("vllm:num_requests_waiting", "", "0"),
        ("vllm:kv_cache_usage_perc", "", "0"),
        ("vllm:gpu_cache_usage_perc", "", "0"),
        ("vllm:prompt_tokens_total", "", "10"),
        ("vllm:generation_tokens_total", "", "8"),
        ("vllm:num_preemptions_total", "", "0"),
        (
            "vllm:request_success_total",
            ",finished_reason=\"length\"",
            "2",
        ),
        ("vllm:time_to_first_token_seconds_count", "", "2"),
        ("vllm:inter_token_latency_seconds_count", "", "6"),
        ("vllm:time_per_output_token_seconds_count", "", "6"),
        ("vllm:e2e_request_latency_seconds_count", "", "2"),
        ("vllm:request_queue_time_seconds_count", "", "2"),
        ("vllm:request_generation_tokens_sum", "", "8"),
        ("vllm:prefix_cache_queries_total", "", "10"),
        ("vllm:prefix_cache_hits_total", "", "0"),
        ("foresail_failed_steps_total", "", "0"),
        ("foresail_ready", "", "1"),
    ] {
        let line = format!("{name}{labels}{more}}} {value}\n");
        assert!(page.contains(&line), "{line}\n{page}");
    }
    server.stop().await;
}

/// A log that can be read.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn the_log_says_what_happened_and_not_what_was_said() {
    let lines = Lines::default();
    let setup = Setup {
        log: AccessLog::to(lines.clone()).unwrap(),
        ..Setup::default()
    };
    let server = Server::with(setup).await;
    let secret = "zyxwvu";
    let client = server
        .client()
        .with("x-request-id", "id-1")
        .with("authorization", "Bearer hunter2");
    let body = json!({"model": MODEL, "prompt": secret, "max_tokens": 3, "stream": true});
    let answer = client
        .post("/v1/completions", &body)
        .await
        .with_status(200)
        .text();
    client.get(&format!("/{secret}")).await.with_status(404);
    client
        .post("/v1/completions", &json!({"model": secret, "prompt": "a"}))
        .await
        .with_status(404);
    server
        .wait("three lines", || lines.text().lines().count() == 3)
        .await;
    let text = lines.text();
    for unwanted in [secret, "hunter2"] {
        assert!(!text.contains(unwanted), "{text}");
    }
    assert!(!answer.is_empty());
    let mut all: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for line in &mut all {
        for volatile in ["time", "queue_ms", "ttft_ms", "duration_ms"] {
            let value = line[volatile].take();
            assert!(
                value.is_null() || value.is_string() || value.as_f64() >= Some(0.0),
                "{value}"
            );
        }
    }
    let text: Vec<_> = all.iter().map(Value::to_string).collect();
    insta::assert_snapshot!(text.join("\n"), @r#"
    {"time":null,"event":"request","id":"id-1","method":"POST","route":"/v1/completions","status":200,"model":"accounts/test/models/tiny","stream":true,"prompt_tokens":6,"cached_tokens":0,"output_tokens":3,"queue_ms":null,"ttft_ms":null,"duration_ms":null,"client_gone":false,"error":null}
    {"time":null,"event":"request","id":"id-1","method":"GET","route":"none","status":404,"model":null,"stream":false,"prompt_tokens":0,"cached_tokens":0,"output_tokens":0,"queue_ms":null,"ttft_ms":null,"duration_ms":null,"client_gone":false,"error":"route_not_found"}
    {"time":null,"event":"request","id":"id-1","method":"POST","route":"/v1/completions","status":404,"model":null,"stream":false,"prompt_tokens":0,"cached_tokens":0,"output_tokens":0,"queue_ms":null,"ttft_ms":null,"duration_ms":null,"client_gone":false,"error":"model_not_found"}
    "#);
    server.stop().await;
}
