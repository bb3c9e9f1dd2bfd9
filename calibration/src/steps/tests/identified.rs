use foresail_core::step_time::calibrated::{Cell, HowMeasured, Terms};

use super::engine::*;
use crate::steps::{Options, StepsFit, fit};

fn is_identified(found: &StepsFit, name: &str) -> bool {
    let term = found.fit.terms.iter().find(|term| term.name == name);
    term.unwrap().is_identified
}

fn says(found: &StepsFit, what: &[&str]) -> bool {
    let all = |sentence: &String| what.iter().all(|word| sentence.contains(word));
    found.not_identified.iter().any(all)
}

#[test]
fn a_good_grid_leaves_only_what_steps_never_show() {
    let found = Engine::new(terms(), 0.005, 1).fit(grid()).unwrap();
    let open: Vec<&str> = found
        .fit
        .terms
        .iter()
        .filter(|term| !term.is_identified)
        .map(|term| term.name.as_str())
        .collect();
    assert_eq!(
        open,
        ["adapter_step_s", "adapter_s", "request_s", "prompt_token_s"],
        "{:#?}",
        found.not_identified
    );
    assert_eq!(found.not_identified.len(), 4, "{:#?}", found.not_identified);
}

#[test]
fn one_piece_a_step_does_not_tell_a_piece_from_a_step_with_any() {
    let cells = [decodes(), prompts()].concat();
    let found = Engine::new(terms(), 0.01, 1).fit(cells).unwrap();
    assert!(!is_identified(&found, "mixed_s"));
    assert!(!is_identified(&found, "chunk_s"));
    assert!(says(&found, &["`mixed_s`", "`chunk_s`", "several pieces"]));
    let terms = found.fit.formula().unwrap().terms;
    assert_eq!(terms.mixed_s, 0.0);
    let both = 0.8e-3 + 1.5e-3;
    assert!((terms.chunk_s - both).abs() < 0.3 * both, "{terms:?}");
}

#[test]
fn one_context_a_piece_does_not_tell_reading_from_multiplying() {
    let mut prompts = prompts();
    prompts.retain(|cell| cell.chunks[0].past == 0);
    let cells = [decodes(), prompts].concat();
    let found = Engine::new(terms(), 0.02, 1).fit(cells).unwrap();
    assert!(!is_identified(&found, "chunk_kv_token_s"), "{found:#?}");
    assert!(says(&found, &["`chunk_kv_token_s`", "several contexts"]));
}

#[test]
fn few_tokens_do_not_tell_launches_from_weights() {
    // As on a GPU: all steps are far below the knee.
    let gpu = Terms {
        launch_s: 1e-3,
        weights_s: 5e-3,
        token_s: 1e-6,
        sequence_s: 1e-6,
        kv_token_s: 4e-8,
        pair_s: 1e-9,
        chunk_kv_token_s: 1e-8,
        ..Terms::default()
    };
    let found = Engine::new(gpu, 0.01, 4).fit(grid()).unwrap();
    assert!(!is_identified(&found, "launch_s"), "{:#?}", found.fit.terms);
    assert!(
        says(&found, &["`launch_s`", "`weights_s`"]),
        "{:#?}",
        found.not_identified
    );
    let error = error_unseen(&found, &formula(gpu));
    assert!(error < 0.01, "what is known together predicts: {error}");
}

fn with_adapters(numbers: &[u32]) -> Vec<Cell> {
    let with = |&adapters: &u32| {
        [4, 16].map(|batch| Cell {
            adapters,
            ..step(batch, 256, &[])
        })
    };
    let steps: Vec<Cell> = numbers.iter().flat_map(with).collect();
    [grid(), steps].concat()
}

#[test]
fn adapters_are_fitted_where_there_are_some() {
    let terms = Terms {
        adapter_step_s: 3e-3,
        adapter_s: 5e-4,
        ..terms()
    };
    let found = Engine::new(terms, 0.005, 1)
        .fit(with_adapters(&[1, 4]))
        .unwrap();
    let fitted = found.fit.formula().unwrap().terms;
    assert!(
        (fitted.adapter_step_s / 3e-3 - 1.0).abs() < 0.15,
        "{fitted:?}"
    );
    assert!((fitted.adapter_s / 5e-4 - 1.0).abs() < 0.15, "{fitted:?}");
    assert!(is_identified(&found, "adapter_step_s") && is_identified(&found, "adapter_s"));

    let found = Engine::new(terms, 0.005, 1)
        .fit(with_adapters(&[1]))
        .unwrap();
    assert!(!is_identified(&found, "adapter_step_s") && !is_identified(&found, "adapter_s"));
    assert!(says(
        &found,
        &["`adapter_s`", "`adapter_step_s`", "several"]
    ));
}

#[test]
fn what_no_step_shows_is_what_was_assumed() {
    let options = Options {
        assumed: Terms {
            request_s: 2e-3,
            adapter_s: 1e-4,
            launch_s: 7.0,
            ..Terms::default()
        },
        ..Options::default()
    };
    let cells = Engine::new(terms(), 0.01, 1).measure(grid());
    let found = fit(&cells, 1, HowMeasured::Ranks, None, &options).unwrap();
    let fitted = found.fit.formula().unwrap().terms;
    assert_eq!((fitted.request_s, fitted.adapter_s), (2e-3, 1e-4));
    assert!(fitted.launch_s < 0.01, "what steps show is not assumed");
    let draws = found.fit.draws().unwrap();
    assert!(draws.iter().all(|draw| draw.request_s == 2e-3));
    assert!(!is_identified(&found, "request_s"));
    assert!(says(&found, &["`request_s`", "2.00 ms", "endpoint"]));
}
