//! The scheduler: what the next step computes.

use std::collections::VecDeque;

use super::adapters::Adapters;
use super::ring::Ring;
use super::sequence::{Sequence, State};
use super::step::{Step, Work};
use super::{BlockId, Blocks, Config, ConfigError, Content, Reject, Request, SequenceId};
use crate::step_time::Chunk;

/// The continuous-batching scheduler of one replica.
///
/// Each step takes every decoding sequence, then the prompts that are being
/// computed, then as many waiting ones as the token budget, the batch limit,
/// the adapters and the KV blocks allow, first come first served. When blocks
/// run out, the youngest running sequence gives its own up and is computed
/// again later (preemption by recompute, as in vLLM).
#[derive(Clone, Debug)]
pub struct Scheduler {
    pub(super) config: Config,
    pub(super) sequences: Vec<Sequence>,
    pub(super) unused: Vec<SequenceId>,
    pub(super) waiting: VecDeque<SequenceId>,
    /// Running sequences, oldest first.
    pub(super) running: Vec<SequenceId>,
    /// For each of `running`, the step count at which it is done; `NEVER` in prefill.
    pub(super) finish_at: Vec<u64>,
    /// Those of `running` that are in prefill, oldest first.
    pub(super) prefilling: Vec<SequenceId>,
    pub(super) ring: Ring,
    pub(super) blocks: Blocks,
    pub(super) adapters: Adapters,
    /// Steps committed.
    pub(super) steps: u64,
    pub(super) next_ticket: u64,
    /// The least of `finish_at`.
    pub(super) next_finish: u64,
    /// Decoding sequences, and the tokens they have in the KV cache.
    pub(super) decodes: u32,
    pub(super) decode_past: u64,
    /// Decoding sequences whose next full block may be shared.
    pub(super) sealing_decodes: u32,
    pub(super) blocked: Blocked,
    pub(super) in_flight: bool,
    pub(super) step: Step,
    pub(super) finished: Vec<SequenceId>,
    /// Reused by functions that walk a bucket while they change it.
    pub(super) scratch: Vec<BlockId>,
}

/// The step count of sequences that have no end in sight.
pub(super) const NEVER: u64 = u64::MAX;

/// Why the head of the waiting queue was not admitted when that was last tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// It was not tried since something changed, or nothing waits.
    Unknown,
    /// Too few free blocks; they only get fewer until something ends.
    Memory,
    /// All that wait need adapters that do not fit in the batch.
    Adapters,
}

/// What the driver says of a sampled token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// It ends the sequence (end-of-sequence token, or a stop string). The length limit is the scheduler's own.
    Stop,
}

/// Commands and questions.
impl Scheduler {
    /// A scheduler with nothing to do.
    ///
    /// # Errors
    /// If the limits leave no room to work.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            sequences: Vec::new(),
            unused: Vec::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            finish_at: Vec::new(),
            prefilling: Vec::new(),
            ring: Ring::new(config.block_size),
            blocks: Blocks::new(config.num_blocks),
            adapters: Adapters::default(),
            steps: 0,
            next_ticket: 0,
            next_finish: NEVER,
            decodes: 0,
            decode_past: 0,
            sealing_decodes: 0,
            blocked: Blocked::Unknown,
            in_flight: false,
            step: Step::default(),
            finished: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// Puts a request at the end of the waiting queue.
    ///
    /// # Errors
    /// If it could never be served, however long it waited.
    pub fn add(&mut self, request: Request) -> Result<SequenceId, Reject> {
        self.check_request(&request)?;
        let id = match self.unused.pop() {
            Some(id) => {
                let table = std::mem::take(&mut self.sequences[id as usize].table);
                self.sequences[id as usize] = Sequence::new(&request, table);
                id
            }
            None => {
                self.sequences.push(Sequence::new(&request, Vec::new()));
                (self.sequences.len() - 1) as SequenceId
            }
        };
        self.waiting.push_back(id);
        if self.blocked == Blocked::Adapters {
            self.blocked = Blocked::Unknown;
        }
        Ok(id)
    }

    /// Whether a request could be served at all, without adding it.
    ///
    /// # Errors
    /// Why it could not, however long it waited.
    pub fn check_request(&self, request: &Request) -> Result<(), Reject> {
        if request.prompt == 0 || request.max_new == 0 {
            return Err(Reject::Empty);
        }
        let total = u64::from(request.prompt) + u64::from(request.max_new);
        if total > u64::from(self.config.max_model_len) {
            return Err(Reject::TooLong);
        }
        // The last token is sampled but never written to the cache.
        if (total - 1).div_ceil(u64::from(self.config.block_size))
            > u64::from(self.config.num_blocks)
        {
            return Err(Reject::NeverFits);
        }
        if request.adapter.is_some() && self.config.max_loras == 0 {
            return Err(Reject::NoAdapters);
        }
        Ok(())
    }

    /// Whether a sequence is in the batch; if not, it waits to be admitted.
    #[must_use]
    pub fn is_running(&self, id: SequenceId) -> bool {
        self.running.contains(&id)
    }

    /// Whether nothing runs or waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Sequences in the batch.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.running.len() as u32
    }

    /// Sequences that wait to be admitted.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.len() as u32
    }

    /// Prompt tokens that are still to be computed: of the sequences that wait,
    /// and of those whose prompts are under way.
    #[must_use]
    pub fn prompt_tokens_waiting(&self) -> u64 {
        let ids = self.waiting.iter().chain(&self.prefilling);
        let left = ids.map(|id| {
            let sequence = &self.sequences[*id as usize];
            let computed = sequence.computed(self.steps);
            u64::from(sequence.known.saturating_sub(computed))
        });
        left.sum()
    }

    /// The sequences that decode, and the tokens they have in the KV cache together.
    #[must_use]
    pub fn decoding(&self) -> (u32, u64) {
        (self.decodes, self.decode_past)
    }

    /// The distinct adapters that the sequences of the batch use.
    #[must_use]
    pub fn adapters_in_batch(&self) -> u32 {
        self.adapters.distinct() as u32
    }

    /// Tokens that a sequence has still to generate.
    #[must_use]
    pub fn left(&self, id: SequenceId) -> u32 {
        let sequence = &self.sequences[id as usize];
        match sequence.state {
            State::Decode { finish_at, .. } => (finish_at - self.steps) as u32,
            _ => sequence.left,
        }
    }

    /// KV blocks in use when `steps` more steps of the present batch have been planned.
    #[must_use]
    pub fn blocks_used_after(&self, steps: u32) -> u32 {
        let demand = self.ring.demand(self.steps, self.decodes, steps);
        self.blocks.total() - self.blocks.free() + demand as u32
    }

    /// The blocks of a sequence, in order; while it runs, only ever appended to.
    #[must_use]
    pub fn table(&self, id: SequenceId) -> &[BlockId] {
        &self.sequences[id as usize].table
    }

    /// The step that was planned last.
    #[must_use]
    pub fn planned(&self) -> &Step {
        &self.step
    }

    /// The step in flight, sequence by sequence: decodes, oldest first, then chunks.
    pub fn work(&self) -> impl Iterator<Item = Work> {
        let decodes = self.running.iter().filter_map(|id| {
            let sequence = &self.sequences[*id as usize];
            let past = sequence.computed(self.steps);
            matches!(sequence.state, State::Decode { .. }).then_some(Work {
                sequence: *id,
                chunk: Chunk {
                    past,
                    len: 1,
                    sample: true,
                },
            })
        });
        let chunks = self.step.chunk_sequences.iter().zip(&self.step.chunks);
        decodes.chain(chunks.map(|(id, chunk)| Work {
            sequence: *id,
            chunk: *chunk,
        }))
    }
}

/// Planning a step.
impl Scheduler {
    /// Plans the next step. It is empty if nothing can be computed: because
    /// nothing is there, or because the last running sequence was preempted;
    /// in that case schedule again.
    ///
    /// # Panics
    /// If the step before has not been committed.
    pub fn schedule(&mut self, content: &mut impl Content) -> &Step {
        assert!(!self.in_flight, "commit the step in flight first");
        self.step.clear();
        self.grow_decodes();
        self.continue_prefills();
        // Contents are told only now: a sequence preempted above fills no block in this step.
        self.seal_decodes(self.steps, content);
        self.seal_chunks(content);
        if self.step.preempted.is_empty() {
            self.admit(content);
        } else {
            self.blocked = Blocked::Unknown;
        }
        self.step.decodes = self.decodes;
        self.step.decode_past = self.decode_past;
        self.in_flight = !self.step.is_empty();
        &self.step
    }

    /// Gives a block to each decoding sequence that is at the end of its own.
    fn grow_decodes(&mut self) {
        let mut due = std::mem::take(&mut self.scratch);
        due.clear();
        due.extend(self.ring.due(self.steps).iter().map(|(_, id)| *id));
        for &id in &due {
            while matches!(self.sequences[id as usize].state, State::Decode { .. }) {
                if let Some(block) = self.blocks.alloc() {
                    self.sequences[id as usize].table.push(block);
                    break;
                }
                self.preempt_youngest();
            }
        }
        self.scratch = due;
    }

    /// Plans a chunk for each sequence in prefill, oldest first.
    fn continue_prefills(&mut self) {
        let mut budget = self.config.max_batched_tokens - self.decodes;
        let mut index = 0;
        while budget > 0
            && let Some(&id) = self.prefilling.get(index)
        {
            let sequence = &self.sequences[id as usize];
            let past = sequence.computed(self.steps);
            let len = (sequence.known - past)
                .min(self.config.prefill_chunk)
                .min(budget);
            let need = (past + len).div_ceil(self.config.block_size) - sequence.table.len() as u32;
            while need > self.blocks.free() && self.prefilling.get(index) == Some(&id) {
                self.preempt_youngest();
            }
            if self.prefilling.get(index) == Some(&id) {
                self.blocks
                    .alloc_into(&mut self.sequences[id as usize].table, need);
                self.plan_chunk(id, past, len);
                budget -= len;
                index += 1;
            }
        }
        self.step.continued = self.step.chunks.len();
    }

    fn plan_chunk(&mut self, id: SequenceId, past: u32, len: u32) {
        let sample = past + len == self.sequences[id as usize].known;
        self.step.chunks.push(Chunk { past, len, sample });
        self.step.chunk_sequences.push(id);
    }

    /// Admits waiting sequences in order while they fit.
    fn admit(&mut self, content: &mut impl Content) {
        let planned: u32 = self.step.chunks.iter().map(|chunk| chunk.len).sum();
        let mut budget = self.config.max_batched_tokens - self.decodes - planned;
        self.blocked = Blocked::Unknown;
        let mut place = 0;
        while budget > 0 && self.running.len() < self.config.max_num_seqs as usize {
            let Some(&id) = self.waiting.get(place) else {
                // Those that wait were all passed over for their adapters.
                if place > 0 {
                    self.blocked = Blocked::Adapters;
                }
                return;
            };
            if !self
                .adapters
                .fits(self.sequences[id as usize].adapter, self.config.max_loras)
            {
                place += 1;
                continue;
            }
            let Some(len) = self.try_admit(id, budget, content) else {
                self.blocked = Blocked::Memory;
                return;
            };
            self.waiting.remove(place);
            budget -= len;
        }
    }

    /// Admits a sequence if its first chunk fits, and returns the chunk's length.
    fn try_admit(
        &mut self,
        id: SequenceId,
        budget: u32,
        content: &mut impl Content,
    ) -> Option<u32> {
        let free_hits = self.find_prefix(id, content);
        let hits = self.scratch.len() as u32;
        let past = hits * self.config.block_size;
        let len = (self.sequences[id as usize].known - past)
            .min(self.config.prefill_chunk)
            .min(budget);
        let need = (past + len).div_ceil(self.config.block_size) - hits;
        let reserve = if self.running.is_empty() {
            0
        } else {
            self.config.watermark
        };
        if self.blocks.free() - free_hits < need + reserve {
            return None;
        }
        for &block in &self.scratch {
            self.blocks.acquire(block);
        }
        let sequence = &mut self.sequences[id as usize];
        sequence.table.extend(&self.scratch);
        sequence.sealed = hits;
        self.blocks.alloc_into(&mut sequence.table, need);
        sequence.state = State::Prefill { computed: past };
        sequence.ticket = self.next_ticket;
        let adapter = sequence.adapter;
        self.next_ticket += 1;
        self.adapters.join(adapter);
        self.running.push(id);
        self.finish_at.push(NEVER);
        self.prefilling.push(id);
        self.plan_chunk(id, past, len);
        self.seal(id, past + len, content);
        Some(len)
    }

    /// Finds the cached blocks that a waiting sequence starts with, into
    /// `scratch`, and returns how many of them are free. At least one token is
    /// left to compute, since its logits are needed.
    fn find_prefix(&mut self, id: SequenceId, content: &mut impl Content) -> u32 {
        self.scratch.clear();
        let sequence = &self.sequences[id as usize];
        if !self.config.prefix_caching || !sequence.cacheable {
            return 0;
        }
        let mut free = 0;
        for block in 0..(sequence.known - 1) / self.config.block_size {
            let Some(found) = content
                .hash(id, block)
                .and_then(|hash| self.blocks.cached(hash))
            else {
                break;
            };
            free += u32::from(self.blocks.is_free(found));
            self.scratch.push(found);
        }
        free
    }

    /// Takes the youngest running sequence's blocks away; it will be the next to be admitted.
    fn preempt_youngest(&mut self) {
        let id = *self
            .running
            .last()
            .expect("a sequence that needs blocks is running");
        let sequence = &mut self.sequences[id as usize];
        if let State::Decode { finish_at, .. } = sequence.state {
            sequence.known = sequence.computed(self.steps) + 1;
            sequence.left = (finish_at - self.steps) as u32;
        }
        self.stop_running(self.running.len() - 1);
        self.sequences[id as usize].state = State::Waiting;
        self.waiting.push_front(id);
        self.step.preempted.push(id);
    }
}

/// Telling the blocks what they contain.
impl Scheduler {
    /// Seals the blocks that decoding sequences fill in the step after `steps` committed ones.
    pub(super) fn seal_decodes(&mut self, steps: u64, content: &mut impl Content) {
        if self.sealing_decodes == 0 {
            return;
        }
        for place in 0..self.ring.due(steps + 1).len() {
            let (_, id) = self.ring.due(steps + 1)[place];
            let filled = self.sequences[id as usize].computed(steps) + 1;
            self.seal(id, filled, content);
        }
    }

    fn seal_chunks(&mut self, content: &mut impl Content) {
        for index in 0..self.step.chunks.len() {
            let (id, chunk) = (self.step.chunk_sequences[index], self.step.chunks[index]);
            self.seal(id, chunk.past + chunk.len, content);
        }
    }

    /// Seals the blocks of a sequence that are full once `computed` tokens are in the cache.
    fn seal(&mut self, id: SequenceId, computed: u32, content: &mut impl Content) {
        let sequence = &mut self.sequences[id as usize];
        if !self.config.prefix_caching || !sequence.sealing() {
            return;
        }
        while sequence.sealed < computed / self.config.block_size {
            let Some(hash) = content.hash(id, sequence.sealed) else {
                // What follows unknown contents is unknown too.
                sequence.exhausted = true;
                self.sealing_decodes -= u32::from(matches!(sequence.state, State::Decode { .. }));
                return;
            };
            self.blocks
                .seal(sequence.table[sequence.sealed as usize], hash);
            sequence.sealed += 1;
        }
    }
}

/// Completing a step.
impl Scheduler {
    /// Takes note that the step in flight has been computed. `verdict` is asked
    /// for each sequence that sampled a token. Returns the sequences that are
    /// done, oldest first; their ids may be used again after the next `add`.
    ///
    /// # Panics
    /// If no step is in flight.
    pub fn commit(&mut self, mut verdict: impl FnMut(SequenceId) -> Verdict) -> &[SequenceId] {
        self.count_step();
        for (id, finish_at) in self.running.iter().zip(&mut self.finish_at) {
            let sampled = *finish_at != NEVER && !self.sequences[*id as usize].aborted;
            if sampled && verdict(*id) == Verdict::Stop {
                *finish_at = self.steps;
                self.next_finish = self.steps;
            }
        }
        self.sweep_finished();
        &self.finished
    }

    /// As [`Scheduler::commit`] when no token ends its sequence early, without
    /// looking at each: for whoever knows the lengths beforehand.
    ///
    /// # Panics
    /// If no step is in flight.
    #[inline(always)]
    pub fn commit_to_length(&mut self) -> &[SequenceId] {
        self.count_step();
        self.sweep_finished();
        &self.finished
    }

    fn count_step(&mut self) {
        assert!(self.in_flight, "schedule a step first");
        self.in_flight = false;
        self.steps += 1;
        self.decode_past += u64::from(self.decodes);
        for index in 0..self.step.chunks.len() {
            self.commit_chunk(self.step.chunk_sequences[index], self.step.chunks[index]);
        }
    }

    fn commit_chunk(&mut self, id: SequenceId, chunk: Chunk) {
        let computed = chunk.past + chunk.len;
        let sequence = &mut self.sequences[id as usize];
        if let State::Prefill { computed: in_cache } = &mut sequence.state {
            *in_cache = computed;
        }
        if !chunk.sample || sequence.aborted {
            return;
        }
        sequence.left -= 1;
        let finish_at = self.steps + u64::from(sequence.left);
        let offset = i64::from(computed) - self.steps as i64;
        sequence.state = State::Decode { offset, finish_at };
        self.ring.insert(offset, sequence.ticket, id);
        self.decodes += 1;
        self.decode_past += u64::from(computed);
        self.sealing_decodes += u32::from(self.config.prefix_caching && sequence.sealing());
        let place = self
            .running
            .iter()
            .rposition(|running| *running == id)
            .expect("it is running");
        self.finish_at[place] = finish_at;
        self.next_finish = self.next_finish.min(finish_at);
        self.prefilling.retain(|prefilling| *prefilling != id);
    }
}
