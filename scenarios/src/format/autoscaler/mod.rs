//! The replica counts and windows of `[deployment]`, and `[autoscaler]`: how
//! many replicas there are, and when that changes.
//!
//! A file a policy: it reads the policy's own keys from `[autoscaler]`. Keys of
//! policies that were not chosen are errors, since they would have no effect.

mod aibrix;
mod counts;
mod dynamo_load;
mod fireworks;
mod hpa;
mod knative;
mod planned;
mod ray_serve;
mod refused;
mod wva_saturation;

use foresail_core::control::autoscaler::{AutoscalerConfig, Delays, LoadTargets};
use foresail_core::control::lifecycle::{Profile, Settings};
use foresail_core::time::{HOUR, MINUTE, Nanos};

use super::decode;
use super::problem::Problem;
use super::reader::{Field, Reader, Setting};
use crate::scenario::AtZero;
use counts::Counts;
use fireworks::Windows;

/// What the two tables say together.
pub(super) struct Autoscaling {
    pub(super) autoscaler: AutoscalerConfig,
    pub(super) initial_replica_count: u32,
    pub(super) at_zero: AtZero,
    pub(super) profile: Profile,
    /// As they are written, so that defaults stay defaults.
    pub(super) settings: Settings,
    pub(super) drain_timeout: Nanos,
}

/// A policy with its parameters, and with how many replicas a run begins.
struct Chosen {
    autoscaler: AutoscalerConfig,
    initial_replica_count: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    AibrixApa,
    Fireworks,
    Fixed,
    KnativeKpa,
    Scripted,
    Oracle,
    RayServe,
    RayServeLegacy,
    Hpa,
    Keda,
    WvaSaturation,
    DynamoLoad,
}

const POLICIES: &[(&str, Policy)] = &[
    ("fireworks", Policy::Fireworks),
    ("aibrix-apa", Policy::AibrixApa),
    ("fixed", Policy::Fixed),
    ("knative-kpa", Policy::KnativeKpa),
    ("scripted", Policy::Scripted),
    ("oracle", Policy::Oracle),
    ("ray-serve", Policy::RayServe),
    ("ray-serve-legacy", Policy::RayServeLegacy),
    ("k8s-hpa", Policy::Hpa),
    ("keda", Policy::Keda),
    ("wva-saturation", Policy::WvaSaturation),
    ("dynamo-load", Policy::DynamoLoad),
];

/// The names of all autoscaler policies, as `autoscaler.policy` has them.
pub fn policy_names() -> impl Iterator<Item = &'static str> {
    POLICIES.iter().map(|(name, _)| *name)
}

impl Policy {
    /// The keys of `[autoscaler]` that are about this policy.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Policy::AibrixApa => aibrix::KEYS,
            Policy::Fireworks => fireworks::KEYS,
            Policy::Fixed | Policy::Oracle => &[],
            Policy::KnativeKpa => knative::KEYS,
            Policy::Scripted => planned::KEYS,
            Policy::RayServe | Policy::RayServeLegacy => ray_serve::KEYS,
            Policy::Hpa => hpa::HPA_KEYS,
            Policy::Keda => hpa::KEDA_KEYS,
            Policy::WvaSaturation => wva_saturation::KEYS,
            Policy::DynamoLoad => dynamo_load::KEYS,
        }
    }

    /// Whether what is wrong with its parameters is pointed at here. Ray Serve
    /// compares several with one another, and its file points at all of them.
    fn is_checked_here(self) -> bool {
        !matches!(
            self,
            Policy::Fireworks
                | Policy::Fixed
                | Policy::Scripted
                | Policy::Oracle
                | Policy::RayServe
                | Policy::RayServeLegacy
        )
    }

    fn decode(self, tables: &Tables<'_>) -> Chosen {
        match self {
            Policy::AibrixApa => aibrix::decode(tables),
            Policy::Fireworks => fireworks::decode(tables),
            Policy::Fixed => planned::fixed(tables),
            Policy::KnativeKpa => knative::decode(tables),
            Policy::Scripted => planned::scripted(tables),
            Policy::Oracle => planned::oracle(tables),
            Policy::RayServe => ray_serve::decode(tables, Delays::Clock),
            Policy::RayServeLegacy => ray_serve::decode(tables, Delays::Looks),
            Policy::Hpa => hpa::hpa(tables),
            Policy::Keda => hpa::keda(tables),
            Policy::WvaSaturation => wva_saturation::decode(tables),
            Policy::DynamoLoad => dynamo_load::decode(tables),
        }
    }
}

const PROFILES: [(&str, Profile); 2] = [
    ("spec", Profile::Spec),
    ("fireworks-2026", Profile::Fireworks2026),
];

/// What a policy is decoded from. The settings of `[deployment]` are the
/// specification's own, so they are checked, and may stay where they are,
/// whichever policy is tried out.
struct Tables<'a> {
    deployment: &'a Reader<'a>,
    autoscaler: Reader<'a>,
    counts: Counts,
    windows: Windows,
    load_targets: LoadTargets,
    profile: Profile,
}

impl Tables<'_> {
    /// The policy does nothing at zero replicas, so a run must not begin there.
    fn report_start_at_zero(&self, initial: u32) {
        let initial_count = &self.counts.initial;
        // Where nothing is written, it is the minimum, which is refused if it is 0.
        if initial > 0 || !initial_count.is_sound || !initial_count.is_written() {
            return;
        }
        let problem = Problem::new(
            "scenario::replicas",
            "this policy does nothing at 0 replicas, so the run would never have any",
        )
        .at_if_written(self.autoscaler.value_place("policy"), "starts nothing at 0")
        .at_if_written(initial_count.place, "the run begins with none")
        .help("write `initial_replica_count = 1`, or choose a policy that starts from zero");
        self.autoscaler.context.report(problem);
    }
}

pub(super) fn decode(deployment: &Reader<'_>, autoscaler: Reader<'_>) -> Autoscaling {
    let counts = Counts::decode(deployment);
    let windows = Windows::decode(deployment);
    let load_targets = fireworks::load_targets(deployment.table("load_targets"));
    // S13: a deployment is deleted when unused for one week.
    let unused = deployment.setting("unused_auto_delete_duration", 168 * HOUR, decode::duration);
    let profile = autoscaler
        .setting("profile", Profile::Spec, decode::choice(&PROFILES))
        .value;
    let policy = autoscaler
        .setting("policy", Policy::Fireworks, decode::choice(POLICIES))
        .value;
    let tables = Tables {
        deployment,
        autoscaler,
        counts,
        windows,
        load_targets,
        profile,
    };
    let chosen = policy.decode(&tables);
    if policy.is_checked_here() {
        refused::report(&tables, &chosen.autoscaler);
    }
    report_unused(&tables.autoscaler, policy);
    // Twice the longest answer of a large model (2,000 tokens at 10 a second)
    // fits in ten minutes; what is still running then has hung.
    let drain_timeout = tables
        .autoscaler
        .setting("drain_timeout", 10 * MINUTE, decode::duration)
        .value;
    let settings = settings(&tables, policy, &unused);
    tables.autoscaler.finish();
    Autoscaling {
        autoscaler: chosen.autoscaler,
        initial_replica_count: chosen.initial_replica_count,
        at_zero: if profile == Profile::Spec {
            AtZero::Hold
        } else {
            AtZero::Reject
        },
        profile,
        settings,
        drain_timeout,
    }
}

/// What the provider is asked for. Its counts and windows are those of the
/// policy `fireworks`; another policy has bounds of its own.
fn settings(tables: &Tables<'_>, policy: Policy, unused: &Setting<Nanos>) -> Settings {
    let Tables {
        counts, windows, ..
    } = tables;
    // Durations are read from 63 bits.
    let written = |window: &Setting<Nanos>| window.is_written().then_some(window.value as i64);
    let count = |count: &Setting<u32>| count.is_written().then_some(count.value);
    let settings = Settings {
        min_replica_count: count(&counts.min),
        max_replica_count: count(&counts.max),
        scale_up_window: written(&windows.up),
        scale_down_window: written(&windows.down),
        scale_to_zero_window: written(&windows.zero),
        unused_auto_delete_duration: written(unused),
        ..Settings::default()
    };
    if policy == Policy::Fireworks {
        return settings;
    }
    Settings {
        min_replica_count: Some(0),
        max_replica_count: Some(counts.max.value.max(REPLICA_COUNT_MAX)),
        unused_auto_delete_duration: settings.unused_auto_delete_duration,
        ..Settings::default()
    }
}

/// Settings of other policies, which the chosen one would ignore.
fn report_unused(autoscaler: &Reader<'_>, chosen: Policy) {
    let mut reported = Vec::new();
    for (_, key) in others(chosen) {
        if reported.contains(&key) {
            continue;
        }
        reported.push(key);
        let knowing = POLICIES
            .iter()
            .filter(|(_, each)| each.keys().contains(&key));
        let policies: Vec<String> = knowing
            .map(|(name, _)| format!("`policy = \"{name}\"`"))
            .collect();
        autoscaler.unused(&[key], &format!("unless {}", policies.join(" or ")));
    }
}

/// The keys that only other policies know, each with the policy.
fn others(chosen: Policy) -> impl Iterator<Item = (&'static str, &'static str)> {
    let others = POLICIES.iter().filter(move |(_, policy)| *policy != chosen);
    others.flat_map(move |(name, policy)| {
        let keys = policy.keys().iter().copied();
        let unknown = keys.filter(move |key| !chosen.keys().contains(key));
        unknown.map(|key| (*name, key))
    })
}

/// The keys of `[autoscaler]` that the policy of this name does not know and
/// others do; none if there is no such policy.
pub fn keys_of_others(name: &str) -> Vec<&'static str> {
    let chosen = POLICIES.iter().find(|(other, _)| *other == name);
    let keys = chosen.map(|(_, policy)| others(*policy).map(|(_, key)| key));
    keys.into_iter().flatten().collect()
}

/// As the provider's validator has it (B03).
const REPLICA_COUNT_MAX: u32 = 1000;

fn replica_count(field: Field<'_>) -> Result<u32, Problem> {
    decode::integer_between(field, 0, REPLICA_COUNT_MAX)
}
