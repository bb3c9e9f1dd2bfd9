//! The specification's policy: scale between two counts on batch occupancy,
//! to zero when idle, and back to one with the first request.
//!
//! At every tick, in this order:
//!
//! 1. limits: a deployment that began outside them is brought inside;
//! 2. zero: idle for the whole scale-to-zero window, and nothing in flight;
//! 3. load: up or down, after the window of that direction.
//!
//! A request at zero replicas does not wait for a tick.

mod reconfigure;

use super::load::{Gauge, Load, Signal};
use super::policy::Policy;
use super::reason::{LoadChange, Reason};
use super::trace::{Column, Row, Verdict};
use super::trailing::TrailingMean;
use super::windows::{Limits, Windows};
use super::{Decision, FireworksConfig, IdleFrom, Observation, ReplicaLoad};
use crate::time::Nanos;

/// What a row of a trace says; a row is one tick.
pub(super) const COLUMNS: &[Column] = &[
    Column::required(
        "load",
        "batch occupancy: requests running and queued, in full batches of one replica",
    ),
    Column::required("ready", "replicas that take requests"),
    Column::optional(
        "requests",
        "requests received since the row before; left out, a load above 0 counts as one",
    ),
];

/// The state of the policy `fireworks`.
#[derive(Clone, Debug)]
pub(super) struct Fireworks {
    config: FireworksConfig,
    target: u32,
    next_tick: Option<Nanos>,
    last_received: Nanos,
    /// The last tick at which something was in flight.
    last_in_flight: Nanos,
    /// From leaving zero until a replica is ready.
    starting_from_zero: bool,
    gauge: Gauge,
    /// `None` when the load is compared as it is.
    smoothing: Option<TrailingMean>,
    windows: Windows,
}

/// What a tick looks at.
struct Seen {
    in_flight: bool,
    ready: u32,
    load: Option<Load>,
}

impl Policy for Fireworks {
    fn target(&self) -> u32 {
        self.target
    }

    /// The next multiple of the tick. At zero replicas there is none: no load
    /// and no idleness can change that, only a request.
    fn next_deadline(&self) -> Option<Nanos> {
        if self.target == 0 && self.within_limits(0) {
            return None;
        }
        self.next_tick
    }

    /// This runs for every request of a simulation, so it must stay this short.
    #[inline]
    fn on_request(&mut self, now: Nanos) -> Option<Decision> {
        self.last_received = now;
        if self.target > 0 || self.config.max_replica_count == 0 {
            return None;
        }
        Some(self.wake(now))
    }

    fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        _: &[ReplicaLoad],
    ) -> Option<Decision> {
        let load = (self.target > 0).then(|| self.gauge.read(now, deployment));
        self.tick(
            now,
            &Seen {
                in_flight: deployment.running + deployment.queued > 0,
                ready: deployment.ready,
                load: load.flatten(),
            },
        )
    }

    fn look(&mut self, now: Nanos, row: &Row) -> Verdict {
        let load = Load {
            signal: Signal::BatchOccupancy,
            total: row.required("load"),
            target: self.config.load_targets.default.unwrap_or(1.0),
        };
        let seen = Seen {
            in_flight: load.total > 0.0,
            ready: row.count("ready"),
            load: Some(load),
        };
        let woken = if row.number("requests").unwrap_or(load.total) > 0.0 {
            self.on_request(now)
        } else {
            None
        };
        let decision = self.tick(now, &seen).or(woken);
        Verdict {
            desired: self.target,
            reason: decision.map_or(
                Reason::Unchanged {
                    replicas: Some(load.replicas()),
                },
                |decision| decision.reason,
            ),
        }
    }
}

impl Fireworks {
    /// Begins at time 0, which counts as the last request received.
    pub(super) fn new(config: &FireworksConfig, initial_replicas: u32) -> Self {
        Fireworks {
            target: initial_replicas,
            next_tick: Some(0),
            last_received: 0,
            last_in_flight: 0,
            starting_from_zero: false,
            gauge: Gauge::new(
                config.load_targets,
                config.occupancy_capped,
                config.rate_window,
            ),
            smoothing: (config.signal_smoothing > 0)
                .then(|| TrailingMean::new(config.signal_smoothing)),
            windows: Windows::new(
                config.window_semantics,
                config.scale_up_window,
                config.scale_down_window,
            ),
            config: config.clone(),
        }
    }

    /// One tick: limits, then zero, then load.
    fn tick(&mut self, now: Nanos, seen: &Seen) -> Option<Decision> {
        self.next_tick = self.tick_after(now);
        if seen.in_flight {
            self.last_in_flight = now;
        }
        if seen.ready > 0 {
            self.starting_from_zero = false;
        }
        self.enter_limits(now)
            .or_else(|| self.go_to_zero(now, seen))
            .or_else(|| self.follow_load(now, seen.load?))
    }

    /// S24: any request at zero replicas scales to 1, not to what the load would take.
    #[cold]
    fn wake(&mut self, now: Nanos) -> Decision {
        self.next_tick = self.tick_after(now);
        let target = self.config.min_replica_count.max(1);
        self.change_apart_from_load(now, target, Reason::WokenByRequest)
    }

    fn enter_limits(&mut self, now: Nanos) -> Option<Decision> {
        if self.within_limits(self.target) {
            return None;
        }
        let (min, max) = (self.config.min_replica_count, self.config.max_replica_count);
        let target = self.target.max(min).min(max);
        Some(self.change_apart_from_load(now, target, Reason::OutsideLimits { min, max }))
    }

    /// S23, S28: straight to zero from any count, if there is no minimum.
    fn go_to_zero(&mut self, now: Nanos, seen: &Seen) -> Option<Decision> {
        let may = self.target > 0 && self.config.min_replica_count == 0;
        if !may || seen.in_flight || now - self.idle_since() < self.config.scale_to_zero_window {
            return None;
        }
        let reason = Reason::Idle {
            window: self.config.scale_to_zero_window,
            from: self.config.idle_from,
        };
        Some(self.change_apart_from_load(now, 0, reason))
    }

    fn idle_since(&self) -> Nanos {
        match self.config.idle_from {
            IdleFrom::LastReceived => self.last_received,
            IdleFrom::LastActive => self.last_received.max(self.last_in_flight),
        }
    }

    /// Without a load there is no change: a deployment that reports nothing is left alone.
    fn follow_load(&mut self, now: Nanos, load: Load) -> Option<Decision> {
        if self.target == 0 {
            return None;
        }
        let load = self.smoothed(now, load);
        let replicas = self.target;
        let demand = self.demand(load);
        self.target = self.windows.apply(now, demand, replicas, self.limits());
        (self.target != replicas).then(|| Decision {
            target: self.target,
            reason: self.load_reason(load, replicas),
        })
    }

    /// With several targets, this is the mean of the largest demand at each tick.
    fn smoothed(&mut self, now: Nanos, load: Load) -> Load {
        let Some(mean) = &mut self.smoothing else {
            return load;
        };
        Load {
            total: mean.push(now, load.replicas()) * load.target,
            ..load
        }
    }

    /// Low use while a deployment starts says nothing about its load, so it
    /// never counts as lower until a replica is ready.
    fn demand(&self, load: Load) -> f64 {
        if self.starting_from_zero {
            load.replicas().max(f64::from(self.target))
        } else {
            load.replicas()
        }
    }

    fn limits(&self) -> Limits {
        let fewest = self.config.min_replica_count.max(1);
        Limits {
            fewest,
            most: self.config.max_replica_count.max(fewest),
        }
    }

    fn load_reason(&self, load: Load, replicas: u32) -> Reason {
        let higher = self.target > replicas;
        let change = LoadChange {
            load,
            replicas,
            target: self.target,
            window: if higher {
                self.config.scale_up_window
            } else {
                self.config.scale_down_window
            },
            semantics: self.config.window_semantics,
        };
        if higher {
            Reason::LoadHigher(change)
        } else {
            Reason::LoadLower(change)
        }
    }

    /// A maximum of 0 parks the deployment, whatever the minimum.
    fn within_limits(&self, target: u32) -> bool {
        let (min, max) = (self.config.min_replica_count, self.config.max_replica_count);
        target <= max && target >= min.min(max)
    }

    /// Sets the target and forgets what was observed for the one before.
    fn change_apart_from_load(&mut self, now: Nanos, target: u32, reason: Reason) -> Decision {
        self.starting_from_zero = self.target == 0;
        self.target = target;
        self.gauge.restart();
        self.windows.restart(now);
        if let Some(mean) = &mut self.smoothing {
            mean.restart();
        }
        Decision { target, reason }
    }

    /// `None` past the end of time.
    fn tick_after(&self, now: Nanos) -> Option<Nanos> {
        let tick = self.config.tick;
        (now / tick).checked_add(1)?.checked_mul(tick)
    }
}
