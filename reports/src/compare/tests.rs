//! Variants made by hand, of which nothing but a few figures is known.

use super::*;
use crate::measurements::Measurements;
use crate::objectives::{Bound, Objective};
use crate::records::RunTotals;
use crate::summary::RunDescription;

/// A run of a dollar a GPU-hour that cost this much.
fn run(seed: u64, usd: u64) -> Summary {
    let mut description = RunDescription {
        seed,
        ..RunDescription::default()
    };
    description.scenario.usd_per_gpu_hour = 1.0;
    let totals = RunTotals {
        cost_nanodollars: u128::from(usd) * 1_000_000_000,
        ..RunTotals::default()
    };
    Measurements::new(&[]).summary(&description, &totals)
}

fn variant(name: &str, costs: &[u64]) -> VariantRuns {
    VariantRuns {
        name: name.to_owned(),
        settings: Vec::new(),
        runs: (1..)
            .zip(costs)
            .map(|(seed, usd)| run(seed, *usd))
            .collect(),
    }
}

fn objective(met: bool) -> Objective {
    Objective {
        name: "ttft_p99".to_owned(),
        observed: None,
        limit: 1.0,
        met,
        unit: Unit::Seconds,
        bound: Bound::AtMost,
    }
}

fn cost<'a>(comparison: &'a Comparison, name: &str) -> &'a VariantMetric {
    let variant = comparison.variant(name).unwrap();
    variant.metric("cost_usd").unwrap()
}

#[test]
fn differences_are_from_the_baseline_and_seed_by_seed() {
    let variants = [variant("a", &[10, 20, 30]), variant("b", &[11, 22, 33])];
    let comparison = Comparison::of(&variants, "a", None).unwrap();
    assert_eq!(comparison.pairing, Pairing::Seeds);
    assert_eq!(cost(&comparison, "a").difference, None);
    let difference = cost(&comparison, "b").difference.unwrap();
    assert_eq!((difference.mean, difference.relative), (2.0, Some(0.1)));
    // t(2) * 1 / sqrt(3) is more than 2.
    assert_eq!(difference.verdict, Verdict::Unclear);
    let turned = Comparison::of(&variants, "b", None).unwrap();
    assert_eq!(cost(&turned, "a").difference.unwrap().mean, -2.0);
}

#[test]
fn other_seeds_are_not_paired() {
    let mut variants = [variant("a", &[10, 20]), variant("b", &[10, 20])];
    variants[1].runs[1].seed = 7;
    let comparison = Comparison::of(&variants, "a", None).unwrap();
    assert_eq!(comparison.pairing, Pairing::None);
    let difference = cost(&comparison, "b").difference.unwrap();
    assert_eq!(
        (difference.mean, difference.verdict),
        (0.0, Verdict::Unclear)
    );
}

#[test]
fn the_oracle_is_what_the_others_are_measured_by_and_has_no_rank() {
    let variants = [
        variant("a", &[12, 12]),
        variant("b", &[11, 11]),
        variant("oracle", &[10, 10]),
    ];
    let comparison = Comparison::of(&variants, "a", Some("oracle")).unwrap();
    let above = |name| cost(&comparison, name).above_oracle.map(|d| d.relative);
    assert_eq!(above("a"), Some(Some(0.2)));
    assert_eq!(above("oracle"), None);
    let ranks = comparison.variants.iter().map(|variant| variant.rank);
    assert_eq!(ranks.collect::<Vec<_>>(), [Some(2), Some(1), None]);
    let names = comparison
        .ranked()
        .into_iter()
        .map(|each| each.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["b", "a", "oracle"]);
}

#[test]
fn what_meets_its_objectives_comes_before_what_is_cheap() {
    let mut variants = [variant("cheap", &[1, 1]), variant("good", &[9, 9])];
    for (variant, second) in variants.iter_mut().zip([false, true]) {
        variant.runs[0].objectives = vec![objective(true)];
        variant.runs[1].objectives = vec![objective(second)];
    }
    let comparison = Comparison::of(&variants, "cheap", None).unwrap();
    let [cheap, good] = &comparison.variants[..] else {
        panic!("{comparison:?}")
    };
    assert_eq!((cheap.met, good.met), (Some(1), Some(2)));
    assert_eq!((cheap.rank, good.rank), (Some(2), Some(1)));
    assert_eq!(cheap.objectives[0].met, 1);
}

#[test]
fn equals_stay_in_the_order_in_which_they_were_given() {
    let variants = ["c", "a", "b"].map(|name| variant(name, &[5]));
    let comparison = Comparison::of(&variants, "a", None).unwrap();
    let ranks = comparison.variants.iter().map(|variant| variant.rank);
    assert_eq!(ranks.collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
}

#[test]
fn without_a_price_there_is_no_cost_and_gpu_time_ranks() {
    let mut variants = [variant("long", &[0]), variant("short", &[0])];
    for (variant, billed) in variants.iter_mut().zip([7_200.0, 3_600.0]) {
        variant.runs[0].scenario.usd_per_gpu_hour = 0.0;
        variant.runs[0].gpu_seconds.as_mut().unwrap().billed = billed;
    }
    let comparison = Comparison::of(&variants, "long", None).unwrap();
    assert_eq!(cost(&comparison, "short").mean, None);
    assert_eq!(comparison.variant("short").unwrap().rank, Some(1));
}

#[test]
fn other_traffic_is_noticed() {
    let mut variants = ["a", "b", "c"].map(|name| variant(name, &[5]));
    variants[1].runs[0].requests.offered += 1;
    variants[2].runs[0].scenario.workload = "another".to_owned();
    let comparison = Comparison::of(&variants, "a", None).unwrap();
    let same = comparison
        .variants
        .iter()
        .map(|variant| variant.same_traffic);
    assert_eq!(same.collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn hits_of_a_cold_start_are_those_that_waited_and_those_that_were_refused() {
    let mut variants = [variant("a", &[5])];
    let requests = &mut variants[0].runs[0].requests;
    (requests.waited_for_cold_start, requests.rejected_scaling_up) = (3, 4);
    let comparison = Comparison::of(&variants, "a", None).unwrap();
    assert_eq!(comparison.variants[0].mean("cold_start_hits"), Some(7.0));
}

#[test]
fn what_cannot_be_compared_is_named() {
    let error = |variants: &[VariantRuns], baseline, oracle| {
        let error = Comparison::of(variants, baseline, oracle).unwrap_err();
        error.to_string()
    };
    let [a, b] = [variant("a", &[1]), variant("b", &[1])];
    assert_eq!(error(&[], "a", None), "there is no variant to compare");
    assert!(error(&[a.clone(), a.clone()], "a", None).contains("two variants are called `a`"));
    let unknown = error(&[a.clone(), b.clone()], "c", None);
    assert_eq!(unknown, "there is no variant `c`; the variants are: a; b");
    assert!(error(&[a.clone(), b.clone()], "a", Some("oracle")).contains("`oracle`"));
    assert_eq!(
        error(&[a.clone(), variant("b", &[])], "a", None),
        "`b` has no run"
    );
    let mut twice = variant("b", &[1, 1]);
    twice.runs[1].seed = 1;
    assert!(error(&[a, twice], "a", None).contains("two runs of seed 1"));
}
