//! When the client, and not the server, was the limit. Each threshold has its reason.

use std::time::Duration;

use foresail_core::time::{MILLISECOND, Nanos, SECOND};

use super::Watch;

/// Send lateness that is allowed at p99 whatever the server: below it nobody sees it
/// beside the time of a network and of a step (5 ms and more).
pub const LATENESS_P99_MAX: Nanos = MILLISECOND;

/// Where the server is slow, lateness of this share of its median TTFT is allowed: an error
/// of 2 % is below what two runs of one server differ by (CodSpeed measures 2.66 %
/// coefficient of variation on hosted runners).
pub const LATENESS_SHARE_OF_TTFT: f64 = 0.02;

/// Lateness of an event loop that is allowed at p99. Arrival stamps are late by as much: a
/// loop that lags more than a fast step takes (5 ms) shows the client's gaps as ITL.
pub const LOOP_LAG_P99_MAX: Nanos = 5 * MILLISECOND;

/// CPU share of a worker beyond which arrivals queue for it: at 90 % the mean wait is nine
/// times the work (M/M/1: rho / (1 - rho)).
pub const CPU_SHARE_MAX: f64 = 0.9;

/// The least share of the asked rate. A server that gets 1 % less load than was asked for has,
/// at 90 % utilisation, about 10 % less of a queue (M/M/1): more is not what was asked.
pub const RATE_SHARE_MIN: f64 = 0.99;

/// The share of requests that may meet an error of this machine: a tenth of what p99 can see.
pub const LOCAL_ERROR_SHARE_MAX: f64 = 0.001;

/// The share of requests whose bodies may be late: for the same reason.
pub const BEHIND_SHARE_MAX: f64 = 0.001;

/// What the verdict needs to know beside what the client saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Requests that were sent.
    pub sent: u64,
    /// The median TTFT that was measured, if any.
    pub ttft_p50_ns: Option<Nanos>,
    /// Whether sends were due at times of their own (open loop, without a cap), so that a rate was asked for.
    pub is_rate_asked: bool,
}

/// Whether the numbers of the run are to be trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why not: the client was the limit. Empty if they are.
    pub degraded: Vec<Reason>,
    /// What should be known and harms nothing.
    pub notes: Vec<Note>,
}

impl Verdict {
    /// Whether the client was the limit.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        !self.degraded.is_empty()
    }
}

/// One reason not to trust the numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What it is, for machines.
    pub code: ReasonCode,
    /// What was seen, what is allowed, and what to do.
    pub text: String,
}

/// Something that should be known, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What was seen.
    pub text: String,
}

/// In what way the client was the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonCode {
    /// Requests were sent later than they were due.
    LateSends,
    /// The event loop was late.
    LoopLag,
    /// A worker had no time left.
    Processor,
    /// The rate that was asked for was not reached.
    Rate,
    /// This machine had no descriptors, ports or memory left.
    LocalErrors,
    /// Bodies were not made in time.
    Feeder,
    /// Nothing ran for a while.
    Paused,
}

impl ReasonCode {
    /// The name in `summary.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LateSends => "late_sends",
            Self::LoopLag => "loop_lag",
            Self::Processor => "processor",
            Self::Rate => "rate",
            Self::LocalErrors => "local_errors",
            Self::Feeder => "feeder",
            Self::Paused => "paused",
        }
    }
}

pub(super) fn judge(watch: &Watch, context: &Context) -> Verdict {
    let checks = [
        late_sends(watch, context),
        loop_lag(watch),
        processor(watch),
        rate(watch, context),
        local_errors(watch, context),
        feeder(watch, context),
        paused(watch),
    ];
    Verdict {
        degraded: checks.into_iter().flatten().collect(),
        notes: notes(watch),
    }
}

/// The send lateness that is allowed at p99 beside this median TTFT.
#[must_use]
pub fn lateness_max(ttft_p50_ns: Option<Nanos>) -> Nanos {
    let of_ttft = ttft_p50_ns.map_or(0.0, |ttft| ttft as f64 * LATENESS_SHARE_OF_TTFT);
    LATENESS_P99_MAX.max(of_ttft as Nanos)
}

fn late_sends(watch: &Watch, context: &Context) -> Option<Reason> {
    let (late, which) = tail_of_lateness(watch)?;
    let allowed = lateness_max(context.ttft_p50_ns);
    (late > allowed).then(|| Reason {
        code: ReasonCode::LateSends,
        text: format!(
            "requests were sent late: {} after they were due{which}, {} is allowed; raise --threads, \
             lower the rate, or give the client processors of its own",
            shown(late),
            shown(allowed)
        ),
    })
}

/// The p99 of lateness. Of fewer than a hundred that is the latest alone, which is one accident; then
/// the second latest stands for it.
fn tail_of_lateness(watch: &Watch) -> Option<(Nanos, &'static str)> {
    let count = watch.lateness.count();
    if !(2..100).contains(&count) {
        return Some((watch.lateness.percentile_ns(99.0)?, " at p99"));
    }
    // Between two ranks, so that rounding does not choose.
    let below_latest = 100.0 * (count as f64 - 1.5) / count as f64;
    let late = watch.lateness.percentile_ns(below_latest)?;
    Some((late, ", and more than one"))
}

fn loop_lag(watch: &Watch) -> Option<Reason> {
    let p99 = watch.loop_lag.percentile_ns(99.0)?;
    (p99 > LOOP_LAG_P99_MAX).then(|| Reason {
        code: ReasonCode::LoopLag,
        text: format!(
            "the client's event loop was late by {} at p99, {} is allowed: arrivals were seen that much \
             too late; raise --threads, lower the rate, or give the client processors of its own",
            shown(p99),
            shown(LOOP_LAG_P99_MAX)
        ),
    })
}

fn processor(watch: &Watch) -> Option<Reason> {
    let share = watch.worker_cpu_share()?;
    (share > CPU_SHARE_MAX).then(|| Reason {
        code: ReasonCode::Processor,
        text: format!(
            "a worker of the client computed {:.0} % of the time, {:.0} % is allowed; raise --threads, \
             or share the load among machines with --shard",
            share * 100.0,
            CPU_SHARE_MAX * 100.0
        ),
    })
}

fn rate(watch: &Watch, context: &Context) -> Option<Reason> {
    let share = watch.rate_share().filter(|_| context.is_rate_asked)?;
    // What is late by less than lateness may be is judged there, also in the shortest runs.
    let span = watch.span?;
    let behind = span.made_last.saturating_sub(span.due_last);
    let is_missed = share < RATE_SHARE_MIN && behind > lateness_max(context.ttft_p50_ns);
    is_missed.then(|| Reason {
        code: ReasonCode::Rate,
        text: format!(
            "requests were sent at {:.1} % of the rate that was asked for, the last of them {} late; \
             raise --threads, or lower the rate",
            share * 100.0,
            shown(behind)
        ),
    })
}

fn local_errors(watch: &Watch, context: &Context) -> Option<Reason> {
    let errors = watch.local_errors;
    let is_too_many = errors as f64 > context.sent as f64 * LOCAL_ERROR_SHARE_MAX;
    is_too_many.then(|| Reason {
        code: ReasonCode::LocalErrors,
        text: format!(
            "{errors} connections for {} requests could not be opened because this machine had no files, \
             ports or memory left for them; raise `ulimit -n`, bound what is in flight with \
             --max-concurrency, or share the load among machines with --shard",
            context.sent
        ),
    })
}

fn feeder(watch: &Watch, context: &Context) -> Option<Reason> {
    let behind = watch.feeder_behind;
    let is_too_many = behind.requests as f64 > context.sent as f64 * BEHIND_SHARE_MAX;
    is_too_many.then(|| Reason {
        code: ReasonCode::Feeder,
        text: format!(
            "the bodies of {} of {} requests were not ready when they were due, by up to {}; start the \
             run later, shorten the prompts, or share the load among machines with --shard",
            behind.requests,
            context.sent,
            shown(behind.late_ns_max)
        ),
    })
}

fn paused(watch: &Watch) -> Option<Reason> {
    let longest = watch.pauses.iter().copied().max().unwrap_or(0);
    let suspended = watch.suspended_ns;
    if longest == 0 && suspended == 0 {
        return None;
    }
    let what = if suspended > 0 {
        format!("the machine was suspended for {}", shown(suspended))
    } else {
        format!(
            "the client stood still {}, for up to {}",
            times(watch.pauses.len()),
            shown(longest)
        )
    };
    Some(Reason {
        code: ReasonCode::Paused,
        text: format!("{what}: what was in flight meanwhile was measured wrong; run it again"),
    })
}

fn notes(watch: &Watch) -> Vec<Note> {
    let jumps = watch.clock_jumps.iter().map(|jump| Note {
        text: format!(
            "the time of day jumped {} by {}; latencies are of the monotonic clock, so they are right",
            if *jump < 0 { "back" } else { "ahead" },
            shown(jump.unsigned_abs())
        ),
    });
    let held_back = watch.held_back.percentile_ns(99.0).map(|p99| Note {
        text: format!(
            "{} requests waited for others to end, {} at p99: --max-concurrency allows no more in \
             flight; the wait is in their latencies",
            watch.held_back.count(),
            shown(p99)
        ),
    });
    jumps.chain(held_back).collect()
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

/// A duration with as many digits as are needed.
fn shown(ns: Nanos) -> String {
    let rounded = match ns {
        0..MILLISECOND => Duration::from_nanos(ns - ns % 1_000),
        MILLISECOND..SECOND => Duration::from_nanos(ns - ns % 100_000),
        _ => Duration::from_nanos(ns - ns % (10 * MILLISECOND)),
    };
    let text = format!("{rounded:?}");
    // `Duration` writes `1.9ms`; people write a space.
    let unit = text.find(char::is_alphabetic).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    format!("{number} {unit}")
}
