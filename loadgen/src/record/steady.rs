//! Whether the system had settled in the window: if requests in flight or TTFT still rise at its
//! end, the run was too short, or the load is more than the server can take.
//!
//! The window is cut into equal intervals, and the Mann–Kendall test (Mann, "Nonparametric tests
//! against trend", Econometrica 13(3), 1945; Kendall, "Rank correlation methods", 1975) asks whether later
//! intervals are higher than earlier ones more often than chance would have it. It needs no
//! distribution, and an outlier counts as one. A trend that is sure and small is no
//! matter: it is told only if it changes the level by a tenth.

use foresail_core::time::{Nanos, SECOND, seconds};
use foresail_reports::summary::Steadiness;

/// Intervals to cut the window into, at most. Neighbouring intervals of a queue are alike, which
/// makes the test find trends where there are none; longer intervals are less so.
const INTERVALS_MAX: u64 = 20;

/// With fewer no trend can be significant: of 6 intervals in order the normal approximation gives z = 2.63.
const INTERVALS_MIN: usize = 6;

/// Two-sided 1 %: of 100 runs that were steady, one is called not so.
const Z_MAX: f64 = 2.576;

/// The least change of level from the first half to the second that is told.
const CHANGE_MIN: f64 = 0.1;

/// What is gathered over the run, second by second.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    slots: Vec<Slot>,
    in_flight: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// In flight at its end.
    in_flight: u64,
    ttft_ns_sum: u128,
    ttft_count: u64,
}

impl Trend {
    /// A request was sent.
    pub fn sent(&mut self, at: Nanos) {
        self.slot(at);
        self.in_flight += 1;
        self.note_in_flight();
    }

    /// A request that had been sent ended. If it completed, its TTFT counts at the time when it was due.
    pub fn ended(&mut self, at: Nanos, due: Nanos, ttft: Option<Nanos>) {
        self.slot(at);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.note_in_flight();
        if let Some(ttft) = ttft {
            let slot = self.slot(due);
            slot.ttft_ns_sum += u128::from(ttft);
            slot.ttft_count += 1;
        }
    }

    fn note_in_flight(&mut self) {
        if let Some(last) = self.slots.last_mut() {
            last.in_flight = self.in_flight;
        }
    }

    fn slot(&mut self, at: Nanos) -> &mut Slot {
        let index = (at / SECOND) as usize;
        while self.slots.len() <= index {
            // Whoever was in flight is so until something happens.
            let in_flight = self.in_flight;
            self.slots.push(Slot {
                in_flight,
                ..Slot::default()
            });
        }
        &mut self.slots[index]
    }

    /// What the test says of the seconds that lie in the window; `None` if there are too few.
    #[must_use]
    pub fn steadiness(&self, from: Nanos, until: Nanos) -> Option<Steadiness> {
        let first = from.div_ceil(SECOND) as usize;
        let end = ((until / SECOND) as usize).min(self.slots.len());
        let slots = self.slots.get(first..end)?;
        let per_interval = (slots.len() as u64).div_ceil(INTERVALS_MAX).max(1) as usize;
        // The rest at the beginning is left out: all intervals are equally long.
        let rest = slots.len() % per_interval;
        let intervals: Vec<_> = slots[rest..].chunks(per_interval).collect();
        if intervals.len() < INTERVALS_MIN {
            return None;
        }
        let in_flight: Vec<f64> = intervals
            .iter()
            .map(|slots| mean_in_flight(slots))
            .collect();
        let ttft: Vec<f64> = intervals
            .iter()
            .filter_map(|slots| mean_ttft(slots))
            .collect();
        let minutes = seconds((slots.len() as u64) * SECOND);
        Some(steadiness(&in_flight, &ttft, minutes))
    }
}

fn steadiness(in_flight: &[f64], ttft_s: &[f64], window_s: f64) -> Steadiness {
    let trends = [
        change(in_flight)
            .map(|(from, to)| format!("requests in flight went from {from:.1} to {to:.1}")),
        change(ttft_s).map(|(from, to)| {
            format!(
                "mean TTFT went from {:.1} ms to {:.1} ms",
                from * 1e3,
                to * 1e3
            )
        }),
    ];
    let found: Vec<_> = trends.into_iter().flatten().collect();
    let within = format!("within {window_s:.0} s (means of its halves; Mann-Kendall, 1 %)");
    Steadiness {
        is_steady: found.is_empty(),
        text: match found.is_empty() {
            true => format!("no trend of requests in flight or TTFT {within}"),
            false => format!("not steady: {} {within}", found.join(" and ")),
        },
    }
}

/// The means of both halves, if there is a trend that is sure and large enough.
fn change(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < INTERVALS_MIN || mann_kendall(values).abs() <= Z_MAX {
        return None;
    }
    let (first, second) = values.split_at(values.len() / 2);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (from, to) = (mean(first), mean(second));
    ((to - from).abs() > from.max(to) * CHANGE_MIN).then_some((from, to))
}

/// The standard score of Kendall's S under no trend, ties among the values included:
/// S = sum of the signs of all later minus earlier values, and its variance is
/// (n (n - 1) (2 n + 5) - sum over ties of t (t - 1) (2 t + 5)) / 18.
fn mann_kendall(values: &[f64]) -> f64 {
    let mut score = 0_i64;
    for (index, earlier) in values.iter().enumerate() {
        for later in &values[index + 1..] {
            score += i64::from(later > earlier) - i64::from(later < earlier);
        }
    }
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let ties: f64 = sorted
        .chunk_by(|a, b| a == b)
        .map(|tie| term(tie.len() as f64))
        .sum();
    let variance = (term(values.len() as f64) - ties) / 18.0;
    if variance <= 0.0 {
        return 0.0;
    }
    // The correction for continuity.
    (score - score.signum()) as f64 / variance.sqrt()
}

fn mean_in_flight(slots: &[Slot]) -> f64 {
    slots.iter().map(|slot| slot.in_flight as f64).sum::<f64>() / slots.len() as f64
}

fn mean_ttft(slots: &[Slot]) -> Option<f64> {
    let count: u64 = slots.iter().map(|slot| slot.ttft_count).sum();
    let sum: u128 = slots.iter().map(|slot| slot.ttft_ns_sum).sum();
    (count > 0).then(|| sum as f64 / count as f64 / SECOND as f64)
}

#[cfg(test)]
mod tests {
    use foresail_core::time::MILLISECOND;
    use proptest::prelude::*;

    use super::*;

    /// A minute of ten requests a second whose k-th lasts so long.
    fn minute(lasts: impl Fn(u64) -> Nanos) -> Trend {
        let sends = (0..600).map(|k| (k * SECOND / 10, k, true));
        let ends = (0..600).map(|k| (k * SECOND / 10 + lasts(k), k, false));
        let mut events: Vec<_> = sends.chain(ends).collect();
        events.sort_unstable();
        let mut trend = Trend::default();
        for (at, k, is_send) in events {
            match is_send {
                true => trend.sent(at),
                false => trend.ended(at, k * SECOND / 10, Some(lasts(k) / 2)),
            }
        }
        trend
    }

    #[test]
    fn constant_load_is_steady() {
        let found = minute(|_| SECOND).steadiness(2 * SECOND, 60 * SECOND);
        insta::assert_snapshot!(found.unwrap().text, @"no trend of requests in flight or TTFT within 58 s (means of its halves; Mann-Kendall, 1 %)");
    }

    #[test]
    fn a_growing_queue_is_not() {
        let found = minute(|k| SECOND + k * 10 * MILLISECOND).steadiness(0, 60 * SECOND);
        let found = found.unwrap();
        assert!(!found.is_steady);
        assert!(
            found
                .text
                .starts_with("not steady: requests in flight went from "),
            "{}",
            found.text
        );
        assert!(
            found.text.contains("and mean TTFT went from "),
            "{}",
            found.text
        );
    }

    #[test]
    fn a_trend_too_small_to_matter_is_not_told() {
        let found = minute(|k| SECOND + k * 20_000).steadiness(0, 60 * SECOND);
        assert!(found.unwrap().is_steady);
    }

    #[test]
    fn a_few_seconds_are_too_few_to_tell() {
        let trend = minute(|_| SECOND);
        assert_eq!(trend.steadiness(0, 5 * SECOND), None);
        assert_eq!(trend.steadiness(58 * SECOND, 10 * SECOND), None);
        assert_eq!(Trend::default().steadiness(0, 60 * SECOND), None);
    }

    #[test]
    fn scores_are_those_of_the_books() {
        // S = 10 of n = 5 in order: (10 - 1) / sqrt(5 * 4 * 15 / 18).
        let score = mann_kendall(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((score - 9.0 / (300.0_f64 / 18.0).sqrt()).abs() < 1e-12);
        // Two pairs of ties: S = 4, variance (4 * 3 * 13 - 2 * 2 * 1 * 9) / 18.
        let tied = mann_kendall(&[1.0, 1.0, 2.0, 2.0]);
        assert!((tied - 3.0 / (120.0_f64 / 18.0).sqrt()).abs() < 1e-12);
        assert_eq!(mann_kendall(&[7.0; 9]), 0.0);
    }

    proptest! {
        #[test]
        fn a_series_backwards_has_the_opposite_trend(values in prop::collection::vec(0..9_u8, 6..20)) {
            let mut values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let forwards = mann_kendall(&values);
            values.reverse();
            prop_assert!((forwards + mann_kendall(&values)).abs() < 1e-9);
        }
    }
}
