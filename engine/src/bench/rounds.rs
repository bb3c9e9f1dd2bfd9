//! When a step has been measured often enough, and in which order steps are measured.
//!
//! What a machine does besides (other work, heat, clocks) changes slowly. Were each step measured in one
//! go, that would be mistaken for a property of the step. So there are rounds: in each, every step has one
//! repeat, in an order drawn anew. They end when the interval of every step's median is tight, and not step by
//! step: one that left early would have seen another machine than the others, and would leave when it
//! happens to look better known than it is.

use foresail_scenarios::random::{Stream, numbered_stream};
use rand::Rng as _;

/// How well a step is to be known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision {
    /// Half of the 95 % interval of the median, as a share of the median.
    pub half_width: f64,
    /// At least so many repeats.
    pub rounds_min: usize,
    /// At most so many.
    pub rounds_max: usize,
}

impl Default for Precision {
    fn default() -> Self {
        Self {
            half_width: 0.01,
            // With fewer there is no such interval: see `median_interval`.
            rounds_min: 6,
            rounds_max: 60,
        }
    }
}

/// The repeats of every step.
#[derive(Clone, Debug)]
pub struct Rounds {
    precision: Precision,
    seed: u64,
    round: u32,
    repeats: Vec<Vec<Repeat>>,
}

/// One repeat of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Repeat {
    /// In which round, from 0.
    pub round: u32,
    /// How long the step took (s).
    pub seconds: f64,
    /// How long the device computed, if it keeps count (s).
    pub device_seconds: Option<f64>,
}

impl Rounds {
    /// So many steps, of which nothing is known.
    #[must_use]
    pub fn new(steps: usize, precision: Precision, seed: u64) -> Self {
        Self {
            precision,
            seed,
            round: 0,
            repeats: vec![Vec::new(); steps],
        }
    }

    /// The steps of the next round, in its order; none if all are done.
    #[must_use]
    pub fn order(&self) -> Vec<usize> {
        if self.done() == self.repeats.len() {
            return Vec::new();
        }
        let mut steps: Vec<usize> = (0..self.repeats.len()).collect();
        shuffle(&mut steps, self.seed, u64::from(self.round));
        steps
    }

    /// Counts a repeat of this round.
    pub fn add(&mut self, step: usize, seconds: f64, device_seconds: Option<f64>) {
        self.repeats[step].push(Repeat {
            round: self.round,
            seconds,
            device_seconds,
        });
    }

    /// The round is over.
    pub fn end_round(&mut self) {
        self.round += 1;
    }

    /// Rounds that are over.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.round
    }

    /// The repeats of a step.
    #[must_use]
    pub fn repeats(&self, step: usize) -> &[Repeat] {
        &self.repeats[step]
    }

    /// Whether a step is known as well as it is to be.
    #[must_use]
    pub fn is_tight(&self, step: usize) -> bool {
        let seconds: Vec<f64> = self.repeats[step].iter().map(|one| one.seconds).collect();
        let half_width = Spread::of(&seconds).and_then(|spread| spread.half_width());
        seconds.len() >= self.precision.rounds_min
            && half_width.is_some_and(|half_width| half_width <= self.precision.half_width)
    }

    /// Steps that need no further rounds.
    #[must_use]
    pub fn done(&self) -> usize {
        let steps = 0..self.repeats.len();
        steps.filter(|&step| self.is_done(step)).count()
    }

    fn is_done(&self, step: usize) -> bool {
        self.repeats[step].len() >= self.precision.rounds_max || self.is_tight(step)
    }
}

/// Another order for every round (Fisher and Yates, as in Knuth, The Art of Computer Programming, 3.4.2, algorithm P).
fn shuffle(steps: &mut [usize], seed: u64, round: u64) {
    let mut stream: Stream = numbered_stream(seed, "calibration.order", round);
    for last in (1..steps.len()).rev() {
        // Of so few steps, the remainder prefers none by more than 1 in 2^57.
        let other = stream.next_u64() % (last as u64 + 1);
        steps.swap(last, other as usize);
    }
}

/// The median of repeats, and where it is with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The ends of its interval; none of fewer than six repeats.
    pub interval: Option<(f64, f64)>,
}

impl Spread {
    /// Of these repeats; none if there are none.
    #[must_use]
    pub fn of(repeats: &[f64]) -> Option<Self> {
        let mut sorted = repeats.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (
            *sorted.get(sorted.len().checked_sub(1)? / 2)?,
            sorted[sorted.len() / 2],
        );
        let interval =
            below(sorted.len()).map(|below| (sorted[below], sorted[sorted.len() - 1 - below]));
        Some(Self {
            median: (low + high) / 2.0,
            interval,
        })
    }

    /// Half of the interval's width, as a share of the median.
    #[must_use]
    pub fn half_width(&self) -> Option<f64> {
        let (low, high) = self.interval?;
        Some((high - low) / 2.0 / self.median)
    }
}

/// How many order statistics are below the interval of the median, and as many above: the median of a
/// continuous distribution is outside `[x_(k), x_(n+1-k)]` with probability `2 P(B < k)`, `B` binomial
/// with `n` and 1/2 (David and Nagaraja, Order Statistics, 3rd edition, 7.1). The most for which that is at
/// most 5 %; none of fewer than six values, all of which are on one side of the median more often.
fn below(count: usize) -> Option<usize> {
    let mut probability = 0.5_f64.powi(i32::try_from(count).ok()?);
    let (mut tail, mut below) = (0.0, None);
    for successes in 0..count / 2 {
        tail += probability;
        if 2.0 * tail > 0.05 {
            break;
        }
        below = Some(successes);
        probability *= (count - successes) as f64 / (successes + 1) as f64;
    }
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_tables() {
        // David and Nagaraja's table for 95 %, from the k-th to the (n + 1 - k)-th: 1 at n = 6, 2 at 9, 6 at 20, 18 at 50.
        let ranks = [5, 6, 8, 9, 20, 50].map(|count| below(count).map(|below| below + 1));
        assert_eq!(ranks, [None, Some(1), Some(1), Some(2), Some(6), Some(18)]);
    }

    #[test]
    fn a_stall_does_not_move_the_median() {
        let mut repeats = vec![1.0; 20];
        repeats[7] = 100.0;
        let spread = Spread::of(&repeats).unwrap();
        assert_eq!((spread.median, spread.half_width()), (1.0, Some(0.0)));
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, 2.0]).unwrap().median, 1.5);
    }

    #[test]
    fn every_round_has_each_step_once_in_an_order_of_its_own() {
        let mut rounds = Rounds::new(20, Precision::default(), 7);
        let mut orders = vec![
            rounds.order(),
            Rounds::new(20, Precision::default(), 8).order(),
        ];
        rounds.end_round();
        orders.push(rounds.order());
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..20));
        }
        assert!(orders[0] != orders[1] && orders[0] != orders[2]);
        let again = Rounds::new(20, Precision::default(), 7).order();
        assert_eq!(orders[0], again, "the seed says which");
    }

    #[test]
    fn rounds_end_when_all_steps_are_known_or_have_been_measured_often() {
        let mut rounds = Rounds::new(2, Precision::default(), 0);
        while !rounds.order().is_empty() {
            for step in rounds.order() {
                // Spread evenly over 20 %: with sixty of them the interval is still wider than 2 %.
                let noise = f64::from(rounds.count() * 7 % 20) * 0.01;
                rounds.add(step, 1.0 + noise * step as f64, None);
            }
            rounds.end_round();
        }
        assert_eq!((rounds.repeats(0).len(), rounds.is_tight(0)), (60, true));
        assert_eq!((rounds.repeats(1).len(), rounds.is_tight(1)), (60, false));
        assert_eq!(rounds.repeats(1)[5].round, 5);
        let mut steady = Rounds::new(2, Precision::default(), 0);
        while !steady.order().is_empty() {
            for step in steady.order() {
                steady.add(step, 1.0, None);
            }
            steady.end_round();
        }
        assert_eq!(steady.count(), 6);
    }
}
