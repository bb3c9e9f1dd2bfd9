//! Arrival times: unit-rate gaps on the clock of the shape.

use foresail_core::time::Nanos;

use super::super::error::WorkloadError;
use super::super::trace::seconds_nanos;
use super::{Process, Shape, UnitGaps};
use crate::random::{Stream, stream};

/// An arrival process and its rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrivals {
    /// The law of the gaps between arrivals.
    pub process: Process,
    /// Mean arrivals a second where the shape's factor is 1; above 0.
    pub rate_per_s: f64,
}

impl Arrivals {
    pub(super) fn validate(&self) -> Result<(), WorkloadError> {
        if !(self.rate_per_s > 0.0 && self.rate_per_s.is_finite()) {
            return Err(WorkloadError::option(
                "arrivals.rate_per_s",
                "a number above 0",
                self.rate_per_s,
            ));
        }
        self.process.validate()
    }
}

/// The arrival times of a process, in order.
#[derive(Debug)]
pub(crate) struct ArrivalTimes {
    stream: Stream,
    gaps: UnitGaps,
    shape: Shape,
    rate_per_s: f64,
    /// The sum of the unit gaps so far.
    position: f64,
    /// Equal gaps begin at 0, so that a rate of 10/s for 1 s is 10 requests.
    starts_at_zero: bool,
    previous: Nanos,
}

impl ArrivalTimes {
    pub(crate) fn new(arrivals: Arrivals, shape: Shape, rate_scale: f64, seed: u64) -> Self {
        Self {
            stream: stream(seed, "workload.arrivals"),
            gaps: UnitGaps::new(arrivals.process),
            shape,
            rate_per_s: arrivals.rate_per_s * rate_scale,
            position: 0.0,
            starts_at_zero: arrivals.process == Process::Constant,
            previous: 0,
        }
    }

    /// The next arrival time; `None` if no further arrival ever comes.
    #[inline]
    pub(crate) fn next_time(&mut self) -> Option<Nanos> {
        if self.starts_at_zero {
            self.starts_at_zero = false;
        } else {
            self.position += self.gaps.draw(&mut self.stream);
        }
        let time = seconds_nanos(self.shape.time_at(self.position / self.rate_per_s)?)?;
        // Inversion rounds, so two arrivals closer than that could swap places.
        self.previous = self.previous.max(time);
        Some(self.previous)
    }
}

#[cfg(test)]
mod tests {
    use foresail_core::time::SECOND;

    use super::*;

    fn times(process: Process, rate_per_s: f64, shape: Shape, until: Nanos) -> Vec<Nanos> {
        let mut times = ArrivalTimes::new(
            Arrivals {
                process,
                rate_per_s,
            },
            shape,
            1.0,
            3,
        );
        std::iter::from_fn(|| times.next_time())
            .take_while(|&time| time < until)
            .collect()
    }

    #[test]
    fn constant_arrivals_are_exact() {
        let times = times(Process::Constant, 10.0, Shape::Steady, SECOND);
        assert_eq!(
            times,
            (0..10).map(|index| index * SECOND / 10).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_mean_rate_follows_the_shape() {
        let shape = Shape::OnOff {
            on: 60 * SECOND,
            off: 60 * SECOND,
            low_factor: 0.2,
        };
        let times = times(Process::Poisson, 50.0, shape, 3600 * SECOND);
        let (on, off): (Vec<Nanos>, Vec<Nanos>) = times
            .into_iter()
            .partition(|time| time % (120 * SECOND) < 60 * SECOND);
        assert!(
            (on.len() as f64 / (50.0 * 1800.0) - 1.0).abs() < 0.02,
            "{}",
            on.len()
        );
        assert!(
            (off.len() as f64 / (10.0 * 1800.0) - 1.0).abs() < 0.03,
            "{}",
            off.len()
        );
    }

    #[test]
    fn silence_is_silent_and_an_end_is_an_end() {
        let outage = Shape::Spike {
            at: 10 * SECOND,
            duration: 10 * SECOND,
            factor: 0.0,
        };
        let found = times(Process::Poisson, 100.0, outage, 30 * SECOND);
        assert!(
            !found
                .iter()
                .any(|time| (10 * SECOND + 1..20 * SECOND).contains(time))
        );
        assert!(
            found.len() > 1_700 && found.len() < 2_300,
            "{}",
            found.len()
        );
        let ramp = Shape::Ramp {
            to_factor: 0.0,
            over: 10 * SECOND,
        };
        let found = times(Process::Poisson, 100.0, ramp, Nanos::MAX);
        assert!(found.len() > 400 && found.len() < 600, "{}", found.len());
    }

    #[test]
    fn a_rate_too_small_to_ever_arrive_ends() {
        assert!(times(Process::Poisson, 1e-300, Shape::Steady, Nanos::MAX).is_empty());
    }
}
