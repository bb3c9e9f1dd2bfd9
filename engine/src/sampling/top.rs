//! The most likely tokens, without sorting the vocabulary.

use std::cmp::Ordering;

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) token: u32,
    pub(super) logit: f32,
    /// Its probability, times a number that all candidates share.
    pub(super) weight: f32,
}

/// The likeliest first; of equally likely ones, the first.
pub(super) fn likeliest_first(a: &Candidate, b: &Candidate) -> Ordering {
    // Adding zero makes one zero of both: they are equally likely.
    let (one, other) = (a.logit + 0.0, b.logit + 0.0);
    other.total_cmp(&one).then(a.token.cmp(&b.token))
}

/// The `count` most likely tokens, in no particular order and without weights;
/// fewer if there are not so many that are possible.
///
/// One pass: what is above the least of `count` tokens seen is collected, and
/// whenever as many again were, the lower half is thrown away and the bar raised.
pub(super) fn most_likely(logits: &[f32], count: usize, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    if count == 0 {
        return;
    }
    let room = 2 * count.max(32);
    let mut bar = f32::NEG_INFINITY;
    for (token, &logit) in logits.iter().enumerate() {
        if logit > bar {
            candidates.push(Candidate {
                token: token as u32,
                logit,
                weight: 0.0,
            });
            if candidates.len() == room {
                bar = keep(candidates, count);
            }
        }
    }
    if candidates.len() > count {
        keep(candidates, count);
    }
}

/// Keeps the `count` most likely of more than that; returns the logit of the least.
fn keep(candidates: &mut Vec<Candidate>, count: usize) -> f32 {
    let (_, least, _) = candidates.select_nth_unstable_by(count - 1, likeliest_first);
    let bar = least.logit;
    candidates.truncate(count);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_the_first_of_the_sorted(
            logits in prop::collection::vec((-20_i8..20).prop_map(f32::from), 1..400),
            count in 0_usize..500,
        ) {
            let mut found = Vec::new();
            most_likely(&logits, count, &mut found);
            found.sort_by(likeliest_first);
            let all = logits.iter().enumerate();
            let mut sorted: Vec<_> = all
                .map(|(token, &logit)| Candidate { token: token as u32, logit, weight: 0.0 })
                .collect();
            sorted.sort_by(likeliest_first);
            sorted.truncate(count);
            prop_assert_eq!(found, sorted);
        }
    }

    #[test]
    fn both_zeros_are_equally_likely() {
        let mut found = Vec::new();
        for logits in [[-0.0, 0.0], [0.0, -0.0]] {
            most_likely(&logits, 1, &mut found);
            assert_eq!(found[0].token, 0);
        }
    }

    #[test]
    fn impossible_tokens_are_not_among_them() {
        let mut found = Vec::new();
        most_likely(&[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY], 3, &mut found);
        assert_eq!(
            found.iter().map(|found| found.token).collect::<Vec<_>>(),
            [1]
        );
    }
}
