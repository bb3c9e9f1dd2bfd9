//! Tokens to text, one token at a time.

use std::sync::Arc;

use super::tokenizer::Tokenizer;

/// Turns tokens into text as they come. What it has returned never changes,
/// and is always whole characters: a token that ends within one has to wait
/// for the next.
///
/// This is the streaming of Hugging Face's text-generation-inference and of
/// vLLM without decoding anything twice, as each token has bytes of its own.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    /// Whether nothing was before the next token.
    first: bool,
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// For a text that begins with the first token. Special tokens are left
    /// out if `skip_special`.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            first: true,
            pending: Vec::new(),
        }
    }

    /// For a text that goes on after a prompt: the space that its first token may begin with is part of it.
    #[must_use]
    pub fn after_prompt(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        Self {
            first: false,
            ..Self::new(tokenizer, skip_special)
        }
    }

    /// What the next token adds to the text; nothing if it ends within a character.
    pub fn push(&mut self, token: u32) -> String {
        if self.skip_special && self.tokenizer.is_special(token) {
            return String::new();
        }
        let bytes = self.tokenizer.token_bytes(token, self.first);
        self.first = false;
        self.pending.extend_from_slice(&bytes);
        self.take_complete()
    }

    /// What is left at the end: U+FFFD if the text ends within a character.
    pub fn flush(&mut self) -> String {
        let left = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        left
    }

    /// Takes what is certain: characters, and U+FFFD for what cannot become one.
    fn take_complete(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            rest = after;
            let Some(wrong) = error.error_len() else {
                break;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[wrong..];
        }
        self.pending = rest.to_vec();
        text
    }
}
