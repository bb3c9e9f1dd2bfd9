//! `/v1/chat/completions`, and what turns conversations into prompts.

use serde_json::{Value, json};

use crate::server::{MODEL, Server};

const PATH: &str = "/v1/chat/completions";

fn body(extra: Value) -> Value {
    let mut body = json!({"model": MODEL, "temperature": 0, "max_tokens": 6,
        "messages": [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn an_answer_has_the_form_of_openai() {
    let server = Server::start().await;
    let client = server.client().with("x-request-id", "abc");
    let mut answer = client
        .post(PATH, &body(json!({})))
        .await
        .with_status(200)
        .json();
    answer["created"] = json!(0);
    insta::assert_snapshot!(answer.to_string(), @r#"{"id":"chatcmpl-abc","object":"chat.completion","created":0,"model":"accounts/test/models/tiny","choices":[{"index":0,"message":{"role":"assistant","content":" axycq","refusal":null},"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":37,"completion_tokens":6,"total_tokens":43,"prompt_tokens_details":{"cached_tokens":0}}}"#);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_says_first_who_speaks() {
    let server = Server::start().await;
    let client = server.client().with("x-request-id", "abc");
    let stream =
        json!({"stream": true, "max_tokens": 2, "stream_options": {"include_usage": true}});
    let events = client
        .post(PATH, &body(stream))
        .await
        .with_status(200)
        .events();
    let lines: Vec<_> = events
        .into_iter()
        .map(|mut event| {
            event["created"] = json!(0);
            event.to_string()
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":0,"model":"accounts/test/models/tiny","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}
    {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":0,"model":"accounts/test/models/tiny","choices":[{"index":0,"delta":{"content":" "},"logprobs":null,"finish_reason":null}],"usage":null}
    {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":0,"model":"accounts/test/models/tiny","choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":"length"}],"usage":null}
    {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":0,"model":"accounts/test/models/tiny","choices":[],"usage":{"prompt_tokens":37,"completion_tokens":2,"total_tokens":39,"prompt_tokens_details":{"cached_tokens":0}}}
    "#);
    server.stop().await;
}

#[tokio::test]
async fn streamed_text_is_the_text() {
    let server = Server::start().await;
    let several = json!({"n": 2, "max_tokens": 30, "temperature": 1, "seed": 4, "stop": "q"});
    let whole = server
        .post(PATH, &body(several.clone()))
        .await
        .with_status(200)
        .json();
    let mut streamed = body(several);
    streamed["stream"] = json!(true);
    let events = server.post(PATH, &streamed).await.with_status(200).events();
    for index in 0..2 {
        let choices = events.iter().map(|event| &event["choices"][0]);
        let own = choices.filter(|choice| choice["index"] == index);
        let text: String = own
            .filter_map(|choice| choice["delta"]["content"].as_str())
            .collect();
        assert_eq!(whole["choices"][index]["message"]["content"], text);
    }
    server.stop().await;
}

#[tokio::test]
async fn without_a_limit_the_context_is_the_limit() {
    let server = Server::start().await;
    let mut body = body(json!({}));
    body.as_object_mut().unwrap().remove("max_tokens");
    let answer = server.post(PATH, &body).await.with_status(200).json();
    assert_eq!(answer["usage"]["total_tokens"], 2048);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    server.stop().await;
}

#[tokio::test]
async fn log_probabilities_are_a_list_of_tokens() {
    let server = Server::start().await;
    let logprobs = json!({"logprobs": true, "top_logprobs": 2, "max_tokens": 1});
    let answer = server
        .post(PATH, &body(logprobs))
        .await
        .with_status(200)
        .json();
    insta::assert_snapshot!(answer["choices"][0]["logprobs"].to_string(), @r#"{"content":[{"token":" ","logprob":-0.5,"bytes":[32],"top_logprobs":[{"token":" ","logprob":-0.5,"bytes":[32]},{"token":"!","logprob":-1.5,"bytes":[33]}]}],"refusal":null}"#);
    server.stop().await;
}

#[tokio::test]
async fn what_is_tokenized_is_what_is_computed() {
    let server = Server::start().await;
    let messages = body(json!({}))["messages"].clone();
    let tokenized = json!({"model": MODEL, "messages": messages});
    let tokenized = server
        .post("/tokenize", &tokenized)
        .await
        .with_status(200)
        .json();
    let answer = server
        .post(PATH, &body(json!({})))
        .await
        .with_status(200)
        .json();
    assert_eq!(tokenized["count"], answer["usage"]["prompt_tokens"]);
    let text = json!({"tokens": tokenized["tokens"]});
    let text = server
        .post("/detokenize", &text)
        .await
        .with_status(200)
        .json();
    assert_eq!(text["prompt"], "system: Be brief.\nuser: Hi\nassistant:");
    let tokenized = json!({"prompt": "ab", "return_token_strs": true});
    let tokenized = server
        .post("/tokenize", &tokenized)
        .await
        .with_status(200)
        .json();
    assert_eq!(
        tokenized.to_string(),
        r#"{"count":2,"max_model_len":2048,"tokens":[97,98],"token_strs":["a","b"]}"#
    );
    server.stop().await;
}
