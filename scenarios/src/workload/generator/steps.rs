//! A rate that goes from level to level, such as the hours of a recorded week.

use std::sync::Arc;

use foresail_core::time::{Nanos, seconds};

use super::super::error::WorkloadError;

/// Levels of equal length, one after the other, and from the first on again.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    /// How long each level lasts, above 0 (ns).
    step: Nanos,
    /// The factor of each level.
    factors: Arc<[f64]>,
    /// The integral of the factor up to the end of each level (s).
    areas: Arc<[f64]>,
}

impl Steps {
    /// Each of the levels for the time of a step.
    #[must_use]
    pub fn new(step: Nanos, factors: &[f64]) -> Self {
        let mut area = 0.0;
        let areas = factors.iter().map(|factor| {
            area += factor * seconds(step);
            area
        });
        Self {
            step,
            areas: areas.collect(),
            factors: factors.into(),
        }
    }

    pub(super) fn validate(&self) -> Result<(), WorkloadError> {
        if self.step == 0 {
            return Err(WorkloadError::option(
                "shape.step",
                "a duration above 0",
                "0s",
            ));
        }
        if let Some(factor) = self.factors.iter().find(|f| !(0.0..=1e6).contains(*f)) {
            let expected = "numbers from 0 to 1000000";
            return Err(WorkloadError::option("shape.factors", expected, factor));
        }
        if self.cycle_area() <= 0.0 {
            let expected = "at least one number above 0";
            return Err(WorkloadError::option("shape.factors", expected, "none"));
        }
        Ok(())
    }

    fn cycle_area(&self) -> f64 {
        self.areas.last().copied().unwrap_or(0.0)
    }

    fn cycle(&self) -> f64 {
        self.factors.len() as f64 * seconds(self.step)
    }

    /// The integral up to the beginning of a level.
    fn area_before(&self, level: usize) -> f64 {
        level
            .checked_sub(1)
            .map_or(0.0, |before| self.areas[before])
    }

    /// The integral of the factor from 0 to `t` (s).
    pub(super) fn area(&self, t: f64) -> f64 {
        let cycles = libm::floor(t / self.cycle());
        let rest = (t - cycles * self.cycle()).max(0.0);
        let level = ((rest / seconds(self.step)) as usize).min(self.factors.len() - 1);
        let inside = rest - level as f64 * seconds(self.step);
        cycles * self.cycle_area() + self.area_before(level) + self.factors[level] * inside
    }

    /// The time (s) at which the integral of the factor becomes `area`.
    pub(super) fn time_at(&self, area: f64) -> f64 {
        let cycles = libm::floor(area / self.cycle_area());
        // Rounding can take the rest a hair outside the cycle.
        let rest = (area - cycles * self.cycle_area()).clamp(0.0, self.cycle_area());
        let level = self.areas.partition_point(|&end| end < rest);
        let level = level.min(self.factors.len() - 1);
        let inside = if self.factors[level] > 0.0 {
            (rest - self.area_before(level)) / self.factors[level]
        } else {
            0.0
        };
        cycles * self.cycle() + level as f64 * seconds(self.step) + inside
    }

    pub(super) fn describe(&self) -> String {
        let (levels, step) = (self.factors.len(), seconds(self.step));
        format!("a cycle of {levels} levels of {step} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_core::time::SECOND;
    use proptest::prelude::*;

    #[test]
    fn known_points() {
        let steps = Steps::new(10 * SECOND, &[1.0, 0.0, 2.0]);
        steps.validate().unwrap();
        for (time, area) in [
            (5.0, 5.0),
            (10.0, 10.0),
            (25.0, 20.0),
            (30.0, 30.0),
            (35.0, 35.0),
        ] {
            assert_eq!(steps.area(time), area);
            assert_eq!(steps.time_at(area), time);
        }
        // Nothing comes in the second level.
        assert_eq!(steps.area(20.0), 10.0);
        assert!(steps.time_at(10.001) > 20.0);
    }

    #[test]
    fn levels_that_cannot_be() {
        assert!(Steps::new(0, &[1.0]).validate().is_err());
        assert!(Steps::new(SECOND, &[0.0]).validate().is_err());
        assert!(Steps::new(SECOND, &[]).validate().is_err());
        assert!(Steps::new(SECOND, &[1.0, -1.0]).validate().is_err());
        assert!(Steps::new(SECOND, &[1.0, f64::NAN]).validate().is_err());
    }

    proptest! {
        #[test]
        fn time_at_inverts_area(
            factors in prop::collection::vec(prop_oneof![Just(0.0), 0.01..5.0_f64], 1..20),
            step in 1..1_000_u64,
            area in 0.0..1e5_f64,
            more in 0.0..10.0_f64,
        ) {
            prop_assume!(factors.iter().any(|factor| *factor > 0.0));
            let steps = Steps::new(step * SECOND, &factors);
            let time = steps.time_at(area);
            prop_assert!((steps.area(time) - area).abs() < 1e-6 * (1.0 + area));
            prop_assert!(steps.time_at(area + more) >= time - 1e-6 * (1.0 + time));
        }
    }
}
