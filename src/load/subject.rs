//! What is sent, what is asked of it, and what is known of who answers: out of a
//! scenario, a trace, or options.

use std::path::Path;

use foresail_core::control::biller::BillingRule;
use foresail_loadgen::scrape::Billing;
use foresail_reports::ObjectiveSpec;
use foresail_reports::summary::ScenarioFacts;
use foresail_scenarios::clients::Clients;
use foresail_scenarios::scenario::{Group, Scenario};
use foresail_scenarios::workload::{
    Adapters, ServeGenSource, Source, TraceSource, Transforms, Workload,
};

use super::arguments::Arguments;
use super::traffic;
use crate::description;
use crate::diagnostics::Diagnostics;
use crate::failure::Failure;
use crate::runs;
use crate::terminal::Terminal;

/// What is sent, what is asked of it, and what is known of who answers.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// Its name, its deployment, and what the command line changed about it.
    pub(super) facts: ScenarioFacts,
    /// The seed of the run, which reports are of.
    pub(super) seed: u64,
    /// What is drawn is under this seed: that of the run, or in a list one derived from it.
    pub(super) workload_seed: u64,
    /// The requests; the contents of a dataset come later.
    pub(super) workload: Workload,
    /// How patient its clients are.
    pub(super) clients: Clients,
    /// What the run is judged by.
    pub(super) objectives: Vec<ObjectiveSpec>,
    /// What GPU-time costs; `None` if nobody said.
    pub(super) billing: Option<Billing>,
    /// How many replicas there are, if their number is fixed.
    pub(super) replicas: Option<u32>,
}

/// The subject that the arguments name.
pub(super) fn of(arguments: &Arguments, terminal: &Terminal) -> Result<Subject, Failure> {
    match &arguments.scenario {
        Some(path) => of_scenario(path, arguments, terminal),
        None => of_options(arguments),
    }
}

fn of_scenario(
    path: &Path,
    arguments: &Arguments,
    terminal: &Terminal,
) -> Result<Subject, Failure> {
    let overrides = arguments.changes.overrides();
    let prepared = runs::prepare_one(path, &overrides).map_err(|unsound| {
        let mut diagnostics = Diagnostics::new(terminal.error_style());
        unsound.add_to(&mut diagnostics, path);
        diagnostics.into_failure()
    })?;
    let group: Group = prepared.group;
    let Some(scenario) = group.deployments.first() else {
        let text = "a scenario without a deployment".to_owned();
        return Err(Failure::Defect(text));
    };
    let seed = group.seed;
    let workload_seed = group.seed_of(scenario, seed);
    let settings = arguments.changes.settings();
    Ok(Subject {
        facts: description::facts(scenario, &settings),
        seed,
        workload_seed,
        workload: scenario.workload.clone(),
        clients: scenario.clients.clone(),
        objectives: description::objectives(scenario),
        billing: Some(billing(scenario)),
        replicas: arguments.servers.replicas().or(fixed_replicas(scenario)),
    })
}

fn billing(scenario: &Scenario) -> Billing {
    let deployment = &scenario.deployment;
    Billing {
        world_size: deployment.world_size,
        price: deployment.price,
        rule: deployment.billing,
    }
}

/// The number of replicas of a deployment that never has another.
fn fixed_replicas(scenario: &Scenario) -> Option<u32> {
    let (min, max) = description::replica_counts(&scenario.deployment.autoscaler);
    (min == max).then_some(min)
}

fn of_options(arguments: &Arguments) -> Result<Subject, Failure> {
    let workload = match arguments.changes.trace() {
        Some(trace) => of_trace(trace)?,
        None => traffic::workload(arguments)?,
    };
    // vLLM's default; a scenario's own is 1.
    let seed = arguments.changes.seed().unwrap_or(0);
    Ok(Subject {
        facts: facts(arguments),
        seed,
        workload_seed: seed,
        workload,
        clients: Clients::default(),
        objectives: Vec::new(),
        billing: stated_billing(arguments),
        replicas: arguments.servers.replicas(),
    })
}

/// A file of requests, or a folder of client pools.
fn of_trace(path: &Path) -> Result<Workload, Failure> {
    let source = match ServeGenSource::is_folder_of_pools(path) {
        true => Source::ServeGen(ServeGenSource {
            folder: path.to_owned(),
            duration: None,
        }),
        false if path.is_file() => Source::Trace(TraceSource::new(path)),
        false => {
            return Err(Failure::Input(format!(
                "--trace {}: there is no such file, nor a folder of client pools",
                path.display()
            )));
        }
    };
    Ok(Workload {
        source,
        transforms: Transforms::default(),
        adapters: Adapters::default(),
    })
}

/// What is known without a scenario.
fn facts(arguments: &Arguments) -> ScenarioFacts {
    let servers = &arguments.servers;
    let (replicas, price) = (servers.replicas(), servers.usd_per_gpu_hour);
    ScenarioFacts {
        name: name(arguments),
        settings: arguments.changes.settings(),
        world_size: servers.world_size.map_or(0, |gpus| gpus.get()),
        replica_count_min: replicas,
        replica_count_max: replicas,
        usd_per_gpu_hour: price.map_or(0.0, |price| price.nanodollars_per_gpu_hour as f64 / 1e9),
        price_source: match price {
            Some(_) => "--usd-per-gpu-hour".to_owned(),
            None => String::new(),
        },
        ..ScenarioFacts::default()
    }
}

/// What reports call it.
fn name(arguments: &Arguments) -> String {
    let file = arguments
        .changes
        .trace()
        .or(arguments.prompts.dataset_path.as_deref());
    let stem = file.and_then(Path::file_stem);
    stem.map_or("load".to_owned(), |stem| {
        stem.to_string_lossy().into_owned()
    })
}

/// What was said of the price: a GPU a replica unless it was said otherwise.
fn stated_billing(arguments: &Arguments) -> Option<Billing> {
    let servers = &arguments.servers;
    Some(Billing {
        world_size: servers.world_size.map_or(1, |gpus| gpus.get()),
        price: servers.usd_per_gpu_hour?,
        // As scenarios have it by default: a replica that starts is not billed, one that drains is.
        rule: BillingRule {
            starting: false,
            draining: true,
        },
    })
}
