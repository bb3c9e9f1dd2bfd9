use proptest::prelude::*;
use serde_json::{Map, json};

use super::super::events::EventStream;
use super::*;

/// Both readings, which have to be one.
#[track_caller]
fn told(json: &str) -> Chunk {
    let read = read(json.as_bytes()).expect("it is JSON");
    assert_eq!(scan(json.as_bytes()), Some(read), "{json}");
    read
}

fn has_output(json: &str) -> bool {
    told(json).has_output
}

fn delta(delta: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#)
}

#[test]
fn a_completion_as_vllm_streams_it_is_output() {
    let json = r#"{"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":" a\"b","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}"#;
    let output = Chunk {
        has_choices: true,
        has_output: true,
        ..Chunk::default()
    };
    assert_eq!(told(json), output);
}

#[test]
fn a_delta_is_output_if_there_is_something_in_it() {
    assert!(has_output(&delta(r#"{"content":"a"}"#)));
    assert!(has_output(&delta(r#"{"reasoning_content":"a"}"#)));
    assert!(has_output(&delta(r#"{"content":null,"reasoning":"a"}"#)));
    assert!(has_output(&delta(r#"{"tool_calls":[{"index":0}]}"#)));
    assert!(!has_output(&delta(r#"{"role":"assistant"}"#)));
    assert!(!has_output(&delta(r#"{"role":"assistant","content":""}"#)));
    assert!(!has_output(&delta(r#"{"content":null,"tool_calls":[ ]}"#)));
    assert!(!has_output(&delta("{}")));
    assert!(!has_output(&delta("null")));
}

#[test]
fn the_last_event_tells_the_tokens() {
    let json = r#"{"choices":[],"usage":{"prompt_tokens":12,"total_tokens":20,"completion_tokens":8,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":4}}}"#;
    let usage = Usage {
        prompt_tokens: 12,
        completion_tokens: 8,
        cached_tokens: Some(4),
    };
    assert_eq!(told(json).usage, Some(usage));
    let without = json.replace(r#"{"audio_tokens":0,"cached_tokens":4}"#, "null");
    assert_eq!(
        told(&without).usage.map(|usage| usage.cached_tokens),
        Some(None)
    );
}

#[test]
fn what_is_finished_says_why() {
    let json = r#"{"choices":[{"text":"","finish_reason":"length"}]}"#;
    assert!(told(json).is_finished && !told(json).has_output);
}

#[test]
fn errors_are_seen_in_all_their_forms() {
    assert!(told(r#"{"error":{"message":"no","code":500}}"#).is_error);
    assert!(told(r#"{"object":"error","message":"no"}"#).is_error);
    assert!(!told(r#"{"error":null,"choices":[]}"#).is_error);
}

#[test]
fn what_the_quick_reading_is_not_sure_of_is_parsed() {
    for json in [
        r#"{"ch\u006fices":[]}"#,
        r#"{"usage":{"prompt_tokens":1.0}}"#,
        r#"{"usage":{"prompt_tokens":99999999999}}"#,
        r#"{"choices":[7]}"#,
    ] {
        assert_eq!(scan(json.as_bytes()), None, "{json}");
        assert!(read(json.as_bytes()).is_some(), "{json}");
    }
}

#[test]
fn what_is_cut_short_is_no_chunk() {
    let json = r#"{"choices":[{"text":"a","x":[{"y":"]"}]}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    for end in 0..json.len() {
        assert_eq!(scan(&json.as_bytes()[..end]), None);
        assert_eq!(read(&json.as_bytes()[..end]), None);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
        Just(json!("")),
        Just(json!("error")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            fields(&["error", "usage", "x y"], inner.boxed()),
        ]
    })
}

/// Texts with what JSON has to escape, and what looks like its structure.
fn text() -> impl Strategy<Value = String> {
    "[a-c\"\\\\{}\\[\\]:, \n\té😀]{0,8}"
}

/// An object with some of these names, each of them at most once.
fn fields(names: &[&'static str], value: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    let names = prop::sample::subsequence(names.to_vec(), 0..=names.len()).prop_shuffle();
    (names, prop::collection::vec(value, names_max()))
        .prop_map(|(names, values)| {
            let names = names.into_iter().map(str::to_owned);
            Value::Object(names.zip(values).collect::<Map<_, _>>())
        })
        .boxed()
}

fn names_max() -> usize {
    8
}

fn chunk() -> impl Strategy<Value = Value> {
    let any = any_json().boxed();
    let count = prop_oneof![4 => (0..5000_u32).prop_map(Value::from), 1 => any_json()];
    let details = fields(&["cached_tokens", "audio_tokens"], count.clone().boxed());
    let tokens = prop_oneof![3 => count, 1 => details].boxed();
    let usage = fields(
        &[
            "prompt_tokens",
            "completion_tokens",
            "prompt_tokens_details",
            "total_tokens",
        ],
        tokens,
    );
    let delta = fields(
        &[
            "role",
            "content",
            "reasoning_content",
            "reasoning",
            "tool_calls",
            "refusal",
        ],
        any.clone(),
    );
    let choice_value = prop_oneof![2 => any.clone(), 2 => delta].boxed();
    let choice = fields(
        &["index", "text", "delta", "finish_reason", "logprobs"],
        choice_value,
    );
    let choices = prop::collection::vec(choice, 0..3).prop_map(Value::from);
    let value = prop_oneof![2 => choices, 2 => usage, 3 => any].boxed();
    fields(
        &["id", "object", "model", "choices", "usage", "error"],
        value,
    )
}

proptest! {
    #[test]
    fn the_quick_reading_is_the_parsers(chunk in chunk(), is_pretty in any::<bool>()) {
        let json = match is_pretty {
            true => serde_json::to_string_pretty(&chunk).unwrap(),
            false => chunk.to_string(),
        };
        let quick = scan(json.as_bytes());
        let slow = read(json.as_bytes());
        prop_assert!(quick.is_none() || quick == slow, "{quick:?} {slow:?} {json}");
    }

    #[test]
    fn a_stream_in_any_pieces_tells_what_the_parser_says_of_its_events(
        chunks in prop::collection::vec(chunk(), 0..6),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let stream: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut told = Vec::new();
        let mut events = EventStream::default();
        for cut in cuts.windows(2) {
            let piece = &stream.as_bytes()[cut[0]..cut[1]];
            let fed = events.feed(piece, |event| {
                told.push(scan(event.data).or_else(|| read(event.data)));
            });
            prop_assert!(fed.is_ok());
        }
        let expected: Vec<_> = chunks.iter().map(|chunk| read(chunk.to_string().as_bytes())).collect();
        prop_assert_eq!(told, expected);
    }

    #[test]
    fn nothing_makes_it_panic_or_disagree(chunk in chunk(), at in any::<usize>(), byte in any::<u8>()) {
        let mut json = chunk.to_string().into_bytes();
        let at = at % json.len();
        json[at] = byte;
        let (quick, slow) = (scan(&json), read(&json));
        prop_assert!(quick.is_none() || slow.is_none() || quick == slow, "{quick:?} {slow:?}");
    }
}
