//! Pieces of text that are one token each, whatever stands beside them.
//!
//! A prompt of `n` such pieces has exactly `n` tokens, and one that begins like
//! another one has its tokens too. That needs no tokenizer while prompts are
//! made, which is what makes them cheap: the tokenizer is asked once, before the run, which
//! pieces there are. vLLM's random dataset instead decodes random tokens,
//! encodes the text and repairs its length, prompt by prompt.
//!
//! Words behind a space are tried first, as most tokenizers split texts before spaces;
//! then single characters; then whatever the vocabulary has. Candidates must
//! be one token each in a text with every ordered pair of them side by side;
//! those that are not are dropped, until that holds for all that are left.

use std::collections::BTreeSet;

use super::content::mixed;
use super::tokens::TokenCounter;
use super::words::WORDS;

/// With fewer pieces than this, prompts would share the beginnings of blocks by chance: two prompts
/// have the same block of 16 tokens with a probability of 16^-16.
pub(super) const PIECES_MIN: usize = 16;

/// With so many pieces, all pairs of them are 16,384 tokens: a few hundredths of a second to encode.
const PIECES_MAX: usize = 128;

/// Tokens of a vocabulary that are looked at, evenly spaced over it.
const LOOKED_AT_MAX: u32 = 1 << 14;

/// Tokens of a text that is encoded at once to try pieces.
const TRIED_AT_ONCE: usize = 512;

/// Tokens of random texts in which pieces are tried.
const TRIED_AT_RANDOM: u64 = 1 << 13;

/// The pieces of a tokenizer.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    /// Each at the beginning of a text, in JSON.
    first: Vec<Box<[u8]>>,
    /// Each behind others, in JSON.
    later: Vec<Box<[u8]>>,
}

/// A piece that may be one token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    /// At the beginning of a text, where a space before it would be a token of its own.
    first: String,
    later: String,
}

impl Pieces {
    /// Finds pieces; `Err` with how many there are if that is too few.
    pub(super) fn find(counter: &dyn TokenCounter) -> Result<Self, usize> {
        let mut best = 0;
        let kinds: [fn(&dyn TokenCounter) -> Vec<Candidate>; 3] = [words, characters, vocabulary];
        for candidates in kinds {
            let found = independent(counter, candidates(counter));
            if found.len() >= PIECES_MIN {
                return Ok(Self::of(&found));
            }
            best = best.max(found.len());
        }
        Err(best)
    }

    fn of(candidates: &[Candidate]) -> Self {
        let json = |text: &String| {
            let quoted = serde_json::Value::from(text.as_str()).to_string();
            Box::from(&quoted.as_bytes()[1..quoted.len() - 1])
        };
        Self {
            first: candidates.iter().map(|c| json(&c.first)).collect(),
            later: candidates.iter().map(|c| json(&c.later)).collect(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.later.len()
    }

    /// A piece as it stands in a JSON string.
    #[inline]
    pub(super) fn json(&self, number: usize, is_first: bool) -> &[u8] {
        if is_first {
            &self.first[number]
        } else {
            &self.later[number]
        }
    }
}

/// Words, which need a space before them unless they are first.
fn words(counter: &dyn TokenCounter) -> Vec<Candidate> {
    let word = |word: &&str| Candidate {
        first: (*word).to_owned(),
        later: format!(" {word}"),
    };
    let mut candidates: Vec<Candidate> = WORDS.iter().map(word).collect();
    candidates.extend(spelled(counter).filter_map(|text| {
        let letters = text.strip_prefix(' ')?;
        let is_word = !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase());
        is_word.then(|| word(&letters))
    }));
    candidates
}

/// Single characters that JSON leaves as they are.
fn characters(_: &dyn TokenCounter) -> Vec<Candidate> {
    let plain = ('!'..='~').filter(|c| !matches!(c, '"' | '\\'));
    plain.map(|c| same(c.to_string())).collect()
}

/// Whatever tokens there are that are text.
fn vocabulary(counter: &dyn TokenCounter) -> Vec<Candidate> {
    let texts = spelled(counter);
    texts.map(same).collect()
}

fn same(text: String) -> Candidate {
    Candidate {
        first: text.clone(),
        later: text,
    }
}

/// The texts of tokens of the vocabulary.
fn spelled(counter: &dyn TokenCounter) -> impl Iterator<Item = String> {
    let size = counter.vocabulary_size();
    let step = (size / LOOKED_AT_MAX).max(1) as usize;
    let texts = (0..size).step_by(step).map(|id| counter.decode(&[id]));
    texts.filter(|text| {
        let is_text = |c: char| !c.is_control() && c != char::REPLACEMENT_CHARACTER;
        !text.is_empty() && text.chars().all(is_text)
    })
}

/// The candidates that are one token each beside all others of them.
fn independent(counter: &dyn TokenCounter, candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut seen = BTreeSet::new();
    let alone = candidates.into_iter().filter(|candidate| {
        token_alone(counter, candidate).is_some_and(|token| seen.insert(token))
    });
    let mut left: Vec<Candidate> = alone.take(PIECES_MAX).collect();
    // Each round drops at least one, so there is an end.
    while left.len() >= PIECES_MIN {
        let faults = faults(counter, &left);
        let Some(worst) = faults.iter().copied().max().filter(|worst| *worst > 0) else {
            return left;
        };
        // Those that cause the most trouble first: without them the others may be sound.
        let mut faults = faults.into_iter();
        left.retain(|_| faults.next().is_some_and(|count| 2 * count <= worst));
    }
    left
}

/// The token that a candidate is behind itself, if it is one token everywhere in
/// a text of it alone.
fn token_alone(counter: &dyn TokenCounter, candidate: &Candidate) -> Option<u32> {
    let Candidate { first, later } = candidate;
    let tokens = counter.encode(&format!("{first}{later}{later}"))?;
    match tokens[..] {
        [_, second, third] if second == third => Some(second),
        _ => None,
    }
}

/// For each piece, how often it was not the token that it should be, or stood before one that was not.
fn faults(counter: &dyn TokenCounter, pieces: &[Candidate]) -> Vec<usize> {
    let tokens: Vec<Option<u32>> = (pieces.iter())
        .map(|piece| token_alone(counter, piece))
        .collect();
    let mut faults = vec![0; pieces.len()];
    let mut order = every_pair(pieces.len());
    order.extend(at_random(pieces.len()));
    for order in order.chunks(TRIED_AT_ONCE) {
        if !is_sound(counter, pieces, &tokens, order) {
            blame(counter, pieces, &tokens, order, &mut faults);
        }
    }
    try_first(counter, pieces, &tokens, &mut faults);
    faults
}

/// Tries all pairs at the beginning of a text, where the first has another form.
fn try_first(
    counter: &dyn TokenCounter,
    pieces: &[Candidate],
    tokens: &[Option<u32>],
    faults: &mut [usize],
) {
    for (first, piece) in pieces.iter().enumerate() {
        if piece.first == piece.later {
            continue;
        }
        for second in 0..pieces.len() {
            if !is_sound(counter, pieces, tokens, &[first, second]) {
                faults[first] += 1;
                faults[second] += 1;
            }
        }
    }
}

/// Looks for the pairs that are at fault in a text that is not as it should be.
fn blame(
    counter: &dyn TokenCounter,
    pieces: &[Candidate],
    tokens: &[Option<u32>],
    order: &[usize],
    faults: &mut [usize],
) {
    let mut is_found = false;
    for pair in order.windows(2) {
        if !is_sound(
            counter,
            pieces,
            tokens,
            &[pair[0], pair[0], pair[1], pair[1]],
        ) {
            faults[pair[0]] += 1;
            faults[pair[1]] += 1;
            is_found = true;
        }
    }
    if !is_found {
        // No pair shows it, only the text as a whole does: none of its pieces can be trusted.
        for &piece in order {
            faults[piece] += 1;
        }
    }
}

/// Whether pieces in this order are their tokens, one for one.
fn is_sound(
    counter: &dyn TokenCounter,
    pieces: &[Candidate],
    tokens: &[Option<u32>],
    order: &[usize],
) -> bool {
    let Some((first, later)) = order.split_first() else {
        return true;
    };
    let mut text = pieces[*first].first.clone();
    for &piece in later {
        text.push_str(&pieces[piece].later);
    }
    counter.encode(&text).is_some_and(|found| {
        // The first may be another token, as there is no space before it, but one it must be.
        let found = found.get(1..).unwrap_or_default().iter().copied().map(Some);
        found.eq(later.iter().map(|piece| tokens[*piece]))
    })
}

/// Numbers below `count` as prompts have them: what no pair shows may show here.
fn at_random(count: usize) -> impl Iterator<Item = usize> {
    let draws = (0..TRIED_AT_RANDOM).map(mixed);
    draws.map(move |draw| ((u128::from(draw) * count as u128) >> 64) as usize)
}

/// Numbers below `count` in an order in which each follows each once: round by
/// round, the step from one to the next grows by one.
fn every_pair(count: usize) -> Vec<usize> {
    let mut order = Vec::with_capacity(count * (count + 1));
    for step in 0..count {
        for start in 0..count {
            order.push(start);
            order.push((start + step) % count);
        }
    }
    order
}
