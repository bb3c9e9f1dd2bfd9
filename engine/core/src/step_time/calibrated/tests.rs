use super::super::{AllReduceRange, Chunk, StepLoad, StepTime};
use super::*;

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
        "world size 1: the term `launch_s` is not between 0 and 3600 s"
    );
    let no_deviation = error(&|fit| fit.residuals.model_deviation = Some(-0.1));
    assert_eq!(
        no_deviation,
        "world size 1: model_deviation must be a number that is not negative, or null"
    );
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
