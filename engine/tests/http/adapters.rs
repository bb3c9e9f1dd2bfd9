//! Adapters that come and go while requests are answered.

use serde_json::{Value, json};

use crate::server::{MODEL, Server, Setup};

const NAME: &str = "accounts/test/models/helper";

fn load(name: &str, path: &str) -> Value {
    json!({"lora_name": name, "lora_path": path})
}

#[tokio::test]
async fn an_adapter_is_a_model_while_it_is_there() {
    let server = Server::start().await;
    let loaded = server
        .post("/v1/load_lora_adapter", &load(NAME, "adapters/helper"))
        .await;
    assert_eq!(
        loaded.with_status(200).text(),
        format!("Success: LoRA adapter '{NAME}' added successfully.")
    );
    let listed = server.client().get("/v1/models").await.json();
    assert_eq!(
        (&listed["data"][2]["id"], &listed["data"][2]["parent"]),
        (&json!(NAME), &json!(MODEL))
    );
    let ask = async |model: &str| {
        let body = json!({"model": model, "prompt": "a", "temperature": 0});
        server.post("/v1/completions", &body).await
    };
    let (base, adapted) = (
        ask(MODEL).await.with_status(200),
        ask(NAME).await.with_status(200),
    );
    assert_ne!(base.json()["choices"], adapted.json()["choices"]);
    assert_eq!(adapted.json()["model"], NAME);
    let twice = server
        .post("/v1/load_lora_adapter", &load(NAME, "adapters/helper"))
        .await;
    assert_eq!(twice.with_status(400).json()["error"]["param"], "lora_name");
    let unloaded = server
        .post("/v1/unload_lora_adapter", &json!({"lora_name": NAME}))
        .await;
    unloaded.with_status(200);
    ask(NAME).await.with_status(404);
    let gone = server
        .post("/v1/unload_lora_adapter", &json!({"lora_name": NAME}))
        .await;
    gone.with_status(404);
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_loaded_says_nothing_of_files() {
    let server = Server::start().await;
    let answer = server
        .post("/v1/load_lora_adapter", &load("a", "/private/missing"))
        .await;
    let answer = answer.with_status(400);
    assert_eq!(answer.json()["error"]["code"], "adapter_refused");
    assert!(!answer.text().contains("private"));
    let base = server
        .post("/v1/load_lora_adapter", &load(MODEL, "a"))
        .await;
    assert_eq!(base.with_status(400).json()["error"]["param"], "lora_name");
    server
        .post("/v1/load_lora_adapter", &json!({"lora_name": "a"}))
        .await
        .with_status(400);
    server
        .post("/v1/load_lora_adapter", &load("broken", "a"))
        .await
        .with_status(200);
    let body = json!({"model": "broken", "prompt": "a"});
    let failed = server.post("/v1/completions", &body).await.with_status(500);
    assert_eq!(failed.json()["error"]["code"], "adapter_failed");
    server.stop().await;
}

#[tokio::test]
async fn loading_is_off_unless_it_is_allowed() {
    let setup = Setup {
        adapter_loading: false,
        ..Setup::default()
    };
    let server = Server::with(setup).await;
    for path in ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"] {
        let answer = server.post(path, &load("a", "a")).await.with_status(403);
        assert!(answer.text().contains("--enable-adapter-loading"));
    }
    server.stop().await;
}
