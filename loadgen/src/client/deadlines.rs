//! When to give up, and one timer for all of it.

use std::pin::Pin;
use std::task::{Context, Poll};

use foresail_core::time::Nanos;
use tokio::time::{Instant, Sleep};

use super::answer::{Answer, Stop};
use crate::clock::RunClock;
use crate::exchange::Patience;

/// How long an answer that has said `[DONE]` may take to end. After that its connection is given
/// up, and the answer is complete all the same.
const LINGER_NS: Nanos = 1_000_000_000;

/// The next time to give up, if nothing comes until then, and as what.
pub(super) fn next(patience: &Patience, answer: &Answer) -> Option<(Nanos, Stop)> {
    let after = |start: Nanos, wait: Option<Nanos>, stop: Stop| {
        // Beyond the end of time is never.
        Some((start.checked_add(wait?)?, stop))
    };
    let sent = answer.sent_ns();
    let first_output = match answer.has_output() {
        true => None,
        false => after(sent, patience.first_output_ns, Stop::TimedOut),
    };
    let total = after(sent, patience.total_ns, Stop::TimedOut);
    let last = answer.last_ns();
    let stall = last.and_then(|last| after(last, patience.stall_ns, Stop::Stalled));
    let linger = last.filter(|_| answer.is_done());
    let linger = linger.and_then(|last| after(last, Some(LINGER_NS), Stop::End));
    let all = [first_output, total, stall, linger];
    all.into_iter().flatten().min_by_key(|(at, _)| *at)
}

/// A timer that rings no later than it is due, and is moved only when it rings: a
/// stream of tokens puts its deadline off with each, and touches no timer.
#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Nanos>,
}

impl Alarm {
    /// Sees to it that this rings by then. Needed whenever a deadline may have come nearer.
    pub(super) fn ring_by(&mut self, at: Option<Nanos>, clock: RunClock) {
        let Some(at) = at.filter(|at| self.at.is_none_or(|set| *at < set)) else {
            return;
        };
        self.at = Some(at);
        let instant = Instant::from_std(clock.instant(at));
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(instant),
            none => *none = Some(Box::pin(tokio::time::sleep_until(instant))),
        }
    }

    /// Whether it has rung. If it has, it rings no more until it is set.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (Some(sleep), Some(_)) = (&mut self.sleep, self.at) else {
            return Poll::Pending;
        };
        sleep.as_mut().poll(context).map(|()| self.at = None)
    }
}

#[cfg(test)]
mod tests;
