//! Ray Serve's decision: from ongoing requests to a number of replicas, and how
//! long it has to be wanted.
//!
//! Source: `serve/autoscaling_policy.py` of Ray 2.60.0, and of Ray 2.54.1 for the
//! counting of looks, which ray#62004 replaced by a clock. The order of
//! floating-point operations is theirs. Numbers of replicas that are wanted are
//! floats here, as the anchor's integers have no largest.

use super::config::{Delays, RayServeConfig};

/// What is forgiven when two times are compared (`_DELAY_ELAPSED_EPS_S`).
const ELAPSED_S_EPSILON: f64 = 1e-6;

/// What a delay is divided by to know how many looks it is (`CONTROL_LOOP_INTERVAL_S`).
const LOOK_S: f64 = 0.1;

/// What one look leaves for the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct State {
    /// How many replicas there should be.
    pub(super) target: u32,
    /// What has been wanted instead, without a break.
    pub(super) wish: Option<Wish>,
}

/// More or fewer replicas, wanted without a break.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wish {
    up: bool,
    since_s: f64,
    /// How many looks have wanted it.
    looks: u64,
}

/// What a look comes to, beside the state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    /// Requests, and no replica that runs: no delay is waited for.
    ColdStart,
    /// No replica runs, and nothing asks for one.
    Asleep,
    /// The target is what is wanted.
    Enough,
    /// Another number is wanted, and not for long enough.
    Waiting(Waited),
    /// The delay is over.
    Over(Waited),
}

/// A number of replicas, and for how long it was wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Waited {
    /// How many, before limits.
    pub(super) wanted: f64,
    pub(super) elapsed_s: f64,
    pub(super) looks: u64,
    /// For how long it has to be.
    pub(super) delay_s: f64,
}

impl State {
    /// The state after looks that changed nothing of it: they were counted.
    pub(super) fn after_more_looks(mut self, looks: u64) -> Self {
        if let Some(wish) = &mut self.wish {
            wish.looks += looks;
        }
        self
    }

    /// Whether only the count of looks differs, which says nothing new until a delay is over.
    pub(super) fn is_as_good_as(&self, other: &Self) -> bool {
        let essence = |state: &Self| state.wish.map(|wish| (wish.up, wish.since_s));
        self.target == other.target && essence(self) == essence(other)
    }

    /// One pass of the control loop (`get_decision_num_replicas`): so many
    /// requests are ongoing, and so many replicas run.
    pub(super) fn look(
        self,
        config: &RayServeConfig,
        now_s: f64,
        ongoing: f64,
        running: u32,
    ) -> (Self, Outcome) {
        if running == 0 {
            return self.without_replicas(config, ongoing);
        }
        let mut wanted = config.wanted(ongoing, running).max(0.0);
        if config.delays == Delays::Looks {
            // Before ray#62004, limits came before the delay; they still come after it.
            wanted = f64::from(config.within_limits(wanted));
        }
        self.delayed(config, now_s, wanted)
    }

    /// `_get_cold_start_scale_up_replicas`, and what follows it without requests:
    /// the target stands, and what has been wanted is not forgotten.
    fn without_replicas(self, config: &RayServeConfig, ongoing: f64) -> (Self, Outcome) {
        let target = f64::from(self.target);
        if ongoing > 0.0 {
            let first = config.upscaling_factor().ceil();
            let target = config.within_limits(first.max(target));
            return (Self { target, ..self }, Outcome::ColdStart);
        }
        // With a clock, a target of 0 passes through the delay, where it is enough.
        let forgets = config.delays == Delays::Clock && self.target == 0;
        let wish = self.wish.filter(|_| !forgets);
        let target = config.within_limits(target);
        (Self { target, wish }, Outcome::Asleep)
    }

    /// `_apply_delay_logic`: wanted for long enough without a break, then all at once.
    fn delayed(self, config: &RayServeConfig, now_s: f64, wanted: f64) -> (Self, Outcome) {
        let target = f64::from(self.target);
        if wanted == target {
            return (self.settled(config, target), Outcome::Enough);
        }
        let up = wanted > target;
        // The last replica goes alone: from more, one stays.
        let wanted = if up || self.target == 1 {
            wanted
        } else {
            wanted.max(1.0)
        };
        let fresh = Wish {
            up,
            since_s: now_s,
            looks: 0,
        };
        let mut wish = self.wish.filter(|wish| wish.up == up).unwrap_or(fresh);
        wish.looks += 1;
        let waited = Waited {
            wanted,
            elapsed_s: now_s - wish.since_s,
            looks: wish.looks,
            delay_s: config.delay_s(up, self.target),
        };
        if waited.is_over(config.delays) {
            (self.settled(config, wanted), Outcome::Over(waited))
        } else {
            let wish = Some(wish);
            let target = config.within_limits(target);
            (Self { target, wish }, Outcome::Waiting(waited))
        }
    }

    /// The number is this, and nothing else is wanted.
    fn settled(self, config: &RayServeConfig, replicas: f64) -> Self {
        Self {
            target: config.within_limits(replicas),
            wish: None,
        }
    }
}

impl Waited {
    fn is_over(&self, delays: Delays) -> bool {
        match delays {
            Delays::Clock => self.elapsed_s + ELAPSED_S_EPSILON >= self.delay_s,
            Delays::Looks => self.looks as f64 > self.looks_needed(),
        }
    }

    /// How many looks in a row are not enough, where looks are counted.
    pub(super) fn looks_needed(&self) -> f64 {
        (self.delay_s / LOOK_S).trunc()
    }
}

impl RayServeConfig {
    /// `apply_bounds`. A float saturates where it becomes an integer, and no
    /// maximum is beyond that.
    pub(super) fn within_limits(&self, replicas: f64) -> u32 {
        (replicas as u32)
            .min(self.max_replicas)
            .max(self.min_replicas)
    }

    fn delay_s(&self, up: bool, target: u32) -> f64 {
        match (up, target, self.downscale_to_zero_delay_s) {
            (true, ..) => self.upscale_delay_s,
            (false, 1, Some(delay_s)) => delay_s,
            (false, ..) => self.downscale_delay_s,
        }
    }

    /// `_core_replica_queue_length_policy`: how many replicas bring each to its target.
    pub(super) fn desired(&self, ongoing: f64, running: u32) -> f64 {
        let running = f64::from(running);
        let error_ratio = ongoing / (self.target_ongoing_requests * running);
        running * error_ratio
    }

    /// `_apply_scaling_factors`: how much of the way there is gone at once.
    fn wanted(&self, ongoing: f64, running: u32) -> f64 {
        let desired = self.desired(ongoing, running);
        let running = f64::from(running);
        let way = desired - running;
        let factor = if way > 0.0 {
            self.upscaling_factor()
        } else {
            self.downscaling_factor()
        };
        let scaled = (running + factor * way).ceil();
        // A small factor would never get anywhere on the way down.
        let is_stuck = desired.ceil() < running && scaled == running;
        if is_stuck { scaled - 1.0 } else { scaled }
    }
}
