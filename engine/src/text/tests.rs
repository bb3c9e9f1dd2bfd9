//! What tokenizers promise, held against Hugging Face's library.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixtures::{all, byte_fallback, byte_level, metaspace, read, words, write};
use super::{ChatError, ChatInput, Detokenizer, Message, Tokenizer, TokenizerError};

static ALL: LazyLock<Vec<(&str, Arc<Tokenizer>)>> = LazyLock::new(all);

/// The same files in Hugging Face's library, and ours.
static PAIRS: LazyLock<Vec<(tokenizers::Tokenizer, Arc<Tokenizer>)>> = LazyLock::new(|| {
    let pair = |json: Value| {
        let theirs = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
        (theirs, Arc::new(read(&[("tokenizer.json", &json)])))
    };
    [byte_level(), byte_fallback(), metaspace(), words()]
        .map(pair)
        .into()
});

/// What a client of a stream puts together.
fn streamed(tokenizer: &Arc<Tokenizer>, tokens: &[u32], skip_special: bool) -> String {
    let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer), skip_special);
    let mut text = String::new();
    for &token in tokens {
        text.push_str(&detokenizer.push(token));
    }
    text + &detokenizer.flush()
}

fn any_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just(" the"),
        Just("he"),
        Just(" "),
        Just("  "),
        Just("\n\n"),
        Just("a"),
        Just("ab "),
        Just("é"),
        Just("€"),
        Just("€€"),
        Just("12"),
        Just("你好"),
        Just("👩‍👩‍👧"),
        Just("<0x41>"),
        Just("▁"),
        Just("<tool call>"),
        Just("<s>"),
        Just("."),
        Just("'ll"),
        Just("\r\n"),
        Just("\u{0}"),
    ];
    let words = prop::collection::vec(word, 0..20).prop_map(|words| words.concat());
    prop_oneof![words, any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// No text is lost or made up, and it is split as Hugging Face's library does.
    #[test]
    fn texts_become_tokens_and_come_back(text in any_text(), skip_special: bool, add_special: bool) {
        for (theirs, ours) in PAIRS.iter() {
            let tokens = ours.encode(&text, add_special).unwrap();
            let encoding = theirs.encode(text.as_str(), add_special).unwrap();
            prop_assert_eq!(&tokens, encoding.get_ids());
            let decoded = theirs.decode(&tokens, skip_special).unwrap();
            prop_assert_eq!(ours.decode(&tokens, skip_special), decoded);
        }
        let bytes = &ALL.last().unwrap().1;
        prop_assert_eq!(bytes.decode(&bytes.encode(&text, add_special).unwrap(), skip_special), text);
    }

    /// Whatever tokens a model chooses, whole characters are streamed, and what is streamed is the text.
    #[test]
    fn streams_are_texts(numbers in prop::collection::vec(any::<prop::sample::Index>(), 0..40), skip_special: bool) {
        for (name, tokenizer) in ALL.iter() {
            // A few more than there are: embeddings are often padded.
            let tokens: Vec<u32> = numbers.iter().map(|number| number.index(tokenizer.vocab_size() + 3) as u32).collect();
            let text = streamed(tokenizer, &tokens, skip_special);
            prop_assert_eq!(&text, &tokenizer.decode(&tokens, skip_special), "{}", name);
            let kept = |token: &&u32| !(skip_special && tokenizer.is_special(**token));
            let mut bytes = Vec::new();
            for (place, &token) in tokens.iter().filter(kept).enumerate() {
                bytes.extend(tokenizer.token_bytes(token, place == 0));
            }
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes), "{}", name);
        }
    }

    /// The same against the library: byte-level vocabularies are equal on any tokens, the others on those that are text.
    #[test]
    fn random_tokens_read_as_in_the_library(numbers in prop::collection::vec(any::<prop::sample::Index>(), 0..40), skip_special: bool) {
        for (theirs, ours) in PAIRS.iter() {
            let tokens: Vec<u32> = numbers.iter().map(|number| number.index(ours.vocab_size()) as u32).collect();
            let decoded = theirs.decode(&tokens, skip_special).unwrap();
            let text = ours.decode(&tokens, skip_special);
            let well_formed = !decoded.contains(char::REPLACEMENT_CHARACTER);
            let is_byte_level = theirs.token_to_id("<|begin|>").is_some();
            if well_formed || is_byte_level {
                prop_assert_eq!(text, decoded);
            }
        }
    }

    /// What is streamed after a prompt goes on where the prompt ends.
    #[test]
    fn a_text_goes_on_after_its_prompt(text in any_text(), cut in any::<prop::sample::Index>()) {
        for (name, tokenizer) in ALL.iter() {
            let tokens = tokenizer.encode(&text, false).unwrap();
            let (prompt, output) = tokens.split_at(cut.index(tokens.len() + 1));
            let before = tokenizer.decode(prompt, false);
            // A prompt that ends within a character leaves nothing whole to go on with.
            if prompt.is_empty() || before.ends_with(char::REPLACEMENT_CHARACTER) {
                continue;
            }
            let mut detokenizer = Detokenizer::after_prompt(Arc::clone(tokenizer), false);
            let mut after: String = output.iter().map(|&token| detokenizer.push(token)).collect();
            after.push_str(&detokenizer.flush());
            prop_assert_eq!(before + &after, tokenizer.decode(&tokens, false), "{}", name);
        }
    }

    #[test]
    fn no_file_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), place in any::<prop::sample::Index>(), cut: bool) {
        let folder = tempfile::tempdir().unwrap();
        let mut file = byte_fallback().to_string().into_bytes();
        let place = place.index(file.len());
        if cut {
            file.truncate(place);
        }
        file.splice(place.min(file.len()).saturating_sub(bytes.len())..place.min(file.len()), bytes);
        fs::write(folder.path().join("tokenizer.json"), file).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_folder(folder.path()) {
            drop(tokenizer.encode("a b é 你", true));
        }
    }
}

#[test]
fn characters_wait_until_they_are_whole() {
    let tokenizer = Arc::new(Tokenizer::bytes());
    let mut detokenizer = Detokenizer::new(tokenizer, true);
    let mut push = |bytes: &[u32]| {
        bytes
            .iter()
            .map(|&byte| detokenizer.push(byte))
            .collect::<Vec<_>>()
    };
    assert_eq!(push(&[0x61, 0xe2, 0x82, 0xac]), ["a", "", "", "€"]);
    // A lead byte, and then none that goes on with it.
    assert_eq!(push(&[0xe2, 0x61, 0xff]), ["", "\u{fffd}a", "\u{fffd}"]);
    assert_eq!(push(&[0xf0, 0x9f]), ["", ""]);
    assert_eq!(detokenizer.flush(), "\u{fffd}");
    assert_eq!(detokenizer.flush(), "");
}

#[test]
fn spaces_are_kept_where_they_belong() {
    let tokenizer = Arc::new(read(&[("tokenizer.json", &byte_fallback())]));
    let tokens = tokenizer.encode("ab ab", false).unwrap();
    assert_eq!(tokenizer.decode(&tokens, true), "ab ab");
    let mut after = Detokenizer::after_prompt(Arc::clone(&tokenizer), true);
    assert_eq!(after.push(tokens[0]), " ab");
    assert_eq!(tokenizer.token_text(tokens[0]), " ab");
}

#[test]
fn every_number_has_a_text_in_the_byte_tokenizer() {
    let tokenizer = Arc::new(Tokenizer::bytes());
    for token in (0..1000).chain([128_255, u32::MAX]) {
        assert!(!tokenizer.token_text(token).is_empty());
        assert!(!tokenizer.decode(&[token], false).is_empty());
    }
    assert_eq!(
        tokenizer.decode(&[104, 105, 300, 257], false),
        "hi<300><eos>"
    );
    assert_eq!(tokenizer.decode(&[104, 105, 300, 257], true), "hi<300>");
}

#[test]
fn special_tokens_are_those_of_the_configuration() {
    let config = json!({
        "bos_token": {"content": "<|begin|>", "lstrip": false},
        "eos_token": "<|end|>",
        "add_bos_token": true, "add_eos_token": true,
    });
    let files = [
        ("tokenizer.json", &byte_level()),
        ("tokenizer_config.json", &config),
    ];
    let tokenizer = read(&files);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(264), Some(265)));
    assert_eq!(tokenizer.encode("he", true).unwrap(), [264, 257, 265]);
    assert_eq!(tokenizer.encode("<|end|>he", false).unwrap(), [265, 257]);
    let without = json!({"bos_token": "<|begin|>", "add_bos_token": false});
    let tokenizer = read(&[
        ("tokenizer.json", &byte_level()),
        ("tokenizer_config.json", &without),
    ]);
    assert_eq!(tokenizer.encode("he", true).unwrap(), [257]);
    let unknown = json!({"bos_token": "<nowhere>", "add_bos_token": true});
    let tokenizer = read(&[
        ("tokenizer.json", &words()),
        ("tokenizer_config.json", &unknown),
    ]);
    assert_eq!(
        (tokenizer.bos(), tokenizer.encode("a", true).unwrap()),
        (None, vec![1])
    );
}

#[test]
fn nothing_is_cut_or_padded() {
    let mut file = words();
    file["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]",
    });
    let tokenizer = read(&[("tokenizer.json", &file)]);
    assert_eq!(tokenizer.encode("a b a b", false).unwrap(), [1, 2, 1, 2]);
}

#[test]
fn the_vocabulary_must_fit_the_model() {
    let tokenizer = read(&[("tokenizer.json", &words())]);
    assert_eq!(tokenizer.vocab_size(), 6);
    assert_eq!(tokenizer.check_vocabulary(6), Ok(()));
    assert_eq!(tokenizer.check_vocabulary(64), Ok(()));
    let error = tokenizer.check_vocabulary(5).unwrap_err().to_string();
    let end = "tokenizer.json: has tokens up to 5, and the model has a vocabulary of 5; they are not of the same model";
    assert!(error.ends_with(end), "{error}");
    assert_eq!(Tokenizer::bytes().check_vocabulary(256), Ok(()));
    assert!(Tokenizer::bytes().check_vocabulary(255).is_err());
}

/// The message of a folder that is refused, without the folder.
fn refused(files: &[(&str, &Value)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    let error = Tokenizer::from_folder(folder.path())
        .unwrap_err()
        .to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn what_is_wrong_with_a_folder_is_said_with_the_file() {
    let mut ctc = words();
    ctc["decoder"] =
        json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true});
    let messages = [
        refused(&[("tokenizer.json", &ctc)]),
        refused(&[
            ("tokenizer.json", &words()),
            (
                "tokenizer_config.json",
                &json!({"chat_template": "{% if %}"}),
            ),
        ]),
        refused(&[
            ("tokenizer.json", &words()),
            ("tokenizer_config.json", &json!({"bos_token": 1})),
        ]),
        refused(&[("tokenizer.json", &json!({}))]),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    tokenizer.json: decoder CTC is not understood
    tokenizer_config.json: the chat template failed: syntax error: unexpected end of block (in tokenizer_config.json:1)
    tokenizer_config.json: a special token must be a string, or an object with content at line 1 column 15
    tokenizer.json: Model missing. at line 1 column 2
    ");
    let missing = Tokenizer::from_folder(Path::new("/nonexistent")).unwrap_err();
    assert!(
        matches!(missing, TokenizerError::Unreadable { path, .. } if path.ends_with("tokenizer.json"))
    );
}

fn chat(tokenizer: &Tokenizer) -> Result<String, ChatError> {
    let message = |role: &str, content: &str| Message {
        role: role.into(),
        content: content.into(),
        other: serde_json::Map::new(),
    };
    let messages = [message("system", "Be kind."), message("user", "Hello!")];
    let variables = serde_json::Map::new();
    tokenizer.render_chat(&ChatInput {
        messages: &messages,
        add_generation_prompt: true,
        variables: &variables,
        now: std::time::UNIX_EPOCH,
    })
}

#[test]
fn models_without_a_chat_template_say_what_to_do() {
    let tokenizer = read(&[("tokenizer.json", &words())]);
    let error = chat(&tokenizer).unwrap_err();
    assert!(
        error.to_string().contains("--chat-template FILE"),
        "{error}"
    );
    assert!(error.is_of_request());
    assert_eq!(
        chat(&Tokenizer::bytes()).as_deref(),
        Ok("system: Be kind.\nuser: Hello!\nassistant:")
    );
}

#[test]
fn chat_templates_are_found_where_they_may_be() {
    let one = json!({"chat_template": "one{{ eos_token }}", "eos_token": "</s>"});
    let named = json!({"chat_template": [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "named"},
    ]});
    let folder = tempfile::tempdir().unwrap();
    let text = || chat(&Tokenizer::from_folder(folder.path()).unwrap()).unwrap();
    write(
        folder.path(),
        &[
            ("tokenizer.json", &words()),
            ("tokenizer_config.json", &one),
        ],
    );
    assert_eq!(text(), "one</s>");
    write(folder.path(), &[("tokenizer_config.json", &named)]);
    assert_eq!(text(), "named");
    fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(text(), "file");
    let given = folder.path().join("given");
    fs::write(&given, "given").unwrap();
    let mut tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    tokenizer.set_chat_template(&given).unwrap();
    assert_eq!(chat(&tokenizer).as_deref(), Ok("given"));
}
