//! Requests that cannot be answered, and what their senders are told.

use std::time::Duration;

use foresail_engine::backend::Limits;
use foresail_engine::server::ServerSettings;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::client::Answer;
use crate::device::{FAIL, PANIC, limits};
use crate::server::{MODEL, Server, Setup};

/// The status and the error, on a line.
fn line(answer: &Answer) -> String {
    let error = &answer.json()["error"];
    format!(
        "{} {} {} {}: {}",
        answer.status,
        error["type"].as_str().unwrap(),
        error["code"],
        error["param"],
        error["message"].as_str().unwrap()
    )
}

#[tokio::test]
async fn each_says_what_to_change() {
    let server = Server::start().await;
    let client = server.client();
    let mut lines = Vec::new();
    for (path, body) in [
        ("/v1/completions", "{\"model\": \"tiny\",\n \"prompt\": }"),
        ("/v1/completions", "[]"),
        ("/v1/completions", "{}"),
        ("/v1/completions", r#"{"model": "gpt-4", "prompt": "a"}"#),
        ("/v1/completions", r#"{"model": "tiny"}"#),
        (
            "/v1/completions",
            r#"{"model": "tiny", "prompt": [1, "a"]}"#,
        ),
        ("/v1/completions", r#"{"model": "tiny", "prompt": ""}"#),
        ("/v1/completions", r#"{"model": "tiny", "prompt": [300]}"#),
        (
            "/v1/completions",
            r#"{"model": "tiny", "prompt": "a", "stop_token_ids": [1, 300]}"#,
        ),
        (
            "/v1/completions",
            r#"{"model": "tiny", "prompt": "a", "max_tokens": 2048}"#,
        ),
        (
            "/v1/completions",
            r#"{"model": "tiny", "prompt": "a", "temperature": -1}"#,
        ),
        (
            "/v1/completions",
            r#"{"model": "tiny", "prompt": "a", "top_p": 0}"#,
        ),
        (
            "/v1/completions",
            r#"{"model": "tiny", "prompt": "a", "logit_bias": {"300": 1}}"#,
        ),
        (
            "/v1/completions",
            r#"{"model": "tiny", "prompt": "a", "max_token": 1}"#,
        ),
        (
            "/v1/completions",
            r#"{"model": "tiny", "prompt": "a", "suffix": "b"}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"model": "tiny", "messages": []}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "tools": [{}]}"#,
        ),
        ("/v1/embeddings", "{}"),
        ("/detokenize", r#"{"tokens": [300]}"#),
    ] {
        lines.push(line(&client.send("POST", path, body.as_bytes()).await));
    }
    lines.push(line(&client.get("/v1/completions").await));
    let form = client
        .clone()
        .with("content-type", "application/x-www-form-urlencoded");
    lines.push(line(&form.send("POST", "/v1/completions", b"{}").await));
    let squeezed = client.clone().with("content-encoding", "gzip");
    lines.push(line(&squeezed.send("POST", "/v1/completions", b"{}").await));
    lines.push(line(&client.get("/v1/models/%ff").await));
    let odd = client.clone().with("x-request-id", "a b");
    lines.push(line(&odd.get("/v1/models").await));
    insta::assert_snapshot!(lines.join("\n"), @r#"
    400 invalid_request_error null null: the body is not JSON: expected value at line 2 column 12
    400 invalid_request_error null null: the body is a list and has to be a JSON object
    400 invalid_request_error "missing_parameter" "model": `model` is missing
    404 not_found_error "model_not_found" "model": the model `gpt-4` is not served here; there are: accounts/test/models/tiny, tiny
    400 invalid_request_error "missing_parameter" "prompt": `prompt` is missing
    400 invalid_request_error null "prompt": `prompt`: at place 1, expected a token, found a string
    400 invalid_request_error null "prompt": the prompt is empty and has to have at least one token
    400 invalid_request_error null "prompt": token 300 is not in the vocabulary of 300
    400 invalid_request_error null "stop_token_ids": `stop_token_ids` has token 300, which is not in the vocabulary of 300
    400 invalid_request_error "context_length_exceeded" null: 1 prompt tokens and 2048 to generate are more than the context of 2048; shorten the prompt, or ask for fewer tokens
    400 invalid_request_error null "temperature": temperature must be between 0 and 2, got -1
    400 invalid_request_error null "top_p": top_p must be above 0 and at most 1, got 0
    400 invalid_request_error null "logit_bias": logit_bias has token 300, which is not in the vocabulary of 300
    400 invalid_request_error "unknown_parameter" "max_token": there is no parameter `max_token`; do you mean `max_tokens`?
    400 invalid_request_error "unsupported_parameter" "suffix": `suffix` is not supported by this server; leave it out
    400 invalid_request_error null "messages": messages: must be a list with at least one message
    400 invalid_request_error null "messages[0].content[0]": messages[0].content[0]: parts of type image_url are not supported; only text is
    400 invalid_request_error "unsupported_parameter" "tools": `tools` is not supported by this server; leave it out
    404 not_found_error "route_not_found" null: there is no /v1/embeddings here; there are: /v1/completions, /v1/chat/completions, /v1/models, /tokenize, /detokenize, /health, /ready, /version, /metrics
    400 invalid_request_error null "tokens": token 300 is not in the vocabulary of 300
    405 invalid_request_error "method_not_allowed" null: /v1/completions does not take GET
    415 invalid_request_error null null: the body has to be JSON; send the header `Content-Type: application/json`
    415 invalid_request_error null null: compressed bodies are not supported by this server; leave out the header `Content-Encoding`
    400 invalid_request_error null "model": the name of the model is not UTF-8 once its %-escapes are read
    400 invalid_request_error null null: `x-request-id` has 1 to 128 characters, letters, digits and -_.:/+=@ only
    "#);
    server.stop().await;
}

#[tokio::test]
async fn a_full_queue_is_said_at_once() {
    let limits = Limits {
        max_num_seqs: 1,
        ..limits()
    };
    let setup = Setup {
        limits,
        waiting_max: 2,
        ..Setup::default()
    };
    let server = Server::with(setup).await;
    server.hold();
    let body = json!({"model": MODEL, "prompt": "a", "max_tokens": 1, "n": 3});
    let answer = server.post("/v1/completions", &body).await;
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(
        line(&answer),
        "429 rate_limit_error \"queue_full\" null: 2 requests wait already, as many as may; try again later"
    );
    // Those of the request that fitted were given up.
    server.let_go();
    server
        .until("nothing waits", |stats| stats.waiting == 0)
        .await;
    server.stop().await;
}

#[tokio::test]
async fn bodies_and_heads_have_limits() {
    let mut settings = ServerSettings {
        body_bytes_max: 1000,
        body_read_timeout: Duration::from_millis(100),
        ..ServerSettings::default()
    };
    settings.connections.header_bytes_max = 16 * 1024;
    let setup = Setup {
        settings,
        ..Setup::default()
    };
    let server = Server::with(setup).await;
    let client = server.client();
    let large = client.send("POST", "/v1/completions", &[b' '; 1001]).await;
    assert_eq!(
        line(&large),
        "413 invalid_request_error null null: the body may have 1000 bytes at most"
    );
    assert_eq!(
        line(&client.send_half("/v1/completions").await),
        "408 invalid_request_error null null: the body did not arrive within 0 s"
    );
    let heads = client.clone().with("x-large", &"a".repeat(20 * 1024));
    heads.get("/health").await.with_status(431);
    let mut many = client.clone();
    for number in 0..200 {
        many = many.with(&format!("x-{number}"), "a");
    }
    many.get("/health").await.with_status(431);
    client
        .get(&format!("/{}", "a".repeat(12_000)))
        .await
        .with_status(404);
    server.stop().await;
}

#[tokio::test]
async fn a_step_that_fails_costs_only_its_requests() {
    let server = Server::start().await;
    for mark in [FAIL, PANIC] {
        let mut body = json!({"model": MODEL, "prompt": format!("a{mark}")});
        let answer = server.post("/v1/completions", &body).await.with_status(500);
        assert_eq!(answer.json()["error"]["code"], "step_failed");
        body["stream"] = json!(true);
        let answer = server.post("/v1/completions", &body).await.with_status(200);
        let (events, is_whole) = answer.events_so_far();
        assert!(!is_whole, "{events:?}");
        assert_eq!(events.last().unwrap()["error"]["type"], "server_error");
        let body = json!({"model": MODEL, "prompt": "a"});
        server.post("/v1/completions", &body).await.with_status(200);
    }
    assert_eq!(server.replica.stats().failed_steps, 4);
    server.stop().await;
}

/// Names that mean something, and values that mostly do not.
fn request() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "model",
        "prompt",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "stream",
        "stream_options",
        "stop",
        "seed",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "logprobs",
        "top_logprobs",
        "echo",
        "logit_bias",
        "min_tokens",
        "ignore_eos",
        "stop_token_ids",
        "presence_penalty",
        "repetition_penalty",
        "best_of",
        "tools",
        "user",
        "cache_salt",
        "request_id",
        "return_token_ids",
        "chat_template_kwargs",
        "response_format",
        "nonsense",
    ]);
    let fields = prop::collection::vec((names, value()), 0..6);
    fields.prop_map(|fields| {
        let mut body = json!({"model": "tiny", "prompt": "a", "max_tokens": 3,
            "messages": [{"role": "user", "content": "a"}]});
        for (name, value) in fields {
            body[name] = value;
        }
        body
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3..40_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2.0..2.0_f64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[a-z ]{1,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z0-9_]{1,9}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Runs an asynchronous check for many inputs.
fn fuzz<T: std::fmt::Debug>(
    cases: u32,
    input: impl Strategy<Value = T>,
    check: impl AsyncFn(&Server, T) -> Result<(), TestCaseError>,
) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let limits = Limits {
        max_model_len: 48,
        ..limits()
    };
    let setup = Setup {
        limits,
        waiting_max: 256,
        ..Setup::default()
    };
    let server = runtime.block_on(Server::with(setup));
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&input, |input| runtime.block_on(check(&server, input)));
    result.unwrap_or_else(|failure| panic!("{failure}"));
    runtime.block_on(server.stop());
}

fn is_an_answer(answer: &Answer) -> Result<(), TestCaseError> {
    let text = answer.text();
    prop_assert!(answer.status < 500, "{text}");
    if answer.status != 200 {
        prop_assert!(answer.json()["error"]["message"].is_string(), "{text}");
    } else if text.starts_with("data: ") {
        let (_, is_whole) = answer.events_so_far();
        prop_assert!(is_whole, "{text}");
    }
    Ok(())
}

#[test]
fn any_object_is_answered_or_refused() {
    fuzz(600, request(), async |server, body| {
        for path in ["/v1/completions", "/v1/chat/completions", "/tokenize"] {
            let mut body = body.clone();
            if path == "/v1/chat/completions" {
                body.as_object_mut().unwrap().remove("prompt");
            } else {
                body.as_object_mut().unwrap().remove("messages");
            }
            is_an_answer(&server.post(path, &body).await)?;
        }
        Ok(())
    });
}

#[test]
fn any_bytes_are_answered_or_refused() {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[\\[\\]{}\",:0-9a-z ]{0,60}".prop_map(String::into_bytes),
        (0..400_usize).prop_map(|depth| vec![b'['; depth]),
    ];
    fuzz(300, bytes, async |server, body| {
        let answer = server.client().send("POST", "/v1/completions", &body).await;
        prop_assert_eq!(answer.status, 400);
        is_an_answer(&answer)
    });
}
