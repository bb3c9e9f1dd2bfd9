//! Whether the process may open as many connections as a plan needs: seen to before
//! the run, because a run that meets the limit midway has measured nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foresail_core::time::{MILLISECOND, Nanos, SECOND};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use super::system;

/// Descriptors beside connections: files of the run, epoll, timers, and whatever a library opens.
const RESERVE: u64 = 64;

/// How long a request is taken to last before anything is known of the server: a
/// second, and 50 ms a token (20 tokens/s, slower than people put up with), so that the estimate
/// of the concurrency is rather too high.
const FIRST_OUTPUT: Nanos = SECOND;
const PER_TOKEN: Nanos = 50 * MILLISECOND;

/// What was done about the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Nothing: it suffices.
    Enough {
        /// Descriptors that the process may have open.
        limit: u64,
    },
    /// It was raised, as far as the process may do that itself.
    Raised {
        /// What it was.
        from: u64,
        /// What it is now.
        to: u64,
    },
}

/// Why a plan may not get the connections that it needs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LimitError {
    /// The process may not open so many, and may not allow itself more.
    #[error(
        "up to {connections} requests may be in flight at once, each on a connection of its own, and this \
         process may have {hard} files open: run `ulimit -n {needed}` first (as root, or with nofile \
         raised in limits.conf), or bound them with --max-concurrency"
    )]
    TooFew {
        /// Connections that the plan may need.
        connections: u64,
        /// Descriptors that it needs with them.
        needed: u64,
        /// What the process may have at most.
        hard: u64,
    },
    /// The system refused to raise it.
    #[error("the limit of open files could not be raised from {from} to {to}: {message}")]
    NotRaised {
        /// What it is.
        from: u64,
        /// What it should have become.
        to: u64,
        /// What the system said.
        message: String,
    },
}

/// Sees to it that the process may have so many connections, beside what it has open already.
///
/// # Errors
/// If it may not, with what to set.
pub fn allow(connections: u64) -> Result<Allowed, LimitError> {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let open = system::descriptors_open().unwrap_or(0);
    match decide(connections, open, soft, hard)? {
        Allowed::Raised { from, to } => {
            let raised = Rlimit {
                current: Some(to),
                maximum: limit.maximum,
            };
            setrlimit(Resource::Nofile, raised).map_err(|error| LimitError::NotRaised {
                from,
                to,
                message: error.to_string(),
            })?;
            Ok(Allowed::Raised { from, to })
        }
        enough => Ok(enough),
    }
}

/// What to do, given what is open and the two limits.
///
/// # Errors
/// If the hard limit does not suffice.
pub fn decide(connections: u64, open: u64, soft: u64, hard: u64) -> Result<Allowed, LimitError> {
    let needed = connections.saturating_add(open).saturating_add(RESERVE);
    if needed <= soft {
        Ok(Allowed::Enough { limit: soft })
    } else if needed <= hard {
        // Not all of the hard limit, which may be 2^63: some systems refuse that.
        let to = needed.saturating_mul(2).min(hard);
        Ok(Allowed::Raised { from: soft, to })
    } else {
        Err(LimitError::TooFew {
            connections,
            needed,
            hard,
        })
    }
}

/// How many requests may be in flight at once, if each lasts as long as a slow server
/// takes. From when each is due and its output tokens, in the order of due.
#[must_use]
pub fn concurrency_estimate(requests: impl Iterator<Item = (Nanos, u32)>) -> u64 {
    let mut ends = BinaryHeap::new();
    let mut most = 0;
    for (due, output_tokens) in requests {
        while ends.peek().is_some_and(|Reverse(end)| *end <= due) {
            ends.pop();
        }
        let lasts = FIRST_OUTPUT + PER_TOKEN * u64::from(output_tokens);
        ends.push(Reverse(due.saturating_add(lasts)));
        most = most.max(ends.len());
    }
    most as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_suffices_is_left_alone() {
        assert_eq!(
            decide(900, 10, 1024, 4096),
            Ok(Allowed::Enough { limit: 1024 })
        );
    }

    #[test]
    fn a_soft_limit_is_raised_as_far_as_is_needed_and_allowed() {
        let raised = |to| Ok(Allowed::Raised { from: 1024, to });
        assert_eq!(decide(1_000, 10, 1024, 1 << 20), raised(2 * 1_074));
        assert_eq!(decide(4_000, 10, 1024, 4_096), raised(4_096));
        assert_eq!(decide(4_000, 10, 1024, u64::MAX), raised(8_148));
    }

    #[test]
    fn a_hard_limit_that_does_not_suffice_is_told_with_what_to_set() {
        let error = decide(10_000, 10, 1024, 4_096).unwrap_err();
        insta::assert_snapshot!(error, @"up to 10000 requests may be in flight at once, each on a connection of its own, and this process may have 4096 files open: run `ulimit -n 10074` first (as root, or with nofile raised in limits.conf), or bound them with --max-concurrency");
        assert!(decide(u64::MAX, 10, 1024, u64::MAX).is_ok());
    }

    #[test]
    fn this_process_may_have_a_few_connections() {
        // More than it is sure to have would be another machine's matter.
        assert!(allow(1).is_ok());
    }

    #[test]
    fn concurrency_is_what_overlaps() {
        // 20 tokens last 2 s here: of one a second, the third comes as the first ends.
        let every = |gap: Nanos, count: u64| (0..count).map(move |index| (index * gap, 20));
        assert_eq!(concurrency_estimate(every(SECOND, 100)), 2);
        assert_eq!(concurrency_estimate(every(SECOND / 10, 100)), 20);
        assert_eq!(concurrency_estimate(every(0, 100)), 100);
        assert_eq!(concurrency_estimate(every(3 * SECOND, 100)), 1);
        assert_eq!(concurrency_estimate(every(SECOND, 0)), 0);
    }
}
