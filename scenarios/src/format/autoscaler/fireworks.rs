//! The policy `fireworks`: the windows of `[deployment]`, and how they are read.

use foresail_core::control::autoscaler::{
    AutoscalerConfig, FireworksConfig, IdleFrom, LoadTargets, WindowSemantics,
};
use foresail_core::control::lifecycle::Profile;
use foresail_core::time::{HOUR, MINUTE, Nanos, SECOND};

use super::{Chosen, Tables};
use crate::format::decode;
use crate::format::problem::Problem;
use crate::format::reader::{Reader, Setting};

/// The keys of `[autoscaler]` that are about this policy.
pub(super) const KEYS: &[&str] = &[
    "window_semantics",
    "tick",
    "signal_smoothing",
    "rate_window",
    "occupancy_capped",
    "idle_from",
];

const SEMANTICS: [(&str, WindowSemantics); 5] = [
    ("sustained", WindowSemantics::Sustained),
    ("stabilized", WindowSemantics::Stabilized),
    ("average", WindowSemantics::Average),
    ("cooldown", WindowSemantics::Cooldown),
    ("oneshot", WindowSemantics::Oneshot),
];

const IDLE_FROM: [(&str, IdleFrom); 2] = [
    ("last-received", IdleFrom::LastReceived),
    ("last-active", IdleFrom::LastActive),
];

pub(super) fn decode(tables: &Tables<'_>) -> Chosen {
    let Tables {
        deployment,
        autoscaler,
        counts,
        windows,
        load_targets,
        profile,
    } = tables;
    let mut windows = *windows;
    if *profile == Profile::Fireworks2026 {
        windows.check_limits_of_2026(deployment);
    }
    let window_semantics = autoscaler.setting(
        "window_semantics",
        WindowSemantics::Sustained,
        decode::choice(&SEMANTICS),
    );
    let idle_from = autoscaler.setting(
        "idle_from",
        IdleFrom::LastReceived,
        decode::choice(&IDLE_FROM),
    );
    let config = FireworksConfig {
        min_replica_count: counts.min.value,
        max_replica_count: counts.max.value,
        scale_up_window: windows.up.value,
        scale_down_window: windows.down.value,
        scale_to_zero_window: windows.zero.value,
        load_targets: *load_targets,
        window_semantics: window_semantics.value,
        tick: autoscaler.setting("tick", SECOND, decode::tick).value,
        signal_smoothing: autoscaler
            .setting("signal_smoothing", 0, decode::duration)
            .value,
        // The provider renews its metrics every 30 s (B14).
        rate_window: autoscaler
            .setting("rate_window", 30 * SECOND, decode::duration)
            .value,
        occupancy_capped: autoscaler
            .setting("occupancy_capped", false, decode::boolean)
            .value,
        idle_from: idle_from.value,
    };
    Chosen {
        autoscaler: AutoscalerConfig::Fireworks(config),
        initial_replica_count: counts.initial.value,
    }
}

/// The windows of `[deployment]`.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    pub(super) up: Setting<Nanos>,
    pub(super) down: Setting<Nanos>,
    pub(super) zero: Setting<Nanos>,
}

impl Windows {
    pub(super) fn decode(deployment: &Reader<'_>) -> Self {
        Self {
            // S26, S27 and S28.
            up: deployment.setting("scale_up_window", 30 * SECOND, decode::duration),
            down: deployment.setting("scale_down_window", 10 * MINUTE, decode::duration),
            zero: deployment.setting("scale_to_zero_window", HOUR, decode::duration),
        }
    }

    /// B02 and B03: up and down at most 1h, to zero at least 5m, and 0 means unset.
    fn check_limits_of_2026(&mut self, deployment: &Reader<'_>) {
        for (name, window) in [
            ("scale_up_window", self.up),
            ("scale_down_window", self.down),
        ] {
            if window.value > HOUR {
                let message = format!("`deployment.{name}` must be at most 1 hour");
                let problem = Problem::new("scenario::window", message)
                    .at_if_written(window.place, "longer than the provider allows")
                    .help("write `1h` or less, or leave out `profile = \"fireworks-2026\"`");
                deployment.context.report(problem);
            }
        }
        if self.zero.value == 0 {
            self.zero.value = HOUR;
        } else if self.zero.value < 5 * MINUTE {
            let message = "`deployment.scale_to_zero_window` must be at least 5 minutes";
            let problem = Problem::new("scenario::window", message)
                .at_if_written(self.zero.place, "shorter than the provider allows")
                .help("write `5m` or more, or leave out `profile = \"fireworks-2026\"`");
            deployment.context.report(problem);
        }
    }
}

/// `[deployment.load_targets]`: 80 % batch occupancy unless something else is said (B01).
pub(super) fn load_targets(reader: Reader<'_>) -> LoadTargets {
    let tokens_generated_per_second = reader
        .optional("tokens_generated_per_second", decode::positive_number)
        .value;
    let prompt_tokens_per_second = reader
        .optional("prompt_tokens_per_second", decode::positive_number)
        .value;
    let requests_per_second = reader
        .optional("requests_per_second", decode::positive_number)
        .value;
    let concurrent_requests = reader
        .optional("concurrent_requests", decode::positive_number)
        .value;
    // Another target stands in place of the default one, as on the provider's
    // command line, where `--load-targets` replaces `default=0.8`.
    let others = [
        tokens_generated_per_second,
        prompt_tokens_per_second,
        requests_per_second,
        concurrent_requests,
    ];
    let fallback = others.iter().all(Option::is_none).then_some(0.8);
    let default = reader
        .setting("default", fallback, |field| decode::share(field).map(Some))
        .value;
    reader.finish();
    LoadTargets {
        default,
        tokens_generated_per_second,
        prompt_tokens_per_second,
        requests_per_second,
        concurrent_requests,
    }
}
