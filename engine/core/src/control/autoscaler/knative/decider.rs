//! How many instances the load calls for: Knative's Decider
//! (`autoscaler.Scale` in `pkg/autoscaler/scaling/autoscaler.go`).

use super::config::KnativeKpaConfig;
use super::delay::DelayWindow;
use crate::time::Nanos;

/// What was measured, at one tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Mean of the metric over the stable window, of all instances together.
    pub(super) stable: f64,
    /// Over the panic window.
    pub(super) panic: f64,
    /// Instances that are ready.
    pub(super) ready: u32,
}

/// What a tick comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    /// Instances that there should be (`DesiredPodCount`).
    pub(super) desired: i32,
    /// Spare capacity beyond the burst to be ready for; below 0 the activator
    /// stays in the path (`ExcessBurstCapacity`).
    pub(super) excess_burst_capacity: i32,
    /// Which rule decided.
    pub(super) rule: Rule,
}

/// Which rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The stable window.
    Stable,
    /// The panic window, or the most since panic began.
    Panic,
    /// A higher number within the scale-down delay.
    Delay,
}

/// The Decider of one revision.
#[derive(Clone, Debug)]
pub(super) struct Decider {
    target: f64,
    total: f64,
    target_burst_capacity: f64,
    panic_threshold: f64,
    stable_window: Nanos,
    max_scale_up_rate: f64,
    max_scale_down_rate: f64,
    activation_scale: i32,
    delay: Option<DelayWindow>,
    /// When load last was over the threshold; `None` out of panic.
    panic_since: Option<Nanos>,
    /// The most wanted since panic began.
    max_panic_pods: i32,
}

impl Decider {
    /// A Decider that begins with `ready` instances. With more than one it
    /// begins in panic, so that it keeps them until it has seen a whole window
    /// (`newAutoscaler`).
    pub(super) fn new(config: &KnativeKpaConfig, now: Nanos, ready: u32) -> Self {
        let (target, total) = config.target_and_total();
        Decider {
            target,
            total,
            target_burst_capacity: config.target_burst_capacity,
            panic_threshold: config.panic_threshold_percentage / 100.0,
            stable_window: config.stable_window,
            max_scale_up_rate: config.max_scale_up_rate,
            max_scale_down_rate: config.max_scale_down_rate,
            activation_scale: config.activation_scale.map_or(0, as_count),
            delay: (config.scale_down_delay > 0).then(|| DelayWindow::new(config.scale_down_delay)),
            panic_since: (ready > 1).then_some(now),
            max_panic_pods: as_count(ready),
        }
    }

    /// One tick. The revision is taken to be reachable: it is the one that a
    /// route leads to.
    pub(super) fn scale(&mut self, now: Nanos, measured: Measured) -> Scale {
        let ready = f64::from(measured.ready.max(1));
        // Rounded up and down, so that a rate near 1 cannot hold the number for ever.
        let most = (self.max_scale_up_rate * ready).ceil();
        let fewest = (ready / self.max_scale_down_rate).floor();
        let wanted_stable = (measured.stable / self.target).ceil();
        let wanted_panic = (measured.panic / self.target).ceil();
        let bounded = |wanted: f64| {
            let within = f64::min(f64::max(wanted, fewest), most) as i32;
            let activation = if wanted > 0.0 {
                self.activation_scale
            } else {
                0
            };
            within.max(activation)
        };
        let (stable, panic) = (bounded(wanted_stable), bounded(wanted_panic));
        self.note_panic(now, wanted_panic / ready >= self.panic_threshold);
        let (desired, rule) = self.in_panic(stable, panic);
        let (desired, rule) = self.delayed(now, desired, rule);
        Scale {
            desired,
            excess_burst_capacity: self.excess_burst_capacity(measured),
            rule,
        }
    }

    /// Panic lasts a stable window from when load was last over the threshold.
    fn note_panic(&mut self, now: Nanos, is_over: bool) {
        if is_over {
            self.panic_since = Some(now);
        } else if self
            .panic_since
            .is_some_and(|since| since + self.stable_window < now)
        {
            self.panic_since = None;
            self.max_panic_pods = 0;
        }
    }

    /// In panic the number only rises.
    fn in_panic(&mut self, stable: i32, panic: i32) -> (i32, Rule) {
        if self.panic_since.is_none() {
            return (stable, Rule::Stable);
        }
        self.max_panic_pods = self.max_panic_pods.max(stable).max(panic);
        (self.max_panic_pods, Rule::Panic)
    }

    fn delayed(&mut self, now: Nanos, desired: i32, rule: Rule) -> (i32, Rule) {
        let Some(delay) = &mut self.delay else {
            return (desired, rule);
        };
        let largest = delay.push(now, desired);
        let rule = if largest == desired {
            rule
        } else {
            Rule::Delay
        };
        (largest, rule)
    }

    fn excess_burst_capacity(&self, measured: Measured) -> i32 {
        if self.target_burst_capacity == 0.0 {
            return 0;
        }
        if self.target_burst_capacity < 0.0 {
            return -1;
        }
        let capacity = f64::from(measured.ready) * self.total;
        (capacity - self.target_burst_capacity - measured.panic).floor() as i32
    }

    /// What an instance should have of the metric.
    pub(super) fn target(&self) -> f64 {
        self.target
    }
}

/// Knative counts instances in 32 bits with a sign.
fn as_count(replicas: u32) -> i32 {
    i32::try_from(replicas).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{MINUTE, SECOND};

    fn decider(edit: impl FnOnce(&mut KnativeKpaConfig), ready: u32) -> Decider {
        let mut config = KnativeKpaConfig {
            target: Some(10.0),
            target_utilization_percentage: Some(100.0),
            ..KnativeKpaConfig::default()
        };
        edit(&mut config);
        Decider::new(&config, 0, ready)
    }

    fn at(second: u64, decider: &mut Decider, stable: f64, panic: f64, ready: u32) -> i32 {
        let measured = Measured {
            stable,
            panic,
            ready,
        };
        decider.scale(second * SECOND, measured).desired
    }

    #[test]
    fn the_stable_window_decides_until_there_is_panic() {
        let mut decider = decider(|_| {}, 1);
        assert_eq!(at(2, &mut decider, 10.0, 10.0, 1), 1);
        assert_eq!(at(4, &mut decider, 10.1, 10.1, 1), 2);
        // Twice what one instance should have is panic, and panic only rises.
        assert_eq!(at(6, &mut decider, 12.0, 41.0, 1), 5);
        assert_eq!(at(8, &mut decider, 12.0, 10.0, 5), 5);
        assert_eq!(at(66, &mut decider, 12.0, 10.0, 5), 5);
        // More than a stable window after load was over the threshold.
        assert_eq!(at(67, &mut decider, 12.0, 10.0, 5), 2);
    }

    #[test]
    fn several_ready_instances_are_kept_for_a_window() {
        let mut decider = decider(|_| {}, 4);
        assert_eq!(at(2, &mut decider, 1.0, 1.0, 4), 4);
        assert_eq!(at(60, &mut decider, 1.0, 1.0, 4), 4);
        assert_eq!(at(62, &mut decider, 1.0, 1.0, 4), 2);
        assert_eq!(at(64, &mut decider, 1.0, 1.0, 2), 1);
        assert_eq!(at(66, &mut decider, 0.0, 0.0, 1), 0);
    }

    #[test]
    fn a_scale_up_rate_near_one_still_adds_an_instance() {
        let mut decider = decider(|config| config.max_scale_up_rate = 1.1, 2);
        assert_eq!(at(2, &mut decider, 90.0, 90.0, 2), 3);
    }

    #[test]
    fn a_delay_keeps_the_largest_of_its_window() {
        let mut decider = decider(|config| config.scale_down_delay = MINUTE, 1);
        assert_eq!(at(2, &mut decider, 15.0, 10.0, 1), 2);
        assert_eq!(at(60, &mut decider, 0.0, 0.0, 1), 2);
        assert_eq!(at(62, &mut decider, 0.0, 0.0, 1), 0);
    }

    #[test]
    fn activation_scale_is_a_floor_unless_nothing_is_wanted() {
        let mut decider = decider(|config| config.activation_scale = Some(3), 1);
        assert_eq!(at(2, &mut decider, 0.1, 0.1, 0), 3);
        assert_eq!(at(4, &mut decider, 0.0, 0.0, 1), 0);
    }

    #[test]
    fn burst_capacity_is_what_is_spare_beyond_the_burst() {
        let of = |burst: f64, ready: u32| {
            let mut decider = decider(|config| config.target_burst_capacity = burst, 1);
            let measured = Measured {
                stable: 0.0,
                panic: 4.5,
                ready,
            };
            decider.scale(SECOND, measured).excess_burst_capacity
        };
        assert_eq!(of(211.0, 1), -206);
        assert_eq!(of(11.0, 3), 14);
        assert_eq!((of(0.0, 1), of(-1.0, 100)), (0, -1));
    }
}
