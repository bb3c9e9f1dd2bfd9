//! The policy `wva-saturation`, with the names of its configuration map.

use foresail_core::control::autoscaler::{AutoscalerConfig, WvaSaturationConfig};

use super::counts::OwnBounds;
use super::{Chosen, Tables};
use crate::format::decode;

/// The keys of `[autoscaler]` that are about this policy.
pub(super) const KEYS: &[&str] = &[
    "minReplicas",
    "maxReplicas",
    "kvCacheThreshold",
    "queueLengthThreshold",
    "kvSpareTrigger",
    "queueSpareTrigger",
    "interval",
    "scrape_interval",
    "enable_scale_to_zero",
    "retention_period",
];

pub(super) fn decode(tables: &Tables<'_>) -> Chosen {
    let autoscaler = &tables.autoscaler;
    let default = WvaSaturationConfig::default();
    let number = |key, default| {
        let setting = autoscaler.setting(key, default, decode::non_negative_number);
        setting.value
    };
    let enable_scale_to_zero = autoscaler
        .setting("enable_scale_to_zero", false, decode::boolean)
        .value;
    let own = OwnBounds {
        min_key: "minReplicas",
        min: if enable_scale_to_zero { 0 } else { 1 },
        max_key: "maxReplicas",
        max: default.max_replicas,
    };
    let bounds = tables.counts.bounds(autoscaler, &own);
    let config = WvaSaturationConfig {
        min_replicas: bounds.min,
        max_replicas: bounds.max,
        kv_cache_threshold: number("kvCacheThreshold", default.kv_cache_threshold),
        queue_length_threshold: number("queueLengthThreshold", default.queue_length_threshold),
        kv_spare_trigger: number("kvSpareTrigger", default.kv_spare_trigger),
        queue_spare_trigger: number("queueSpareTrigger", default.queue_spare_trigger),
        interval: autoscaler
            .setting("interval", default.interval, decode::tick)
            .value,
        scrape_interval: autoscaler
            .setting("scrape_interval", default.scrape_interval, decode::tick)
            .value,
        enable_scale_to_zero,
        retention_period: autoscaler
            .setting(
                "retention_period",
                default.retention_period,
                decode::positive_duration,
            )
            .value,
    };
    Chosen {
        autoscaler: AutoscalerConfig::WvaSaturation(config),
        initial_replica_count: bounds.initial,
    }
}
