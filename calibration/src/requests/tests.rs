//! Engines that are known, seen only through what their requests took.

use foresail_core::batching::Config;
use foresail_core::step_time::calibrated::{Factor, Formula, Terms};
use foresail_core::step_time::{Calibrated, Gpu, ModelShape, Precision, Roofline};
use foresail_scenarios::random::stream;
use foresail_scenarios::workload::{Content, Request};
use foresail_simulator::replay::{Traffic, replay};
use rand::Rng;

use super::*;

mod coverage;

fn batching(max_num_seqs: u32) -> Config {
    Config {
        block_size: 16,
        num_blocks: 100_000,
        max_num_seqs,
        max_batched_tokens: 2048,
        max_model_len: 32_768,
        prefill_chunk: 2048,
        max_loras: 0,
        watermark: 0,
        prefix_caching: false,
    }
}

/// An engine like a small model on a GPU.
fn truth() -> Terms {
    Terms {
        launch_s: 1.5e-3,
        weights_s: 5e-3,
        token_s: 4e-5,
        sequence_s: 2e-5,
        kv_token_s: 5e-8,
        pair_s: 2e-9,
        chunk_kv_token_s: 2e-8,
        chunk_s: 1e-4,
        mixed_s: 2e-4,
        request_s: 3e-3,
        prompt_token_s: 1e-6,
        ..Terms::default()
    }
}

fn model(terms: Terms) -> Calibrated {
    let formula = Formula {
        terms,
        token_factor: Factor::default(),
        kv_factor: Factor::default(),
        all_reduce: None,
    };
    Calibrated::of(formula, 256)
}

fn request(due: u64, prompt_tokens: u32, output_tokens: u32) -> Request {
    Request {
        due,
        prompt_tokens,
        output_tokens,
        session: None,
        adapter: None,
        content: Content::Unique,
    }
}

const TTFT: Figure = Figure::Ttft(Statistic::Mean);
const TPOT: Figure = Figure::Tpot(Statistic::Mean);
const E2E: Figure = Figure::EndToEnd(Statistic::Mean);

/// Clients that ask for the same length again and again.
fn closed(
    concurrency: u32,
    prompt_tokens: u32,
    output_tokens: u32,
) -> (String, Traffic, Vec<Figure>) {
    let requests = vec![request(0, prompt_tokens, output_tokens); 3 * concurrency as usize];
    let name = format!("{concurrency} clients, {prompt_tokens} tokens");
    let figures = if output_tokens > 1 {
        vec![TTFT, TPOT, Figure::OutputTokensPerSecond]
    } else {
        vec![TTFT]
    };
    let traffic = Traffic::ClosedLoop {
        concurrency,
        requests,
    };
    (name, traffic, figures)
}

/// Requests of many lengths at a rate, in random gaps.
fn open(rate_per_s: f64, count: usize, seed: u64) -> (String, Traffic, Vec<Figure>) {
    let mut random = stream(seed, "test.arrivals");
    let mut uniform = || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut at_s = 0.0;
    let requests = (0..count).map(|_| {
        at_s -= libm::log(1.0 - uniform()) / rate_per_s;
        let prompt = 50 + (uniform() * 900.0) as u32;
        let output = 10 + (uniform() * 200.0) as u32;
        request((at_s * 1e9) as u64, prompt, output)
    });
    let traffic = Traffic::Recorded(requests.collect());
    (format!("{rate_per_s} /s"), traffic, vec![TTFT, TPOT, E2E])
}

/// Measures the figures, with errors like these.
fn measured(
    runs: Vec<(String, Traffic, Vec<Figure>)>,
    terms: Terms,
    batching: Config,
    deviation: f64,
    seed: u64,
) -> Vec<Run> {
    let model = model(terms);
    let mut random = stream(seed, "test.noise");
    let mut noise = move || {
        let uniform = |random: &mut foresail_scenarios::random::Stream| {
            (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
        };
        // The sum of twelve uniform numbers has a variance of 1.
        (0..12).map(|_| uniform(&mut random)).sum::<f64>() - 6.0
    };
    let run = |(name, traffic, figures): (String, Traffic, Vec<Figure>)| {
        let overhead = |prompt_tokens| model.request_overhead(prompt_tokens);
        let replayed = replay(&traffic, batching, &model, overhead).unwrap();
        let observed = figures.into_iter().map(|figure| Observed {
            figure,
            value: figure.of(&replayed.requests).unwrap() * (1.0 + deviation * noise()),
            relative_deviation: deviation,
        });
        Run {
            name,
            traffic,
            observed: observed.collect(),
        }
    };
    runs.into_iter().map(run).collect()
}

/// What a person would measure.
fn design() -> Vec<(String, Traffic, Vec<Figure>)> {
    let idle = [32, 128, 512, 1500, 6000].map(|prompt| closed(1, prompt, 1));
    let loaded = [1, 2, 4, 8, 16, 32, 64].map(|clients| closed(clients, 200, 50));
    let long = [1, 8, 16].map(|clients| closed(clients, 3000, 50));
    let mut runs: Vec<_> = idle.into_iter().chain(loaded).chain(long).collect();
    runs.push(open(8.0, 100, 7));
    runs
}

fn fit_of(runs: &[Run], batching: Config) -> Result<Fit, FitError> {
    fit(runs, &Options::new(batching, Prior::generic(runs)))
}

/// The largest relative error of the figures of loads that no fit has seen.
fn error_unseen(fit: &Fit, terms: Terms) -> f64 {
    let unseen = vec![
        open(3.0, 150, 21),
        open(10.0, 150, 22),
        closed(24, 700, 80),
        closed(1, 1000, 30),
    ];
    let known = measured(unseen, terms, fit.batching, 0.0, 1);
    let fitted = Calibrated::of_fit(&fit.fit, 256).unwrap();
    let errors = known.iter().flat_map(|run| {
        let overhead = |prompt_tokens| fitted.request_overhead(prompt_tokens);
        let replayed = replay(&run.traffic, fit.batching, &fitted, overhead).unwrap();
        let error = move |observed: &Observed| {
            (observed.figure.of(&replayed.requests).unwrap() / observed.value - 1.0).abs()
        };
        run.observed.iter().map(error).collect::<Vec<_>>()
    });
    errors.fold(0.0, f64::max)
}

#[test]
fn what_was_simulated_is_found_again_without_noise() {
    let runs = measured(design(), truth(), batching(64), 0.0, 1);
    let fit = fit_of(&runs, batching(64)).unwrap();
    // Whether a request just joins a step or just misses it can hang on the last digit: means of few
    // requests are no closer than this.
    let error = error_unseen(&fit, truth());
    assert!(error < 0.025, "{error} {fit:#?}");
    assert_eq!(fit.fit.residuals.left_out, 0);
    assert!(fit.fit.residuals.mean < 0.003, "{:?}", fit.fit.residuals);
}

#[test]
fn loads_that_were_not_measured_are_predicted_in_spite_of_noise() {
    for seed in 1..4 {
        let runs = measured(design(), truth(), batching(64), 0.01, seed);
        let fit = fit_of(&runs, batching(64)).unwrap();
        let error = error_unseen(&fit, truth());
        assert!(error < 0.02, "seed {seed}: {error} {fit:#?}");
        let cross_validated = fit.fit.residuals.cross_validated_mean.unwrap();
        assert!(cross_validated < 0.03, "{cross_validated}");
    }
}

#[test]
fn intervals_hold_the_truth_and_what_is_open_is_said() {
    let (mut inside, mut told) = (0, 0);
    let truth = truth();
    for seed in 1..4 {
        let runs = measured(design(), truth, batching(64), 0.02, seed);
        let fit = fit_of(&runs, batching(64)).unwrap();
        assert_eq!(fit.fit.draws.len(), 64);
        for term in &fit.fit.terms {
            let value = truth.get(&term.name).unwrap();
            let is_said = fit
                .not_identified
                .iter()
                .any(|sentence| sentence.starts_with(&format!("`{}`", term.name)));
            assert_ne!(
                term.is_identified, is_said,
                "{} {:?}",
                term.name, fit.not_identified
            );
            assert!(term.low <= term.value && term.value <= term.high);
            if term.is_identified {
                told += 1;
                inside += i32::from((term.low..=term.high).contains(&value));
            }
        }
    }
    // 95 % should be, of terms that go together three at a time.
    assert!(told >= 12, "{told}");
    assert!(
        f64::from(inside) >= 0.8 * f64::from(told),
        "{inside} of {told}"
    );
}

#[test]
fn runs_of_one_load_leave_most_terms_open() {
    // Single requests of one length: a decode step is known, and nothing of what it is made of.
    let runs = [closed(1, 200, 50), closed(1, 210, 50), closed(1, 220, 60)];
    let runs = measured(runs.to_vec(), truth(), batching(64), 0.01, 1);
    let fit = fit_of(&runs, batching(64)).unwrap();
    let is_identified = |name: &str| {
        fit.fit
            .terms
            .iter()
            .any(|term| term.name == name && term.is_identified)
    };
    for name in [
        "sequence_s",
        "kv_token_s",
        "pair_s",
        "mixed_s",
        "request_s",
        "token_s",
    ] {
        assert!(!is_identified(name), "{name} {fit:#?}");
    }
    let weights = fit
        .not_identified
        .iter()
        .find(|sentence| sentence.starts_with("`launch_s`"));
    assert!(
        weights.is_some_and(|sentence| sentence.contains("`weights_s`")),
        "{:?}",
        fit.not_identified
    );
}

#[test]
fn a_run_that_stalled_is_left_out_and_told() {
    let mut runs = measured(design(), truth(), batching(64), 0.01, 1);
    for observed in &mut runs[8].observed {
        observed.value *= match observed.figure {
            Figure::OutputTokensPerSecond => 0.5,
            _ => 2.0,
        };
    }
    let fit = fit_of(&runs, batching(64)).unwrap();
    let left_out: Vec<&str> = (fit.runs.iter())
        .filter(|run| run.is_left_out)
        .map(|run| run.name.as_str())
        .collect();
    assert_eq!(left_out, [runs[8].name.as_str()]);
    assert_eq!(fit.fit.residuals.left_out, 3);
    let error = error_unseen(&fit, truth());
    assert!(error < 0.025, "{error}");
}

#[test]
fn figures_that_nothing_explains_are_no_fit() {
    let mut runs = measured(design(), truth(), batching(64), 0.01, 1);
    // Each second run at another speed: two engines, or one that had other work.
    for run in runs.iter_mut().step_by(2) {
        for observed in &mut run.observed {
            observed.value *= match observed.figure {
                Figure::OutputTokensPerSecond => 0.2,
                _ => 5.0,
            };
        }
    }
    let error = fit_of(&runs, batching(64)).unwrap_err();
    let FitError::Unexplained { worst, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(worst.len(), 4);
    assert!(
        error.to_string().starts_with("no step times explain"),
        "{error}"
    );
}

#[test]
fn too_few_figures_are_no_fit() {
    let runs = measured(vec![closed(1, 200, 50)], truth(), batching(64), 0.01, 1);
    let error = fit_of(&runs, batching(64)).unwrap_err();
    assert!(
        matches!(error, FitError::TooFew { figures: 3, .. }),
        "{error}"
    );
    let few = vec![closed(1, 32, 1), closed(1, 3000, 1), closed(16, 500, 50)];
    let runs = measured(few, truth(), batching(64), 0.001, 1);
    let error = fit_of(&runs, batching(64)).unwrap_err();
    assert!(
        matches!(error, FitError::TooFew { figures: 5, .. }),
        "{error}"
    );
}

#[test]
fn rates_alone_tell_no_step_time() {
    let idle = |clients: u32| {
        let (name, traffic, _) = open(0.1 * f64::from(clients), 50, clients.into());
        (name, traffic, vec![Figure::RequestsPerSecond])
    };
    let runs = (1..9).map(idle).collect();
    let runs = measured(runs, truth(), batching(64), 0.01, 1);
    let error = fit_of(&runs, batching(64)).unwrap_err();
    assert!(matches!(error, FitError::NotIdentified { .. }), "{error}");
}

#[test]
fn a_batch_limit_is_found_by_trying() {
    let runs = measured(design(), truth(), batching(24), 0.01, 1);
    let mut options = Options::new(batching(64), Prior::generic(&runs));
    options.max_num_seqs = vec![8, 16, 24, 32, 64, 128];
    let found = fit(&runs, &options).unwrap();
    assert_eq!(found.limits.max_num_seqs, Some(24));
    assert_eq!(found.batching.max_num_seqs, 24);
    // With at most 8 at once, all limits from there on are the same.
    let runs = measured(design()[..9].to_vec(), truth(), batching(24), 0.01, 1);
    let found = fit(&runs, &options).unwrap();
    assert_eq!(found.limits.max_num_seqs, None);
    let sentence = "The batch limit is open: 8, 16, 24, 32, 64, 128 explain";
    assert!(
        found.not_identified[0].starts_with(sentence),
        "{:?}",
        found.not_identified
    );
}

#[test]
fn a_prior_from_a_roofline_is_closer_and_may_hold_terms() {
    let shape = ModelShape {
        num_hidden_layers: 32,
        hidden_size: 4096,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: 128,
        intermediate_size: 14336,
        vocab_size: 128_256,
        tie_word_embeddings: false,
        experts: None,
    };
    let bf16 = Precision::Bf16;
    let roofline = Roofline::new(&shape, bf16, bf16, &Gpu::h100(), 1, 64).unwrap();
    let mut prior = Prior::of_roofline(&roofline);
    // The engine is a quarter slower than the roofline says, and its host twice as slow.
    let expected = prior.formula().terms;
    let engine = Terms {
        launch_s: 2.0 * expected.launch_s,
        mixed_s: 1e-4,
        ..expected.times(1.25)
    };
    let runs = measured(design(), engine, batching(64), 0.01, 3);
    assert!(prior.set("mixed_s", 0.0, 0.0));
    assert!(!prior.set("mixed", 0.0, 0.0));
    let fit = fit(&runs, &Options::new(batching(64), prior)).unwrap();
    let error = error_unseen(&fit, engine);
    assert!(error < 0.03, "{error}");
    let held = "`mixed_s` (a step with a chunk, beyond one that only decodes) was not looked for";
    assert!(
        fit.not_identified
            .iter()
            .any(|sentence| sentence.starts_with(held))
    );
}

#[test]
fn a_seed_says_which_draws_are_made() {
    let runs = measured(design()[..9].to_vec(), truth(), batching(64), 0.01, 1);
    let mut options = Options::new(batching(64), Prior::generic(&runs));
    options.draws = 4;
    let first = fit(&runs, &options).unwrap();
    assert_eq!(first, fit(&runs, &options).unwrap());
    options.seed = 2;
    let second = fit(&runs, &options).unwrap();
    assert_ne!(first.fit.draws, second.fit.draws);
    assert_eq!(first.runs, second.runs);
}

#[test]
fn what_is_no_measurement_is_refused() {
    let mut runs = measured(design(), truth(), batching(64), 0.01, 1);
    runs[3].observed[0].value = 0.0;
    let error = fit_of(&runs, batching(64)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("1 clients, 1500 tokens: mean TTFT is 0"),
        "{error}"
    );
    let mut runs = measured(design(), truth(), batching(64), 0.01, 1);
    runs[0].observed[0].figure = TPOT;
    let error = fit_of(&runs, batching(64)).unwrap_err();
    assert!(
        matches!(error, FitError::NoSuchFigure { figure: TPOT, .. }),
        "{error}"
    );
    let short = Config {
        max_model_len: 2000,
        ..batching(64)
    };
    let runs = measured(design(), truth(), batching(64), 0.01, 1);
    let error = fit_of(&runs, short).unwrap_err();
    assert!(matches!(error, FitError::Replay { .. }), "{error}");
}
