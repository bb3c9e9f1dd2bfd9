//! What the provider's newer documentation adds, one test a row.

use foresail_core::control::lifecycle::{
    DeploymentKey, Effect, GpuKind, LifecycleError, Profile, Refusal, Settings, Spend, State, Tier,
};
use foresail_core::time::{HOUR, MINUTE, Nanos, SECOND};

use crate::provider::{
    COLD_START, Provider, acme, chat, go, llama, new, replicas, text, world_size,
};

const WEEK: Nanos = 168 * HOUR;

fn refused(settings: Settings) -> String {
    let resolved = settings.resolve(Profile::Fireworks2026, 1);
    resolved
        .expect_err("it is outside of the limits")
        .to_string()
}

#[test]
fn b02_windows_have_limits() {
    let up = Settings {
        scale_up_window: go(HOUR + 1),
        ..Settings::default()
    };
    assert_eq!(
        refused(up),
        "scale_up_window must be at most 1 hour: 3600.000000001s"
    );
    let down = Settings {
        scale_down_window: go(2 * HOUR),
        ..Settings::default()
    };
    assert_eq!(
        refused(down),
        "scale_down_window must be at most 1 hour: 7200s"
    );
    let edge = Settings {
        scale_up_window: go(HOUR),
        scale_down_window: go(HOUR),
        scale_to_zero_window: go(5 * MINUTE),
        ..Settings::default()
    };
    assert!(edge.resolve(Profile::Fireworks2026, 1).is_ok());
    assert!(up.resolve(Profile::Spec, 1).is_ok());
}

#[test]
fn b03_there_are_at_most_1000_replicas() {
    assert_eq!(
        refused(replicas(0, 1_001)),
        "max_replica_count must be at most 1000: 1001"
    );
    assert!(
        replicas(0, 1_000)
            .resolve(Profile::Fireworks2026, 1)
            .is_ok()
    );
    assert!(replicas(0, 1_001).resolve(Profile::Spec, 1).is_ok());
}

#[test]
fn b04_what_cannot_start_has_failed_and_can_only_be_deleted() {
    let mut provider = Provider::new();
    let key = provider.deploy(replicas(2, 2));
    let orders = provider.plane.start_failed(key);
    provider.carry_out(orders);
    assert_eq!(
        (provider.state(key), provider.gpus_held(key)),
        (State::Failed, 0)
    );
    assert_eq!(provider.request(key), Some(Refusal::NotDeployed));
    let error = provider
        .update(Settings::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "accounts/acme/deployments/chat is FAILED and cannot be updated"
    );
    assert_eq!(provider.get(key).next_deadline(), None);
    provider.delete(false).unwrap();
    assert_eq!(
        provider.passage(key)[1..],
        [
            "0 s FAILED: replicas do not start",
            "0 s DELETING: delete requested",
            "0 s DELETED: all replicas gone"
        ]
    );
}

#[test]
fn b06_validation_alone_creates_nothing() {
    let provider = Provider::new();
    let request = new("chat", Profile::Spec, replicas(0, 3));
    let valid = provider.plane.validate_create(0, &acme(), &request);
    let (name, resolved) = valid.unwrap();
    assert_eq!((name, resolved.gpus_max()), (chat(), 3));
    assert!(provider.plane.get(&chat()).is_err());
    let request = new("chat", Profile::Spec, replicas(4, 3));
    assert!(
        provider
            .plane
            .validate_create(0, &acme(), &request)
            .is_err()
    );
}

#[test]
fn b08_only_a_minimum_of_0_is_deleted_when_unused() {
    let mut provider = Provider::new();
    let kept = provider.deploy_as(Profile::Fireworks2026, replicas(1, 1));
    provider.run_until(10 * WEEK);
    assert_eq!(provider.state(kept), State::Ready);
    provider.request(kept);
    provider.update(replicas(0, 1)).unwrap();
    provider.run_for(WEEK - 1);
    assert_eq!(provider.state(kept), State::Ready);
    provider.run_for(1);
    assert_eq!(provider.state(kept), State::Deleted);
}

#[test]
fn b09_the_gpu_is_not_among_what_an_update_can_change() {
    let mut provider = Provider::new();
    let key = provider.ready(Settings::default());
    provider.update(world_size(2)).unwrap();
    assert_eq!(provider.get(key).spec().gpu, GpuKind::A100Gb80);
}

#[test]
fn b10_scale_sets_the_replicas_within_the_limits() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(0, 4));
    provider.scale(3).unwrap();
    assert_eq!(provider.target(key), 3);
    provider.scale(0).unwrap();
    assert_eq!(
        (provider.target(key), provider.state(key)),
        (0, State::Ready)
    );
    assert_eq!(
        provider.scale(5).unwrap_err().to_string(),
        "replica count must be 0 to 4: 5; update the limits to change that"
    );
    provider.update(replicas(2, 4)).unwrap();
    assert!(provider.scale(1).is_err());
}

#[test]
fn b10_what_is_in_use_is_deleted_only_on_insistence() {
    let mut provider = Provider::new();
    let key = provider.ready_as(Profile::Fireworks2026, Settings::default());
    provider.set_in_flight(key, 7);
    assert_eq!(
        provider.delete(false).unwrap_err().to_string(),
        "accounts/acme/deployments/chat is deployed and in use: 7 requests; pass ignore_checks \
         to delete it"
    );
    assert_eq!(provider.state(key), State::Ready);
    provider.delete(true).unwrap();
    assert_eq!(provider.state(key), State::Deleting);
}

#[test]
fn b10_a_deletion_can_be_taken_back() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(2, 3));
    let error = provider.undelete().unwrap_err().to_string();
    assert_eq!(
        error,
        "accounts/acme/deployments/chat is READY and cannot be undeleted"
    );
    provider.update(replicas(1, 5)).unwrap();
    provider.delete(false).unwrap();
    provider.undelete().unwrap();
    let admitted = |(_, _, effect): &(_, _, Effect)| *effect == Effect::Admit;
    assert!(provider.log.iter().any(admitted));
    provider.run_for(COLD_START);
    assert_eq!(
        (provider.state(key), provider.ready_replicas(key)),
        (State::Ready, 1)
    );
    assert_eq!(provider.get(key).resolved().scaling.replicas.max, 5);
    assert_eq!(provider.request(key), None);
}

#[test]
fn b11_the_first_deployment_of_a_model_is_its_default_and_any_can_be_named() {
    let mut provider = Provider::new();
    let first = provider.ready(Settings::default());
    let second = new("second", Profile::Spec, Settings::default());
    let second = provider.create(second).unwrap();
    let deployment = |provider: &Provider, query: &str| provider.route(query).unwrap().deployment;
    let model = llama().to_string();
    let by_id = format!("{model}#second");
    let by_name = format!("{model}#accounts/acme/deployments/second");
    assert_eq!(deployment(&provider, &model), first);
    assert_eq!(deployment(&provider, &by_id), second);
    assert_eq!(deployment(&provider, &by_name), second);
    let other = format!("{}#chat", "accounts/acme/models/llama-3-70b");
    let error = provider.route(&other).unwrap_err().to_string();
    assert_eq!(
        error,
        "accounts/acme/models/llama-3-70b#accounts/acme/deployments/chat is not deployed"
    );
    provider.delete(false).unwrap();
    assert_eq!(deployment(&provider, &model), second);
}

#[test]
fn b12_the_gpu_quota_bounds_what_deployments_may_come_to_hold() {
    let mut provider = Provider::new();
    let (gpu, quota) = (GpuKind::A100Gb80, Some(16));
    provider.plane.set_gpu_quota(&acme(), gpu, quota).unwrap();
    let key = provider.ready(replicas(0, 10));
    let second = new("second", Profile::Spec, replicas(1, 7));
    let error = provider.create(second).unwrap_err().to_string();
    assert_eq!(
        error,
        "7 GPUs A100 80 GB (max_replica_count x world_size) are more than the 6 that are left of \
         the account's quota: lower max_replica_count or world_size"
    );
    assert!(
        provider
            .create(new("second", Profile::Spec, replicas(1, 6)))
            .is_ok()
    );
    assert!(provider.update(replicas(0, 11)).is_err());
    provider.update(replicas(0, 9)).unwrap();
    assert!(
        provider
            .create(new("third", Profile::Spec, replicas(1, 1)))
            .is_ok()
    );
    provider.delete(false).unwrap();
    assert_eq!(provider.state(key), State::Deleted);
    assert!(
        provider
            .create(new("fourth", Profile::Spec, replicas(1, 9)))
            .is_ok()
    );
}

#[test]
fn b12_the_spend_limit_pauses_until_it_is_raised() {
    let mut provider = Provider::new();
    let key = provider.ready_as(Profile::Fireworks2026, replicas(2, 2));
    let spend = |nanodollars, nanodollars_per_hour| Spend {
        nanodollars,
        nanodollars_per_hour,
    };
    let now = provider.now;
    provider
        .plane
        .set_spend_limit(now, &acme(), Some(100))
        .unwrap();
    provider
        .plane
        .set_spend(now, &acme(), spend(40, 60))
        .unwrap();
    provider.run_for(HOUR - 1);
    assert_eq!(provider.request(key), None);
    provider.run_for(1);
    assert_eq!(provider.request(key), Some(Refusal::SpendLimit));
    assert_eq!(
        (provider.state(key), provider.gpus_held(key)),
        (State::Ready, 0)
    );
    let scaled = provider.scale(2).unwrap_err().to_string();
    assert_eq!(
        scaled,
        "account acme has reached its spend limit: raise it first"
    );

    // What is reported afterwards does not end the pause, whatever its rounding.
    let now = provider.now;
    let orders = provider
        .plane
        .set_spend(now, &acme(), spend(99, 0))
        .unwrap();
    assert_eq!(orders, []);
    assert_eq!(
        provider.plane.next_deadline(),
        provider.get(key).next_deadline()
    );
    let orders = provider
        .plane
        .set_spend_limit(now, &acme(), Some(200))
        .unwrap();
    provider.carry_out(orders);
    assert_eq!(provider.request(key), None);
    provider.run_for(COLD_START);
    assert_eq!(provider.ready_replicas(key), 2);
}

#[test]
fn an_update_during_a_pause_holds_when_it_ends() {
    let mut provider = Provider::new();
    let key = provider.ready_as(Profile::Fireworks2026, replicas(1, 1));
    let now = provider.now;
    let orders = provider
        .plane
        .set_spend_limit(now, &acme(), Some(0))
        .unwrap();
    provider.carry_out(orders);
    provider.update(world_size(2)).unwrap();
    provider.update(replicas(2, 3)).unwrap();
    assert_eq!(provider.gpus_held(key), 0);
    let orders = provider.plane.set_spend_limit(now, &acme(), None).unwrap();
    provider.carry_out(orders);
    provider.run_for(COLD_START);
    assert_eq!(
        (provider.ready_replicas(key), provider.gpus_held(key)),
        (2, 4)
    );
}

#[test]
fn a_name_is_unique_until_what_has_it_is_deleted() {
    let mut provider = Provider::new();
    let first = provider.ready(Settings::default());
    let again = new("chat", Profile::Spec, Settings::default());
    let error = provider.create(again.clone()).unwrap_err().to_string();
    assert_eq!(
        error,
        "deployment accounts/acme/deployments/chat exists already: choose another id, or update it"
    );
    provider.delete(false).unwrap();
    let second = provider.create(again).unwrap();
    assert_ne!(first, second);
    assert_eq!(provider.plane.key(&chat()), Ok(second));
    assert_eq!(provider.state(first), State::Deleted);
}

#[test]
fn names_of_what_is_not_there_are_errors() {
    let mut provider = Provider::new();
    let missing = LifecycleError::NoDeployment { deployment: chat() };
    assert_eq!(provider.plane.get(&chat()).err(), Some(missing.clone()));
    assert_eq!(provider.update(Settings::default()), Err(missing.clone()));
    assert_eq!(provider.scale(1), Err(missing.clone()));
    assert_eq!(provider.delete(true), Err(missing.clone()));
    assert_eq!(provider.undelete(), Err(missing));
    let nobody = "nobody".parse().unwrap();
    let no_account = provider
        .plane
        .import_model(&nobody, &text("m", 1))
        .unwrap_err();
    assert_eq!(no_account.to_string(), "there is no account nobody");
    let exists = provider.plane.add_account(acme(), Tier::Business);
    assert_eq!(
        exists,
        Err(LifecycleError::AccountExists { account: acme() })
    );
}

/// A deployment of two replicas that serve, under a quota of so many GPUs.
fn serving(quota: u32, settings: Settings) -> (Provider, DeploymentKey) {
    let mut provider = Provider::new();
    let gpu = GpuKind::A100Gb80;
    provider
        .plane
        .set_gpu_quota(&acme(), gpu, Some(quota))
        .unwrap();
    let key = provider.ready(settings);
    provider.scale(2).unwrap();
    provider.run_for(COLD_START);
    provider.set_in_flight(key, 12);
    (provider, key)
}

#[test]
fn an_update_that_would_strand_requests_is_refused() {
    // Two of one GPU, to two of two: 1 + 2 + 2 at the fullest.
    let (mut provider, key) = serving(4, replicas(2, 2));
    let error = provider.update(world_size(2)).unwrap_err().to_string();
    assert_eq!(
        error,
        "world_size 2 would strand requests: replacing 2 replicas of 1 GPUs takes 5 GPUs A100 80 \
         GB for a while, and the quota has 4: scale down or raise the quota first"
    );
    assert_eq!(
        (provider.state(key), provider.ready_replicas(key)),
        (State::Ready, 2)
    );

    let (mut provider, key) = serving(5, replicas(2, 2));
    provider.update(world_size(2)).unwrap();
    while provider.state(key) == State::Updating {
        provider.run_for(SECOND);
        assert!(provider.ready_replicas(key) >= 2, "capacity sank");
        assert!(provider.gpus_held(key) <= 5, "more than the quota");
    }
    provider.run_for(MINUTE);
    assert_eq!(
        (provider.ready_replicas(key), provider.gpus_held(key)),
        (2, 4)
    );
}

#[test]
fn where_nothing_is_in_flight_nothing_is_stranded() {
    let (mut provider, key) = serving(4, replicas(0, 2));
    assert!(provider.update(world_size(2)).is_err());
    provider.set_in_flight(key, 0);
    provider.update(world_size(2)).unwrap();
    assert_eq!(
        (provider.state(key), provider.ready_replicas(key)),
        (State::Updating, 0)
    );
    assert_eq!(
        provider.request(key),
        None,
        "requests wait as at a cold start"
    );
    provider.run_for(COLD_START);
    assert_eq!(
        (provider.state(key), provider.gpus_held(key)),
        (State::Ready, 4)
    );
}

#[test]
fn a_minimum_is_kept_even_where_nothing_is_in_flight() {
    let (mut provider, key) = serving(4, replicas(1, 2));
    provider.set_in_flight(key, 0);
    assert!(provider.update(world_size(2)).is_err());
    assert_eq!(provider.ready_replicas(key), 2);
}

#[test]
fn an_update_is_done_when_the_last_old_replica_is_replaced() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(3, 3));
    provider.update(world_size(2)).unwrap();
    for gpus_held in [6, 7] {
        // One at a time, as a quarter of three is one.
        provider.run_for(COLD_START);
        let now = (provider.state(key), provider.ready_replicas(key));
        assert_eq!(now, (State::Updating, 3));
        assert_eq!(provider.gpus_held(key), gpus_held);
    }
    provider.run_for(COLD_START);
    assert_eq!(
        (provider.state(key), provider.gpus_held(key)),
        (State::Ready, 6)
    );
    assert_eq!(
        provider.passage(key)[2..],
        [
            "75 s UPDATING: updated",
            "300 s READY: all replicas as updated"
        ]
    );
}

#[test]
fn a_world_size_that_does_not_start_is_taken_back() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(2, 2));
    provider.update(world_size(8)).unwrap();
    assert_eq!(provider.gpus_held(key), 10);
    let orders = provider.plane.start_failed(key);
    provider.carry_out(orders);
    assert_eq!(
        (provider.state(key), provider.gpus_held(key)),
        (State::Ready, 2)
    );
    assert_eq!(provider.get(key).resolved().world_size, 1);
    let last = provider.passage(key).pop().unwrap();
    assert_eq!(
        last,
        "75 s READY: replicas of the new world size do not start"
    );
    // What was ready with its settings is tried on.
    assert_eq!(provider.plane.start_failed(key), []);
}

#[test]
fn what_started_of_an_update_that_is_taken_back_keeps_its_gpus_until_replaced() {
    let (mut provider, key) = serving(9, replicas(2, 4));
    let update = Settings {
        world_size: Some(3),
        ..replicas(2, 2)
    };
    provider.update(update).unwrap();
    provider.run_for(COLD_START);
    // One of three GPUs is ready, the other does not start.
    let orders = provider.plane.start_failed(key);
    provider.carry_out(orders);
    assert_eq!(provider.get(key).resolved().gpus_max(), 4);
    let other = |max| new("other", Profile::Spec, replicas(1, max));
    let held = provider.gpus_held(key);
    assert!(held > 4, "{held}");
    assert!(provider.create(other(5)).is_err());
    provider.run_for(10 * MINUTE);
    assert!(provider.gpus_held(key) <= 4);
    assert!(provider.create(other(5)).is_ok());
}

#[test]
fn windows_and_counts_change_at_once_and_without_an_update_of_replicas() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(1, 4));
    let windows = Settings {
        scale_up_window: go(5 * SECOND),
        ..Settings::default()
    };
    provider.update(windows).unwrap();
    assert_eq!(provider.state(key), State::Ready);
    let scaling = provider.get(key).resolved().scaling;
    assert_eq!(provider.log.last().unwrap().2, Effect::Reconfigure(scaling));
    provider.set_in_flight(key, 20);
    provider.run_for(7 * SECOND);
    assert_eq!(provider.target(key), 3);
}

#[test]
fn an_adapter_needs_no_replica_to_be_deployed() {
    let mut provider = Provider::new();
    let key = provider.ready(Settings::default());
    let (id, base) = ("sql".parse().unwrap(), "llama-3-8b".parse().unwrap());
    let sql = provider.plane.add_adapter(&acme(), &id, &base).unwrap();
    provider.run_until(2 * HOUR);
    provider.plane.deploy_adapter(&sql, &chat()).unwrap();
    let route = provider.route(&sql.to_string()).unwrap();
    assert_eq!((route.deployment, route.adapter), (key, Some(sql.clone())));
    provider.plane.undeploy_adapter(&sql, &chat()).unwrap();
    assert_eq!(provider.plane.get_model(&sql).unwrap().deployed, []);
}
