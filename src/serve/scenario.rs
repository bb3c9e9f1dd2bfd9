//! The deployment of a scenario, as one emulated replica: what a simulation of
//! the scenario computes with, behind OpenAI's API.

use foresail_engine::emulated::Emulation;
use foresail_engine::weights::Adapter;
use foresail_reports::Style;
use foresail_scenarios::format::{self, Overrides};
use foresail_scenarios::scenario::{self, Deployment};

use super::Arguments;
use crate::description;
use crate::diagnostics::Diagnostics;
use crate::failure::Failure;
use crate::subject::Dtype;

/// One replica of a deployment.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) model: String,
    pub(super) gpu: String,
    pub(super) emulation: Emulation,
    /// Names that requests can ask for: an emulated adapter has no weights.
    pub(super) adapters: Vec<Adapter>,
    /// What of the scenario one replica does not stand for.
    pub(super) note: Option<String>,
}

/// The replica of the scenario that the arguments name.
pub(super) fn replica(arguments: &Arguments, style: Style) -> Result<Replica, Failure> {
    refuse_settings(arguments)?;
    let path = arguments.scenario.as_deref().unwrap_or("".as_ref());
    let overrides = Overrides {
        set: arguments.set.clone(),
        ..Overrides::default()
    };
    let scenario =
        format::load(path, &overrides).map_err(|error| Diagnostics::failure(&error, style))?;
    Ok(of_deployment(&scenario.deployment))
}

fn of_deployment(deployment: &Deployment) -> Replica {
    let adapters = deployment.adapters.iter();
    let adapters = adapters.flat_map(|adapters| &adapters.deployed);
    Replica {
        model: deployment.model.clone(),
        gpu: deployment.gpu.clone(),
        emulation: Emulation::of(deployment),
        adapters: adapters.map(without_weights).collect(),
        note: note(deployment),
    }
}

fn without_weights(adapter: &scenario::Adapter) -> Adapter {
    Adapter {
        name: adapter.name.clone(),
        rank: adapter.rank as usize,
        scale: 1.0,
        layers: Vec::new(),
    }
}

/// A scenario with more replicas, or another number of them, is served by one all the same:
/// several servers behind a gateway are several replicas.
fn note(deployment: &Deployment) -> Option<String> {
    let (min, max) = description::replica_counts(&deployment.autoscaler);
    let counts = match (min, max) {
        (1, 1) => return None,
        (min, max) if min == max => format!("{min}"),
        (min, max) => format!("{min} to {max}"),
    };
    Some(format!(
        "the scenario's deployment has {counts} replicas, and this is one of them, ready from the \
         start; for a simulation of the same: --set deployment.min_replica_count=1 \
         --set deployment.max_replica_count=1"
    ))
}

/// The scenario says these itself.
fn refuse_settings(arguments: &Arguments) -> Result<(), Failure> {
    let settings = [
        ("--gpu", arguments.gpu.is_some()),
        ("--world-size", arguments.world_size.is_some()),
        ("--threads", arguments.threads.is_some()),
        ("--dtype", arguments.dtype != Dtype::Auto),
        ("--kv-dtype", arguments.kv_dtype != Dtype::Auto),
        ("--kv-cache-memory", arguments.kv_cache_memory.is_some()),
        ("--block-size", arguments.block_size.is_some()),
        ("--max-model-len", arguments.max_model_len.is_some()),
        ("--max-num-seqs", arguments.max_num_seqs.is_some()),
        (
            "--max-batched-tokens",
            arguments.max_batched_tokens.is_some(),
        ),
        ("--adapter", !arguments.adapter.is_empty()),
        ("--enable-adapter-loading", arguments.enable_adapter_loading),
        ("--max-loras", arguments.max_loras.is_some()),
        ("--max-lora-rank", arguments.max_lora_rank.is_some()),
        ("--seed", arguments.seed.is_some()),
    ];
    let given = settings.into_iter().filter(|(_, is_given)| *is_given);
    let given: Vec<_> = given.map(|(name, _)| name).collect();
    if given.is_empty() {
        return Ok(());
    }
    Err(Failure::Input(format!(
        "{}: the scenario says it; change it with --set, such as --set deployment.gpu=h200",
        given.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn replica_of(scenario: &str) -> Replica {
        let scenario = format::load(Path::new(scenario), &Overrides::default()).unwrap();
        of_deployment(&scenario.deployment)
    }

    #[test]
    fn adapters_are_models_of_their_names() {
        let replica = replica_of("adapters");
        assert_eq!(replica.adapters.len(), 40);
        assert_eq!(replica.emulation.settings.host_adapters_max, 40);
        assert_eq!(replica.note, None, "it has one replica");
    }

    #[test]
    fn what_one_replica_does_not_stand_for_is_said() {
        let note = replica_of("chat").note.unwrap();
        assert!(note.contains("has 1 to 3 replicas"), "{note}");
    }
}
