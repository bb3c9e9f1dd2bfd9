//! How decode attention is cut into blocks.
//!
//! All tiles of all sequences' KV heads are laid side by side, and the row is cut
//! into equal parts, one a block, wherever that falls. So each block has the same
//! number of tiles, give or take one, whether there is one sequence of 100,000 tokens
//! or 256 of a few: the number of blocks decides how contexts are split, and not their lengths.

/// Tokens of a tile: what contexts are cut into (`TILE` of `attention_decode.cu`).
pub const TILE: usize = 64;

/// As the end of a range: up to where its sequence is when the kernel runs.
const NO_END: u32 = u32::MAX;
const ITEM_WORDS: usize = 8;

/// One query token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeQuery {
    /// Its row of `q` and of `a`.
    pub row: usize,
    /// Its row of the block tables and of the positions.
    pub sequence: usize,
    /// Tokens that it may see, itself included, without regard to a window: its position + 1. None: there is no such query.
    pub context: usize,
}

/// Some tokens of one unit (a KV head with up to 16 of its query heads) of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The query's row.
    pub row: u32,
    /// The query's sequence.
    pub sequence: u32,
    /// Which unit.
    pub unit: u32,
    /// Its first token, a multiple of [`TILE`].
    pub first: u32,
    /// The token after its last; `u32::MAX` in the last range, which ends where the sequence does.
    pub end: u32,
    /// Which of the unit's ranges this is.
    pub range: u32,
    /// How many ranges the unit has.
    pub ranges: u32,
    /// The place in the workspace of the first of them.
    pub partial: u32,
}

/// What each block does. It holds as long as contexts only grow, though its balance does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecodePlan {
    /// Where each block's items begin, and where the last one's end: `blocks + 1` of them.
    pub begins: Vec<u32>,
    /// The items, block after block.
    pub items: Vec<Item>,
    /// Places in the workspace that are used.
    pub partials: usize,
}

/// Cuts the contexts of `queries` into equal parts for `blocks` blocks. Each query has `units` units,
/// and sees the last `window` tokens.
#[must_use]
pub fn plan(
    queries: &[DecodeQuery],
    units: usize,
    window: Option<usize>,
    blocks: usize,
) -> DecodePlan {
    let total: usize = queries
        .iter()
        .map(|query| tiles(query, window).len() * units)
        .sum();
    let mut plan = DecodePlan {
        begins: Vec::with_capacity(blocks + 1),
        items: Vec::with_capacity(queries.len() * units + blocks),
        partials: 0,
    };
    plan.begins.push(0);
    let mut cutter = Cutter {
        total,
        used: blocks.min(total),
        block: 0,
        done: 0,
    };
    for query in queries {
        for unit in 0..units {
            cutter.cut(&mut plan, query, unit, tiles(query, window));
        }
    }
    plan.begins.resize(blocks + 1, plan.items.len() as u32);
    plan
}

/// The tiles that a query sees.
fn tiles(query: &DecodeQuery, window: Option<usize>) -> std::ops::Range<usize> {
    let visible = window.map_or(0, |window| query.context.saturating_sub(window));
    visible / TILE..query.context.div_ceil(TILE)
}

/// Deals out tiles: block `b` of `used` has those from `b * total / used` on.
struct Cutter {
    total: usize,
    used: usize,
    block: usize,
    done: usize,
}

impl Cutter {
    fn cut(
        &mut self,
        plan: &mut DecodePlan,
        query: &DecodeQuery,
        unit: usize,
        tiles: std::ops::Range<usize>,
    ) {
        let first_item = plan.items.len();
        let mut next = tiles.start;
        while next < tiles.end {
            let room = (self.block + 1) * self.total / self.used - self.done;
            let taken = room.min(tiles.end - next);
            plan.items.push(Item {
                row: query.row as u32,
                sequence: query.sequence as u32,
                unit: unit as u32,
                first: (next * TILE) as u32,
                end: ((next + taken) * TILE) as u32,
                range: (plan.items.len() - first_item) as u32,
                ranges: 0,
                partial: plan.partials as u32,
            });
            next += taken;
            self.done += taken;
            if taken == room {
                self.block += 1;
                plan.begins.push(plan.items.len() as u32);
            }
        }
        let ranges = plan.items.len() - first_item;
        for item in &mut plan.items[first_item..] {
            item.ranges = ranges as u32;
        }
        if let Some(last) = plan.items[first_item..].last_mut() {
            last.end = NO_END;
        }
        if ranges > 1 {
            plan.partials += ranges;
        }
    }
}

impl DecodePlan {
    /// The plan as the kernel reads it: where blocks begin, padded to 16 bytes, then 8 words an item.
    #[must_use]
    pub fn words(&self) -> Vec<u32> {
        let header = self.begins.len().next_multiple_of(4);
        let mut words = Vec::with_capacity(header + ITEM_WORDS * self.items.len());
        words.extend_from_slice(&self.begins);
        words.resize(header, 0);
        for item in &self.items {
            words.extend_from_slice(&[
                item.row,
                item.sequence,
                item.unit,
                item.first,
                item.end,
                item.range,
                item.ranges,
                item.partial,
            ]);
        }
        words
    }
}

/// The most words that a plan has.
#[must_use]
pub fn plan_words_max(queries: usize, units: usize, blocks: usize) -> usize {
    (blocks + 1).next_multiple_of(4) + ITEM_WORDS * (queries * units + blocks)
}

/// The most places in the workspace that a plan uses: only a block's first and last items are parts of something.
#[must_use]
pub fn partials_max(blocks: usize) -> usize {
    2 * blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queries(contexts: &[usize]) -> Vec<DecodeQuery> {
        let query = |(row, context): (usize, &usize)| DecodeQuery {
            row,
            sequence: row,
            context: *context,
        };
        contexts.iter().enumerate().map(query).collect()
    }

    #[test]
    fn one_long_context_is_shared_by_all_blocks_and_short_ones_are_whole() {
        let plan = plan(&queries(&[64 * 6, 0, 1]), 1, None, 4);
        let items: Vec<_> = plan
            .items
            .iter()
            .map(|item| (item.row, item.first, item.end, item.ranges))
            .collect();
        assert_eq!(
            items,
            [
                (0, 0, 64, 4),
                (0, 64, 192, 4),
                (0, 192, 320, 4),
                (0, 320, NO_END, 4),
                (2, 0, NO_END, 1)
            ]
        );
        assert_eq!(plan.begins, [0, 1, 2, 3, 5]);
        assert_eq!(plan.partials, 4);
    }

    #[test]
    fn without_work_blocks_have_none() {
        let plan = plan(&queries(&[0, 0]), 8, None, 3);
        assert_eq!(plan.begins, [0; 4]);
        assert!(plan.items.is_empty());
        assert_eq!(plan.words(), [0; 4]);
    }

    proptest! {
        #[test]
        fn each_token_of_each_unit_is_in_one_range_and_blocks_are_even(
            contexts in prop::collection::vec(0_usize..3000, 0..40),
            units in 1_usize..9,
            window in prop::option::of(1_usize..500),
            blocks in 1_usize..300,
        ) {
            let queries = queries(&contexts);
            let plan = plan(&queries, units, window, blocks);
            check_coverage(&plan, &queries, units, window)?;
            check_balance(&plan, &queries, units, window, blocks)?;
            prop_assert!(plan.words().len() <= plan_words_max(queries.len(), units, blocks));
            prop_assert!(plan.partials <= partials_max(blocks));
        }
    }

    fn check_coverage(
        plan: &DecodePlan,
        queries: &[DecodeQuery],
        units: usize,
        window: Option<usize>,
    ) -> Result<(), TestCaseError> {
        let mut partials = vec![false; plan.partials];
        let mut items = plan.items.iter();
        for query in queries.iter().filter(|query| query.context > 0) {
            for unit in 0..units {
                let visible = window.map_or(0, |window| query.context.saturating_sub(window));
                let mut next = visible / TILE * TILE;
                for range in 0.. {
                    let item = items.next().expect("each unit has its items");
                    prop_assert_eq!((item.row, item.unit), (query.row as u32, unit as u32));
                    prop_assert_eq!((item.first as usize, item.range), (next, range));
                    if item.ranges > 1 {
                        let place = &mut partials[(item.partial + item.range) as usize];
                        prop_assert!(!std::mem::replace(place, true), "a place is used once");
                    }
                    if item.range + 1 == item.ranges {
                        prop_assert_eq!(item.end, NO_END);
                        prop_assert!(next < query.context);
                        break;
                    }
                    prop_assert!(item.end > item.first && (item.end as usize) < query.context);
                    next = item.end as usize;
                }
            }
        }
        prop_assert!(items.next().is_none());
        prop_assert!(partials.iter().all(|used| *used));
        Ok(())
    }

    fn check_balance(
        plan: &DecodePlan,
        queries: &[DecodeQuery],
        units: usize,
        window: Option<usize>,
        blocks: usize,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(plan.begins.len(), blocks + 1);
        prop_assert_eq!(plan.begins[blocks] as usize, plan.items.len());
        let total: usize = queries
            .iter()
            .map(|query| units * tiles(query, window).len())
            .sum();
        for block in plan.begins.windows(2) {
            let items = &plan.items[block[0] as usize..block[1] as usize];
            let tiles_of = |item: &Item| {
                let end = item
                    .end
                    .min(queries[item.row as usize].context.next_multiple_of(TILE) as u32);
                (end - item.first) as usize / TILE
            };
            let tiles: usize = items.iter().map(tiles_of).sum();
            prop_assert!(
                tiles <= total.div_ceil(blocks),
                "{tiles} of {total} tiles in one of {blocks} blocks"
            );
            let split = items.iter().filter(|item| item.ranges > 1).count();
            prop_assert!(split <= 2);
        }
        Ok(())
    }
}
