//! The largest of the decisions of a window: scaling down waits until all of
//! them are lower (`pkg/autoscaler/aggregation/max`).

use std::collections::VecDeque;

use crate::time::{Nanos, SECOND};

/// How finely the window tells times apart: the interval of the autoscaler's ticks.
const GRANULARITY: Nanos = 2 * SECOND;

/// A window whose oldest entry always is its maximum.
#[derive(Clone, Debug)]
pub(super) struct DelayWindow {
    /// How many intervals the window has.
    intervals: u64,
    /// (interval, largest value since), with falling values.
    maxima: VecDeque<(u64, i32)>,
}

impl DelayWindow {
    /// A window of `duration`, which is above 0.
    pub(super) fn new(duration: Nanos) -> Self {
        DelayWindow {
            intervals: duration.div_ceil(GRANULARITY),
            maxima: VecDeque::new(),
        }
    }

    /// Takes in a value, and says which is the largest of the window. Of several
    /// values in one interval, the largest counts.
    pub(super) fn push(&mut self, now: Nanos, value: i32) -> i32 {
        let interval = now / GRANULARITY;
        while self.maxima.back().is_some_and(|&(_, last)| value >= last) {
            self.maxima.pop_back();
        }
        let is_old = |&(at, _): &(u64, i32)| interval - at >= self.intervals;
        while self.maxima.front().is_some_and(is_old) {
            self.maxima.pop_front();
        }
        if self.maxima.back().is_none_or(|&(at, _)| at != interval) {
            self.maxima.push_back((interval, value));
        }
        self.maxima.front().map_or(value, |&(_, largest)| largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_at_once_and_falls_after_the_window() {
        let mut window = DelayWindow::new(6 * SECOND);
        let largest: Vec<i32> = [(0, 2), (2, 5), (4, 1), (6, 1), (8, 1), (10, 3)]
            .map(|(second, value)| window.push(second * SECOND, value))
            .to_vec();
        assert_eq!(largest, [2, 5, 5, 5, 1, 3]);
    }

    #[test]
    fn of_two_values_in_one_interval_the_larger_counts() {
        let mut window = DelayWindow::new(SECOND);
        assert_eq!(window.push(4 * SECOND, 7), 7);
        assert_eq!(window.push(5 * SECOND, 3), 7);
        assert_eq!(window.push(6 * SECOND, 3), 3);
    }
}
