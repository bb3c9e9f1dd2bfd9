//! Single requests, and few at a time.

use super::alone::{alone, joined};
use super::device::{Fault, UNSPEAKABLE};
use super::*;
use crate::generation::{FinishReason, GenerationError, Refusal};
use crate::sampling::SampleError;

fn admitted(cached_tokens: u32) -> Event {
    Event::Admitted { cached_tokens }
}

#[test]
fn a_request_is_admitted_gets_its_tokens_and_ends() {
    let mut bench = Bench::new(&small());
    let asked = generation(&[1, 2, 3], 4);
    let events = bench.submit(asked.clone());
    bench.run();
    let seen = all(events);
    assert_eq!(seen[0], admitted(0));
    assert_eq!(seen[1..], alone(&asked));
    assert_eq!(seen.last(), Some(&Event::Finished(FinishReason::Length)));
    assert_eq!(tokens_of(&seen).len(), 4);
}

#[test]
fn a_stop_token_ends_the_text_and_is_delivered() {
    let mut asked = generation(&[1, 2, 3], 9);
    let free = tokens_of(&alone(&asked));
    asked.stop_tokens = vec![free[2]];
    let mut bench = Bench::new(&small());
    let events = bench.submit(asked);
    bench.run();
    let seen = all(events);
    assert_eq!(tokens_of(&seen), free[..3]);
    assert_eq!(seen.last(), Some(&Event::Finished(FinishReason::Stop)));
}

#[test]
fn stop_tokens_are_banned_until_there_are_enough_tokens() {
    let mut asked = generation(&[1, 2, 3], 9);
    asked.stop_tokens = (0..super::device::VOCAB_SIZE).step_by(2).collect();
    asked.min_new = 5;
    let mut bench = Bench::new(&small());
    let events = bench.submit(asked.clone());
    bench.run();
    let seen = all(events);
    assert_eq!(seen[1..], alone(&asked));
    let tokens = tokens_of(&seen);
    assert!(
        tokens.len() >= 5 && tokens[..5].iter().all(|token| token % 2 == 1),
        "{tokens:?}"
    );
}

#[test]
fn a_request_that_leaves_nothing_to_choose_fails_alone() {
    let mut settings = small();
    settings.prefill_chunk = 2;
    let mut bench = Bench::new(&settings);
    // At its last token, in the middle of its prompt, and at its only token.
    let bad = [
        vec![7, UNSPEAKABLE],
        vec![UNSPEAKABLE, 5, 6, 7, 8],
        vec![UNSPEAKABLE],
    ];
    let good = generation(&[1, 2, 3], 6);
    let first = bench.submit(good.clone());
    let bad = bad.map(|prompt| bench.submit(generation(&prompt, 1)));
    let second = bench.submit(good.clone());
    bench.run();
    for events in bad {
        let seen = all(events);
        let failed = Event::Failed(GenerationError::Sample(SampleError::NothingLeft));
        assert_eq!(seen, [admitted(0), failed]);
    }
    assert_eq!(all(first)[1..], alone(&good));
    assert_eq!(all(second)[1..], alone(&good));
    let stats = bench.driver.stats();
    assert_eq!(
        (stats.failed, stats.failed_steps, stats.finished),
        (3, 0, 2)
    );
}

#[test]
fn log_probabilities_of_the_prompt_come_once_in_chunks_and_after_a_preemption() {
    let mut settings = small();
    settings.prefill_chunk = 3;
    settings.limits.num_blocks = 8;
    let mut bench = Bench::new(&settings);
    // Both grow to 24 tokens, 6 blocks each: the younger has to give way.
    let others = bench.submit(generation(&[9; 4], 20));
    let mut asked = generation(&[1, 2, 3, 4, 5, 6, 7, 8], 16);
    asked.prompt_logprobs = Some(2);
    asked.sampling.logprobs = Some(1);
    let events = bench.submit(asked.clone());
    bench.run();
    assert!(bench.driver.stats().preemptions > 0, "it was preempted");
    let seen = all(events);
    assert_eq!(joined(seen)[1..], alone(&asked));
    assert_eq!(tokens_of(&all(others)).len(), 20);
}

#[test]
fn a_prefix_is_found_again_unless_the_salt_or_the_adapter_differs() {
    let mut bench = Bench::new(&small());
    bench.add_adapters(&["x"]);
    let asked = generation(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 2);
    let salted = Generation {
        cache_salt: Some("mine".to_owned()),
        ..asked.clone()
    };
    let with_adapter = Generation {
        adapter: Some("x".to_owned()),
        ..asked.clone()
    };
    let watched = Generation {
        prompt_logprobs: Some(0),
        ..asked.clone()
    };
    let runs = [
        (asked.clone(), None, 0),
        (asked.clone(), None, 8),
        (salted.clone(), None, 0),
        (salted, None, 8),
        (with_adapter.clone(), Some(0), 0),
        (with_adapter, Some(0), 8),
        (watched, None, 0),
        (asked, None, 8),
    ];
    for (place, (asked, adapter, cached)) in runs.into_iter().enumerate() {
        let (_, events) = bench.submit_with(asked.clone(), adapter);
        bench.run();
        let seen = all(events);
        assert_eq!(seen[0], admitted(cached), "run {place}");
        assert_eq!(seen[1..], alone(&asked), "run {place}");
    }
    let stats = bench.driver.stats();
    assert_eq!((stats.prompt_tokens, stats.prompt_tokens_cached), (72, 32));
}

#[test]
fn refusals_say_what_is_wrong() {
    let bench = Bench::new(&small());
    let refusal = |generation: &Generation| bench.driver.rules().check(generation);
    assert_eq!(refusal(&generation(&[], 1)), Err(Refusal::Empty));
    assert_eq!(refusal(&generation(&[1], 0)), Err(Refusal::Empty));
    let too_long = Refusal::TooLong {
        prompt: 30,
        max_new: 11,
        max_model_len: 40,
    };
    assert_eq!(refusal(&generation(&[1; 30], 11)), Err(too_long));
    assert_eq!(refusal(&generation(&[1; 30], 10)), Ok(()));
    let unknown = Err(Refusal::UnknownToken {
        token: 50,
        vocab_size: 50,
    });
    assert_eq!(refusal(&generation(&[1, 50], 1)), unknown);
    let mut biased = generation(&[1], 1);
    biased.sampling.logit_bias = vec![(50, 1.0)];
    assert_eq!(refusal(&biased), unknown);
    let mut settings = small();
    settings.limits.num_blocks = 5;
    let bench = Bench::new(&settings);
    let never = Refusal::NeverFits {
        needed: 6,
        available: 5,
    };
    assert_eq!(
        bench.driver.rules().check(&generation(&[1; 11], 11)),
        Err(never)
    );
    assert_eq!(
        bench.driver.rules().check(&generation(&[1; 11], 10)),
        Ok(())
    );
}

#[test]
fn a_step_that_fails_costs_its_own_requests_and_no_others() {
    let faults = [
        Fault::Error,
        Fault::Panic,
        Fault::OneOutputTooFew,
        Fault::TokenOutOfVocabulary,
        Fault::NothingSampled,
    ];
    for fault in faults {
        let mut bench = Bench::new(&small());
        let prompt = [7, 7, 7, 7, 7];
        let running: Vec<_> = (0..4)
            .map(|_| bench.submit(generation(&prompt, 5)))
            .collect();
        let waiting: Vec<_> = (0..3)
            .map(|_| bench.submit(generation(&prompt, 6)))
            .collect();
        bench.driver.step();
        bench.orders.told(|told| told.faults.push_back(Some(fault)));
        bench.run();
        for events in running {
            let seen = all(events);
            let Some(Event::Failed(GenerationError::Step(why))) = seen.last() else {
                panic!("{fault:?}: {seen:?}");
            };
            assert!(why.contains("luck") || why.contains("backend"), "{why}");
        }
        for events in waiting {
            assert_eq!(
                all(events)[1..],
                alone(&generation(&prompt, 6)),
                "{fault:?}"
            );
        }
        let stats = bench.driver.stats();
        assert_eq!(
            (stats.failed_steps, stats.failed, stats.finished),
            (1, 4, 3)
        );
        assert_eq!(stats.kv_blocks_used, 0);
    }
}

#[test]
fn a_request_that_did_not_compute_in_a_failing_step_goes_on_with_its_tokens() {
    let mut settings = small();
    // Two prompts fill a step, so the third is in the batch and does not compute.
    settings.limits.max_batched_tokens = 4;
    settings.limits.max_num_seqs = 4;
    settings.prefill_chunk = 2;
    let mut bench = Bench::new(&settings);
    let asked: Vec<_> = (0..3)
        .map(|first| generation(&[first, 5, 6, 7, 8, 9], 4))
        .collect();
    let events: Vec<_> = asked
        .iter()
        .map(|asked| bench.submit(asked.clone()))
        .collect();
    bench.driver.step();
    bench
        .orders
        .told(|told| told.faults.push_back(Some(Fault::Error)));
    bench.driver.step();
    bench.run();
    let ends: Vec<_> = events.into_iter().map(|events| all(events).pop()).collect();
    assert!(matches!(ends[0], Some(Event::Failed(_))), "{ends:?}");
    assert!(matches!(ends[1], Some(Event::Failed(_))), "{ends:?}");
    assert_eq!(ends[2], Some(Event::Finished(FinishReason::Length)));
}

#[test]
fn a_step_continues_unless_there_was_nothing_to_do() {
    let mut bench = Bench::new(&small());
    let first = bench.submit(generation(&[1], 2));
    bench.run();
    let second = bench.submit(generation(&[1], 1));
    bench.run();
    assert_eq!(
        bench.orders.told(|told| told.continued.clone()),
        [false, true, false]
    );
    drop((first, second));
}

#[test]
fn a_cancelled_request_holds_nothing() {
    let mut bench = Bench::new(&small());
    let (running, _events) = bench.submit_with(generation(&[1; 4], 20), None);
    let others: Vec<_> = (0..3)
        .map(|_| bench.submit(generation(&[2; 4], 4)))
        .collect();
    let (waiting, _more) = bench.submit_with(generation(&[3; 4], 20), None);
    bench.driver.step();
    let before = bench.driver.stats();
    assert_eq!((before.running, before.waiting), (4, 1));
    bench.driver.cancel(running);
    bench.driver.cancel(waiting);
    bench.driver.cancel(waiting);
    let after = bench.driver.stats();
    assert_eq!((after.running, after.waiting, after.cancelled), (3, 0, 2));
    assert!(after.kv_blocks_used < before.kv_blocks_used, "at once");
    bench.run();
    for events in others {
        assert_eq!(all(events)[1..], alone(&generation(&[2; 4], 4)));
    }
}

#[test]
fn adapters_take_turns_in_the_slots() {
    let mut bench = Bench::new(&small());
    let names = ["x", "y", "z"];
    bench.add_adapters(&names);
    let mut expected = Vec::new();
    let mut seen = Vec::new();
    for turn in 0..9_u32 {
        let key = turn % 3;
        let mut asked = generation(&[turn, 1, 2], 3);
        asked.adapter = Some(names[key as usize].to_owned());
        expected.push(alone(&asked));
        seen.push(bench.submit_with(asked, Some(key)).1);
    }
    assert!(bench.driver.stats().waiting > 0);
    bench.run();
    for (expected, seen) in expected.into_iter().zip(seen) {
        assert_eq!(all(seen)[1..], expected);
    }
    let stats = bench.driver.stats();
    assert!(
        stats.adapter_evictions > 0 && stats.adapter_loads > 2,
        "{stats:?}"
    );
}

#[test]
fn an_adapter_that_cannot_be_loaded_fails_its_requests_until_it_can() {
    let mut bench = Bench::new(&small());
    bench.add_adapters(&["x"]);
    bench.orders.told(|told| told.broken.push("x".to_owned()));
    let mut asked = generation(&[1], 2);
    asked.adapter = Some("x".to_owned());
    for _ in 0..3 {
        let (_, events) = bench.submit_with(asked.clone(), Some(0));
        bench.run();
        let error = GenerationError::Adapter {
            adapter: "x".to_owned(),
            reason: "bad file".to_owned(),
        };
        assert_eq!(all(events), [Event::Failed(error)]);
    }
    bench.orders.told(|told| told.broken.clear());
    let (_, events) = bench.submit_with(asked.clone(), Some(0));
    bench.run();
    assert_eq!(all(events)[1..], alone(&asked));
}

#[test]
fn an_adapter_that_is_removed_serves_those_that_were_taken_with_it() {
    let mut bench = Bench::new(&small());
    bench.add_adapters(&["x"]);
    let mut asked = generation(&[1], 5);
    asked.adapter = Some("x".to_owned());
    let (_, events) = bench.submit_with(asked.clone(), Some(0));
    bench.driver.step();
    bench.driver.remove_adapter(0);
    assert_eq!(
        bench.orders.told(|told| told.slots[0].clone()).as_deref(),
        Some("x")
    );
    bench.run();
    assert_eq!(all(events)[1..], alone(&asked));
    assert_eq!(
        bench.orders.told(|told| told.slots.clone()),
        [None, None],
        "its memory is free"
    );
}

#[test]
fn the_device_is_told_how_long_a_batch_stays_as_it_is() {
    let mut bench = Bench::new(&small());
    // Its prompt fills a block; its first token begins the next.
    let events = bench.submit(generation(&[1, 2, 3, 4], 9));
    bench.run();
    assert_eq!(tokens_of(&all(events)).len(), 9);
    // After the prompt, blocks of 4: as far as the block goes, or to the last token.
    let ahead = bench.orders.told(|told| told.ahead.clone());
    assert_eq!(ahead, [0, 3, 2, 1, 0, 3, 2, 1, 0]);
}

#[test]
fn nothing_is_promised_while_the_end_is_banned() {
    let mut bench = Bench::new(&small());
    let events = bench.submit(Generation {
        min_new: 3,
        stop_tokens: vec![7],
        ..generation(&[1, 2], 6)
    });
    bench.run();
    all(events);
    let ahead = bench.orders.told(|told| told.ahead.clone());
    assert_eq!(ahead[..3], [0, 0, 0], "{ahead:?}");
}
