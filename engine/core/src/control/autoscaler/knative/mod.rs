//! The policy `knative-kpa`: the autoscaler of Knative Serving (98e5ef90), with the
//! activator that holds requests while there is no instance.
//!
//! ```text
//!  every second         every 2 seconds           every second
//!  what was in flight -> Decider --------------> scaler -----------> target
//!  (buckets.rs)          (decider.rs, delay.rs)  (scaler.rs)
//!                            ^
//!        first request at zero (the activator's poke)
//! ```
//!
//! Each second, the number in flight (or, for the metric `rps`, of requests received) goes
//! into both windows: its mean over that second, from all instances and the
//! activator together. Knative asks only some of many instances and extrapolates; here all
//! are asked. Time 0 is a whole, even second of Knative's clock.
//!
//! The activator holds any number of requests: its queue of 10,000 bounds what waits
//! beyond a concurrency that is itself bounded only by 32 bits (`newRevisionThrottler`), and
//! instances without a hard limit have no queue at all.

mod buckets;
mod config;
mod decider;
mod delay;
mod scaler;

#[cfg(test)]
mod properties;

pub use config::{KnativeKpaConfig, KnativeMetric, MetricAggregation};

use super::policy::Policy;
use super::reason::{Decimal, Span};
use super::trace::{Column, Row, Verdict};
use super::{Decision, Observation, Reason, ReplicaLoad};
use crate::time::{HOUR, Nanos, SECOND};
use buckets::Buckets;
use decider::{Decider, Measured, Rule, Scale};
use scaler::{Hold, Scaler};

/// The interval of metrics (`scrapeTickInterval`, and `reportInterval` of the activator).
const SCRAPE_INTERVAL: Nanos = SECOND;

/// The interval of decisions (`tickInterval` in `multiscaler.go`).
const TICK_INTERVAL: Nanos = 2 * SECOND;

/// Longer than any two windows: seconds before that leave no trace in them.
const FORGOTTEN: Nanos = 3 * HOUR;

/// What a trace has for this policy. A row is one tick of the Decider.
pub(super) const COLUMNS: &[Column] = &[
    Column::required(
        "load",
        "the metric at this instant, over all replicas; read every second, and until the next row, into the windows",
    ),
    Column::required("ready", "replicas that are ready"),
    Column::optional(
        "stable_load",
        "mean of the metric over the stable window, to be used in place of the windows over `load`",
    ),
    Column::optional(
        "panic_load",
        "mean of the metric over the panic window; without it, `stable_load`",
    ),
];

/// Knative's autoscaler.
#[derive(Clone, Debug)]
pub(super) struct KnativeKpa {
    config: KnativeKpaConfig,
    windows: Windows,
    /// Made at the first look, when the number of ready instances is known.
    decider: Option<Decider>,
    measured: Option<Measured>,
    /// The last valid decision.
    scale: Option<Scale>,
    scaler: Scaler,
    counted: Counted,
    ready: u32,
    next_tick: Nanos,
    /// `None` at rest: at zero, until a request comes.
    next_look: Option<Nanos>,
    row: Option<LastRow>,
}

/// The two windows, which see the same.
#[derive(Clone, Debug)]
struct Windows {
    stable: Buckets,
    panic: Buckets,
}

impl Windows {
    fn record(&mut self, now: Nanos, value: f64) {
        self.stable.record(now, value);
        self.panic.record(now, value);
    }
}

/// How far the totals of the deployment were counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    at: Nanos,
    in_flight_request_ns: u128,
    requests_received: u64,
    /// What the activator reported before the end of the second.
    reported: f64,
    /// Whether the last second had anything.
    was_active: bool,
}

/// Between two rows of a trace, the load is that of the earlier one.
#[derive(Clone, Copy, Debug)]
struct LastRow {
    next_scrape: Nanos,
    load: f64,
}

impl KnativeKpa {
    pub(super) fn new(config: &KnativeKpaConfig, initial_replicas: u32) -> Self {
        let aggregation = config.metric_aggregation_algorithm;
        let window = |window| Buckets::new(window, aggregation);
        // A revision at zero was scaled there: 0 is what it last wanted.
        let at_zero = Scale {
            desired: 0,
            excess_burst_capacity: initial_burst_capacity(config),
            rule: Rule::Stable,
        };
        KnativeKpa {
            config: config.clone(),
            windows: Windows {
                stable: window(config.stable_window),
                panic: window(config.panic_window()),
            },
            decider: None,
            measured: None,
            scale: (initial_replicas == 0).then_some(at_zero),
            scaler: Scaler::new(config, initial_replicas),
            counted: Counted::default(),
            ready: 0,
            next_tick: TICK_INTERVAL,
            next_look: Some(0),
            row: None,
        }
    }

    /// A decision on what the windows have; none without data.
    fn tick(&mut self, now: Nanos) {
        // Without a service to scrape, empty windows are no error (`collector.go`).
        let is_scraped = self.is_scraped();
        self.measured = if self.windows.stable.is_empty(now) && is_scraped {
            None
        } else {
            Some(Measured {
                stable: self.windows.stable.average(now),
                panic: self.windows.panic.average(now),
                ready: self.ready,
            })
        };
        self.decide(now);
    }

    fn decide(&mut self, now: Nanos) {
        let (config, ready) = (&self.config, self.ready);
        let decider = self
            .decider
            .get_or_insert_with(|| Decider::new(config, now, ready));
        if let Some(measured) = self.measured {
            self.scale = Some(decider.scale(now, measured));
        }
    }

    /// With the activator always in the path, it alone reports (`resolveScrapeTarget`).
    fn is_scraped(&self) -> bool {
        self.config.target_burst_capacity != -1.0
    }

    fn wants_none(&self) -> bool {
        self.scale.is_some_and(|scale| scale.desired == 0)
    }

    /// The last second, from instances that are ready and from the activator.
    /// An instance reports even when it did nothing; the activator reports that once.
    fn scrape(&mut self, now: Nanos, deployment: &Observation) {
        let counted = self.counted;
        let elapsed = now - counted.at;
        if elapsed > 0 {
            let value = match self.config.metric {
                KnativeMetric::Concurrency => {
                    let grown = deployment.in_flight_request_ns - counted.in_flight_request_ns;
                    grown as f64 / elapsed as f64
                }
                KnativeMetric::Rps => {
                    let received = deployment.requests_received - counted.requests_received;
                    received as f64 * SECOND as f64 / elapsed as f64
                }
            };
            let is_reported = deployment.ready > 0 && self.is_scraped();
            if is_reported || value > 0.0 || counted.was_active {
                // `computeReport`: what was reported early does not count twice.
                self.windows
                    .record(now, f64::max(value - counted.reported, 0.0));
            }
            self.counted.was_active = value > 0.0;
        }
        self.counted = Counted {
            at: now,
            in_flight_request_ns: deployment.in_flight_request_ns,
            requests_received: deployment.requests_received,
            reported: 0.0,
            ..self.counted
        };
    }

    /// The scaler's part: a decision if the target changes.
    fn reconcile(&mut self, now: Nanos) -> (Hold, Option<Decision>) {
        let before = self.scaler.target();
        let desired = self.scale.map(|scale| scale.desired.unsigned_abs());
        let burst = self.scale.map_or_else(
            || initial_burst_capacity(&self.config),
            |scale| scale.excess_burst_capacity,
        );
        let hold = self.scaler.reconcile(now, desired, burst, self.ready);
        let target = self.scaler.target();
        let decision = (target != before).then(|| Decision {
            target,
            reason: Reason::words(self.explain(hold)),
        });
        (hold, decision)
    }

    fn explain(&self, hold: Hold) -> String {
        let mut words = self.explain_load();
        let burst = self.scale.map_or(0, |scale| scale.excess_burst_capacity);
        let more = match hold {
            Hold::Wanted | Hold::Unknown => return words,
            Hold::Min(min) => format!("at least {min} (min-scale or initial-scale)"),
            Hold::Max(max) => format!("at most {max} (max-scale)"),
            Hold::NeverZero => "enable-scale-to-zero is off".to_owned(),
            Hold::Activating(left) => format!("activating, for {} at most", Span(left)),
            Hold::TimedOut => "not activated within progress-deadline + 30s".to_owned(),
            Hold::Active(left) => format!("active for a stable-window, {} to go", Span(left)),
            Hold::Deactivated => "inactive from now on".to_owned(),
            Hold::Retention(left) => {
                let left = Span(left);
                format!("scale-to-zero-pod-retention-period, {left} to go")
            }
            Hold::Grace(left) => format!("scale-to-zero-grace-period, {} to go", Span(left)),
            Hold::Zero(proxied) => {
                let proxied = Span(proxied);
                format!(
                    "the activator is in the path for {proxied} (excess burst capacity {burst})"
                )
            }
        };
        words.push_str("; ");
        words.push_str(&more);
        words
    }

    /// Both windows beside what a replica should have, and which rule decided.
    fn explain_load(&self) -> String {
        let (Some(measured), Some(decider)) = (self.measured, &self.decider) else {
            return "no data to scale on".to_owned();
        };
        let unit = match self.config.metric {
            KnativeMetric::Concurrency => "requests in flight",
            KnativeMetric::Rps => "requests/s",
        };
        // Knative's rounding can give a zero with a sign.
        let (stable, panic) = (
            Decimal(measured.stable + 0.0),
            Decimal(measured.panic + 0.0),
        );
        let (long, short) = (
            Span(self.config.stable_window),
            Span(self.config.panic_window()),
        );
        let target = Decimal(decider.target());
        let load =
            format!("{stable} {unit} over {long}, {panic} over {short}, at {target} a replica");
        match self.scale.map(|scale| (scale.rule, scale.desired)) {
            Some((Rule::Panic, desired)) => format!("{load}; panic: no fewer than {desired}"),
            Some((Rule::Delay, desired)) => {
                let delay = Span(self.config.scale_down_delay);
                format!("{load}; scale-down-delay of {delay}: no fewer than {desired}")
            }
            Some((Rule::Stable, _)) | None => load,
        }
    }

    /// Fills the windows with the seconds since the last row.
    fn scrape_row(&mut self, now: Nanos, load: f64) {
        let mut row = self.row.unwrap_or(LastRow {
            next_scrape: now,
            load,
        });
        let gap = now - row.next_scrape.min(now);
        if gap > FORGOTTEN {
            row.next_scrape += (gap - FORGOTTEN) / SCRAPE_INTERVAL * SCRAPE_INTERVAL;
        }
        while row.next_scrape < now {
            self.windows.record(row.next_scrape, row.load);
            row.next_scrape += SCRAPE_INTERVAL;
        }
        if row.next_scrape == now {
            self.windows.record(now, load);
            row.next_scrape += SCRAPE_INTERVAL;
        }
        row.load = load;
        self.row = Some(row);
    }
}

/// Before the first decision (`createScaler` in `multiscaler.go`).
fn initial_burst_capacity(config: &KnativeKpaConfig) -> i32 {
    let burst = config.target_burst_capacity;
    if burst == 0.0 || burst == -1.0 {
        return burst as i32;
    }
    let (_, total) = config.target_and_total();
    (f64::from(config.initial_scale) * total - burst) as i32
}

fn next_multiple(now: Nanos, interval: Nanos) -> Nanos {
    (now / interval + 1) * interval
}

impl Policy for KnativeKpa {
    /// The activator reports the first request at zero at once, and has the
    /// Decider look (`getOrCreateStat`, `MultiScaler.Poke`).
    #[inline]
    fn on_request(&mut self, now: Nanos) -> Option<Decision> {
        if self.wants_none() {
            self.poke(now)
        } else {
            None
        }
    }

    fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        _: &[ReplicaLoad],
    ) -> Option<Decision> {
        self.ready = deployment.ready;
        let (config, ready) = (&self.config, self.ready);
        self.decider
            .get_or_insert_with(|| Decider::new(config, now, ready));
        self.scrape(now, deployment);
        if now >= self.next_tick {
            self.tick(now);
            self.next_tick = next_multiple(now, TICK_INTERVAL);
        }
        let (_, decision) = self.reconcile(now);
        let in_flight = deployment.running + deployment.queued;
        let replicas = deployment.ready + deployment.starting;
        let is_at_rest = self.wants_none() && self.scaler.is_at_rest();
        self.next_look = if is_at_rest && in_flight == 0 && replicas == 0 {
            None
        } else {
            Some(next_multiple(now, SCRAPE_INTERVAL))
        };
        decision
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.next_look
    }

    fn target(&self) -> u32 {
        self.scaler.target()
    }

    fn look(&mut self, now: Nanos, row: &Row) -> Verdict {
        self.ready = row.count("ready");
        if self.row.is_none() {
            self.scaler = Scaler::new(&self.config, self.ready);
            self.scale = None;
        }
        self.scrape_row(now, row.required("load"));
        if let Some(stable) = row.number("stable_load") {
            self.measured = Some(Measured {
                stable,
                panic: row.number("panic_load").unwrap_or(stable),
                ready: self.ready,
            });
            self.decide(now);
        } else {
            self.tick(now);
        }
        let desired = self
            .scale
            .map_or(self.ready, |scale| scale.desired.unsigned_abs());
        let (hold, _) = self.reconcile(now);
        let words = self.explain(hold);
        let burst = self.scale.map_or(0, |scale| scale.excess_burst_capacity);
        let target = self.scaler.target();
        Verdict {
            desired,
            reason: Reason::words(format!(
                "{words}; target {target}, excess burst capacity {burst}"
            )),
        }
    }
}

impl KnativeKpa {
    #[cold]
    fn poke(&mut self, now: Nanos) -> Option<Decision> {
        if self.next_look.is_none() {
            // Nothing happened since the last look.
            self.counted.at = now / SCRAPE_INTERVAL * SCRAPE_INTERVAL;
            self.next_look = Some(next_multiple(now, SCRAPE_INTERVAL));
            self.next_tick = next_multiple(now, TICK_INTERVAL);
        }
        self.windows.record(now, 1.0);
        self.counted.reported = 1.0;
        self.tick(now);
        let (_, decision) = self.reconcile(now);
        decision.map(|decision| Decision {
            reason: Reason::WokenByRequest,
            ..decision
        })
    }
}
