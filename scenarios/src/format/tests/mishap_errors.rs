//! What goes wrong with replicas, and what clients do about it: as it is written,
//! and as it is refused.

use foresail_core::control::retry::RetryConfig;
use foresail_core::time::{MINUTE, SECOND};

use super::{broken, broken_by, ok, set};
use crate::clients::{ClientRetry, RetryOn};
use crate::distribution::Distribution;
use crate::failures::{Crash, Failures, OnCrash, SlowStart, StartFailure};

#[test]
fn nothing_goes_wrong_unless_it_is_written() {
    let scenario = ok(super::BASE);
    assert_eq!(scenario.deployment.failures, Failures::default());
    assert_eq!(scenario.clients, Default::default());
}

#[test]
fn failures_are_what_is_written() {
    let text = format!(
        "{}{}",
        super::BASE,
        r#"
        [failures]
        start_timeout = "20m"
        start_failure = { probability = 0.1, at = 0.5 }
        start_retry = { first = "1m", attempts_max = 2 }
        slow_start = { probability = 0.2, factor = { uniform = { min = 2, max = 4 } } }
        crash = { time_to_failure = "2h", on_crash = "fail" }
        "#
    );
    let expected = Failures {
        start_failure: Some(StartFailure {
            probability: 0.1,
            at: Distribution::Fixed { value: 0.5 },
        }),
        start_timeout: Some(20 * MINUTE),
        start_retry: RetryConfig {
            first: MINUTE,
            attempts_max: 2,
            ..RetryConfig::START
        },
        slow_start: Some(SlowStart {
            probability: 0.2,
            factor: Distribution::Uniform { min: 2.0, max: 4.0 },
        }),
        crash: Some(Crash {
            time_to_failure: Distribution::Fixed { value: 7200.0 },
            on_crash: OnCrash::Fail,
        }),
    };
    assert_eq!(ok(&text).deployment.failures, expected);
}

#[test]
fn clients_are_what_is_written() {
    let scenario = set(
        super::BASE,
        &[
            "clients.first_token_timeout=30s",
            "clients.retry.retry_on=['503', 'timeout']",
            "clients.retry.first=2s",
        ],
    );
    let clients = scenario.clients;
    assert!(clients.have_timeouts());
    let first = clients.first_token_timeout;
    assert_eq!(first, Some(Distribution::Fixed { value: 30.0 }));
    let expected = ClientRetry {
        config: RetryConfig {
            first: 2 * SECOND,
            ..RetryConfig::CLIENT
        },
        jitter: Distribution::Uniform {
            min: 0.75,
            max: 1.0,
        },
        retry_on: RetryOn {
            failure: false,
            ..RetryOn::ALL
        },
    };
    assert_eq!(clients.retry, Some(expected));
}

#[test]
fn a_start_cannot_fail_after_its_end() {
    insta::assert_snapshot!(broken("output_tokens = 128", "[failures]\nstart_failure = { probability = 0.1, at = { exponential = { mean = 0.5 } } }"), @r"
    scenario::range

      × `failures.start_failure.at` must be shares of a start, 0 to 1
        ╭─[s.toml:11:43]
     10 │ [failures]
     11 │ start_failure = { probability = 0.1, at = { exponential = { mean = 0.5 } } }
        ·                                           ────────────────┬───────────────
        ·                                                           ╰── this has no upper limit
        ╰────
      help: for example `{ uniform = { min = 0, max = 1 } }`, or `{ fixed = 0.5 }`
    ");
}

#[test]
fn waits_do_not_shrink() {
    insta::assert_snapshot!(broken_by(&["clients.retry.factor=0.5"]), @r"
    scenario::retry

      × `clients.retry`: factor must be a number of at least 1, not 0.5
       ╭─[--set:1:22]
     1 │ clients.retry.factor=0.5
       ·                      ─┬─
       ·                       ╰── each wait would be shorter than the one before
       ╰────
      help: write 1 or more; 2 doubles the wait each time
    ");
}

#[test]
fn what_would_have_no_effect_is_said() {
    insta::assert_snapshot!(broken_by(&["failures.start_retry.first=5s", "clients.retry.retry_on=['timeout']"]), @r#"
    scenario::unused

      × `failures.start_retry` has no effect without `start_failure` or `start_timeout`: no start
      │ fails
       ╭─[--set:1:10]
     1 │ failures.start_retry.first=5s
       ·          ─────┬─────
       ·               ╰── this would be ignored
       ╰────
      help: remove `start_retry`
    scenario::unused

      × clients without a timeout never send again because of one
       ╭─[--set:1:24]
     1 │ clients.retry.retry_on=['timeout']
       ·                        ─────┬─────
       ·                             ╰── this has "timeout"
       ╰────
      help: add `clients.timeout` or `clients.first_token_timeout`, or remove "timeout" here
    "#);
}

#[test]
fn a_replica_lives_for_a_second_at_least() {
    insta::assert_snapshot!(broken_by(&["failures.crash.time_to_failure=10ms"]), @r"
    scenario::range

      × `failures.crash.time_to_failure` must be a second or more on average
       ╭─[--set:1:32]
     1 │ failures.crash.time_to_failure=10ms
       ·                                ──┬─
       ·                                  ╰── the mean is 0.01 s
       ╰────
      help: for example `{ exponential = { mean = 86400 } }`: once a day
    ");
}
