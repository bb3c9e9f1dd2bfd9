//! Between text and tokens: tokenizers, chat templates, and the two machines
//! that turn a stream of tokens into a stream of text, [`Detokenizer`] and
//! [`StopStrings`].
//!
//! ```text
//! messages ── Tokenizer::render_chat ──> text ── Tokenizer::encode ──> tokens
//!                                                                        │ generated, one by one
//! text that never changes again <── StopStrings::push <── Detokenizer::push
//! ```
//!
//! A text is a function of its tokens, however they arrive: what is streamed,
//! joined, is what [`Tokenizer::decode`] says of all tokens at once.

mod chat;
mod detokenizer;
mod error;
#[cfg(test)]
mod fixtures;
mod folder;
mod hugging_face;
mod stop_strings;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use chat::{ChatError, ChatInput, ChatTemplate, Message, MessageError, parse_messages};
pub use detokenizer::Detokenizer;
pub use error::{EncodeError, TokenizerError};
pub use stop_strings::{StopError, StopMatch, StopOutput, StopStrings};
pub use tokenizer::Tokenizer;
