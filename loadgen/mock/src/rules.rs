//! Which requests something goes wrong for, and which outage is on.

use std::time::Duration;

use crate::behaviour::{Behaviour, Fault, Outage, When};

/// What goes wrong with the `number`-th request (from 1), which arrived at this time.
pub(crate) fn fault_for(behaviour: &Behaviour, number: u64, arrived: Duration) -> Option<&Fault> {
    behaviour
        .rules
        .iter()
        .zip(0_u64..)
        .find(|(rule, index)| {
            applies(rule.when, number, arrived, || {
                uniform(behaviour.seed, *index, number)
            })
        })
        .map(|(rule, _)| &rule.fault)
}

fn applies(when: When, number: u64, arrived: Duration, draw: impl Fn() -> f64) -> bool {
    match when {
        When::Always => true,
        When::Probability(probability) => draw() < probability,
        When::Every(k) => k > 0 && number.is_multiple_of(k),
        When::Only(k) => number == k,
        When::First(n) => number <= n,
        When::After(n) => number > n,
        When::Between(from, until) => (from..until).contains(&arrived),
    }
}

/// The outage that is on.
pub(crate) fn outage_at(outages: &[Outage], now: Duration) -> Option<&Outage> {
    outages
        .iter()
        .find(|outage| (outage.from..outage.until).contains(&now))
}

/// When an outage begins or is over next.
pub(crate) fn next_change(outages: &[Outage], now: Duration) -> Option<Duration> {
    outages
        .iter()
        .flat_map(|outage| [outage.from, outage.until])
        .filter(|&at| at > now && at < Duration::MAX)
        .min()
}

/// A number from [0, 1) for this rule and this request, whatever was drawn before,
/// so that one rule more does not change what another does.
fn uniform(seed: u64, rule: u64, number: u64) -> f64 {
    let bits = mix(mix(mix(seed).wrapping_add(rule)).wrapping_add(number));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// The output function of splitmix64 (Steele, Lea, Flood, OOPSLA 2014, figure 17).
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::{OutageKind, Rule};

    fn hit(when: When, seed: u64, requests: u64) -> Vec<u64> {
        let behaviour = Behaviour {
            rules: vec![Rule {
                fault: Fault::NeverAnswer,
                when,
            }],
            seed,
            ..Behaviour::default()
        };
        (1..=requests)
            .filter(|&number| fault_for(&behaviour, number, Duration::from_secs(number)).is_some())
            .collect()
    }

    #[test]
    fn rules_pick_the_requests_that_they_name() {
        assert_eq!(hit(When::Always, 0, 3), [1, 2, 3]);
        assert_eq!(hit(When::Every(3), 0, 7), [3, 6]);
        assert!(hit(When::Every(0), 0, 7).is_empty());
        assert_eq!(hit(When::Only(2), 0, 5), [2]);
        assert_eq!(hit(When::First(2), 0, 5), [1, 2]);
        assert_eq!(hit(When::After(3), 0, 5), [4, 5]);
        let window = When::Between(Duration::from_secs(2), Duration::from_secs(4));
        assert_eq!(hit(window, 0, 5), [2, 3]);
    }

    #[test]
    fn probability_is_a_share_that_the_seed_repeats() {
        let first = hit(When::Probability(0.1), 1, 10_000);
        // Four standard deviations of a binomial with these numbers are 120.
        assert!((880..=1120).contains(&first.len()), "{}", first.len());
        assert_eq!(first, hit(When::Probability(0.1), 1, 10_000));
        assert_ne!(first, hit(When::Probability(0.1), 2, 10_000));
        assert!(hit(When::Probability(0.0), 1, 100).is_empty());
        assert_eq!(hit(When::Probability(1.0), 1, 100).len(), 100);
    }

    #[test]
    fn the_first_rule_that_applies_is_the_one() {
        let behaviour = Behaviour {
            rules: vec![
                Rule {
                    fault: Fault::NeverAnswer,
                    when: When::Every(2),
                },
                Rule {
                    fault: Fault::ResetBeforeHead,
                    when: When::Always,
                },
            ],
            ..Behaviour::default()
        };
        let fault = |number| fault_for(&behaviour, number, Duration::ZERO);
        assert_eq!(fault(1), Some(&Fault::ResetBeforeHead));
        assert_eq!(fault(2), Some(&Fault::NeverAnswer));
    }

    #[test]
    fn outages_begin_and_are_over() {
        let second = Duration::from_secs;
        let outages = [
            Outage {
                kind: OutageKind::Frozen,
                from: second(1),
                until: second(3),
            },
            Outage {
                kind: OutageKind::Dead,
                from: second(5),
                until: Duration::MAX,
            },
        ];
        assert_eq!(outage_at(&outages, second(0)), None);
        assert_eq!(outage_at(&outages, second(1)), Some(&outages[0]));
        assert_eq!(outage_at(&outages, second(3)), None);
        assert_eq!(outage_at(&outages, second(9)), Some(&outages[1]));
        assert_eq!(next_change(&outages, second(0)), Some(second(1)));
        assert_eq!(next_change(&outages, second(1)), Some(second(3)));
        assert_eq!(next_change(&outages, second(5)), None);
    }
}
