//! What the scheduler promises, on chosen cases and on random ones.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::scheduler::Blocked;
use super::*;

const ROOMY: Config = Config {
    block_size: 4,
    num_blocks: 100,
    max_num_seqs: 8,
    max_batched_tokens: 32,
    max_model_len: 256,
    prefill_chunk: 32,
    max_loras: 2,
    watermark: 0,
    prefix_caching: true,
};

fn plain(prompt: u32, max_new: u32) -> Request {
    Request {
        prompt,
        max_new,
        adapter: None,
        cacheable: false,
    }
}

fn cacheable(prompt: u32, max_new: u32) -> Request {
    Request {
        cacheable: true,
        ..plain(prompt, max_new)
    }
}

fn unknown(_: SequenceId, _: u32) -> Option<BlockHash> {
    None
}

fn step(scheduler: &mut Scheduler, content: &mut impl Content) -> (Step, Vec<SequenceId>) {
    let step = scheduler.schedule(content).clone();
    scheduler.check();
    let finished = if step.is_empty() {
        Vec::new()
    } else {
        scheduler.commit(|_| Verdict::Continue).to_vec()
    };
    scheduler.check();
    (step, finished)
}

/// Everything that two equal schedulers have in common, block for block.
fn state(scheduler: &Scheduler) -> impl PartialEq + std::fmt::Debug {
    let blocks: Vec<_> = (0..scheduler.config.num_blocks)
        .map(|block| scheduler.blocks.sealed(block))
        .collect();
    let (plain, cached) = scheduler.blocks.free_lists();
    let queues = (
        scheduler.waiting.clone(),
        scheduler.running.clone(),
        scheduler.prefilling.clone(),
    );
    let counters = (
        scheduler.steps,
        scheduler.decodes,
        scheduler.decode_past,
        scheduler.sealing_decodes,
    );
    let ends = (
        scheduler.finish_at.clone(),
        scheduler.next_finish,
        scheduler.unused.clone(),
    );
    (
        scheduler.sequences.clone(),
        queues,
        counters,
        ends,
        scheduler.ring.clone(),
        blocks,
        plain.to_vec(),
        cached,
    )
}

#[test]
fn a_prompt_is_computed_in_chunks_and_then_decoded() {
    let mut scheduler = Scheduler::new(Config {
        prefill_chunk: 10,
        ..ROOMY
    })
    .unwrap();
    let id = scheduler.add(plain(25, 3)).unwrap();
    let lens: Vec<_> = (0..3)
        .map(|_| step(&mut scheduler, &mut unknown).0.chunks[0])
        .collect();
    let chunk = |past, len, sample| crate::step_time::Chunk { past, len, sample };
    assert_eq!(
        lens,
        [
            chunk(0, 10, false),
            chunk(10, 10, false),
            chunk(20, 5, true)
        ]
    );
    assert_eq!(scheduler.horizon(), 2, "two more tokens, then it is done");
    let (decode, finished) = step(&mut scheduler, &mut unknown);
    assert_eq!(
        (decode.decodes, decode.decode_past, finished),
        (1, 25, vec![])
    );
    assert_eq!(step(&mut scheduler, &mut unknown).1, [id]);
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.blocks.free(), 100);
}

#[test]
fn decodes_and_prompts_share_a_step_within_the_budget() {
    let mut scheduler = Scheduler::new(ROOMY).unwrap();
    scheduler.add(plain(30, 9)).unwrap();
    step(&mut scheduler, &mut unknown);
    scheduler.add(plain(20, 9)).unwrap();
    scheduler.add(plain(20, 9)).unwrap();
    let (mixed, _) = step(&mut scheduler, &mut unknown);
    assert_eq!(
        (mixed.decodes, mixed.chunks[0].len, mixed.chunks[1].len),
        (1, 20, 11)
    );
    assert_eq!(mixed.tokens(), 32);
}

#[test]
fn what_can_never_fit_is_refused_and_what_fits_later_waits() {
    let mut scheduler = Scheduler::new(Config {
        num_blocks: 10,
        max_loras: 0,
        ..ROOMY
    })
    .unwrap();
    assert_eq!(scheduler.add(plain(0, 1)), Err(Reject::Empty));
    assert_eq!(scheduler.add(plain(1, 0)), Err(Reject::Empty));
    assert_eq!(scheduler.add(plain(200, 57)), Err(Reject::TooLong));
    assert_eq!(scheduler.add(plain(30, 12)), Err(Reject::NeverFits));
    assert_eq!(
        scheduler.add(Request {
            adapter: Some(1),
            ..plain(1, 1)
        }),
        Err(Reject::NoAdapters)
    );
    let first = scheduler.add(plain(30, 11)).unwrap();
    let second = scheduler.add(plain(30, 11)).unwrap();
    let mut finished = Vec::new();
    while !scheduler.is_idle() {
        finished.extend(step(&mut scheduler, &mut unknown).1);
    }
    assert_eq!(
        finished,
        [first, second],
        "exactly as many blocks as there are are enough"
    );
}

#[test]
fn the_youngest_gives_way_and_comes_back_first() {
    let mut scheduler = Scheduler::new(Config {
        num_blocks: 6,
        ..ROOMY
    })
    .unwrap();
    let [old, young, youngest] =
        [(8, 9), (8, 8), (8, 2)].map(|(prompt, new)| scheduler.add(plain(prompt, new)).unwrap());
    let (mut preempted, mut finished) = (Vec::new(), Vec::new());
    while !scheduler.is_idle() {
        let (step, ended) = step(&mut scheduler, &mut unknown);
        preempted.extend(step.preempted);
        finished.extend(ended);
    }
    assert_eq!(preempted, [youngest, young], "never the oldest");
    assert_eq!(finished, [old, young, youngest]);
}

#[test]
fn a_full_batch_of_adapters_lets_others_pass_in_order() {
    let mut scheduler = Scheduler::new(ROOMY).unwrap();
    let with = |adapter| Request {
        adapter: Some(adapter),
        ..plain(2, 4)
    };
    let ids: Vec<_> = [1, 2, 3, 1]
        .map(|adapter| scheduler.add(with(adapter)).unwrap())
        .into();
    let base = scheduler.add(plain(2, 4)).unwrap();
    let (first, _) = step(&mut scheduler, &mut unknown);
    assert_eq!(first.chunk_sequences, [ids[0], ids[1], ids[3], base]);
    assert_eq!(
        scheduler.horizon(),
        3,
        "the third adapter has to wait for one to leave"
    );
    scheduler.leap(3, &mut unknown);
    let (next, _) = step(&mut scheduler, &mut unknown);
    assert_eq!(next.chunk_sequences, [ids[2]]);
}

#[test]
fn a_prefix_is_found_and_a_token_is_always_left_to_compute() {
    let mut content = |_: SequenceId, block: u32| Some(BlockHash::from(block));
    let mut scheduler = Scheduler::new(ROOMY).unwrap();
    scheduler.add(cacheable(16, 1)).unwrap();
    step(&mut scheduler, &mut content);
    scheduler.add(cacheable(16, 1)).unwrap();
    let (second, _) = step(&mut scheduler, &mut content);
    assert_eq!((second.chunks[0].past, second.chunks[0].len), (12, 4));
}

#[test]
fn an_aborted_sequence_leaves_at_once_or_with_the_step_in_flight() {
    let mut scheduler = Scheduler::new(ROOMY).unwrap();
    let ids: Vec<_> = (0..3)
        .map(|_| scheduler.add(plain(8, 5)).unwrap())
        .collect();
    scheduler.abort(ids[2]);
    step(&mut scheduler, &mut unknown);
    scheduler.schedule(&mut unknown);
    scheduler.abort(ids[0]);
    assert_eq!(scheduler.running(), 2, "its step is still being computed");
    assert!(
        scheduler.commit(|_| Verdict::Continue).is_empty(),
        "an aborted sequence does not finish"
    );
    scheduler.check();
    assert_eq!(scheduler.running(), 1);
    scheduler.abort(ids[1]);
    scheduler.check();
    assert!(scheduler.is_idle());
}

#[test]
fn a_stop_ends_a_sequence_early() {
    let mut scheduler = Scheduler::new(ROOMY).unwrap();
    let ids: Vec<_> = (0..2)
        .map(|_| scheduler.add(plain(8, 50)).unwrap())
        .collect();
    scheduler.schedule(&mut unknown);
    let stop = |id| {
        if id == ids[0] {
            Verdict::Stop
        } else {
            Verdict::Continue
        }
    };
    assert_eq!(scheduler.commit(stop), [ids[0]]);
    scheduler.check();
    assert_eq!(scheduler.horizon(), 49);
}

/// The case that random runs hardly meet: the head of the queue does not fit,
/// and a block that fills during a leap is the next of its prefix. Then it
/// fits, and the leap must have stopped before.
#[test]
fn a_leap_stops_before_a_blocked_heads_cached_prefix_grows() {
    let config = Config {
        num_blocks: 8,
        watermark: 1,
        max_num_seqs: 4,
        ..ROOMY
    };
    // Every sequence is the same text: what one generates is another's prompt.
    let mut content = |_: SequenceId, block: u32| Some(BlockHash::from(block));
    let mut scheduler = Scheduler::new(config).unwrap();
    scheduler.add(cacheable(13, 12)).unwrap();
    step(&mut scheduler, &mut content);
    // The head needs 8 blocks for 29 tokens. 3 are cached now, 4 are free, 1 is reserved.
    scheduler.add(cacheable(29, 1)).unwrap();
    let (blocked, _) = step(&mut scheduler, &mut content);
    assert_eq!(
        (blocked.chunks.len(), scheduler.blocked),
        (0, Blocked::Memory)
    );
    let mut stepped = scheduler.clone();
    let horizon = scheduler.horizon();
    for _ in 0..horizon {
        let (step, _) = step(&mut stepped, &mut content);
        assert!(
            step.chunks.is_empty(),
            "nobody may be admitted within the horizon"
        );
    }
    scheduler.leap(horizon, &mut content);
    assert!(state(&scheduler) == state(&stepped));
    assert_eq!(horizon, 1, "the step after that fills the fourth block");
    // And the guard is needed: the next step seals it and tries the head again.
    assert_eq!(scheduler.blocks.cached(3), None);
    step(&mut scheduler, &mut content);
    assert!(scheduler.blocks.cached(3).is_some());
}

/// A head that does not fit stands before one that does: when it is aborted,
/// the other may be admitted in the very next step.
#[test]
fn an_aborted_head_lets_the_next_in_line_be_tried() {
    let config = Config {
        num_blocks: 8,
        ..ROOMY
    };
    let mut scheduler = Scheduler::new(config).unwrap();
    scheduler.add(plain(13, 12)).unwrap();
    step(&mut scheduler, &mut unknown);
    let head = scheduler.add(plain(29, 1)).unwrap();
    scheduler.add(plain(1, 1)).unwrap();
    step(&mut scheduler, &mut unknown);
    assert!(
        scheduler.horizon() > 0,
        "the head waits for blocks, and the other for the head"
    );
    scheduler.abort(head);
    assert_eq!(scheduler.horizon(), 0);
    assert_eq!(step(&mut scheduler, &mut unknown).0.chunks.len(), 1);
}

/// The head's own prefix fills what is free. Once a block of it is evicted
/// that comes before others, those are no longer kept for it, and may be
/// enough for its first chunk. So no leap may evict while a head is blocked.
#[test]
fn a_leap_evicts_nothing_while_a_head_is_blocked() {
    let config = Config {
        num_blocks: 12,
        ..ROOMY
    };
    // Texts 0 and 1; sequences with even ids are of text 0.
    let mut content =
        |id: SequenceId, block: u32| Some(BlockHash::from(id % 2) * 1000 + BlockHash::from(block));
    let mut scheduler = Scheduler::new(config).unwrap();
    let first = scheduler.add(cacheable(17, 1)).unwrap();
    step(&mut scheduler, &mut content);
    assert_eq!(
        (first, scheduler.blocks.free()),
        (0, 12),
        "four blocks of text 0 are cached"
    );
    // Decodes of no known text take the blocks without contents.
    let decoding = [
        scheduler.add(plain(13, 20)).unwrap(),
        scheduler.add(plain(13, 20)).unwrap(),
    ];
    step(&mut scheduler, &mut content);
    assert_eq!(scheduler.blocks.free_without_contents(), 0);
    // The head finds four blocks of its eight, and nothing is free beside them.
    let head = scheduler.add(cacheable(30, 1)).unwrap();
    assert!(head.is_multiple_of(2) && !decoding.contains(&head));
    step(&mut scheduler, &mut content);
    assert_eq!(scheduler.blocked, Blocked::Memory);
    let evicted_by =
        |scheduler: &Scheduler, steps| scheduler.ring.demand(scheduler.steps, 2, steps);
    let horizon = scheduler.horizon();
    assert_eq!(evicted_by(&scheduler, horizon), 0);
    assert!(
        evicted_by(&scheduler, horizon + 1) > 0,
        "or the horizon is shorter than it need be"
    );
}

/// What happens to a scheduler in a random run.
#[derive(Clone, Debug)]
enum Act {
    Add {
        prompt: u32,
        max_new: u32,
        adapter: Option<u32>,
        text: Option<u8>,
    },
    Abort(usize),
    AbortInLeap(usize),
    Step,
    StepAndStop(usize),
    Leap(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let adapter = prop_oneof![3 => Just(None), 1 => (0..4_u32).prop_map(Some)];
    let text = prop_oneof![1 => Just(None), 2 => (0..3_u8).prop_map(Some)];
    prop_oneof![
        4 => (1..60_u32, 1..40_u32, adapter, text)
            .prop_map(|(prompt, max_new, adapter, text)| Act::Add { prompt, max_new, adapter, text }),
        1 => (0..64_usize).prop_map(Act::Abort),
        1 => (0..64_usize).prop_map(Act::AbortInLeap),
        6 => Just(Act::Step),
        1 => (0..8_usize).prop_map(Act::StepAndStop),
        6 => (1..50_u32).prop_map(Act::Leap),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let sizes = (1..9_u32, 14..60_u32, 1..7_u32, 0..20_u32);
    (sizes, 1..40_u32, 0..3_u32, 0..4_u32, any::<bool>()).prop_map(
        |(
            (block_size, num_blocks, max_num_seqs, spare),
            prefill_chunk,
            max_loras,
            watermark,
            prefix_caching,
        )| Config {
            block_size,
            num_blocks,
            max_num_seqs,
            max_batched_tokens: max_num_seqs + spare,
            max_model_len: 90,
            prefill_chunk,
            max_loras,
            watermark,
            prefix_caching,
        },
    )
}

/// A run under test: the scheduler, and what the driver knows of its sequences.
struct Run {
    scheduler: Scheduler,
    /// For each live sequence: which text it is part of, and the tokens it has got.
    live: BTreeMap<SequenceId, (Option<u8>, u32)>,
    /// (arrival, admitted before) of live sequences, to check who is preempted.
    ended: usize,
    accepted: usize,
}

impl Run {
    fn content(
        live: &BTreeMap<SequenceId, (Option<u8>, u32)>,
    ) -> impl FnMut(SequenceId, u32) -> Option<BlockHash> + '_ {
        // One text ends in unknown contents, as recorded traces do.
        |id, block| match live[&id].0 {
            Some(0) if block >= 5 => None,
            Some(text) => Some(BlockHash::from(text) * 1000 + BlockHash::from(block)),
            None => None,
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Add {
                prompt,
                max_new,
                adapter,
                text,
            } => {
                let request = Request {
                    prompt,
                    max_new,
                    adapter,
                    cacheable: text.is_some(),
                };
                if let Ok(id) = self.scheduler.add(request) {
                    assert!(
                        self.live.insert(id, (text, max_new)).is_none(),
                        "a live id was given again"
                    );
                    self.accepted += 1;
                }
            }
            Act::Abort(which) => {
                if let Some(id) = self.live.keys().nth(which).copied() {
                    self.scheduler.abort(id);
                    self.live.remove(&id);
                    self.ended += 1;
                }
            }
            Act::AbortInLeap(which) => self.abort_in_leap(which),
            Act::Step => self.step(None),
            Act::StepAndStop(which) => self.step(Some(which)),
            Act::Leap(steps) => self.leap(steps),
        }
        self.scheduler.check();
    }

    fn step(&mut self, stop: Option<usize>) {
        let oldest = self.scheduler.running.first().copied();
        let running = self.scheduler.running.len();
        let step = self
            .scheduler
            .schedule(&mut Self::content(&self.live))
            .clone();
        self.scheduler.check();
        assert!(
            !step.is_empty() || self.scheduler.is_idle() || !step.preempted.is_empty(),
            "no progress"
        );
        assert!(
            running < 2 || !step.preempted.contains(&oldest.unwrap()),
            "the oldest gave way to a younger one"
        );
        if step.is_empty() {
            return;
        }
        let sampled: BTreeSet<_> = self
            .scheduler
            .work()
            .filter(|work| work.chunk.sample)
            .map(|work| work.sequence)
            .collect();
        let stopped = stop.and_then(|which| sampled.iter().nth(which).copied());
        let verdict = |id| {
            if Some(id) == stopped {
                Verdict::Stop
            } else {
                Verdict::Continue
            }
        };
        let finished = self.scheduler.commit(verdict).to_vec();
        for id in &sampled {
            self.live.get_mut(id).unwrap().1 -= 1;
        }
        self.end(&finished, stopped);
    }

    fn end(&mut self, finished: &[SequenceId], stopped: Option<SequenceId>) {
        for id in finished {
            let (_, left) = self.live.remove(id).expect("it was live");
            assert!(
                left == 0 || Some(*id) == stopped,
                "it ended with {left} tokens to go"
            );
            self.ended += 1;
        }
        assert!(
            self.live.values().all(|(_, left)| *left > 0),
            "a sequence with all its tokens goes on"
        );
    }

    /// A sequence is given up while a step of a leap is under way, and while that
    /// step is in flight by itself, side by side.
    fn abort_in_leap(&mut self, which: usize) {
        let id = self.live.keys().nth(which).copied();
        let (Some(id), 1..) = (id, self.scheduler.horizon()) else {
            return;
        };
        let decoding = self.scheduler.running.clone();
        let mut stepped = self.scheduler.clone();
        stepped.schedule(&mut Self::content(&self.live));
        let aborted = stepped.abort(id);
        let finished = stepped.commit_to_length().to_vec();
        assert_eq!(self.scheduler.abort_in_leap(id), aborted);
        self.scheduler.leap(1, &mut Self::content(&self.live));
        assert_eq!(self.scheduler.finished(), finished);
        assert!(state(&self.scheduler) == state(&stepped));
        self.live.remove(&id);
        self.ended += 1;
        for id in decoding {
            if let Some((_, left)) = self.live.get_mut(&id) {
                *left -= 1;
            }
        }
        self.end(&finished, None);
    }

    /// P4: the leap, and the same number of steps, side by side.
    fn leap(&mut self, steps: u32) {
        let steps = steps.min(self.scheduler.horizon());
        let mut stepped = self.scheduler.clone();
        let mut finished = Vec::new();
        let mut past = Vec::new();
        for _ in 0..steps {
            let plan = stepped.schedule(&mut Self::content(&self.live)).clone();
            assert!(
                plan.chunks.is_empty() && plan.preempted.is_empty(),
                "the batch changed within the horizon"
            );
            past.push(plan.decode_past);
            finished = stepped.commit_to_length().to_vec();
        }
        if steps == 0 {
            return;
        }
        let decoding: Vec<_> = self.scheduler.running.clone();
        let leap = self.scheduler.leap(steps, &mut Self::content(&self.live));
        assert_eq!(self.scheduler.finished(), finished);
        let expected: Vec<_> = (0..u64::from(steps))
            .map(|step| leap.past + step * u64::from(leap.batch))
            .collect();
        assert_eq!(past, expected, "context sums");
        assert!(
            state(&self.scheduler) == state(&stepped),
            "a leap of {steps} is not {steps} steps"
        );
        for id in decoding {
            self.live.get_mut(&id).unwrap().1 -= steps;
        }
        self.end(&finished, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_runs_keep_every_invariant(config in config(), acts in prop::collection::vec(act(), 1..120)) {
        let scheduler = Scheduler::new(config).unwrap();
        let mut run = Run { scheduler, live: BTreeMap::new(), ended: 0, accepted: 0 };
        for act in &acts {
            run.act(act);
        }
        let mut turns = 0;
        while !run.scheduler.is_idle() {
            run.act(&Act::Leap(50));
            run.act(&Act::Step);
            turns += 1;
            prop_assert!(turns < 100_000, "the run does not end");
        }
        prop_assert_eq!(run.ended, run.accepted, "every admitted sequence ends");
        prop_assert_eq!(run.scheduler.blocks.free(), config.num_blocks, "every block is free again");
    }
}
