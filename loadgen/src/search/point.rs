//! One rate, its runs, and what they decide together.

use super::student::quantile;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// By how much it met the objectives: above 0 if it did, below if not, a finite
    /// number. Logarithms of ratios are good for this: they are as far above 0 for half the limit
    /// as below for twice of it.
    Margin(f64),
    /// There was nothing to read, because the endpoint did not answer: the objectives are not met.
    Collapsed,
}

impl Reading {
    /// The margin of a value that has to be below its limit, such as a latency.
    /// Values below a millionth of the limit count as that.
    #[must_use]
    pub fn below(observed: f64, limit: f64) -> Self {
        Self::of_margin((limit / observed.max(1e-6 * limit)).ln())
    }

    /// The margin of a value that has to be above its limit, such as goodput.
    /// Values below a millionth of the limit count as that.
    #[must_use]
    pub fn above(observed: f64, limit: f64) -> Self {
        Self::of_margin((observed.max(1e-6 * limit) / limit).ln())
    }

    /// The reading of several objectives together: the one that is met least.
    #[must_use]
    pub fn worst(readings: &[Self]) -> Option<Self> {
        let margin = |reading: &Self| match reading {
            Self::Margin(margin) => *margin,
            Self::Collapsed => f64::NEG_INFINITY,
        };
        let by_margin = |a: &&Self, b: &&Self| margin(a).total_cmp(&margin(b));
        readings.iter().min_by(by_margin).copied()
    }

    /// What cannot be told is not met.
    fn of_margin(margin: f64) -> Self {
        match margin.is_finite() {
            true => Self::Margin(margin),
            false => Self::Collapsed,
        }
    }
}

/// What the runs at a rate decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The objectives are met.
    Met,
    /// They are not.
    NotMet,
    /// The runs do not tell.
    OnTheEdge,
}

/// An interval of the mean margin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// One rate that is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Requests a second.
    pub rate_per_s: f64,
    /// What its runs came to, in order.
    pub readings: Vec<Reading>,
    /// The interval at the last look, of the runs that had a margin.
    pub interval: Option<Interval>,
    /// What they decide; `None` while there are runs to come.
    pub verdict: Option<Verdict>,
}

impl Point {
    pub(super) fn new(rate_per_s: f64) -> Self {
        Self {
            rate_per_s,
            readings: Vec::new(),
            interval: None,
            verdict: None,
        }
    }

    /// Takes a reading, and looks if it is time to. `error` is the probability
    /// on either side with which a look may be wrong.
    pub(super) fn add(&mut self, reading: Reading, looks: &[u32], error: f64) {
        self.readings.push(match reading {
            Reading::Margin(margin) => Reading::of_margin(margin),
            Reading::Collapsed => Reading::Collapsed,
        });
        let count = self.readings.len() as u32;
        if looks.contains(&count) {
            self.look(error);
        }
        if self.verdict.is_none() && looks.last().is_none_or(|last| count >= *last) {
            self.verdict = Some(Verdict::OnTheEdge);
        }
    }

    /// Whether it is decided so, or, while it is not, seems to be by its first run.
    pub(super) fn leans(&self, verdict: Verdict) -> bool {
        let seems = match self.readings.first() {
            Some(Reading::Margin(margin)) if *margin > 0.0 => Verdict::Met,
            _ => Verdict::NotMet,
        };
        self.verdict.unwrap_or(seems) == verdict
    }

    fn look(&mut self, error: f64) {
        let margins = self.readings.iter().filter_map(|reading| match reading {
            Reading::Margin(margin) => Some(*margin),
            Reading::Collapsed => None,
        });
        let margins: Vec<f64> = margins.collect();
        self.interval = interval(&margins, error);
        let collapsed = self.readings.len() - margins.len();
        let is = |side: fn(Interval) -> bool| self.interval.is_some_and(side);
        self.verdict = if 2 * collapsed > self.readings.len() || is(|i| i.high < 0.0) {
            Some(Verdict::NotMet)
        } else if collapsed == 0 && is(|i| i.low > 0.0) {
            Some(Verdict::Met)
        } else {
            None
        };
    }
}

/// The interval of a mean by Student's t, with this error on either side;
/// `None` for fewer than two values.
fn interval(values: &[f64], error: f64) -> Option<Interval> {
    let count = values.len() as f64;
    let freedom = u32::try_from(values.len().checked_sub(1)?).ok()?;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / f64::from(freedom)).sqrt();
    let half = quantile(error, freedom)? * deviation / count.sqrt();
    Some(Interval {
        low: mean - half,
        high: mean + half,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(readings: &[Reading]) -> Point {
        let mut point = Point::new(1.0);
        for reading in readings {
            point.add(*reading, &[3, 5], 0.01);
        }
        point
    }

    #[test]
    fn margins_are_symmetric_and_the_worst_objective_counts() {
        let ln_2 = 2.0_f64.ln();
        let half = Reading::below(250.0, 500.0);
        let twice = Reading::below(1000.0, 500.0);
        let (Reading::Margin(half), Reading::Margin(twice)) = (half, twice) else {
            panic!("both are finite");
        };
        assert!((half - ln_2).abs() < 1e-12 && (twice + ln_2).abs() < 1e-12);
        assert!(matches!(Reading::above(0.97, 0.95), Reading::Margin(margin) if margin > 0.0));
        assert!(matches!(Reading::above(0.0, 0.95), Reading::Margin(margin) if margin < -10.0));
        let readings = [
            Reading::Margin(0.5),
            Reading::Margin(-0.1),
            Reading::Margin(2.0),
        ];
        assert_eq!(Reading::worst(&readings), Some(Reading::Margin(-0.1)));
        let readings = [Reading::Margin(0.5), Reading::Collapsed];
        assert_eq!(Reading::worst(&readings), Some(Reading::Collapsed));
        assert_eq!(Reading::worst(&[]), None);
        assert_eq!(Reading::below(f64::NAN, f64::NAN), Reading::Collapsed);
    }

    #[test]
    fn one_lucky_run_decides_nothing() {
        let lucky = [5.0, -0.1, -0.2, 0.1, 0.05].map(Reading::Margin);
        for count in 1..5 {
            assert_eq!(point(&lucky[..count]).verdict, None, "{count}");
        }
        assert_eq!(point(&lucky).verdict, Some(Verdict::OnTheEdge));
    }

    #[test]
    fn runs_that_agree_decide_at_the_first_look() {
        let met = point(&[1.0, 1.1, 0.9].map(Reading::Margin));
        assert_eq!(met.verdict, Some(Verdict::Met));
        let Interval { low, high } = met.interval.unwrap();
        assert!(low > 0.0 && (low + high - 2.0).abs() < 1e-9);
        let not_met = point(&[-1.0, -1.1, -0.9].map(Reading::Margin));
        assert_eq!(not_met.verdict, Some(Verdict::NotMet));
    }

    #[test]
    fn an_endpoint_that_collapses_does_not_meet_its_objectives() {
        let (fine, gone) = (Reading::Margin(1.0), Reading::Collapsed);
        assert_eq!(point(&[gone, fine, gone]).verdict, Some(Verdict::NotMet));
        // One collapse is no proof, but nobody would call it met either.
        let once = [fine, fine, gone, fine, fine];
        assert_eq!(point(&once).verdict, Some(Verdict::OnTheEdge));
    }
}
