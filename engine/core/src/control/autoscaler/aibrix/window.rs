//! The metric window: the mean of what was measured, one value a second
//! (`TimeWindow` in `types/metrics.go`).

use std::collections::VecDeque;

use crate::time::{Nanos, SECOND};

/// The values of a window.
#[derive(Clone, Debug)]
pub(super) struct Window {
    duration: Nanos,
    /// (second, value), in order of time.
    values: VecDeque<(u64, f64)>,
}

impl Window {
    pub(super) fn new(duration: Nanos) -> Self {
        Window {
            duration,
            values: VecDeque::new(),
        }
    }

    /// The value of the second of `now`, in place of one that it had. Only then are
    /// seconds forgotten that are older than the window, both ends included.
    pub(super) fn record(&mut self, now: Nanos, value: f64) {
        let second = now / SECOND;
        if self.values.back().is_some_and(|&(at, _)| at == second) {
            self.values.pop_back();
        }
        self.values.push_back((second, value));
        // Before a window has passed, AIBrix's cutoff lies before the start of the run.
        let cutoff = now.saturating_sub(self.duration) / SECOND;
        while self.values.front().is_some_and(|&(at, _)| at < cutoff) {
            self.values.pop_front();
        }
    }

    /// The mean; 0 without values.
    pub(super) fn average(&self) -> f64 {
        if self.values.is_empty() {
            return 0.0;
        }
        let sum: f64 = self.values.iter().fold(0.0, |sum, (_, value)| sum + value);
        sum / self.values.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_the_values_of_the_window() {
        let mut window = Window::new(20 * SECOND);
        assert_eq!(window.average(), 0.0);
        for (second, value) in [(0, 9.0), (10, 3.0), (20, 6.0)] {
            window.record(second * SECOND, value);
        }
        assert_eq!(window.average(), 6.0);
        window.record(30 * SECOND, 0.0);
        assert_eq!(window.average(), 3.0);
    }

    #[test]
    fn a_second_has_one_value_the_last() {
        let mut window = Window::new(20 * SECOND);
        window.record(SECOND, 1.0);
        window.record(SECOND + 1, 5.0);
        assert_eq!(window.average(), 5.0);
    }
}
