//! What a deployment is asked to be: what is written, what that means, and what is wrong with it.
//!
//! [`Settings`] are kept as they were written, so that a default stays a default:
//! when an update raises the minimum, a maximum that nobody set follows it.

use thiserror::Error;

use super::tiers::GpuKind;
use crate::control::autoscaler::FireworksConfig;
use crate::time::{HOUR, MINUTE, Nanos, SECOND, seconds};

/// A duration as Go's `time.ParseDuration` reads it (ns): it may be negative (S29).
pub type GoNanos = i64;

/// Which documentation of the provider is followed where two differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// The specification. What is unused is deleted, whatever its minimum, and
    /// so is everything when the spend limit is reached (S30).
    #[default]
    Spec,
    /// The provider's documentation of 2026: limits on counts and windows (B02,
    /// B03), only deployments with a minimum of 0 are deleted when unused (B08),
    /// and the spend limit pauses (B12).
    Fireworks2026,
}

/// What is decided when a deployment is created, and cannot be changed (B09).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentSpec {
    /// On which GPUs.
    pub gpu: GpuKind,
    /// By which rules.
    pub profile: Profile,
    /// Replicas at the beginning. `None` is the minimum, and at least one if the
    /// maximum allows it: a deployment shows that it can start before it goes to
    /// zero for want of requests (S23; B16 saw the same).
    pub initial_replica_count: Option<u32>,
    /// Everything that an update may change.
    pub settings: Settings,
}

/// What may be set on create and on update. `None` is the default on create, and
/// as it was on update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// GPUs a replica; the model's own number by default (S32).
    pub world_size: Option<u32>,
    /// Fewest replicas; 0 by default (S21).
    pub min_replica_count: Option<u32>,
    /// Most replicas; the minimum by default, and at least 1 (S22). 0 parks the deployment.
    pub max_replica_count: Option<u32>,
    /// How long load must be higher before replicas are added; 30 s by default (S26).
    pub scale_up_window: Option<GoNanos>,
    /// How long load must be lower before replicas are removed; 10 min by default (S27).
    pub scale_down_window: Option<GoNanos>,
    /// How long without requests before the last replicas go; 1 h by default (S28).
    pub scale_to_zero_window: Option<GoNanos>,
    /// How long without requests before the deployment is deleted; a week by default, 0 is never (S13, S15).
    pub unused_auto_delete_duration: Option<GoNanos>,
}

impl DeploymentSpec {
    /// How many replicas the deployment begins with.
    pub(super) fn initial_replicas(&self, limits: ReplicaLimits) -> Result<u32, SettingsError> {
        let default = limits.min.max(1).min(limits.max);
        limits.check(self.initial_replica_count.unwrap_or(default))
    }
}

impl Settings {
    /// These settings with what an update sets.
    #[must_use]
    pub fn updated(self, update: Settings) -> Settings {
        Settings {
            world_size: update.world_size.or(self.world_size),
            min_replica_count: update.min_replica_count.or(self.min_replica_count),
            max_replica_count: update.max_replica_count.or(self.max_replica_count),
            scale_up_window: update.scale_up_window.or(self.scale_up_window),
            scale_down_window: update.scale_down_window.or(self.scale_down_window),
            scale_to_zero_window: update.scale_to_zero_window.or(self.scale_to_zero_window),
            unused_auto_delete_duration: update
                .unused_auto_delete_duration
                .or(self.unused_auto_delete_duration),
        }
    }

    /// What the settings mean, for a model that takes `world_size` GPUs by default.
    ///
    /// # Errors
    /// A [`SettingsError`] names the first setting that cannot be used, and what it may be.
    pub fn resolve(self, profile: Profile, world_size: u32) -> Result<Resolved, SettingsError> {
        let world_size = self.world_size.unwrap_or(world_size);
        if world_size == 0 {
            return Err(SettingsError::WorldSizeZero);
        }
        Ok(Resolved {
            world_size,
            scaling: Scaling {
                replicas: self.replica_limits(profile)?,
                windows: self.windows(profile)?,
            },
            unused_auto_delete: self.unused_auto_delete()?,
        })
    }

    fn replica_limits(self, profile: Profile) -> Result<ReplicaLimits, SettingsError> {
        let min = self.min_replica_count.unwrap_or(0);
        let max = self.max_replica_count.unwrap_or(min.max(1));
        // A maximum of 0 parks the deployment at zero, whatever the minimum (B03).
        if max > 0 && min > max {
            return Err(SettingsError::MinAboveMax { min, max });
        }
        let most = match profile {
            Profile::Spec => u32::MAX,
            Profile::Fireworks2026 => REPLICA_COUNT_MAX,
        };
        if max > most {
            return Err(SettingsError::MaxAboveLimit { max, most });
        }
        Ok(ReplicaLimits { min, max })
    }

    fn windows(self, profile: Profile) -> Result<ScalingWindows, SettingsError> {
        let up = duration("scale_up_window", self.scale_up_window, 30 * SECOND)?;
        let down = duration("scale_down_window", self.scale_down_window, 10 * MINUTE)?;
        let zero = duration("scale_to_zero_window", self.scale_to_zero_window, HOUR)?;
        let windows = ScalingWindows { up, down, zero };
        match profile {
            Profile::Spec => Ok(windows),
            Profile::Fireworks2026 => windows.within_limits_of_2026(),
        }
    }

    fn unused_auto_delete(self) -> Result<Option<Nanos>, SettingsError> {
        let name = "unused_auto_delete_duration";
        let after = duration(name, self.unused_auto_delete_duration, WEEK)?;
        Ok((after > 0).then_some(after))
    }
}

const WEEK: Nanos = 168 * HOUR;

/// B03: the largest `max_replica_count`.
const REPLICA_COUNT_MAX: u32 = 1_000;
/// B02: the longest windows for scaling up and down.
const WINDOW_MAX: Nanos = HOUR;
/// B02: the shortest window for scaling to zero.
const SCALE_TO_ZERO_WINDOW_MIN: Nanos = 5 * MINUTE;

fn duration(
    name: &'static str,
    written: Option<GoNanos>,
    default: Nanos,
) -> Result<Nanos, SettingsError> {
    let Some(nanos) = written else {
        return Ok(default);
    };
    Nanos::try_from(nanos).map_err(|_| SettingsError::Negative { name, nanos })
}

/// What settings mean, with every default filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// GPUs a replica.
    pub world_size: u32,
    /// How many replicas there may be, and how patiently their number changes.
    pub scaling: Scaling,
    /// How long without requests before the deployment is deleted; `None` is never.
    pub unused_auto_delete: Option<Nanos>,
}

impl Resolved {
    /// GPUs that all replicas have together at most.
    #[must_use]
    pub fn gpus_max(&self) -> u64 {
        u64::from(self.scaling.replicas.max) * u64::from(self.world_size)
    }
}

/// What the autoscaler needs to know of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// Fewest and most.
    pub replicas: ReplicaLimits,
    /// How long it waits.
    pub windows: ScalingWindows,
}

impl Scaling {
    /// The parameters of an autoscaler under these limits and windows, the others as they are.
    #[must_use]
    pub fn applied_to(&self, config: &FireworksConfig) -> FireworksConfig {
        FireworksConfig {
            min_replica_count: self.replicas.min,
            max_replica_count: self.replicas.max,
            scale_up_window: self.windows.up,
            scale_down_window: self.windows.down,
            scale_to_zero_window: self.windows.zero,
            ..config.clone()
        }
    }
}

/// How many replicas there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaLimits {
    /// Fewest.
    pub min: u32,
    /// Most; 0 parks the deployment, whatever the minimum.
    pub max: u32,
}

impl ReplicaLimits {
    /// Whether no request wakes the deployment.
    #[must_use]
    pub fn is_parked(self) -> bool {
        self.max == 0
    }

    /// The count nearest to this one that the limits allow.
    #[must_use]
    pub fn nearest(self, count: u32) -> u32 {
        count.max(self.min).min(self.max)
    }

    /// This count, if the limits allow it.
    pub(super) fn check(self, count: u32) -> Result<u32, SettingsError> {
        let ReplicaLimits { min, max } = self;
        if count == self.nearest(count) {
            Ok(count)
        } else {
            Err(SettingsError::CountOutsideLimits { count, min, max })
        }
    }
}

/// How long the autoscaler waits before it changes the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalingWindows {
    /// After observing increased load.
    pub up: Nanos,
    /// After observing decreased load.
    pub down: Nanos,
    /// Without requests, before the last replicas go; ignored if the minimum is above 0.
    pub zero: Nanos,
}

impl ScalingWindows {
    fn within_limits_of_2026(self) -> Result<Self, SettingsError> {
        for (name, window) in [
            ("scale_up_window", self.up),
            ("scale_down_window", self.down),
        ] {
            if window > WINDOW_MAX {
                return Err(SettingsError::WindowTooLong { name, window });
            }
        }
        // B03: 0 is as if it were not set.
        let zero = if self.zero == 0 { HOUR } else { self.zero };
        if zero < SCALE_TO_ZERO_WINDOW_MIN {
            return Err(SettingsError::ScaleToZeroWindowTooShort { window: zero });
        }
        Ok(Self { zero, ..self })
    }
}

/// Why settings cannot be used. Each names the one to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// A replica has at least one GPU.
    #[error("world_size must be at least 1")]
    WorldSizeZero,
    /// The text is that of the provider's own validator (B03).
    #[error("min_replica_count cannot be greater than max_replica_count ({min} > {max})")]
    MinAboveMax {
        /// `min_replica_count`.
        min: u32,
        /// `max_replica_count`.
        max: u32,
    },
    /// Outside of what the deployment allows.
    #[error("replica count must be {min} to {max}: {count}; update the limits to change that")]
    CountOutsideLimits {
        /// What was asked for.
        count: u32,
        /// Fewest.
        min: u32,
        /// Most.
        max: u32,
    },
    /// More than the provider allows (B03).
    #[error("max_replica_count must be at most {most}: {max}")]
    MaxAboveLimit {
        /// `max_replica_count`.
        max: u32,
        /// The most that it may be.
        most: u32,
    },
    /// Go reads a negative duration, and no setting can be one (B03).
    #[error("{name} must not be negative: {}s", signed_seconds(*.nanos))]
    Negative {
        /// Which.
        name: &'static str,
        /// What was written.
        nanos: GoNanos,
    },
    /// Longer than the provider allows (B02).
    #[error("{name} must be at most 1 hour: {}s", seconds(*.window))]
    WindowTooLong {
        /// Which.
        name: &'static str,
        /// What was written.
        window: Nanos,
    },
    /// Shorter than the provider allows (B02).
    #[error("scale_to_zero_window must be at least 5 minutes: {}s", seconds(*.window))]
    ScaleToZeroWindowTooShort {
        /// What was written.
        window: Nanos,
    },
}

fn signed_seconds(nanos: GoNanos) -> f64 {
    nanos as f64 / SECOND as f64
}
