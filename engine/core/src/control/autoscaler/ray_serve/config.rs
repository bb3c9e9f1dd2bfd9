//! The parameters of Ray Serve's autoscaler, under its own names.

use super::super::ConfigError;

/// Ray Serve's `AutoscalingConfig`, Ray 2.60.0. Names, defaults and bounds are its own.
#[derive(Clone, Debug, PartialEq)]
pub struct RayServeConfig {
    /// What a delay is measured in, which later versions of Ray changed.
    pub delays: Delays,
    /// Fewest replicas.
    pub min_replicas: u32,
    /// Most replicas.
    pub max_replicas: u32,
    /// How many replicas there are at first; the minimum if `None`.
    pub initial_replicas: Option<u32>,
    /// Requests that a replica should have, running and queued.
    pub target_ongoing_requests: f64,
    /// Over how many seconds requests are aggregated.
    pub look_back_period_s: f64,
    /// Seconds between two reports of how many requests there are.
    pub metrics_interval_s: f64,
    /// For how many seconds more replicas must be wanted.
    pub upscale_delay_s: f64,
    /// For how many seconds fewer replicas must be wanted.
    pub downscale_delay_s: f64,
    /// The same for the last replica; `downscale_delay_s` if `None`.
    pub downscale_to_zero_delay_s: Option<f64>,
    /// How much of the way up is gone at once; all of it (1) if `None`.
    pub upscaling_factor: Option<f64>,
    /// How much of the way down is gone at once; all of it (1) if `None`.
    pub downscaling_factor: Option<f64>,
    /// What requests over the look-back period come to.
    pub aggregation_function: AggregationFunction,
}

/// What a delay is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delays {
    /// Time (`ray-serve`).
    Clock,
    /// Looks of the control loop, taken to be 0.1 s apart whatever they are:
    /// Ray before ray#62004, that is up to 2.54 (`ray-serve-legacy`).
    Looks,
}

/// What requests over the look-back period come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregationFunction {
    /// Their mean over time.
    Mean,
    /// The most there were.
    Max,
    /// The fewest there were.
    Min,
}

impl Default for RayServeConfig {
    /// `AutoscalingConfig` in `serve/config.py`, Ray 2.60.0.
    fn default() -> Self {
        Self {
            delays: Delays::Clock,
            min_replicas: 1,
            max_replicas: 1,
            initial_replicas: None,
            // `DEFAULT_TARGET_ONGOING_REQUESTS` and, below it, `DEFAULT_METRICS_INTERVAL_S`.
            target_ongoing_requests: 2.0,
            look_back_period_s: 30.0,
            metrics_interval_s: 10.0,
            upscale_delay_s: 30.0,
            downscale_delay_s: 600.0,
            downscale_to_zero_delay_s: None,
            upscaling_factor: None,
            downscaling_factor: None,
            aggregation_function: AggregationFunction::Mean,
        }
    }
}

impl RayServeConfig {
    pub(super) fn upscaling_factor(&self) -> f64 {
        // The deprecated `smoothing_factor` that stands behind it is 1.
        self.upscaling_factor.unwrap_or(1.0)
    }

    pub(super) fn downscaling_factor(&self) -> f64 {
        self.downscaling_factor.unwrap_or(1.0)
    }

    /// How many replicas there are at first.
    #[must_use]
    pub fn initial(&self) -> u32 {
        self.initial_replicas.unwrap_or(self.min_replicas)
    }

    /// The bounds are those of the types of `AutoscalingConfig`'s fields.
    pub(in super::super) fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            (
                "target_ongoing_requests",
                Some(self.target_ongoing_requests),
            ),
            ("look_back_period_s", Some(self.look_back_period_s)),
            ("metrics_interval_s", Some(self.metrics_interval_s)),
            ("upscaling_factor", self.upscaling_factor),
            ("downscaling_factor", self.downscaling_factor),
            ("max_replicas", Some(f64::from(self.max_replicas))),
        ];
        let delays = [
            ("upscale_delay_s", Some(self.upscale_delay_s)),
            ("downscale_delay_s", Some(self.downscale_delay_s)),
            ("downscale_to_zero_delay_s", self.downscale_to_zero_delay_s),
        ];
        check(&positive, "greater than 0", |value| value > 0.0)?;
        check(&delays, "greater than or equal to 0", |value| value >= 0.0)?;
        self.validate_intervals()?;
        self.validate_replicas()
    }

    /// The anchor accepts any interval above 0. An event loop does not tell
    /// milliseconds apart, and a simulation would stand still.
    fn validate_intervals(&self) -> Result<(), ConfigError> {
        let expected = "at least 0.001";
        let shortest = |name: &'static str, value: f64, least: f64| {
            let is_usable = value >= least;
            is_usable
                .then_some(())
                .ok_or_else(|| refused(name, expected, &value))
        };
        shortest("metrics_interval_s", self.metrics_interval_s, 0.001)?;
        shortest("look_back_period_s", self.look_back_period_s, 0.001)
    }

    /// `replicas_settings_valid`, with its bounds.
    fn validate_replicas(&self) -> Result<(), ConfigError> {
        let (min, max) = (self.min_replicas, self.max_replicas);
        if max < min {
            let expected = "greater than or equal to min_replicas";
            return Err(refused("max_replicas", expected, &format!("{max} < {min}")));
        }
        let (expected, bound) = match self.initial_replicas {
            Some(initial) if initial < min => {
                ("at least min_replicas", format!("{initial} < {min}"))
            }
            Some(initial) if initial > max => {
                ("at most max_replicas", format!("{initial} > {max}"))
            }
            _ => return Ok(()),
        };
        Err(refused("initial_replicas", expected, &bound))
    }
}

/// Finds the first number that is not within a bound, or not finite: no reading
/// of infinity makes sense here.
fn check(
    numbers: &[(&'static str, Option<f64>)],
    expected: &'static str,
    is_within: fn(f64) -> bool,
) -> Result<(), ConfigError> {
    for &(name, value) in numbers {
        let value = value.unwrap_or(1.0);
        if !(is_within(value) && value.is_finite()) {
            return Err(refused(name, expected, &value));
        }
    }
    Ok(())
}

fn refused(name: &'static str, expected: &'static str, value: &impl ToString) -> ConfigError {
    ConfigError::Parameter {
        name,
        expected,
        value: value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(edit: impl FnOnce(&mut RayServeConfig)) -> String {
        let mut config = RayServeConfig::default();
        edit(&mut config);
        config
            .validate()
            .map_or_else(|error| error.to_string(), |()| "accepted".to_owned())
    }

    #[test]
    fn the_defaults_are_accepted() {
        assert_eq!(refusal(|_| {}), "accepted");
        assert_eq!(RayServeConfig::default().initial(), 1);
    }

    /// `AutoscalingConfig(...)` of Ray 2.60.0 refuses each of these.
    #[test]
    fn replica_counts_are_refused_with_the_anchors_bounds() {
        assert_eq!(
            refusal(|c| c.min_replicas = 2),
            "max_replicas must be greater than or equal to min_replicas: 1 < 2"
        );
        assert_eq!(
            refusal(|c| c.initial_replicas = Some(0)),
            "initial_replicas must be at least min_replicas: 0 < 1"
        );
        assert_eq!(
            refusal(|c| c.initial_replicas = Some(2)),
            "initial_replicas must be at most max_replicas: 2 > 1"
        );
        assert_eq!(
            refusal(|c| (c.min_replicas, c.max_replicas) = (0, 0)),
            "max_replicas must be greater than 0: 0"
        );
    }

    #[test]
    fn numbers_are_refused_with_the_anchors_bounds() {
        assert_eq!(
            refusal(|c| c.target_ongoing_requests = 0.0),
            "target_ongoing_requests must be greater than 0: 0"
        );
        assert_eq!(
            refusal(|c| c.downscale_to_zero_delay_s = Some(-1.0)),
            "downscale_to_zero_delay_s must be greater than or equal to 0: -1"
        );
        for bad in [f64::NAN, f64::INFINITY, -0.5] {
            assert_ne!(refusal(|c| c.look_back_period_s = bad), "accepted", "{bad}");
            assert_ne!(refusal(|c| c.upscale_delay_s = bad), "accepted", "{bad}");
            let factor = refusal(|c| c.upscaling_factor = Some(bad));
            assert_ne!(factor, "accepted", "{bad}");
        }
        assert_eq!(refusal(|c| c.upscale_delay_s = 0.0), "accepted");
        assert_eq!(
            refusal(|c| c.metrics_interval_s = 1e-9),
            "metrics_interval_s must be at least 0.001: 0.000000001"
        );
    }
}
