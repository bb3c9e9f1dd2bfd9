//! What the specification states, one test a row.

use foresail_core::control::biller::{Biller, BillingRule, Price};
use foresail_core::control::lifecycle::{
    BaseModel, Cause, DeployedModelState, DeploymentName, Effect, GpuKind, LifecycleError, Model,
    ModelKind, ModelName, Profile, ReplicaLimits, Settings, Spend, State, Tier,
};
use foresail_core::control::replica_set::Stage;
use foresail_core::time::{HOUR, MINUTE, Nanos, SECOND};

use crate::provider::{
    COLD_START, Provider, acme, chat, go, llama, new, replicas, text, unused_auto_delete,
    world_size,
};

const WEEK: Nanos = 168 * HOUR;
const DOLLAR: u128 = 1_000_000_000;

#[test]
fn s04_only_text_models_of_the_catalogue_can_be_deployed() {
    let mut provider = Provider::new();
    let vision = BaseModel {
        kind: ModelKind::Vision,
        ..text("pixtral-12b", 1)
    };
    let custom = BaseModel {
        is_custom: true,
        ..text("my-own", 1)
    };
    let mut refused = |base: &BaseModel| {
        let name = provider
            .plane
            .import_model(&acme(), base)
            .expect("it may be imported");
        let mut new = new("chat", Profile::Spec, Settings::default());
        new.model = name.model;
        provider
            .create(new)
            .expect_err("it may not be deployed")
            .to_string()
    };
    assert_eq!(
        refused(&vision),
        "accounts/acme/models/pixtral-12b is a model of kind Vision: only text models can be \
         deployed on demand"
    );
    assert_eq!(
        refused(&custom),
        "accounts/acme/models/my-own is a custom base model: only models of the catalogue can be \
         deployed on demand"
    );
}

#[test]
fn s05_import_clones_the_base_model_into_the_account() {
    let mut provider = Provider::new();
    let base = text("qwen2.5-7b", 1);
    let missing: ModelName = "accounts/acme/models/qwen2.5-7b".parse().unwrap();
    let error = provider.plane.get_model(&missing).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no model accounts/acme/models/qwen2.5-7b: import it first"
    );
    let name = provider.plane.import_model(&acme(), &base).unwrap();
    assert_eq!(name, missing);
    let view = provider.plane.get_model(&name).unwrap();
    assert_eq!((view.state(), view.model), ("READY", Model::Base(base)));
}

#[test]
fn s06_import_is_needed_once_and_again_is_the_same() {
    let mut provider = Provider::new();
    let first = llama();
    let again = provider.plane.import_model(&acme(), &text("llama-3-8b", 1));
    assert_eq!(again, Ok(first.clone()));
    let another = provider.plane.import_model(&acme(), &text("llama-3-8b", 2));
    assert_eq!(another, Err(LifecycleError::ModelExists { model: first }));
}

#[test]
fn s07_the_cloned_name_is_what_routes_traffic() {
    let mut provider = Provider::new();
    let error = provider
        .route("accounts/acme/models/llama-3-8b")
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "accounts/acme/models/llama-3-8b is not deployed"
    );
    let key = provider.ready(Settings::default());
    let route = provider.route("accounts/acme/models/llama-3-8b").unwrap();
    assert_eq!((route.deployment, route.adapter), (key, None));
    assert!(provider.route("llama-3-8b").is_err());
    assert!(provider.route("accounts/other/models/llama-3-8b").is_err());
}

#[test]
fn s08_create_takes_the_model_and_the_deployment_id_is_generated() {
    let mut provider = Provider::new();
    let unnamed = || {
        let mut new = new("unused", Profile::Spec, Settings::default());
        new.id = None;
        new
    };
    provider
        .create(new("deployment-2", Profile::Spec, Settings::default()))
        .unwrap();
    for expected in ["deployment-1", "deployment-3"] {
        let key = provider.create(unnamed()).unwrap();
        let name = provider.get(key).name();
        assert_eq!(
            name.to_string(),
            format!("accounts/acme/deployments/{expected}")
        );
    }
    let mut unknown = unnamed();
    unknown.model = "gpt-2".parse().unwrap();
    let error = provider.create(unknown).unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no model accounts/acme/models/gpt-2: import it first"
    );
}

#[test]
fn s09_create_returns_at_once_and_ready_comes_with_the_first_replica() {
    let mut provider = Provider::new();
    let key = provider.deploy(replicas(2, 2));
    assert_eq!((provider.now, provider.state(key)), (0, State::Creating));
    provider.run_until(COLD_START - 1);
    assert_eq!(provider.state(key), State::Creating);
    provider.run_until(COLD_START);
    assert_eq!(
        provider.passage(key),
        ["0 s CREATING: created", "75 s READY: first replica ready"]
    );
}

#[test]
fn s10_the_deployment_id_is_the_last_part_of_its_name() {
    let name: DeploymentName = "accounts/acme/deployments/chat".parse().unwrap();
    assert_eq!(name.deployment.as_str(), "chat");
    assert_eq!(name, chat());
    assert!(
        "accounts/acme/models/chat"
            .parse::<DeploymentName>()
            .is_err()
    );
}

#[test]
fn s11_a_deployment_is_ready_and_its_model_deployed() {
    let mut provider = Provider::new();
    let key = provider.deploy(Settings::default());
    let model = |provider: &Provider| provider.plane.get_model(&llama()).unwrap();
    assert_eq!(
        (provider.state(key), model(&provider).state()),
        (State::Creating, "DEPLOYING")
    );
    provider.run_for(COLD_START);
    assert_eq!(
        (provider.state(key).name(), model(&provider).state()),
        ("READY", "DEPLOYED")
    );
    assert_eq!(model(&provider).deployed[0].deployment, chat());
    provider.set_in_flight(key, 1);
    provider.delete(true).unwrap();
    assert_eq!(model(&provider).state(), "UNDEPLOYING");
    provider.run_for(MINUTE);
    assert_eq!(
        (provider.state(key), model(&provider).state()),
        (State::Deleted, "READY")
    );
}

#[test]
fn s12_it_scales_to_zero_when_unused_for_an_hour() {
    let mut provider = Provider::new();
    let key = provider.deploy(Settings::default());
    provider.run_until(HOUR - SECOND);
    assert_eq!(provider.target(key), 1);
    provider.run_until(HOUR);
    assert_eq!((provider.target(key), provider.gpus_held(key)), (0, 0));
}

#[test]
fn s13_it_deletes_itself_when_unused_for_a_week() {
    let mut provider = Provider::new();
    let key = provider.deploy(Settings::default());
    provider.run_until(10 * HOUR);
    assert_eq!(provider.request(key), None);
    provider.run_until(10 * HOUR + WEEK - 1);
    assert_eq!(provider.state(key), State::Ready);
    provider.run_until(10 * HOUR + WEEK);
    assert_eq!(provider.state(key), State::Deleted);
    let last = provider.passage(key);
    assert_eq!(
        last[2..],
        [
            "640800 s DELETING: no request received for 168h",
            "640800 s DELETED: all replicas gone"
        ]
    );
}

#[test]
fn s14_a_minimum_on_create_or_update_disables_scaling_to_zero() {
    let mut provider = Provider::new();
    let created = provider.ready(replicas(1, 1));
    provider.run_for(100 * HOUR);
    assert_eq!(provider.ready_replicas(created), 1);

    let mut provider = Provider::new();
    let updated = provider.ready(Settings::default());
    provider.run_until(2 * HOUR);
    assert_eq!(provider.ready_replicas(updated), 0);
    provider.update(replicas(1, 1)).unwrap();
    provider.run_for(100 * HOUR);
    assert_eq!(provider.ready_replicas(updated), 1);
}

#[test]
fn s15_an_unused_auto_delete_duration_of_0_disables_deletion() {
    let mut provider = Provider::new();
    let key = provider.deploy(unused_auto_delete(0));
    assert_eq!(provider.get(key).next_deadline(), None);
    provider.run_until(100 * WEEK);
    assert_eq!(provider.state(key), State::Ready);
}

#[test]
fn s16_a_query_names_the_cloned_model_or_a_deployed_addon() {
    let mut provider = Provider::new();
    let key = provider.ready(Settings::default());
    let sql = adapter(&mut provider, "sql", "llama-3-8b");
    assert!(provider.route(&sql.to_string()).is_err());
    let orders = provider.plane.deploy_adapter(&sql, &chat()).unwrap();
    assert_eq!(orders[0].effect, Effect::LoadAdapter(sql.clone()));
    provider.plane.adapter_loaded(key, &sql).unwrap();
    let route = provider.route(&sql.to_string()).unwrap();
    assert_eq!((route.deployment, route.adapter), (key, Some(sql)));
    let base = provider.route(&llama().to_string()).unwrap();
    assert_eq!((base.deployment, base.adapter), (key, None));
}

#[test]
fn s17_delete_ends_the_deployment_once_its_requests_have_ended() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(2, 2));
    provider.set_in_flight(key, 3);
    provider.delete(false).unwrap();
    assert_eq!(
        (provider.state(key), provider.gpus_held(key)),
        (State::Deleting, 2)
    );
    assert!(provider.request(key).is_some());
    provider.run_for(MINUTE);
    assert_eq!(
        (provider.state(key), provider.gpus_held(key)),
        (State::Deleted, 0)
    );
    assert_eq!(provider.plane.list(&acme()).count(), 0);
    let error = provider.delete(false).unwrap_err().to_string();
    assert_eq!(
        error,
        "accounts/acme/deployments/chat is DELETED and cannot be deleted"
    );
}

#[test]
fn s18_counts_can_be_set_on_create_and_on_update() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(2, 3));
    assert_eq!(provider.ready_replicas(key), 2);
    provider.update(replicas(4, 5)).unwrap();
    assert_eq!(
        (provider.state(key), provider.target(key)),
        (State::Updating, 4)
    );
    provider.run_for(COLD_START);
    assert_eq!(
        (provider.state(key), provider.ready_replicas(key)),
        (State::Ready, 4)
    );
    provider.update(replicas(0, 1)).unwrap();
    assert_eq!(
        (provider.state(key), provider.ready_replicas(key)),
        (State::Ready, 1)
    );
}

#[test]
fn s20_a_maximum_above_the_minimum_follows_load_between_the_two() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(1, 3));
    provider.set_in_flight(key, 1_000);
    provider.run_for(10 * MINUTE);
    assert_eq!(provider.ready_replicas(key), 3);
    provider.set_in_flight(key, 0);
    provider.run_for(HOUR);
    assert_eq!(provider.ready_replicas(key), 1);

    let mut provider = Provider::new();
    let fixed = provider.ready(replicas(2, 2));
    provider.set_in_flight(fixed, 1_000);
    provider.run_for(10 * MINUTE);
    assert_eq!(provider.ready_replicas(fixed), 2);
    provider.set_in_flight(fixed, 0);
    provider.run_for(10 * HOUR);
    assert_eq!(provider.ready_replicas(fixed), 2);
}

fn limits(min: Option<u32>, max: Option<u32>) -> ReplicaLimits {
    let settings = Settings {
        min_replica_count: min,
        max_replica_count: max,
        ..Settings::default()
    };
    settings.resolve(Profile::Spec, 1).unwrap().scaling.replicas
}

#[test]
fn s21_the_minimum_is_0_by_default() {
    assert_eq!(limits(None, None).min, 0);
    assert_eq!(limits(None, Some(5)), ReplicaLimits { min: 0, max: 5 });
}

#[test]
fn s22_the_maximum_is_1_by_default_or_the_minimum_if_that_is_higher() {
    for (min, max) in [(None, 1), (Some(0), 1), (Some(1), 1), (Some(4), 4)] {
        assert_eq!(limits(min, None).max, max, "{min:?}");
    }
}

#[test]
fn s23_a_minimum_of_0_is_0_replicas_after_the_window_without_traffic() {
    let explicit = Settings {
        min_replica_count: Some(0),
        scale_to_zero_window: go(20 * MINUTE),
        ..Settings::default()
    };
    let mut provider = Provider::new();
    let key = provider.ready(explicit);
    provider.run_until(10 * MINUTE);
    provider.request(key);
    provider.run_until(30 * MINUTE - SECOND);
    assert_eq!(provider.ready_replicas(key), 1);
    provider.run_until(30 * MINUTE);
    assert_eq!(provider.ready_replicas(key), 0);
    assert_eq!(provider.state(key), State::Ready);
}

#[test]
fn s24_at_0_replicas_any_request_scales_to_1() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(0, 8));
    provider.run_until(2 * HOUR);
    assert_eq!(provider.target(key), 0);
    provider.set_in_flight(key, 1_000);
    provider.request(key);
    assert_eq!(provider.target(key), 1);
}

#[test]
fn s25_a_request_at_0_replicas_is_not_refused_and_waits_for_the_start() {
    let mut provider = Provider::new();
    let key = provider.ready(Settings::default());
    provider.run_until(2 * HOUR);
    assert_eq!(provider.request(key), None);
    assert_eq!(provider.ready_replicas(key), 0);
    provider.run_for(COLD_START);
    assert_eq!(provider.ready_replicas(key), 1);
}

/// When the target is first another, with so many requests in flight.
fn first_change(settings: Settings, in_flight: (u64, u64)) -> Nanos {
    let mut provider = Provider::new();
    let key = provider.ready(settings);
    provider.set_in_flight(key, in_flight.0);
    provider.run_for(HOUR);
    let (start, before) = (provider.now, provider.target(key));
    provider.set_in_flight(key, in_flight.1);
    while provider.target(key) == before {
        provider.run_for(SECOND);
    }
    provider.now - start - SECOND
}

#[test]
fn s26_it_waits_30_seconds_before_scaling_up() {
    // The first look that sees the load is a tick after it came.
    assert_eq!(first_change(replicas(1, 4), (0, 20)), 30 * SECOND);
    let quick = Settings {
        scale_up_window: go(5 * SECOND),
        ..replicas(1, 4)
    };
    assert_eq!(first_change(quick, (0, 20)), 5 * SECOND);
}

#[test]
fn s27_it_waits_10_minutes_before_scaling_down() {
    assert_eq!(first_change(replicas(1, 4), (20, 0)), 10 * MINUTE);
    let quick = Settings {
        scale_down_window: go(MINUTE),
        ..replicas(1, 4)
    };
    assert_eq!(first_change(quick, (20, 0)), MINUTE);
}

#[test]
fn s28_the_window_to_zero_is_an_hour_and_ignored_with_a_minimum() {
    let default = Settings::default().resolve(Profile::Spec, 1).unwrap();
    assert_eq!(default.scaling.windows.zero, HOUR);
    let both = Settings {
        scale_to_zero_window: go(MINUTE),
        ..replicas(1, 2)
    };
    let mut provider = Provider::new();
    let key = provider.ready(both);
    provider.run_for(10 * HOUR);
    assert_eq!(provider.ready_replicas(key), 1);
}

#[test]
fn s30_unused_for_a_week_or_the_spend_limit_deletes() {
    let mut unused = Provider::new();
    let key = unused.deploy(replicas(1, 1));
    unused.run_until(WEEK);
    assert_eq!(unused.state(key), State::Deleted);

    let mut spent = Provider::new();
    let key = spent.ready(replicas(1, 1));
    let limit = Some(50 * DOLLAR);
    assert_eq!(
        spent.plane.set_spend_limit(spent.now, &acme(), limit),
        Ok(vec![])
    );
    let spend = Spend {
        nanodollars: 42 * DOLLAR,
        nanodollars_per_hour: 8 * DOLLAR,
    };
    assert_eq!(spent.plane.set_spend(spent.now, &acme(), spend), Ok(vec![]));
    spent.run_until(COLD_START + HOUR - 1);
    assert_eq!(spent.state(key), State::Ready);
    spent.run_until(COLD_START + HOUR);
    assert_eq!(spent.state(key), State::Deleted);
    assert_eq!(
        spent.passage(key)[2],
        "3675 s DELETING: spend limit reached"
    );
    let error = spent.create(new("again", Profile::Spec, Settings::default()));
    assert_eq!(
        error.unwrap_err().to_string(),
        "account acme has reached its spend limit: raise it first"
    );
}

#[test]
fn s31_the_unused_duration_can_be_set_on_create_and_on_update() {
    let hour = i64::try_from(HOUR).unwrap();
    let mut provider = Provider::new();
    let key = provider.deploy(unused_auto_delete(hour));
    provider.run_until(HOUR);
    assert_eq!(provider.state(key), State::Deleted);

    let mut provider = Provider::new();
    let key = provider.deploy(Settings::default());
    provider.run_until(2 * HOUR);
    provider.update(unused_auto_delete(hour)).unwrap();
    provider.run_until(3 * HOUR - 1);
    assert_eq!(provider.state(key), State::Ready);
    provider.update(unused_auto_delete(0)).unwrap();
    provider.run_until(100 * WEEK);
    assert_eq!(provider.state(key), State::Ready);
}

#[test]
fn s32_the_world_size_is_gpus_a_replica_by_model_and_can_be_set() {
    let mut provider = Provider::new();
    let small = provider.ready(Settings::default());
    assert_eq!(provider.gpus_held(small), 1);
    let mut large = new("large", Profile::Spec, replicas(1, 1));
    large.model = "llama-3-70b".parse().unwrap();
    let large = provider.create(large).unwrap();
    assert_eq!(provider.gpus_held(large), 4);
    let set = new("set", Profile::Spec, world_size(2));
    let set = provider.create(set).unwrap();
    assert_eq!(provider.gpus_held(set), 2);

    provider.set_in_flight(small, 5);
    provider.update(world_size(2)).unwrap();
    assert_eq!(
        (provider.state(small), provider.gpus_held(small)),
        (State::Updating, 3)
    );
    provider.run_for(COLD_START - 1);
    assert_eq!(
        provider.ready_replicas(small),
        1,
        "the old one serves until then"
    );
    provider.run_for(MINUTE);
    assert_eq!(
        (provider.state(small), provider.gpus_held(small)),
        (State::Ready, 2)
    );
}

fn adapter(provider: &mut Provider, id: &str, base: &str) -> ModelName {
    let (id, base) = (id.parse().unwrap(), base.parse().unwrap());
    provider.plane.add_adapter(&acme(), &id, &base).unwrap()
}

#[test]
fn s34_an_addon_is_deployed_on_a_deployment_of_its_base_model() {
    let mut provider = Provider::new();
    let key = provider.ready(Settings::default());
    let sql = adapter(&mut provider, "sql", "llama-3-8b");
    provider.plane.deploy_adapter(&sql, &chat()).unwrap();
    let state = |provider: &Provider| provider.plane.get_model(&sql).unwrap().state();
    assert_eq!(state(&provider), "DEPLOYING");
    provider.plane.adapter_loaded(key, &sql).unwrap();
    assert_eq!(state(&provider), "DEPLOYED");
    let again = provider.plane.deploy_adapter(&sql, &chat()).unwrap_err();
    assert_eq!(
        again.to_string(),
        "adapter accounts/acme/models/sql is on accounts/acme/deployments/chat already"
    );
    let orders = provider.plane.undeploy_adapter(&sql, &chat()).unwrap();
    assert_eq!(orders[0].effect, Effect::UnloadAdapter(sql.clone()));
    assert_eq!(state(&provider), "UNDEPLOYING");
    provider.plane.adapter_unloaded(key, &sql).unwrap();
    assert_eq!(state(&provider), "READY");
    let gone = provider.plane.undeploy_adapter(&sql, &chat()).unwrap_err();
    assert_eq!(
        gone.to_string(),
        "adapter accounts/acme/models/sql is not deployed on accounts/acme/deployments/chat"
    );

    let mut alone = new("alone", Profile::Spec, Settings::default());
    alone.model = sql.model.clone();
    assert_eq!(
        provider.create(alone).unwrap_err().to_string(),
        "accounts/acme/models/sql is an adapter of llama-3-8b: deploy it on a deployment of that \
         model"
    );
    let base = provider.plane.deploy_adapter(&llama(), &chat());
    assert_eq!(base, Err(LifecycleError::NotAnAdapter { model: llama() }));
}

#[test]
fn s35_an_addon_of_another_base_is_refused_with_both_names() {
    let mut provider = Provider::new();
    provider.ready(Settings::default());
    let other = adapter(&mut provider, "other", "qwen2.5-7b");
    let error = provider.plane.deploy_adapter(&other, &chat()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "adapter accounts/acme/models/other is of base model qwen2.5-7b, but \
         accounts/acme/deployments/chat serves llama-3-8b: choose a deployment of qwen2.5-7b"
    );
    let deployed = provider.plane.get_model(&other).unwrap().deployed;
    assert!(
        deployed
            .iter()
            .all(|on| on.state != DeployedModelState::Deployed)
    );
}

#[test]
fn s36_a100_is_for_developer_and_business_and_h100_for_enterprise() {
    let may = |tier, gpu| {
        let mut provider = Provider::of_tier(tier);
        let mut new = new("chat", Profile::Spec, Settings::default());
        new.spec.gpu = gpu;
        provider
            .create(new)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    for tier in [Tier::Developer, Tier::Business] {
        assert_eq!(may(tier, GpuKind::A100Gb80), Ok(()));
        let refused = format!(
            "H100 80 GB is for enterprise accounts, and acme is {tier}: choose another GPU"
        );
        assert_eq!(may(tier, GpuKind::H100Gb80), Err(refused));
    }
    assert_eq!(may(Tier::Enterprise, GpuKind::H100Gb80), Ok(()));
    assert_eq!(
        may(Tier::Enterprise, GpuKind::A100Gb80).unwrap_err(),
        "A100 80 GB is for developer and business accounts, and acme is enterprise: choose \
         another GPU"
    );
    for tier in [Tier::Developer, Tier::Business, Tier::Enterprise] {
        assert_eq!(may(tier, GpuKind::H200Gb141), Ok(()));
    }
}

#[test]
fn s37_it_is_billed_by_the_gpu_second() {
    let price = Price::from_usd_per_gpu_hour("3.60").unwrap();
    let rule = BillingRule {
        starting: false,
        draining: false,
    };
    let mut biller = Biller::new(price, rule, 4);
    for (at, from, to) in [
        (0, Stage::Gone, Stage::Pending),
        (10 * SECOND, Stage::Pending, Stage::Ready),
    ] {
        for _ in 0..3 {
            biller.stage_changed(at, from, to).unwrap();
        }
    }
    // 3 replicas x 4 GPUs x 7 s x 0.001 USD.
    assert_eq!(biller.cost_nanodollars(17 * SECOND), Ok(84_000_000));
}

#[test]
fn every_state_has_one_cause_that_says_why() {
    let mut provider = Provider::new();
    let key = provider.ready(replicas(0, 1));
    provider.delete(false).unwrap();
    let causes: Vec<_> = (provider.log.iter())
        .filter_map(|(_, of, effect)| match effect {
            Effect::Transition(transition) if *of == key => Some(transition.cause),
            _ => None,
        })
        .collect();
    use Cause::{Created, DeleteRequested, FirstReplicaReady, ReplicasGone};
    assert_eq!(
        causes,
        [Created, FirstReplicaReady, DeleteRequested, ReplicasGone]
    );
}
