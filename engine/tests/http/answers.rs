//! `/v1/completions`: its answers, streamed and not.

use serde_json::{Value, json};

use crate::device::SHORT;
use crate::server::{ALIAS, MODEL, Server};

const PATH: &str = "/v1/completions";

fn text_of(events: &[Value], index: usize) -> String {
    let choices = events.iter().filter_map(|event| event["choices"].get(0));
    let own = choices.filter(|choice| choice["index"] == index);
    own.filter_map(|choice| choice["text"].as_str()).collect()
}

#[tokio::test]
async fn an_answer_has_the_form_of_openai() {
    let server = Server::start().await;
    let body = json!({"model": MODEL, "prompt": "Hello", "max_tokens": 5, "temperature": 0});
    let client = server.client().with("x-request-id", "abc");
    let mut answer = client.post(PATH, &body).await.with_status(200).json();
    assert!(answer["created"].as_u64() > Some(1_700_000_000));
    answer["created"] = json!(0);
    insta::assert_snapshot!(answer.to_string(), @r#"{"id":"cmpl-abc","object":"text_completion","created":0,"model":"accounts/test/models/tiny","choices":[{"index":0,"text":"cmfgg","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":5,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":0}}}"#);
    server.stop().await;
}

#[tokio::test]
async fn streamed_text_is_the_text() {
    let server = Server::start().await;
    for extra in [
        json!({}),
        json!({"n": 3, "seed": 7}),
        json!({"stop": ["e", "zz"]}),
        json!({"echo": true}),
        json!({"min_tokens": 20, "stop": "a"}),
        json!({"logprobs": 2, "n": 2, "seed": 1, "echo": true}),
    ] {
        let mut body = json!({"model": ALIAS, "prompt": "Tell me", "max_tokens": 40, "seed": 3});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let whole = server.post(PATH, &body).await.with_status(200).json();
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let events = server.post(PATH, &body).await.with_status(200).events();
        let choices = whole["choices"].as_array().unwrap();
        for (index, choice) in choices.iter().enumerate() {
            assert_eq!(choice["text"], text_of(&events, index), "{extra}");
            let last = events
                .iter()
                .rfind(|event| event["choices"][0]["index"] == index);
            let finish = &last.unwrap()["choices"][0]["finish_reason"];
            assert_eq!(choice["finish_reason"], *finish, "{extra}");
            assert!(finish.is_string());
        }
        let (usage, before) = events.split_last().unwrap();
        // The prompt may be cached the second time.
        assert_eq!(
            usage["usage"]["total_tokens"],
            whole["usage"]["total_tokens"]
        );
        assert!(usage["choices"].as_array().unwrap().is_empty());
        assert!(before.iter().all(|event| event["usage"].is_null()));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_chunk_comes_for_each_token() {
    let server = Server::start().await;
    let body = json!({"model": MODEL, "prompt": "Hello", "max_tokens": 9, "stream": true,
        "stream_options": {"continuous_usage_stats": true}});
    let answer = server.post(PATH, &body).await.with_status(200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let counts: Vec<_> = answer
        .events()
        .iter()
        .map(|event| event["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, (1..=9).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn answers_to_several_prompts_are_in_order() {
    let server = Server::start().await;
    let ask = async |prompt: Value, n: u32| {
        let body = json!({"model": MODEL, "prompt": prompt, "n": n, "temperature": 0});
        server.post(PATH, &body).await.with_status(200).json()
    };
    let alone = [ask(json!("one"), 1).await, ask(json!("two"), 1).await];
    let together = ask(json!(["one", "two"]), 2).await;
    let texts: Vec<_> = together["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["text"])
        .collect();
    let [one, two] = alone.each_ref().map(|answer| &answer["choices"][0]["text"]);
    assert_eq!(texts, [one, one, two, two]);
    assert_eq!(together["usage"]["prompt_tokens"], 6);
    assert_eq!(together["usage"]["completion_tokens"], 64);
    let tokens = ask(json!([[111, 110, 101], [116, 119, 111]]), 2).await;
    assert_eq!(tokens["choices"], together["choices"]);
    server.stop().await;
}

#[tokio::test]
async fn seeds_choose_the_answer() {
    let server = Server::start().await;
    let ask = async |extra: Value| {
        let mut body = json!({"model": MODEL, "prompt": "Hello"});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let answer = server.post(PATH, &body).await.with_status(200).json();
        let choices = answer["choices"].as_array().unwrap();
        choices
            .iter()
            .map(|choice| choice["text"].to_string())
            .collect::<Vec<_>>()
    };
    let two = ask(json!({"seed": 5, "n": 2})).await;
    assert_eq!(ask(json!({"seed": 5, "n": 2})).await, two);
    assert_eq!(ask(json!({"seed": 6})).await, two[1..]);
    assert_ne!(two[0], two[1]);
    assert_ne!(ask(json!({})).await, ask(json!({})).await);
    server.stop().await;
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it() {
    let server = Server::start().await;
    let ask = async |extra: Value| {
        let mut body =
            json!({"model": MODEL, "prompt": "stop", "temperature": 0, "max_tokens": 60});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        server.post(PATH, &body).await.with_status(200).json()
    };
    let whole = ask(json!({})).await;
    let text = whole["choices"][0]["text"].as_str().unwrap();
    let stop = &text[20..23];
    let place = text.find(stop).unwrap();
    let stopped = ask(json!({"stop": ["~~", stop]})).await;
    let choice = &stopped["choices"][0];
    assert_eq!(choice["text"], text[..place]);
    assert_eq!(
        (&choice["finish_reason"], &choice["stop_reason"]),
        (&json!("stop"), &json!(stop))
    );
    // The tokens of the stop string were generated, and no others.
    assert_eq!(stopped["usage"]["completion_tokens"], place + 3);
    let included = ask(json!({"stop": stop, "include_stop_str_in_output": true})).await;
    assert_eq!(included["choices"][0]["text"], text[..place + 3]);
    let token = u32::from(text.as_bytes()[4]);
    let place = text
        .bytes()
        .position(|byte| u32::from(byte) == token)
        .unwrap();
    let by_token = ask(json!({"stop_token_ids": [token]})).await;
    assert_eq!(by_token["choices"][0]["text"], text[..place]);
    assert_eq!(by_token["choices"][0]["stop_reason"], token);
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_the_text_is_obeyed_or_ignored() {
    let server = Server::start().await;
    let ask = async |extra: Value| {
        let mut body = json!({"model": MODEL, "prompt": format!("a{SHORT}"), "max_tokens": 10});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let answer = server.post(PATH, &body).await.with_status(200).json();
        let choice = answer["choices"][0].clone();
        let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap();
        (
            choice["text"].as_str().unwrap().len(),
            choice["finish_reason"].clone(),
            tokens,
        )
    };
    assert_eq!(ask(json!({})).await, (3, json!("stop"), 4));
    assert_eq!(ask(json!({"min_tokens": 6})).await, (6, json!("stop"), 7));
    assert_eq!(
        ask(json!({"ignore_eos": true})).await,
        (3, json!("length"), 10)
    );
    let shown = json!({"ignore_eos": true, "skip_special_tokens": false});
    assert_eq!(
        ask(shown).await,
        (3 + 7 * "<eos>".len(), json!("length"), 10)
    );
    server.stop().await;
}

#[tokio::test]
async fn log_probabilities_are_lists_side_by_side() {
    let server = Server::start().await;
    let body = json!({"model": MODEL, "prompt": "ab", "max_tokens": 2, "temperature": 0,
        "logprobs": 2, "echo": true});
    let answer = server.post(PATH, &body).await.with_status(200).json();
    insta::assert_snapshot!(answer["choices"][0]["logprobs"].to_string(), @r#"{"text_offset":[0,1,2,3],"token_logprobs":[null,-0.5,-0.5,-0.5],"tokens":["a","b","y","w"],"top_logprobs":[null,{"b":-0.5,"c":-1.5},{"y":-0.5,"z":-1.5},{"w":-0.5,"x":-1.5}]}"#);
    let body = json!({"model": MODEL, "prompt": "ab", "max_tokens": 0, "logprobs": 0, "echo": true,
        "return_tokens_as_token_ids": true});
    let answer = server.post(PATH, &body).await.with_status(200).json();
    insta::assert_snapshot!(answer["choices"][0].to_string(), @r#"{"index":0,"text":"ab","logprobs":{"text_offset":[0,11],"token_logprobs":[null,-0.5],"tokens":["token_id:97","token_id:98"],"top_logprobs":[null,{"token_id:98":-0.5}]},"finish_reason":"length"}"#);
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    server.stop().await;
}

#[tokio::test]
async fn tokens_are_returned_if_asked_for() {
    let server = Server::start().await;
    let body = json!({"model": MODEL, "prompt": "ab", "max_tokens": 4, "return_token_ids": true});
    let answer = server.post(PATH, &body).await.with_status(200).json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["prompt_token_ids"], json!([97, 98]));
    let bytes: Vec<u8> = serde_json::from_value(choice["token_ids"].clone()).unwrap();
    assert_eq!(choice["text"], String::from_utf8(bytes).unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_cached_prompt_gives_the_same_answer() {
    let server = Server::start().await;
    let prompt = "a prompt that fills some blocks of the cache ".repeat(4);
    let ask = async |salt: Value| {
        let body = json!({"model": MODEL, "prompt": prompt, "temperature": 0, "cache_salt": salt});
        let answer = server.post(PATH, &body).await.with_status(200).json();
        let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
        (answer["choices"].clone(), cached.as_u64().unwrap())
    };
    let (first, cached) = ask(Value::Null).await;
    assert_eq!(cached, 0);
    let (second, cached) = ask(Value::Null).await;
    assert!(cached >= 160, "{cached}");
    let (third, cached) = ask(json!("of another tenant")).await;
    assert_eq!(cached, 0);
    assert!(first == second && second == third);
    server.stop().await;
}
