//! Which steps a calibration measures: few, and far apart in everything that a step's time depends on.
//!
//! ```text
//! decode          batch 1, 2, 4 … max_num_seqs   × context short, (middle,) as long as there is room for
//!                 one batch of uneven contexts, whose total another has evenly
//! prefill         chunk max_batched_tokens / 4^i × past none, (middle,) as much as there is room for
//! mixed           some that decode, with one chunk, several, one with a past, one that fills the step
//! adapters        a batch with 1, 2, 4 … adapters in it
//! ```
//!
//! The distances are even in the logarithm, as the terms of the formula are powers: each is then seen both
//! where it is all of a step and where it is nothing.

use foresail_core::step_time::calibrated::CellChunk;

/// Most steps of a batch that decodes that are measured in a row.
pub const RUN_STEPS_MAX: usize = 15;

/// Tokens that a sequence has beyond its context before it is measured: one that its prompt ends with, and
/// one of the step before.
pub(super) const LEAD_TOKENS: usize = 2;

/// Tokens that a sequence needs room for beyond its context: those before, the run, and two that are not reached.
const TOKENS_BEYOND: usize = LEAD_TOKENS + RUN_STEPS_MAX + 2;

/// The shortest chunk, and the shortest context, that are worth a step.
const SMALLEST: usize = 8;

/// Where a short context is.
const SHORT_CONTEXT: usize = 32;

/// No engine has more: sequences of a step, tokens of a step and of a sequence, tokens of all, of a block, adapters.
/// With less than these, nothing here overflows and everything has room in memory.
const MOST: DesignLimits = DesignLimits {
    max_num_seqs: 1 << 16,
    max_batched_tokens: 1 << 24,
    max_model_len: 1 << 24,
    kv_tokens: 1 << 32,
    block_size: 1 << 16,
    adapters: 1 << 10,
};

/// From a chunk to the next.
const CHUNK_RATIO: usize = 4;

/// A step to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Tokens of each sequence that decodes, as many as fill whole KV blocks. In the KV cache, the step
    /// before has one more of each, and the first that is measured two.
    pub contexts: Vec<usize>,
    /// The pieces of prompts; pasts fill whole KV blocks.
    pub chunks: Vec<CellChunk>,
    /// Distinct adapters that its sequences use.
    pub adapters: usize,
}

/// What an engine may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesignLimits {
    /// Most sequences of a step.
    pub max_num_seqs: usize,
    /// Most tokens of a step.
    pub max_batched_tokens: usize,
    /// Most tokens of a sequence.
    pub max_model_len: usize,
    /// Tokens that the KV cache is to have room for.
    pub kv_tokens: usize,
    /// Tokens of a KV block.
    pub block_size: usize,
    /// Adapters that there are.
    pub adapters: usize,
}

/// Why no steps can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DesignError {
    /// What a step takes by batch, by context or by chunk cannot be told from so few.
    #[error(
        "too few points: with --max-num-seqs {}, --max-batched-tokens {} and --max-model-len {} there are {what} to \
         measure, and a fit needs two; raise {raise}",
        limits.max_num_seqs,
        limits.max_batched_tokens,
        limits.max_model_len
    )]
    TooFew {
        /// The limits.
        limits: DesignLimits,
        /// What there is too little of.
        what: String,
        /// The options that would help.
        raise: &'static str,
    },
    /// No engine has so many.
    #[error("{option} {value} is more than any engine has; give {most} at most")]
    TooMany {
        /// The option.
        option: &'static str,
        /// What it says.
        value: usize,
        /// What it may say.
        most: usize,
    },
}

/// The steps that a calibration measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Design {
    cells: Vec<Planned>,
    limits: DesignLimits,
}

impl Design {
    /// The steps for these limits.
    ///
    /// # Errors
    /// If the limits leave too few to tell anything by, or are beyond any engine's.
    pub fn new(limits: DesignLimits) -> Result<Self, DesignError> {
        limits.check()?;
        let maker = Maker { limits };
        maker.check()?;
        let mut cells = Vec::new();
        let made = [
            maker.decodes(),
            maker.prefills(),
            maker.mixed(),
            maker.adapted(),
        ];
        for cell in made.into_iter().flatten() {
            if maker.fits(&cell) && !cells.contains(&cell) {
                cells.push(cell);
            }
        }
        Ok(Self { cells, limits })
    }

    /// The steps.
    #[must_use]
    pub fn cells(&self) -> &[Planned] {
        &self.cells
    }

    /// What they keep to.
    #[must_use]
    pub fn limits(&self) -> DesignLimits {
        self.limits
    }

    /// KV blocks for the largest of them, and the few that a scheduler keeps free.
    #[must_use]
    pub fn num_blocks(&self) -> usize {
        let needs = self
            .cells
            .iter()
            .map(|cell| cell.blocks(self.limits.block_size));
        let most = needs.max().unwrap_or(0);
        // A driver keeps 1 % free of whoever is not the first.
        let longest = self.limits.max_model_len.div_ceil(self.limits.block_size);
        (most + most.div_ceil(50) + 2).max(longest)
    }
}

impl DesignLimits {
    /// Whether an engine could have them.
    ///
    /// # Errors
    /// If one is beyond any engine's.
    pub fn check(&self) -> Result<(), DesignError> {
        let each = [
            ("--max-num-seqs", self.max_num_seqs, MOST.max_num_seqs),
            (
                "--max-batched-tokens",
                self.max_batched_tokens,
                MOST.max_batched_tokens,
            ),
            ("--max-model-len", self.max_model_len, MOST.max_model_len),
            ("--kv-tokens", self.kv_tokens, MOST.kv_tokens),
            ("--block-size", self.block_size, MOST.block_size),
            ("the number of adapters", self.adapters, MOST.adapters),
        ];
        let beyond = each.into_iter().find(|(_, value, most)| value > most);
        match beyond {
            None => Ok(()),
            Some((option, value, most)) => Err(DesignError::TooMany {
                option,
                value,
                most,
            }),
        }
    }
}

impl Planned {
    /// Sequences that decode.
    #[must_use]
    pub fn decodes(&self) -> usize {
        self.contexts.len()
    }

    /// Tokens that it computes.
    #[must_use]
    pub fn tokens(&self) -> usize {
        let chunks = self.chunks.iter().map(|chunk| chunk.len as usize);
        self.contexts.len() + chunks.sum::<usize>()
    }

    /// KV blocks that its sequences hold in the end.
    fn blocks(&self, block_size: usize) -> usize {
        let decodes = self.contexts.iter().map(|context| context + TOKENS_BEYOND);
        let chunks = self
            .chunks
            .iter()
            .map(|chunk| chunk.past as usize + chunk.len as usize + LEAD_TOKENS);
        let tokens = decodes.chain(chunks);
        tokens.map(|tokens| tokens.div_ceil(block_size)).sum()
    }
}

/// Chooses steps.
struct Maker {
    limits: DesignLimits,
}

impl Maker {
    fn check(&self) -> Result<(), DesignError> {
        let limits = self.limits;
        let too_few = |what: &str, raise| DesignError::TooFew {
            limits,
            what: what.to_owned(),
            raise,
        };
        if limits.max_num_seqs < 2 {
            return Err(too_few("fewer than two batch sizes", "--max-num-seqs"));
        }
        if self.contexts(1).len() < 2 {
            return Err(too_few(
                "fewer than two contexts",
                "--max-model-len or --kv-tokens",
            ));
        }
        if self.chunks().len() < 2 {
            return Err(too_few(
                "fewer than two lengths of chunks",
                "--max-batched-tokens or --max-model-len",
            ));
        }
        Ok(())
    }

    /// Whether an engine of these limits computes the step in one.
    fn fits(&self, cell: &Planned) -> bool {
        let limits = &self.limits;
        let sequences = cell.contexts.len() + cell.chunks.len();
        let in_room = |context: &usize| context + TOKENS_BEYOND <= limits.max_model_len;
        let chunk_in_room = |chunk: &CellChunk| {
            chunk.past as usize + chunk.len as usize + LEAD_TOKENS <= limits.max_model_len
        };
        (1..=limits.max_num_seqs).contains(&sequences)
            && cell.tokens() <= limits.max_batched_tokens
            && cell.contexts.iter().all(in_room)
            && cell.chunks.iter().all(chunk_in_room)
            && cell.chunks.iter().all(|chunk| chunk.len > 0)
            && cell.blocks(limits.block_size) <= self.kv_blocks()
            && cell.adapters <= sequences
    }

    fn kv_blocks(&self) -> usize {
        self.limits.kv_tokens / self.limits.block_size
    }

    /// 1, 2, 4 … and the largest.
    fn batches(&self) -> Vec<usize> {
        let most = self.limits.max_num_seqs;
        let powers = (0..).map(|power| 1 << power);
        powers
            .take_while(|&batch| batch < most)
            .chain([most])
            .collect()
    }

    /// A batch in the middle of the logarithm.
    fn batch_middle(&self) -> usize {
        let batches = self.batches();
        batches[batches.len() / 2]
    }

    /// The longest context that so many sequences can all have.
    fn context_max(&self, batch: usize) -> usize {
        let limits = &self.limits;
        let model = limits.max_model_len.saturating_sub(TOKENS_BEYOND);
        let memory = (self.kv_blocks() / batch * limits.block_size).saturating_sub(TOKENS_BEYOND);
        self.whole_blocks(model.min(memory))
    }

    fn whole_blocks(&self, tokens: usize) -> usize {
        tokens / self.limits.block_size * self.limits.block_size
    }

    fn short(&self) -> usize {
        SHORT_CONTEXT.next_multiple_of(self.limits.block_size)
    }

    /// Between two in the logarithm, in whole blocks.
    fn middle(&self, low: usize, high: usize) -> usize {
        self.whole_blocks((low * high).isqrt())
    }

    /// A short context and as long a one as all of a batch can have, if they are apart.
    fn contexts(&self, batch: usize) -> Vec<usize> {
        let (short, longest) = (self.short(), self.context_max(batch));
        if longest < 2 * short {
            return if longest >= short {
                vec![short]
            } else {
                Vec::new()
            };
        }
        vec![short, longest]
    }

    fn decodes(&self) -> Vec<Planned> {
        let middle = self.batch_middle();
        let mut cells = Vec::new();
        for batch in self.batches() {
            let mut contexts = self.contexts(batch);
            let is_chosen = [1, middle, self.limits.max_num_seqs].contains(&batch);
            if let (true, [short, longest]) = (is_chosen, &contexts[..]) {
                contexts.push(self.middle(*short, *longest));
            }
            cells.extend(contexts.into_iter().map(|context| even(batch, context)));
        }
        cells.extend(self.uneven(middle));
        cells
    }

    /// Half of a batch with short contexts and half with long ones, which together have as many as if
    /// each had the middle of them.
    fn uneven(&self, batch: usize) -> Option<Planned> {
        let [short, longest] = self.contexts(batch)[..] else {
            return None;
        };
        let middle = self.middle(short, longest);
        let low = self.whole_blocks(middle / 4);
        let high = 2 * middle - low;
        let is_possible = batch.is_multiple_of(2) && high <= longest && low < middle;
        let half = batch / 2;
        is_possible.then(|| Planned {
            contexts: [vec![low; half], vec![high; half]].concat(),
            chunks: Vec::new(),
            adapters: 0,
        })
    }

    /// The lengths of chunks, longest first.
    fn chunks(&self) -> Vec<usize> {
        let limits = &self.limits;
        let room = limits.max_model_len.min(limits.kv_tokens);
        let longest = limits
            .max_batched_tokens
            .min(room.saturating_sub(LEAD_TOKENS + limits.block_size));
        let lens = std::iter::successors(Some(longest), |len| Some(len / CHUNK_RATIO));
        lens.take_while(|&len| len >= SMALLEST).collect()
    }

    /// The most whole blocks that a sequence can have before a chunk.
    fn past_max(&self, len: usize) -> usize {
        let room = self.limits.max_model_len.min(self.limits.kv_tokens);
        self.whole_blocks(room.saturating_sub(len + LEAD_TOKENS + self.limits.block_size))
    }

    fn prefills(&self) -> Vec<Planned> {
        let mut cells = Vec::new();
        for (index, len) in self.chunks().into_iter().enumerate() {
            cells.push(prefill(0, len));
            let most = self.past_max(len);
            if most < self.short() {
                continue;
            }
            cells.push(prefill(most, len));
            // A long chunk shows best how the time grows with what was before, and the longest takes long.
            if index == 1 {
                cells.push(prefill(self.middle(self.short(), most), len));
            }
        }
        cells
    }

    fn mixed(&self) -> Vec<Planned> {
        let limits = &self.limits;
        let (middle, most) = (self.batch_middle(), limits.max_num_seqs);
        let (chunks, short) = (self.chunks(), self.short());
        let (long, longest) = (chunks[1], chunks[0]);
        let shorter = *chunks.get(2).unwrap_or(&long);
        let far = |batch: usize| self.contexts(batch).last().copied().unwrap_or(short);
        let with = |batch: usize, context: usize, chunks: Vec<CellChunk>| Planned {
            chunks,
            ..even(batch, context)
        };
        let past = self.middle(short, self.past_max(long).max(short));
        // What is left of a full step, and of a sequence's room.
        let rest = (limits.max_batched_tokens.saturating_sub(middle)).min(longest);
        vec![
            with(1, short, vec![chunk(0, shorter)]),
            with(1, far(1), vec![chunk(0, long)]),
            with(middle, short, vec![chunk(0, long)]),
            with(middle, far(middle), vec![chunk(past, shorter)]),
            with(middle, far(2 * middle), vec![chunk(0, rest)]),
            with(middle, short, vec![chunk(0, shorter); 2]),
            with(
                most.saturating_sub(4).max(1),
                short,
                vec![chunk(0, shorter); 4],
            ),
            with(0, 0, vec![chunk(0, shorter); 4]),
        ]
    }

    fn adapted(&self) -> Vec<Planned> {
        let counts = (0..)
            .map(|power| 1 << power)
            .take_while(|count| *count < self.limits.adapters)
            .chain([self.limits.adapters]);
        let (batch, short) = (self.batch_middle(), self.short());
        let len = self.chunks()[1];
        counts
            .filter(|&count| count > 0)
            .flat_map(|adapters| {
                let decodes = Planned {
                    adapters,
                    ..even(batch.max(adapters), short)
                };
                let mixed = Planned {
                    chunks: vec![chunk(0, len)],
                    ..decodes.clone()
                };
                [decodes, mixed]
            })
            .collect()
    }
}

fn even(batch: usize, context: usize) -> Planned {
    Planned {
        contexts: vec![context; batch],
        chunks: Vec::new(),
        adapters: 0,
    }
}

fn prefill(past: usize, len: usize) -> Planned {
    Planned {
        contexts: Vec::new(),
        chunks: vec![chunk(past, len)],
        adapters: 0,
    }
}

/// Lengths are below `max_model_len`, which is a 32-bit number in every engine.
fn chunk(past: usize, len: usize) -> CellChunk {
    CellChunk {
        past: past as u32,
        len: len as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cpu() -> DesignLimits {
        DesignLimits {
            max_num_seqs: 64,
            max_batched_tokens: 512,
            max_model_len: 2048,
            kv_tokens: 32_768,
            block_size: 16,
            adapters: 4,
        }
    }

    #[test]
    fn a_design_covers_its_limits() {
        let design = Design::new(cpu()).unwrap();
        let cells = design.cells();
        let decodes: Vec<_> = cells.iter().filter(|cell| cell.chunks.is_empty()).collect();
        let batch_max = decodes.iter().map(|cell| cell.decodes()).max();
        assert_eq!(batch_max, Some(64));
        assert!(decodes.iter().any(|cell| cell.decodes() == 1));
        let context = |cell: &&Planned| cell.contexts.iter().copied().max();
        assert_eq!(decodes.iter().filter_map(context).max(), Some(2016));
        assert_eq!(cells.iter().map(Planned::tokens).max(), Some(512));
        let with = |is_so: fn(&Planned) -> bool| cells.iter().filter(|cell| is_so(cell)).count();
        assert!(with(|cell| cell.decodes() > 0 && cell.chunks.len() == 1) >= 4);
        assert!(with(|cell| cell.decodes() > 0 && cell.chunks.len() > 1) >= 2);
        assert!(with(|cell| cell.decodes() == 0 && cell.chunks.len() > 1) == 1);
        assert!(with(|cell| cell.chunks.iter().any(|chunk| chunk.past > 1500)) >= 3);
        assert!(with(|cell| cell.adapters == 4) == 2);
        assert!(cells.len() < 50, "{} steps are a small grid", cells.len());
    }

    #[test]
    fn limits_beyond_any_engine_are_refused() {
        let mut limits = [cpu(); 6];
        limits[0].max_num_seqs = usize::MAX;
        limits[1].max_batched_tokens = usize::MAX;
        limits[2].max_model_len = usize::MAX;
        limits[3].kv_tokens = usize::MAX;
        limits[4].block_size = usize::MAX;
        limits[5].adapters = usize::MAX;
        for limits in limits {
            let error = Design::new(limits).unwrap_err();
            assert!(matches!(error, DesignError::TooMany { .. }), "{error}");
        }
        // The largest of all are no overflow, and no heap of steps.
        let design = Design::new(MOST).unwrap();
        assert!(design.cells().len() < 100, "{}", design.cells().len());
    }

    #[test]
    fn one_batch_has_the_total_of_another_unevenly() {
        let design = Design::new(cpu()).unwrap();
        let total = |cell: &Planned| cell.contexts.iter().sum::<usize>();
        let is_uneven = |cell: &&Planned| cell.contexts.windows(2).any(|pair| pair[0] != pair[1]);
        let uneven: Vec<_> = design.cells().iter().filter(is_uneven).collect();
        let [uneven] = uneven[..] else {
            panic!("{uneven:?}")
        };
        let is_twin = |cell: &&Planned| {
            cell.decodes() == uneven.decodes()
                && cell.chunks.is_empty()
                && total(cell) == total(uneven)
        };
        assert_eq!(design.cells().iter().filter(is_twin).count(), 2);
    }

    #[test]
    fn limits_without_room_are_refused_with_a_remedy() {
        let refused = |limits| Design::new(limits).unwrap_err().to_string();
        let short = refused(DesignLimits {
            max_model_len: 60,
            ..cpu()
        });
        assert!(short.contains("fewer than two contexts"), "{short}");
        assert!(short.contains("raise --max-model-len"), "{short}");
        let narrow = refused(DesignLimits {
            max_batched_tokens: 16,
            max_num_seqs: 8,
            ..cpu()
        });
        assert!(
            narrow.contains("fewer than two lengths of chunks"),
            "{narrow}"
        );
    }

    proptest! {
        #[test]
        fn every_step_is_possible_and_there_once(
            max_num_seqs in 2_usize..300,
            more_tokens in 32_usize..9000,
            max_model_len in 200_usize..10_000,
            kv_tokens in 1_000_usize..100_000,
            block_size in prop::sample::select(vec![8_usize, 16, 64]),
            adapters in 0_usize..9,
        ) {
            let limits = DesignLimits {
                max_num_seqs,
                max_batched_tokens: max_num_seqs + more_tokens,
                max_model_len,
                kv_tokens,
                block_size,
                adapters,
            };
            let Ok(design) = Design::new(limits) else { return Ok(()) };
            for (index, cell) in design.cells().iter().enumerate() {
                prop_assert!(!design.cells()[..index].contains(cell));
                prop_assert!(cell.tokens() <= limits.max_batched_tokens);
                prop_assert!(cell.decodes() + cell.chunks.len() <= max_num_seqs);
                prop_assert!(cell.contexts.iter().all(|context| context.is_multiple_of(block_size)));
                prop_assert!(cell.chunks.iter().all(|chunk| (chunk.past as usize).is_multiple_of(block_size)));
                prop_assert!(cell.blocks(block_size) <= design.num_blocks());
            }
            let batches: Vec<_> = design.cells().iter().map(Planned::decodes).collect();
            prop_assert!(batches.contains(&1));
        }
    }
}
