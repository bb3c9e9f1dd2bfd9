//! Which tokens a prompt consists of: what it shares with others, and what is its own.
//!
//! A token of a prompt is a number drawn from where it belongs (a group, a
//! conversation, a recorded block, this request alone) and its position. So two
//! prompts agree exactly as far as they belong to the same, the next turn of
//! a conversation begins with the whole prompt of the last, and no prompt has to be kept
//! for another. Under the same [`Request::block_hash`] of a block, two prompts have the
//! same tokens up to its end; otherwise they differ in it, but for chance.

use std::ops::Range;

use foresail_scenarios::workload::{Content, Request};

/// Consecutive tokens of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    origin: u64,
    /// First position in the prompt.
    pub(super) start: u32,
    /// The position behind the last.
    pub(super) end: u32,
}

impl Segment {
    /// The numbers of the tokens, each below `choices` (at most 65536) and about as likely.
    pub(super) fn draws(self, choices: usize) -> impl Iterator<Item = usize> {
        (self.start..self.end).map(move |position| self.draw(position, choices))
    }

    /// The number of the token at a position. A hash of 64 bits serves four positions.
    #[inline]
    pub(super) fn draw(self, position: u32, choices: usize) -> usize {
        let word = mixed(self.origin.wrapping_add(u64::from(position / 4)));
        let bits = (word >> (16 * (position % 4))) & 0xffff;
        (bits as usize * choices) >> 16
    }

    fn within(origin: u64, range: Range<u32>) -> Self {
        Self {
            origin,
            start: range.start,
            end: range.end,
        }
    }
}

/// What makes the texts of a run its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origins {
    seed: u64,
}

impl Origins {
    /// Two runs with the same seed and salt have the same texts.
    pub(super) fn new(seed: u64, salt: u64) -> Self {
        let seed = mixed(mixed(seed) ^ salt);
        Self { seed }
    }

    /// The tokens of a prompt from position `from` on to `to`.
    pub(super) fn segments(self, id: u64, request: &Request, span: Range<u32>) -> Vec<Segment> {
        let mut segments = Vec::with_capacity(2);
        let mut add = |kind: u64, name: u64, range: Range<u32>| {
            let range = range.start.max(span.start)..range.end.min(span.end);
            if !range.is_empty() {
                let origin = self.origin(kind, name, request.adapter);
                segments.push(Segment::within(origin, range));
            }
        };
        match &request.content {
            Content::Unique => add(1, id, span.clone()),
            Content::Session {
                group,
                shared_tokens,
                session,
            } => {
                add(2, *group, 0..*shared_tokens);
                add(3, *session, *shared_tokens..u32::MAX);
            }
            Content::Blocks { block_tokens, ids } => {
                let mut end = 0_u32;
                for block in ids {
                    let start = end;
                    end = start.saturating_add(*block_tokens);
                    add(4, *block, start..end);
                }
                // Nothing is known beyond the recorded blocks, so nothing is shared there.
                add(1, id, end..u32::MAX);
            }
        }
        segments
    }

    /// Keys and values depend on the adapter, so no two adapters share any.
    fn origin(self, kind: u64, name: u64, adapter: Option<u32>) -> u64 {
        let adapter = adapter.map_or(0, |adapter| u64::from(adapter) + 1);
        [kind, name, adapter]
            .into_iter()
            .fold(self.seed, |state, word| mixed(mixed(state) ^ word))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[inline]
pub(super) fn mixed(value: u64) -> u64 {
    let mut z = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
