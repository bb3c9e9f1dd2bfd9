//! Sequences, computed in the pieces that a test wants.

use foresail_core::batching::BlockId;
use foresail_engine::batch::Batch;

use crate::world::World;

/// The logits after each token of a sequence.
pub(crate) type Logits = Vec<Vec<f32>>;

/// A sequence, and how far it is computed.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) tokens: Vec<u32>,
    pub(crate) adapter: Option<usize>,
    /// Its KV blocks, enough for all of its tokens.
    pub(crate) table: Vec<BlockId>,
    /// Its tokens in the KV cache.
    pub(crate) past: usize,
    /// The logits after each token that was computed.
    pub(crate) logits: Logits,
}

impl Sequence {
    /// A sequence of which nothing is computed, in these blocks.
    pub(crate) fn new(tokens: &[u32], adapter: Option<usize>, table: Vec<BlockId>) -> Self {
        Self {
            tokens: tokens.to_vec(),
            adapter,
            table,
            past: 0,
            logits: Vec::new(),
        }
    }

    /// Tokens that are not computed.
    pub(crate) fn left(&self) -> usize {
        self.tokens.len() - self.past
    }
}

/// Computes the next tokens of several sequences in one step, and notes the logits after each.
pub(crate) fn advance(world: &mut World, pieces: &mut [(&mut Sequence, usize)]) {
    let mut batch = Batch::default();
    for (sequence, len) in pieces.iter() {
        let tokens = &sequence.tokens[sequence.past..][..*len];
        batch.push(tokens, sequence.past, &sequence.table, sequence.adapter);
    }
    batch.logit_rows = (0..batch.len() as u32).collect();
    let mut logits = world.step(batch).into_iter();
    for (sequence, len) in pieces {
        sequence.logits.extend(logits.by_ref().take(*len));
        sequence.past += *len;
    }
}

/// Computes the rest of a sequence, in one step, with nothing else in it.
pub(crate) fn finish(world: &mut World, sequence: &mut Sequence) {
    let left = sequence.left();
    advance(world, &mut [(sequence, left)]);
}

/// The most likely token; the first, of several.
pub(crate) fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// Appends the most likely token, so many times, and returns what was appended.
pub(crate) fn greedy(world: &mut World, sequence: &mut Sequence, tokens: usize) -> Vec<u32> {
    let first = sequence.tokens.len();
    for _ in 0..tokens {
        let left = sequence.left();
        if left > 0 {
            advance(world, &mut [(&mut *sequence, left)]);
        }
        let last = sequence.logits.last().expect("a sequence has tokens");
        let token = likeliest(last);
        sequence.tokens.push(token);
    }
    sequence.tokens[first..].to_vec()
}
