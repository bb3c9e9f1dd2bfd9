//! How prefill attention is cut into blocks.
//!
//! A chunk's queries are rows, token after token, of each token the query heads
//! that share a KV head; a block has a tile of them. How long it takes is how
//! many keys its last row sees, so the longest come first and none is left over at the end
//! (longest processing time first: Graham 1969).

use std::cmp::Reverse;

use super::attention_shape::AttentionShape;

const ITEM_WORDS: usize = 8;

/// A chunk of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefillSequence {
    /// Its row of the block tables.
    pub sequence: usize,
    /// The row of `q` and `a` of its first token.
    pub first: usize,
    /// Its tokens.
    pub len: usize,
    /// The sequence's tokens before it, which are in the KV cache.
    pub past: usize,
}

/// One block's work: a tile of one KV head's rows of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefillItem {
    /// The chunk.
    pub chunk: PrefillSequence,
    /// Which KV head.
    pub kv_head: usize,
    /// The tile's first row: row `i` is token `i / group` of the chunk, head `i % group` of the group.
    pub tile: usize,
}

/// All blocks' work, the longest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefillPlan {
    /// Rows of a tile.
    pub tile_rows: usize,
    /// An item a block.
    pub items: Vec<PrefillItem>,
}

/// Cuts chunks into tiles of so many rows.
#[must_use]
pub fn plan(
    sequences: &[PrefillSequence],
    shape: &AttentionShape,
    tile_rows: usize,
    window: Option<usize>,
) -> PrefillPlan {
    let mut items = Vec::with_capacity(items(sequences, shape, tile_rows));
    for chunk in sequences {
        for tile in (0..chunk.len * shape.group()).step_by(tile_rows) {
            let item = |kv_head| PrefillItem {
                chunk: *chunk,
                kv_head,
                tile,
            };
            items.extend((0..shape.kv_heads).map(item));
        }
    }
    items.sort_by_key(|item| Reverse(keys(item, shape, tile_rows, window)));
    PrefillPlan { tile_rows, items }
}

/// How many items a plan has.
#[must_use]
pub fn items(sequences: &[PrefillSequence], shape: &AttentionShape, tile_rows: usize) -> usize {
    let tiles = |chunk: &PrefillSequence| (chunk.len * shape.group()).div_ceil(tile_rows);
    shape.kv_heads * sequences.iter().map(tiles).sum::<usize>()
}

/// The keys that an item walks over.
fn keys(
    item: &PrefillItem,
    shape: &AttentionShape,
    tile_rows: usize,
    window: Option<usize>,
) -> usize {
    let chunk = &item.chunk;
    let last = (item.tile + tile_rows - 1) / shape.group();
    let end = chunk.past + last.min(chunk.len - 1) + 1;
    let first = chunk.past + item.tile / shape.group();
    end - window.map_or(0, |window| (first + 1).saturating_sub(window))
}

impl PrefillPlan {
    /// The plan as kernels read it: 8 words an item.
    #[must_use]
    pub fn words(&self) -> Vec<u32> {
        let mut words = Vec::with_capacity(ITEM_WORDS * self.items.len());
        for PrefillItem {
            chunk,
            kv_head,
            tile,
        } in &self.items
        {
            let fields = [
                chunk.sequence,
                *kv_head,
                *tile,
                chunk.first,
                chunk.len,
                chunk.past,
                0,
                0,
            ];
            words.extend(fields.map(|field| field as u32));
        }
        words
    }
}

/// The most words that a plan has, of so many tokens in so many sequences.
#[must_use]
pub fn plan_words_max(shape: &AttentionShape, tokens: usize, sequences: usize) -> usize {
    const TILE_ROWS_MIN: usize = 64;
    ITEM_WORDS * shape.kv_heads * ((tokens * shape.group()).div_ceil(TILE_ROWS_MIN) + sequences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunks(lens: &[(usize, usize)]) -> Vec<PrefillSequence> {
        let mut first = 0;
        let chunk = |(sequence, (len, past)): (usize, &(usize, usize))| {
            let chunk = PrefillSequence {
                sequence,
                first,
                len: *len,
                past: *past,
            };
            first += len;
            chunk
        };
        lens.iter().enumerate().map(chunk).collect()
    }

    #[test]
    fn tiles_with_more_keys_come_first() {
        let shape = AttentionShape {
            query_heads: 2,
            kv_heads: 1,
            head_dim: 64,
            block_size: 64,
        };
        let chunks = chunks(&[(96, 0), (1, 500)]);
        let order = |window| {
            let plan = plan(&chunks, &shape, 128, window);
            plan.items
                .iter()
                .map(|item| (item.chunk.sequence, item.tile))
                .collect::<Vec<_>>()
        };
        assert_eq!(order(None), [(1, 0), (0, 128), (0, 0)]);
        assert_eq!(order(Some(32)), [(0, 0), (0, 128), (1, 0)]);
    }

    proptest! {
        #[test]
        fn each_row_of_each_head_is_in_one_tile(
            lens in prop::collection::vec((0_usize..300, 0_usize..1000), 0..10),
            kv_heads in 1_usize..5,
            group in 1_usize..9,
            tile_rows in prop::sample::select(vec![64_usize, 128]),
            window in prop::option::of(1_usize..400),
        ) {
            let shape = AttentionShape { query_heads: kv_heads * group, kv_heads, head_dim: 64, block_size: 64 };
            let chunks = chunks(&lens);
            let plan = plan(&chunks, &shape, tile_rows, window);
            let tokens = lens.iter().map(|(len, _)| len).sum();
            prop_assert!(plan.words().len() <= plan_words_max(&shape, tokens, lens.len()));
            prop_assert_eq!(plan.items.len(), items(&chunks, &shape, tile_rows));
            let mut seen = vec![0; tokens * shape.query_heads];
            for item in &plan.items {
                let end = item.chunk.len * group;
                prop_assert!(item.tile < end);
                for row in item.tile..end.min(item.tile + tile_rows) {
                    let head = item.kv_head * group + row % group;
                    seen[(item.chunk.first + row / group) * shape.query_heads + head] += 1;
                }
            }
            prop_assert!(seen.iter().all(|count| *count == 1));
            let keys: Vec<_> = plan.items.iter().map(|item| keys(item, &shape, tile_rows, window)).collect();
            prop_assert!(keys.is_sorted_by(|longer, shorter| longer >= shorter));
        }
    }
}
