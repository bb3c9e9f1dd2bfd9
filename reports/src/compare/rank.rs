//! Which variant comes first.

use super::Variant;
use std::cmp::Ordering;

/// Gives every variant but the oracle its place. Of equals, the one that was
/// given first comes first.
pub(super) fn give(variants: &mut [Variant], oracle: Option<&str>) {
    let mut places: Vec<usize> = (0..variants.len())
        .filter(|&index| Some(variants[index].name.as_str()) != oracle)
        .collect();
    places.sort_by(|&a, &b| order(&variants[a], &variants[b]));
    for (place, index) in places.into_iter().enumerate() {
        variants[index].rank = Some(place as u64 + 1);
    }
}

fn order(a: &Variant, b: &Variant) -> Ordering {
    // GPU-time decides where there is no price; with equal prices it says the same.
    let figures = ["cost_usd", "billed_gpu_s", "ttft_p99"];
    let by_figures = figures.map(|name| less_first(a.mean(name), b.mean(name)));
    share_met(b)
        .total_cmp(&share_met(a))
        .then(by_figures.into_iter().fold(Ordering::Equal, Ordering::then))
}

/// The share of seeds that meet all objectives: all of them, if none are set.
fn share_met(variant: &Variant) -> f64 {
    variant
        .met
        .map_or(1.0, |met| met as f64 / variant.seeds.len() as f64)
}

/// What was never measured comes last.
fn less_first(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}
