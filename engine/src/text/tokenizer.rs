//! One tokenizer, whatever it was read from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chat::{ChatError, ChatInput, ChatTemplate};
use super::detokenizer::Detokenizer;
use super::error::{EncodeError, TokenizerError};
use super::folder;
use super::hugging_face::HuggingFace;

/// Turns text into tokens and back.
///
/// Texts are not limited in length here: encoding takes time and memory in
/// proportion to the text, and a server limits its bodies.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    /// What is put around a text that is encoded with special tokens.
    frame: Frame,
    bos: Option<Special>,
    eos: Option<Special>,
    template: Option<ChatTemplate>,
    /// What messages call it.
    path: PathBuf,
}

#[derive(Debug)]
enum Vocabulary {
    /// A token for each byte.
    Bytes,
    HuggingFace(Box<HuggingFace>),
}

/// Tokens put around a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

/// A special token with a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Special {
    /// As templates write it.
    pub(super) text: String,
    /// Its number, if the vocabulary has it.
    pub(super) token: Option<u32>,
}

/// What a folder says of its tokenizer.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) hugging_face: HuggingFace,
    pub(super) frame: Frame,
    pub(super) bos: Option<Special>,
    pub(super) eos: Option<Special>,
    pub(super) template: Option<ChatTemplate>,
    pub(super) path: PathBuf,
}

/// The template of models that have none of their own.
const PLAIN_TEMPLATE: &str = "\
{%- for message in messages -%}
{{ message.role }}: {{ message.content }}
{% endfor -%}
{%- if add_generation_prompt -%}assistant:{%- endif -%}";

impl Tokenizer {
    /// The beginning of a text, of [`Tokenizer::bytes`].
    pub const BYTES_BOS: u32 = 256;
    /// The end of a text, of [`Tokenizer::bytes`].
    pub const BYTES_EOS: u32 = 257;

    /// A tokenizer that needs no file, for models with random weights.
    ///
    /// Tokens 0 to 255 are the bytes of UTF-8, 256 begins a text and 257 ends
    /// it; encoding adds neither. As such models have vocabularies of any size
    /// and choose any token, token `n` from 258 on reads `<n>`: each has a
    /// text, so that a client that waits for text sees one. A byte of a longer
    /// character has its text when the character is complete, or can no longer be.
    #[must_use]
    pub fn bytes() -> Self {
        let special = |text: &str, token| {
            Some(Special {
                text: text.into(),
                token: Some(token),
            })
        };
        let template = ChatTemplate::new("the built-in chat template", PLAIN_TEMPLATE);
        Self {
            vocabulary: Vocabulary::Bytes,
            frame: Frame::default(),
            bos: special("<bos>", Self::BYTES_BOS),
            eos: special("<eos>", Self::BYTES_EOS),
            template: Some(template.expect("the built-in template is one")),
            path: PathBuf::from("the byte tokenizer"),
        }
    }

    /// The tokenizer of a Hugging Face folder: `tokenizer.json`, and, where
    /// there are, `tokenizer_config.json` and `chat_template.jinja`.
    ///
    /// # Errors
    /// If a file cannot be read or understood; it is named.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        let Parts {
            hugging_face,
            frame,
            bos,
            eos,
            template,
            path,
        } = folder::read(folder)?;
        Ok(Self {
            vocabulary: Vocabulary::HuggingFace(Box::new(hugging_face)),
            frame,
            bos,
            eos,
            template,
            path,
        })
    }

    /// Replaces the chat template by that of a file.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a template.
    pub fn set_chat_template(&mut self, file: &Path) -> Result<(), TokenizerError> {
        self.template = Some(folder::read_template(file)?);
        Ok(())
    }

    /// The tokens of a text. Special tokens that are spelled out in it become
    /// those tokens, as with Hugging Face and vLLM; `add_special` puts those
    /// around it that the model expects, such as its beginning.
    ///
    /// # Errors
    /// If the tokenizer's model has no tokens for it.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, EncodeError> {
        let mut tokens = match &self.vocabulary {
            Vocabulary::Bytes => text.bytes().map(u32::from).collect(),
            Vocabulary::HuggingFace(tokenizer) => tokenizer.encode(text)?,
        };
        if add_special {
            tokens.splice(0..0, self.frame.before.iter().copied());
            tokens.extend_from_slice(&self.frame.after);
        }
        Ok(tokens)
    }

    /// The text of tokens. Bytes that are not UTF-8 are replaced by U+FFFD, as
    /// `String::from_utf8_lossy` does; numbers that are no tokens have no text.
    #[must_use]
    pub fn decode(self: &Arc<Self>, tokens: &[u32], skip_special: bool) -> String {
        let mut detokenizer = Detokenizer::new(Arc::clone(self), skip_special);
        let mut text: String = tokens
            .iter()
            .map(|&token| detokenizer.push(token))
            .collect();
        text.push_str(&detokenizer.flush());
        text
    }

    /// The bytes that a token adds to a text; `first` if no token is before
    /// it, where some tokenizers leave out a space. They need not be UTF-8.
    #[must_use]
    pub fn token_bytes(&self, token: u32, first: bool) -> Vec<u8> {
        match &self.vocabulary {
            Vocabulary::Bytes => match u8::try_from(token) {
                Ok(byte) => vec![byte],
                Err(_) => self.byte_tokenizer_text(token).into_bytes(),
            },
            Vocabulary::HuggingFace(tokenizer) => tokenizer.token_bytes(token, first),
        }
    }

    fn byte_tokenizer_text(&self, token: u32) -> String {
        let specials = [&self.bos, &self.eos].into_iter().flatten();
        let mut named = specials.filter(|special| special.token == Some(token));
        named
            .next()
            .map_or_else(|| format!("<{token}>"), |special| special.text.clone())
    }

    /// A token as text on its own, with U+FFFD for what is not UTF-8.
    #[must_use]
    pub fn token_text(&self, token: u32) -> String {
        String::from_utf8_lossy(&self.token_bytes(token, false)).into_owned()
    }

    /// Whether a token is a mark rather than text.
    #[must_use]
    pub fn is_special(&self, token: u32) -> bool {
        match &self.vocabulary {
            Vocabulary::Bytes => token == Self::BYTES_BOS || token == Self::BYTES_EOS,
            Vocabulary::HuggingFace(tokenizer) => tokenizer.is_special(token),
        }
    }

    /// The token that begins a text, if there is one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos.as_ref()?.token
    }

    /// The token that ends a text, if there is one.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos.as_ref()?.token
    }

    /// Tokens there are, those that were added included: one more than the largest.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        match &self.vocabulary {
            Vocabulary::Bytes => Self::BYTES_EOS as usize + 1,
            Vocabulary::HuggingFace(tokenizer) => tokenizer.vocab_size(),
        }
    }

    /// Checks that a model with so many tokens has all that a text can become.
    /// A model may have more: embeddings are often padded.
    ///
    /// # Errors
    /// If it does not; the tokenizer's file is named.
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<(), TokenizerError> {
        let needed = match &self.vocabulary {
            // Its special tokens are never encoded.
            Vocabulary::Bytes => 256,
            Vocabulary::HuggingFace(tokenizer) => tokenizer.vocab_size(),
        };
        if needed > vocab_size {
            return Err(TokenizerError::LargerThanModel {
                path: self.path.clone(),
                token: needed as u32 - 1,
                vocab_size,
            });
        }
        Ok(())
    }

    /// Messages as the text that the model was trained to answer. It has all
    /// special tokens that it needs: encode it without adding any.
    ///
    /// # Errors
    /// If there is no chat template, or it fails or refuses.
    pub fn render_chat(&self, input: &ChatInput<'_>) -> Result<String, ChatError> {
        let template = self.template.as_ref().ok_or(ChatError::NoTemplate)?;
        let text = |special: &Option<Special>| special.as_ref().map(|special| special.text.clone());
        template.render(
            input,
            text(&self.bos).as_deref(),
            text(&self.eos).as_deref(),
        )
    }
}
