//! The policies `ray-serve` and `ray-serve-legacy`: Ray Serve's `autoscaling_config`,
//! with its names. Delays and intervals are numbers of seconds, as they are there.

use foresail_core::control::autoscaler::{
    AggregationFunction, AutoscalerConfig, ConfigError, Delays, RayServeConfig,
};

use super::counts::{Counts, OwnBounds};
use super::{Chosen, Tables, replica_count};
use crate::format::decode;
use crate::format::problem::{Place, Problem};
use crate::format::reader::Reader;

/// The keys of `[autoscaler]` that are about these policies.
pub(super) const KEYS: &[&str] = &[
    "min_replicas",
    "max_replicas",
    "initial_replicas",
    "target_ongoing_requests",
    "look_back_period_s",
    "metrics_interval_s",
    "upscale_delay_s",
    "downscale_delay_s",
    "downscale_to_zero_delay_s",
    "upscaling_factor",
    "downscaling_factor",
    "aggregation_function",
];

const AGGREGATION_FUNCTIONS: [(&str, AggregationFunction); 3] = [
    ("mean", AggregationFunction::Mean),
    ("max", AggregationFunction::Max),
    ("min", AggregationFunction::Min),
];

pub(super) fn decode(tables: &Tables<'_>, delays: Delays) -> Chosen {
    let Tables {
        autoscaler, counts, ..
    } = tables;
    let config = with_bounds(autoscaler, counts, numbers(autoscaler, delays));
    let initial_replica_count = config.initial();
    let config = AutoscalerConfig::RayServe(config);
    if let Err(error) = config.validate() {
        report(autoscaler, counts, &error);
    }
    Chosen {
        autoscaler: config,
        initial_replica_count,
    }
}

/// Everything but the numbers of replicas.
fn numbers(autoscaler: &Reader<'_>, delays: Delays) -> RayServeConfig {
    let default = RayServeConfig::default();
    let positive = |key, default| {
        let setting = autoscaler.setting(key, default, decode::positive_number);
        setting.value
    };
    let delay = |key, default| {
        let setting = autoscaler.setting(key, default, decode::non_negative_number);
        setting.value
    };
    let factor = |key| autoscaler.optional(key, decode::positive_number).value;
    let to_zero = "downscale_to_zero_delay_s";
    let aggregation_function = autoscaler.setting(
        "aggregation_function",
        default.aggregation_function,
        decode::choice(&AGGREGATION_FUNCTIONS),
    );
    RayServeConfig {
        delays,
        target_ongoing_requests: positive(
            "target_ongoing_requests",
            default.target_ongoing_requests,
        ),
        look_back_period_s: positive("look_back_period_s", default.look_back_period_s),
        metrics_interval_s: positive("metrics_interval_s", default.metrics_interval_s),
        upscale_delay_s: delay("upscale_delay_s", default.upscale_delay_s),
        downscale_delay_s: delay("downscale_delay_s", default.downscale_delay_s),
        downscale_to_zero_delay_s: autoscaler
            .optional(to_zero, decode::non_negative_number)
            .value,
        upscaling_factor: factor("upscaling_factor"),
        downscaling_factor: factor("downscaling_factor"),
        aggregation_function: aggregation_function.value,
        ..default
    }
}

fn with_bounds(
    autoscaler: &Reader<'_>,
    counts: &Counts,
    numbers: RayServeConfig,
) -> RayServeConfig {
    let own = OwnBounds {
        min_key: "min_replicas",
        min: numbers.min_replicas,
        max_key: "max_replicas",
        max: numbers.max_replicas,
    };
    let bounds = counts.bounds(autoscaler, &own);
    let initial = autoscaler.optional("initial_replicas", replica_count);
    if initial.is_written() && counts.initial.is_written() {
        let message =
            "`deployment.initial_replica_count` and `autoscaler.initial_replicas` are the same";
        let problem = Problem::new("scenario::replicas", message)
            .at_if_written(counts.initial.place, "for every policy")
            .at_if_written(initial.place, "the name that this policy has for it")
            .help("write one of them");
        autoscaler.context.report(problem);
    }
    RayServeConfig {
        min_replicas: bounds.min,
        max_replicas: bounds.max,
        initial_replicas: initial.value.or(Some(bounds.initial)),
        ..numbers
    }
}

/// What Ray Serve would refuse, at the value that it is about.
fn report(autoscaler: &Reader<'_>, counts: &Counts, error: &ConfigError) {
    let ConfigError::Parameter { name, .. } = error else {
        return;
    };
    let of_deployment = match *name {
        "max_replicas" => counts.max.place,
        "initial_replicas" => counts.initial.place,
        _ => None,
    };
    let place: Option<Place> = of_deployment.or(autoscaler.value_place(name));
    let path = autoscaler.path_of("policy");
    let problem = Problem::new("scenario::autoscaler", error.to_string())
        .at_if_written(place, "Ray Serve refuses this")
        .at_if_written(
            autoscaler.value_place("min_replicas").or(counts.min.place),
            "the fewest replicas",
        )
        .help(format!("change it, or choose another `{path}`"));
    autoscaler.context.report(problem);
}
