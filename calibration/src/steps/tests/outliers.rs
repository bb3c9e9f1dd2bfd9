use proptest::prelude::*;

use super::engine::*;
use crate::steps::{FitError, Options, fit};
use foresail_core::step_time::calibrated::HowMeasured;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_step_in_a_stalled_run_is_left_out(
        place in 0..grid().len(),
        longer in 1.4..4.0_f64,
        seed in 0_u64..1000,
    ) {
        let engine = Engine::new(terms(), 0.01, seed);
        let mut cells = engine.measure(grid());
        for seconds in &mut cells[place].seconds {
            *seconds *= longer;
        }
        let found = fit(&cells, 1, HowMeasured::Ranks, None, &Options::default()).unwrap();
        let left_out: Vec<usize> = (0..cells.len())
            .filter(|&cell| found.fit.cells[cell].is_left_out)
            .collect();
        prop_assert_eq!(left_out, [place], "{:?}", found.outliers);
        prop_assert_eq!(found.fit.residuals.left_out, 1);
        prop_assert!(found.outliers[0].contains("% more than"), "{:?}", found.outliers);
        prop_assert!(error_unseen(&found, &engine.formula) < 0.015);
    }
}

#[test]
fn several_are_found_behind_one_another() {
    let engine = Engine::new(terms(), 0.02, 9);
    let mut cells = engine.measure(grid());
    for (place, longer) in [(3, 3.0), (11, 1.5), (30, 2.0), (45, 1.8), (52, 1.4)] {
        for seconds in &mut cells[place].seconds {
            *seconds *= longer;
        }
    }
    let found = fit(&cells, 1, HowMeasured::Ranks, None, &Options::default()).unwrap();
    let left_out: Vec<usize> = (0..cells.len())
        .filter(|&cell| found.fit.cells[cell].is_left_out)
        .collect();
    assert_eq!(left_out, [3, 11, 30, 45, 52], "{:?}", found.outliers);
}

#[test]
fn a_stalled_repeat_is_told_and_moves_nothing() {
    let engine = Engine::new(terms(), 0.01, 9);
    let mut cells = engine.measure(grid());
    cells[5].seconds[3] *= 20.0;
    cells[40].seconds[7] *= 3.0;
    let found = fit(&cells, 1, HowMeasured::Ranks, None, &Options::default()).unwrap();
    assert_eq!(found.fit.residuals.left_out, 0);
    assert!(
        found.outliers[0].starts_with("2 of "),
        "{:?}",
        found.outliers
    );
    assert!(error_unseen(&found, &engine.formula) < 0.01);
}

#[test]
fn too_many_are_refused() {
    let engine = Engine::new(terms(), 0.01, 9);
    let mut cells = engine.measure(grid());
    let mut random = 1_u64;
    for cell in cells.iter_mut().step_by(3) {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let longer = 1.5 + 4.0 * (random >> 40) as f64 / (1_u64 << 24) as f64;
        for seconds in &mut cell.seconds {
            *seconds *= longer;
        }
    }
    let refused = fit(&cells, 1, HowMeasured::Ranks, None, &Options::default());
    assert!(
        matches!(
            refused,
            Err(FitError::TooManyOutliers { .. } | FitError::DoesNotFit { .. })
        ),
        "{refused:?}"
    );
}

#[test]
fn what_was_left_out_before_stays_out() {
    let engine = Engine::new(terms(), 0.01, 9);
    let mut cells = engine.measure(grid());
    cells[7].is_left_out = true;
    let found = fit(&cells, 1, HowMeasured::Ranks, None, &Options::default()).unwrap();
    assert_eq!(found.fit.residuals.left_out, 1);
    assert!(found.fit.cells[7].is_left_out);
    assert_eq!(found.fit.residuals.fitted as usize, grid().len() - 1);
}
