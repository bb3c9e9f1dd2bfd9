//! What the specification does not say, decided and held.

use foresail_core::control::lifecycle::{Profile, Refusal, Settings, Spend, State};
use foresail_core::time::{HOUR, MINUTE, Nanos, SECOND};

use crate::provider::{COLD_START, Provider, acme, go, replicas, unused_auto_delete};

const WEEK: Nanos = 168 * HOUR;

#[test]
fn silence_a_minimum_above_the_maximum_is_refused_on_create_and_on_update() {
    let text = "min_replica_count cannot be greater than max_replica_count (3 > 2)";
    let mut provider = Provider::new();
    let refused = crate::provider::new("chat", Profile::Spec, replicas(3, 2));
    assert_eq!(provider.create(refused).unwrap_err().to_string(), text);
    let key = provider.ready(replicas(1, 2));
    let update = Settings {
        min_replica_count: Some(3),
        ..Settings::default()
    };
    assert_eq!(provider.update(update).unwrap_err().to_string(), text);
    assert_eq!(
        (provider.state(key), provider.target(key)),
        (State::Ready, 1)
    );
}

#[test]
fn silence_an_explicit_maximum_of_0_parks_and_no_request_wakes() {
    let mut provider = Provider::new();
    let key = provider.deploy(replicas(2, 0));
    assert_eq!(
        (provider.state(key), provider.target(key)),
        (State::Ready, 0)
    );
    assert_eq!(provider.request(key), Some(Refusal::Parked));
    assert_eq!(provider.target(key), 0);
    provider.update(replicas(0, 1)).unwrap();
    assert_eq!(provider.request(key), None);
    assert_eq!(provider.target(key), 1);
    provider.run_for(COLD_START);
    provider.update(replicas(0, 0)).unwrap();
    assert_eq!((provider.target(key), provider.ready_replicas(key)), (0, 0));
    assert_eq!(provider.request(key), Some(Refusal::Parked));
}

#[test]
fn silence_a_maximum_that_nobody_set_follows_the_minimum() {
    let mut provider = Provider::new();
    let key = provider.ready(Settings::default());
    let three = Settings {
        min_replica_count: Some(3),
        ..Settings::default()
    };
    provider.update(three).unwrap();
    assert_eq!(provider.get(key).resolved().scaling.replicas.max, 3);
    assert_eq!(provider.target(key), 3);

    let mut provider = Provider::new();
    provider.ready(replicas(0, 1));
    assert!(provider.update(three).is_err(), "this maximum was set");
}

#[test]
fn silence_low_load_alone_leaves_one_replica() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(0, 4));
    provider.scale(4).unwrap();
    provider.run_for(COLD_START);
    // A little is in flight all the time, so that it never is idle.
    provider.set_in_flight(key, 1);
    provider.run_for(10 * HOUR);
    assert_eq!(provider.ready_replicas(key), 1);
}

#[test]
fn silence_an_idle_deployment_goes_from_any_count_to_zero_at_once() {
    let slow_down = Settings {
        scale_down_window: go(2 * HOUR),
        ..replicas(0, 4)
    };
    let mut provider = Provider::new();
    let key = provider.ready(slow_down);
    provider.scale(4).unwrap();
    provider.run_for(HOUR - SECOND);
    assert_eq!(provider.ready_replicas(key), 4);
    provider.run_for(2 * SECOND);
    assert_eq!(provider.ready_replicas(key), 0);
}

#[test]
fn silence_a_window_to_zero_of_0_is_at_once_or_the_default_by_profile() {
    let window = |window| Settings {
        scale_to_zero_window: go(window),
        ..Settings::default()
    };
    let zero = |profile, nanos| {
        let resolved = window(nanos).resolve(profile, 1);
        resolved.map(|resolved| resolved.scaling.windows.zero)
    };
    assert_eq!(zero(Profile::Spec, 0), Ok(0));
    assert_eq!(zero(Profile::Spec, MINUTE), Ok(MINUTE));
    assert_eq!(zero(Profile::Fireworks2026, 0), Ok(HOUR));
    assert_eq!(zero(Profile::Fireworks2026, 5 * MINUTE), Ok(5 * MINUTE));
    assert_eq!(
        zero(Profile::Fireworks2026, MINUTE)
            .unwrap_err()
            .to_string(),
        "scale_to_zero_window must be at least 5 minutes: 60s"
    );
}

#[test]
fn silence_a_negative_duration_is_refused() {
    let negative = Some(-5 * 1_000_000_000);
    let none = Settings::default();
    let all = [
        (
            "scale_up_window",
            Settings {
                scale_up_window: negative,
                ..none
            },
        ),
        (
            "scale_down_window",
            Settings {
                scale_down_window: negative,
                ..none
            },
        ),
        (
            "scale_to_zero_window",
            Settings {
                scale_to_zero_window: negative,
                ..none
            },
        ),
        (
            "unused_auto_delete_duration",
            unused_auto_delete(-5_000_000_000),
        ),
    ];
    for (name, settings) in all {
        for profile in [Profile::Spec, Profile::Fireworks2026] {
            let error = settings.resolve(profile, 1).unwrap_err().to_string();
            assert_eq!(error, format!("{name} must not be negative: -5s"));
        }
    }
}

#[test]
fn silence_unused_is_without_received_requests_even_if_one_is_in_flight() {
    let hour = Settings {
        scale_to_zero_window: go(10 * MINUTE),
        ..unused_auto_delete(i64::try_from(HOUR).unwrap())
    };
    let mut provider = Provider::new();
    let key = provider.ready(hour);
    provider.request(key);
    provider.set_in_flight(key, 1);
    provider.run_for(HOUR - 1);
    assert_eq!(provider.ready_replicas(key), 1, "a long stream is not idle");
    assert_eq!(provider.state(key), State::Ready);
    provider.run_for(1);
    assert_eq!(provider.state(key), State::Deleting);
    assert_eq!(provider.gpus_held(key), 1, "it may finish");
}

#[test]
fn silence_a_refused_request_was_received() {
    let parked = Settings {
        unused_auto_delete_duration: go(HOUR),
        ..replicas(0, 0)
    };
    let mut provider = Provider::new();
    let key = provider.deploy(parked);
    provider.run_until(HOUR / 2);
    assert_eq!(provider.request(key), Some(Refusal::Parked));
    assert_eq!(provider.get(key).next_deadline(), Some(HOUR + HOUR / 2));
}

#[test]
fn silence_a_minimum_does_not_exempt_from_deletion_but_in_the_newer_profile() {
    let deadline = |profile, min| {
        let mut provider = Provider::new();
        let key = provider.deploy_as(profile, replicas(min, 2));
        provider.get(key).next_deadline()
    };
    assert_eq!(deadline(Profile::Spec, 1), Some(WEEK));
    assert_eq!(deadline(Profile::Fireworks2026, 1), None);
    assert_eq!(deadline(Profile::Fireworks2026, 0), Some(WEEK));
}

#[test]
fn silence_a_duration_that_truncates_to_0_disables_deletion() {
    // Go reads 0.9ns as 0.
    let resolved = unused_auto_delete(0).resolve(Profile::Spec, 1).unwrap();
    assert_eq!(resolved.unused_auto_delete, None);
    let one = unused_auto_delete(1).resolve(Profile::Spec, 1).unwrap();
    assert_eq!(one.unused_auto_delete, Some(1));
}

#[test]
fn silence_the_spend_limit_deletes_or_pauses_by_profile() {
    let after_limit = |profile| {
        let mut provider = Provider::new();
        let key = provider.ready_as(profile, replicas(1, 1));
        let now = provider.now;
        provider
            .plane
            .set_spend_limit(now, &acme(), Some(10))
            .unwrap();
        let spend = Spend {
            nanodollars: 10,
            nanodollars_per_hour: 0,
        };
        let orders = provider.plane.set_spend(now, &acme(), spend).unwrap();
        provider.carry_out(orders);
        (
            provider.state(key),
            provider.request(key),
            provider.gpus_held(key),
        )
    };
    let deleted = (State::Deleted, Some(Refusal::NotDeployed), 0);
    assert_eq!(after_limit(Profile::Spec), deleted);
    let paused = (State::Ready, Some(Refusal::SpendLimit), 0);
    assert_eq!(after_limit(Profile::Fireworks2026), paused);
}

#[test]
fn silence_a_deployment_at_zero_replicas_stays_ready() {
    let mut provider = Provider::new();
    let key = provider.ready(Settings::default());
    provider.run_until(100 * HOUR);
    assert_eq!(
        (provider.state(key), provider.ready_replicas(key)),
        (State::Ready, 0)
    );
    assert_eq!(provider.passage(key).len(), 2);
}

#[test]
fn silence_a_new_deployment_starts_one_replica_even_with_a_minimum_of_0() {
    let target = |settings, initial| {
        let mut provider = Provider::new();
        let mut new = crate::provider::new("chat", Profile::Spec, settings);
        new.spec.initial_replica_count = initial;
        let key = provider.create(new).map_err(|error| error.to_string())?;
        Ok((provider.target(key), provider.state(key)))
    };
    assert_eq!(target(replicas(0, 4), None), Ok((1, State::Creating)));
    assert_eq!(target(replicas(2, 4), None), Ok((2, State::Creating)));
    assert_eq!(target(replicas(0, 4), Some(3)), Ok((3, State::Creating)));
    // With nothing to wait for, it is ready at once.
    assert_eq!(target(replicas(0, 4), Some(0)), Ok((0, State::Ready)));
    let outside = "replica count must be 2 to 4: 5; update the limits to change that";
    assert_eq!(target(replicas(2, 4), Some(5)), Err(outside.to_owned()));
}

#[test]
fn silence_windows_fire_when_they_have_passed_and_requests_come_first() {
    let mut provider = Provider::new();
    let key = provider.deploy(unused_auto_delete(i64::try_from(HOUR).unwrap()));
    provider.run_until(HOUR - 1);
    provider.now = HOUR;
    assert_eq!(provider.request(key), None, "at the deadline itself");
    provider.run_until(2 * HOUR - 1);
    assert_eq!(provider.state(key), State::Ready);
    provider.run_until(2 * HOUR);
    assert_eq!(provider.state(key), State::Deleted);
}

#[test]
fn silence_a_shorter_unused_duration_begins_with_the_update() {
    let mut provider = Provider::new();
    let key = provider.deploy(Settings::default());
    provider.run_until(100 * HOUR);
    provider
        .update(unused_auto_delete(i64::try_from(HOUR).unwrap()))
        .unwrap();
    provider.run_until(101 * HOUR - 1);
    assert_eq!(provider.state(key), State::Ready);
    provider.run_until(101 * HOUR);
    assert_eq!(provider.state(key), State::Deleted);
}
