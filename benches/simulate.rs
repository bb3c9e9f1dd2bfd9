//! Whole runs of the shipped scenario `million`: with leaps, and step by step,
//! which gives the same records and is what leaping is measured against.
//!
//! `cargo bench --bench simulate`

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foresail_reports::measurements::Measurements;
use foresail_scenarios::format::{self, Overrides};
use foresail_scenarios::scenario::Scenario;
use foresail_simulator::{Options, simulate};

fn million(overrides: &[&str]) -> Scenario {
    let set = overrides.iter().map(|text| (*text).to_string()).collect();
    let overrides = Overrides {
        set,
        ..Overrides::default()
    };
    format::load(Path::new("million"), &overrides).expect("the scenario is shipped")
}

/// One run with every histogram kept; returns the engine steps it took.
fn run(scenario: &Scenario, leaps: bool) -> u64 {
    let mut measurements = Measurements::new(&[]);
    let options = Options {
        seed: scenario.seed,
        leaps,
    };
    let requests = scenario
        .workload
        .open(options.seed)
        .expect("the workload opens");
    let totals = simulate(scenario, requests, options, &mut measurements, |_| {
        ControlFlow::Continue(())
    })
    .expect("the run adds up");
    black_box(&measurements);
    totals.steps
}

fn bench_million(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("million");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(15))
        .throughput(Throughput::Elements(1_000_000));
    let scenario = million(&[]);
    group.bench_function("leaps", |bencher| bencher.iter(|| run(&scenario, true)));
    group.bench_function("step_by_step", |bencher| {
        bencher.iter(|| run(&scenario, false))
    });
    group.finish();
}

/// At a tenth of the load a replica's batch changes seldom, and a leap is long.
fn bench_light_load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("light_load");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(100_000));
    let scenario = million(&[
        "workload.requests=100000",
        "workload.arrivals.rate_per_s=16.0",
    ]);
    group.bench_function("leaps", |bencher| bencher.iter(|| run(&scenario, true)));
    group.bench_function("step_by_step", |bencher| {
        bencher.iter(|| run(&scenario, false))
    });
    group.finish();
}

/// Where the time goes before anything is simulated.
fn bench_requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("requests_alone");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(1_000_000));
    let scenario = million(&[]);
    group.bench_function("million", |bencher| {
        bencher.iter(|| {
            let requests = scenario
                .workload
                .open(scenario.seed)
                .expect("the workload opens");
            requests
                .map(|request| request.expect("generated").due)
                .fold(0, |a, b| a ^ b)
        });
    });
    group.finish();
}

criterion_group!(benches, bench_million, bench_light_load, bench_requests);
criterion_main!(benches);
