//! One client: windows of rates, and arrivals that follow them.

use std::path::Path;

use foresail_core::time::{Nanos, seconds};

use super::super::error::{Fault, WorkloadError};
use super::super::generator::{Process, UnitGaps};
use super::super::trace::fields::{Field, Fields, seconds_nanos};
use super::super::trace::lines::Lines;
use crate::random::{Stream, stream};

/// Length of a window (s).
const WINDOW_S: u32 = 600;

/// Gaps drawn before time 0 so that a bursty client is found somewhere in its
/// pattern rather than at the beginning of a burst.
const WARM_UP_GAPS: f64 = 64.0;

/// A window in which the client sends.
#[derive(Clone, Copy, Debug)]
struct Active {
    rate_per_s: f64,
    process: Process,
}

/// A client's windows, in order without gaps; idle ones are `None`.
#[derive(Debug)]
pub(super) struct Windows {
    first_s: u32,
    windows: Vec<Option<Active>>,
}

impl Windows {
    pub(super) fn read(path: &Path) -> Result<Self, WorkloadError> {
        let mut lines = Lines::open(path)?;
        let mut found = Self {
            first_s: 0,
            windows: Vec::new(),
        };
        while lines.advance()? {
            found
                .push(lines.current())
                .map_err(|fault| lines.at(fault))?;
        }
        if found.windows.is_empty() {
            return Err(WorkloadError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(found)
    }

    /// Appends the row `window_start_s,rate_per_s,cv,law,shape,scale`. Shape and
    /// scale are not used: upstream draws from the law and then rescales to the
    /// rate, and its scales do not agree with its rates.
    fn push(&mut self, line: &[u8]) -> Result<(), Fault> {
        let mut fields = Fields::new(line);
        let start = fields.field("window_start_s")?;
        let rate_per_s = number(fields.field("rate_per_s")?)?;
        let cv_field = fields.field("cv")?;
        let cv = number(cv_field)?;
        let law = fields.field("law")?;
        number(fields.field("shape")?)?;
        number(fields.field("scale")?)?;
        fields.finish()?;
        self.check_start(start)?;
        let process = match law.bytes {
            b"Gamma" => Process::Gamma { cv },
            b"Weibull" => Process::Weibull { cv },
            b"" if rate_per_s == 0.0 => {
                self.windows.push(None);
                return Ok(());
            }
            _ => return Err(law.fault("`Gamma` or `Weibull`, or nothing where the rate is 0")),
        };
        if rate_per_s == 0.0 {
            return Err(law.fault("nothing, because the rate is 0"));
        }
        process
            .validate()
            .map_err(|_| cv_field.fault("a number from 0.001 to 1000"))?;
        self.windows.push(Some(Active {
            rate_per_s,
            process,
        }));
        Ok(())
    }

    fn check_start(&mut self, field: Field<'_>) -> Result<(), Fault> {
        let start = field.tokens_or_zero()?;
        if self.windows.is_empty() {
            self.first_s = start;
        }
        let next = u64::from(self.first_s) + self.windows.len() as u64 * u64::from(WINDOW_S);
        if u64::from(start) != next || !start.is_multiple_of(WINDOW_S) {
            return Err(field.fault(format!("{next}: windows of {WINDOW_S} s without gaps")));
        }
        Ok(())
    }

    /// Start (s) and rate of each window in which the client sends.
    pub(super) fn rates(&self) -> impl Iterator<Item = (u64, f64)> {
        self.windows
            .iter()
            .enumerate()
            .filter_map(|(index, window)| {
                let start = u64::from(self.first_s) + index as u64 * u64::from(WINDOW_S);
                window.map(|active| (start, active.rate_per_s))
            })
    }

    /// The integral of the rate up to `duration`.
    pub(super) fn expected_requests(&self, duration: Nanos) -> f64 {
        let until = seconds(duration);
        let length = f64::from(WINDOW_S);
        self.rates()
            .map(|(start, rate)| rate * (until - start as f64).clamp(0.0, length))
            .sum()
    }
}

fn number(field: Field<'_>) -> Result<f64, Fault> {
    let text = std::str::from_utf8(field.bytes).ok();
    text.filter(|text| text.starts_with(|first: char| first.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| field.fault("a number of at least 0"))
}

/// The arrivals of a client: unit-rate gaps on the clock of its rate (see the
/// generator's shapes). A gap follows the law of the window in which it begins and
/// goes on into the next, so that neither bursts nor long gaps are cut at the
/// boundaries and the mean count is the rate's.
#[derive(Debug)]
pub(super) struct Client {
    windows: Windows,
    /// Which dataset has this client's lengths, if any.
    pub(super) dataset: Option<usize>,
    rate_scale: f64,
    arrivals: Stream,
    /// The stream of the client's token lengths.
    pub(super) lengths: Stream,
    window: usize,
    /// Time since the start of the window (s).
    elapsed_s: f64,
    /// The law of a window, kept for its constants.
    law: Option<(usize, UnitGaps)>,
    previous: Nanos,
    started: bool,
}

impl Client {
    pub(super) fn new(
        client: u32,
        windows: Windows,
        dataset: Option<usize>,
        rate_scale: f64,
        seed: u64,
    ) -> Self {
        Self {
            windows,
            dataset,
            rate_scale,
            arrivals: stream(seed, &format!("workload.servegen.{client}.arrivals")),
            lengths: stream(seed, &format!("workload.servegen.{client}.lengths")),
            window: 0,
            elapsed_s: 0.0,
            law: None,
            previous: 0,
            started: false,
        }
    }

    /// The next arrival, or `None` after the last window.
    pub(super) fn next_time(&mut self) -> Option<Nanos> {
        let mut gap = self.draw()?;
        if !self.started {
            self.started = true;
            let mut position = gap;
            while position < WARM_UP_GAPS {
                position += self.draw()?;
            }
            gap = position - WARM_UP_GAPS;
        }
        self.advance(gap)?;
        let start = f64::from(self.windows.first_s) + self.window as f64 * f64::from(WINDOW_S);
        // Sums round, so two arrivals closer than that could swap places.
        self.previous = self.previous.max(seconds_nanos(start + self.elapsed_s)?);
        Some(self.previous)
    }

    /// A gap of mean 1 under the law of the current window, or of the next one in which the client sends.
    fn draw(&mut self) -> Option<f64> {
        let idle = self.windows.windows[self.window..]
            .iter()
            .take_while(|window| window.is_none());
        let active = self.window + idle.count();
        let process = (*self.windows.windows.get(active)?)?.process;
        let law = match self.law {
            Some((window, law)) if window == active => law,
            _ => UnitGaps::new(process),
        };
        self.law = Some((active, law));
        Some(law.draw(&mut self.arrivals))
    }

    /// Moves on until the integral of the rate has grown by `gap`; `None` after the last window.
    fn advance(&mut self, mut gap: f64) -> Option<()> {
        loop {
            let rate = self
                .windows
                .windows
                .get(self.window)?
                .map_or(0.0, |active| active.rate_per_s * self.rate_scale);
            let room = rate * (f64::from(WINDOW_S) - self.elapsed_s);
            if gap < room {
                self.elapsed_s += gap / rate;
                return Some(());
            }
            gap -= room;
            self.window += 1;
            self.elapsed_s = 0.0;
        }
    }
}
