//! The invariants of a scheduler, checked one by one. For tests, and for a live engine that runs paranoid.

use std::collections::BTreeMap;

use super::scheduler::NEVER;
use super::sequence::State;
use super::{BlockId, Scheduler, SequenceId};

impl Scheduler {
    /// Checks every invariant.
    ///
    /// # Panics
    /// If one does not hold, which is a defect of the scheduler.
    pub fn check(&self) {
        self.check_blocks();
        self.check_index();
        self.check_limits();
        self.check_tables();
        self.check_waiting();
        self.check_counters();
    }

    /// How many tables hold each block.
    fn holders(&self) -> BTreeMap<BlockId, u32> {
        let mut holders = BTreeMap::new();
        for id in &self.running {
            for block in self.table(*id) {
                *holders.entry(*block).or_insert(0) += 1;
            }
        }
        holders
    }

    /// I1: every block is held exactly by the tables that name it, or is free once.
    fn check_blocks(&self) {
        let holders = self.holders();
        let (plain, cached) = self.blocks.free_lists();
        for (block, tables) in &holders {
            match self.blocks.sealed(*block) {
                Some((_, refs)) => assert_eq!(refs, *tables, "references of block {block}"),
                None => assert_eq!(*tables, 1, "open block {block} is shared"),
            }
        }
        let mut free: Vec<_> = plain.iter().chain(&cached).copied().collect();
        free.sort_unstable();
        assert!(
            free.windows(2).all(|pair| pair[0] != pair[1]),
            "a block is free twice"
        );
        assert!(
            free.iter().all(|block| !holders.contains_key(block)),
            "a held block is free"
        );
        assert_eq!(
            free.len() + holders.len(),
            self.blocks.total() as usize,
            "a block is lost"
        );
        assert_eq!(free.len(), self.blocks.free() as usize);
        assert!(
            plain
                .iter()
                .all(|block| self.blocks.sealed(*block).is_none()),
            "a plain block has contents"
        );
        assert!(cached.iter().all(|block| {
            self.blocks
                .sealed(*block)
                .is_some_and(|(_, refs)| refs == 0)
        }));
    }

    /// I2: what the index finds has that hash, and every sealed block is found.
    fn check_index(&self) {
        let sealed = (0..self.blocks.total())
            .filter_map(|block| Some((block, self.blocks.sealed(block)?.0)));
        let mut count = 0;
        for (block, hash) in sealed {
            assert_eq!(self.blocks.cached(hash), Some(block));
            count += 1;
        }
        assert_eq!(count, self.blocks.indexed());
    }

    /// I3: the limits hold.
    fn check_limits(&self) {
        assert!(self.running.len() <= self.config.max_num_seqs as usize);
        assert!(self.adapters.distinct() <= self.config.max_loras as usize);
        assert!(!self.in_flight || self.step.tokens() <= self.config.max_batched_tokens);
        let used: std::collections::BTreeSet<_> = self
            .running
            .iter()
            .filter_map(|id| self.sequences[*id as usize].adapter)
            .collect();
        assert_eq!(used.len(), self.adapters.distinct());
    }

    /// I4, I5: each piece of work has its blocks, samples if and only if it
    /// comes to the end, and writes no block that is shared unless it fills it.
    fn check_tables(&self) {
        if !self.in_flight {
            return;
        }
        let block_size = self.config.block_size;
        for work in self.work() {
            let sequence = &self.sequences[work.sequence as usize];
            let end = work.chunk.past + work.chunk.len;
            assert!(work.chunk.len >= 1);
            assert!(
                sequence.table.len() as u32 >= end.div_ceil(block_size),
                "work without blocks"
            );
            assert_eq!(work.chunk.past, sequence.computed(self.steps));
            let decodes = matches!(sequence.state, State::Decode { .. });
            assert_eq!(work.chunk.sample, decodes || end == sequence.known);
            if !end.is_multiple_of(block_size) {
                let open = sequence.table[(end / block_size) as usize];
                assert!(
                    self.blocks.sealed(open).is_none(),
                    "an unfinished block has contents"
                );
            }
        }
    }

    /// I6: a waiting sequence holds nothing; a prefix from the cache leaves a token to compute.
    fn check_waiting(&self) {
        for id in &self.waiting {
            let sequence = &self.sequences[*id as usize];
            assert_eq!(sequence.state, State::Waiting);
            assert!(sequence.table.is_empty() && sequence.left >= 1);
        }
        for id in &self.prefilling {
            let sequence = &self.sequences[*id as usize];
            assert!(sequence.computed(self.steps) < sequence.known);
        }
    }

    /// What is kept beside the sequences agrees with them.
    fn check_counters(&self) {
        let decoding: Vec<SequenceId> = self
            .running
            .iter()
            .copied()
            .filter(|id| self.decodes(*id))
            .collect();
        assert_eq!(self.decodes as usize, decoding.len());
        let past: u64 = decoding
            .iter()
            .map(|id| u64::from(self.sequences[*id as usize].computed(self.steps)))
            .sum();
        assert_eq!(self.decode_past, past);
        let tickets: Vec<u64> = self
            .running
            .iter()
            .map(|id| self.sequences[*id as usize].ticket)
            .collect();
        assert!(
            tickets.is_sorted(),
            "running sequences are not in order of age"
        );
        assert_eq!(
            self.next_finish,
            self.finish_at.iter().copied().min().unwrap_or(NEVER)
        );
        assert_eq!(self.prefilling.len() + decoding.len(), self.running.len());
        let in_ring: usize = (0..u64::from(self.config.block_size))
            .map(|step| self.ring.due(step).len())
            .sum();
        assert_eq!(in_ring, decoding.len());
        let sealing = decoding
            .iter()
            .filter(|id| self.config.prefix_caching && self.sequences[**id as usize].sealing());
        assert_eq!(self.sealing_decodes as usize, sealing.count());
    }

    fn decodes(&self, id: SequenceId) -> bool {
        matches!(self.sequences[id as usize].state, State::Decode { .. })
    }
}
