//! How far the error would be another one for another sample of the same traffic.
//!
//! A circular block bootstrap (Politis and Romano, "A Circular Block-Resampling Procedure for Stationary
//! Data", in: Exploring the Limits of Bootstrap, 1992): stretches of neighbouring requests are drawn with
//! replacement until there are as many as before. With blocks as long as the square root of the
//! number of requests there are as many blocks as requests in each.
//!
//! A request is drawn as it was measured together with its prediction. Both are of the same arrivals and tokens,
//! so that what one sample has more of than another, such as long prompts, is in both, and cancels.

use super::figures::Statistic;

/// Samples drawn for an interval.
const SAMPLES: usize = 400;

/// Of more values than this, fewer samples are drawn, so that long runs do not take long.
const VALUES_PER_SAMPLE_MAX: usize = 20_000;

/// Between these two the statistic of what is predicted less that of what was measured lies in 95 % of the
/// samples; `None` of too few to tell. Both are of the same requests, in the order of time. `pick(n)` is to be
/// a number below `n`, each as likely.
pub(super) fn error_interval(
    measured: &[f64],
    predicted: &[f64],
    statistic: Statistic,
    pick: &mut impl FnMut(usize) -> usize,
) -> Option<(f64, f64)> {
    let count = measured.len();
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
    let mut drawn = Vec::with_capacity(count);
    let mut values = Vec::with_capacity(count);
    let mut found = Vec::with_capacity(samples);
    for _ in 0..samples {
        drawn.clear();
        while drawn.len() < count {
            let start = pick(count);
            let length = block.min(count - drawn.len());
            drawn.extend((start..start + length).map(|index| index % count));
        }
        let mut of = |all: &[f64]| {
            values.clear();
            values.extend(drawn.iter().map(|index| all[*index]));
            statistic.of(&mut values)
        };
        if let (Some(measured), Some(predicted)) = (of(measured), of(predicted)) {
            found.push(predicted - measured);
        }
    }
    found.sort_by(f64::total_cmp);
    let at = |share: f64| found[((found.len() - 1) as f64 * share).round() as usize];
    Some((at(0.025), at(0.975)))
}
