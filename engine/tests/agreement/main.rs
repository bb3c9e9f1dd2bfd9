//! `foresail simulate` and the emulated backend agree: the same requests give
//! the same steps.
//!
//! The simulator runs a scenario step by step, with a model of step times that
//! writes down what each step computes. The real driver runs the emulated
//! backend on a clock that jumps, fed with the same requests at the same times.
//! Then every step has to be the same one (its decodes, and each chunk), and
//! every request has to be admitted, to get its first token and to end at the
//! same nanosecond.
//!
//! One replica, that is: what several do together is decided by machines that
//! the engine does not have yet. Loading an adapter takes no time here, since
//! a driver loads between two steps and the simulator beside them.

mod emulated;
mod random;
mod real;
mod simulated;

use std::path::Path;

use foresail_reports::records::Outcome;
use foresail_scenarios::format::{self, Overrides};
use foresail_scenarios::scenario::Scenario;
use foresail_scenarios::workload::Request;

/// What a step computes: sequences that decode, their context, and (past, length, samples) of each chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Load {
    decodes: u32,
    decode_past: u64,
    chunks: Vec<(u32, u32, bool)>,
}

impl Load {
    fn of(load: &foresail_core::step_time::StepLoad<'_>) -> Self {
        let chunks = load.chunks.iter();
        Self {
            decodes: load.decodes,
            decode_past: load.decode_past,
            chunks: chunks
                .map(|chunk| (chunk.past, chunk.len, chunk.sample))
                .collect(),
        }
    }
}

/// Runs both, holds them to each other, and returns how many steps and preemptions there were.
fn agree(scenario: &Scenario, requests: &[Request]) -> (usize, u64) {
    let simulated = simulated::run(scenario, requests);
    let emulated = emulated::run(scenario, requests);
    for (place, (simulated, emulated)) in simulated.loads.iter().zip(&emulated.steps).enumerate() {
        assert_eq!(*simulated, emulated.load, "step {place}");
    }
    assert_eq!(simulated.loads.len(), emulated.steps.len(), "steps");
    for record in &simulated.records {
        let request = &emulated.requests[record.id as usize];
        match record.outcome {
            Outcome::Completed => {
                let parts = &record.parts.unwrap();
                let admitted = record.due_ns + parts.queue_ns + parts.adapter_ns;
                assert_eq!(
                    request.admitted_ns,
                    Some(admitted),
                    "admission of {}",
                    record.id
                );
                assert_eq!(
                    request.first_token_ns, record.first_token_ns,
                    "first token of {}",
                    record.id
                );
                assert_eq!(request.end_ns, Some(record.end_ns), "end of {}", record.id);
                assert_eq!(
                    request.cached_tokens, record.cached_tokens,
                    "cache of {}",
                    record.id
                );
                assert_eq!(
                    request.tokens, record.output_tokens,
                    "tokens of {}",
                    record.id
                );
            }
            Outcome::RejectedTooLong | Outcome::RejectedNeverFits => assert!(request.refused),
            other => panic!("request {} ended as {}", record.id, other.name()),
        }
    }
    assert_eq!(simulated.records.len(), requests.len());
    let busy: u64 = emulated
        .steps
        .iter()
        .map(|step| step.end - step.start)
        .sum();
    let gpus = u128::from(scenario.deployment.world_size);
    assert_eq!(
        simulated.totals.gpu_ns.busy,
        u128::from(busy) * gpus,
        "busy time"
    );
    let preemptions: u32 = simulated
        .records
        .iter()
        .map(|record| record.preemptions)
        .sum();
    assert_eq!(emulated.preemptions, u64::from(preemptions));
    (emulated.steps.len(), emulated.preemptions)
}

/// A ready scenario on one replica that is always there.
fn library(name: &str, set: &[&str]) -> Scenario {
    let one = [
        "deployment.min_replica_count=1",
        "deployment.max_replica_count=1",
    ];
    let overrides = Overrides {
        set: one
            .iter()
            .chain(set)
            .map(|each| (*each).to_owned())
            .collect(),
        ..Overrides::default()
    };
    match format::load(Path::new(name), &overrides) {
        Ok(scenario) => scenario,
        Err(error) => panic!("{name}: {error}: {error:?}"),
    }
}

fn requests(scenario: &Scenario) -> Vec<Request> {
    let requests = scenario.workload.open(scenario.seed).unwrap();
    requests.map(Result::unwrap).collect()
}

/// Runs a ready scenario, and says how many steps it had.
fn agree_on(name: &str, set: &[&str]) -> usize {
    let scenario = library(name, set);
    let (steps, _) = agree(&scenario, &requests(&scenario));
    steps
}

#[test]
fn a_chat() {
    let steps = agree_on(
        "chat",
        &[
            "workload.duration=2m",
            "workload.shape={ kind = \"ramp\", to_factor = 1.5, over = \"1m\" }",
        ],
    );
    assert!(steps > 1_000, "{steps} steps");
}

#[test]
fn a_queue_that_only_grows() {
    let set = [
        "workload.duration=20s",
        "workload.arrivals.rate_per_s=100.0",
    ];
    assert!(agree_on("burst", &set) > 1_000);
}

#[test]
fn long_prompts_in_chunks() {
    let set = [
        "workload.duration=3m",
        "workload.shape={ kind = \"ramp\", to_factor = 1.5, over = \"1m\" }",
        "batching.prefill_chunk=1000",
    ];
    assert!(agree_on("long-prompts", &set) > 1_000);
}

#[test]
fn conversations_that_find_their_prefixes() {
    let scenario = library("multi-turn", &["workload.duration=5m"]);
    let requests = requests(&scenario);
    let emulated = emulated::run(&scenario, &requests);
    let cached = emulated
        .requests
        .iter()
        .filter(|request| request.cached_tokens > 0);
    assert!(cached.count() * 2 > requests.len(), "most find a prefix");
    agree(&scenario, &requests);
}

#[test]
fn conversations_whose_prefixes_are_evicted() {
    let set = [
        "workload.duration=5m",
        "batching.num_blocks=200",
        "deployment.max_model_len=8192",
    ];
    let scenario = library("multi-turn", &set);
    let (_, preemptions) = agree(&scenario, &requests(&scenario));
    assert!(preemptions > 0, "memory is short");
}

#[test]
fn adapters() {
    let set = [
        "workload.duration=1m",
        "adapters.slots=40",
        "batching.max_loras=6",
    ];
    let mut scenario = library("adapters", &set);
    let adapters = scenario.deployment.adapters.as_mut().unwrap();
    for adapter in &mut adapters.deployed {
        adapter.bytes = 0;
    }
    let (steps, _) = agree(&scenario, &requests(&scenario));
    assert!(steps > 1_000, "{steps} steps");
}
