//! From what the Decider wants to what is applied: bounds, and the way to zero
//! (`pkg/reconciler/autoscaling/kpa/scaler.go` and `kpa.go`).
//!
//! ```text
//!              instances ready                 nothing wanted for a stable window
//!  activating ----------------> active ----------------------------> inactive
//!      ^  \___ progress deadline + 30 s: to zero ___________________/   |  |
//!      |________________ something wanted ______________________________|  `-> to zero
//!                                    after the activator was in the path for the grace period,
//!                                    and after the retention period
//! ```
//!
//! Knative reconciles when anything changes, and at times that it sets itself.
//! Here that is once a second. Its probe, which confirms that the activator is
//! in the path, is taken to succeed at once.

use super::config::KnativeKpaConfig;
use crate::time::{Nanos, SECOND};

/// `activationTimeoutBuffer`: a deployment past its deadline says so first.
const ACTIVATION_TIMEOUT_BUFFER: Nanos = 30 * SECOND;

/// The condition `Active` of a PodAutoscaler: unknown, true or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    Activating,
    Active,
    Inactive,
}

/// Which rule is behind the number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// None: it is what the Decider wants.
    Wanted,
    /// `min-scale`, or `initial-scale` until it was reached once.
    Min(u32),
    /// `max-scale`.
    Max(u32),
    /// There are no metrics yet.
    Unknown,
    /// `enable-scale-to-zero` is off.
    NeverZero,
    /// Instances start; they may take this much longer.
    Activating(Nanos),
    /// They took too long to start: to zero.
    TimedOut,
    /// One instance for the rest of the stable window.
    Active(Nanos),
    /// Inactive from now on.
    Deactivated,
    /// The last instance stays for this much longer.
    Retention(Nanos),
    /// The activator has to be in the path for this much longer.
    Grace(Nanos),
    /// To zero: the activator was in the path for this long.
    Zero(Nanos),
}

/// Applies what the Decider wants.
#[derive(Clone, Debug)]
pub(super) struct Scaler {
    min: u32,
    max: u32,
    initial: u32,
    enable_scale_to_zero: bool,
    activation_timeout: Nanos,
    stable_window: Nanos,
    grace: Nanos,
    retention: Nanos,
    activity: Activity,
    since: Nanos,
    /// Whether the initial scale was reached once.
    is_initialized: bool,
    /// Since when the activator is in the path.
    proxy_since: Option<Nanos>,
    /// Instances ordered.
    target: u32,
}

impl Scaler {
    /// A revision that has `target` instances. With none, it was scaled to zero before.
    pub(super) fn new(config: &KnativeKpaConfig, target: u32) -> Self {
        let (min, max) = config.replica_counts();
        Scaler {
            min,
            max,
            initial: config.initial_scale,
            enable_scale_to_zero: config.enable_scale_to_zero,
            activation_timeout: config.progress_deadline + ACTIVATION_TIMEOUT_BUFFER,
            stable_window: config.stable_window,
            grace: config.scale_to_zero_grace_period,
            retention: config.scale_to_zero_pod_retention_period,
            activity: if target == 0 {
                Activity::Inactive
            } else {
                Activity::Activating
            },
            since: 0,
            is_initialized: target == 0,
            proxy_since: Some(0),
            target,
        }
    }

    /// Instances ordered.
    pub(super) fn target(&self) -> u32 {
        self.target
    }

    /// Whether the revision is at zero, and stays there until a request comes.
    pub(super) fn is_at_rest(&self) -> bool {
        self.target == 0 && self.activity == Activity::Inactive
    }

    /// One reconciliation (`ReconcileKind`). `desired` is `None` before the
    /// Decider has decided for the first time.
    pub(super) fn reconcile(
        &mut self,
        now: Nanos,
        desired: Option<u32>,
        excess_burst_capacity: i32,
        ready: u32,
    ) -> Hold {
        let Step { want, apply, hold } = self.step(now, desired);
        if let (Some(want), true) = (want, apply) {
            self.target = want;
        }
        let serves = want.is_some_and(|want| want > 0) && excess_burst_capacity >= 0;
        if serves {
            self.proxy_since = None;
        } else {
            self.proxy_since.get_or_insert(now);
        }
        self.note_activity(now, want, ready);
        hold
    }

    /// `scaler.scale`: the bounds, then the way to zero.
    fn step(&self, now: Nanos, desired: Option<u32>) -> Step {
        if desired.is_none() && self.activity != Activity::Activating {
            return Step::wait(None, Hold::Unknown);
        }
        let min = if self.is_initialized {
            self.min
        } else {
            self.min.max(self.initial_floor())
        };
        // An unknown number counts as -1 in Knative: it is below any minimum.
        let (bounded, hold) = match desired {
            None => (min, Hold::Unknown),
            Some(desired) if desired < min => (min, Hold::Min(min)),
            Some(desired) if desired > self.max => (self.max, Hold::Max(self.max)),
            Some(desired) => (desired, Hold::Wanted),
        };
        if bounded == 0 {
            self.to_zero(now)
        } else {
            Step::apply(bounded, hold)
        }
    }

    /// An initial scale of 1 is no floor (`initialScale > 1` in `scale`).
    fn initial_floor(&self) -> u32 {
        if self.initial > 1 { self.initial } else { 0 }
    }

    /// `handleScaleToZero`.
    fn to_zero(&self, now: Nanos) -> Step {
        if !self.enable_scale_to_zero {
            return Step::apply(1, Hold::NeverZero);
        }
        let elapsed = now - self.since;
        match self.activity {
            Activity::Activating if elapsed > self.activation_timeout => {
                Step::apply(0, Hold::TimedOut)
            }
            Activity::Activating => {
                let left = self.activation_timeout - elapsed;
                Step::wait(None, Hold::Activating(left))
            }
            Activity::Active if elapsed >= self.stable_window => {
                Step::wait(Some(0), Hold::Deactivated)
            }
            Activity::Active => Step::apply(1, Hold::Active(self.stable_window - elapsed)),
            Activity::Inactive => self.inactive_to_zero(now, elapsed),
        }
    }

    fn inactive_to_zero(&self, now: Nanos, inactive: Nanos) -> Step {
        let proxied = self.proxy_since.map_or(0, |since| now - since);
        if inactive >= self.grace.max(self.retention) {
            Step::apply(0, Hold::Zero(proxied))
        } else if inactive < self.retention {
            Step::wait(Some(0), Hold::Retention(self.retention - inactive))
        } else if proxied >= self.grace {
            Step::apply(0, Hold::Zero(proxied))
        } else {
            Step::wait(Some(0), Hold::Grace(self.grace - proxied))
        }
    }

    /// `computeActiveCondition`, the table in its comment.
    fn note_activity(&mut self, now: Nanos, want: Option<u32>, ready: u32) {
        let least = if self.is_initialized {
            self.min.max(1)
        } else {
            self.min.max(self.initial)
        };
        self.is_initialized |= ready >= least;
        let is_wanted = want.is_some_and(|want| want > 0);
        let stays_inactive = !is_wanted && self.activity == Activity::Inactive;
        let activity = if want == Some(0) || least == 0 || stays_inactive {
            Activity::Inactive
        } else if ready < least {
            Activity::Activating
        } else {
            Activity::Active
        };
        if activity != self.activity {
            self.activity = activity;
            self.since = now;
        }
    }
}

/// What one reconciliation comes to.
struct Step {
    /// Instances wanted; `None` while that is unknown.
    want: Option<u32>,
    /// Whether they are ordered now.
    apply: bool,
    hold: Hold,
}

impl Step {
    fn apply(want: u32, hold: Hold) -> Self {
        Step {
            want: Some(want),
            apply: true,
            hold,
        }
    }

    fn wait(want: Option<u32>, hold: Hold) -> Self {
        Step {
            want,
            apply: false,
            hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaler(edit: impl FnOnce(&mut KnativeKpaConfig), target: u32) -> Scaler {
        let mut config = KnativeKpaConfig::default();
        edit(&mut config);
        Scaler::new(&config, target)
    }

    /// Reconciles every second and says when the target changed.
    fn run(
        scaler: &mut Scaler,
        seconds: std::ops::Range<u64>,
        desired: u32,
        burst: i32,
        ready: u32,
    ) -> Vec<(u64, u32)> {
        let mut changes = Vec::new();
        for second in seconds {
            let before = scaler.target();
            scaler.reconcile(second * SECOND, Some(desired), burst, ready);
            if scaler.target() != before {
                changes.push((second, scaler.target()));
            }
        }
        changes
    }

    #[test]
    fn with_the_activator_in_the_path_zero_follows_a_stable_window() {
        let mut scaler = scaler(|_| {}, 2);
        assert_eq!(run(&mut scaler, 0..10, 2, -100, 2), []);
        // One for the rest of the stable window; then inactive; then zero.
        assert_eq!(run(&mut scaler, 10..200, 0, -100, 1), [(10, 1), (61, 0)]);
        assert!(scaler.is_at_rest());
    }

    #[test]
    fn without_it_the_grace_period_comes_on_top() {
        let mut scaler = scaler(|_| {}, 1);
        assert_eq!(run(&mut scaler, 0..10, 1, 5, 1), []);
        assert_eq!(run(&mut scaler, 10..200, 0, 5, 1), [(90, 0)]);
    }

    #[test]
    fn the_last_instance_is_retained() {
        let retain = |config: &mut KnativeKpaConfig| {
            config.scale_to_zero_pod_retention_period = 100 * SECOND;
        };
        let mut scaler = scaler(retain, 1);
        assert_eq!(run(&mut scaler, 0..10, 1, -1, 1), []);
        assert_eq!(run(&mut scaler, 10..300, 0, -1, 1), [(160, 0)]);
    }

    #[test]
    fn what_is_wanted_again_restarts_the_way_to_zero() {
        let mut scaler = scaler(|_| {}, 1);
        run(&mut scaler, 0..10, 1, 5, 1);
        assert_eq!(run(&mut scaler, 10..80, 0, 5, 1), []);
        assert_eq!(run(&mut scaler, 80..82, 1, 5, 1), []);
        // Active again since second 80.
        assert_eq!(run(&mut scaler, 82..300, 0, 5, 1), [(170, 0)]);
    }

    #[test]
    fn from_zero_it_waits_for_instances_until_they_are_too_late() {
        let mut scaler = scaler(|_| {}, 0);
        assert_eq!(run(&mut scaler, 0..5, 0, -100, 0), []);
        assert_eq!(run(&mut scaler, 5..7, 1, -100, 0), [(5, 1)]);
        // Nobody waits any more, but it is starting: 600 s + 30 s from second 5.
        assert_eq!(run(&mut scaler, 7..1000, 0, -100, 0), [(636, 0)]);
    }

    #[test]
    fn bounds_hold() {
        let bounds = |config: &mut KnativeKpaConfig| {
            (config.min_scale, config.max_scale) = (2, 4);
        };
        let mut scaler = scaler(bounds, 3);
        assert_eq!(scaler.reconcile(0, Some(9), -1, 3), Hold::Max(4));
        assert_eq!(scaler.target(), 4);
        assert_eq!(scaler.reconcile(SECOND, Some(0), -1, 4), Hold::Min(2));
        assert_eq!(scaler.target(), 2);
    }

    #[test]
    fn an_initial_scale_must_be_reached_once() {
        let mut scaler = scaler(|config| config.initial_scale = 3, 1);
        assert_eq!(scaler.reconcile(0, None, -1, 1), Hold::Unknown);
        assert_eq!(scaler.target(), 3);
        assert_eq!(scaler.reconcile(SECOND, Some(1), -1, 1), Hold::Min(3));
        assert_eq!(scaler.reconcile(2 * SECOND, Some(1), -1, 3), Hold::Min(3));
        assert_eq!(scaler.reconcile(3 * SECOND, Some(1), -1, 3), Hold::Wanted);
        assert_eq!(scaler.target(), 1);
    }

    #[test]
    fn zero_can_be_switched_off() {
        let mut scaler = scaler(|config| config.enable_scale_to_zero = false, 2);
        run(&mut scaler, 0..2, 2, -1, 2);
        assert_eq!(
            scaler.reconcile(2 * SECOND, Some(0), -1, 2),
            Hold::NeverZero
        );
        assert_eq!(scaler.target(), 1);
    }
}
