//! A device for tests, whose KV cache is real: each place of each block holds
//! a hash of the adapter and of all tokens up to there. What it samples is made
//! of that hash, so a row, a block or an adapter that is mixed up shows in the
//! tokens, and stale contents are found before they are used.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::backend::{Backend, Limits, Row, RowOutput, StepError, StepInput};
use crate::sampling::{Logprobs, SampleError, Sampled};
use crate::weights::Adapter;

pub(super) const VOCAB_SIZE: u32 = 50;

/// Nothing can be sampled after this token, which is never sampled itself.
pub(super) const UNSPEAKABLE: u32 = VOCAB_SIZE - 1;

/// Steps that the device does before it is asked to.
const AHEAD_MAX: u32 = 5;

/// A hash of an adapter and some tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain(u64);

impl Chain {
    pub(super) fn root(adapter: Option<&str>) -> Self {
        let name = adapter.unwrap_or("").bytes();
        name.fold(Self(0x9e37_79b9_7f4a_7c15), |chain, byte| {
            chain.then(u32::from(byte) + 1)
        })
    }

    pub(super) fn then(self, token: u32) -> Self {
        // The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
        let mut z = (self.0 ^ u64::from(token)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(z ^ (z >> 31))
    }

    pub(super) fn of(adapter: Option<&str>, tokens: &[u32]) -> Self {
        let root = Self::root(adapter);
        tokens.iter().fold(root, |chain, token| chain.then(*token))
    }

    /// The token that follows.
    pub(super) fn token(self, banned: &[u32]) -> u32 {
        let first = (self.0 % u64::from(UNSPEAKABLE)) as u32;
        let round = (0..UNSPEAKABLE).map(|ahead| (first + ahead) % UNSPEAKABLE);
        let mut allowed = round.filter(|token| !banned.contains(token));
        allowed.next().unwrap_or(first)
    }
}

pub(super) fn logprobs(before: Chain, token: u32, top: u32) -> Logprobs {
    let logprob = -((before.0 % 1_000) as f32) / 100.0;
    Logprobs {
        token,
        logprob,
        rank: 1,
        top: (0..top).map(|place| (place, logprob)).collect(),
    }
}

/// What a test tells the device, and what it learns from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
pub(super) struct Told {
    /// What the next steps do, one each; then they do as they should.
    pub(super) faults: VecDeque<Option<Fault>>,
    /// Loads of these adapters fail.
    pub(super) broken: Vec<String>,
    /// Whether the device is gone once a step has failed.
    pub(super) is_mortal: bool,
    /// Rows of steps that failed.
    pub(super) rows_failed: usize,
    /// What each step was told of the steps after it.
    pub(super) ahead: Vec<u32>,
    /// Whether each step continued.
    pub(super) continued: Vec<bool>,
    /// Adapters in slots.
    pub(super) slots: Vec<Option<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Error,
    Panic,
    OneOutputTooFew,
    TokenOutOfVocabulary,
    NothingSampled,
}

impl Orders {
    pub(super) fn told<T>(&self, of: impl FnOnce(&mut Told) -> T) -> T {
        of(&mut self.0.lock().unwrap())
    }
}

pub(super) struct Device {
    block_size: usize,
    orders: Orders,
    /// What is in each place of each block.
    cache: Vec<Chain>,
}

impl Device {
    pub(super) fn new(limits: &Limits, orders: &Orders) -> Self {
        orders.told(|told| told.slots = vec![None; limits.max_loras]);
        Self {
            block_size: limits.block_size,
            orders: orders.clone(),
            cache: vec![Chain(0); limits.num_blocks * limits.block_size],
        }
    }

    fn adapter(&self, row: &Row<'_>) -> Option<String> {
        let slot = row.adapter?;
        let name = self.orders.told(|told| told.slots[slot].clone());
        Some(name.expect("a row's adapter is loaded"))
    }

    /// The hashes of a row's known tokens, before each and after the last.
    fn chains(&self, row: &Row<'_>) -> Vec<Chain> {
        let root = Chain::root(self.adapter(row).as_deref());
        let mut chains = vec![root];
        for token in row.known {
            chains.push(chains[chains.len() - 1].then(*token));
        }
        chains
    }

    fn place(&self, row: &Row<'_>, position: usize) -> usize {
        row.table[position / self.block_size] as usize * self.block_size
            + position % self.block_size
    }

    fn write(&mut self, row: &Row<'_>) {
        assert!(
            row.len > 0 && row.past + row.len <= row.known.len(),
            "{row:?}"
        );
        let chains = self.chains(row);
        for position in row.past..row.past + row.len {
            let place = self.place(row, position);
            self.cache[place] = chains[position + 1];
        }
    }

    /// Does already what the next steps will do if all goes on as it is, and
    /// forgets that it did: what it wrote must be in nobody's way.
    fn run_ahead(&mut self, input: &StepInput<'_>, outputs: &[RowOutput]) {
        for (row, output) in input.rows.iter().zip(outputs) {
            let Some(first) = output.sampled.as_ref().filter(|_| input.ahead > 0) else {
                continue;
            };
            let mut chain = Chain::of(self.adapter(row).as_deref(), row.known);
            let mut token = first.token;
            for step in 0..input.ahead.min(AHEAD_MAX) as usize {
                chain = chain.then(token);
                let place = self.place(row, row.known.len() + step);
                self.cache[place] = chain;
                token = chain.token(&[]);
            }
        }
    }

    fn compute(&self, row: &Row<'_>) -> RowOutput {
        if row.known.contains(&UNSPEAKABLE) {
            return RowOutput {
                failure: Some(SampleError::NothingLeft),
                ..RowOutput::default()
            };
        }
        let chains = self.chains(row);
        for position in 0..row.past + row.len {
            let found = self.cache[self.place(row, position)];
            assert_eq!(
                found,
                chains[position + 1],
                "position {position} of {row:?}"
            );
        }
        let told = row.prompt_logprobs.map(|top| {
            let places = row.past + 1..(row.past + row.len + 1).min(row.known.len());
            places
                .map(|place| logprobs(chains[place], row.known[place], top))
                .collect()
        });
        RowOutput {
            prompt_logprobs: told.unwrap_or_default(),
            failure: None,
            sampled: row.sample.map(|context| {
                assert_eq!(row.past + row.len, row.known.len(), "it gets there");
                assert_eq!([context.prompt, context.generated].concat(), row.known);
                let last = chains[row.known.len()];
                let token = last.token(context.banned);
                let top = context.sampling.logprobs;
                Sampled {
                    token,
                    logprobs: top.map(|top| logprobs(last, token, top)),
                }
            }),
        }
    }
}

impl Backend for Device {
    fn step(&mut self, input: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        assert_eq!(
            input.rows.len(),
            input.load.decodes as usize + input.load.chunks.len()
        );
        let adapters: std::collections::BTreeSet<_> =
            input.rows.iter().filter_map(|row| row.adapter).collect();
        assert_eq!(input.adapters as usize, adapters.len());
        // Sequences admitted together may share blocks that this step fills.
        for row in &input.rows {
            self.write(row);
        }
        let fault = self.orders.told(|told| {
            told.continued.push(input.continues);
            told.ahead.push(input.ahead);
            let fault = told.faults.pop_front().flatten();
            told.rows_failed += usize::from(fault.is_some()) * input.rows.len();
            fault
        });
        let mut outputs: Vec<_> = input.rows.iter().map(|row| self.compute(row)).collect();
        if fault.is_some() {
            // What a failed step leaves behind is not to be used.
            self.cache.fill(Chain(1));
        } else {
            self.run_ahead(input, &outputs);
        }
        match fault {
            None => {}
            Some(Fault::Error) => return Err(StepError("out of luck".to_owned())),
            Some(Fault::Panic) => std::panic::resume_unwind(Box::new("out of luck")),
            Some(Fault::OneOutputTooFew) => {
                outputs.pop();
            }
            Some(Fault::TokenOutOfVocabulary | Fault::NothingSampled) => {
                for output in &mut outputs {
                    output.sampled = match (fault, output.sampled.take()) {
                        (Some(Fault::NothingSampled), Some(_)) => None,
                        (_, sampled) => Some(Sampled {
                            token: VOCAB_SIZE,
                            logprobs: sampled.and_then(|sampled| sampled.logprobs),
                        }),
                    };
                }
            }
        }
        Ok(outputs)
    }

    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        self.orders.told(|told| {
            assert_eq!(told.slots[slot], None, "slot {slot} is taken");
            if told.broken.contains(&adapter.name) {
                return Err(StepError("bad file".to_owned()));
            }
            told.slots[slot] = Some(adapter.name.clone());
            Ok(())
        })
    }

    fn unload_adapter(&mut self, slot: usize) {
        self.orders.told(|told| told.slots[slot] = None);
    }

    fn is_lost(&self) -> bool {
        self.orders
            .told(|told| told.is_mortal && told.rows_failed > 0)
    }
}
