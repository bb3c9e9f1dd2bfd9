//! Templates as models have them, rendered as Hugging Face transformers does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{ChatError, ChatInput, ChatTemplate, parse_messages};

/// The moment that `templates/render.py` has.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_599)
}

fn render(template: &str, conversation: &Value) -> Result<String, ChatError> {
    let messages = parse_messages(&conversation["messages"]).expect("the messages are valid");
    let none = Map::new();
    let input = ChatInput {
        messages: &messages,
        add_generation_prompt: conversation["add_generation_prompt"] == true,
        variables: conversation["variables"].as_object().unwrap_or(&none),
        now: now(),
    };
    let template = ChatTemplate::new("a template", template)?;
    template.render(&input, Some("<s>"), Some("</s>"))
}

/// Renders for one message of a user.
fn render_one(template: &str) -> Result<String, ChatError> {
    render(
        template,
        &json!({"messages": [{"role": "user", "content": "hello"}]}),
    )
}

/// Every template and conversation of `templates/`, against what transformers made of them.
#[test]
fn templates_are_rendered_as_transformers_does() {
    let sources = [
        ("chatml", include_str!("templates/chatml.jinja")),
        ("llama3", include_str!("templates/llama3.jinja")),
        ("mistral", include_str!("templates/mistral.jinja")),
        (
            "odds_and_ends",
            include_str!("templates/odds_and_ends.jinja"),
        ),
        ("qwen2", include_str!("templates/qwen2.jinja")),
        ("qwen3", include_str!("templates/qwen3.jinja")),
    ];
    let parse = |text| serde_json::from_str::<Map<String, Value>>(text).unwrap();
    let conversations = parse(include_str!("templates/conversations.json"));
    let rendered = parse(include_str!("templates/rendered.json"));
    assert_eq!(
        rendered.keys().collect::<Vec<_>>(),
        sources.each_ref().map(|source| source.0)
    );
    for (template, source) in sources {
        for (name, conversation) in &conversations {
            let expected = &rendered[template][name];
            match render(source, conversation) {
                Ok(text) => assert_eq!(text, expected["text"], "{template}, {name}"),
                Err(ChatError::Refused(words)) => {
                    assert_eq!(words, expected["refused"], "{template}, {name}");
                }
                Err(other) => panic!("{template}, {name}: {other}"),
            }
        }
    }
}

#[test]
fn a_refusal_has_the_words_of_the_template() {
    let template = "{% macro refuse(role) %}{{ raise_exception('no ' + role + ', please') }}{% endmacro %}\
                    {% for message in messages %}{{ refuse(message.role) }}{% endfor %}";
    let error = render_one(template).unwrap_err();
    assert_eq!(error, ChatError::Refused("no user, please".into()));
    assert!(error.is_of_request());
}

#[test]
fn a_template_that_fails_is_not_the_fault_of_the_request() {
    for template in [
        "{{ messages[0].nothing.at_all }}",
        "{{ messages | no_such_filter }}",
        "{{ strftime_now('%Q') }}",
        "{{ messages | tojson(indent=1000000000) }}",
    ] {
        let error = render_one(template).unwrap_err();
        assert!(matches!(error, ChatError::Failed(_)), "{error:?}");
        assert!(!error.is_of_request());
    }
    assert!(matches!(
        ChatTemplate::new("a template", "{% if %}"),
        Err(ChatError::Failed(_))
    ));
}

#[test]
fn messages_that_a_sound_template_fails_on_are_the_fault_of_the_request() {
    let llama = include_str!("templates/llama3.jinja");
    let call =
        |tool_calls: Value| json!({"messages": [{"role": "assistant", "tool_calls": tool_calls}]});
    let error = render(llama, &call(json!(["what"]))).unwrap_err();
    assert!(matches!(error, ChatError::Unsuitable(_)), "{error:?}");
    assert!(error.is_of_request());
    let error = render(llama, &call(json!([]))).unwrap_err();
    let words = "This model only supports single tool-calls at once!";
    assert_eq!(error, ChatError::Refused(words.into()));
}

#[test]
fn a_template_that_does_not_end_is_stopped() {
    let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}\
                 {% endfor %}{% endfor %}{% endfor %}";
    assert_eq!(render_one(loops), Err(ChatError::TooMuchWork));
    let recursion = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
    assert!(matches!(render_one(recursion), Err(ChatError::Failed(_))));
}

#[test]
fn what_is_not_set_is_not_defined() {
    let messages = parse_messages(&json!([{"role": "user", "content": "hello"}])).unwrap();
    let variables = json!({"messages": "other", "thinking": true});
    let input = ChatInput {
        messages: &messages,
        add_generation_prompt: false,
        variables: variables.as_object().unwrap(),
        now: now(),
    };
    let source = "{{ bos_token is defined }} {{ eos_token }} {{ tools is none }} {{ thinking }} {{ messages[0].content }}";
    let template = ChatTemplate::new("a template", source).unwrap();
    let text = template.render(&input, None, Some("</s>"));
    assert_eq!(text.as_deref(), Ok("False </s> True True hello"));
}

#[test]
fn what_a_user_writes_is_not_a_template() {
    let conversation = json!({"messages": [{"role": "user", "content": "{{ 1 + 1 }}{% raise %}"}]});
    let text = render("{{ messages[0].content }}", &conversation);
    assert_eq!(text.as_deref(), Ok("{{ 1 + 1 }}{% raise %}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_template_panics(pieces in prop::collection::vec(
        prop_oneof![
            Just("{%"), Just("%}"), Just("{{"), Just("}}"), Just("{#"), Just("generation"), Just("if "),
            Just("for x in messages"), Just("endfor"), Just("endif"), Just("macro f()"), Just("| tojson"),
            Just("messages"), Just("[::-1]"), Just("-"), Just("'"), Just("é"), Just("\n"), Just("1"), Just("("), Just(")"),
        ],
        0..30,
    )) {
        // Whatever it is, it is text or an error.
        drop(render_one(&pieces.concat()));
    }

    #[test]
    fn no_content_breaks_a_template(role in "\\PC{1,8}", content in "\\PC{0,40}") {
        let conversation = json!({"messages": [{"role": role, "content": content}]});
        let text = render(include_str!("templates/chatml.jinja"), &conversation).unwrap();
        prop_assert_eq!(text, format!("<|im_start|>{role}\n{content}<|im_end|>\n"));
    }
}
