//! What an ending on the wire means for a request, and whether it is worth another attempt.

use foresail_reports::records::Outcome;
use foresail_scenarios::clients::RetryOn;

use crate::exchange::{Ending, Exchange};

/// The outcome of a request whose last attempt this was. Every ending has one of its own, and
/// refusals have one by their status.
#[must_use]
pub fn outcome(exchange: &Exchange) -> Outcome {
    match &exchange.ending {
        Ending::Complete => Outcome::Completed,
        Ending::Refused { .. } => refused(exchange.status),
        Ending::NotConnected { .. } => Outcome::FailedConnect,
        Ending::Reset { .. } => Outcome::FailedReset,
        Ending::Truncated => Outcome::FailedTruncated,
        Ending::Stalled => Outcome::FailedStalled,
        Ending::TimedOut => Outcome::FailedTimeout,
        Ending::Garbage { .. } => Outcome::FailedGarbage,
        Ending::Error { .. } => Outcome::FailedError,
        Ending::Cancelled => Outcome::FailedCancelled,
    }
}

fn refused(status: Option<u16>) -> Outcome {
    match status {
        Some(429) => Outcome::RejectedRateLimited,
        Some(503) => Outcome::RejectedUnavailable,
        Some(500..) => Outcome::FailedStatus,
        _ => Outcome::RejectedStatus,
    }
}

/// What was said about it, by the server or the system; empty if nothing was.
#[must_use]
pub fn detail(ending: &Ending) -> &str {
    match ending {
        Ending::Refused { message }
        | Ending::NotConnected { message }
        | Ending::Reset { message }
        | Ending::Garbage { message }
        | Ending::Error { message } => message,
        Ending::Complete
        | Ending::Truncated
        | Ending::Stalled
        | Ending::TimedOut
        | Ending::Cancelled => "",
    }
}

/// Whether a client that retries on these sends it again. As OpenAI's Python package does
/// (openai-python, `_base_client.py`, `_should_retry`): 408, 409, 429, and 500 and above, failures
/// to connect, and timeouts; beside these, streams that broke off, which that package leaves to its users.
#[must_use]
pub fn is_retried(exchange: &Exchange, on: RetryOn) -> bool {
    match &exchange.ending {
        Ending::Complete | Ending::Cancelled | Ending::Garbage { .. } => false,
        Ending::Refused { .. } => match exchange.status {
            Some(408) => on.timeout,
            Some(409 | 429 | 503) => on.unavailable,
            Some(500..) => on.failure,
            _ => false,
        },
        Ending::NotConnected { .. } => on.unavailable,
        Ending::TimedOut => on.timeout,
        Ending::Reset { .. } | Ending::Truncated | Ending::Stalled | Ending::Error { .. } => {
            on.failure
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::testing::exchange;
    use super::*;

    fn message() -> String {
        "what was said".into()
    }

    fn endings() -> Vec<Ending> {
        vec![
            Ending::Complete,
            Ending::NotConnected { message: message() },
            Ending::Reset { message: message() },
            Ending::Truncated,
            Ending::Stalled,
            Ending::TimedOut,
            Ending::Garbage { message: message() },
            Ending::Error { message: message() },
            Ending::Cancelled,
        ]
    }

    #[test]
    fn every_ending_is_an_outcome_of_its_own() {
        let mut exchanges: Vec<_> = endings().into_iter().map(exchange).collect();
        for status in [429, 503, 500, 404] {
            let mut refused = exchange(Ending::Refused { message: message() });
            refused.status = Some(status);
            exchanges.push(refused);
        }
        let names: BTreeSet<_> = exchanges.iter().map(|one| outcome(one).name()).collect();
        assert_eq!(names.len(), exchanges.len(), "{names:?}");
        let said = exchanges
            .iter()
            .filter(|one| detail(&one.ending) == message());
        assert_eq!(said.count(), 8);
    }

    #[test]
    fn statuses_are_sorted_as_clients_see_them() {
        let of = |status| {
            let mut refused = exchange(Ending::Refused { message: message() });
            refused.status = Some(status);
            outcome(&refused)
        };
        assert_eq!(of(429), Outcome::RejectedRateLimited);
        assert_eq!(of(503), Outcome::RejectedUnavailable);
        for status in [204, 301, 400, 401, 404, 499] {
            assert_eq!(of(status), Outcome::RejectedStatus);
        }
        for status in [500, 502, 504, 599] {
            assert_eq!(of(status), Outcome::FailedStatus);
        }
    }

    #[test]
    fn what_may_go_better_is_tried_again_if_it_was_asked_for() {
        let retried = |ending: Ending, status| {
            let exchange = Exchange {
                status,
                ..exchange(ending)
            };
            let none = RetryOn {
                unavailable: false,
                timeout: false,
                failure: false,
            };
            assert!(!is_retried(&exchange, none));
            is_retried(&exchange, RetryOn::ALL)
        };
        let refused = |status| retried(Ending::Refused { message: message() }, Some(status));
        for status in [408, 409, 429, 500, 502, 503, 504] {
            assert!(refused(status), "{status}");
        }
        for status in [400, 401, 404, 422, 301] {
            assert!(!refused(status), "{status}");
        }
        let again = endings()
            .into_iter()
            .filter(|ending| retried(ending.clone(), None));
        assert_eq!(again.count(), 6);
    }
}
