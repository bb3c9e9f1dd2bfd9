//! The model's tokenizer, as the bodies of requests need it.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use foresail_engine::text::{ChatInput, Tokenizer, parse_messages};
use foresail_loadgen::bodies::{BYTES_PER_TOKEN, Counting, Form, Frame, TokenCounter};
use serde_json::{Map, json};

use super::arguments::PromptArguments;
use crate::failure::Failure;

/// What names the tokenizer of random and emulated models. A folder of this name is `./bytes`.
const BYTES: &str = "bytes";

/// A word that no chat template has of its own.
const MARK: &str = "foresailforesail";

/// How tokens of prompts are counted.
pub(crate) fn counting(arguments: &PromptArguments) -> Result<Counting, Failure> {
    let Some(folder) = &arguments.tokenizer else {
        let bytes_per_token = arguments.bytes_per_token.unwrap_or(BYTES_PER_TOKEN);
        return Ok(Counting::Bytes { bytes_per_token });
    };
    let tokenizer = match folder.as_path() == Path::new(BYTES) {
        true => Tokenizer::bytes(),
        false => Tokenizer::from_folder(folder).map_err(|error| {
            Failure::Input(format!(
                "--tokenizer: {error}; name a folder that has the model's tokenizer.json, or `{BYTES}`"
            ))
        })?,
    };
    Ok(Counting::Exact(Arc::new(Counter::new(tokenizer))))
}

/// A tokenizer, and what endpoints add around a text.
struct Counter {
    tokenizer: Arc<Tokenizer>,
    completions: Frame,
    chat: Frame,
}

impl Counter {
    fn new(tokenizer: Tokenizer) -> Self {
        Self {
            completions: of_completions(&tokenizer),
            chat: of_chat(&tokenizer).unwrap_or_default(),
            tokenizer: Arc::new(tokenizer),
        }
    }
}

impl TokenCounter for Counter {
    fn encode(&self, text: &str) -> Option<Vec<u32>> {
        self.tokenizer.encode(text, false).ok()
    }

    fn decode(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens, true)
    }

    fn vocabulary_size(&self) -> u32 {
        u32::try_from(self.tokenizer.vocab_size()).unwrap_or(u32::MAX)
    }

    fn frame(&self, form: Form) -> Frame {
        match form {
            Form::Completions => self.completions,
            Form::Chat => self.chat,
        }
    }
}

/// The special tokens around a text. An empty one has nothing else.
fn of_completions(tokenizer: &Tokenizer) -> Frame {
    let bare = tokenizer.encode(MARK, false).unwrap_or_default();
    let framed = tokenizer.encode(MARK, true).unwrap_or_default();
    let before = framed
        .windows(bare.len().max(1))
        .position(|tokens| tokens == bare)
        .unwrap_or(0);
    let after = framed.len().saturating_sub(before + bare.len());
    Frame {
        before: before as u32,
        after: after as u32,
    }
}

/// The tokens of the chat template around what a user says; `None` if there is no template, or it fails.
fn of_chat(tokenizer: &Tokenizer) -> Option<Frame> {
    let messages = json!([{"role": "user", "content": MARK}]);
    let messages = parse_messages(&messages).ok()?;
    let rendered = tokenizer.render_chat(&ChatInput {
        messages: &messages,
        add_generation_prompt: true,
        variables: &Map::new(),
        now: SystemTime::now(),
    });
    let rendered = rendered.ok()?;
    let (before, after) = rendered.split_once(MARK)?;
    let count = |text: &str| Some(tokenizer.encode(text, false).ok()?.len() as u32);
    Some(Frame {
        before: count(before)?,
        after: count(after)?,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn golden() -> Tokenizer {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/engine/goldens/llama");
        Tokenizer::from_folder(&PathBuf::from(folder)).unwrap()
    }

    #[test]
    fn what_an_endpoint_adds_is_known() {
        let bytes = Counter::new(Tokenizer::bytes());
        assert_eq!(bytes.frame(Form::Completions), Frame::default());
        assert!(bytes.frame(Form::Chat).before > 0);
        let llama = Counter::new(golden());
        let framed = llama.tokenizer.encode("A text", true).unwrap().len();
        let bare = llama.encode("A text").unwrap().len();
        let Frame { before, after } = llama.frame(Form::Completions);
        assert_eq!(framed, bare + (before + after) as usize);
        let text = llama.frame(Form::Chat);
        assert!(text.before > 0 && text.after > 0, "{text:?}");
    }

    #[test]
    fn a_folder_without_a_tokenizer_says_what_to_name() {
        let of = |folder: &str| {
            counting(&PromptArguments {
                tokenizer: Some(PathBuf::from(folder)),
                ..PromptArguments::default()
            })
        };
        let error = of("nowhere").unwrap_err().to_string();
        assert!(
            error.contains("nowhere") && error.contains("tokenizer.json"),
            "{error}"
        );
        assert!(of("bytes").unwrap().is_exact());
    }
}
