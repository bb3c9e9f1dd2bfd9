//! How prefill attention is cut into blocks.
//!
//! A chunk's queries are rows, token after token, of each token the query heads
//! that share a KV head; a block has a tile of them. How long it takes is how
//! many keys its last row sees, so the longest come first and none is left over at the end
//! (longest processing time first: Graham 1969).
//!
//! Of a short chunk after a long past there are few tiles with many keys each. Then a tile's keys are split into
//! ranges, which are added up by the block that comes last.

use std::cmp::Reverse;

use super::attention_shape::AttentionShape;

const ITEM_WORDS: usize = 8;
/// Keys that a block walks over at a time: what ranges are made of (`KEYS` of `attention_prefill.cu`).
const KEYS: usize = 64;
/// The fewest steps of a range: adding it to the others takes about one.
const RANGE_STEPS_MIN: usize = 4;
/// The most items of a plan that is split.
pub const SPLIT_ITEMS_MAX: usize = 1024;

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
    /// Which range of the tile's keys.
    pub range: usize,
    /// How many ranges they are split into.
    pub ranges: usize,
    /// Where in the workspace the first of them is.
    pub partial: usize,
}

/// All blocks' work, the longest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefillPlan {
    /// Rows of a tile.
    pub tile_rows: usize,
    /// An item a block.
    pub items: Vec<PrefillItem>,
    /// Places in the workspace that are used.
    pub partials: usize,
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
                range: 0,
                ranges: 1,
                partial: 0,
            };
            items.extend((0..shape.kv_heads).map(item));
        }
    }
    items.sort_by_key(|item| Reverse(keys(item, shape, tile_rows, window)));
    PrefillPlan {
        tile_rows,
        items,
        partials: 0,
    }
}

/// The same work for about so many blocks, where a plan has fewer items: the items with the most keys in ranges of about
/// as many each. There are at most as many more items as blocks.
#[must_use]
pub fn split(
    plan: &PrefillPlan,
    shape: &AttentionShape,
    window: Option<usize>,
    blocks: usize,
) -> PrefillPlan {
    let steps = |item: &PrefillItem| steps(item, shape, plan.tile_rows, window);
    let total: usize = plan.items.iter().map(steps).sum();
    let range_steps = total.div_ceil(blocks).max(RANGE_STEPS_MIN);
    let mut split = PrefillPlan {
        tile_rows: plan.tile_rows,
        items: Vec::with_capacity(plan.items.len() + blocks),
        partials: 0,
    };
    for item in &plan.items {
        let ranges = steps(item).div_ceil(range_steps);
        let partial = split.partials;
        let part = |range| PrefillItem {
            range,
            ranges,
            partial,
            ..*item
        };
        split.items.extend((0..ranges).map(part));
        split.partials += if ranges > 1 { ranges } else { 0 };
    }
    split
        .items
        .sort_by_key(|item| Reverse(steps(item).div_ceil(item.ranges)));
    split
}

/// The steps that a tile's keys take.
fn steps(
    item: &PrefillItem,
    shape: &AttentionShape,
    tile_rows: usize,
    window: Option<usize>,
) -> usize {
    let (begin, end) = seen(item, shape, tile_rows, window);
    end.div_ceil(KEYS) - begin / KEYS
}

/// How many items a plan has.
#[must_use]
pub fn items(sequences: &[PrefillSequence], shape: &AttentionShape, tile_rows: usize) -> usize {
    let tiles = |chunk: &PrefillSequence| (chunk.len * shape.group()).div_ceil(tile_rows);
    shape.kv_heads * sequences.iter().map(tiles).sum::<usize>()
}

/// How many keys a tile sees.
fn keys(
    item: &PrefillItem,
    shape: &AttentionShape,
    tile_rows: usize,
    window: Option<usize>,
) -> usize {
    let (begin, end) = seen(item, shape, tile_rows, window);
    end - begin
}

/// The first key that a tile sees, and the one after the last.
fn seen(
    item: &PrefillItem,
    shape: &AttentionShape,
    tile_rows: usize,
    window: Option<usize>,
) -> (usize, usize) {
    let chunk = &item.chunk;
    let last = (item.tile + tile_rows - 1) / shape.group();
    let end = chunk.past + last.min(chunk.len - 1) + 1;
    let first = chunk.past + item.tile / shape.group();
    let begin = window.map_or(0, |window| (first + 1).saturating_sub(window));
    (begin, end)
}

impl PrefillPlan {
    /// The plan as kernels read it: 8 words an item.
    #[must_use]
    pub fn words(&self) -> Vec<u32> {
        let mut words = Vec::with_capacity(ITEM_WORDS * self.items.len());
        for item in &self.items {
            let fields = [
                item.chunk.sequence,
                item.kv_head,
                item.tile,
                item.chunk.first,
                item.chunk.len,
                item.chunk.past,
                item.range | item.ranges << 16,
                item.partial,
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
    let tiles = (tokens * shape.group()).div_ceil(TILE_ROWS_MIN) + sequences;
    ITEM_WORDS * (shape.kv_heads * tiles).max(SPLIT_ITEMS_MAX)
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

    #[test]
    fn a_question_after_a_long_document_is_split() {
        let shape = AttentionShape {
            query_heads: 8,
            kv_heads: 2,
            head_dim: 64,
            block_size: 64,
        };
        let whole = plan(&chunks(&[(10, 1000), (1, 0)]), &shape, 64, None);
        let split = split(&whole, &shape, None, 8);
        let ranges: Vec<_> = split
            .items
            .iter()
            .map(|item| (item.chunk.sequence, item.kv_head, item.range, item.ranges))
            .collect();
        let long = |kv_head| (0..4).map(move |range| (0, kv_head, range, 4));
        let expected: Vec<_> = long(0)
            .chain(long(1))
            .chain([(1, 0, 0, 1), (1, 1, 0, 1)])
            .collect();
        assert_eq!(
            ranges, expected,
            "16 steps of each of 2 heads, and 2, for 8 blocks"
        );
        assert_eq!(split.partials, 8);
    }

    proptest! {
        #[test]
        fn ranges_are_even_and_have_places_of_their_own(
            lens in prop::collection::vec((1_usize..40, 0_usize..3000), 1..5),
            kv_heads in 1_usize..5,
            group in 1_usize..9,
            blocks in 1_usize..300,
            window in prop::option::of(1_usize..2000),
        ) {
            let shape = AttentionShape { query_heads: kv_heads * group, kv_heads, head_dim: 64, block_size: 64 };
            let whole = plan(&chunks(&lens), &shape, 64, window);
            let split = split(&whole, &shape, window, blocks);
            prop_assert!(split.items.len() <= whole.items.len() + blocks);
            let mut places = vec![0; split.partials];
            let mut parts = 0;
            for item in &split.items {
                prop_assert!(item.range < item.ranges && item.ranges <= steps(item, &shape, 64, window));
                parts += usize::from(item.range == 0);
                if item.ranges > 1 {
                    places[item.partial + item.range] += 1;
                }
            }
            prop_assert_eq!(parts, whole.items.len());
            prop_assert!(places.iter().all(|count| *count == 1));
            let total: usize = whole.items.iter().map(|item| steps(item, &shape, 64, window)).sum();
            let longest = split.items.iter().map(|item| steps(item, &shape, 64, window).div_ceil(item.ranges)).max();
            prop_assert!(longest <= Some(total.div_ceil(blocks).max(RANGE_STEPS_MIN)));
        }
    }
}
