//! What happens to queries, keys and values after their projection: bias, norm,
//! rotation, and the keys' and values' way into the cache.

#![allow(unsafe_code, reason = "workers write different heads at the same time")]

use super::disjoint::{Disjoint, share};
use super::entry::Entry;
use super::isa::Task;
use super::kv_cache::PageWriter;
use super::norm::norm_in_place;
use super::rotary::RotaryTable;
use super::vector::Vector;
use crate::batch::{Batch, BatchSequence};

/// One worker's share of the heads of all tokens.
pub(super) struct TurnHeads<'a, E: Entry> {
    /// Of which each token is of one sequence, and each block written for one.
    pub(super) batch: &'a Batch,
    /// `[tokens][query heads, key heads, value heads][head_dim]`.
    pub(super) fused: &'a Disjoint<'a, f32>,
    pub(super) bias: Option<&'a [f32]>,
    /// Scales of the norms of queries and of keys.
    pub(super) norm: Option<&'a (Vec<f32>, Vec<f32>)>,
    pub(super) eps: f32,
    pub(super) rotary: &'a RotaryTable,
    pub(super) query_heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) head_dim: usize,
    /// `[tokens][query heads][head_dim]`.
    pub(super) queries: &'a Disjoint<'a, f32>,
    pub(super) writer: &'a PageWriter<'a, E>,
    pub(super) worker: usize,
    pub(super) workers: usize,
}

impl<E: Entry> Task for TurnHeads<'_, E> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let heads = self.query_heads + 2 * self.key_value_heads;
        let items = share(self.batch.len() * heads, self.worker, self.workers);
        let mut sequences = self.batch.sequences.iter();
        let mut sequence = sequences.next();
        for item in items {
            let (token, head) = (item / heads, item % heads);
            while sequence.is_some_and(|one| token >= one.first + one.len) {
                sequence = sequences.next();
            }
            let sequence = sequence.expect("each token is of a sequence");
            self.turn::<V>(sequence, token, head, heads);
        }
    }
}

impl<E: Entry> TurnHeads<'_, E> {
    #[inline(always)]
    fn turn<V: Vector>(&self, sequence: &BatchSequence, token: usize, head: usize, heads: usize) {
        let head_dim = self.head_dim;
        let first = (token * heads + head) * head_dim;
        // SAFETY: a head of a token is in one worker's share.
        let values = unsafe { self.fused.part(first..first + head_dim) };
        if let Some(bias) = self.bias {
            for (value, bias) in values.iter_mut().zip(&bias[head * head_dim..]) {
                *value += bias;
            }
        }
        let position = sequence.past + token - sequence.first;
        let Some(key_or_value) = head.checked_sub(self.query_heads) else {
            self.norm_and_turn::<V>(values, self.norm.map(|norm| &norm.0), position);
            let place = (token * self.query_heads + head) * head_dim;
            // SAFETY: as above.
            let query = unsafe { self.queries.part(place..place + head_dim) };
            return query.copy_from_slice(values);
        };
        let table = &sequence.table;
        if let Some(head) = key_or_value.checked_sub(self.key_value_heads) {
            let last = token + 1 == sequence.first + sequence.len;
            // SAFETY: a head of a token is in one worker's share, and the token after the last in none;
            // no other sequence writes the block of either.
            unsafe { self.writer.write_value(table, position, head, values, last) };
        } else {
            self.norm_and_turn::<V>(values, self.norm.map(|norm| &norm.1), position);
            // SAFETY: a head of a token is in one worker's share; no other sequence writes its block.
            unsafe { self.writer.write_key(table, position, key_or_value, values) };
        }
    }

    #[inline(always)]
    fn norm_and_turn<V: Vector>(
        &self,
        head: &mut [f32],
        scales: Option<&Vec<f32>>,
        position: usize,
    ) {
        if let Some(scales) = scales {
            norm_in_place::<V>(head, scales, self.eps);
        }
        self.rotary.turn(head, position);
    }
}
