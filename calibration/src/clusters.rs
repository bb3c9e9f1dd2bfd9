//! Errors that come in groups: what is off in one of a group, the others of it are likely to be off in as well.

use std::collections::BTreeMap;

/// Errors by their group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clusters {
    groups: BTreeMap<u64, Vec<f64>>,
}

impl Clusters {
    /// Of errors, each with its group.
    pub(crate) fn of(errors: impl IntoIterator<Item = (u64, f64)>) -> Self {
        let mut clusters = Self::default();
        for (group, error) in errors {
            clusters.groups.entry(group).or_default().push(error);
        }
        clusters
    }

    /// How much alike the errors of a group are, from 0 to 1: the intra-class correlation, by all pairs (Fisher,
    /// "Statistical Methods for Research Workers", 1925, section 38).
    pub(crate) fn correlation(&self) -> f64 {
        let (mut products, mut squares) = (0.0, 0.0);
        for errors in self.groups.values() {
            let sum: f64 = errors.iter().sum();
            let own: f64 = errors.iter().map(|error| error * error).sum();
            // Twice the sum over all pairs of e f, and of (e^2 + f^2) / 2.
            products += sum * sum - own;
            squares += own * (errors.len() as f64 - 1.0);
        }
        if squares > 0.0 {
            (products / squares).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// How many times as many of them it takes to know as much as of errors that have nothing to do with each
    /// other: the design effect (Kish, "Survey Sampling", 1965, section 5.4), with the mean size of the
    /// group that an error is in.
    pub(crate) fn design_effect(&self) -> f64 {
        let sizes = || self.groups.values().map(|errors| errors.len() as f64);
        let all = sizes().sum::<f64>().max(1.0);
        let size = sizes().map(|size| size * size).sum::<f64>() / all;
        1.0 + (size - 1.0).max(0.0) * self.correlation()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_are_alike_count_once_a_group() {
        let alike = [
            (1, 0.1),
            (1, 0.1),
            (1, 0.1),
            (2, -0.2),
            (2, -0.2),
            (2, -0.2),
        ];
        let alike = Clusters::of(alike);
        assert!((alike.correlation() - 1.0).abs() < 1e-12);
        assert!((alike.design_effect() - 3.0).abs() < 1e-12);
    }

    #[test]
    fn errors_that_have_nothing_to_do_with_each_other_all_count() {
        let apart = Clusters::of([(1, 0.1), (1, -0.1), (2, 0.1), (2, -0.1)]);
        assert_eq!((apart.correlation(), apart.design_effect()), (0.0, 1.0));
        let single = Clusters::of([(1, 0.1), (2, 0.3)]);
        assert_eq!((single.correlation(), single.design_effect()), (0.0, 1.0));
        assert_eq!(Clusters::default().design_effect(), 1.0);
    }
}
