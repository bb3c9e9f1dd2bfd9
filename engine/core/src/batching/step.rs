//! What a step computes.

use super::SequenceId;
use crate::step_time::{Chunk, StepLoad};

/// What one step computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Sequences that compute one token and sample the next.
    pub decodes: u32,
    /// Tokens in the KV cache, summed over those, before the step.
    pub decode_past: u64,
    /// Pieces of prompts: first those continued, then those of sequences admitted in this step.
    pub chunks: Vec<Chunk>,
    /// The sequence of each chunk.
    pub chunk_sequences: Vec<SequenceId>,
    /// How many of the chunks are continued.
    pub continued: usize,
    /// Sequences that lost their blocks, in that order.
    pub preempted: Vec<SequenceId>,
}

impl Step {
    /// What the step's duration depends on.
    #[must_use]
    pub fn load(&self) -> StepLoad<'_> {
        StepLoad {
            decodes: self.decodes,
            decode_past: self.decode_past,
            chunks: &self.chunks,
        }
    }

    /// Tokens computed.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.decodes + self.chunks.iter().map(|chunk| chunk.len).sum::<u32>()
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.decodes == 0 && self.chunks.is_empty()
    }

    /// The sequences admitted in this step, each with the chunk it starts with;
    /// the chunk's `past` is what the prefix cache gave.
    pub fn admitted(&self) -> impl Iterator<Item = (SequenceId, Chunk)> {
        self.chunk_sequences[self.continued..]
            .iter()
            .copied()
            .zip(self.chunks[self.continued..].iter().copied())
    }

    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.chunk_sequences.clear();
        self.preempted.clear();
        (self.decodes, self.decode_past, self.continued) = (0, 0, 0);
    }
}

/// One sequence's part of a step: compute tokens `chunk.past .. chunk.past + chunk.len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Whose.
    pub sequence: SequenceId,
    /// Which tokens, and whether the next one is sampled.
    pub chunk: Chunk,
}
