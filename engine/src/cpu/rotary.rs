//! Rotary position embedding, from a table.

use super::disjoint::{Disjoint, share};
use super::pool::Pool;
use crate::config::ModelConfig;

/// Cosine and sine of what each pair turns by at each position,
/// `[position][cosines | sines]`, computed in f64 and rounded once.
#[derive(Debug)]
pub(super) struct RotaryTable {
    pairs: usize,
    values: Vec<f32>,
}

impl RotaryTable {
    pub(super) fn new(config: &ModelConfig, positions: usize, pool: &mut Pool) -> Self {
        let frequencies = config.rotary.frequencies(config.head_dim);
        let pairs = frequencies.len();
        let mut values = vec![0.0; positions * 2 * pairs];
        fill(&mut values, &frequencies, pool);
        Self { pairs, values }
    }

    /// Turns a head, whose halves have a value of each pair (as Hugging Face lays them out).
    #[inline(always)]
    pub(super) fn turn(&self, head: &mut [f32], position: usize) {
        let row = &self.values[position * 2 * self.pairs..][..2 * self.pairs];
        let (cosines, sines) = row.split_at(self.pairs);
        let (first, second) = head.split_at_mut(self.pairs);
        let second = &mut second[..self.pairs];
        for pair in 0..self.pairs {
            let (x, y) = (first[pair], second[pair]);
            first[pair] = x * cosines[pair] - y * sines[pair];
            second[pair] = y * cosines[pair] + x * sines[pair];
        }
    }
}

#[allow(unsafe_code, reason = "workers fill rows at the same time")]
fn fill(values: &mut [f32], frequencies: &[f64], pool: &mut Pool) {
    let width = 2 * frequencies.len();
    let (positions, workers) = (values.len() / width.max(1), pool.workers());
    let table = Disjoint::new(values);
    pool.run(&|worker| {
        for position in share(positions, worker, workers) {
            // SAFETY: a row is in one worker's share.
            let row = unsafe { table.part(position * width..(position + 1) * width) };
            let (cosines, sines) = row.split_at_mut(frequencies.len());
            for (pair, frequency) in frequencies.iter().enumerate() {
                let (sine, cosine) = libm::sincos(position as f64 * frequency);
                cosines[pair] = cosine as f32;
                sines[pair] = sine as f32;
            }
        }
    });
}
