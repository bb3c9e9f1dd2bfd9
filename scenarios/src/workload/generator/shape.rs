//! How the arrival rate changes over time, and the inverse of its integral.
//!
//! A process of varying rate is a unit-rate process on another clock (the time-change
//! theorem; Brown and Nair, 1988): if the n-th unit-rate arrival is
//! at `u`, then the n-th arrival is at the `t` where the integral of the rate
//! up to `t` is `u`. Each shape has its integral in closed form.

use foresail_core::time::{Nanos, seconds};

use super::super::error::WorkloadError;
use super::growth::Growth;
use super::steps::Steps;

/// How the arrival rate changes over time, as a factor on `rate_per_s`.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Factor 1 throughout.
    Steady,
    /// Factor 1 for `on`, then `low_factor` for `off`, and so on.
    OnOff {
        /// Length of the busy part, above 0 (ns).
        on: Nanos,
        /// Length of the quiet part (ns).
        off: Nanos,
        /// Factor in the quiet part; 0 for silence.
        low_factor: f64,
    },
    /// From factor 1 in a straight line to `to_factor`, which it then keeps.
    Ramp {
        /// Factor at the end of the ramp; 0 ends the arrivals there.
        to_factor: f64,
        /// How long the ramp takes, above 0 (ns).
        over: Nanos,
    },
    /// Factor 1, but `factor` for `duration` from `at`.
    Spike {
        /// When the spike begins (ns).
        at: Nanos,
        /// How long it lasts (ns).
        duration: Nanos,
        /// Factor during the spike; 0 for an outage.
        factor: f64,
    },
    /// A cosine of mean 1 that begins at its trough.
    Diurnal {
        /// One cycle, such as 24 hours, above 0 (ns).
        period: Nanos,
        /// Highest rate over lowest rate, at least 1.
        peak_to_trough: f64,
    },
    /// From level to level.
    Steps(Steps),
    /// Growing from request to request, then level.
    Growth(Growth),
}

impl Shape {
    pub(super) fn validate(&self) -> Result<(), WorkloadError> {
        let factor = |option, factor: f64| {
            if (0.0..=1e6).contains(&factor) {
                return Ok(());
            }
            Err(WorkloadError::option(
                option,
                "a number from 0 to 1000000",
                factor,
            ))
        };
        let length = |option, length: Nanos| {
            if length > 0 {
                return Ok(());
            }
            Err(WorkloadError::option(option, "a duration above 0", "0s"))
        };
        match *self {
            Self::Steady => Ok(()),
            Self::OnOff { on, low_factor, .. } => {
                length("shape.on", on)?;
                factor("shape.low_factor", low_factor)
            }
            Self::Ramp { to_factor, over } => {
                length("shape.over", over)?;
                factor("shape.to_factor", to_factor)
            }
            Self::Spike { factor: spike, .. } => factor("shape.factor", spike),
            Self::Diurnal {
                period,
                peak_to_trough,
            } => {
                length("shape.period", period)?;
                if (1.0..=1e6).contains(&peak_to_trough) {
                    return Ok(());
                }
                let expected = "a number from 1 to 1000000";
                Err(WorkloadError::option(
                    "shape.peak_to_trough",
                    expected,
                    peak_to_trough,
                ))
            }
            Self::Steps(ref steps) => steps.validate(),
            Self::Growth(growth) => growth.validate(),
        }
    }

    /// The integral of the factor from 0 to `t` (s).
    pub(super) fn area(&self, t: f64) -> f64 {
        match *self {
            Self::Steady => t,
            Self::OnOff {
                on,
                off,
                low_factor,
            } => {
                let (on, off) = (seconds(on), seconds(off));
                let cycles = libm::floor(t / (on + off));
                let rest = t - cycles * (on + off);
                cycles * (on + low_factor * off) + rest.min(on) + low_factor * (rest - on).max(0.0)
            }
            Self::Ramp { to_factor, over } => {
                let over = seconds(over);
                let ramp = t.min(over);
                ramp + (to_factor - 1.0) * ramp * ramp / (2.0 * over) + to_factor * (t - ramp)
            }
            Self::Spike {
                at,
                duration,
                factor,
            } => {
                let (at, duration) = (seconds(at), seconds(duration));
                let inside = (t - at).clamp(0.0, duration);
                t - inside + factor * inside
            }
            Self::Diurnal {
                period,
                peak_to_trough,
            } => {
                let angle = core::f64::consts::TAU / seconds(period);
                t - amplitude(peak_to_trough) * libm::sin(angle * t) / angle
            }
            Self::Steps(ref steps) => steps.area(t),
            Self::Growth(growth) => growth.area(t),
        }
    }

    /// The time (s) up to which the integral of the factor is `area`, or `None`
    /// if it never becomes that large.
    pub(super) fn time_at(&self, area: f64) -> Option<f64> {
        let time = match *self {
            Self::Steady => area,
            Self::OnOff {
                on,
                off,
                low_factor,
            } => on_off_time(seconds(on), seconds(off), low_factor, area),
            Self::Ramp { to_factor, over } => ramp_time(to_factor, seconds(over), area)?,
            Self::Spike {
                at,
                duration,
                factor,
            } => spike_time(seconds(at), seconds(duration), factor, area),
            Self::Diurnal {
                period,
                peak_to_trough,
            } => diurnal_time(seconds(period), amplitude(peak_to_trough), area),
            Self::Steps(ref steps) => steps.time_at(area),
            Self::Growth(growth) => growth.time_at(area),
        };
        Some(time)
    }

    pub(super) fn describe(&self) -> String {
        match *self {
            Self::Steady => "steady".to_owned(),
            Self::OnOff {
                on,
                off,
                low_factor,
            } => {
                format!(
                    "{} s on, {} s off at {low_factor} of the rate",
                    seconds(on),
                    seconds(off)
                )
            }
            Self::Ramp { to_factor, over } => {
                format!("ramp to {to_factor} of the rate over {} s", seconds(over))
            }
            Self::Spike {
                at,
                duration,
                factor,
            } => {
                format!(
                    "spike of {factor} times the rate at {} s for {} s",
                    seconds(at),
                    seconds(duration)
                )
            }
            Self::Diurnal {
                period,
                peak_to_trough,
            } => {
                format!(
                    "cycle of {} s with {peak_to_trough} from trough to peak",
                    seconds(period)
                )
            }
            Self::Steps(ref steps) => steps.describe(),
            Self::Growth(growth) => growth.describe(),
        }
    }
}

/// The amplitude of `1 - amplitude * cos` with this ratio of peak to trough.
fn amplitude(peak_to_trough: f64) -> f64 {
    (peak_to_trough - 1.0) / (peak_to_trough + 1.0)
}

fn on_off_time(on: f64, off: f64, low_factor: f64, area: f64) -> f64 {
    let cycle_area = on + low_factor * off;
    let cycles = libm::floor(area / cycle_area);
    // Rounding can take the rest a hair outside the cycle.
    let rest = (area - cycles * cycle_area).clamp(0.0, cycle_area);
    let within = if rest <= on {
        rest
    } else {
        on + (rest - on) / low_factor
    };
    cycles * (on + off) + within
}

fn ramp_time(to_factor: f64, over: f64, area: f64) -> Option<f64> {
    let ramp_area = over * (1.0 + to_factor) / 2.0;
    if area > ramp_area {
        return (to_factor > 0.0).then(|| over + (area - ramp_area) / to_factor);
    }
    // Root of slope/2 t^2 + t - area, in the form that does not cancel. Below 0
    // only by rounding, at the end of a ramp to 0.
    let slope = (to_factor - 1.0) / over;
    Some(2.0 * area / (1.0 + libm::sqrt((1.0 + 2.0 * slope * area).max(0.0))))
}

fn spike_time(at: f64, duration: f64, factor: f64, area: f64) -> f64 {
    if area <= at {
        area
    } else if area < at + factor * duration {
        at + (area - at) / factor
    } else {
        area - factor * duration + duration
    }
}

/// Solves Kepler's equation `x - amplitude * sin(x) = mean` for one cycle by
/// Newton's method inside a bracket that shrinks by bisection when a step leaves it.
fn diurnal_time(period: f64, amplitude: f64, area: f64) -> f64 {
    use core::f64::consts::{PI, TAU};
    let cycles = libm::floor(area / period);
    let mean = ((area / period - cycles) * TAU).clamp(0.0, TAU);
    let (mut low, mut high) = (0.0, TAU);
    let mut x = if amplitude < 0.8 { mean } else { PI };
    for _ in 0..60 {
        let excess = x - amplitude * libm::sin(x) - mean;
        if excess > 0.0 {
            high = x
        } else {
            low = x
        }
        let newton = x - excess / (1.0 - amplitude * libm::cos(x));
        let next = if newton > low && newton < high {
            newton
        } else {
            (low + high) / 2.0
        };
        if (next - x).abs() <= 1e-15 * TAU {
            break;
        }
        x = next;
    }
    (cycles + x / TAU) * period
}

#[cfg(test)]
mod tests {
    use foresail_core::time::SECOND;
    use proptest::prelude::*;

    use super::super::GrowthLaw;
    use super::*;

    const SHAPES: [Shape; 11] = [
        Shape::Steady,
        Shape::OnOff {
            on: 10 * SECOND,
            off: 20 * SECOND,
            low_factor: 0.1,
        },
        Shape::OnOff {
            on: 10 * SECOND,
            off: 20 * SECOND,
            low_factor: 0.0,
        },
        Shape::Ramp {
            to_factor: 5.0,
            over: 60 * SECOND,
        },
        Shape::Ramp {
            to_factor: 0.2,
            over: 60 * SECOND,
        },
        Shape::Spike {
            at: 30 * SECOND,
            duration: 5 * SECOND,
            factor: 20.0,
        },
        Shape::Spike {
            at: 30 * SECOND,
            duration: 5 * SECOND,
            factor: 0.0,
        },
        Shape::Diurnal {
            period: 86_400 * SECOND,
            peak_to_trough: 4.0,
        },
        Shape::Diurnal {
            period: 100 * SECOND,
            peak_to_trough: 1000.0,
        },
        Shape::Growth(Growth {
            law: GrowthLaw::Linear,
            to_factor: 20.0,
            steady: 100 * SECOND,
        }),
        Shape::Growth(Growth {
            law: GrowthLaw::Exponential,
            to_factor: 0.1,
            steady: 100 * SECOND,
        }),
    ];

    proptest! {
        #[test]
        fn time_at_inverts_area(index in 0..SHAPES.len(), area in 0.0..1e5_f64) {
            let time = SHAPES[index].time_at(area).unwrap();
            prop_assert!((SHAPES[index].area(time) - area).abs() < 1e-9 * (1.0 + area));
        }

        #[test]
        fn time_at_does_not_decrease(index in 0..SHAPES.len(), area in 0.0..1e5_f64, more in 0.0..10.0_f64) {
            let shape = &SHAPES[index];
            let (first, second) = (shape.time_at(area).unwrap(), shape.time_at(area + more).unwrap());
            prop_assert!(second >= first - 1e-9 * (1.0 + area));
        }
    }

    #[test]
    fn known_points() {
        let at = |shape: &Shape, area| shape.time_at(area).unwrap();
        assert_eq!(at(&SHAPES[2], 10.0), 30.0);
        assert_eq!(at(&SHAPES[2], 15.0), 35.0);
        assert_eq!(at(&SHAPES[1], 11.0), 20.0);
        assert_eq!(at(&SHAPES[3], 180.0), 60.0);
        assert_eq!(at(&SHAPES[3], 185.0), 61.0);
        assert_eq!(at(&SHAPES[5], 130.0), 35.0);
        assert_eq!(at(&SHAPES[6], 31.0), 36.0);
        // By symmetry half of a cycle's arrivals come in its first half, and the
        // quarter around the trough has less than a quarter of them.
        assert!((at(&SHAPES[7], 43_200.0) - 43_200.0).abs() < 1e-6);
        assert!(SHAPES[7].area(21_600.0) < 0.16 * 86_400.0);
    }

    #[test]
    fn a_ramp_to_nothing_ends() {
        let shape = Shape::Ramp {
            to_factor: 0.0,
            over: 60 * SECOND,
        };
        assert!((shape.time_at(30.0).unwrap() - 60.0).abs() < 1e-6);
        assert_eq!(shape.time_at(30.1), None);
    }

    #[test]
    fn options_out_of_range() {
        for shape in [
            Shape::OnOff {
                on: 0,
                off: 1,
                low_factor: 0.0,
            },
            Shape::OnOff {
                on: 1,
                off: 1,
                low_factor: -0.1,
            },
            Shape::Ramp {
                to_factor: f64::NAN,
                over: 1,
            },
            Shape::Ramp {
                to_factor: 1.0,
                over: 0,
            },
            Shape::Spike {
                at: 0,
                duration: 1,
                factor: f64::INFINITY,
            },
            Shape::Diurnal {
                period: 0,
                peak_to_trough: 2.0,
            },
            Shape::Diurnal {
                period: 1,
                peak_to_trough: 0.5,
            },
        ] {
            assert!(shape.validate().is_err(), "{shape:?}");
        }
        for shape in SHAPES {
            shape.validate().unwrap();
        }
    }
}
