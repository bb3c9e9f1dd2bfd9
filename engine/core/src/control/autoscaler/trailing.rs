//! Statistics of a trailing window of time, each O(1) amortised per sample.

use std::collections::VecDeque;

use crate::time::Nanos;

/// The mean of the samples of the last `window`: those later than
/// `now - window`, and always the newest.
///
/// Samples are held in fixed point so that the sum is exact: taking out what was
/// put in leaves no rest, however many weeks pass.
#[derive(Clone, Debug)]
pub(super) struct TrailingMean {
    window: Nanos,
    samples: VecDeque<(Nanos, u128)>,
    sum: u128,
}

/// One in fixed point. Rounding to 2^-40 is far below the 1e-9 that is forgiven
/// before rounding up to whole replicas.
const ONE: f64 = (1_u64 << 40) as f64;

impl TrailingMean {
    pub(super) fn new(window: Nanos) -> Self {
        TrailingMean {
            window,
            samples: VecDeque::new(),
            sum: 0,
        }
    }

    pub(super) fn restart(&mut self) {
        self.samples.clear();
        self.sum = 0;
    }

    /// Adds a sample, which must not be negative, and returns the mean.
    pub(super) fn push(&mut self, now: Nanos, sample: f64) -> f64 {
        let sample = (sample * ONE) as u128;
        self.samples.push_back((now, sample));
        self.sum += sample;
        while self.samples.len() > 1 && now - self.samples[0].0 >= self.window {
            self.sum -= self.samples[0].1;
            self.samples.pop_front();
        }
        self.sum as f64 / ONE / self.samples.len() as f64
    }
}

/// The smallest or the largest sample of the last `window`, both ends included.
///
/// Keeps only samples that can still become the extreme, so they are in order.
#[derive(Clone, Debug)]
pub(super) struct TrailingExtreme {
    window: Nanos,
    /// Whether the first value may stand behind the second.
    yields: fn(u32, u32) -> bool,
    samples: VecDeque<(Nanos, u32)>,
}

impl TrailingExtreme {
    pub(super) fn smallest(window: Nanos) -> Self {
        Self::new(window, |old, new| old >= new)
    }

    pub(super) fn largest(window: Nanos) -> Self {
        Self::new(window, |old, new| old <= new)
    }

    fn new(window: Nanos, yields: fn(u32, u32) -> bool) -> Self {
        TrailingExtreme {
            window,
            yields,
            samples: VecDeque::new(),
        }
    }

    pub(super) fn restart(&mut self) {
        self.samples.clear();
    }

    /// Adds a sample and returns the extreme.
    pub(super) fn push(&mut self, now: Nanos, sample: u32) -> u32 {
        while self
            .samples
            .back()
            .is_some_and(|&(_, last)| (self.yields)(last, sample))
        {
            self.samples.pop_back();
        }
        self.samples.push_back((now, sample));
        while now - self.samples[0].0 > self.window {
            self.samples.pop_front();
        }
        self.samples[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mean_of_ten_seconds_holds_ten_samples_a_second_apart() {
        let mut mean = TrailingMean::new(10);
        let means: Vec<f64> = (0..20).map(|t| mean.push(t, t as f64)).collect();
        assert_eq!(means[0], 0.0);
        assert_eq!(means[9], 4.5);
        assert_eq!(means[19], 14.5);
    }

    #[test]
    fn no_window_is_no_memory() {
        let mut mean = TrailingMean::new(0);
        assert_eq!((mean.push(0, 3.0), mean.push(1, 5.0)), (3.0, 5.0));
        let mut smallest = TrailingExtreme::smallest(0);
        assert_eq!((smallest.push(0, 3), smallest.push(1, 5)), (3, 5));
    }

    proptest! {
        #[test]
        fn extremes_are_those_of_the_window(
            window in 0_u64..8,
            samples in prop::collection::vec((1_u64..4, 0_u32..9), 1..60),
        ) {
            let mut smallest = TrailingExtreme::smallest(window);
            let mut largest = TrailingExtreme::largest(window);
            let mut seen: Vec<(u64, u32)> = Vec::new();
            let mut now = 0;
            for (gap, value) in samples {
                now += gap;
                seen.push((now, value));
                let recent = || seen.iter().filter(|(at, _)| now - at <= window).map(|s| s.1);
                prop_assert_eq!(Some(smallest.push(now, value)), recent().min());
                prop_assert_eq!(Some(largest.push(now, value)), recent().max());
            }
        }

        #[test]
        fn the_mean_does_not_drift(samples in prop::collection::vec(0.0..1e6_f64, 100..400)) {
            let mut mean = TrailingMean::new(5);
            for (now, &sample) in (0..).zip(&samples) {
                mean.push(now, sample);
            }
            let end = samples.len() as u64;
            let after = (end..end + 5).map(|now| mean.push(now, 0.0)).last();
            prop_assert_eq!(after, Some(0.0));
        }
    }
}
