//! Several metrics at once: each more is one more chance to fail by luck.

/// p-values adjusted so that of all true hypotheses together one is rejected by
/// luck with no more than the level that they are held against, whatever their
/// dependence (Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
/// Scandinavian Journal of Statistics 6, 1979).
///
/// `None` is a hypothesis that could not have been rejected whatever was
/// observed, for example "requests fail more often" where none failed: it costs
/// the others nothing (Tarone, "A Modified Bonferroni Method for Discrete Data",
/// Biometrics 46, 1990).
#[must_use]
pub fn holm(p_values: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> = p_values
        .iter()
        .enumerate()
        .filter_map(|(index, p)| Some((index, (*p)?)))
        .collect();
    order.sort_by(|one, two| one.1.total_cmp(&two.1));
    let mut adjusted = vec![None; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, (index, p)) in order.iter().enumerate() {
        let remaining = (order.len() - rank) as f64;
        largest = largest.max(p * remaining).min(1.0);
        adjusted[*index] = Some(largest);
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_smallest_pays_for_all_and_the_next_for_the_rest() {
        let adjusted = holm(&[Some(0.04), Some(0.01), None, Some(0.03)]);
        let expected = [Some(0.06), Some(0.03), None, Some(0.06)];
        for (adjusted, expected) in adjusted.iter().zip(expected) {
            match (adjusted, expected) {
                (Some(adjusted), Some(expected)) => assert!((adjusted - expected).abs() < 1e-12),
                (adjusted, expected) => assert_eq!(*adjusted, expected),
            }
        }
        assert_eq!(holm(&[Some(0.9), Some(0.8)]), [Some(1.0), Some(1.0)]);
        assert!(holm(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn order_is_kept_and_none_gets_smaller(
            p_values in prop::collection::vec(0.0..1.0_f64, 1..8),
        ) {
            let adjusted = holm(&p_values.iter().copied().map(Some).collect::<Vec<_>>());
            for (one, p) in adjusted.iter().zip(&p_values) {
                prop_assert!(one.unwrap() >= *p && one.unwrap() <= 1.0);
                for (two, q) in adjusted.iter().zip(&p_values) {
                    prop_assert!(p > q || one <= two);
                }
            }
        }
    }
}
