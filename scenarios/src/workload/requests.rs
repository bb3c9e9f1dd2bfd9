//! The iterator over a workload's requests: the source, its slice, its scale,
//! its copies.

use foresail_core::time::Nanos;

use super::adapters::AdapterDraws;
use super::generator::{SessionRequests, SingleRequests};
use super::servegen::PoolRequests;
use super::trace::TraceReader;
use super::transform::{of_copy, scaled};
use super::{Request, Source, Workload, WorkloadError};

/// Rows of a trace that are not requests, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub rows: u64,
    /// Why, for people; empty while `rows` is 0.
    pub reason: &'static str,
}

/// A workload's requests in the order of their due times. After an error there
/// are no more.
#[derive(Debug)]
pub struct Requests {
    workload: Workload,
    seed: u64,
    source: SourceRequests,
    /// Adapters for a source that does not say.
    adapters: Option<AdapterDraws>,
    /// Factor on due times of the source.
    factor: f64,
    /// The first request, read when the workload was opened.
    first: Option<Request>,
    copies: Copies,
    counts: Counts,
    finished: bool,
}

/// Where the current copy stands on the run's clock.
#[derive(Debug, Default)]
struct Copies {
    /// Copies that are complete.
    complete: u32,
    /// What is added to the due times of the current copy.
    offset: Nanos,
    requests: u64,
    first_due: Nanos,
    last_due: Nanos,
}

impl Copies {
    fn observe(&mut self, due: Nanos) {
        if self.requests == 0 {
            self.first_due = due;
        }
        self.requests += 1;
        self.last_due = due;
    }

    /// Moves on to the next copy: it begins when this one's duration is over,
    /// or one mean gap after its last request.
    fn advance(&mut self, duration: Option<Nanos>) -> Result<(), WorkloadError> {
        let length = match duration {
            Some(duration) => duration,
            None => self.length_by_gaps()?,
        };
        self.offset = self
            .offset
            .checked_add(length)
            .ok_or(WorkloadError::TimeOverflow)?;
        self.complete += 1;
        self.requests = 0;
        Ok(())
    }

    /// From the first request to one mean gap after the last.
    fn length_by_gaps(&self) -> Result<Nanos, WorkloadError> {
        if self.requests < 2 {
            let expected = "at least two requests, to know their mean gap";
            return Err(WorkloadError::option(
                "repeat",
                expected,
                format!("{} requests", self.requests),
            ));
        }
        let gaps = self.requests - 1;
        let mean_gap = (self.last_due - self.first_due).div_ceil(gaps);
        // The next copy's first request has its own due time again, which the offset replaces.
        let next = self
            .last_due
            .checked_add(mean_gap)
            .ok_or(WorkloadError::TimeOverflow)?;
        Ok(next - self.first_due)
    }
}

/// What was counted in copies that are complete.
#[derive(Debug, Default)]
struct Counts {
    skipped: Skipped,
    redrawn: u64,
    ended_early: u64,
}

#[derive(Debug)]
enum SourceRequests {
    Trace(Box<TraceReader>),
    Single(Box<SingleRequests>),
    Sessions(Box<SessionRequests>),
    Pools(Box<PoolRequests>),
}

impl SourceRequests {
    fn open(workload: &Workload, seed: u64) -> Result<Self, WorkloadError> {
        let rate_scale = workload.transforms.rate_scale;
        Ok(match &workload.source {
            Source::Trace(trace) => {
                Self::Trace(Box::new(TraceReader::open(trace, &workload.adapters)?))
            }
            Source::Generated(generator) => match &generator.sessions {
                None => Self::Single(Box::new(SingleRequests::new(generator, rate_scale, seed))),
                Some(sessions) => Self::Sessions(Box::new(SessionRequests::new(
                    generator, sessions, rate_scale, seed,
                ))),
            },
            Source::ServeGen(source) => {
                Self::Pools(Box::new(PoolRequests::open(source, rate_scale, seed)?))
            }
        })
    }

    #[inline]
    fn next_request(&mut self) -> Result<Option<Request>, WorkloadError> {
        match self {
            Self::Trace(reader) => reader.next_request(),
            Self::Single(requests) => requests.next_request(),
            Self::Sessions(requests) => requests.next_request(),
            Self::Pools(requests) => requests.next_request(),
        }
    }
}

impl Requests {
    pub(super) fn open(workload: &Workload, seed: u64) -> Result<Self, WorkloadError> {
        let transforms = workload.transforms;
        transforms.validate()?;
        if let Source::Generated(generator) = &workload.source {
            generator.validate()?;
        }
        // A trace's rate is raised by moving its requests together; the others draw at the rate.
        let divisor = match workload.source {
            Source::Trace(_) => transforms.rate_scale,
            Source::Generated(_) | Source::ServeGen(_) => 1.0,
        };
        let mut requests = Self {
            workload: workload.clone(),
            seed,
            source: SourceRequests::open(workload, seed)?,
            adapters: draws(workload, seed)?,
            factor: transforms.time_stretch / divisor,
            first: None,
            copies: Copies::default(),
            counts: Counts::default(),
            finished: false,
        };
        requests.check_adapters()?;
        requests.first = requests.next_of_copy()?;
        if requests.first.is_none() {
            requests.refuse_empty()?;
        }
        Ok(requests)
    }

    /// A request asks for one adapter, so only one of trace and mix can say which.
    fn check_adapters(&self) -> Result<(), WorkloadError> {
        match &self.source {
            SourceRequests::Trace(reader) if self.adapters.is_some() && reader.names_adapters() => {
                let expected = "no `[workload.adapters]`, because the trace names adapters itself";
                Err(WorkloadError::option("adapters", expected, "both"))
            }
            _ => Ok(()),
        }
    }

    /// Whether requests may ask for adapters.
    #[must_use]
    pub fn names_adapters(&self) -> bool {
        let is_named = match &self.source {
            SourceRequests::Trace(reader) => reader.names_adapters(),
            _ => false,
        };
        self.adapters.is_some() || is_named
    }

    /// The name of an adapter that a request has asked for.
    #[must_use]
    pub fn adapter_name(&self, adapter: u32) -> Option<&str> {
        match &self.source {
            SourceRequests::Trace(reader) => reader.adapter_name(adapter),
            _ => {
                let deployed = self.workload.adapters.deployed.as_ref()?;
                deployed.get(adapter as usize).map(String::as_str)
            }
        }
    }

    /// A trace without requests is a mistake; a generator may be quiet for its duration.
    fn refuse_empty(&self) -> Result<(), WorkloadError> {
        match (&self.workload.source, self.workload.transforms.slice) {
            (Source::Trace(_), Some(slice)) => Err(WorkloadError::EmptySlice {
                from_ns: slice.from,
                to_ns: slice.to,
            }),
            (Source::Trace(trace), None) => Err(WorkloadError::Empty {
                path: trace.path.clone(),
            }),
            (Source::Generated(_) | Source::ServeGen(_), _) => Ok(()),
        }
    }

    /// What the workload is, in one line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let source = match &self.source {
            SourceRequests::Pools(pools) => pools.describe(),
            _ => self.workload.source.describe(),
        };
        format!("{source}{}", self.workload.describe_rest())
    }

    /// Rows of the trace that were no requests, so far.
    #[must_use]
    pub fn skipped(&self) -> Skipped {
        let mut skipped = self.counts.skipped.clone();
        if let SourceRequests::Trace(reader) = &self.source {
            skipped.rows += reader.skipped().rows;
            skipped.reason = if reader.skipped().rows > 0 {
                reader.skipped().reason
            } else {
                skipped.reason
            };
        }
        skipped
    }

    /// Lengths that were drawn again because they were above their `max`, so far.
    #[must_use]
    pub fn redrawn_lengths(&self) -> u64 {
        self.counts.redrawn
            + match &self.source {
                SourceRequests::Single(requests) => requests.redrawn(),
                SourceRequests::Sessions(requests) => requests.redrawn(),
                SourceRequests::Trace(_) | SourceRequests::Pools(_) => 0,
            }
    }

    /// Conversations that ended because of the largest context, so far.
    #[must_use]
    pub fn sessions_ended_early(&self) -> u64 {
        self.counts.ended_early
            + match &self.source {
                SourceRequests::Sessions(requests) => requests.ended_early(),
                _ => 0,
            }
    }

    /// About how many requests there will be in all, for a progress bar, where it can be known.
    #[must_use]
    pub fn len_hint(&self) -> Option<u64> {
        let transforms = self.workload.transforms;
        if transforms.slice.is_some() {
            return None;
        }
        let expected = match (&self.source, &self.workload.source) {
            (SourceRequests::Pools(pools), _) => pools.expected_requests(),
            (_, Source::Generated(generator)) => generator.expected_requests(transforms.rate_scale),
            _ => return None,
        };
        Some(expected.saturating_mul(u64::from(transforms.repeat)))
    }

    /// The next request of the current copy on the copy's own clock.
    #[inline]
    fn next_of_copy(&mut self) -> Result<Option<Request>, WorkloadError> {
        loop {
            let Some(mut request) = self.source.next_request()? else {
                return Ok(None);
            };
            // Before the slice, so that another slice finds the same adapters.
            if let Some(draws) = &mut self.adapters {
                request.adapter = draws.draw(request.session);
            }
            if let Some(slice) = self.workload.transforms.slice {
                if slice.to.is_some_and(|to| request.due >= to) {
                    return Ok(None);
                }
                if request.due < slice.from {
                    continue;
                }
                request.due -= slice.from;
            }
            request.due = scaled(request.due, self.factor)?;
            return Ok(Some(request));
        }
    }

    fn next_request(&mut self) -> Result<Option<Request>, WorkloadError> {
        let mut next = match &self.first {
            Some(_) => self.first.take(),
            None => self.next_of_copy()?,
        };
        if next.is_none() && self.copies.complete + 1 < self.workload.transforms.repeat {
            self.reopen()?;
            next = self.next_of_copy()?;
        }
        let Some(mut request) = next else {
            return Ok(None);
        };
        self.copies.observe(request.due);
        request.due = request
            .due
            .checked_add(self.copies.offset)
            .ok_or(WorkloadError::TimeOverflow)?;
        Ok(Some(of_copy(request, self.copies.complete)))
    }

    /// Begins the source again for the next copy.
    fn reopen(&mut self) -> Result<(), WorkloadError> {
        self.copies.advance(self.workload.copy_duration())?;
        self.counts = Counts {
            skipped: self.skipped(),
            redrawn: self.redrawn_lengths(),
            ended_early: self.sessions_ended_early(),
        };
        self.source = SourceRequests::open(&self.workload, self.seed)?;
        self.adapters = draws(&self.workload, self.seed)?;
        Ok(())
    }
}

/// Draws from the workload's mix of adapters, if it has one.
fn draws(workload: &Workload, seed: u64) -> Result<Option<AdapterDraws>, WorkloadError> {
    let mix = workload.adapters.mix.as_ref();
    mix.map(|mix| AdapterDraws::new(mix, seed)).transpose()
}

impl Iterator for Requests {
    type Item = Result<Request, WorkloadError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let next = self.next_request().transpose();
        self.finished = !matches!(next, Some(Ok(_)));
        next
    }
}
