//! How long clients wait and what they send again, drawn as a simulation draws it: the same
//! seed and the same request have the same client in both.

use foresail_core::control::retry::Retry;
use foresail_core::time::Nanos;
use foresail_scenarios::clients::{ClientRetry, Clients};
use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::random::numbered_stream;

use crate::exchange::{Exchange, Patience};
use crate::record::is_retried;

/// The patience of the client of a request: the same for each of its attempts.
pub(super) fn patience(given: Patience, clients: &Clients, seed: u64, id: u64) -> Patience {
    let draw = |name: &str, timeout: &Option<Distribution>| {
        let mut rng = numbered_stream(seed, &format!("clients.{name}_timeout"), id);
        timeout
            .as_ref()
            .map(|timeout| (timeout.sample(&mut rng) * 1e9) as Nanos)
    };
    let shorter = |one: Option<Nanos>, other: Option<Nanos>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let first_output = draw("first_token", &clients.first_token_timeout);
    let total = draw("last_token", &clients.timeout);
    Patience {
        first_output_ns: shorter(given.first_output_ns, first_output),
        total_ns: shorter(given.total_ns, total),
        ..given
    }
}

/// How long the client waits before it sends a request again whose attempts, the last of them
/// this one, have failed; `None` if it does not. Never shorter than `Retry-After` asks for (RFC 9110, 10.2.3).
pub(super) fn wait(
    retry: &ClientRetry,
    seed: u64,
    id: u64,
    attempts: u32,
    last: &Exchange,
) -> Option<Nanos> {
    if !is_retried(last, retry.retry_on) {
        return None;
    }
    let mut rng = numbered_stream(seed, "clients.jitter", id);
    let jitter = (0..attempts).map(|_| retry.jitter.sample(&mut rng)).last();
    match retry.config.after(attempts, jitter.unwrap_or(1.0)) {
        Retry::After(wait) => Some(wait.max(last.retry_after_ns.unwrap_or(0))),
        Retry::GiveUp => None,
    }
}

#[cfg(test)]
mod tests {
    use foresail_core::control::retry::RetryConfig;
    use foresail_core::time::{MILLISECOND, SECOND};
    use foresail_scenarios::clients::RetryOn;

    use super::*;
    use crate::exchange::Ending;
    use crate::record::testing::exchange;

    fn retry() -> ClientRetry {
        ClientRetry {
            config: RetryConfig::CLIENT,
            jitter: Distribution::Fixed { value: 0.5 },
            retry_on: RetryOn::ALL,
        }
    }

    fn refused(retry_after_ns: Option<Nanos>) -> Exchange {
        Exchange {
            status: Some(429),
            retry_after_ns,
            ..exchange(Ending::Refused {
                message: String::new(),
            })
        }
    }

    #[test]
    fn waits_grow_until_the_client_gives_up() {
        let of = |attempts| wait(&retry(), 1, 2, attempts, &refused(None));
        assert_eq!(of(1), Some(250 * MILLISECOND));
        assert_eq!(of(2), Some(500 * MILLISECOND));
        assert_eq!(of(3), None);
    }

    #[test]
    fn the_server_may_ask_for_more_and_not_for_less() {
        let of = |asked| wait(&retry(), 1, 2, 1, &refused(Some(asked)));
        assert_eq!(of(3 * SECOND), Some(3 * SECOND));
        assert_eq!(of(0), Some(250 * MILLISECOND));
    }

    #[test]
    fn what_would_not_go_better_is_not_sent_again() {
        assert_eq!(wait(&retry(), 1, 2, 1, &exchange(Ending::Complete)), None);
        let off = ClientRetry {
            retry_on: RetryOn {
                unavailable: false,
                ..RetryOn::ALL
            },
            ..retry()
        };
        assert_eq!(wait(&off, 1, 2, 1, &refused(None)), None);
    }

    #[test]
    fn the_shorter_timeout_counts() {
        let clients = Clients {
            first_token_timeout: Some(Distribution::Fixed { value: 2.0 }),
            ..Clients::default()
        };
        let given = |first_output_ns| Patience {
            first_output_ns,
            stall_ns: Some(7),
            ..Patience::default()
        };
        let of = |first| patience(given(first), &clients, 1, 2);
        assert_eq!(of(None), given(Some(2 * SECOND)));
        assert_eq!(of(Some(SECOND)), given(Some(SECOND)));
        assert_eq!(of(Some(3 * SECOND)), given(Some(2 * SECOND)));
        assert_eq!(
            patience(given(None), &Clients::default(), 1, 2),
            given(None)
        );
    }
}
