//! The parameters of each policy, and what is wrong with them.

use thiserror::Error;

use super::trace::Column;
use super::{Delays, DynamoLoadConfig, HpaConfig, KedaConfig, RayServeConfig, WvaSaturationConfig};
use super::{
    aibrix, dynamo_load, fireworks, fixed, foreseen, hpa, keda, knative, ray_serve, scripted,
    wva_saturation,
};
use crate::time::Nanos;

/// Which policy, with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum AutoscalerConfig {
    /// AIBrix's own autoscaler.
    AibrixApa(aibrix::AibrixApaConfig),
    /// The specification's policy (autoscaling windows, scale to zero).
    Fireworks(FireworksConfig),
    /// Always this many.
    Fixed {
        /// How many.
        replicas: u32,
    },
    /// Knative's autoscaler, with its activator.
    KnativeKpa(knative::KnativeKpaConfig),
    /// What a script says, whatever the load.
    Scripted {
        /// (from when, how many), in order of time; before the first entry, `initial`.
        steps: Vec<(Nanos, u32)>,
        /// How many before the first entry.
        initial: u32,
    },
    /// What the future calls for: a bound, not a policy that anyone could run.
    Oracle(OracleConfig),
    /// Ray Serve's autoscaler.
    RayServe(RayServeConfig),
    /// Kubernetes' Horizontal Pod Autoscaler.
    Hpa(HpaConfig),
    /// KEDA, with the HPA that it makes.
    Keda(KedaConfig),
    /// llm-d's Workload Variant Autoscaler with its saturation analyser.
    WvaSaturation(WvaSaturationConfig),
    /// The load-based part of NVIDIA Dynamo's planner.
    DynamoLoad(DynamoLoadConfig),
}

/// The parameters of the policy `oracle`.
#[derive(Clone, Debug, PartialEq)]
pub struct OracleConfig {
    /// Fewest replicas.
    pub min_replica_count: u32,
    /// Most replicas.
    pub max_replica_count: u32,
    /// Targets per replica: what it takes a load to call for another.
    pub load_targets: LoadTargets,
    /// What to do and when, once somebody knows the future.
    pub plan: Option<Vec<Foreseen>>,
}

/// A step of a plan that is made with knowledge of the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// When to ask for another number of replicas.
    pub at: Nanos,
    /// How many.
    pub replicas: u32,
    /// When the load calls for that many.
    pub needed_at: Nanos,
}

impl OracleConfig {
    /// Between these counts, at 0.8 of a batch a replica, without a plan.
    #[must_use]
    pub fn new(min_replica_count: u32, max_replica_count: u32) -> Self {
        OracleConfig {
            min_replica_count,
            max_replica_count,
            load_targets: LoadTargets::DEFAULT,
            plan: None,
        }
    }
}

/// The parameters of the specification's policy, with its names.
#[derive(Clone, Debug, PartialEq)]
pub struct FireworksConfig {
    /// Fewest replicas.
    pub min_replica_count: u32,
    /// Most replicas.
    pub max_replica_count: u32,
    /// How long load must be higher before replicas are added.
    pub scale_up_window: Nanos,
    /// How long load must be lower before replicas are removed.
    pub scale_down_window: Nanos,
    /// How long without requests before the last replicas go; ignored if the minimum is above 0.
    pub scale_to_zero_window: Nanos,
    /// Targets per replica; the largest replica count over them wins.
    pub load_targets: LoadTargets,
    /// What "wait after observing" means.
    pub window_semantics: WindowSemantics,
    /// Time between two looks at the load.
    pub tick: Nanos,
    /// Length of a trailing mean applied to the load before it is compared; 0 is none.
    pub signal_smoothing: Nanos,
    /// Over how long tokens and requests a second are measured; 0 is from one
    /// look to the next.
    pub rate_window: Nanos,
    /// Count at most one full batch a replica, so that queues do not count (to study the trap).
    pub occupancy_capped: bool,
    /// What the scale-to-zero window counts from.
    pub idle_from: IdleFrom,
}

/// Load a replica should have (B01). `None` does not take part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadTargets {
    /// Batch occupancy, in full batches, between 0 and 1.
    pub default: Option<f64>,
    /// Output tokens a second.
    pub tokens_generated_per_second: Option<f64>,
    /// Prompt tokens a second.
    pub prompt_tokens_per_second: Option<f64>,
    /// Requests a second.
    pub requests_per_second: Option<f64>,
    /// Requests received and not ended.
    pub concurrent_requests: Option<f64>,
}

impl LoadTargets {
    /// 0.8 of a batch (B01).
    pub const DEFAULT: Self = LoadTargets {
        default: Some(0.8),
        tokens_generated_per_second: None,
        prompt_tokens_per_second: None,
        requests_per_second: None,
        concurrent_requests: None,
    };

    /// Whether a target is about something a second.
    pub(super) fn has_rates(&self) -> bool {
        let rates = [
            self.tokens_generated_per_second,
            self.prompt_tokens_per_second,
            self.requests_per_second,
        ];
        rates.iter().any(Option::is_some)
    }
}

/// Five readings of "wait X before scaling after observing a change of load".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowSemantics {
    /// A timer that a single dip resets; the level at the moment it fires (Ray Serve).
    Sustained,
    /// Clamp between the minimum over the up window and the maximum over the down window (Kubernetes HPA).
    Stabilized,
    /// From the mean load over each window (Knative).
    Average,
    /// Act at once, then rest for a window.
    Cooldown,
    /// The first difference starts a timer; what holds at its end is applied.
    Oneshot,
}

/// What the scale-to-zero window counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleFrom {
    /// The last request received.
    LastReceived,
    /// The last moment a request was received or in flight.
    LastActive,
}

/// Why parameters cannot be used. Each says which one to change.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ConfigError {
    /// A parameter that the autoscaler this policy replicates would refuse, too.
    #[error("{name} must be {expected}: {value}")]
    Parameter {
        /// The parameter, as that autoscaler calls it.
        name: &'static str,
        /// What it may be: that autoscaler's own bound.
        expected: &'static str,
        /// What it is.
        value: String,
    },
    /// The text is that of the provider's own validator (B03).
    #[error("min_replica_count cannot be greater than max_replica_count ({min} > {max})")]
    MinAboveMax {
        /// `min_replica_count`.
        min: u32,
        /// `max_replica_count`.
        max: u32,
    },
    /// Without time between two looks at the load, time would stand still.
    #[error("tick must be greater than 0")]
    TickZero,
    /// Nothing to compare the load with.
    #[error("at least one load target is needed")]
    NoLoadTarget,
    /// A load target has to be a positive number; batch occupancy at most 1.
    #[error("load target {name} must be {expected}: {value}")]
    LoadTarget {
        /// The key of the target.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        value: f64,
    },
    /// An oracle has to be told the future.
    #[error("the oracle has no plan yet: only a simulation can make one")]
    NoPlan,
    /// The steps of a script must come in order of time.
    #[error("script step {index} must come after the step before it")]
    ScriptOrder {
        /// Position of the step, from 0.
        index: usize,
    },
}

impl AutoscalerConfig {
    /// What people call the policy.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            AutoscalerConfig::AibrixApa(_) => "aibrix-apa",
            AutoscalerConfig::Fireworks(_) => "fireworks",
            AutoscalerConfig::Fixed { .. } => "fixed",
            AutoscalerConfig::KnativeKpa(_) => "knative-kpa",
            AutoscalerConfig::Scripted { .. } => "scripted",
            AutoscalerConfig::Oracle(_) => "oracle",
            AutoscalerConfig::RayServe(config) => match config.delays {
                Delays::Clock => "ray-serve",
                Delays::Looks => "ray-serve-legacy",
            },
            AutoscalerConfig::Hpa(_) => "k8s-hpa",
            AutoscalerConfig::Keda(_) => "keda",
            AutoscalerConfig::WvaSaturation(_) => "wva-saturation",
            AutoscalerConfig::DynamoLoad(_) => "dynamo-load",
        }
    }

    /// The columns of a trace that the policy reads, beside the time.
    #[must_use]
    pub fn columns(&self) -> &'static [Column] {
        match self {
            AutoscalerConfig::AibrixApa(_) => aibrix::COLUMNS,
            AutoscalerConfig::Fireworks(_) => fireworks::COLUMNS,
            AutoscalerConfig::Fixed { .. } => fixed::COLUMNS,
            AutoscalerConfig::KnativeKpa(_) => knative::COLUMNS,
            AutoscalerConfig::Scripted { .. } => scripted::COLUMNS,
            AutoscalerConfig::Oracle(_) => foreseen::COLUMNS,
            AutoscalerConfig::RayServe(_) => ray_serve::COLUMNS,
            AutoscalerConfig::Hpa(_) => hpa::COLUMNS,
            AutoscalerConfig::Keda(_) => keda::COLUMNS,
            AutoscalerConfig::WvaSaturation(_) => wva_saturation::COLUMNS,
            AutoscalerConfig::DynamoLoad(_) => dynamo_load::COLUMNS,
        }
    }

    /// Finds the first parameter that cannot be used.
    ///
    /// # Errors
    /// A [`ConfigError`] names the parameter and what it may be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            AutoscalerConfig::AibrixApa(config) => config.validate(),
            AutoscalerConfig::Fireworks(config) => config.validate(),
            AutoscalerConfig::Fixed { .. } => Ok(()),
            AutoscalerConfig::KnativeKpa(config) => config.validate(),
            AutoscalerConfig::Scripted { steps, .. } => in_order(steps),
            AutoscalerConfig::Oracle(config) => match &config.plan {
                Some(_) => config.load_targets.validate(),
                None => Err(ConfigError::NoPlan),
            },
            AutoscalerConfig::RayServe(config) => config.validate(),
            AutoscalerConfig::Hpa(config) => config.validate(),
            AutoscalerConfig::Keda(config) => config.validate(),
            AutoscalerConfig::WvaSaturation(config) => config.validate(),
            AutoscalerConfig::DynamoLoad(config) => config.validate(),
        }
    }
}

impl FireworksConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let (min, max) = (self.min_replica_count, self.max_replica_count);
        // A maximum of 0 parks the deployment at zero, whatever the minimum (B03).
        if max > 0 && min > max {
            return Err(ConfigError::MinAboveMax { min, max });
        }
        if self.tick == 0 {
            return Err(ConfigError::TickZero);
        }
        self.load_targets.validate()
    }
}

impl LoadTargets {
    fn validate(&self) -> Result<(), ConfigError> {
        let positive = "a positive number";
        let targets = [
            ("default", self.default, "above 0 and at most 1"),
            (
                "tokens_generated_per_second",
                self.tokens_generated_per_second,
                positive,
            ),
            (
                "prompt_tokens_per_second",
                self.prompt_tokens_per_second,
                positive,
            ),
            ("requests_per_second", self.requests_per_second, positive),
            ("concurrent_requests", self.concurrent_requests, positive),
        ];
        if targets.iter().all(|(_, value, _)| value.is_none()) {
            return Err(ConfigError::NoLoadTarget);
        }
        for (name, value, expected) in targets {
            let Some(value) = value else { continue };
            let most = if name == "default" { 1.0 } else { f64::MAX };
            if !(value > 0.0 && value <= most) {
                return Err(ConfigError::LoadTarget {
                    name,
                    expected,
                    value,
                });
            }
        }
        Ok(())
    }
}

fn in_order(steps: &[(Nanos, u32)]) -> Result<(), ConfigError> {
    match steps.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
        Some(earlier) => Err(ConfigError::ScriptOrder { index: earlier + 1 }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    fn config(edit: impl FnOnce(&mut FireworksConfig)) -> Result<(), ConfigError> {
        let mut config = super::super::conformance::defaults();
        edit(&mut config);
        AutoscalerConfig::Fireworks(config).validate()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(config(|_| {}), Ok(()));
    }

    #[test]
    fn min_above_max_is_refused_unless_parked_at_zero() {
        let error = config(|c| (c.min_replica_count, c.max_replica_count) = (3, 2)).unwrap_err();
        assert_eq!(error, ConfigError::MinAboveMax { min: 3, max: 2 });
        assert_eq!(
            error.to_string(),
            "min_replica_count cannot be greater than max_replica_count (3 > 2)"
        );
        assert_eq!(
            config(|c| (c.min_replica_count, c.max_replica_count) = (3, 0)),
            Ok(())
        );
    }

    #[test]
    fn a_tick_of_zero_is_refused() {
        assert_eq!(config(|c| c.tick = 0), Err(ConfigError::TickZero));
    }

    #[test]
    fn load_targets_must_be_positive_and_there_must_be_one() {
        assert_eq!(
            config(|c| c.load_targets.default = None),
            Err(ConfigError::NoLoadTarget)
        );
        for bad in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(
                config(|c| c.load_targets.default = Some(bad)).is_err(),
                "{bad}"
            );
        }
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(
                config(|c| c.load_targets.requests_per_second = Some(bad)).is_err(),
                "{bad}"
            );
        }
        let error = config(|c| c.load_targets.default = Some(1.5)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "load target default must be above 0 and at most 1: 1.5"
        );
    }

    #[test]
    fn script_steps_must_ascend() {
        let script = |times: &[u64]| AutoscalerConfig::Scripted {
            steps: times.iter().map(|&t| (t * SECOND, 1)).collect(),
            initial: 0,
        };
        assert_eq!(script(&[1, 2, 3]).validate(), Ok(()));
        assert_eq!(
            script(&[1, 2, 2]).validate(),
            Err(ConfigError::ScriptOrder { index: 2 })
        );
    }
}
