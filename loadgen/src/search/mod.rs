//! The highest rate that meets the objectives, found with intervals instead of one lucky run.
//!
//! ```text
//! next ─> Run { rate } ─> load, summary ─> Reading ─> told ─> next ─> … ─> Done(Found)
//! ```
//!
//! The search doubles (or halves) the rate, one run at each, until it has one that seems to meet the
//! objectives and one that does not. It then has these two decided, and bisects between
//! them on a logarithmic scale. A rate is decided by several runs: it meets the
//! objectives if the interval of the mean [margin](Reading::Margin) over its runs is above
//! 0, and does not if it is below. A rate whose interval still holds 0 after the last
//! look is on the edge: it bounds nothing, and the search closes in on it from both sides.
//!
//! What is assumed: margins do not rise with the rate, and runs are independent.
//! Each run should have a seed of its own, so that no rate is decided by the luck of one
//! sequence of arrivals; [`Run::number`] tells them apart.

mod point;
mod student;
mod sweep;

pub use point::{Interval, Point, Reading, Verdict};
pub use sweep::{SweepError, rates};

/// How a search goes about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The first rate (requests/s).
    pub start_per_s: f64,
    /// The lowest rate that is tried.
    pub rate_min_per_s: f64,
    /// The highest rate that is tried.
    pub rate_max_per_s: f64,
    /// The search ends when the higher rate exceeds the lower by no more than this share of it.
    pub width: f64,
    /// How likely it shall be that the true capacity is between the two rates.
    pub confidence: f64,
    /// After how many runs a rate is looked at, in rising order, at least 2. If it
    /// is not decided at the last look it is on the edge.
    pub looks: Vec<u32>,
}

impl Default for Settings {
    /// From 1 request/s, within 5 %, with 95 % confidence, 3 to 8 runs a rate.
    fn default() -> Self {
        Self {
            start_per_s: 1.0,
            rate_min_per_s: 0.01,
            rate_max_per_s: 100_000.0,
            width: 0.05,
            confidence: 0.95,
            looks: vec![3, 5, 8],
        }
    }
}

/// An option of a search that is out of range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("search: {option}: expected {expected}, found {found}")]
pub struct SettingsError {
    /// Which one.
    pub option: &'static str,
    /// What it may be.
    pub expected: &'static str,
    /// What it is.
    pub found: String,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Load the endpoint, and tell what came of it.
    Run(Run),
    /// The search is over.
    Done(Found),
}

/// A run that the search asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Its number among all runs of the search, from 0.
    pub number: u32,
    /// Requests a second.
    pub rate_per_s: f64,
    /// Its number among the runs at this rate, from 0.
    pub repeat: u32,
}

/// What a search has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The highest rate that met the objectives, below all that did not.
    pub met_per_s: Option<f64>,
    /// The lowest rate that did not meet them.
    pub not_met_per_s: Option<f64>,
    /// Why it ended.
    pub ending: Ending,
    /// Every rate that was tried with all its readings, from the lowest on.
    pub points: Vec<Point>,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The two rates are as close as was asked for.
    Narrow,
    /// Between the two rates are some on the edge: their runs differ too much from
    /// one to the next to tell. Longer runs, or more looks, would.
    OnTheEdge,
    /// The highest rate that may be tried meets the objectives, or is on the edge.
    RateMax,
    /// The lowest rate that may be tried does not meet the objectives, or is on the edge.
    RateMin,
    /// It was stopped before its end.
    Stopped,
}

/// The search. It is told what runs came to, and does nothing itself.
#[derive(Clone, Debug)]
pub struct Search {
    settings: Settings,
    /// From the lowest rate on.
    points: Vec<Point>,
    /// The error that each look may make.
    error: f64,
    runs: u32,
}

/// How many rates are so close to the capacity that chance could decide them
/// wrongly: bisection visits few, and those far away are decided by a wide margin.
const CLOSE_RATES: f64 = 2.0;

impl Search {
    /// A search that has not begun.
    ///
    /// # Errors
    /// For the first setting that is out of range.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        // Bonferroni: the errors of all looks at rates that are close add up to what is allowed.
        let error = (1.0 - settings.confidence) / (CLOSE_RATES * settings.looks.len() as f64);
        Ok(Self {
            settings,
            points: Vec::new(),
            error,
            runs: 0,
        })
    }

    /// What to do next. Asking twice gives the same answer.
    #[must_use]
    pub fn next(&self) -> Step {
        match self.choose() {
            Ok(rate_per_s) => Step::Run(Run {
                number: self.runs,
                rate_per_s,
                repeat: self.at(rate_per_s).map_or(0, |point| point.readings.len()) as u32,
            }),
            Err(ending) => Step::Done(self.found(ending)),
        }
    }

    /// What the run came to that [`Search::next`] asked for. Once the search is
    /// over this changes nothing.
    pub fn told(&mut self, reading: Reading) {
        let Step::Run(run) = self.next() else { return };
        let by_rate = |point: &Point| point.rate_per_s.total_cmp(&run.rate_per_s);
        let place = match self.points.binary_search_by(by_rate) {
            Ok(place) => place,
            Err(place) => {
                self.points.insert(place, Point::new(run.rate_per_s));
                place
            }
        };
        self.points[place].add(reading, &self.settings.looks, self.error);
        self.runs += 1;
    }

    /// What is known so far, for whoever has to end a search early: because it is
    /// interrupted, or because the load generator and not the endpoint was the limit of a run,
    /// which then tells nothing.
    #[must_use]
    pub fn stopped(&self) -> Found {
        self.found(Ending::Stopped)
    }

    /// The most rates that a search with these settings tries: one for each
    /// doubling or halving, and those that two bisections need.
    #[must_use]
    pub fn points_max(&self) -> u32 {
        let Settings {
            rate_min_per_s,
            rate_max_per_s,
            width,
            ..
        } = self.settings;
        let doublings = (rate_max_per_s / rate_min_per_s).log2().ceil();
        let bisections = (2.0_f64.ln() / width.ln_1p()).log2().ceil().max(0.0);
        (doublings + 2.0 * bisections) as u32 + 4
    }

    /// The next rate to run, or why there is none.
    fn choose(&self) -> Result<f64, Ending> {
        let (Some(lowest), Some(highest)) = (self.points.first(), self.points.last()) else {
            return Ok(self.settings.start_per_s);
        };
        let (lowest, highest) = (lowest.rate_per_s, highest.rate_per_s);
        let (rate_min, rate_max) = (self.settings.rate_min_per_s, self.settings.rate_max_per_s);
        let not_met = self
            .points
            .iter()
            .find(|point| point.leans(Verdict::NotMet));
        let below = not_met.map_or(f64::INFINITY, |point| point.rate_per_s);
        let met = (self.points.iter().rev())
            .filter(|point| point.rate_per_s < below)
            .find(|point| point.leans(Verdict::Met));
        match (met, not_met) {
            (None, _) if lowest > rate_min => return Ok((lowest / 2.0).max(rate_min)),
            (_, None) if highest < rate_max => return Ok((highest * 2.0).min(rate_max)),
            _ => {}
        }
        // What the end rests on has to be decided, wherever that is.
        let ends = [self.at(lowest), self.at(highest)];
        let ends = ends
            .into_iter()
            .flatten()
            .filter(|_| met.is_none() || not_met.is_none());
        let mut to_decide = [met, not_met].into_iter().flatten().chain(ends);
        if let Some(open) = to_decide.find(|point| point.verdict.is_none()) {
            return Ok(open.rate_per_s);
        }
        match (met, not_met) {
            (Some(met), Some(not_met)) => self.between(met.rate_per_s, not_met.rate_per_s),
            (None, _) => Err(Ending::RateMin),
            (_, None) => Err(Ending::RateMax),
        }
    }

    fn at(&self, rate_per_s: f64) -> Option<&Point> {
        let mut points = self.points.iter();
        points.find(|point| point.rate_per_s == rate_per_s)
    }

    /// The middle of the gap below the edge, or else of the one above it.
    fn between(&self, met: f64, not_met: f64) -> Result<f64, Ending> {
        let edge = self.points.iter().filter(|point| {
            let rate = point.rate_per_s;
            point.verdict == Some(Verdict::OnTheEdge) && met < rate && rate < not_met
        });
        let rates: Vec<f64> = edge.map(|point| point.rate_per_s).collect();
        let (below, above) = match rates[..] {
            [] => ((met, not_met), (met, not_met)),
            [first, ..] => ((met, first), (rates[rates.len() - 1], not_met)),
        };
        let is_wide = |gap: &(f64, f64)| gap.1 / gap.0 > 1.0 + self.settings.width;
        match [below, above].into_iter().find(is_wide) {
            Some((low, high)) => Ok((low * high).sqrt()),
            None if rates.is_empty() => Err(Ending::Narrow),
            None => Err(Ending::OnTheEdge),
        }
    }

    fn not_met(&self) -> Option<f64> {
        let mut rates = self.rates(Verdict::NotMet);
        rates.next()
    }

    /// The highest rate that met the objectives below all that did not.
    fn met(&self) -> Option<f64> {
        let limit = self.not_met().unwrap_or(f64::INFINITY);
        self.rates(Verdict::Met)
            .take_while(|rate| *rate < limit)
            .last()
    }

    /// The rates with this verdict, from the lowest on.
    fn rates(&self, verdict: Verdict) -> impl Iterator<Item = f64> {
        let points = (self.points.iter()).filter(move |point| point.verdict == Some(verdict));
        points.map(|point| point.rate_per_s)
    }

    fn found(&self, ending: Ending) -> Found {
        Found {
            met_per_s: self.met(),
            not_met_per_s: self.not_met(),
            ending,
            points: self.points.clone(),
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), SettingsError> {
        let refuse = |option, expected, found: String| {
            Err(SettingsError {
                option,
                expected,
                found,
            })
        };
        let (min, max) = (self.rate_min_per_s, self.rate_max_per_s);
        if !(min > 0.0 && max.is_finite() && min < max) {
            let expected = "a lowest rate above 0 and a highest above it";
            return refuse("rates", expected, format!("{min} to {max}"));
        }
        if !(min..=max).contains(&self.start_per_s) {
            let found = self.start_per_s.to_string();
            return refuse("start", "a rate within the lowest and the highest", found);
        }
        if !(0.001..=1.0).contains(&self.width) {
            return refuse("width", "a share from 0.001 to 1", self.width.to_string());
        }
        if !(0.5..=0.9999).contains(&self.confidence) {
            let found = self.confidence.to_string();
            return refuse("confidence", "a share from 0.5 to 0.9999", found);
        }
        let is_rising = self.looks.windows(2).all(|pair| pair[0] < pair[1]);
        if self.looks.first().is_none_or(|first| *first < 2) || !is_rising {
            let found = format!("{:?}", self.looks);
            return refuse("looks", "rising numbers of runs, at least 2", found);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
