//! What does not change the outputs: to the last bit, how the work is cut up; to rounding, how many ranks share it.

use foresail_core::batching::BlockId;
use foresail_engine::ops::KvFormat;
use foresail_engine::weights::Adapter;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

use crate::devices::{Cpu, Device, Reference};
use crate::random_model::{Draw, RandomModel, TOKENS_MAX, models, models_for_ranks};
use crate::sequences::{Logits, Sequence, advance, finish};
use crate::world::World;

/// Checks a property of a device on random models.
fn check<S: Strategy>(strategy: S, property: impl Fn(S::Value)) {
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(48)
    };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&strategy, |value| {
        property(value);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// The blocks of the KV cache in a random order, dealt out to sequences.
pub(crate) struct Dealer {
    blocks: Vec<BlockId>,
    block_size: usize,
}

impl Dealer {
    pub(crate) fn new(model: &RandomModel, order: u64) -> Self {
        let limits = model.setting.limits;
        let mut blocks: Vec<_> = (0..limits.num_blocks as BlockId).collect();
        let mut draw = Draw::new(order, "blocks");
        for place in (1..blocks.len()).rev() {
            blocks.swap(place, draw.below(place + 1));
        }
        Self {
            blocks,
            block_size: limits.block_size,
        }
    }

    /// Blocks for so many tokens, that no one has.
    pub(crate) fn deal(&mut self, tokens: usize) -> Vec<BlockId> {
        let first = self.blocks.len() - tokens.div_ceil(self.block_size);
        self.blocks.split_off(first)
    }
}

/// Logits of a sequence computed whole, with nothing else in any step, in a world of its own.
fn alone<D: Device>(
    device: D,
    model: &RandomModel,
    tokens: &[u32],
    adapter: Option<&Adapter>,
) -> Logits {
    let mut world = start(device, model, 1);
    if let Some(adapter) = adapter {
        world.load_adapter(0, adapter);
    }
    let blocks = tokens.len().div_ceil(model.setting.limits.block_size);
    let table = (0..blocks as BlockId).collect();
    let mut sequence = Sequence::new(tokens, adapter.map(|_| 0), table);
    finish(&mut world, &mut sequence);
    sequence.logits
}

pub(crate) fn start<D: Device>(device: D, model: &RandomModel, world_size: usize) -> World {
    World::start(device, &model.setting, world_size, |partition| {
        model.shard(partition)
    })
}

/// Fails if any two logits differ in any bit.
#[track_caller]
fn assert_same_bits(one: &[Vec<f32>], other: &[Vec<f32>]) {
    assert_eq!(one.len(), other.len());
    for (position, (one, other)) in one.iter().zip(other).enumerate() {
        for (token, (a, b)) in one.iter().zip(other).enumerate() {
            assert!(
                a.to_bits() == b.to_bits() && a.is_finite(),
                "at position {position}, the logit of token {token} is {a} and {b}"
            );
        }
    }
}

/// Fails if any two logits differ by more than sums in f32 do in another order, as a share of the largest.
#[track_caller]
fn assert_close(one: &[Vec<f32>], other: &[Vec<f32>]) {
    let tolerance = 1e-3;
    assert_eq!(one.len(), other.len());
    for (position, (one, other)) in one.iter().zip(other).enumerate() {
        let largest = one.iter().fold(1.0_f32, |largest, a| largest.max(a.abs()));
        for (token, (a, b)) in one.iter().zip(other).enumerate() {
            // Not `>`, so that NaN fails.
            let is_close = (a - b).abs() <= tolerance * largest;
            assert!(
                is_close,
                "at position {position}, the logit of token {token} is {a} and {b}"
            );
        }
    }
}

/// Prompts cut into chunks anywhere, in blocks anywhere.
fn whole_or_chunked<D: Device>(device: D) {
    let chunks = proptest::collection::vec(1_usize..=30, 1..=8);
    let cases = (models(), 1..=TOKENS_MAX, chunks, any::<u64>());
    check(cases, |(model, len, chunks, order)| {
        let tokens = model.tokens(0, len);
        let mut world = start(device, &model, 1);
        let table = Dealer::new(&model, order).deal(len);
        let mut sequence = Sequence::new(&tokens, None, table);
        for chunk in chunks.iter().cycle() {
            let chunk = sequence.left().min(*chunk);
            if chunk == 0 {
                break;
            }
            advance(&mut world, &mut [(&mut sequence, chunk)]);
        }
        assert_same_bits(&alone(device, &model, &tokens, None), &sequence.logits);
    });
}

/// Three sequences, two of them with an adapter each, that advance by as much as they like in any order.
fn batched_or_alone<D: Device>(device: D) {
    let lens = [1..=TOKENS_MAX, 1..=TOKENS_MAX, 1..=TOKENS_MAX];
    let pieces = proptest::collection::vec((0_usize..3, [0_usize..=9, 0..=1, 0..=25]), 1..=9);
    let cases = (models(), lens, pieces, any::<u64>());
    check(cases, |(model, lens, pieces, order)| {
        let adapters = [None, Some(model.adapter(0)), Some(model.adapter(1))];
        let mut world = start(device, &model, 1);
        // What was in a slot before does not matter.
        world.load_adapter(0, adapters[2].as_ref().expect("it is there"));
        world.unload_adapter(0);
        for (slot, adapter) in adapters.iter().flatten().enumerate() {
            world.load_adapter(slot, adapter);
        }
        let mut dealer = Dealer::new(&model, order);
        let mut sequences: Vec<_> = (0..3)
            .map(|index| {
                let tokens = model.tokens(index, lens[index]);
                let table = dealer.deal(lens[index]);
                Sequence::new(&tokens, index.checked_sub(1), table)
            })
            .collect();
        for (first, lens) in pieces.iter().cycle() {
            advance_all(&mut world, &mut sequences, *first, lens);
            if sequences.iter().all(|sequence| sequence.left() == 0) {
                break;
            }
        }
        for (sequence, adapter) in sequences.iter().zip(&adapters) {
            let alone = alone(device, &model, &sequence.tokens, adapter.as_ref());
            assert_same_bits(&alone, &sequence.logits);
        }
    });
}

/// A step with a piece of each sequence that has something left, beginning with the `first`; where that is
/// nothing, a token of each.
fn advance_all(world: &mut World, sequences: &mut [Sequence], first: usize, lens: &[usize; 3]) {
    let len_of = |sequence: &Sequence, place: usize| sequence.left().min(lens[place]);
    let total: usize = (0..3).map(|place| len_of(&sequences[place], place)).sum();
    let mut pieces: Vec<_> = sequences
        .iter_mut()
        .enumerate()
        .map(|(place, sequence)| {
            let least = usize::from(total == 0).min(sequence.left());
            let len = len_of(sequence, place).max(least);
            (sequence, len)
        })
        .collect();
    pieces.rotate_left(first);
    pieces.retain(|(_, len)| *len > 0);
    advance(world, &mut pieces);
}

/// A sequence that begins like another takes the other's full blocks as they are, in the same step or later.
fn with_shared_prefix_or_not<D: Device>(device: D) {
    let cases = (
        models(),
        2..=TOKENS_MAX,
        any::<Index>(),
        any::<bool>(),
        any::<u64>(),
    );
    check(cases, |(model, len, shared, at_once, order)| {
        let block_size = model.setting.limits.block_size;
        let shared_blocks = shared.index(len.div_ceil(block_size));
        let shared_tokens = shared_blocks * block_size;
        let tokens = model.tokens(0, len);
        let mut others = tokens[..shared_tokens].to_vec();
        others.extend(model.tokens(1, len - shared_tokens));

        let mut dealer = Dealer::new(&model, order);
        let mut first = Sequence::new(&tokens, None, dealer.deal(len));
        let mut table = first.table[..shared_blocks].to_vec();
        table.extend(dealer.deal(len - shared_tokens));
        let mut second = Sequence::new(&others, None, table);
        second.past = shared_tokens;

        let mut world = start(device, &model, 1);
        if at_once {
            let lens = (first.left(), second.left());
            advance(
                &mut world,
                &mut [(&mut first, lens.0), (&mut second, lens.1)],
            );
        } else {
            finish(&mut world, &mut first);
            finish(&mut world, &mut second);
        }
        let alone = alone(device, &model, &others, None);
        assert_same_bits(&alone[shared_tokens..], &second.logits);
    });
}

/// A sequence loses its blocks to another, and is computed again from its known tokens in whatever blocks there are.
fn preempted_or_not<D: Device>(device: D) {
    let cases = (models(), 2..=TOKENS_MAX, any::<Index>(), any::<[u64; 2]>());
    check(cases, |(model, len, before, orders)| {
        let tokens = model.tokens(0, len);
        let before = 1 + before.index(len - 1);
        let mut world = start(device, &model, 1);
        let table = Dealer::new(&model, orders[0]).deal(len);
        let mut preempted = Sequence::new(&tokens, None, table.clone());
        advance(&mut world, &mut [(&mut preempted, before)]);

        let mut other = Sequence::new(&model.tokens(1, len), None, table);
        finish(&mut world, &mut other);

        // Its prompt at once, as far as it was, then one token at a time, as it would have decoded.
        let table = Dealer::new(&model, orders[1]).deal(len);
        let mut resumed = Sequence::new(&tokens, None, table);
        advance(&mut world, &mut [(&mut resumed, before)]);
        while resumed.left() > 0 {
            advance(&mut world, &mut [(&mut resumed, 1)]);
        }
        let alone = alone(device, &model, &tokens, None);
        assert_same_bits(&alone[..before], &preempted.logits);
        assert_same_bits(&alone, &resumed.logits);
    });
}

/// One rank, or two, or four; and the same number of ranks twice, to the last bit.
fn on_any_number_of_ranks<D: Device>(device: D) {
    let cases = (models_for_ranks(), 1..=TOKENS_MAX, select(vec![2, 4]));
    check(cases, |(mut model, len, world_size)| {
        // Where keys and values are rounded to bf16, another order of a sum can be another value.
        model.setting.kv_format = KvFormat::F32;
        let tokens = model.tokens(0, len);
        let adapter = model.adapter(0);
        let run = || {
            let mut world = start(device, &model, world_size);
            world.load_adapter(0, &adapter);
            let mut dealer = Dealer::new(&model, model.seed);
            let mut base = Sequence::new(&tokens, None, dealer.deal(len));
            let mut adapted = Sequence::new(&tokens, Some(0), dealer.deal(len));
            advance(&mut world, &mut [(&mut base, len), (&mut adapted, len)]);
            (base.logits, adapted.logits)
        };
        let (base, adapted) = run();
        let again = run();
        assert_same_bits(&base, &again.0);
        assert_same_bits(&adapted, &again.1);
        assert_close(&alone(device, &model, &tokens, None), &base);
        let whole = alone(device, &model, &tokens, Some(&adapter));
        assert_close(&whole, &adapted);
    });
}

/// Not equal, but near: what the slow clear operations give.
fn near_the_reference<D: Device>(device: D) {
    let cases = (models(), 1..=TOKENS_MAX, any::<bool>());
    check(cases, |(mut model, len, with_adapter)| {
        model.setting.kv_format = KvFormat::F32;
        let tokens = model.tokens(0, len);
        let adapter = with_adapter.then(|| model.adapter(0));
        let expected = alone(Reference, &model, &tokens, adapter.as_ref());
        let found = alone(device, &model, &tokens, adapter.as_ref());
        assert_close(&expected, &found);
    });
}

/// The same tests for each device.
macro_rules! tests_of {
    ($name:ident, $device:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn outputs_do_not_depend_on_chunks() {
                whole_or_chunked($device);
            }

            #[test]
            fn outputs_do_not_depend_on_the_batch() {
                batched_or_alone($device);
            }

            #[test]
            fn outputs_do_not_depend_on_the_prefix_cache() {
                with_shared_prefix_or_not($device);
            }

            #[test]
            fn outputs_do_not_depend_on_preemption() {
                preempted_or_not($device);
            }

            #[test]
            fn outputs_do_not_depend_on_the_number_of_ranks() {
                on_any_number_of_ranks($device);
            }
        }
    };
}

tests_of!(reference, Reference);
tests_of!(cpu, Cpu::best());
tests_of!(cpu_portable, Cpu::portable());

#[test]
fn the_cpu_is_near_the_reference() {
    near_the_reference(Cpu::best());
    near_the_reference(Cpu::portable());
}
