//! The policies that follow a plan instead of the traffic: `fixed`, `scripted`,
//! and `oracle`, whose plan is made of the traffic to come.

use foresail_core::control::autoscaler::{AutoscalerConfig, OracleConfig};
use foresail_core::time::Nanos;

use super::{Chosen, Tables, replica_count};
use crate::format::decode;
use crate::format::node::Value;
use crate::format::problem::Problem;
use crate::format::reader::Field;

/// The keys of `[autoscaler]` that are about `scripted`.
pub(super) const KEYS: &[&str] = &["steps"];

/// As many replicas as the minimum, which must then be the maximum too.
pub(super) fn fixed(tables: &Tables<'_>) -> Chosen {
    let counts = &tables.counts;
    if counts.min.value != counts.max.value && counts.min.is_sound && counts.max.is_sound {
        let autoscaler = &tables.autoscaler;
        let problem = Problem::new(
            "scenario::replicas",
            "a fixed deployment has one replica count",
        )
        .at_if_written(
            autoscaler.value_place("policy"),
            "always the same number of replicas",
        )
        .at_if_written(counts.min.place, format!("at least {}", counts.min.value))
        .at_if_written(counts.max.place, format!("at most {}", counts.max.value))
        .help("give `min_replica_count` and `max_replica_count` the same number, above 0");
        autoscaler.context.report(problem);
    }
    Chosen {
        autoscaler: AutoscalerConfig::Fixed {
            replicas: counts.min.value,
        },
        initial_replica_count: counts.initial.value,
    }
}

pub(super) fn scripted(tables: &Tables<'_>) -> Chosen {
    let steps = tables.autoscaler.optional("steps", steps);
    if !steps.is_written() {
        let example = "[{ at = \"10m\", replicas = 3 }]";
        tables.autoscaler.missing("steps", example);
    }
    let initial = tables.counts.initial.value;
    Chosen {
        autoscaler: AutoscalerConfig::Scripted {
            steps: steps.value.unwrap_or_default(),
            initial,
        },
        initial_replica_count: initial,
    }
}

/// Between the same counts, and by the same load targets, as the policy `fireworks`.
pub(super) fn oracle(tables: &Tables<'_>) -> Chosen {
    let Tables {
        counts,
        load_targets,
        ..
    } = tables;
    Chosen {
        autoscaler: AutoscalerConfig::Oracle(OracleConfig {
            load_targets: *load_targets,
            ..OracleConfig::new(counts.min.value, counts.max.value)
        }),
        initial_replica_count: counts.initial.value,
    }
}

/// `[{ at = "10m", replicas = 3 }, …]`, in order of time.
fn steps(field: Field<'_>) -> Result<Vec<(Nanos, u32)>, Problem> {
    const EXAMPLE: &str = "for example `steps = [{ at = \"10m\", replicas = 3 }]`";
    let Value::Array(items) = &field.node.value else {
        return Err(field.wrong_type("a list of steps").help(EXAMPLE));
    };
    let mut steps: Vec<(Nanos, u32)> = Vec::with_capacity(items.len());
    for item in items {
        let item_field = Field {
            node: item,
            ..field
        };
        let reader = item_field.reader()?;
        let at = reader.required("at", "\"10m\"", decode::duration);
        let replicas = reader.required("replicas", "3", replica_count);
        reader.finish();
        let (Some(time), Some(replicas)) = (at.value, replicas.value) else {
            continue;
        };
        if steps.last().is_some_and(|(before, _)| *before >= time) {
            let message = "the steps of a script must be in order of time";
            return Err(Problem::new("scenario::script", message)
                .at_if_written(at.place, "not after the step before it")
                .help("sort the steps by `at`, and give each time once"));
        }
        steps.push((time, replicas));
    }
    Ok(steps)
}
