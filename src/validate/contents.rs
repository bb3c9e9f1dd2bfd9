//! What prompts have in common, which records do not say.
//!
//! A run of the scenario's own traffic has its requests, so that what they share is known: they are made again under the
//! seed of the run, and found by their place, their time and their length.

use std::collections::BTreeMap;

use foresail_core::time::MILLISECOND;
use foresail_scenarios::scenario::Scenario;
use foresail_scenarios::workload::{Content, WorkloadError};

use super::measured::Measured;

/// Whether what prompts share could be told: of nine in ten, or of none.
const FOUND_FROM: f64 = 0.9;

/// Prompts of the same request differ by no more than this share: a tokenizer may add a few.
const LENGTHS_DIFFER_TO: f64 = 0.05;

/// Takes what prompts share from the scenario's traffic, if the run was of it. Says what could not be found, where that
/// matters.
pub(super) fn find(measured: &mut Measured, scenario: &Scenario) -> Option<String> {
    let is_shared = scenario.deployment.batching.prefix_caching;
    let unknown = |why: &str| {
        is_shared.then(|| {
            format!(
                "{why}, so that nobody knows which prompts begin alike: only conversations share what went before"
            )
        })
    };
    let Some(seed) = measured.summary.as_ref().map(|summary| summary.seed) else {
        return unknown("the file does not say what the prompts were");
    };
    let found = match of_traffic(measured, scenario, seed) {
        Ok(found) => found,
        Err(error) => {
            return unknown(&format!(
                "the scenario's traffic cannot be made again ({error})"
            ));
        }
    };
    if (found.len() as f64) < FOUND_FROM * measured.requests.len() as f64 {
        return unknown("the requests are not those of the scenario's traffic");
    }
    for (place, content) in found {
        measured.requests[place].request.content = content;
    }
    None
}

/// The contents of the measured requests that the scenario's traffic has, with their places.
fn of_traffic(
    measured: &Measured,
    scenario: &Scenario,
    seed: u64,
) -> Result<Vec<(usize, Content)>, WorkloadError> {
    let requests = measured.requests.iter().enumerate();
    let wanted: BTreeMap<u64, usize> = requests.map(|(place, each)| (each.id, place)).collect();
    let due_max = measured.requests.iter().map(|each| each.planned_ns).max();
    let due_max = due_max.unwrap_or(0).saturating_add(MILLISECOND);
    let mut found = Vec::new();
    for (id, made) in (0..).zip(scenario.workload.open(seed)?) {
        let made = made?;
        if made.due > due_max || found.len() == measured.requests.len() {
            break;
        }
        let Some(place) = wanted.get(&id) else {
            continue;
        };
        let each = &measured.requests[*place];
        let differ = f64::from(made.prompt_tokens.abs_diff(each.request.prompt_tokens));
        let is_same = made.due.abs_diff(each.planned_ns) <= MILLISECOND
            && differ <= LENGTHS_DIFFER_TO * f64::from(made.prompt_tokens);
        if is_same {
            found.push((*place, made.content));
        }
    }
    Ok(found)
}
