//! Clients that others wrote: the official Python package of OpenAI, and `curl`.

use std::path::Path;
use std::process::{Command, Output};

use foresail_engine::server::Keys;
use tokio::task;

use crate::server::{MODEL, Server, Setup};

const KEY: &str = "a-key-for-tests";

async fn server_with_key() -> Server {
    let setup = Setup {
        keys: Some(Keys::parse(KEY).expect("it is a key")),
        ..Setup::default()
    };
    Server::with(setup).await
}

async fn output(mut command: Command) -> Option<Output> {
    let run = task::spawn_blocking(move || command.output().ok());
    run.await.expect("the command is run")
}

/// A Python with the package: `FORESAIL_PYTHON`, or the one on the path.
async fn python() -> Option<String> {
    let python = std::env::var("FORESAIL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(&python);
    command.args(["-c", "import openai"]);
    let has_package = output(command)
        .await
        .is_some_and(|output| output.status.success());
    has_package.then_some(python)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_python_client() {
    let Some(python) = python().await else {
        eprintln!("SKIPPED: no Python with the package `openai`; set FORESAIL_PYTHON to one");
        return;
    };
    let server = server_with_key().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/openai_client.py");
    let mut command = Command::new(python);
    command
        .arg(script)
        .args([&format!("http://{}/v1", server.address), KEY, MODEL]);
    // It is to go straight to the server.
    for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    let output = output(command).await.expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{error}");
    assert!(text.ends_with("all checks passed\n"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl() {
    let mut version = Command::new("curl");
    version.arg("--version");
    if output(version).await.is_none() {
        eprintln!("SKIPPED: there is no curl");
        return;
    }
    let server = server_with_key().await;
    let ask = async |path: &str, arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--no-buffer"]);
        command
            .args(arguments)
            .arg(format!("http://{}{path}", server.address));
        let output = output(command).await.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("answers are text")
    };
    let key = format!("Authorization: Bearer {KEY}");
    let json = "Content-Type: application/json";
    let models = ask("/v1/models", &["--header", &key]).await;
    assert!(models.contains(MODEL), "{models}");
    let body = format!(r#"{{"model": "{MODEL}", "prompt": "Hello", "max_tokens": 3}}"#);
    let whole = ask("/v1/completions", &["-H", &key, "-H", json, "-d", &body]).await;
    assert!(whole.contains(r#""completion_tokens":3"#), "{whole}");
    let body = format!(
        r#"{{"model": "{MODEL}", "stream": true, "max_tokens": 3,
            "messages": [{{"role": "user", "content": "Hello"}}]}}"#
    );
    let stream = ask(
        "/v1/chat/completions",
        &["-H", &key, "-H", json, "-d", &body],
    )
    .await;
    assert_eq!(stream.matches("data: ").count(), 5, "{stream}");
    assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
    let no_key = ask("/v1/models", &["--write-out", " %{http_code}"]).await;
    assert!(no_key.ends_with(" 401"), "{no_key}");
    let form = ask(
        "/v1/completions",
        &["-H", &key, "-d", "{}", "--write-out", " %{http_code}"],
    )
    .await;
    assert!(form.ends_with(" 415"), "{form}");
    server.stop().await;
}
