//! One replica replayed: the same as a deployment of one replica, and a closed loop as one expects it.

mod support;

use foresail_core::batching::{Config, Reject};
use foresail_core::step_time::calibrated::{Factor, Formula, Terms};
use foresail_core::step_time::{Calibrated, DecodePiece, StepLoad, StepTime};
use foresail_reports::records::Outcome;
use foresail_scenarios::scenario::{Scenario, StepTimeModel};
use foresail_scenarios::workload::{Content, Request};
use foresail_simulator::replay::{Replay, ReplayError, Replayed, Traffic, replay};
use proptest::prelude::*;
use support::{run, scenario};

/// One replica that nobody scales, under traffic that takes it to its limits.
fn fixed(
    max_num_seqs: u32,
    chunk: u32,
    num_blocks: u32,
    prefix_caching: bool,
    rate_per_s: f64,
) -> Scenario {
    let sessions = if prefix_caching {
        "[workload.sessions]\nturns = { uniform = { min = 1, max = 4 } }\n\
         think_time = { exponential = { mean = 0.5 } }\ngroups = 2\nshared_tokens = 40\nmax_context_tokens = 1100"
    } else {
        ""
    };
    scenario(&format!(
        r#"
        [deployment]
        model = "llama-3.1-8b"
        gpu = "h100"
        world_size = 1
        initial_replica_count = 1
        min_replica_count = 1
        max_replica_count = 1
        [autoscaler]
        policy = "fixed"
        [batching]
        max_num_seqs = {max_num_seqs}
        max_num_batched_tokens = 256
        prefill_chunk = {chunk}
        num_blocks = {num_blocks}
        prefix_caching = {prefix_caching}
        [workload]
        requests = 200
        [workload.arrivals]
        process = "poisson"
        rate_per_s = {rate_per_s}
        [workload.prompt_tokens]
        uniform = {{ min = 1, max = 900 }}
        [workload.output_tokens]
        uniform = {{ min = 1, max = 200 }}
        {sessions}
        "#
    ))
}

fn batching(max_num_seqs: u32) -> Config {
    Config {
        block_size: 16,
        num_blocks: 1000,
        max_num_seqs,
        max_batched_tokens: 512,
        max_model_len: 4096,
        prefill_chunk: 512,
        max_loras: 0,
        watermark: 0,
        prefix_caching: false,
    }
}

/// Steps of 10 ms, whatever they compute.
struct TenMillis;

impl StepTime for TenMillis {
    fn step(&self, _: &StepLoad<'_>) -> u64 {
        10_000_000_000
    }

    fn decode(&self, _: u32, _: u64) -> DecodePiece {
        DecodePiece {
            fixed: 10_000_000_000,
            per_past_token: 0,
            past_last: u64::MAX,
        }
    }
}

fn request(due: u64, prompt_tokens: u32, output_tokens: u32) -> Request {
    Request {
        due,
        prompt_tokens,
        output_tokens,
        session: None,
        adapter: None,
        content: Content::Unique,
    }
}

fn closed(concurrency: u32, requests: usize, output_tokens: u32) -> Traffic {
    Traffic::ClosedLoop {
        concurrency,
        requests: vec![request(0, 100, output_tokens); requests],
    }
}

fn replay_of(scenario: &Scenario, requests: Vec<Request>) -> Replay {
    let StepTimeModel::Roofline(model) = &scenario.deployment.step_time else {
        panic!("the scenario says no other model");
    };
    let batching = scenario.deployment.batching;
    replay(
        &Traffic::Recorded(requests),
        batching,
        model.as_ref(),
        |_| 0,
    )
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn it_is_a_deployment_of_one_replica_to_the_nanosecond(
        max_num_seqs in 1..40_u32, chunk in 1..256_u32, num_blocks in 80..400_u32,
        prefix_caching: bool, rate_per_s in 1.0..200.0_f64, seed in 0..1000_u64,
    ) {
        let scenario = fixed(max_num_seqs, chunk, num_blocks, prefix_caching, rate_per_s);
        let mut records = run(&scenario, seed).requests;
        records.sort_by_key(|record| record.id);
        let requests: Result<Vec<_>, _> = scenario.workload.open(seed).unwrap().collect();
        let replayed = replay_of(&scenario, requests.unwrap());
        prop_assert_eq!(replayed.requests.len(), records.len());
        for (replayed, record) in replayed.requests.iter().zip(&records) {
            prop_assert_eq!(record.outcome, Outcome::Completed);
            let expected = Replayed {
                due_ns: record.due_ns,
                first_token_ns: record.first_token_ns.unwrap(),
                end_ns: record.end_ns,
                prompt_tokens: record.prompt_tokens,
                cached_tokens: record.cached_tokens,
                output_tokens: record.output_tokens,
            };
            prop_assert_eq!(*replayed, expected);
        }
    }
}

#[test]
fn a_client_waits_for_its_answer_before_it_asks_again() {
    let overhead = 1_000_000;
    let done = replay(&closed(1, 3, 5), batching(8), &TenMillis, |_| overhead).unwrap();
    // One step computes the prompt and samples the first token, four more sample the rest.
    for (index, request) in (0..).zip(&done.requests) {
        let due_ns = index * 51_000_000;
        assert_eq!(request.due_ns, due_ns);
        assert_eq!(request.first_token_ns, due_ns + 11_000_000);
        assert_eq!(request.end_ns, due_ns + 51_000_000);
    }
    assert_eq!(done.steps, 15);
    assert_eq!(done.busy_ns, 150_000_000);
}

#[test]
fn what_an_answer_gives_rise_to_joins_the_step_after_the_next() {
    // Without overhead the client sends just when a step has ended and the next has begun.
    let done = replay(&closed(2, 4, 5), batching(8), &TenMillis, |_| 0).unwrap();
    assert_eq!(done.requests[0].end_ns, 50_000_000);
    assert_eq!(done.requests[2].due_ns, 50_000_000);
    assert_eq!(done.requests[2].first_token_ns, 70_000_000);
}

#[test]
fn no_more_than_the_batch_limit_begin_at_once() {
    let done = replay(&closed(8, 8, 5), batching(3), &TenMillis, |_| 0).unwrap();
    let first_end = done.requests.iter().map(|each| each.end_ns).min().unwrap();
    let begun = |each: &&Replayed| each.first_token_ns <= first_end;
    assert_eq!(done.requests.iter().filter(begun).count(), 3);
}

#[test]
fn a_longer_prompt_takes_longer_to_get_there() {
    let terms = Terms {
        launch_s: 1e-3,
        request_s: 2e-3,
        prompt_token_s: 1e-5,
        ..Terms::default()
    };
    let formula = Formula {
        terms,
        token_factor: Factor::default(),
        kv_factor: Factor::default(),
        all_reduce: None,
    };
    let model = Calibrated::of(formula, 8);
    let traffic = Traffic::Recorded(vec![request(0, 400, 1), request(1000, 100, 1)]);
    let overhead = |prompt_tokens| model.request_overhead(prompt_tokens);
    let done = replay(&traffic, batching(8), &model, overhead).unwrap();
    // 6 ms for the first; the second, 3 ms by itself, comes in behind it and waits for its step.
    assert_eq!(done.requests[0].end_ns, 7_000_000);
    assert_eq!(done.requests[1].end_ns, 8_000_000);
}

#[test]
fn what_cannot_be_replayed_is_said() {
    let error = |traffic: &Traffic| replay(traffic, batching(8), &TenMillis, |_| 0).unwrap_err();
    let too_long = Traffic::Recorded(vec![request(0, 10, 10), request(0, 5000, 1)]);
    let reject = Reject::TooLong;
    assert_eq!(
        error(&too_long),
        ReplayError::Refused { request: 1, reject }
    );
    let empty = Traffic::Recorded(vec![request(0, 10, 0)]);
    let reject = Reject::Empty;
    assert_eq!(error(&empty), ReplayError::Refused { request: 0, reject });
    let mut adapted = request(0, 10, 10);
    adapted.adapter = Some(0);
    let adapted = Traffic::Recorded(vec![adapted]);
    assert_eq!(error(&adapted), ReplayError::Adapter { request: 0 });
    assert_eq!(error(&closed(0, 3, 1)), ReplayError::NoClients);
    let unsorted = Traffic::Recorded(vec![request(10, 10, 10), request(1, 10, 10)]);
    assert_eq!(error(&unsorted), ReplayError::Unsorted { request: 1 });
    let late = Traffic::Recorded(vec![request(u64::MAX, 10, 10)]);
    assert_eq!(error(&late), ReplayError::TooLong);
}
