//! What becomes of a recommendation: stabilised over a window, and limited in
//! its rate. From `horizontal.go` of Kubernetes, with and without `behavior`.

use super::config::{HpaBehavior, ScalingPolicyKind, ScalingRules, SelectPolicy};
use crate::time::{Nanos, SECOND};

/// What was recommended and done.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// (when, how many), for as long as a window can reach.
    recommendations: Vec<(Nanos, i32)>,
    ups: Vec<ScaleEvent>,
    downs: Vec<ScaleEvent>,
}

/// A change of the replica count.
#[derive(Clone, Copy, Debug)]
struct ScaleEvent {
    at: Nanos,
    change: i32,
    is_outdated: bool,
}

/// What the scale target has, and may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) current: i32,
    pub(super) min: i32,
    pub(super) max: i32,
}

/// A recommendation after both steps, and what each made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Normalized {
    pub(super) stabilized: i32,
    pub(super) desired: i32,
}

impl History {
    /// The first look takes what there is for the first recommendation.
    pub(super) fn begin(&mut self, now: Nanos, current: i32) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// `normalizeDesiredReplicas`: without `behavior`.
    pub(super) fn normalize(
        &mut self,
        now: Nanos,
        recommended: i32,
        scale: Scale,
        window: Nanos,
    ) -> Normalized {
        // A recommendation as old as the window still counts here: `Before(cutoff)`.
        self.recommendations
            .retain(|&(at, _)| at.saturating_add(window) >= now);
        let highest = self.recommendations.iter().map(|&(_, replicas)| replicas);
        let stabilized = highest.max().unwrap_or(recommended).max(recommended);
        self.recommendations.push((now, recommended));
        // `calculateScaleUpLimit`: twice the replicas, or 4.
        let limit = scale.current.saturating_mul(2).max(4);
        let most = scale.max.min(limit);
        let desired = if stabilized < scale.min {
            scale.min
        } else {
            stabilized.min(most)
        };
        Normalized {
            stabilized,
            desired,
        }
    }

    /// `normalizeDesiredReplicasWithBehaviors`.
    pub(super) fn normalize_with(
        &mut self,
        now: Nanos,
        recommended: i32,
        scale: Scale,
        behavior: &HpaBehavior,
        downscale_stabilization: Nanos,
    ) -> Normalized {
        let seconds = |rules: &ScalingRules| rules.stabilization_window_seconds;
        let up = seconds(&behavior.scale_up).map_or(0, |s| u64::from(s) * SECOND);
        // `maybeInitScaleDownStabilizationWindow` takes whole seconds of the flag.
        let down = seconds(&behavior.scale_down)
            .map_or(downscale_stabilization / SECOND * SECOND, |s| {
                u64::from(s) * SECOND
            });
        let stabilized = self.stabilize(now, recommended, scale.current, up, down);
        let desired = self.limit(now, stabilized, scale, behavior);
        Normalized {
            stabilized,
            desired,
        }
    }

    /// `stabilizeRecommendationWithBehaviors`: a recommendation as old as the
    /// window does not count: `After(cutoff)`.
    fn stabilize(
        &mut self,
        now: Nanos,
        recommended: i32,
        current: i32,
        up: Nanos,
        down: Nanos,
    ) -> i32 {
        let (mut lowest, mut highest) = (recommended, recommended);
        for &(at, replicas) in &self.recommendations {
            if at.saturating_add(up) > now {
                lowest = lowest.min(replicas);
            }
            if at.saturating_add(down) > now {
                highest = highest.max(replicas);
            }
        }
        let longest = up.max(down);
        self.recommendations
            .retain(|&(at, _)| at.saturating_add(longest) > now);
        self.recommendations.push((now, recommended));
        current.max(lowest).min(highest)
    }

    /// `convertDesiredReplicasWithBehaviorRate`.
    fn limit(&self, now: Nanos, desired: i32, scale: Scale, behavior: &HpaBehavior) -> i32 {
        if desired > scale.current {
            let limit = self.limit_up(now, scale.current, &behavior.scale_up);
            desired.min(scale.max.min(limit.max(scale.current)))
        } else if desired < scale.current {
            let limit = self.limit_down(now, scale.current, &behavior.scale_down);
            desired.max(scale.min.max(limit.min(scale.current)))
        } else {
            desired
        }
    }

    /// `calculateScaleUpLimitWithScalingRules`: percents are rounded up, or
    /// small deployments would never grow.
    fn limit_up(&self, now: Nanos, current: i32, rules: &ScalingRules) -> i32 {
        let proposed = rules.policies.iter().map(|policy| {
            let start = self.period_start(now, current, policy.period_seconds);
            match policy.kind {
                ScalingPolicyKind::Pods => start.saturating_add(signed(policy.value)),
                ScalingPolicyKind::Percent => {
                    let factor = 1.0 + f64::from(policy.value) / 100.0;
                    (f64::from(start) * factor).ceil() as i32
                }
            }
        });
        match rules.select_policy {
            SelectPolicy::Disabled => current,
            SelectPolicy::Min => proposed.min().unwrap_or(current),
            SelectPolicy::Max => proposed.max().unwrap_or(current),
        }
    }

    /// `calculateScaleDownLimitWithBehaviors`.
    fn limit_down(&self, now: Nanos, current: i32, rules: &ScalingRules) -> i32 {
        let proposed = rules.policies.iter().map(|policy| {
            let start = self.period_start(now, current, policy.period_seconds);
            match policy.kind {
                ScalingPolicyKind::Pods => start.saturating_sub(signed(policy.value)),
                ScalingPolicyKind::Percent => {
                    let factor = 1.0 - f64::from(policy.value) / 100.0;
                    (f64::from(start) * factor) as i32
                }
            }
        });
        match rules.select_policy {
            SelectPolicy::Disabled => current,
            // The smallest change leaves most replicas.
            SelectPolicy::Min => proposed.max().unwrap_or(current),
            SelectPolicy::Max => proposed.min().unwrap_or(current),
        }
    }

    /// How many replicas there were when the period began.
    fn period_start(&self, now: Nanos, current: i32, period_seconds: u32) -> i32 {
        current - changes(&self.ups, now, period_seconds)
            + changes(&self.downs, now, period_seconds)
    }

    /// `storeScaleEvent`: one outdated event makes room for a new one, so that
    /// others stay, and still count in a longer period of the other direction.
    pub(super) fn store(&mut self, now: Nanos, from: i32, to: i32, behavior: &HpaBehavior) {
        let (events, rules) = if to > from {
            (&mut self.ups, &behavior.scale_up)
        } else {
            (&mut self.downs, &behavior.scale_down)
        };
        let longest = rules.policies.iter().map(|policy| policy.period_seconds);
        let longest = u64::from(longest.max().unwrap_or(0)) * SECOND;
        for event in events.iter_mut() {
            event.is_outdated |= event.at.saturating_add(longest) < now;
        }
        let event = ScaleEvent {
            at: now,
            change: (to - from).abs(),
            is_outdated: false,
        };
        match events.iter_mut().rfind(|event| event.is_outdated) {
            Some(outdated) => *outdated = event,
            None => events.push(event),
        }
    }
}

/// `getReplicasChangePerPeriod`: an event as old as the period does not count.
fn changes(events: &[ScaleEvent], now: Nanos, period_seconds: u32) -> i32 {
    let period = u64::from(period_seconds) * SECOND;
    let within = events
        .iter()
        .filter(|event| event.at.saturating_add(period) > now);
    within.map(|event| event.change).sum()
}

fn signed(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
