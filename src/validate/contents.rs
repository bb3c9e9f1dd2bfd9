//! What prompts have in common, which records do not say.
//!
//! A run of the scenario's own traffic has its requests, so that what they share is known: they are made again under the
//! seed of the run, and found by their place, their time and their length.

use foresail_core::time::MILLISECOND;
use foresail_scenarios::scenario::Scenario;

use super::measured::Measured;

/// Whether what prompts share could be told: of nine in ten, or of none.
const FOUND_FROM: f64 = 0.9;

/// Prompts of the same request differ by no more than this share: a tokenizer may add a few.
const LENGTHS_DIFFER_TO: f64 = 0.05;

/// Takes what prompts share from the scenario's traffic, if the run was of it. Says what could not be found.
pub(super) fn find(measured: &mut Measured, scenario: &Scenario) -> Option<String> {
    let seed = measured.summary.as_ref().map(|summary| summary.seed)?;
    let requests = scenario.workload.open(seed).ok()?;
    let last = measured.requests.iter().map(|each| each.id).max()?;
    let made: Vec<_> = requests
        .take(last as usize + 1)
        .map_while(Result::ok)
        .collect();
    let mut found = Vec::with_capacity(measured.requests.len());
    for (place, each) in measured.requests.iter().enumerate() {
        let Some(made) = made.get(each.id as usize) else {
            continue;
        };
        let differ = f64::from(made.prompt_tokens.abs_diff(each.request.prompt_tokens));
        let is_same = made.due.abs_diff(each.request.due) <= MILLISECOND
            && differ <= LENGTHS_DIFFER_TO * f64::from(made.prompt_tokens);
        if is_same {
            found.push((place, made.content.clone()));
        }
    }
    if (found.len() as f64) < FOUND_FROM * measured.requests.len() as f64 {
        return scenario.deployment.batching.prefix_caching.then(|| {
            "the requests are not those of the scenario's traffic, so that nobody knows which prompts begin alike: \
             only conversations share what went before"
                .to_owned()
        });
    }
    for (place, content) in found {
        measured.requests[place].request.content = content;
    }
    None
}
