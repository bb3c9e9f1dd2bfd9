//! What holds whatever is asked for, and whenever.

use foresail_core::control::lifecycle::{
    Cause, DeploymentKey, Effect, GpuKind, ModelName, Profile, Refusal, Settings, Spend, State,
};
use foresail_core::time::{MINUTE, Nanos, SECOND};
use proptest::prelude::*;

use crate::provider::{Provider, acme, chat, go, llama, new};

const UNUSED: Nanos = 20 * MINUTE;
const QUOTA: u32 = 9;

/// Something that somebody does, or that happens.
#[derive(Clone, Debug)]
enum Step {
    Create {
        id: u8,
        profile: Profile,
        settings: Settings,
    },
    Update(Settings),
    Scale(u32),
    Delete {
        ignore_checks: bool,
    },
    Undelete,
    Request,
    InFlight(u64),
    StartFailed,
    DeployAdapter,
    UndeployAdapter,
    AdapterMoved,
    Limit(Option<u128>),
    Spend(u128),
    Pass(Nanos),
}

fn settings() -> impl Strategy<Value = Settings> {
    let count = || prop::option::of(0_u32..5);
    let window = || prop::option::of(-1_i64..400);
    (
        count(),
        count(),
        window(),
        prop::option::of(0_u32..4),
        any::<bool>(),
    )
        .prop_map(|(min, max, window, world_size, unused)| Settings {
            world_size,
            min_replica_count: min,
            max_replica_count: max,
            scale_to_zero_window: window.map(|seconds| seconds * 1_000_000_000),
            unused_auto_delete_duration: go(UNUSED).filter(|_| unused),
            ..Settings::default()
        })
}

fn step() -> impl Strategy<Value = Step> {
    let profile = prop_oneof![Just(Profile::Spec), Just(Profile::Fireworks2026)];
    let create = (0_u8..3, profile, settings()).prop_map(|(id, profile, settings)| Step::Create {
        id,
        profile,
        settings,
    });
    prop_oneof![
        2 => create,
        3 => settings().prop_map(Step::Update),
        1 => (0_u32..5).prop_map(Step::Scale),
        1 => any::<bool>().prop_map(|ignore_checks| Step::Delete { ignore_checks }),
        1 => Just(Step::Undelete),
        3 => Just(Step::Request),
        2 => (0_u64..30).prop_map(Step::InFlight),
        1 => Just(Step::StartFailed),
        1 => Just(Step::DeployAdapter),
        1 => Just(Step::UndeployAdapter),
        1 => Just(Step::AdapterMoved),
        1 => prop::option::of(0_u128..50).prop_map(Step::Limit),
        1 => (0_u128..40).prop_map(Step::Spend),
        // Shorter than a start, and longer.
        3 => (0_u64..80).prop_map(|seconds| Step::Pass(seconds * SECOND)),
        3 => (0_u64..900).prop_map(|seconds| Step::Pass(seconds * SECOND)),
    ]
}

/// A provider whose account has three deployments at most, and little room for them.
struct Run {
    provider: Provider,
    adapter: ModelName,
    created: Vec<DeploymentKey>,
    /// When a deployment last received a request.
    received: Vec<Option<Nanos>>,
}

impl Run {
    fn new() -> Self {
        let mut provider = Provider::new();
        let gpu = GpuKind::A100Gb80;
        provider
            .plane
            .set_gpu_quota(&acme(), gpu, Some(QUOTA))
            .expect("it is there");
        let (id, base) = ("sql".parse(), "llama-3-8b".parse());
        let (id, base) = (id.expect("an id"), base.expect("an id"));
        let adapter = provider.plane.add_adapter(&acme(), &id, &base);
        Run {
            provider,
            adapter: adapter.expect("it is new"),
            created: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Refused commands are as good as any: they change nothing.
    fn step(&mut self, step: &Step) {
        let provider = &mut self.provider;
        let last = self.created.last().copied();
        match (step, last) {
            (
                Step::Create {
                    id,
                    profile,
                    settings,
                },
                _,
            ) => {
                let id = ["chat", "search", "code"][usize::from(*id)];
                if let Ok(key) = provider.create(new(id, *profile, *settings)) {
                    self.created.push(key);
                    self.received.push(None);
                }
            }
            (Step::Update(settings), _) => drop(provider.update(*settings)),
            (Step::Scale(replicas), _) => drop(provider.scale(*replicas)),
            (Step::Delete { ignore_checks }, _) => drop(provider.delete(*ignore_checks)),
            (Step::Undelete, _) => drop(provider.undelete()),
            (Step::Pass(duration), _) => provider.run_for(*duration),
            (Step::Limit(limit), _) => {
                let orders = provider
                    .plane
                    .set_spend_limit(provider.now, &acme(), *limit);
                provider.carry_out(orders.expect("the account is there"));
            }
            (Step::Spend(nanodollars), _) => {
                let spend = Spend {
                    nanodollars: *nanodollars,
                    nanodollars_per_hour: 5,
                };
                let orders = provider.plane.set_spend(provider.now, &acme(), spend);
                provider.carry_out(orders.expect("the account is there"));
            }
            (Step::Request, Some(key)) => {
                provider.request(key);
                self.received[key.index()] = Some(provider.now);
            }
            (Step::InFlight(requests), Some(key)) => provider.set_in_flight(key, *requests),
            (Step::StartFailed, Some(key)) => {
                let orders = provider.plane.start_failed(key);
                provider.carry_out(orders);
            }
            (Step::DeployAdapter, _) => {
                if let Ok(orders) = provider.plane.deploy_adapter(&self.adapter, &chat()) {
                    provider.carry_out(orders);
                }
            }
            (Step::UndeployAdapter, _) => {
                if let Ok(orders) = provider.plane.undeploy_adapter(&self.adapter, &chat()) {
                    provider.carry_out(orders);
                }
            }
            (Step::AdapterMoved, Some(key)) => {
                drop(provider.plane.adapter_loaded(key, &self.adapter));
                drop(provider.plane.adapter_unloaded(key, &self.adapter));
            }
            _ => {}
        }
    }

    /// What has to hold at every moment.
    fn check(&self) -> Result<(), TestCaseError> {
        let provider = &self.provider;
        let reserved = self
            .created
            .iter()
            .map(|&key| provider.get(key).gpus_reserved());
        prop_assert!(reserved.sum::<u64>() <= u64::from(QUOTA));
        for &key in &self.created {
            let deployment = provider.get(key);
            prop_assert!(provider.gpus_in_use(key) <= deployment.gpus_reserved());
            let limits = deployment.resolved().scaling.replicas;
            prop_assert!(limits.min <= limits.max || limits.is_parked());
            let takes_requests =
                deployment.state().serves() && !limits.is_parked() && !self.is_paused(key);
            prop_assert_eq!(deployment.refusal().is_none(), takes_requests);
            if deployment.state().serves() && !self.is_paused(key) {
                let target = provider.target(key);
                prop_assert_eq!(target == 0 || limits.nearest(target) == target, true);
            } else {
                prop_assert_eq!(provider.target(key), 0);
            }
            if deployment.state() == State::Ready {
                prop_assert_eq!(deployment.observed().outdated, 0);
            }
            if deployment.state() == State::Deleted {
                prop_assert_eq!(provider.gpus_held(key), 0);
                prop_assert_eq!(deployment.adapters().count(), 0);
            }
        }
        let names: Vec<_> = provider
            .plane
            .list(&acme())
            .map(|d| d.name().clone())
            .collect();
        let mut unique = names.clone();
        unique.dedup();
        prop_assert_eq!(names, unique);
        Ok(())
    }

    /// Whether the last word about requests was that the money is spent.
    fn is_paused(&self, key: DeploymentKey) -> bool {
        self.provider.get(key).refusal() == Some(Refusal::SpendLimit)
    }
}

/// Transitions that the drawing of `state.rs` has.
fn is_legal(from: Option<State>, to: State) -> bool {
    use State::{Creating, Deleted, Deleting, Failed, Ready, Updating};
    match from {
        None | Some(Deleted) => to == Creating,
        Some(Creating) => matches!(to, Ready | Failed | Deleting),
        Some(Ready) => matches!(to, Updating | Deleting | Ready),
        Some(Updating) => matches!(to, Ready | Deleting),
        Some(Deleting) => to == Deleted,
        Some(Failed) => to == Deleting,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_commands_at_any_time_keep_a_deployment_whole(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut run = Run::new();
        let mut seen = 0;
        let mut states: Vec<Option<State>> = Vec::new();
        let mut refusals: Vec<Option<Refusal>> = Vec::new();
        for step in &steps {
            // One request at most comes between two looks at the log.
            let received = run.received.clone();
            run.step(step);
            run.check()?;
            states.resize(run.created.len(), None);
            refusals.resize(run.created.len(), None);
            if let Step::Pass(_) = step {
                let deadline = run.provider.plane.next_deadline();
                prop_assert!(deadline.is_none_or(|deadline| deadline > run.provider.now));
            }
            for (now, key, effect) in &run.provider.log[seen..] {
                let state = &mut states[key.index()];
                let Effect::Transition(transition) = effect else {
                    let is_over = matches!(state, None | Some(State::Deleted));
                    prop_assert!(!is_over, "{effect:?} after the end, or before the beginning");
                    match effect {
                        Effect::Refuse(refusal) => refusals[key.index()] = Some(*refusal),
                        Effect::Admit => refusals[key.index()] = None,
                        _ => {}
                    }
                    continue;
                };
                prop_assert_eq!(transition.from, *state);
                prop_assert!(is_legal(transition.from, transition.to), "{:?}", transition);
                *state = Some(transition.to);
                if let Cause::Unused { after } = transition.cause {
                    let last = received[key.index()].unwrap_or(0);
                    prop_assert!(now - last >= after, "used {} s before", (now - last) / SECOND);
                }
            }
            seen = run.provider.log.len();
            for &key in &run.created {
                prop_assert_eq!(Some(run.provider.state(key)), states[key.index()]);
                // Who only follows the effects knows what the machine does.
                prop_assert_eq!(run.provider.get(key).refusal(), refusals[key.index()]);
            }
        }
    }

    #[test]
    fn the_same_steps_give_the_same_effects(steps in prop::collection::vec(step(), 1..40)) {
        let log = |steps: &[Step]| {
            let mut run = Run::new();
            for step in steps {
                run.step(step);
            }
            run.provider.log
        };
        prop_assert_eq!(log(&steps), log(&steps));
    }

    #[test]
    fn no_update_leads_past_the_gates(updates in prop::collection::vec(settings(), 1..20)) {
        let mut run = Run::new();
        let key = run.provider.deploy(Settings::default());
        for update in updates {
            let _ = run.provider.update(update);
            let deployment = run.provider.get(key);
            prop_assert_eq!(deployment.spec().gpu, GpuKind::A100Gb80);
            prop_assert_eq!(deployment.model(), &llama());
            prop_assert!(deployment.resolved().gpus_max() <= u64::from(QUOTA));
        }
    }
}
