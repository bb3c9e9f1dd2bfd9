//! What is counted agrees with what was recorded.

mod fixture;

use fixture::{MILLISECOND, SECOND, change, description, objectives, request, totals};
use foresail_reports::records::{
    ChangeKind, Gaps, Outcome, Parts, RecordSink, RequestRecord, RunTotals,
};
use foresail_reports::{
    Latency, Measurements, ObjectiveMetric, ObjectiveSpec, RecordFiles, Statistic,
};
use proptest::prelude::*;

fn any_parts() -> impl Strategy<Value = Parts> {
    let any_ns = || prop_oneof![Just(0), 0..SECOND, 0..10_000 * SECOND];
    let before = (any_ns(), any_ns(), any_ns(), any_ns());
    let after = (any_ns(), any_ns(), any_ns());
    (before, after).prop_map(|(before, (prefill_ns, preemption_ns, decode_ns))| Parts {
        retry_ns: before.0,
        outside_ns: 0,
        cold_start_ns: before.1,
        queue_ns: before.2,
        adapter_ns: before.3,
        prefill_ns,
        preemption_ns,
        decode_ns,
    })
}

fn any_requests() -> impl Strategy<Value = Vec<RequestRecord>> {
    let outcome = prop_oneof![3 => Just(0_usize), 1 => 0..Outcome::ALL.len()];
    let one = (0..1_000 * SECOND, any_parts(), 1..50_u32, outcome);
    prop::collection::vec(one, 0..300).prop_map(|requests| {
        let mut records: Vec<_> = requests
            .into_iter()
            .enumerate()
            .map(|(id, (due_ns, parts, tokens, outcome))| RequestRecord {
                outcome: Outcome::ALL[outcome],
                ..request(id as u64, due_ns, parts, tokens)
            })
            .collect();
        records.sort_by_key(|record| (record.end_ns, record.id));
        records
    })
}

proptest! {
    #[test]
    fn every_request_is_counted_once(requests in any_requests()) {
        let mut measurements = Measurements::new(&objectives());
        requests.iter().for_each(|request| measurements.request(request));
        let of = |outcome| requests.iter().filter(|r| r.outcome == outcome).count() as u64;
        for outcome in Outcome::ALL {
            prop_assert_eq!(measurements.count(outcome), of(outcome));
        }
        let completed = of(Outcome::Completed);
        for latency in [Latency::Ttft, Latency::E2e, Latency::Queue] {
            prop_assert_eq!(measurements.histogram(latency).count(), completed);
        }
        let totals = RunTotals { offered: requests.len() as u64, ..RunTotals::default() };
        let summary = measurements.summary(&description("any", 1), &totals);
        let ended = summary.requests.completed + summary.requests.failed + summary.requests.rejected;
        let unsent = of(Outcome::Unsent);
        prop_assert_eq!(ended + unsent, summary.requests.offered);
        prop_assert_eq!(summary.series.arrivals.iter().sum::<u64>(), ended);
        prop_assert_eq!(summary.series.completed.iter().sum::<u64>(), completed);
        prop_assert_eq!(summary.series.output_tokens.iter().sum::<u64>(), summary.tokens.output);
        prop_assert_eq!(summary.parts.unwrap().all.requests, completed);
        prop_assert_eq!(summary.why.as_ref().unwrap().slowest, completed.div_ceil(100).min(200));
        let in_episodes = summary.why.as_ref().unwrap().episodes.iter().map(|episode| episode.requests).sum::<u64>();
        prop_assert_eq!(in_episodes, summary.why.as_ref().unwrap().slowest);
    }

    #[test]
    fn sums_are_exact(requests in any_requests()) {
        let mut measurements = Measurements::new(&[]);
        requests.iter().for_each(|request| measurements.request(request));
        let sum_ns = |f: fn(&RequestRecord) -> u64| {
            let completed = requests.iter().filter(|r| r.outcome == Outcome::Completed);
            completed.map(|r| u128::from(f(r))).sum::<u128>()
        };
        let sum_of = |latency| measurements.histogram(latency).sum_ps() / 1000;
        prop_assert_eq!(sum_of(Latency::E2e), sum_ns(|r| r.end_ns - r.due_ns));
        prop_assert_eq!(sum_of(Latency::Ttft), sum_ns(|r| r.first_token_ns.unwrap() - r.due_ns));
        prop_assert_eq!(sum_of(Latency::Queue), sum_ns(|r| r.parts.unwrap().queue_ns));
    }
}

#[test]
fn tpot_takes_two_tokens() {
    let mut measurements = Measurements::new(&[]);
    let parts = Parts {
        prefill_ns: SECOND,
        decode_ns: 10 * MILLISECOND,
        ..Parts::default()
    };
    measurements.request(&request(
        0,
        0,
        Parts {
            decode_ns: 0,
            ..parts
        },
        1,
    ));
    assert_eq!(measurements.histogram(Latency::Tpot).count(), 0);
    measurements.request(&request(1, 0, parts, 11));
    assert_eq!(
        measurements.histogram(Latency::Tpot).max_ns(),
        Some(MILLISECOND)
    );
}

#[test]
fn goodput_counts_what_completed_within_every_limit() {
    let queued = |queue_ns| Parts {
        queue_ns,
        ..Parts::default()
    };
    let mut failed = request(3, 0, queued(SECOND), 1);
    failed.outcome = Outcome::FailedDrain;
    let mut measurements = Measurements::new(&objectives());
    measurements.request(&request(0, 0, queued(2 * SECOND), 1));
    measurements.request(&failed);
    measurements.request(&request(1, 0, queued(2 * SECOND + 1), 1));
    measurements.request(&request(2, 0, queued(10 * SECOND), 1));
    let summary = measurements.summary(&description("goodput", 1), &totals(4));
    // One within 2 s; the last of three completes at 10 s.
    assert_eq!(summary.goodput_per_s, Some(0.1));
    assert_eq!(summary.throughput.requests_per_s, 0.3);
    assert_eq!(summary.objectives[2].observed, Some(0.75));
}

#[test]
fn without_a_latency_objective_there_is_no_goodput() {
    let objective = |metric| ObjectiveSpec {
        name: "one".into(),
        metric,
        limit: 1.0,
    };
    let mut measurements = Measurements::new(&[
        objective(ObjectiveMetric::CostUsd),
        objective(ObjectiveMetric::OutputTokensPerSecond),
        objective(ObjectiveMetric::Latency(Latency::Itl, Statistic::Max)),
    ]);
    measurements.gaps(Gaps {
        first_ps: 2_000,
        growth_ps: 1_000,
        steps: 4,
        tokens: 2,
    });
    let summary = measurements.summary(&description("none", 1), &totals(0));
    let itl = summary.itl_s.unwrap();
    assert_eq!((itl.mean, itl.max), (3.5e-9, 5e-9));
    let observed: Vec<_> = summary
        .objectives
        .iter()
        .map(|o| (o.observed, o.met))
        .collect();
    let cost = 1.939_583_333;
    assert_eq!(
        observed,
        [(Some(cost), false), (Some(0.0), false), (Some(5e-9), true)]
    );
    let without = Measurements::new(&[objective(ObjectiveMetric::CostUsd)]);
    assert_eq!(
        without
            .summary(&description("none", 1), &totals(0))
            .goodput_per_s,
        None
    );
}

#[test]
fn totals_become_seconds_and_dollars() {
    let summary = fixture::summary("burst", 1);
    assert_eq!(summary.cost.unwrap().usd, 1.939_583_333);
    assert_eq!(summary.gpu_seconds.unwrap().billed, 1_750.0);
    assert_eq!(summary.replicas.unwrap().mean, 1_100.0 / 612.0);
    assert_eq!(summary.duration_s, 612.0);
    assert_eq!(summary.tokens.output, 113_800);
}

#[test]
fn sinks_compose_and_the_same_run_gives_the_same_bytes() {
    let parent = tempfile::tempdir().unwrap();
    let write = |name: &str, wall_s: f64| {
        let folder = parent.path().join(name);
        let mut sink = (
            Measurements::new(&objectives()),
            Some(RecordFiles::create(&folder).unwrap()),
        );
        let offered = fixture::play(&mut sink);
        let (measurements, files) = sink;
        let summary = measurements.summary(&description("burst", 1), &totals(offered));
        files.unwrap().finish(&summary.with_wall_s(wall_s)).unwrap();
        ["requests.csv", "timeline.csv", "summary.json"]
            .map(|file| std::fs::read(folder.join(file)).unwrap())
    };
    let first = write("first", 0.25);
    assert_eq!(first, write("second", 0.5));
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!((lines(&first[0]), lines(&first[1])), (1_141, 7));
}

#[test]
fn a_sink_that_is_absent_takes_nothing_and_one_that_is_borrowed_takes_all() {
    let mut measurements = Measurements::new(&[]);
    let mut sink = (&mut measurements, None::<RecordFiles>);
    sink.request(&request(0, 0, Parts::default(), 1));
    sink.change(&change(0, ChangeKind::Ready, 1, 0, 1));
    assert_eq!(measurements.ended(), 1);
}
