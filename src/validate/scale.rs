//! As many times as long as predicted, all steps would have to take for mean TPOT to be as it was measured.

use foresail_reports::validation::{Scaled, Times};

use super::predict::{Predictor, Steps};
use crate::failure::Failure;

/// Mean TPOT is to be as near as this.
const TOLERANCE: f64 = 1e-3;

/// Simulations until the scale is given up: near saturation, TPOT depends on it in leaps.
const SIMULATIONS_MAX: usize = 8;

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
    let error = |times: &[Option<Times>]| {
        let predicted: Vec<_> = compared.iter().map(|place| times[*place]).collect();
        error(measured, &predicted)
    };
    let Some(first) = error(base) else {
        return Ok(None);
    };
    let mut at = (0.0_f64, first, base.to_vec());
    // About as the scale goes, so go the times.
    let mut slope = 1.0;
    for simulations in 0..=SIMULATIONS_MAX {
        if at.1.abs() <= TOLERANCE {
            let (scale, times) = (at.0.exp(), at.2);
            return Ok(Some(Scaled { scale, times }));
        }
        let scale: f64 = at.0 - at.1 / slope;
        if scale.abs() > SCALE_MAX.ln() || simulations == SIMULATIONS_MAX {
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

/// The logarithm of predicted over measured mean TPOT, of the requests that completed in both.
fn error(measured: &[Times], predicted: &[Option<Times>]) -> Option<f64> {
    let both = || {
        let pairs = measured.iter().zip(predicted);
        pairs.filter_map(|(measured, predicted)| Some((*measured, (*predicted)?)))
    };
    let wanted = mean_tpot(both().map(|(measured, _)| measured))?;
    let found = mean_tpot(both().map(|(_, predicted)| predicted))?;
    Some((found / wanted).ln())
}

fn mean_tpot(times: impl Iterator<Item = Times>) -> Option<f64> {
    let values: Vec<f64> = times.filter_map(|each| each.tpot_s).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean > 0.0).then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(tpot_s: f64) -> Times {
        Times {
            due_ns: 0,
            last_ns: 1,
            ttft_s: 0.1,
            tpot_s: Some(tpot_s),
            e2e_s: 1.0,
            output_tokens: 10,
            service_s: None,
        }
    }

    /// Slow requests that the prediction loses would make the rest seem too fast.
    #[test]
    fn only_what_completed_in_both_is_compared() {
        let measured = [times(0.01), times(0.09)];
        let lost = [Some(times(0.01)), None];
        assert_eq!(error(&measured, &lost), Some(0.0));
        let half = [Some(times(0.005)), Some(times(0.045))];
        assert!((error(&measured, &half).unwrap() + 2.0_f64.ln()).abs() < 1e-12);
        assert_eq!(error(&measured, &[None, None]), None);
    }
}
