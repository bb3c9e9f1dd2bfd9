//! As many times as long as predicted, all steps would have to take for mean TPOT to be as it was measured.

use foresail_reports::validation::{Scaled, Times};

use super::predict::{Predictor, Steps};
use crate::failure::Failure;

/// Mean TPOT is to be as near as this.
const TOLERANCE: f64 = 1e-3;

/// Simulations until the scale is given up: near saturation, TPOT depends on it in leaps.
const STEPS_MAX: usize = 8;

/// A scale beyond this, up or down, is no correction of step times.
const SCALE_MAX: f64 = 100.0;

/// Finds the scale by the secant method in logarithms; `base` is the prediction with a scale of 1.
pub(super) fn find(
    predictor: &Predictor<'_>,
    counted: &[u32],
    measured: &[Times],
    base: &[Option<Times>],
    compared: &[usize],
) -> Result<Option<Scaled>, Failure> {
    let Some(wanted) = mean_tpot(measured.iter().copied().map(Some)) else {
        return Ok(None);
    };
    let of = |times: &[Option<Times>]| mean_tpot(compared.iter().map(|place| times[*place]));
    let error = |times: &[Option<Times>]| of(times).map(|found| (found / wanted).ln());
    let Some(first) = error(base) else {
        return Ok(None);
    };
    let mut at = (0.0_f64, first, base.to_vec());
    // About as the scale goes, so go the times.
    let mut slope = 1.0;
    for _ in 0..STEPS_MAX {
        if at.1.abs() <= TOLERANCE {
            let (scale, times) = (at.0.exp(), at.2);
            return Ok(Some(Scaled { scale, times }));
        }
        let scale: f64 = at.0 - at.1 / slope;
        if scale.abs() > SCALE_MAX.ln() {
            return Ok(None);
        }
        let times = predictor
            .predict(Steps::Times(scale.exp()), counted, ())?
            .times;
        let Some(found) = error(&times) else {
            return Ok(None);
        };
        let steepness: f64 = (found - at.1) / (scale - at.0);
        // What a leap says of the slope leads astray.
        slope = if steepness.is_finite() {
            steepness.clamp(0.5, 4.0)
        } else {
            1.0
        };
        at = (scale, found, times);
    }
    Ok(None)
}

fn mean_tpot(times: impl Iterator<Item = Option<Times>>) -> Option<f64> {
    let values: Vec<f64> = times.flatten().filter_map(|each| each.tpot_s).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean > 0.0).then_some(mean)
}
