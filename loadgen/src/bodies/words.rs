//! Texts of about so many tokens, where nothing is known of the model's tokenizer.
//!
//! A token is so many bytes of a sequence of four-letter words, each with a space before it.
//! By default that is one word, because these words with their space are one token each.
//! A prompt is a beginning of its sequence cut at a byte, so it begins like
//! every other prompt that it shares its first tokens with.

use super::content::Segment;

/// Common words of four letters. Each with the space before it is one token of GPT-2,
/// Llama 2 and Llama 3, and 20,000 of them in random order are 20,000 tokens of
/// either Llama (counted with llama-tokenizer-js and llama3-tokenizer-js, November 2026).
pub(super) const WORDS: [&str; 128] = [
    "that", "with", "have", "this", "from", "they", "will", "what", "when", "make", "like", "time",
    "just", "know", "take", "into", "year", "your", "good", "some", "them", "than", "then", "look",
    "only", "come", "over", "also", "back", "work", "well", "even", "want", "give", "most", "many",
    "much", "life", "down", "long", "part", "both", "such", "each", "here", "same", "last", "tell",
    "need", "feel", "high", "keep", "help", "home", "side", "move", "live", "turn", "face", "show",
    "open", "seem", "talk", "door", "name", "week", "case", "hand", "play", "room", "read", "care",
    "line", "lead", "mind", "city", "hour", "game", "idea", "body", "kind", "head", "real", "best",
    "team", "food", "land", "love", "fact", "book", "word", "form", "free", "plan", "test", "view",
    "data", "cost", "rate", "size", "type", "code", "list", "text", "true", "next", "must", "very",
    "been", "were", "said", "does", "done", "used", "made", "told", "left", "near", "once", "hope",
    "rest", "full", "able", "wide", "deep", "cold", "fire", "blue",
];

/// A word and the space before it.
const WORD_BYTES: usize = 5;

/// Made-up texts of a given number of bytes a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    bytes_per_token: f64,
}

impl Words {
    /// With fewer than 2 bytes the first token would be nothing but the space that is left out.
    pub(super) fn new(bytes_per_token: f64) -> Option<Self> {
        (2.0..=64.0)
            .contains(&bytes_per_token)
            .then_some(Self { bytes_per_token })
    }

    /// Where the token at a position begins.
    pub(super) fn bytes(&self, position: usize) -> usize {
        (position as f64 * self.bytes_per_token) as usize
    }

    /// Appends the text of a prompt. JSON needs no escapes for it.
    pub(super) fn write(&self, segments: &[Segment], text: &mut Vec<u8>) {
        for &segment in segments {
            let (mut byte, end) = (
                self.bytes(segment.start as usize),
                self.bytes(segment.end as usize),
            );
            while byte < end {
                let place = byte % WORD_BYTES;
                let count = (WORD_BYTES - place).min(end - byte);
                let word = spaced(segment, byte / WORD_BYTES);
                text.extend_from_slice(&word[place..place + count]);
                // A text does not begin with a space.
                if byte == 0 {
                    text.remove(text.len() - count);
                }
                byte += count;
            }
        }
    }
}

/// A word of a sequence.
fn spaced(segment: Segment, number: usize) -> [u8; WORD_BYTES] {
    // No prompt has so many words: a position is a u32 of at most 64 bytes.
    let position = (number % (1 << 32)) as u32;
    let mut spaced = [b' '; WORD_BYTES];
    spaced[1..].copy_from_slice(WORDS[segment.draw(position, WORDS.len())].as_bytes());
    spaced
}
