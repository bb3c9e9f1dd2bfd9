//! What kernels are told of a step: arrays in the GPU's memory, one after the
//! other, so that a step needs one copy.
//!
//! ```text
//! tokens [rows]  positions [rows]  slots [rows]  adapters [rows]  logit rows [logits]
//! tables [sequences][blocks]  decode work […], with a window […]  prefill work […]
//! ```
//!
//! A recording reads them at fixed addresses, so the layout of a bucket is fixed
//! too: rows that a batch lacks have no position (`-1`), for which kernels do
//! nothing that matters.

use super::gpu::Address;
use crate::batch::Batch;

/// The position of a row of padding, and the slot of an adapter that is none.
pub const NONE: u32 = u32::MAX;

/// How large each array is, and so where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Rows of the step.
    pub rows: usize,
    /// Sequences.
    pub sequences: usize,
    /// Rows of logits.
    pub logits: usize,
    /// Blocks of a sequence's table.
    pub table_stride: usize,
    /// Words of the decode attention's work.
    pub decode_work: usize,
    /// Words of the same in layers with a window.
    pub windowed_decode_work: usize,
    /// Words of the prefill attention's work.
    pub prefill_work: usize,
}

/// Arrays begin at addresses that are multiples of so many words (256 bytes).
const ALIGNMENT_WORDS: usize = 64;

/// One of the arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Array {
    /// `u32 [rows]`.
    Tokens,
    /// `i32 [rows]`, `-1` for padding.
    Positions,
    /// `u32 [rows]`: places in the KV cache.
    Slots,
    /// `i32 [rows]`: slots of adapters, `-1` for none.
    Adapters,
    /// `u32 [logits]`: rows.
    LogitRows,
    /// `u32 [sequences][table_stride]`: KV blocks.
    Tables,
    /// What the decode attention does, block by block.
    DecodeWork,
    /// The same in layers with a window.
    WindowedDecodeWork,
    /// What the prefill attention does, block by block.
    PrefillWork,
}

const ARRAYS: [Array; 9] = [
    Array::Tokens,
    Array::Positions,
    Array::Slots,
    Array::Adapters,
    Array::LogitRows,
    Array::Tables,
    Array::DecodeWork,
    Array::WindowedDecodeWork,
    Array::PrefillWork,
];

impl Layout {
    /// Words of an array.
    fn words_of(&self, array: Array) -> usize {
        match array {
            Array::Tokens | Array::Positions | Array::Slots | Array::Adapters => self.rows,
            Array::LogitRows => self.logits,
            Array::Tables => self.sequences * self.table_stride,
            Array::DecodeWork => self.decode_work,
            Array::WindowedDecodeWork => self.windowed_decode_work,
            Array::PrefillWork => self.prefill_work,
        }
    }

    /// Where an array begins (words).
    #[must_use]
    pub fn word(&self, array: Array) -> usize {
        let before = ARRAYS.iter().take_while(|other| **other != array);
        let size = |array: &Array| self.words_of(*array).next_multiple_of(ALIGNMENT_WORDS);
        before.map(size).sum()
    }

    /// Words of all arrays.
    #[must_use]
    pub fn words(&self) -> usize {
        let last = ARRAYS[ARRAYS.len() - 1];
        self.word(last) + self.words_of(last).next_multiple_of(ALIGNMENT_WORDS)
    }

    /// Where an array is, if they begin at `base`.
    #[must_use]
    pub fn address(&self, base: Address, array: Array) -> Address {
        base.offset(4 * self.word(array))
    }
}

/// The arrays of one step, on the host.
#[derive(Clone, Debug)]
pub struct Inputs {
    layout: Layout,
    words: Vec<u32>,
}

impl Inputs {
    /// The arrays of a batch, without work for the attention.
    ///
    /// # Panics
    /// If the batch is larger than the layout.
    #[must_use]
    pub fn new(layout: Layout, batch: &Batch, block_size: usize) -> Self {
        let mut inputs = Self {
            words: vec![0; layout.words()],
            layout,
        };
        inputs.array(Array::Positions).fill(NONE);
        inputs.array(Array::Adapters).fill(NONE);
        inputs.array(Array::Tokens)[..batch.len()].copy_from_slice(&batch.tokens);
        inputs.array(Array::Positions)[..batch.len()].copy_from_slice(&batch.positions);
        inputs.array(Array::LogitRows)[..batch.logit_rows.len()].copy_from_slice(&batch.logit_rows);
        for (index, sequence) in batch.sequences.iter().enumerate() {
            let rows = sequence.first..sequence.first + sequence.len;
            let slot = |position: usize| {
                let block = sequence.table[position / block_size] as usize;
                (block * block_size + position % block_size) as u32
            };
            let slots = &mut inputs.array(Array::Slots)[rows.clone()];
            for (offset, place) in slots.iter_mut().enumerate() {
                *place = slot(sequence.past + offset);
            }
            if let Some(adapter) = sequence.adapter {
                inputs.array(Array::Adapters)[rows].fill(adapter as u32);
            }
            // A table may have blocks that no position reaches.
            let table = &sequence.table[..sequence.table.len().min(layout.table_stride)];
            let first = index * layout.table_stride;
            inputs.array(Array::Tables)[first..first + table.len()].copy_from_slice(table);
        }
        inputs
    }

    /// An array.
    pub fn array(&mut self, array: Array) -> &mut [u32] {
        let first = self.layout.word(array);
        &mut self.words[first..first + self.layout.words_of(array)]
    }

    /// All of them, as they are in memory.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.words
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        rows: 8,
        sequences: 4,
        logits: 4,
        table_stride: 5,
        decode_work: 70,
        windowed_decode_work: 3,
        prefill_work: 0,
    };

    #[test]
    fn arrays_follow_each_other_without_overlap() {
        let mut end = 0;
        for array in ARRAYS {
            assert_eq!(LAYOUT.word(array) % ALIGNMENT_WORDS, 0);
            assert!(LAYOUT.word(array) >= end, "{array:?}");
            end = LAYOUT.word(array) + LAYOUT.words_of(array);
        }
        assert!(LAYOUT.words() >= end);
        let base = Address(1 << 20);
        assert_eq!(
            LAYOUT.address(base, Array::Positions),
            Address((1 << 20) + 256)
        );
    }

    #[test]
    fn each_row_has_its_place_and_padding_has_none() {
        let mut batch = Batch::default();
        batch.push(&[7, 8, 9], 3, &[5, 2], Some(1));
        batch.push(&[4], 9, &[1, 3, 6, 7, 7, 7], None);
        batch.logit_rows = vec![2, 3];
        let mut inputs = Inputs::new(LAYOUT, &batch, 4);
        assert_eq!(inputs.array(Array::Tokens)[..4], [7, 8, 9, 4]);
        let positions = inputs.array(Array::Positions);
        assert_eq!(positions[..4], [3, 4, 5, 9]);
        assert!(positions[4..].iter().all(|position| *position == NONE));
        // Position 3 is the last of block 5, 4 the first of block 2; 9 is the second of block 6.
        assert_eq!(inputs.array(Array::Slots)[..4], [23, 8, 9, 25]);
        assert_eq!(inputs.array(Array::Adapters)[..5], [1, 1, 1, NONE, NONE]);
        assert_eq!(inputs.array(Array::LogitRows)[..2], [2, 3]);
        assert_eq!(inputs.array(Array::Tables)[..8], [5, 2, 0, 0, 0, 1, 3, 6]);
        assert_eq!(inputs.bytes().len(), 4 * LAYOUT.words());
    }
}
