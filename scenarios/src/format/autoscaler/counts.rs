//! How many replicas there may be.

use super::replica_count;
use crate::format::problem::Problem;
use crate::format::reader::{Reader, Setting};

/// The replica counts as they are written.
pub(super) struct Counts {
    pub(super) min: Setting<u32>,
    pub(super) max: Setting<u32>,
    pub(super) initial: Setting<u32>,
}

/// How an autoscaler calls its own bounds, and what they are by default.
pub(super) struct OwnBounds {
    pub(super) min_key: &'static str,
    pub(super) min: u32,
    pub(super) max_key: &'static str,
    pub(super) max: u32,
}

/// Fewest and most replicas, and how many there are when a run begins.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) initial: u32,
}

impl Counts {
    /// The bounds of a policy that has names and defaults of its own for them.
    /// The counts of `[deployment]`, where they are written, are those of every
    /// policy, so that one scenario can be run under several. Else the policy's
    /// own keys count, and then its own defaults. Writing both is an error.
    pub(super) fn bounds(&self, autoscaler: &Reader<'_>, own: &OwnBounds) -> Bounds {
        let min = bound(
            autoscaler,
            "min_replica_count",
            &self.min,
            own.min_key,
            own.min,
        );
        let max = bound(
            autoscaler,
            "max_replica_count",
            &self.max,
            own.max_key,
            own.max,
        );
        let initial = if self.initial.is_written() {
            self.initial.value
        } else {
            min.min(max)
        };
        Bounds { min, max, initial }
    }

    pub(super) fn decode(deployment: &Reader<'_>) -> Self {
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

/// One bound: `[deployment]`'s `count` if that is written, or else the policy's own.
fn bound(
    autoscaler: &Reader<'_>,
    name: &'static str,
    count: &Setting<u32>,
    own_key: &'static str,
    own_default: u32,
) -> u32 {
    let own = autoscaler.setting(own_key, own_default, replica_count);
    if !count.is_written() {
        return own.value;
    }
    if own.is_written() {
        let path = autoscaler.path_of(own_key);
        let message = format!("`deployment.{name}` and `{path}` are the same bound");
        let problem = Problem::new("scenario::replicas", message)
            .at_if_written(count.place, "the bound of every policy")
            .at_if_written(
                own.place,
                "the same, by the name that this policy has for it",
            )
            .help("write one of them");
        autoscaler.context.report(problem);
    }
    count.value
}
