//! Ongoing requests as Ray Serve's controller sees them: several gauges, each
//! recorded now and then, made into one number.
//!
//! A gauge holds its last value until the next. Their sum is a step function,
//! and the total is its mean (or its largest or smallest value) over the window.
//! The window begins once every gauge has a value, and ends now. So between two
//! reports only the length of its last step changes, and a look costs a division.
//!
//! Source: `serve/_private/autoscaling_state.py` (`_merge_and_aggregate_timeseries`),
//! `serve/_private/metrics_utils.py` and the kernels that it calls, Ray 2.60.0. The
//! order of floating-point operations is theirs.

use super::config::AggregationFunction;

/// A value of a gauge, and when it was recorded, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) time_s: f64,
    pub(super) value: f64,
}

/// How long the last value counts for if it was recorded this very moment.
const LAST_WINDOW_S_MIN: f64 = 1e-3;

/// All that a total needs to know of the recorded values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Total {
    /// No gauge has been above zero: there is nothing ongoing.
    #[default]
    Nothing,
    /// The largest or the smallest value.
    Constant(f64),
    /// A mean whose last step grows with time.
    Mean {
        /// Value times seconds of all steps but the last.
        weighted: f64,
        /// Seconds of all steps but the last.
        duration_s: f64,
        /// When the last value was recorded.
        last_s: f64,
        /// The last value.
        last: f64,
        /// When the last step begins: later than the value where the window is.
        step_s: f64,
    },
}

impl Total {
    /// Of gauges, each in order of time.
    pub(super) fn of(gauges: &[&[Point]], function: AggregationFunction) -> Self {
        let steps = sum(gauges);
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
            return Self::Nothing;
        };
        // A gauge is taken as 0 before its first value, which would pull the mean
        // down: the window begins where the last of several gauges does.
        let begins = gauges.iter().filter_map(|gauge| gauge.first());
        let aligned_s = begins.map(|point| point.time_s).fold(f64::MIN, f64::max);
        let several = gauges.iter().filter(|gauge| !gauge.is_empty()).count() > 1;
        let window_s = (several && aligned_s <= last.time_s).then(|| aligned_s.max(first.time_s));
        let since = |point: &&Point| window_s.is_none_or(|from| point.time_s >= from);
        let values = steps.iter().filter(since).map(|point| point.value);
        match function {
            AggregationFunction::Mean => Self::mean(&steps, window_s.unwrap_or(first.time_s)),
            AggregationFunction::Max => values
                .reduce(f64::max)
                .map_or(Self::Nothing, Self::Constant),
            AggregationFunction::Min => values
                .reduce(f64::min)
                .map_or(Self::Nothing, Self::Constant),
        }
    }

    fn mean(steps: &[Point], window_s: f64) -> Self {
        let (mut value, mut step_s) = (0.0, window_s);
        let (mut weighted, mut duration_s) = (0.0, 0.0);
        for point in steps {
            if point.time_s > window_s {
                let duration = point.time_s - step_s;
                weighted += value * duration;
                duration_s += duration;
                step_s = point.time_s;
            }
            value = point.value;
        }
        Self::Mean {
            weighted,
            duration_s,
            last_s: steps.last().map_or(window_s, |point| point.time_s),
            last: value,
            step_s,
        }
    }

    /// The total at a time, which is not before the last value.
    pub(super) fn at(&self, now_s: f64) -> f64 {
        match *self {
            Self::Nothing => 0.0,
            Self::Constant(value) => value,
            Self::Mean {
                weighted,
                duration_s,
                last_s,
                last,
                step_s,
            } => {
                let held_s = now_s - last_s;
                let held_s = if held_s <= 0.0 {
                    LAST_WINDOW_S_MIN
                } else {
                    held_s
                };
                let step = last_s + held_s - step_s;
                (weighted + last * step) / (duration_s + step)
            }
        }
    }
}

/// The sum of gauges, at the times at which it changed. One gauge alone is as it is.
fn sum(gauges: &[&[Point]]) -> Vec<Point> {
    let mut filled = gauges.iter().filter(|gauge| !gauge.is_empty());
    if let (Some(only), None) = (filled.next(), filled.next()) {
        return only.to_vec();
    }
    let mut changes: Vec<Point> = gauges.iter().flat_map(|gauge| changes(gauge)).collect();
    changes.sort_by(|a, b| a.time_s.total_cmp(&b.time_s));
    let (mut steps, mut total): (Vec<Point>, f64) = (Vec::with_capacity(changes.len()), 0.0);
    for change in changes {
        total += change.value;
        let time_s = hundredth(change.time_s);
        match steps.last_mut().filter(|step| step.time_s == time_s) {
            Some(step) => step.value = total,
            None => steps.push(Point {
                time_s,
                value: total,
            }),
        }
    }
    steps
}

/// By how much a gauge changed, where it did; it was 0 before its first value.
fn changes(gauge: &[Point]) -> impl Iterator<Item = Point> {
    let mut before = 0.0;
    gauge.iter().filter_map(move |point| {
        let change = point.value - before;
        before = point.value;
        (change != 0.0).then_some(Point {
            time_s: point.time_s,
            value: change,
        })
    })
}

/// Changes within 10 ms are one, as the merging kernel has it; halves away from zero.
fn hundredth(time_s: f64) -> f64 {
    (time_s * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use AggregationFunction::{Max, Mean, Min};

    fn points<const N: usize>(points: [(f64, f64); N]) -> [Point; N] {
        points.map(|(time_s, value)| Point { time_s, value })
    }

    /// The example in the documentation of Ray's `get_total_num_requests`.
    #[test]
    fn the_example_of_the_anchor() {
        let first = points([(0.2, 5.0), (0.8, 7.0), (1.5, 6.0)]);
        let second = points([(0.1, 3.0), (0.9, 4.0), (1.4, 8.0)]);
        let queued = points([(0.3, 2.0), (1.0, 3.0)]);
        let gauges: [&[Point]; 3] = [&first, &second, &queued];
        let mean = Total::of(&gauges, Mean).at(2.0);
        assert!((mean - 23.4 / 1.7).abs() < 1e-9, "{mean}");
        assert_eq!(Total::of(&gauges, Max).at(2.0), 18.0);
        assert_eq!(Total::of(&gauges, Min).at(2.0), 10.0);
    }

    #[test]
    fn nothing_recorded_is_nothing_ongoing() {
        assert_eq!(Total::of(&[], Mean).at(5.0), 0.0);
        let idle = points([(0.0, 0.0), (6.0, 0.0)]);
        assert_eq!(Total::of(&[&idle, &idle], Mean).at(9.0), 0.0);
    }

    #[test]
    fn one_gauge_alone_counts_its_zeros() {
        let queued = points([(0.0, 0.0), (6.0, 4.0)]);
        assert_eq!(Total::of(&[&queued], Mean).at(8.0), 1.0);
        assert_eq!(Total::of(&[&queued], Min).at(8.0), 0.0);
    }

    #[test]
    fn a_new_gauge_shortens_the_window() {
        let old = points([(0.0, 2.0), (6.0, 4.0), (12.0, 4.0)]);
        let new = points([(12.0, 6.0)]);
        assert_eq!(Total::of(&[&old, &new], Mean).at(15.0), 10.0);
    }

    #[test]
    fn a_value_recorded_now_counts_for_a_millisecond() {
        let queued = points([(3.0, 7.0)]);
        assert_eq!(Total::of(&[&queued], Mean).at(3.0), 7.0);
    }
}
