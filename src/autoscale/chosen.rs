//! Which policy it is, with its parameters.

use std::path::Path;

use foresail_core::control::autoscaler::AutoscalerConfig;
use foresail_scenarios::format::{self, LoadError, Overrides};
use foresail_scenarios::scenario::Scenario;

use super::Arguments;
use crate::diagnostics::Diagnostics;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// A policy, and how many replicas there are at first.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) config: AutoscalerConfig,
    pub(super) initial_replicas: u32,
}

/// A scenario in which nothing is said of the autoscaler. The rest has no effect here.
const BARE: &str = "[deployment]\nmodel = \"llama-3-8b\"\ngpu = \"h100\"\n\n[workload]\n\
    duration = \"1s\"\narrivals = { rate_per_s = 1 }\nprompt_tokens = 1\noutput_tokens = 1\n";

/// Keys that a parameter may have without `deployment.` before it; all others are
/// those of the table `[autoscaler]`.
const DEPLOYMENT_KEYS: [&str; 7] = [
    "min_replica_count",
    "max_replica_count",
    "initial_replica_count",
    "scale_up_window",
    "scale_down_window",
    "scale_to_zero_window",
    "load_targets",
];

/// The policy that the arguments name.
pub(super) fn of(arguments: &Arguments, terminal: &Terminal) -> Result<Chosen, Failure> {
    let chosen = load(
        arguments.scenario.as_deref(),
        arguments.policy.as_deref(),
        &arguments.set,
    )
    .map_err(|error| Diagnostics::failure(&error, terminal.error_style()))?;
    // What only a simulation can complete is not seen before.
    match chosen.config.validate() {
        Ok(()) => Ok(chosen),
        Err(error) => Err(Failure::Input(format!("{}: {error}", chosen.config.name()))),
    }
}

/// The policy of a scenario, or another one in its place, with some parameters set.
pub(super) fn load(
    scenario: Option<&Path>,
    policy: Option<&str>,
    set: &[String],
) -> Result<Chosen, LoadError> {
    let policy = policy.map(|name| format!("autoscaler.policy={name}"));
    let overrides = Overrides {
        set: policy
            .into_iter()
            .chain(set.iter().map(|each| whole_path(each)))
            .collect(),
        ..Overrides::default()
    };
    let Scenario { deployment, .. } = match scenario {
        Some(path) => format::load(path, &overrides)?,
        None => format::parse("--policy", BARE, Path::new(""), &overrides)?,
    };
    Ok(Chosen {
        config: deployment.autoscaler,
        initial_replicas: deployment.initial_replica_count,
    })
}

/// `upscale_delay_s=10` is `autoscaler.upscale_delay_s=10`.
fn whole_path(setting: &str) -> String {
    let path = setting.split_once('=').map_or(setting, |(path, _)| path);
    let first = path.split('.').next().unwrap_or(path).trim();
    if ["deployment", "autoscaler"].contains(&first) || path == setting {
        setting.to_owned()
    } else if DEPLOYMENT_KEYS.contains(&first) {
        format!("deployment.{setting}")
    } else {
        format!("autoscaler.{setting}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_needs_no_table() {
        assert_eq!(
            whole_path("upscale_delay_s=1"),
            "autoscaler.upscale_delay_s=1"
        );
        assert_eq!(
            whole_path("behavior.scaleUp.stabilizationWindowSeconds=0"),
            "autoscaler.behavior.scaleUp.stabilizationWindowSeconds=0"
        );
        assert_eq!(
            whole_path("max_replica_count=8"),
            "deployment.max_replica_count=8"
        );
        assert_eq!(whole_path("autoscaler.tick=2s"), "autoscaler.tick=2s");
        assert_eq!(
            whole_path("deployment.load_targets.default=0.5"),
            "deployment.load_targets.default=0.5"
        );
        assert_eq!(whole_path("nothing to set"), "nothing to set");
    }

    /// Some policies need to be told what they have no default for.
    #[test]
    fn every_policy_can_be_chosen() {
        for policy in format::policy_names() {
            let plan = super::super::columns::plan_of(policy);
            let chosen = load(None, Some(policy), &plan).expect(policy);
            assert_eq!(chosen.config.name(), policy);
        }
    }
}
