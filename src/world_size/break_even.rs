//! From which rate on one replica of more GPUs, or several of fewer, is the better use of the same GPUs.

use serde::Serialize;

use super::probe::{Probe, Row};
use crate::failure::Failure;

/// Rates between the lowest and the highest that both can serve at which the two are compared: one may be the faster more
/// than once, since a long prompt delays the whole batch of the one, and of the several only its own.
const RATES: u32 = 10;

/// Halvings of the rates between which two are equally fast: to within 0.1 % of the gap between two of them.
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

/// Who answers sooner, at the rates that were tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "sooner")]
pub(super) enum Latency {
    /// The one replica, at every rate that both can serve.
    Always,
    /// The several, at every rate that both can serve.
    Never,
    /// The one replica up to this rate (requests/s), the several beyond it.
    UpTo {
        /// The rate.
        requests_per_s: f64,
    },
    /// The several up to this rate (requests/s), the one replica beyond it.
    From {
        /// The rate.
        requests_per_s: f64,
    },
    /// Now the one and now the other.
    Changing {
        /// Whether it is the one replica at the lowest rate.
        is_one_first: bool,
        /// The rates (requests/s) at which that changes.
        requests_per_s: Vec<f64>,
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
    sooner_at(last, |rate| {
        Ok(one.e2e_mean_s(rate)? <= other.e2e_mean_s(rate / share)?)
    })
}

/// At which rates from a hundredth of the last on something is so.
fn sooner_at(
    last: f64,
    mut is_sooner: impl FnMut(f64) -> Result<bool, Failure>,
) -> Result<Latency, Failure> {
    let mut at = last / 100.0;
    let is_one_first = is_sooner(at)?;
    let mut is_one = is_one_first;
    let mut changes = Vec::new();
    for index in 1..=RATES {
        let rate = last * f64::from(index) / f64::from(RATES);
        if is_sooner(rate)? != is_one {
            let (mut low, mut high) = (at, rate);
            for _ in 0..HALVINGS {
                let middle = low + (high - low) / 2.0;
                match is_sooner(middle)? == is_one {
                    true => low = middle,
                    false => high = middle,
                }
            }
            changes.push(low);
            is_one = !is_one;
        }
        at = rate;
    }
    Ok(match (is_one_first, changes.as_slice()) {
        (true, []) => Latency::Always,
        (false, []) => Latency::Never,
        (true, [requests_per_s]) => Latency::UpTo {
            requests_per_s: *requests_per_s,
        },
        (false, [requests_per_s]) => Latency::From {
            requests_per_s: *requests_per_s,
        },
        _ => Latency::Changing {
            is_one_first,
            requests_per_s: changes,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{Latency, cheaper, sooner_at};

    #[test]
    fn one_replica_is_cheaper_only_beyond_what_as_many_gpus_serve_apart() {
        // Four GPUs apart serve 40; one replica of four serves 50, so between them it is cheaper.
        assert_eq!(cheaper(50.0, 10.0, 4), (Some(40.0), Some(50.0)));
        assert_eq!(cheaper(30.0, 10.0, 4), (None, None));
        // A world size that meets the objectives at no rate is beaten from the first request on.
        assert_eq!(cheaper(30.0, 0.0, 4), (Some(0.0), Some(30.0)));
    }

    #[test]
    fn every_change_between_the_rates_is_found() {
        let of = |is_sooner: fn(f64) -> bool| sooner_at(50.0, |rate| Ok(is_sooner(rate))).unwrap();
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 0.01, "{found} {expected}");
        };
        assert_eq!(of(|_| true), Latency::Always);
        assert_eq!(of(|_| false), Latency::Never);
        match of(|rate| rate < 33.0) {
            Latency::UpTo { requests_per_s } => near(requests_per_s, 33.0),
            other => panic!("{other:?}"),
        }
        match of(|rate| rate > 12.0) {
            Latency::From { requests_per_s } => near(requests_per_s, 12.0),
            other => panic!("{other:?}"),
        }
        match of(|rate| !(12.0..33.0).contains(&rate)) {
            Latency::Changing {
                is_one_first: true,
                requests_per_s,
            } => {
                assert_eq!(requests_per_s.len(), 2);
                near(requests_per_s[0], 12.0);
                near(requests_per_s[1], 33.0);
            }
            other => panic!("{other:?}"),
        }
    }
}
