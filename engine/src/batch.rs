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

    /// Checks that each token is of one sequence: kernels that share them out
    /// write what is of different sequences at the same time.
    ///
    /// # Panics
    /// If sequences overlap, leave tokens out, or are not in order.
    pub(crate) fn assert_tokens_apart(&self) {
        let end = self.sequences.iter().fold(0, |end, sequence| {
            assert_eq!(sequence.first, end, "sequences follow each other");
            end + sequence.len
        });
        assert_eq!(end, self.tokens.len(), "each token is of a sequence");
    }

    /// Checks that each KV block is written for one sequence, and for one
    /// stretch of it. `written` is only room to work in.
    ///
    /// # Panics
    /// If a block is written for two, or is not in the table.
    pub(crate) fn assert_blocks_apart(&self, block_size: usize, written: &mut Vec<BlockId>) {
        written.clear();
        for sequence in &self.sequences {
            let end = sequence.past + sequence.len;
            let blocks = sequence.past / block_size..end.div_ceil(block_size);
            written.extend_from_slice(&sequence.table[blocks]);
        }
        written.sort_unstable();
        let twice = written.windows(2).find(|two| two[0] == two[1]);
        assert_eq!(twice, None, "a block is written for one sequence");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    fn two(tables: [&[BlockId]; 2]) -> Batch {
        let mut batch = Batch::default();
        batch.push(&[1, 2, 3], 4, tables[0], None);
        batch.push(&[4], 8, tables[1], None);
        batch
    }

    fn is_apart(batch: &Batch) -> bool {
        let check = || {
            batch.assert_tokens_apart();
            batch.assert_blocks_apart(4, &mut Vec::new());
        };
        catch_unwind(check).is_ok()
    }

    #[test]
    fn blocks_may_be_read_together_and_not_written() {
        assert!(is_apart(&two([&[9, 1], &[9, 9, 2]])));
        assert!(!is_apart(&two([&[9, 1], &[9, 9, 1]])), "the same block");
        assert!(!is_apart(&two([&[9, 1], &[9, 9]])), "no block");
        let mut batch = Batch::default();
        batch.push(&[1, 2], 3, &[5, 5], None);
        assert!(!is_apart(&batch), "twice in one table");
    }

    #[test]
    fn sequences_have_tokens_of_their_own() {
        for change in [
            (|batch| batch.sequences[1].first = 2) as fn(&mut Batch),
            |batch| batch.sequences[0].len = 2,
            |batch| batch.sequences.swap(0, 1),
            |batch| batch.tokens.push(7),
        ] {
            let mut batch = two([&[9, 1], &[9, 9, 2]]);
            change(&mut batch);
            assert!(!is_apart(&batch), "{batch:?}");
        }
    }
}
