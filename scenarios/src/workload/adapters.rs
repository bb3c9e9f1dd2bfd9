//! Which LoRA adapter a request asks for.
//!
//! A request has a number: the place of its adapter in the list of those that
//! are deployed, or, where a trace is read by itself, in the order in which the
//! trace first names them.

use std::collections::BTreeMap;

use rand::Rng;

use super::error::{Fault, WorkloadError};
use super::trace::fields::Field;
use crate::random::{Stream, stream};

/// The adapters of a workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adapters {
    /// The adapters that requests may ask for; `None` for any that a trace names.
    pub deployed: Option<Vec<String>>,
    /// How requests choose, of a source that does not say.
    pub mix: Option<AdapterMix>,
}

/// Adapters drawn at random: for each request or, so that a conversation stays
/// with its adapter, for each conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterMix {
    /// Share of the requests to the model itself, 0 to 1.
    pub base_share: f64,
    /// Adapters, as places in the list of those deployed, and their weights.
    pub weights: Vec<(u32, f64)>,
    /// The exponent, if the weights follow Zipf's law, to describe them.
    pub zipf: Option<f64>,
}

impl AdapterMix {
    /// The first `count` adapters by Zipf's law: the k-th, from 1, weighs `k^-exponent`.
    /// With an exponent of 0 all weigh the same.
    #[must_use]
    pub fn zipf(count: u32, exponent: f64, base_share: f64) -> Self {
        let weight = |place: u32| libm::pow(f64::from(place) + 1.0, -exponent);
        Self {
            base_share,
            weights: (0..count).map(|place| (place, weight(place))).collect(),
            zipf: Some(exponent),
        }
    }

    fn validate(&self) -> Result<(), WorkloadError> {
        if !(0.0..=1.0).contains(&self.base_share) {
            let expected = "a share from 0 to 1";
            return Err(WorkloadError::option(
                "adapters.base_share",
                expected,
                self.base_share,
            ));
        }
        let total: f64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let is_sound = self.weights.iter().all(|(_, weight)| *weight >= 0.0);
        if is_sound && total > 0.0 && total.is_finite() {
            return Ok(());
        }
        let expected = "weights of at least 0 that add up to more";
        Err(WorkloadError::option("adapters.shares", expected, total))
    }

    pub(super) fn describe(&self) -> String {
        let adapters = match self.weights.len() {
            1 => "1 adapter".to_owned(),
            count => format!("{count} adapters"),
        };
        let law = match self.zipf {
            Some(0.0) => ", equally often".to_owned(),
            Some(exponent) => format!(" by Zipf's law of exponent {exponent}"),
            None => ", by their shares".to_owned(),
        };
        let base = match self.base_share {
            0.0 => String::new(),
            share => format!(", {} % to the model itself", 100.0 * share),
        };
        format!(", for {adapters}{law}{base}")
    }
}

/// The adapters of a mix, drawn one after the other.
#[derive(Clone, Debug)]
pub(super) struct AdapterDraws {
    /// Running sums of the shares, the model itself first; the last is 1.
    cumulative: Vec<f64>,
    /// What each of them stands for.
    adapters: Vec<Option<u32>>,
    rng: Stream,
    /// What makes a conversation's adapter depend on the seed.
    key: u64,
}

impl AdapterDraws {
    pub(super) fn new(mix: &AdapterMix, seed: u64) -> Result<Self, WorkloadError> {
        mix.validate()?;
        let total: f64 = mix.weights.iter().map(|(_, weight)| weight).sum();
        let shares =
            (mix.weights.iter()).map(|(_, weight)| weight / total * (1.0 - mix.base_share));
        let mut sum = 0.0;
        let cumulative = std::iter::once(mix.base_share).chain(shares).map(|share| {
            sum += share;
            sum
        });
        let mut cumulative: Vec<f64> = cumulative.collect();
        // Rounding must leave no gap above the last that can be drawn.
        let last = mix.weights.iter().rposition(|(_, weight)| *weight > 0.0);
        if let Some(last) = last.filter(|_| mix.base_share < 1.0) {
            cumulative[last + 1..].fill(1.0);
        }
        let adapters = std::iter::once(None).chain(mix.weights.iter().map(|(id, _)| Some(*id)));
        Ok(Self {
            cumulative,
            adapters: adapters.collect(),
            rng: stream(seed, "workload.adapters"),
            key: stream(seed, "workload.adapters.sessions").next_u64(),
        })
    }

    /// The adapter of the next request, or that of its conversation.
    pub(super) fn draw(&mut self, session: Option<u64>) -> Option<u32> {
        let bits = match session {
            None => self.rng.next_u64(),
            Some(session) => mixed(session ^ self.key),
        };
        let draw = (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64);
        let place = self.cumulative.partition_point(|&upto| upto <= draw);
        self.adapters[place.min(self.adapters.len() - 1)]
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mixed(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether an adapter can be called so: in a CSV file without quoting, among others.
#[must_use]
pub fn is_adapter_name(name: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && c != ',' && c != '"';
    !name.trim().is_empty() && name.chars().all(is_plain)
}

/// The names that a trace may use, and the numbers they stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct AdapterNames {
    names: Vec<String>,
    places: BTreeMap<String, u32>,
    /// Whether other names are errors.
    is_closed: bool,
}

impl AdapterNames {
    pub(super) fn new(adapters: &Adapters) -> Self {
        let mut names = Self::default();
        for name in adapters.deployed.iter().flatten() {
            names.add(name);
        }
        names.is_closed = adapters.deployed.is_some();
        names
    }

    fn add(&mut self, name: &str) -> u32 {
        let place = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.places.insert(name.to_owned(), place);
        place
    }

    pub(super) fn name(&self, adapter: u32) -> Option<&str> {
        self.names.get(adapter as usize).map(String::as_str)
    }

    /// The adapter that a field names; an empty one is the model itself.
    pub(super) fn read(&mut self, field: Field<'_>) -> Result<Option<u32>, Fault> {
        if field.is_empty() {
            return Ok(None);
        }
        let name = std::str::from_utf8(field.bytes).unwrap_or_default();
        if !is_adapter_name(name) {
            return Err(field.fault("the name of an adapter, without commas and quotes"));
        }
        match self.places.get(name) {
            Some(place) => Ok(Some(*place)),
            None if self.is_closed => Err(field.fault(self.known())),
            None => Ok(Some(self.add(name))),
        }
    }

    /// What may stand in a field.
    fn known(&self) -> String {
        const SHOWN: usize = 8;
        let shown: Vec<&str> = self.names.iter().take(SHOWN).map(String::as_str).collect();
        match (self.names.len(), shown.join(", ")) {
            (0, _) => "nothing, because the scenario deploys no adapter in `[adapters]`".to_owned(),
            (count, shown) if count > SHOWN => {
                format!("one of the {count} adapters that are deployed ({shown}, …)")
            }
            (_, shown) => format!("one of the adapters that are deployed ({shown})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(
        mix: &AdapterMix,
        session: impl Fn(u64) -> Option<u64>,
    ) -> BTreeMap<Option<u32>, f64> {
        const DRAWS: u64 = 100_000;
        let mut draws = AdapterDraws::new(mix, 7).unwrap();
        let mut shares = BTreeMap::new();
        for index in 0..DRAWS {
            *shares.entry(draws.draw(session(index))).or_insert(0.0) += 1.0 / DRAWS as f64;
        }
        shares
    }

    #[test]
    fn adapters_come_in_their_shares_with_and_without_conversations() {
        let mix = AdapterMix::zipf(3, 1.0, 0.2);
        let expected = [0.2, 0.8 * 6.0 / 11.0, 0.8 * 3.0 / 11.0, 0.8 * 2.0 / 11.0];
        for shares in [shares(&mix, |_| None), shares(&mix, Some)] {
            let adapters = [None, Some(0), Some(1), Some(2)];
            for (adapter, expected) in adapters.into_iter().zip(expected) {
                let share = shares[&adapter];
                assert!(
                    (share - expected).abs() < 0.01,
                    "{adapter:?}: {share}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn a_share_of_nothing_is_never_drawn() {
        let weights = vec![(4, 0.0), (2, 1.0), (3, 0.0)];
        let mix = AdapterMix {
            base_share: 0.0,
            weights,
            zipf: None,
        };
        assert_eq!(
            shares(&mix, |_| None).into_keys().collect::<Vec<_>>(),
            [Some(2)]
        );
        let base = AdapterMix {
            base_share: 1.0,
            ..mix
        };
        assert_eq!(
            shares(&base, |_| None).into_keys().collect::<Vec<_>>(),
            [None]
        );
    }

    #[test]
    fn a_conversation_stays_with_its_adapter() {
        let mut draws = AdapterDraws::new(&AdapterMix::zipf(40, 0.5, 0.1), 3).unwrap();
        let first: Vec<_> = (0..50).map(|session| draws.draw(Some(session))).collect();
        draws.draw(None);
        let again: Vec<_> = (0..50).map(|session| draws.draw(Some(session))).collect();
        assert_eq!(first, again);
    }

    #[test]
    fn a_mix_without_weight_is_refused() {
        for (base_share, weight) in [
            (1.5, 1.0),
            (f64::NAN, 1.0),
            (0.0, 0.0),
            (0.0, -1.0),
            (0.0, f64::INFINITY),
        ] {
            let mix = AdapterMix {
                base_share,
                weights: vec![(0, weight)],
                zipf: None,
            };
            assert!(AdapterDraws::new(&mix, 1).is_err(), "{mix:?}");
        }
    }
}
