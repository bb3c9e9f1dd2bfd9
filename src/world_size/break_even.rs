//! From which rate on one replica of more GPUs, or several of fewer, is the better use of the same GPUs.

use serde::Serialize;

use super::probe::{Probe, Row};
use crate::failure::Failure;

/// Halvings of the rates between which two are equally fast: to within 0.1 %.
const HALVINGS: u32 = 10;

/// The same GPUs as one replica, or as several.
#[derive(Clone, Debug, Serialize)]
pub(super) struct BreakEven {
    /// GPUs of the one.
    pub(super) world_size: u32,
    /// GPUs of each of the others.
    pub(super) against_world_size: u32,
    /// How many there are of those.
    pub(super) against_replicas: u32,
    /// Who answers sooner, in the mean over requests.
    pub(super) latency: Latency,
    /// The rate (requests/s) from which on, within the objectives, the one needs fewer GPUs than
    /// replicas of the other size; none if it never does.
    pub(super) cheaper_from_requests_per_s: Option<f64>,
    /// And the last rate (requests/s) that one replica serves.
    pub(super) cheaper_to_requests_per_s: Option<f64>,
}

/// Who answers sooner.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "sooner")]
pub(super) enum Latency {
    /// The one replica, at every rate that both can serve.
    Always,
    /// The several, at every rate.
    Never,
    /// The one replica up to this rate (requests/s), the several beyond it.
    UpTo {
        /// The rate.
        requests_per_s: f64,
    },
}

/// Each world size against each smaller one that divides it.
pub(super) fn all(probes: &[Probe], rows: &[Row]) -> Result<Vec<BreakEven>, Failure> {
    let mut found = Vec::new();
    for (index, (one, row)) in probes.iter().zip(rows).enumerate() {
        for (other, other_row) in probes[..index].iter().zip(rows) {
            if one.world_size().is_multiple_of(other.world_size()) {
                found.push(between((one, row), (other, other_row))?);
            }
        }
    }
    Ok(found)
}

fn between(
    (one, row): (&Probe, &Row),
    (other, other_row): (&Probe, &Row),
) -> Result<BreakEven, Failure> {
    let replicas = one.world_size() / other.world_size();
    let rate_max = |row: &Row| row.figures.as_ref().map_or(0.0, |of| of.requests_per_s_max);
    let (cheaper_from, cheaper_to) = cheaper(rate_max(row), rate_max(other_row), replicas);
    Ok(BreakEven {
        world_size: one.world_size(),
        against_world_size: other.world_size(),
        against_replicas: replicas,
        latency: latency(one, other, replicas)?,
        cheaper_from_requests_per_s: cheaper_from,
        cheaper_to_requests_per_s: cheaper_to,
    })
}

/// The rates at which one replica that serves `one` requests a second takes fewer GPUs than replicas of a `replicas`th
/// of its GPUs that serve `other` each: those for which `replicas` of them are too few.
fn cheaper(one: f64, other: f64, replicas: u32) -> (Option<f64>, Option<f64>) {
    let from = other * f64::from(replicas);
    match one > from {
        true => (Some(from), Some(one)),
        false => (None, None),
    }
}

fn latency(one: &Probe, other: &Probe, replicas: u32) -> Result<Latency, Failure> {
    let share = f64::from(replicas);
    let last = one.saturation()?.min(other.saturation()? * share);
    let sooner = |rate: f64| -> Result<bool, Failure> {
        Ok(one.e2e_mean_s(rate)? <= other.e2e_mean_s(rate / share)?)
    };
    let (mut low, mut high) = (last / 100.0, last);
    if !sooner(low)? {
        return Ok(Latency::Never);
    }
    if sooner(high)? {
        return Ok(Latency::Always);
    }
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2.0;
        if sooner(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Latency::UpTo {
        requests_per_s: low,
    })
}

#[cfg(test)]
mod tests {
    use super::cheaper;

    #[test]
    fn one_replica_is_cheaper_only_beyond_what_as_many_gpus_serve_apart() {
        // Four GPUs apart serve 40; one replica of four serves 50, so between them it is cheaper.
        assert_eq!(cheaper(50.0, 10.0, 4), (Some(40.0), Some(50.0)));
        assert_eq!(cheaper(30.0, 10.0, 4), (None, None));
        // A world size that meets the objectives at no rate is beaten from the first request on.
        assert_eq!(cheaper(30.0, 0.0, 4), (Some(0.0), Some(30.0)));
    }
}
