//! An engine that is known, calibrated from its simulated answers: all but the network.

use foresail_core::batching::Config;
use foresail_core::step_time::calibrated::{Factor, Formula, Terms};
use foresail_core::step_time::{Calibrated, Chunk, StepLoad, StepTime};
use foresail_reports::records::RequestRecord;
use foresail_reports::summary::Load;
use foresail_simulator::replay::{Traffic, replay};

use super::super::burst::batch_limit;
use super::super::design::{self, Job, Sizes};
use super::super::findings::tests::{done, record};
use super::super::findings::{fit_runs, noise, with_noise};
use super::super::measure::Done;
use super::*;

const SEQUENCES: u32 = 12;
const TOKENS: u32 = 512;

fn sizes() -> Sizes {
    Sizes {
        prompt_tokens_min: 32,
        prompt_tokens_max: 1024,
        concurrency_max: 8,
        burst: 32,
        output_tokens: 16,
    }
}

fn engine() -> Calibrated {
    let formula = Formula {
        terms: Terms {
            launch_s: 1e-3,
            weights_s: 6e-3,
            token_s: 8e-5,
            sequence_s: 1e-4,
            kv_token_s: 2e-7,
            pair_s: 4e-9,
            request_s: 2e-3,
            prompt_token_s: 2e-6,
            ..Terms::default()
        },
        token_factor: Factor::default(),
        kv_factor: Factor::default(),
        all_reduce: None,
    };
    Calibrated::of(formula, SEQUENCES)
}

fn batching_of_engine() -> Config {
    Config {
        block_size: 16,
        num_blocks: 100_000,
        max_num_seqs: SEQUENCES,
        max_batched_tokens: TOKENS,
        max_model_len: 4096,
        prefill_chunk: TOKENS,
        max_loras: 0,
        watermark: 0,
        prefix_caching: false,
    }
}

/// What clients would see of a run, in a half that is a little slower or faster.
fn answered(job: &Job, half: usize) -> Done {
    let traffic = match job.load {
        Load::Closed { concurrency } => Traffic::ClosedLoop {
            concurrency: concurrency as u32,
            requests: job.requests.clone(),
        },
        Load::Open | Load::Capped { .. } => Traffic::Recorded(job.requests.clone()),
    };
    let engine = engine();
    let overhead = |prompt_tokens| engine.request_overhead(prompt_tokens);
    let replayed = replay(&traffic, batching_of_engine(), &engine, overhead).unwrap();
    let slower = |ns: u64| (ns as f64 * [0.998, 1.002][half]) as u64;
    let records = replayed.requests.iter().zip(0..).map(|(each, id)| {
        let [due, first, end] = [each.due_ns, each.first_token_ns, each.end_ns].map(slower);
        RequestRecord {
            prompt_tokens: each.prompt_tokens,
            ..record(id, due, first, end, each.output_tokens)
        }
    });
    done(job.clone(), records.collect())
}

/// The profile that is made of these answers, whose limit of tokens in a step is known.
fn calibrated(halves: usize) -> CalibratedProfile {
    let jobs = design::half(&sizes(), 1);
    let measured: Vec<(usize, Done)> = (0..halves)
        .flat_map(|half| jobs.iter().map(move |job| (half, answered(job, half))))
        .collect();
    let mut runs: Vec<FitRun> = measured
        .iter()
        .flat_map(|(half, done)| fit_runs(done, *half))
        .collect();
    let noise = noise(&runs);
    with_noise(&mut runs, &noise);
    let batch_limit = batch_limit(measured.iter().map(|(_, done)| done));
    let known = Known {
        shape: None,
        gpu: None,
        world_size: NonZeroU32::MIN,
        max_num_seqs: None,
        max_num_batched_tokens: NonZeroU32::new(TOKENS),
        engine: "simulated".to_owned(),
    };
    let facts = Facts {
        known: &known,
        engine: &Engine::of(&known).unwrap(),
        model: "none",
        url: "none",
        seed: 1,
        batch_limit: &batch_limit,
        noise: &noise,
        said: Vec::new(),
    };
    let fit = fit(&runs, &facts).unwrap();
    profile(&fit, facts)
}

#[test]
fn an_engine_is_found_again_by_what_its_requests_take() {
    let profile = calibrated(2);
    profile.check().unwrap();
    assert_eq!(profile.batching.max_num_seqs, Some(SEQUENCES));
    assert_eq!(profile.batching.max_num_batched_tokens, Some(TOKENS));
    let fit = &profile.world_sizes[0];
    assert_eq!(fit.residuals.left_out, 0);
    assert!(fit.residuals.mean < 0.01, "{:?}", fit.residuals);
    let (fitted, truth) = (Calibrated::of_fit(fit, SEQUENCES).unwrap(), engine());
    let chunk = |len| {
        [Chunk {
            past: 0,
            len,
            sample: true,
        }]
    };
    let (short, long) = (chunk(64), chunk(TOKENS));
    let loads = [
        (1, 100, &[][..]),
        (8, 800, &[]),
        (4, 2400, &[]),
        (0, 0, &short),
        (0, 0, &long),
    ];
    for (decodes, decode_past, chunks) in loads {
        let load = StepLoad {
            decodes,
            decode_past,
            chunks,
        };
        let (fitted, truth) = (fitted.step(&load), truth.step(&load));
        let error = fitted as f64 / truth as f64 - 1.0;
        assert!(error.abs() < 0.04, "{error:+.3} for {load:?}");
    }
    let interval = fit.terms.iter().find(|term| term.name == "weights_s");
    assert!(interval.is_some_and(|term| term.low < term.high));
}

#[test]
fn what_was_measured_once_has_a_noise_that_is_said_to_be_assumed() {
    let once = calibrated(1);
    let run_to_run = once.world_sizes[0].run_to_run;
    assert!(run_to_run > calibrated(2).world_sizes[0].run_to_run);
    let said = once.not_identified.join("\n");
    assert!(said.contains("3 % is assumed"), "{said}");
}

#[test]
fn limits_to_try_leave_each_sequence_a_token() {
    assert_eq!(tokens_to_try(16), BATCHED_TOKENS);
    assert_eq!(tokens_to_try(8400), [16_384]);
    assert_eq!(tokens_to_try(60_000), Vec::<u32>::new());
}
