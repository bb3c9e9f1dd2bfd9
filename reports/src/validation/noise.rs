//! How far another sample of the same traffic might lie.
//!
//! A circular block bootstrap (Politis and Romano, "A Circular Block-Resampling Procedure for Stationary
//! Data", in: Exploring the Limits of Bootstrap, 1992): stretches of neighbouring requests are drawn with
//! replacement until there are as many as before. With blocks as long as the square root of the
//! number of requests there are as many blocks as requests in each.

use super::figures::Statistic;

/// Samples drawn for an interval.
const SAMPLES: usize = 400;

/// Of more values than this, fewer samples are drawn, so that long runs do not take long.
const VALUES_PER_SAMPLE_MAX: usize = 20_000;

/// Between these two a statistic of the values lies in 95 % of the samples; `None` of too few values to
/// tell. Values are in the order of time. `pick(n)` is to be a number below `n`, each as likely.
pub(super) fn interval(
    values: &[f64],
    statistic: Statistic,
    pick: &mut impl FnMut(usize) -> usize,
) -> Option<(f64, f64)> {
    let count = values.len();
    // Fewer than four blocks say nothing of the differences between them.
    if count < 16 {
        return None;
    }
    let block = (count as f64).sqrt().ceil() as usize;
    let samples = if count > VALUES_PER_SAMPLE_MAX {
        SAMPLES / 4
    } else {
        SAMPLES
    };
    let mut sample = Vec::with_capacity(count + block);
    let mut found = Vec::with_capacity(samples);
    for _ in 0..samples {
        sample.clear();
        while sample.len() < count {
            let start = pick(count);
            let length = block.min(count - sample.len());
            sample.extend((start..start + length).map(|index| values[index % count]));
        }
        found.extend(statistic.of(&mut sample));
    }
    found.sort_by(f64::total_cmp);
    let at = |share: f64| found[((found.len() - 1) as f64 * share).round() as usize];
    Some((at(0.025), at(0.975)))
}
