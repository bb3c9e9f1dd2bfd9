//! From values to places: ranges, round ticks, and how ticks are written.

use super::{Axis, Mark, Scale, Series};

/// How many ticks there are to be, about.
const TICKS: f64 = 6.0;

/// Of an axis that shows less than this many decades, the twos and fives are marked too.
const FEW_DECADES: f64 = 2.5;

/// An axis that knows from where to where it goes.
#[derive(Clone, Debug)]
pub(super) struct Span {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Span {
    pub(super) fn of_x(axis: &Axis, series: &[Series]) -> Self {
        let points = series.iter().flat_map(|each| &each.points);
        Self::of(axis, points.map(|point| point.x))
    }

    pub(super) fn of_y(axis: &Axis, series: &[Series]) -> Self {
        let values = series.iter().flat_map(|each| {
            let is_band = each.mark == Mark::Band;
            each.points.iter().flat_map(move |point| {
                let ends = point.interval.map(|(low, high)| [low, high]);
                let middle = (!is_band).then_some(point.y);
                ends.into_iter().flatten().chain(middle)
            })
        });
        Self::of(axis, values)
    }

    fn of(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let scale = axis.scale;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| is_on(scale, *value)) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (1.0, 1.0);
        }
        match axis.range {
            Some((from, to)) if is_on(scale, from) && is_on(scale, to) && from < to => Self {
                scale,
                low: from,
                high: to,
            },
            _ => Self::with_room(scale, low, high),
        }
    }

    /// Rounds the ends out to ticks. A linear axis begins at zero if the values are anywhere near it: differences
    /// then look as large as they are.
    fn with_room(scale: Scale, low: f64, high: f64) -> Self {
        match scale {
            Scale::Linear => {
                let low = if low > 0.0 && (low == high || low < high * 0.5) {
                    0.0
                } else {
                    low
                };
                let high = if low == high { low + 1.0 } else { high };
                let step = step_of(low, high);
                Self {
                    scale,
                    low: (low / step).floor() * step,
                    high: (high / step).ceil() * step,
                }
            }
            Scale::Log => {
                let ticks = |value: f64| {
                    let power = libm::floor(libm::log10(value) + 1e-9) as i32;
                    (power - 1..=power + 1)
                        .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * ten_to(power)))
                };
                let below = ticks(low).filter(|tick| *tick <= low * (1.0 + 1e-9));
                let above = ticks(high).filter(|tick| *tick >= high * (1.0 - 1e-9));
                let low_tick = below.fold(0.0, f64::max);
                let high_tick = above.fold(f64::INFINITY, f64::min);
                Self {
                    scale,
                    low: low_tick,
                    high: if high_tick > low_tick {
                        high_tick
                    } else {
                        low_tick * 10.0
                    },
                }
            }
        }
    }

    /// Where a value is: 0 at the beginning of the axis, 1 at its end; `None` if it is nowhere on it.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        if !is_on(self.scale, value) {
            return None;
        }
        Some(match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => libm::log10(value / self.low) / libm::log10(self.high / self.low),
        })
    }

    /// Its ticks, with their texts, in order.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = step_of(self.low, self.high);
                let first = (self.low / step - 1e-9).ceil() as i64;
                let last = (self.high / step + 1e-9).floor() as i64;
                let tick = |index: i64| {
                    let value = index as f64 * step;
                    (value, written(value, step))
                };
                (first..=last).map(tick).collect()
            }
            Scale::Log => self.log_ticks(),
        }
    }

    fn log_ticks(&self) -> Vec<(f64, String)> {
        let decades = libm::log10(self.high / self.low);
        let digits: &[f64] = if decades < FEW_DECADES {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        // Of very many decades, every so-manieth is marked.
        let every = (decades / (2.0 * TICKS)).ceil().max(1.0) as usize;
        let first = libm::floor(libm::log10(self.low)) as i32;
        let last = libm::ceil(libm::log10(self.high)) as i32;
        let powers = (first..=last).filter(|power| power.rem_euclid(every as i32) == 0);
        let values = powers.flat_map(|power| digits.iter().map(move |digit| digit * ten_to(power)));
        let inside =
            |value: &f64| *value >= self.low * (1.0 - 1e-9) && *value <= self.high * (1.0 + 1e-9);
        let tick = |value: f64| (value, written(value, value));
        values.filter(inside).map(tick).collect()
    }
}

/// Whether a value can be on an axis of this scale.
fn is_on(scale: Scale, value: f64) -> bool {
    value.is_finite() && (scale == Scale::Linear || value > 0.0)
}

/// 1, 2 or 5 times a power of ten, so that there are about [`TICKS`] of them.
fn step_of(low: f64, high: f64) -> f64 {
    let rough = (high - low) / TICKS;
    let power = ten_to(libm::floor(libm::log10(rough)) as i32);
    let digits = [1.0, 2.0, 5.0, 10.0];
    let fitting = digits
        .iter()
        .find(|digit| **digit * power >= rough * (1.0 - 1e-9));
    fitting.unwrap_or(&10.0) * power
}

/// 10 to a whole power, of which all that fit are exact up to 22.
fn ten_to(power: i32) -> f64 {
    if power < 0 {
        1.0 / ten_to(-power)
    } else {
        (0..power).fold(1.0, |product, _| product * 10.0)
    }
}

/// A value on an axis with ticks a `step` apart: with the decimals that this needs.
fn written(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs();
    if !(1e-4..1e6).contains(&magnitude) {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let decimals = (-libm::floor(libm::log10(step) + 1e-9)).max(0.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Point;

    fn ticks(axis: &Axis, values: &[f64]) -> Vec<String> {
        let points = values.iter().map(|value| Point::new(*value, 0.0)).collect();
        let series = [Series::new("", Mark::Points, points)];
        let span = Span::of_x(axis, &series);
        span.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round() {
        let linear = Axis::linear("");
        assert_eq!(
            ticks(&linear, &[3.0, 97.0]),
            ["0", "20", "40", "60", "80", "100"]
        );
        assert_eq!(
            ticks(&linear, &[0.9, 1.05]),
            ["0.90", "0.95", "1.00", "1.05"]
        );
        assert_eq!(
            ticks(&linear, &[-1.0, 1.0]),
            ["-1.0", "-0.5", "0", "0.5", "1.0"]
        );
        assert_eq!(
            ticks(&linear, &[]),
            ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
    }

    #[test]
    fn ticks_of_a_log_axis_are_powers_or_their_doubles() {
        let log = Axis::log("");
        assert_eq!(ticks(&log, &[3.0, 40.0]), ["2", "5", "10", "20", "50"]);
        assert_eq!(
            ticks(&log, &[0.002, 700.0]),
            ["0.01", "0.1", "1", "10", "100", "1000"]
        );
    }
}
