//! The replica counts and windows of `[deployment]`, and `[autoscaler]`: how
//! many replicas there are, and when that changes.

use foresail_core::control::autoscaler::{
    AutoscalerConfig, FireworksConfig, IdleFrom, LoadTargets, WindowSemantics,
};
use foresail_core::time::{HOUR, MINUTE, Nanos, SECOND};

use super::decode;
use super::node::Value;
use super::problem::Problem;
use super::reader::{Field, Reader, Setting};
use crate::scenario::AtZero;

/// What the two tables say together.
pub(super) struct Autoscaling {
    pub(super) autoscaler: AutoscalerConfig,
    pub(super) initial_replica_count: u32,
    pub(super) at_zero: AtZero,
    pub(super) unused_auto_delete_duration: Nanos,
    pub(super) drain_timeout: Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Fireworks,
    Fixed,
    Scripted,
}

const POLICIES: [(&str, Policy); 3] = [
    ("fireworks", Policy::Fireworks),
    ("fixed", Policy::Fixed),
    ("scripted", Policy::Scripted),
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

/// Which documentation of the provider is followed where two differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Profile {
    /// The specification: requests wait while a replica starts from zero.
    Spec,
    /// The provider's documentation of 2026: a 503 at zero, and limits on windows.
    Fireworks2026,
}

const PROFILES: [(&str, Profile); 2] = [
    ("spec", Profile::Spec),
    ("fireworks-2026", Profile::Fireworks2026),
];

/// The replica counts as they are written.
struct Counts {
    min: Setting<u32>,
    max: Setting<u32>,
    initial: Setting<u32>,
}

struct Windows {
    up: Setting<Nanos>,
    down: Setting<Nanos>,
    zero: Setting<Nanos>,
}

pub(super) fn decode(deployment: &Reader<'_>, autoscaler: Reader<'_>) -> Autoscaling {
    let counts = Counts::decode(deployment);
    let mut windows = Windows::decode(deployment);
    let load_targets = load_targets(deployment.table("load_targets"));
    // S13: a deployment is deleted when unused for one week.
    let unused_auto_delete_duration = deployment
        .setting("unused_auto_delete_duration", 168 * HOUR, decode::duration)
        .value;

    let profile = autoscaler
        .setting("profile", Profile::Spec, decode::choice(&PROFILES))
        .value;
    if profile == Profile::Fireworks2026 {
        windows.check_limits_of_2026(deployment);
    }
    let policy = autoscaler.setting("policy", Policy::Fireworks, decode::choice(&POLICIES));
    let fireworks = FireworksConfig {
        min_replica_count: counts.min.value,
        max_replica_count: counts.max.value,
        scale_up_window: windows.up.value,
        scale_down_window: windows.down.value,
        scale_to_zero_window: windows.zero.value,
        load_targets,
        window_semantics: autoscaler
            .setting(
                "window_semantics",
                WindowSemantics::Sustained,
                decode::choice(&SEMANTICS),
            )
            .value,
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
        idle_from: autoscaler
            .setting(
                "idle_from",
                IdleFrom::LastReceived,
                decode::choice(&IDLE_FROM),
            )
            .value,
    };
    let steps = autoscaler.optional("steps", steps);
    // Twice the longest answer of a large model (2,000 tokens at 10 a second)
    // fits in ten minutes; what is still running then has hung.
    let drain_timeout = autoscaler
        .setting("drain_timeout", 10 * MINUTE, decode::duration)
        .value;
    let config = match policy.value {
        Policy::Fireworks => AutoscalerConfig::Fireworks(fireworks),
        Policy::Fixed => fixed(&autoscaler, &counts, &policy),
        Policy::Scripted => scripted(&autoscaler, &counts, &steps),
    };
    report_unused(&autoscaler, policy.value);
    autoscaler.finish();
    Autoscaling {
        autoscaler: config,
        initial_replica_count: counts.initial.value,
        at_zero: if profile == Profile::Spec {
            AtZero::Hold
        } else {
            AtZero::Reject
        },
        unused_auto_delete_duration,
        drain_timeout,
    }
}

impl Counts {
    fn decode(deployment: &Reader<'_>) -> Self {
        // S21 and S22: the minimum is 0 by default; the maximum is 1 if the
        // minimum is 0, and the minimum otherwise.
        let min = deployment.setting("min_replica_count", 0, replica_count);
        let max = deployment.setting("max_replica_count", min.value.max(1), replica_count);
        let start = min.value.min(max.value);
        let initial = deployment.setting("initial_replica_count", start, replica_count);
        let counts = Self { min, max, initial };
        counts.check(deployment);
        counts
    }

    fn check(&self, deployment: &Reader<'_>) {
        let Self { min, max, initial } = self;
        if !(min.is_sound && max.is_sound && initial.is_sound) {
            return;
        }
        // A maximum of 0 parks the deployment at zero replicas, whatever the minimum (B03).
        let is_parked = max.value == 0;
        if min.value > max.value && !is_parked {
            // The text is that of the provider's own validator (B03).
            let message = "min_replica_count cannot be greater than max_replica_count";
            let problem = Problem::new("scenario::replicas", message)
                .at_if_written(min.place, format!("the floor is {}", min.value))
                .at_if_written(max.place, "the ceiling is below it")
                .help(format!(
                    "raise max_replica_count to at least {}, or lower min_replica_count",
                    min.value
                ));
            deployment.context.report(problem);
        } else if initial.value > max.value || (initial.value < min.value && !is_parked) {
            let message = "initial_replica_count must be between min and max_replica_count";
            let problem = Problem::new("scenario::replicas", message)
                .at_if_written(initial.place, "the run begins with this many")
                .at_if_written(min.place, format!("at least {}", min.value))
                .at_if_written(max.place, format!("at most {}", max.value))
                .help(format!("write {} to {}", min.value, max.value));
            deployment.context.report(problem);
        }
    }
}

/// At most 1000, as the provider's validator has it (B03).
fn replica_count(field: Field<'_>) -> Result<u32, Problem> {
    decode::integer_between(field, 0, 1000)
}

impl Windows {
    fn decode(deployment: &Reader<'_>) -> Self {
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
fn load_targets(reader: Reader<'_>) -> LoadTargets {
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

/// As many replicas as the minimum, which must then be the maximum too.
fn fixed(autoscaler: &Reader<'_>, counts: &Counts, policy: &Setting<Policy>) -> AutoscalerConfig {
    if counts.min.value != counts.max.value && counts.min.is_sound && counts.max.is_sound {
        let problem = Problem::new(
            "scenario::replicas",
            "a fixed deployment has one replica count",
        )
        .at_if_written(policy.place, "always the same number of replicas")
        .at_if_written(counts.min.place, format!("at least {}", counts.min.value))
        .at_if_written(counts.max.place, format!("at most {}", counts.max.value))
        .help("give `min_replica_count` and `max_replica_count` the same number, above 0");
        autoscaler.context.report(problem);
    }
    AutoscalerConfig::Fixed {
        replicas: counts.min.value,
    }
}

fn scripted(
    autoscaler: &Reader<'_>,
    counts: &Counts,
    steps: &Setting<Option<Vec<(Nanos, u32)>>>,
) -> AutoscalerConfig {
    if !steps.is_written() {
        autoscaler.missing("steps", "[{ at = \"10m\", replicas = 3 }]");
    }
    let steps = steps.value.clone().unwrap_or_default();
    AutoscalerConfig::Scripted {
        steps,
        initial: counts.initial.value,
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

/// Settings that the chosen policy would ignore.
fn report_unused(autoscaler: &Reader<'_>, policy: Policy) {
    if policy != Policy::Scripted {
        autoscaler.unused(&["steps"], "unless `policy = \"scripted\"`");
    }
    if policy != Policy::Fireworks {
        let keys = [
            "window_semantics",
            "tick",
            "signal_smoothing",
            "rate_window",
            "occupancy_capped",
            "idle_from",
        ];
        autoscaler.unused(&keys, "unless `policy = \"fireworks\"`");
    }
}
