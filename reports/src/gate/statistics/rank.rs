//! Tests that rest on ranks only: a check of what the t interval says.
//!
//! Both are exact: every way in which chance could have dealt the ranks is
//! counted, equal values sharing their mean rank. With five pairs the smallest
//! p-value there is is 1/32, with five runs a side 1/252: a check of few runs
//! can agree, and seldom decide.

/// The probability that pairs of no difference would give differences as far
/// above 0 as these, or further: Wilcoxon's signed-rank test, one-sided.
/// Differences of 0 are left out (Wilcoxon, "Individual Comparisons by Ranking
/// Methods", Biometrics Bulletin 1, 1945). `None` if nothing is left.
#[must_use]
pub fn wilcoxon(differences: &[f64]) -> Option<f64> {
    let differences: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    if differences.is_empty() {
        return None;
    }
    let sizes: Vec<f64> = differences.iter().map(|d| d.abs()).collect();
    let ranks = doubled_ranks(&sizes);
    let positive = |(rank, difference): (&usize, &f64)| (*difference > 0.0).then_some(*rank);
    let observed: usize = ranks.iter().zip(&differences).filter_map(positive).sum();
    // The share of sign patterns whose positive ranks sum to each value.
    let mut shares = vec![0.0; ranks.iter().sum::<usize>() + 1];
    shares[0] = 1.0;
    for &rank in &ranks {
        for sum in (0..shares.len()).rev() {
            let without = sum.checked_sub(rank).map_or(0.0, |rest| shares[rest]);
            shares[sum] = f64::midpoint(shares[sum], without);
        }
    }
    Some(shares[observed..].iter().sum::<f64>().min(1.0))
}

/// The probability that runs of no difference would rank `values` as far above
/// `others` as these, or further: the test of Mann and Whitney, one-sided ("On a
/// Test of Whether one of Two Random Variables is Stochastically Larger than the
/// Other", Annals of Mathematical Statistics 18, 1947). `None` if either is empty.
#[must_use]
pub fn mann_whitney(values: &[f64], others: &[f64]) -> Option<f64> {
    if values.is_empty() || others.is_empty() {
        return None;
    }
    let all: Vec<f64> = values.iter().chain(others).copied().collect();
    let ranks = doubled_ranks(&all);
    let observed: usize = ranks[..values.len()].iter().sum();
    let total: usize = ranks.iter().sum();
    // The ways in which so many of the ranks sum to each value, as shares of
    // all ways, so that they never overflow.
    let mut shares = vec![vec![0.0; total + 1]; values.len() + 1];
    shares[0][0] = 1.0;
    for (dealt, &rank) in ranks.iter().enumerate() {
        deal(&mut shares, rank, dealt, all.len());
    }
    Some(
        shares[values.len()][observed..]
            .iter()
            .sum::<f64>()
            .min(1.0),
    )
}

/// Deals one more rank: to the first group with the chance that a draw without
/// replacement has. `shares[taken][sum]` is the probability of that state.
fn deal(shares: &mut [Vec<f64>], rank: usize, dealt: usize, all: usize) {
    let group = shares.len() - 1;
    let left = (all - dealt) as f64;
    for taken in (0..=group.min(dealt + 1)).rev() {
        let chance_of = |taken: usize| (group - taken) as f64 / left;
        for sum in (0..shares[taken].len()).rev() {
            let stays = shares[taken][sum] * (1.0 - chance_of(taken));
            let comes = match (taken.checked_sub(1), sum.checked_sub(rank)) {
                (Some(before), Some(rest)) => shares[before][rest] * chance_of(before),
                _ => 0.0,
            };
            shares[taken][sum] = stays + comes;
        }
    }
}

/// Twice the rank of each value, from 2 up; equal values share their mean rank,
/// which doubled is whole.
fn doubled_ranks(values: &[f64]) -> Vec<usize> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        2 * below + equal + 1
    };
    values.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(observed: Option<f64>, expected: f64) {
        let observed = observed.unwrap();
        assert!((observed - expected).abs() < 1e-12, "{observed} {expected}");
    }

    #[test]
    fn five_pairs_can_say_one_in_32_at_most() {
        near(wilcoxon(&[0.1, 0.2, 0.3, 0.4, 0.5]), 1.0 / 32.0);
        near(wilcoxon(&[-0.1, 0.2, 0.3, 0.4, 0.5]), 2.0 / 32.0);
        // Sums of 10 or more out of 1..=5: 10 of 32 patterns.
        near(wilcoxon(&[0.1, -0.2, 0.3, -0.25, 0.5]), 10.0 / 32.0);
        near(wilcoxon(&[-1.0, -2.0]), 1.0);
    }

    #[test]
    fn pairs_without_a_difference_are_left_out() {
        near(wilcoxon(&[0.0, 1.0, 2.0]), 0.25);
        assert_eq!(wilcoxon(&[0.0, 0.0]), None);
    }

    #[test]
    fn five_runs_a_side_can_say_one_in_252_at_most() {
        let (low, high) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
        near(mann_whitney(&high, &low), 1.0 / 252.0);
        near(mann_whitney(&low, &high), 1.0);
        assert_eq!(mann_whitney(&[], &low), None);
    }

    /// Ways counted one by one.
    fn brute(values: &[f64], others: &[f64]) -> f64 {
        let all: Vec<f64> = values.iter().chain(others).copied().collect();
        let ranks = doubled_ranks(&all);
        let observed: usize = ranks[..values.len()].iter().sum();
        let groups =
            (0_u32..1 << all.len()).filter(|group| group.count_ones() as usize == values.len());
        let sum = |group: &u32| {
            (0..all.len())
                .filter(|at| group >> at & 1 == 1)
                .map(|at| ranks[at])
                .sum::<usize>()
        };
        let sums: Vec<usize> = groups.map(|group| sum(&group)).collect();
        sums.iter().filter(|sum| **sum >= observed).count() as f64 / sums.len() as f64
    }

    proptest! {
        #[test]
        fn every_way_is_counted(
            values in prop::collection::vec(0..6_i32, 1..5),
            others in prop::collection::vec(0..6_i32, 1..5),
        ) {
            let float = |values: &[i32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
            let (values, others) = (float(&values), float(&others));
            let exact = mann_whitney(&values, &others).unwrap();
            prop_assert!((exact - brute(&values, &others)).abs() < 1e-9);
        }
    }
}
