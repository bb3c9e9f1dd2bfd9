//! What a step computes, in the form that a forward pass reads: flat, one entry a token.

use foresail_core::batching::BlockId;

/// The tokens of a step, sequence after sequence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The place of each in its sequence, from 0.
    pub positions: Vec<u32>,
    /// The sequences, in the order of their tokens.
    pub sequences: Vec<BatchSequence>,
    /// The rows (indices into `tokens`) whose logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
}

/// One sequence's part of a [`Batch`].
#[derive(Clone, Debug, PartialEq)]
pub struct BatchSequence {
    /// The row of its first token in this step.
    pub first: usize,
    /// Tokens in this step.
    pub len: usize,
    /// Its tokens in the KV cache before the step: the position of its first token.
    pub past: usize,
    /// Its KV blocks, in order: the token at position `p` is in `table[p / block_size]`, at `p % block_size`.
    pub table: Vec<BlockId>,
    /// The slot of the adapter that it is computed with.
    pub adapter: Option<usize>,
}

impl Batch {
    /// Adds a sequence: its tokens from position `past` on.
    pub fn push(&mut self, tokens: &[u32], past: usize, table: &[BlockId], adapter: Option<usize>) {
        self.sequences.push(BatchSequence {
            first: self.tokens.len(),
            len: tokens.len(),
            past,
            table: table.to_vec(),
            adapter,
        });
        self.tokens.extend_from_slice(tokens);
        let positions = past..past + tokens.len();
        self.positions.extend(positions.map(|place| place as u32));
    }

    /// Tokens in the step.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
