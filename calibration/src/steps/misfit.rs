//! How far the formula is from the steps that it is fitted to, beyond their noise.

use super::observation::Observation;
use crate::clusters::Clusters;
use crate::normal::student_by_normal;
use crate::statistics::mean;

/// What of a step's time is neither in the formula nor noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Misfit {
    /// Its standard deviation, as a share.
    pub(super) deviation: f64,
    /// The share of its variance that all steps of as many tokens have together.
    pub(super) together: f64,
    /// Degrees of freedom that the deviation was found with.
    pub(super) freedom: usize,
}

impl Misfit {
    /// The deviation with which normal numbers are as far apart as what other steps lack may be, known as well as it is.
    pub(super) fn of_other_steps(&self) -> f64 {
        self.deviation * student_by_normal(self.freedom as f64)
    }

    /// By the errors of a fit of so many terms, and by those of steps that their fit had not seen. If factors bend the
    /// formula, only the latter tell how far it is off: the former are as small as the factors are free.
    pub(super) fn of(
        observations: &[Observation],
        errors: &[f64],
        terms: usize,
        unseen: Option<&[f64]>,
    ) -> Self {
        let freedom = errors.len().saturating_sub(terms).max(1);
        let squares = |errors: &[f64]| errors.iter().map(|error| error * error).sum::<f64>();
        let found = match unseen {
            Some(unseen) => squares(unseen) / unseen.len().max(1) as f64,
            None => squares(errors) / freedom as f64,
        };
        let noise = mean(
            &observations
                .iter()
                .map(|step| step.deviation * step.deviation)
                .collect::<Vec<_>>(),
        );
        let by_tokens = observations.iter().zip(errors);
        let by_tokens = by_tokens.map(|(step, error)| (step.load.tokens, *error));
        Self {
            deviation: (found - noise).max(0.0).sqrt(),
            together: Clusters::of(by_tokens).correlation(),
            freedom,
        }
    }
}
