//! Other parameters, or another number of replicas, while the policy runs.

use super::{Fireworks, Gauge, TrailingMean, Windows};
use crate::control::autoscaler::{Decision, FireworksConfig, Reason};
use crate::time::Nanos;

impl Fireworks {
    pub(in crate::control::autoscaler) fn beginning_at(
        now: Nanos,
        config: &FireworksConfig,
        initial_replicas: u32,
    ) -> Self {
        let mut policy = Fireworks::new(config, initial_replicas);
        policy.last_received = now;
        policy.next_tick = now.checked_next_multiple_of(config.tick);
        policy
    }

    pub(in crate::control::autoscaler) fn reconfigure(
        &mut self,
        now: Nanos,
        config: &FireworksConfig,
    ) -> Option<Decision> {
        let before = std::mem::replace(&mut self.config, config.clone());
        self.replace_what_differs(now, &before);
        // At zero replicas there was no next tick, so the one noted may be past.
        let is_ahead = |&tick: &Nanos| tick >= now && before.tick == config.tick;
        let ahead = self.next_tick.filter(is_ahead);
        self.next_tick = ahead.or_else(|| self.tick_after(now));
        self.enter_limits(now)
    }

    fn replace_what_differs(&mut self, now: Nanos, before: &FireworksConfig) {
        let config = &self.config;
        let windows =
            |c: &FireworksConfig| (c.window_semantics, c.scale_up_window, c.scale_down_window);
        if windows(config) != windows(before) {
            let (semantics, up, down) = windows(config);
            self.windows = Windows::new(semantics, up, down);
            self.windows.restart(now);
        }
        let gauge = |c: &FireworksConfig| (c.load_targets, c.occupancy_capped, c.rate_window);
        if gauge(config) != gauge(before) {
            let (targets, capped, window) = gauge(config);
            self.gauge = Gauge::new(targets, capped, window);
        }
        if config.signal_smoothing != before.signal_smoothing {
            let window = config.signal_smoothing;
            self.smoothing = (window > 0).then(|| TrailingMean::new(window));
        }
    }

    pub(in crate::control::autoscaler) fn scale(
        &mut self,
        now: Nanos,
        replicas: u32,
    ) -> Option<Decision> {
        if replicas > 0 {
            self.last_received = now;
        }
        if replicas == self.target {
            return None;
        }
        self.next_tick = self.tick_after(now);
        Some(self.change_apart_from_load(now, replicas, Reason::Scaled { replicas }))
    }
}
