//! What is chosen for which times, what is refused, and that a scenario reads it.

use std::path::Path;

use foresail_scenarios::catalogue::cold_starts;
use foresail_scenarios::format::{self, Overrides};
use foresail_scenarios::random::stream;
use foresail_scenarios::scenario::ColdStartPhase;

use super::*;

/// Starts of a long stage, which gives the others their scale, and one of these times.
fn starts(seconds: &[f64]) -> Vec<Start> {
    let start = |seconds: &f64| vec![("long".to_owned(), 0.2), ("it".to_owned(), *seconds)];
    seconds.iter().map(start).collect()
}

fn fitted(seconds: &[f64]) -> StageFit {
    fit(&starts(seconds)).expect("they are sound").remove(1)
}

/// Draws of a distribution, the same in every run.
fn draws(distribution: &Distribution, count: usize) -> Vec<f64> {
    let mut random = stream(7, "times");
    (0..count)
        .map(|_| distribution.sample(&mut random))
        .collect()
}

#[test]
fn what_takes_too_little_to_show_is_its_mean() {
    let stage = fitted(&[0.0001, 0.001, 0.0001, 0.002, 0.0003]);
    assert_eq!(stage.choice, Choice::Short);
    let expected = Distribution::Fixed { value: 0.0007 };
    assert_eq!(stage.outcomes[0].seconds, expected);
}

#[test]
fn what_always_takes_as_long_is_its_mean() {
    let stage = fitted(&[1.0, 1.01, 0.99, 1.0, 1.0]);
    assert_eq!(stage.choice, Choice::Same);
    assert_eq!(stage.outcomes.len(), 1);
    let never = fitted(&[0.0; 5]);
    assert_eq!(
        never.outcomes[0].seconds,
        Distribution::Fixed { value: 0.0 }
    );
}

#[test]
fn a_log_normal_is_found_again() {
    let truth = Distribution::log_normal_median(2.0, 0.3);
    let stage = fitted(&draws(&truth, 400));
    assert!(matches!(
        stage.choice,
        Choice::LogNormal | Choice::LogNormalAndOutliers
    ));
    let (mean, expected) = (stage.outcomes[0].seconds.mean(), truth.mean());
    assert!((mean / expected - 1.0).abs() < 0.03, "{mean} of {expected}");
}

#[test]
fn a_stalled_start_is_told_and_stays_as_likely_as_it_was() {
    let stage = fitted(&[1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 9.0, 0.98, 1.07, 0.93]);
    assert_eq!(stage.choice, Choice::LogNormalAndOutliers);
    assert_eq!(stage.outliers, [6]);
    let last = stage.outcomes.last().expect("there are two");
    assert_eq!(last.seconds, Distribution::Fixed { value: 9.0 });
    assert!((last.probability - 0.1).abs() < 1e-12);
    let mean: f64 = stage
        .outcomes
        .iter()
        .map(|outcome| outcome.probability * outcome.seconds.mean())
        .sum();
    assert!((mean / stage.mean_s - 1.0).abs() < 0.01, "{mean}");
}

#[test]
fn two_ways_to_go_are_seen_if_there_are_enough_starts() {
    let both = |count: usize| -> Vec<f64> {
        let one = |index: usize| 1.0 + 0.01 * index as f64 + (index % 2) as f64;
        (0..count).map(one).collect()
    };
    assert_eq!(fitted(&both(40)).choice, Choice::Measured);
    // Of ten nobody can tell.
    assert_eq!(fitted(&both(10)).choice, Choice::LogNormal);
}

#[test]
fn no_tail_is_made_up_of_times_that_differ_by_far() {
    let stage = fitted(&[0.01, 0.02, 1.0, 0.05, 0.4, 0.1, 0.03]);
    assert_eq!(stage.choice, Choice::Measured);
    let draws = draws(&stage.outcomes[0].seconds, 1_000);
    assert!(draws.iter().all(|seconds| *seconds <= 1.0));
}

#[test]
fn a_stage_that_sometimes_takes_no_time_is_as_measured() {
    let stage = fitted(&[0.0, 1.0, 1.0, 0.0, 2.0]);
    assert_eq!(stage.choice, Choice::Measured);
    assert!((stage.outcomes[0].seconds.mean() - stage.mean_s).abs() < 1e-12);
}

#[test]
fn starts_that_cannot_be_fitted_say_why() {
    let too_few = fit(&starts(&[1.0; 4])).expect_err("four are too few");
    let mut differ = starts(&[1.0; 5]);
    differ[3].pop();
    let differ = fit(&differ).expect_err("one has no `it`");
    let backwards = fit(&starts(&[1.0, 1.0, -1.0, 1.0, 1.0])).expect_err("a time is negative");
    let told = [too_few, differ, backwards].map(|error| error.to_string());
    assert_eq!(
        told,
        [
            "4 starts say nothing of a spread; measure at least 5",
            "start 4 has the stages long, and start 1 has long, it; measure starts of one kind",
            "stage `it` of start 3 took no finite time from 0 up",
        ]
    );
}

#[test]
fn whole_starts_are_drawn_as_they_were() {
    let truth = Distribution::log_normal_median(2.0, 0.3);
    let starts = starts(&draws(&truth, 50));
    let stages = fit(&starts).expect("they are sound");
    let measured: Vec<f64> = starts.iter().map(total).collect();
    let drawn = drawn(&stages, 4_000, &mut stream(1, "starts"));
    for share in [0.5, 0.9] {
        let (drawn, measured) = (percentile(&drawn, share), percentile(&measured, share));
        assert!((drawn / measured - 1.0).abs() < 0.1, "{drawn} {measured}");
    }
}

#[test]
fn percentiles_are_between_their_neighbours() {
    let seconds = [4.0, 1.0, 3.0, 2.0];
    assert_eq!(
        [0.0, 0.5, 0.9, 1.0].map(|share| percentile(&seconds, share)),
        [1.0, 2.5, 3.7, 4.0]
    );
    assert_eq!(percentile(&[], 0.5), 0.0);
}

const SCENARIO: &str = r#"
[deployment]
model = "llama-3-8b"
gpu = "h100"
world_size = 1
min_replica_count = 1
max_replica_count = 2
scale_up_window = "10s"

[workload]
duration = "2m"
arrivals = { process = "poisson", rate_per_s = 3.0 }
prompt_tokens = 512
output_tokens = 128

[price]
usd_per_gpu_hour = 8.00

"#;

#[test]
fn a_scenario_reads_the_table_as_it_was_fitted() {
    let kinds: [&[f64]; 4] = [
        &[1.0, 1.0, 1.0, 1.0, 1.0],
        &[1.0, 1.1, 0.9, 1.05, 0.95],
        &[1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 9.0, 0.98, 1.07, 0.93],
        &[0.0, 1.0, 1.0, 0.0, 2.0],
    ];
    let defaults = cold_starts::default_stages(16_000_000_000, 1);
    let fitted = kinds.map(fitted);
    let stages: Vec<TableStage<'_>> = defaults
        .iter()
        .map(|stage| TableStage::Assumed(stage, "the catalogue's"))
        .chain(fitted.iter().map(TableStage::Measured))
        .collect();
    let heading = ["measured somewhere".to_owned()];
    let text = format!("{SCENARIO}{}", scenario_table(&heading, &stages));
    let scenario = format::parse("scenario.toml", &text, Path::new(""), &Overrides::default());
    let scenario = scenario.unwrap_or_else(|error| panic!("{error}\n{text}"));
    let read = &scenario.deployment.cold_start.stages;
    assert_eq!(read.len(), defaults.len() + fitted.len());
    for (read, written) in read.iter().zip(&defaults) {
        assert_eq!((&read.name, read.phase), (&written.name, written.phase));
        let means = |stage: &foresail_scenarios::scenario::ColdStartStage| {
            let mean = |outcome: &foresail_scenarios::scenario::ColdStartOutcome| {
                outcome.probability * outcome.seconds.mean()
            };
            stage.outcomes.iter().map(mean).sum::<f64>()
        };
        assert!((means(read) / means(written) - 1.0).abs() < 1e-3);
    }
    for (read, written) in read[defaults.len()..].iter().zip(&fitted) {
        assert_eq!(read.phase, ColdStartPhase::Initialising);
        assert_eq!(read.outcomes.len(), written.outcomes.len());
        for (read, written) in read.outcomes.iter().zip(&written.outcomes) {
            assert!((read.probability - written.probability).abs() < 1e-12);
            let (read, written) = (read.seconds.mean(), written.seconds.mean());
            assert!((read - written).abs() <= 1e-4 * written, "{read} {written}");
        }
    }
}
