//! Hugging Face's `tokenizer.json`, through their own library.
//!
//! That library decodes whole sequences. Here every token has bytes of its
//! own, and a text is those bytes in a row, which is what makes streaming
//! exact. The bytes of a token are found by the file's own decoder:
//!
//! - byte-level vocabularies (GPT-2's, Llama 3's, Qwen's) spell bytes with one
//!   character each;
//! - `<0xNN>` tokens of a decoder with byte fallback (Llama 2's, Mistral's) are that byte;
//! - any other token is what it adds when it is decoded after another one, so
//!   that it keeps the space it begins with, or what it is alone.
//!
//! For text that is valid UTF-8 this is what the library says. Where it is not,
//! the library replaces each of a run of `<0xNN>` tokens, even those of complete
//! characters, by U+FFFD, which cannot be known until the run ends; here it is
//! one U+FFFD for each ill-formed sequence, as for byte-level vocabularies.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;
use tokenizers::{Decoder, Tokenizer};

use super::error::{EncodeError, TokenizerError};

/// What tokens are decoded after, to see what they are in the middle of a text.
const ANCHOR: &str = "a";

#[derive(Debug)]
pub(super) struct HuggingFace {
    tokenizer: Tokenizer,
    spelling: Spelling,
    vocab_size: usize,
}

/// How tokens spell bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// One character a byte.
    ByteLevel,
    /// `<0xNN>`, and text.
    ByteFallback,
    /// Text.
    Text,
}

impl HuggingFace {
    /// From the bytes of a file, of which `path` is the name.
    pub(super) fn new(bytes: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        let invalid = |reason: String| TokenizerError::Invalid {
            path: path.to_owned(),
            reason,
        };
        let json: Value =
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let spelling =
            spelling(&json["decoder"]).map_err(|decoder| TokenizerError::UnknownDecoder {
                path: path.to_owned(),
                decoder,
            })?;
        // The library has places where a file that is not what it expects is a panic.
        let read = catch_unwind(|| Tokenizer::from_bytes(bytes));
        let mut tokenizer = read
            .map_err(|_| invalid("is not a tokenizer".to_owned()))?
            .map_err(|error| invalid(error.to_string()))?;
        // What is too long is refused, not cut, and nothing is padded.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| invalid(error.to_string()))?;
        let largest = tokenizer.get_vocab(true).into_values().max();
        let vocab_size = largest.map_or(0, |token| token as usize + 1);
        Ok(Self {
            tokenizer,
            spelling,
            vocab_size,
        })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The tokens of a text, with nothing around it.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        self.encode_raw(text, false)
    }

    /// The same, with what the file puts around a text.
    pub(super) fn encode_framed(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        self.encode_raw(text, true)
    }

    fn encode_raw(&self, text: &str, add_special: bool) -> Result<Vec<u32>, EncodeError> {
        // A text from outside must not end a thread, whatever the library does with it.
        let encoded = catch_unwind(AssertUnwindSafe(|| {
            self.tokenizer.encode_fast(text, add_special)
        }));
        let encoding = encoded
            .map_err(|_| EncodeError("the tokenizer failed".to_owned()))?
            .map_err(|error| EncodeError(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(super) fn token(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text)
    }

    pub(super) fn is_special(&self, token: u32) -> bool {
        let text = self.tokenizer.id_to_token(token);
        text.is_some_and(|text| {
            self.tokenizer
                .get_added_vocabulary()
                .is_special_token(&text)
        })
    }

    pub(super) fn token_bytes(&self, token: u32, first: bool) -> Vec<u8> {
        let Some(text) = self.tokenizer.id_to_token(token) else {
            return Vec::new();
        };
        match self.spelling {
            Spelling::ByteLevel => byte_level(&text),
            Spelling::ByteFallback => match byte_of(&text) {
                // A space at the beginning of a text may be one that the decoder leaves out.
                Some(byte) if !(first && byte.is_ascii()) => vec![byte],
                _ => self.decoded(text, first),
            },
            Spelling::Text => self.decoded(text, first),
        }
    }

    /// What the file's decoder makes of a token.
    fn decoded(&self, text: String, first: bool) -> Vec<u8> {
        let alone = |text: String| self.join(vec![text]).into_bytes();
        if first {
            return alone(text);
        }
        let both = self.join(vec![ANCHOR.to_owned(), text.clone()]);
        match both.strip_prefix(ANCHOR) {
            Some(added) => added.as_bytes().to_vec(),
            None => alone(text),
        }
    }

    fn join(&self, tokens: Vec<String>) -> String {
        match self.tokenizer.get_decoder() {
            // A decoder that refuses a token has none of its own for it: it stays as it is.
            Some(decoder) => decoder
                .decode(tokens.clone())
                .unwrap_or_else(|_| tokens.concat()),
            // As the library does without a decoder (`TokenizerImpl::decode`).
            None => tokens.join(" "),
        }
    }
}

/// How a decoder spells, or the name of one that looks at more than a token and whether it is the first.
fn spelling(decoder: &Value) -> Result<Spelling, String> {
    let kind = decoder["type"].as_str().unwrap_or_default();
    match kind {
        "ByteLevel" => Ok(Spelling::ByteLevel),
        "ByteFallback" => Ok(Spelling::ByteFallback),
        "Sequence" => sequence(decoder["decoders"].as_array().map_or(&[], Vec::as_slice)),
        "Strip" if decoder["stop"] != 0 => Err("Strip with stop".to_owned()),
        "BPEDecoder" | "CTC" => Err(kind.to_owned()),
        _ => Ok(Spelling::Text),
    }
}

fn sequence(decoders: &[Value]) -> Result<Spelling, String> {
    let spellings = decoders
        .iter()
        .map(spelling)
        .collect::<Result<Vec<_>, _>>()?;
    let fused = |decoder: &Value| decoder["type"] == "Fuse" || decoder["type"] == "ByteLevel";
    if spellings.contains(&Spelling::ByteLevel) {
        return match decoders.iter().find(|decoder| !fused(decoder)) {
            Some(other) => Err(format!("ByteLevel with {}", other["type"])),
            None => Ok(Spelling::ByteLevel),
        };
    }
    let fallback = spellings.contains(&Spelling::ByteFallback);
    Ok(if fallback {
        Spelling::ByteFallback
    } else {
        Spelling::Text
    })
}

/// The byte that a token `<0xNN>` stands for.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The bytes that a token of a byte-level vocabulary spells; those of its text
/// if it has other characters, as added tokens may.
fn byte_level(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte_of_char).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The inverse of GPT-2's `bytes_to_unicode` (openai/gpt-2, src/encoder.py):
/// printable bytes of Latin-1 are themselves, the others are in order from U+0100 on.
fn byte_of_char(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}
