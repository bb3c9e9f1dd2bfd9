use super::super::{AllReduceRange, Chunk, StepLoad, StepTime};
use super::*;
use proptest::prelude::*;

fn terms() -> Terms {
    Terms {
        launch_s: 1e-3,
        weights_s: 5e-3,
        token_s: 1e-4,
        sequence_s: 2e-5,
        kv_token_s: 3e-8,
        pair_s: 1e-9,
        chunk_kv_token_s: 1e-8,
        chunk_s: 1e-5,
        mixed_s: 1e-4,
        request_s: 1e-3,
        prompt_token_s: 1e-6,
        ..Terms::default()
    }
}

fn fit(terms: &Terms) -> WorldSizeFit {
    let estimate = |(name, value): (&str, f64)| TermEstimate {
        name: name.to_owned(),
        value,
        low: value,
        high: value,
        is_identified: true,
    };
    WorldSizeFit {
        world_size: 1,
        how: HowMeasured::Ranks,
        terms: Terms::names().zip(terms.to_vec()).map(estimate).collect(),
        token_factor: Factor::default(),
        kv_factor: Factor::default(),
        all_reduce: None,
        draws: Vec::new(),
        run_to_run: 0.0,
        residuals: Residuals::default(),
        cells: Vec::new(),
    }
}

fn profile(fit: WorldSizeFit) -> CalibratedProfile {
    CalibratedProfile {
        schema: CalibratedProfile::SCHEMA.into(),
        provenance: CalibrationProvenance {
            tool: "foresail".into(),
            engine: "none".into(),
            model: "none".into(),
            shape: None,
            device: "none".into(),
            threads: 0,
            precision: None,
            kv_precision: None,
            measured_on: "2026-11-21".into(),
            source: "made up".into(),
        },
        batching: BatchingLimits::default(),
        world_sizes: vec![fit],
        not_identified: Vec::new(),
    }
}

#[test]
fn a_step_is_the_sum_of_its_terms() {
    let model = Calibrated::new(&profile(fit(&terms())), 1, 8).unwrap();
    let chunks = [Chunk {
        past: 100,
        len: 10,
        sample: true,
    }];
    let load = StepLoad {
        decodes: 2,
        decode_past: 1000,
        chunks: &chunks,
    };
    let matrices = f64::sqrt(5e-3 * 5e-3 + 12e-4 * 12e-4);
    let chunk = 1e-5 + 1e-9 * (1000.0 + 55.0) + 1e-8 * 110.0;
    let expected = 1e-3 + matrices + 3.0 * 2e-5 + 1000.0 * 3e-8 + chunk + 1e-4;
    let step = model.step(&load) as f64 / 1e12;
    assert!((step - expected).abs() < 1e-9, "{step} {expected}");
    assert!((model.formula().seconds(&load) - expected).abs() < 1e-9);
    assert_eq!(model.request_overhead(1000), 2_000_000);
}

fn exchanges() -> CalibratedAllReduce {
    CalibratedAllReduce {
        per_step: 3.0,
        bytes_per_token: 1000,
        ranges: vec![AllReduceRange {
            bytes_last: u64::MAX,
            alpha_s: 1e-5,
            beta_bytes_per_s: 1e9,
        }],
    }
}

#[test]
fn modelled_exchanges_are_added() {
    let mut fit = fit(&terms());
    let without = Calibrated::new(&profile(fit.clone()), 1, 8).unwrap();
    fit.all_reduce = Some(exchanges());
    let with = Calibrated::new(&profile(fit), 1, 8).unwrap();
    let more = with.decode(4, 0).fixed - without.decode(4, 0).fixed;
    // Three times 10 us and 4 us.
    assert!((more - 42_000_000).abs() <= 1, "{more}");
}

#[test]
fn what_a_file_may_not_say_is_refused() {
    let error = |change: &dyn Fn(&mut WorldSizeFit)| {
        let mut fit = fit(&terms());
        change(&mut fit);
        Calibrated::new(&profile(fit), 1, 8)
            .unwrap_err()
            .to_string()
    };
    let missing = error(&|fit| {
        fit.terms.pop();
    });
    assert_eq!(
        missing,
        "world size 1: the term `prompt_token_s` is missing"
    );
    let negative = error(&|fit| fit.terms[0].value = -1.0);
    assert_eq!(
        negative,
        "world size 1: the term `launch_s` is not between 0 and 60 s"
    );
    let no_deviation = error(&|fit| fit.residuals.model_deviation = Some(-0.1));
    assert_eq!(
        no_deviation,
        "world size 1: model_deviation must be a number that is not negative, or null"
    );
    let long = error(&|fit| fit.terms[4].value = 10.0);
    assert_eq!(
        long,
        "world size 1: the term `kv_token_s` is not between 0 and 0.001 s"
    );
    let turned = error(&|fit| fit.terms[0].low = 2.0 * fit.terms[0].high);
    assert!(turned.contains("`low`"), "{turned}");
    let large = error(&|fit| {
        fit.kv_factor.knots = vec![Knot {
            at: 1,
            factor: 1e20,
        }]
    });
    assert!(large.contains("kv_factor must be from 0.001"), "{large}");
    let exchanges = |bytes_per_token, alpha_s| {
        error(&|fit| {
            fit.all_reduce = Some(CalibratedAllReduce {
                per_step: 1.0,
                bytes_per_token,
                ranges: vec![AllReduceRange {
                    bytes_last: u64::MAX,
                    alpha_s,
                    beta_bytes_per_s: 1e30,
                }],
            });
        })
    };
    assert!(exchanges(1 << 60, 0.0).contains("at most 1 GiB"));
    assert!(exchanges(1, 1e9).contains("at most 60 s"));
    let mut twice = profile(fit(&terms()));
    twice.world_sizes.push(fit(&terms()));
    assert_eq!(
        twice.check().unwrap_err(),
        CalibrationError::Twice { world_size: 1 }
    );
    twice.world_sizes.clear();
    assert_eq!(twice.check().unwrap_err(), CalibrationError::Empty);
    let falling = error(&|fit| {
        let knot = |at, factor| Knot { at, factor };
        fit.token_factor.knots = vec![knot(1, 1.0), knot(10, 0.5)];
    });
    assert!(falling.contains("take less time"), "{falling}");
    let other = Calibrated::new(&profile(fit(&terms())), 2, 8).unwrap_err();
    assert_eq!(
        other.to_string(),
        "the profile has no world size 2, only 1; calibrate that one too"
    );
    let mut old = profile(fit(&terms()));
    old.schema = "foresail.profile/1".into();
    assert!(Calibrated::new(&old, 1, 8).is_err());
}

#[test]
fn draws_change_all_terms_together() {
    let mut fit = fit(&terms());
    fit.draws = vec![terms().times(1.1).to_vec(), terms().times(0.9).to_vec()];
    fit.run_to_run = 0.02;
    let model = Calibrated::new(&profile(fit), 1, 8).unwrap();
    assert!(model.is_uncertain());
    let step = |model: &Calibrated| model.decode(4, 100).at(100) as f64;
    let exp = |x: f64| 1.0 + x;
    assert!((step(&model.drawn(0, exp, 0.0)) / step(&model) - 1.1).abs() < 1e-6);
    assert!((step(&model.drawn(3, exp, 0.0)) / step(&model) - 0.9).abs() < 1e-6);
    assert!((step(&model.drawn(1, exp, 1.0)) / step(&model) - 0.9 * 1.02).abs() < 1e-6);
}

#[test]
fn what_the_formula_is_off_makes_all_times_longer_or_shorter_together() {
    let longer = |change: &dyn Fn(&mut WorldSizeFit)| {
        let mut fit = fit(&terms());
        fit.all_reduce = Some(exchanges());
        change(&mut fit);
        let model = Calibrated::new(&profile(fit), 1, 8).unwrap();
        let step = |model: &Calibrated| model.decode(4, 100).at(100) as f64;
        let drawn = model.drawn(0, |x| 1.0 + x, 1.0);
        assert_eq!(model.is_uncertain(), step(&drawn) > step(&model));
        step(&drawn) / step(&model) - 1.0
    };
    assert_eq!(longer(&|_| ()), 0.0);
    let told = longer(&|fit| {
        fit.residuals.model_deviation = Some(0.04);
        fit.residuals.cross_validated_mean = Some(0.5);
        fit.run_to_run = 0.03;
    });
    assert!((told - 0.05).abs() < 1e-6, "{told}");
    // The mean magnitude of normal numbers is sqrt(2 / pi) of their deviation.
    let by_cross_validation = longer(&|fit| {
        fit.residuals.cross_validated_mean = Some(0.04 * std::f64::consts::FRAC_2_PI.sqrt());
    });
    assert!(
        (by_cross_validation - 0.04).abs() < 1e-6,
        "{by_cross_validation}"
    );
}

/// Fits with any terms, factors and exchanges, up to the largest that may be written, and a few beyond.
fn fits() -> impl Strategy<Value = WorldSizeFit> {
    // Mostly a small share of what a term may be, sometimes all of it, and seldom more.
    let share =
        || prop_oneof![20 => 0.0..1e-3_f64, 5 => 0.0..=1.0_f64, 5 => Just(1.0), 1 => Just(1e6)];
    let factor = || {
        let factor =
            prop_oneof![10 => 0.5..2.0_f64, 2 => Just(1e-3), 2 => Just(10.0), 1 => Just(1e20)];
        prop::collection::btree_map(1..1_200_000_u64, factor, 0..3).prop_map(|knots| {
            let knots = knots.into_iter().map(|(at, factor)| Knot { at, factor });
            Factor {
                knots: knots.collect(),
            }
        })
    };
    let exchanges = prop::option::of((
        0.0..200.0_f64,
        prop_oneof![5 => 0..100_000_u64, 2 => Just(1 << 30), 1 => Just(1 << 60)],
        share(),
        prop_oneof![5 => 1e9..1e12_f64, 1 => Just(1.0), 5 => Just(f64::INFINITY)],
    ));
    let terms = prop::collection::vec(share(), Terms::count());
    (terms, factor(), factor(), exchanges).prop_map(
        |(shares, token_factor, kv_factor, exchanges)| {
            let most = Terms::names().map(file::seconds_max);
            let values: Vec<f64> = shares
                .iter()
                .zip(most)
                .map(|(share, most)| share * most)
                .collect();
            let exchanges =
                exchanges.map(|(per_step, bytes_per_token, alpha_s, beta_bytes_per_s)| {
                    CalibratedAllReduce {
                        per_step,
                        bytes_per_token,
                        ranges: vec![AllReduceRange {
                            bytes_last: u64::MAX,
                            alpha_s,
                            beta_bytes_per_s,
                        }],
                    }
                });
            WorldSizeFit {
                token_factor,
                kv_factor,
                all_reduce: exchanges,
                ..fit(&Terms::of_values(&values))
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Steps of up to 1024 sequences of 128Ki tokens and of prompts of 128Ki tokens.
    #[test]
    fn what_is_accepted_never_overflows(
        fit in fits(), decodes in 0..=1024_u32, past_each in 0..=131_072_u64,
        past in 0..=131_072_u32, len in 1..=131_072_u32,
    ) {
        let Ok(model) = Calibrated::new(&profile(fit), 1, 8) else {
            return Ok(());
        };
        let chunks = [Chunk { past, len, sample: true }];
        let mut load = StepLoad { decodes, decode_past: u64::from(decodes) * past_each, chunks: &chunks };
        let with_chunk = model.step(&load);
        prop_assert!(with_chunk < u64::MAX / 2, "{}", with_chunk);
        load.chunks = &[];
        prop_assert_eq!(model.step(&load), model.decode(decodes, load.decode_past).at(load.decode_past));
        prop_assert!(model.request_overhead(len) < u64::MAX / 2);
    }
}

#[test]
fn the_property_is_of_fits_that_are_accepted() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let accepted = (0..300).filter(|_| {
        let fit = fits().new_tree(&mut runner).expect("a fit").current();
        Calibrated::new(&profile(fit), 1, 8).is_ok()
    });
    assert!((30..270).contains(&accepted.count()));
}
