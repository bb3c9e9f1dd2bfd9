//! Plans beside the workloads that they are made of.

use std::io::Write as _;

use foresail_core::time::SECOND;
use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::workload::{AdapterMix, Adapters, Request, Source};

use super::*;

const SEED: u64 = 11;

/// Conversations with adapters: everything that a request can have.
fn conversations() -> Workload {
    let traffic = Traffic {
        rate: Rate::PerSecond(5.0),
        requests: Some(500),
        prefix_tokens: 10,
        range_ratio: 0.5,
        ..Traffic::default()
    };
    let mut workload = traffic.workload().unwrap();
    if let Source::Generated(generator) = &mut workload.source {
        let sessions = generator.sessions.as_mut().unwrap();
        sessions.turns = Distribution::Uniform { min: 1.0, max: 6.0 };
        sessions.think_time_s = Distribution::Exponential { mean: 3.0 };
    }
    workload.adapters = Adapters {
        deployed: Some(vec!["sql".to_owned(), "tone".to_owned()]),
        mix: Some(AdapterMix::zipf(2, 1.0, 0.3)),
    };
    workload
}

fn plan(workload: &Workload, shard: &str) -> Plan {
    Plan::new(workload, SEED, shard.parse().unwrap()).unwrap()
}

#[test]
fn the_requests_are_those_of_a_simulation_and_their_ids_are_their_positions() {
    let workload = conversations();
    let simulated: Vec<Request> = workload.open(SEED).unwrap().map(Result::unwrap).collect();
    let plan = plan(&workload, "1/1");
    assert_eq!(plan.requests_total, 500);
    assert_eq!(plan.adapters, ["sql", "tone"]);
    assert_eq!(plan.last_due_ns(), simulated[499].due);
    for (id, (planned, request)) in (0..).zip(plan.requests.iter().zip(&simulated)) {
        assert_eq!((planned.id, &planned.request), (id, request));
    }
}

#[test]
fn shards_are_the_whole_plan_and_split_no_conversation() {
    let workload = conversations();
    let whole = plan(&workload, "1/1");
    let shards = ["1/3", "2/3", "3/3"].map(|shard| plan(&workload, shard));
    let mut together: Vec<_> = (shards.iter().enumerate())
        .flat_map(|(shard, plan)| plan.requests.iter().map(move |planned| (shard, planned)))
        .collect();
    together.sort_by_key(|(_, planned)| planned.id);
    assert!(
        together
            .iter()
            .map(|(_, planned)| *planned)
            .eq(&whole.requests)
    );
    for (shard, planned) in together {
        let session = planned.request.session.unwrap();
        assert_eq!(shard as u64, session % 3);
    }
    assert!(shards.iter().all(|shard| shard.requests_total == 500));
}

#[test]
fn a_trace_that_is_wrong_anywhere_is_refused_before_the_run() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let rows = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,10,5\n1.0,10,many\n";
    file.write_all(rows.as_bytes()).unwrap();
    let trace = foresail_scenarios::workload::TraceSource::new(file.path());
    let workload = Workload {
        source: Source::Trace(trace),
        transforms: Default::default(),
        adapters: Adapters::default(),
    };
    let error = Plan::new(&workload, SEED, Shard::WHOLE).unwrap_err();
    assert!(
        matches!(error, WorkloadError::Malformed { line: 3, .. }),
        "{error}"
    );
}

#[test]
fn the_duration_is_the_workload_s_own_word() {
    let traffic = Traffic {
        rate: Rate::PerSecond(0.1),
        requests: None,
        duration: Some(60 * SECOND),
        ..Traffic::default()
    };
    let plan = plan(&traffic.workload().unwrap(), "1/1");
    assert_eq!(plan.duration_ns, Some(60 * SECOND));
    assert!(plan.last_due_ns() < 60 * SECOND);
}

/// Ten million requests need less than one and a half gigabytes, or this does not compile.
const _: () = assert!(PLANNED_BYTES * 10_000_000 < 1_500_000_000);
