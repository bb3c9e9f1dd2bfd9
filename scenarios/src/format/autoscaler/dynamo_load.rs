//! The policy `dynamo-load`, with the names of the planner's configuration.

use foresail_core::control::autoscaler::{AutoscalerConfig, DynamoLoadConfig, OptimizationTarget};
use foresail_core::time::SECOND;

use super::{Chosen, Tables};
use crate::format::decode;
use crate::format::node::Value;
use crate::format::problem::Problem;
use crate::format::reader::{Field, Reader};

/// The keys of `[autoscaler]` that are about this policy.
pub(super) const KEYS: &[&str] = &[
    "optimization_target",
    "load_adjustment_interval_seconds",
    "min_endpoint",
    "min_gpu_budget",
    "max_gpu_budget",
    "decode_engine_num_gpu",
    "decode_scale_up_kv_rate",
    "decode_scale_down_kv_rate",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Throughput,
    Latency,
    Load,
}

const TARGETS: [(&str, Target); 3] = [
    ("throughput", Target::Throughput),
    ("latency", Target::Latency),
    ("load", Target::Load),
];

pub(super) fn decode(tables: &Tables<'_>) -> Chosen {
    let autoscaler = &tables.autoscaler;
    let default = DynamoLoadConfig::default();
    let gpus = autoscaler.setting("decode_engine_num_gpu", 1, decode::positive_integer);
    let interval = autoscaler.setting("load_adjustment_interval_seconds", 5, |field| {
        decode::integer_between(field, 1, 3600)
    });
    let counts = &tables.counts;
    let own_min = autoscaler.setting("min_endpoint", 1, super::replica_count);
    let min = if counts.min.is_written() {
        report_both(
            autoscaler,
            "min_endpoint",
            "min_replica_count",
            own_min.place,
        );
        counts.min.value
    } else {
        own_min.value
    };
    let own_max = autoscaler.setting("max_gpu_budget", default.max_gpu_budget, budget);
    let max_gpu_budget = if counts.max.is_written() {
        report_both(
            autoscaler,
            "max_gpu_budget",
            "max_replica_count",
            own_max.place,
        );
        Some(counts.max.value.saturating_mul(gpus.value))
    } else {
        own_max.value
    };
    // At zero workers nothing reports, so it begins with one.
    let initial = if counts.initial.is_written() {
        counts.initial.value
    } else {
        min.max(1)
    };
    tables.report_start_at_zero(initial);
    Chosen {
        autoscaler: AutoscalerConfig::DynamoLoad(DynamoLoadConfig {
            optimization_target: target(autoscaler),
            load_adjustment_interval: u64::from(interval.value) * SECOND,
            min_endpoint: min,
            min_gpu_budget: autoscaler.setting("min_gpu_budget", None, budget).value,
            max_gpu_budget,
            gpus_per_replica: gpus.value,
        }),
        initial_replica_count: initial,
    }
}

fn target(autoscaler: &Reader<'_>) -> OptimizationTarget {
    let target = autoscaler.setting(
        "optimization_target",
        Target::Throughput,
        decode::choice(&TARGETS),
    );
    let percent = |field: Field<'_>| decode::non_negative_number(field);
    let up = autoscaler.optional("decode_scale_up_kv_rate", percent);
    let down = autoscaler.optional("decode_scale_down_kv_rate", percent);
    if target.value != Target::Load {
        let why = "unless `optimization_target = \"load\"`";
        autoscaler.unused(
            &["decode_scale_up_kv_rate", "decode_scale_down_kv_rate"],
            why,
        );
    }
    match target.value {
        Target::Throughput => OptimizationTarget::Throughput,
        Target::Latency => OptimizationTarget::Latency,
        Target::Load => {
            for (key, example, setting) in [
                ("decode_scale_up_kv_rate", "80", &up),
                ("decode_scale_down_kv_rate", "40", &down),
            ] {
                if !setting.is_written() {
                    autoscaler.missing(key, example);
                }
            }
            OptimizationTarget::Load {
                scale_up_kv_rate: up.value.unwrap_or(80.0),
                scale_down_kv_rate: down.value.unwrap_or(40.0),
            }
        }
    }
}

/// GPUs; -1 is no bound.
fn budget(field: Field<'_>) -> Result<Option<u32>, Problem> {
    if matches!(&field.node.value, Value::Integer(text) if text == "-1") {
        return Ok(None);
    }
    decode::integer_between(field, 0, 100_000).map(Some)
}

/// One bound under two names.
fn report_both(
    autoscaler: &Reader<'_>,
    own_key: &'static str,
    count: &str,
    own_place: Option<crate::format::problem::Place>,
) {
    if own_place.is_none() {
        return;
    }
    let path = autoscaler.path_of(own_key);
    let message = format!("`deployment.{count}` and `{path}` are the same bound");
    let problem = Problem::new("scenario::replicas", message)
        .at_if_written(
            own_place,
            "the same, by the name that this policy has for it",
        )
        .help("write one of them");
    autoscaler.context.report(problem);
}
