use foresail_core::step_time::AllReduceRange;
use foresail_core::step_time::calibrated::{CalibratedAllReduce, Factor, HowMeasured, Knot, Terms};
use proptest::prelude::*;

use super::engine::*;
use crate::steps::{Options, fit, summary};

/// Terms as far apart as engines are, each of which matters somewhere in the grid.
fn any_terms() -> impl Strategy<Value = Terms> {
    let scale = || (-1.0..1.0_f64).prop_map(libm::exp2);
    let part = || prop_oneof![1 => Just(0.0), 4 => scale()];
    let parts = (
        scale(),
        scale(),
        scale(),
        part(),
        scale(),
        scale(),
        part(),
        part(),
        part(),
    );
    (parts, -10.0..0.0_f64).prop_map(|(parts, speed)| {
        let known = terms();
        Terms {
            launch_s: known.launch_s * parts.0,
            weights_s: known.weights_s * parts.1,
            token_s: known.token_s * parts.2,
            sequence_s: known.sequence_s * parts.3,
            kv_token_s: known.kv_token_s * parts.4,
            pair_s: known.pair_s * parts.5,
            chunk_kv_token_s: known.chunk_kv_token_s * parts.6,
            chunk_s: known.chunk_s * parts.7,
            mixed_s: known.mixed_s * parts.8,
            ..known
        }
        .times(libm::exp2(speed))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn without_noise_the_terms_are_found(terms in any_terms(), seed in 0_u64..1000) {
        let engine = Engine { rounds: 3, ..Engine::new(terms, 0.0, seed) };
        let found = engine.fit(grid()).unwrap();
        let residuals = found.fit.residuals;
        prop_assert!(residuals.max < 1e-4, "{residuals:?}");
        prop_assert!(residuals.cross_validated_mean.unwrap() < 1e-3, "{residuals:?}");
        prop_assert!(error_unseen(&found, &engine.formula) < 1e-3);
        prop_assert_eq!(found.fit.run_to_run, 0.0);
        let fitted = found.fit.formula().unwrap().terms;
        for (name, (truth, value)) in Terms::names().zip(terms.to_vec().into_iter().zip(fitted.to_vec())) {
            let near = (value - truth).abs() <= 0.02 * truth + 1e-3 * terms.launch_s;
            prop_assert!(near || name == "launch_s", "{name}: {value} for {truth}");
        }
    }

    #[test]
    fn with_noise_predictions_hold(terms in any_terms(), seed in 0_u64..1000) {
        for (noise, error_max) in [(0.01, 0.01), (0.03, 0.03)] {
            let engine = Engine::new(terms, noise, seed);
            let found = engine.fit(grid()).unwrap();
            let error = error_unseen(&found, &engine.formula);
            prop_assert!(error < error_max, "{error} with noise {noise}: {:?}", found.fit.terms);
            prop_assert!(found.fit.token_factor.knots.is_empty(), "{:?}", found.fit.token_factor);
            prop_assert!(found.fit.kv_factor.knots.is_empty(), "{:?}", found.fit.kv_factor);
            prop_assert_eq!(found.fit.residuals.left_out, 0);
        }
    }
}

#[test]
fn intervals_hold_the_truth_about_as_often_as_they_say() {
    let truth = Terms::to_vec(&terms());
    let (mut held, mut all) = (0, 0);
    for seed in 0..12 {
        let engine = Engine {
            drift: 0.005,
            ..Engine::new(terms(), 0.02, seed)
        };
        let found = engine.fit(grid()).unwrap();
        for (term, truth) in found.fit.terms.iter().zip(&truth) {
            let shown = *truth > 0.0;
            held += u32::from(shown && term.low <= *truth && *truth <= term.high);
            all += u32::from(shown);
        }
    }
    let share = f64::from(held) / f64::from(all);
    assert!(share >= 0.85, "{held} of {all}");
}

#[test]
fn rounds_that_differ_are_how_runs_may() {
    let engine = Engine {
        drift: 0.03,
        rounds: 40,
        ..Engine::new(terms(), 0.01, 7)
    };
    let found = engine.fit(grid()).unwrap();
    let run_to_run = found.fit.run_to_run;
    assert!((0.02..0.04).contains(&run_to_run), "{run_to_run}");
    let calm = Engine::new(terms(), 0.01, 7).fit(grid()).unwrap();
    assert!(calm.fit.run_to_run < 0.004, "{}", calm.fit.run_to_run);
}

#[test]
fn the_same_seed_gives_the_same_fit() {
    let engine = Engine::new(terms(), 0.02, 3);
    let first = engine.fit(grid()).unwrap();
    assert_eq!(first, engine.fit(grid()).unwrap());
    let options = Options {
        seed: 4,
        draws: 64,
        ..Options::default()
    };
    let cells = engine.measure(grid());
    let other = fit(&cells, 1, HowMeasured::Ranks, None, &options).unwrap();
    assert_ne!(first.fit.draws, other.fit.draws);
    assert_eq!(first.fit.formula(), other.fit.formula());
}

/// One token takes a kernel of its own, and tiles are wasted at 16 and 32.
fn bent() -> Factor {
    let knots = [
        (1, 0.7),
        (2, 1.0),
        (8, 1.0),
        (16, 1.25),
        (64, 1.2),
        (256, 1.0),
    ];
    Factor {
        knots: knots
            .map(|(at, factor)| Knot { at, factor })
            .into_iter()
            .collect(),
    }
}

#[test]
fn a_bend_is_followed_where_there_is_one() {
    let mut engine = Engine::new(terms(), 0.01, 5);
    engine.formula.token_factor = bent();
    let found = engine.fit(grid()).unwrap();
    assert!(!found.fit.token_factor.knots.is_empty());
    let residuals = found.fit.residuals;
    assert!(residuals.mean < 0.01, "{residuals:?}");
    assert!(
        residuals.cross_validated_mean.unwrap() < 0.04,
        "{residuals:?}"
    );
    assert_eq!(residuals.left_out, 0, "{:?}", found.outliers);
    let error = error_unseen(&found, &engine.formula);
    assert!(error < 0.06, "{error}");
}

#[test]
fn caches_that_batches_outgrow_bend_the_reading_of_kv() {
    let mut engine = Engine::new(terms(), 0.01, 6);
    engine.formula.kv_factor = Factor {
        knots: [(4, 0.5), (32, 1.5)]
            .map(|(at, factor)| Knot { at, factor })
            .into_iter()
            .collect(),
    };
    let found = engine.fit(grid()).unwrap();
    assert!(!found.fit.kv_factor.knots.is_empty());
    assert!(found.fit.residuals.mean < 0.01, "{:?}", found.fit.residuals);
}

fn exchanges() -> CalibratedAllReduce {
    CalibratedAllReduce {
        per_step: 61.0,
        bytes_per_token: 1152,
        ranges: vec![AllReduceRange {
            bytes_last: 1 << 20,
            alpha_s: 20e-6,
            beta_bytes_per_s: 5e9,
        }],
    }
}

#[test]
fn exchanges_are_taken_out_of_ranks_and_not_of_a_shard_alone() {
    let mut ranks = Engine::new(terms(), 0.0, 1);
    let options = Options::default();
    let alone = ranks.measure(grid());
    let alone = fit(
        &alone,
        2,
        HowMeasured::ShardAlone,
        Some(exchanges()),
        &options,
    )
    .unwrap();
    ranks.formula.all_reduce = Some(exchanges());
    let together = ranks.measure(grid());
    let together = fit(
        &together,
        2,
        HowMeasured::Ranks,
        Some(exchanges()),
        &options,
    )
    .unwrap();
    for found in [&alone, &together] {
        assert!(error_unseen(found, &ranks.formula) < 1e-3);
        let cells = summary(&found.fit).unwrap();
        assert!(cells.iter().all(|cell| cell.error.abs() < 1e-3));
    }
}

#[test]
fn a_summary_has_every_cell() {
    let engine = Engine::new(terms(), 0.01, 2);
    let found = engine.fit(grid()).unwrap();
    let cells = summary(&found.fit).unwrap();
    assert_eq!(cells.len(), grid().len());
    let first = &cells[0];
    assert_eq!(first.name, "1 sequence after 32 tokens");
    assert_eq!(
        (first.repeats, first.stalled, first.device_s),
        (12, 0, None)
    );
    assert!(first.measured.low_s < first.measured.median_s);
    assert!(first.measured.median_s < first.measured.high_s);
    let error = first.fitted_s / first.measured.median_s - 1.0;
    assert!((error - first.error).abs() < 1e-12);
}
