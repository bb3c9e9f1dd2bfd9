//! Requests with adapters: what they wait for, what they cost, and that none is lost.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use foresail_reports::records::{AdapterTotals, Outcome, RequestRecord};
use foresail_scenarios::scenario::Scenario;
use foresail_scenarios::workload::{Content, Request};
use foresail_simulator::{Options, SimulationError, simulate};
use support::{Records, run, scenario};

/// A replica with `slots` slots and adapters that take 100 ms to load.
fn text(slots: u32, more: &str) -> String {
    format!(
        "[deployment]\nmodel = \"llama-3-8b\"\ngpu = \"h100\"\n\
         min_replica_count = 1\nmax_replica_count = 1\n\
         [adapters]\ncount = 6\nsize_mib = 100\nstorage_gb_per_s = 1.048576\nslots = {slots}\n\
         [workload]\nrequests = 400\narrivals = {{ rate_per_s = 2.0 }}\n\
         prompt_tokens = 100\noutput_tokens = 20\n{more}"
    )
}

const LOAD_NS: u64 = 100_000_000;

/// Requests (due in ms, adapter) of the scenario's deployment, one record each, in their order.
fn play(
    scenario: &Scenario,
    requests: &[(u64, Option<u32>)],
) -> (Vec<RequestRecord>, AdapterTotals) {
    let records = try_play(scenario, requests).unwrap();
    let mut requests = records.requests;
    requests.sort_by_key(|record| record.id);
    (requests, records.totals.adapters.unwrap())
}

fn try_play(
    scenario: &Scenario,
    requests: &[(u64, Option<u32>)],
) -> Result<Records, SimulationError> {
    let request = |(due_ms, adapter): &(u64, Option<u32>)| {
        Ok(Request {
            due: due_ms * 1_000_000,
            prompt_tokens: 100,
            output_tokens: 20,
            session: None,
            adapter: *adapter,
            content: Content::Unique,
        })
    };
    let mut records = Records::default();
    let options = Options {
        seed: 1,
        leaps: true,
    };
    let go_on = |_| ControlFlow::Continue(());
    records.totals = simulate(
        scenario,
        requests.iter().map(request),
        options,
        &mut records,
        go_on,
    )?;
    Ok(records)
}

fn waits_ns(records: &[RequestRecord]) -> Vec<u64> {
    records
        .iter()
        .map(|record| record.parts.unwrap().adapter_ns)
        .collect()
}

#[test]
fn the_first_use_waits_for_the_load_and_the_next_does_not() {
    let scenario = scenario(&text(2, ""));
    let requests = [
        (0, Some(4)),
        (1_000, Some(4)),
        (2_000, None),
        (3_000, Some(5)),
    ];
    let (records, totals) = play(&scenario, &requests);
    assert_eq!(waits_ns(&records), [LOAD_NS, 0, 0, LOAD_NS]);
    assert_eq!((totals.loads, totals.evictions), (2, 0));
    let adapters: Vec<_> = records.iter().map(|record| record.adapter).collect();
    assert_eq!(adapters, requests.map(|(_, adapter)| adapter));
    assert!(
        records
            .iter()
            .all(|record| record.parts.unwrap().queue_ns == 0),
        "idle otherwise"
    );
}

#[test]
fn loads_of_a_replica_go_one_after_the_other_and_others_join_them() {
    let scenario = scenario(&text(3, ""));
    let requests = [(0, Some(0)), (10, Some(1)), (20, Some(0)), (30, Some(2))];
    let (records, totals) = play(&scenario, &requests);
    assert_eq!(
        waits_ns(&records),
        [100, 190, 80, 270].map(|ms| ms * 1_000_000)
    );
    assert_eq!(totals.loads, 3);
}

#[test]
fn the_least_recently_used_adapter_is_evicted() {
    let scenario = scenario(&text(2, ""));
    let requests = [
        (0, 0),
        (1_000, 1),
        (2_000, 0),
        (3_000, 2),
        (4_000, 0),
        (5_000, 1),
    ];
    let requests = requests.map(|(due_ms, adapter)| (due_ms, Some(adapter)));
    let (records, totals) = play(&scenario, &requests);
    let loaded = [LOAD_NS, LOAD_NS, 0, LOAD_NS, 0, LOAD_NS];
    assert_eq!(
        waits_ns(&records),
        loaded,
        "2 takes the slot of 1, and 1 that of 2"
    );
    assert_eq!((totals.loads, totals.evictions), (4, 2));
}

#[test]
fn a_copy_in_host_memory_comes_back_sooner() {
    let scenario = scenario(&text(1, "[batching]\nmax_loras = 1\n"));
    let cached = support::scenario(&text(1, "").replace(
        "slots = 1",
        "slots = 1\nhost_slots = 2\nhost_gb_per_s = 10.48576",
    ));
    let requests = [(0, Some(0)), (1_000, Some(1)), (2_000, Some(0))];
    assert_eq!(waits_ns(&play(&scenario, &requests).0), [LOAD_NS; 3]);
    assert_eq!(
        waits_ns(&play(&cached, &requests).0),
        [LOAD_NS, LOAD_NS, LOAD_NS / 10]
    );
}

/// All slots are in use: the request waits for one, and then for its adapter.
#[test]
fn an_adapter_in_use_keeps_its_slot() {
    let scenario = scenario(&text(1, ""));
    let (records, totals) = play(&scenario, &[(0, Some(0)), (50, Some(1)), (60, None)]);
    let freed_ns = records[0].end_ns;
    assert!(freed_ns > LOAD_NS);
    assert_eq!(
        records[1].parts.unwrap().adapter_ns,
        freed_ns + LOAD_NS - 50_000_000
    );
    assert!(
        records[2].end_ns < records[1].end_ns,
        "who needs no adapter passes"
    );
    assert_eq!((totals.loads, totals.evictions), (2, 1));
}

/// From its first step to its end, a request is in the batch of its replica.
#[test]
fn a_batch_uses_at_most_max_loras_adapters() {
    for (max_loras, slots) in [(1, 1), (2, 2), (2, 6), (3, 4)] {
        let more = format!(
            "[workload.adapters]\nzipf = 0.5\nbase_share = 0.1\n[batching]\nmax_loras = {max_loras}\n"
        );
        let text = text(slots, &more).replace("rate_per_s = 2.0", "rate_per_s = 40.0");
        let records = run(&scenario(&text), 3).requests;
        let first_step = |record: &RequestRecord| {
            record.first_token_ns.unwrap() - record.parts.unwrap().prefill_ns
        };
        let mut most = 0;
        for at in records.iter().map(first_step) {
            let in_batch = records
                .iter()
                .filter(|record| first_step(record) <= at && at < record.end_ns);
            let distinct: BTreeSet<u32> = in_batch.filter_map(|record| record.adapter).collect();
            most = most.max(distinct.len());
        }
        assert_eq!(most, max_loras, "the limit is reached, and kept");
    }
}

/// Every run checks that each request ends once and that parts and times add
/// up; this adds that each adapter's requests are those of the workload.
#[test]
fn no_request_is_lost_and_all_keep_their_adapter() {
    let more = "[workload.adapters]\nzipf = 1.0\nbase_share = 0.2\n[autoscaler]\npolicy = \"scripted\"\n\
                drain_timeout = \"200ms\"\nsteps = [{ at = \"20s\", replicas = 3 }, { at = \"40s\", replicas = 1 }]\n\
                [cold_start]\ntotal = \"1s\"\n";
    let text = text(2, more)
        .replace("rate_per_s = 2.0", "rate_per_s = 50.0")
        .replace(
            "min_replica_count = 1\nmax_replica_count = 1\n",
            "initial_replica_count = 1\n",
        )
        .replace("requests = 400", "requests = 2_500")
        // Loads of a second: many wait for theirs when two replicas drain.
        .replace("storage_gb_per_s = 1.", "storage_gb_per_s = 0.1");
    let scenario = scenario(&text);
    let mut sent = BTreeMap::new();
    for request in scenario.workload.open(5).unwrap() {
        *sent.entry(request.unwrap().adapter).or_insert(0) += 1;
    }
    let records = run(&scenario, 5);
    let mut ended = BTreeMap::new();
    for record in &records.requests {
        *ended.entry(record.adapter).or_insert(0) += 1;
    }
    assert_eq!(sent, ended);
    assert_eq!(sent.len(), 7, "six adapters and the model itself");
    let failed = |record: &&RequestRecord| record.outcome == Outcome::FailedDrain;
    let cut_off: Vec<_> = records.requests.iter().filter(failed).collect();
    assert!(
        cut_off
            .iter()
            .any(|record| record.parts.unwrap().adapter_ns > 0 && record.first_token_ns.is_none()),
        "the drain timeout also meets those that wait for an adapter: {}",
        cut_off.len()
    );
}

#[test]
fn more_slots_are_never_worse_in_loads() {
    // One request at a time, so that no adapter is in use when another is asked for.
    let requests: Vec<(u64, Option<u32>)> = (0..300)
        .map(|index| (index * 1_000, Some((index * index * 7 % 23 % 6) as u32)))
        .collect();
    let loads = (1..=6).map(|slots| play(&scenario(&text(slots, "")), &requests).1.loads);
    let loads: Vec<u64> = loads.collect();
    assert!(
        loads.is_sorted_by(|fewer_slots, more_slots| fewer_slots >= more_slots),
        "{loads:?}"
    );
    let different = requests
        .iter()
        .map(|(_, adapter)| adapter)
        .collect::<BTreeSet<_>>()
        .len();
    assert_eq!(
        loads[5], different as u64,
        "with room for all, each is loaded once"
    );
    assert!(loads[0] > 3 * loads[5], "{loads:?}");
}

/// The closed form of the overhead: 19 decode steps and one of prefill, each
/// longer by the same time.
#[test]
fn a_step_with_adapters_takes_longer_by_what_the_scenario_says() {
    let overhead = "slots = 2\nstep_overhead = \"1ms\"\nadapter_overhead = \"100us\"";
    let free = "slots = 2\nstep_overhead = \"0s\"\nadapter_overhead = \"0s\"";
    let served_ns = |settings: &str, adapter| {
        let text = text(2, "").replace("slots = 2", settings);
        let (records, _) = play(&scenario(&text), &[(0, adapter)]);
        records[0].parts.unwrap().prefill_ns + records[0].parts.unwrap().decode_ns
    };
    let plain = served_ns(free, None);
    assert_eq!(
        served_ns(overhead, None),
        plain,
        "the model itself costs nothing more"
    );
    assert_eq!(served_ns(free, Some(0)), plain);
    assert_eq!(served_ns(overhead, Some(0)), plain + 20 * 1_100_000);
}

#[test]
fn requests_stay_with_the_replica_that_has_their_adapter() {
    let loads = |policy: &str| {
        let more = format!("[workload.adapters]\nzipf = 0.5\n[router]\npolicy = \"{policy}\"\n");
        let text = text(3, &more).replace("_replica_count = 1", "_replica_count = 2");
        run(&scenario(&text), 2).totals.adapters.unwrap().loads
    };
    assert!(2 * loads("adapter-affinity") < loads("round-robin"));
}

#[test]
fn an_adapter_that_is_not_deployed_is_an_error() {
    let scenario = scenario(&text(2, ""));
    let error = try_play(&scenario, &[(0, Some(5)), (1, Some(6))]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "request 1 asks for adapter 6, and 6 are deployed, numbered from 0"
    );
}
