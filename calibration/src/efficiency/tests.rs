use foresail_scenarios::random::{Stream, stream};

use super::*;
use crate::normal::standard_normal;
use foresail_core::step_time::{Chunk, ModelShape, Precision, Roofline, StepLoad, StepTime};

const DRAWS: Draws = Draws { count: 80, seed: 1 };

const SHAPE: ModelShape = ModelShape {
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

/// Decode steps of some batches, and one prompt with what its request takes besides (s).
fn predict(gpu: &Gpu, request_s: f64, world_size: u32) -> Vec<f64> {
    let bf16 = Precision::Bf16;
    let model = Roofline::new(&SHAPE, bf16, bf16, gpu, world_size, 256).unwrap();
    let decode = |batch: u32| {
        let past = 1000 * u64::from(batch);
        model.decode(batch, past).at(past) as f64 / 1e12
    };
    let chunks = [Chunk {
        past: 0,
        len: 2000,
        sample: true,
    }];
    let prompt = model.step(&StepLoad {
        decodes: 0,
        decode_past: 0,
        chunks: &chunks,
    }) as f64
        / 1e12;
    let mut all: Vec<f64> = [1, 8, 32, 64, 128, 256].into_iter().map(decode).collect();
    all.push(prompt + request_s);
    all
}

fn start() -> Start {
    Start {
        gpu: Gpu::h100(),
        request: Some((0.005, 1.0)),
    }
}

/// An engine that is not the built-in one: slower host, better KV reads.
fn another() -> Gpu {
    let mut gpu = Gpu::h100();
    gpu.efficiency.layer_overhead_s *= 1.5;
    gpu.efficiency.step_overhead_s *= 2.0;
    gpu.efficiency.sequence_overhead_s *= 1.6;
    gpu.efficiency.kv_read *= 0.9;
    gpu
}

fn observed(deviation: f64) -> Vec<Observed> {
    let figures = predict(&another(), 0.012, 1).into_iter().zip(0..);
    let of = |(value, group)| Observed {
        value,
        deviation,
        group,
    };
    figures.map(of).collect()
}

#[test]
fn a_fit_to_some_batches_predicts_another_world_size() {
    let fit = fit(&start(), &observed(0.01), &DRAWS, |gpu, s| {
        predict(gpu, s, 1)
    })
    .unwrap();
    assert!(fit.residual_mean < 0.01, "{}", fit.residual_mean);
    let truth = predict(&another(), 0.012, 2);
    let before = predict(&Gpu::h100(), 0.0, 2);
    let after = predict(&fit.gpu, fit.request_s, 2);
    for ((truth, before), after) in truth.into_iter().zip(before).zip(after) {
        // One prompt cannot tell its own time from that of a request, nor one world size launches from an engine that is
        // slow in all it does.
        assert!((after / truth - 1.0).abs() < 0.06, "{after} {truth}");
        assert!((after / truth - 1.0).abs() < (before / truth - 1.0).abs());
    }
}

#[test]
fn what_the_results_say_nothing_of_stays_as_it_was() {
    let fit = fit(&start(), &observed(0.01), &DRAWS, |gpu, s| {
        predict(gpu, s, 1)
    })
    .unwrap();
    for name in ["all_reduce", "gemm_fp8"] {
        let figure = fit
            .figures
            .iter()
            .find(|figure| figure.name == name)
            .unwrap();
        assert!((figure.factor - 1.0).abs() < 1e-9 && !figure.is_identified());
        assert!((figure.deviation / figure.deviation_before - 1.0).abs() < 1e-9);
    }
    let request = fit.figures.last().unwrap();
    assert_eq!(request.name, "request");
    assert!(request.is_identified(), "{request:?}");
}

#[test]
fn draws_are_around_the_fit_and_nearer_than_what_was_known_before() {
    let fit = fit(&start(), &observed(0.01), &DRAWS, |gpu, s| {
        predict(gpu, s, 1)
    })
    .unwrap();
    assert_eq!(fit.draws.len(), DRAWS.count as usize);
    let spread = |draws: &[(Gpu, f64)], index: usize| {
        let ln = |(gpu, request_s): &(Gpu, f64)| libm::log(predict(gpu, *request_s, 1)[index]);
        let logs: Vec<f64> = draws.iter().map(ln).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let squares = logs.iter().map(|ln| (ln - mean) * (ln - mean));
        (mean, (squares.sum::<f64>() / logs.len() as f64).sqrt())
    };
    let best = predict(&fit.gpu, fit.request_s, 1);
    let mut random = stream(1, "test.before");
    let before: Vec<(Gpu, f64)> = (0..DRAWS.count)
        .map(|_| (start().gpu.drawn(|| standard_normal(&mut random)), 0.005))
        .collect();
    for (index, best) in best.into_iter().enumerate() {
        let (mean, deviation) = spread(&fit.draws, index);
        assert!((mean - libm::log(best)).abs() < 0.02, "{index}: {mean}");
        assert!(deviation > 0.0, "{index}");
        let (_, before) = spread(&before, index);
        assert!(deviation < 0.5 * before, "{index}: {deviation} {before}");
    }
}

/// Engines whose figures are as uncertain as is said, but whose results are off by twice as much, those of a group together.
#[test]
fn intervals_hold_what_was_not_fitted() {
    const ENGINES: u64 = 40;
    const OFF: f64 = 0.04;
    let (mut inside, mut all, mut widths) = (0, 0, 0.0);
    for engine in 0..ENGINES {
        let mut random = stream(engine, "test.engine");
        let truth = start().gpu.drawn(|| standard_normal(&mut random));
        let request_s = 0.005 * libm::exp(0.5 * standard_normal(&mut random));
        // A quarter of an error's variance is that of all results of a world size.
        let measured = |world_size: u32, random: &mut Stream| -> Vec<f64> {
            let together = standard_normal(random);
            predict(&truth, request_s, world_size)
                .into_iter()
                .map(|value| {
                    let off = 0.5 * together + 0.75_f64.sqrt() * standard_normal(random);
                    value * libm::exp(OFF * off)
                })
                .collect()
        };
        let sizes = [1, 2, 8];
        let mut observed = Vec::new();
        for size in sizes {
            let values = measured(size, &mut random).into_iter();
            observed.extend(values.map(|value| Observed {
                value,
                deviation: OFF / 2.0,
                group: size,
            }));
        }
        let fit = fit(&start(), &observed, &DRAWS, |gpu, request_s| {
            let of_size = |size| predict(gpu, request_s, size);
            sizes.into_iter().flat_map(of_size).collect()
        })
        .unwrap();
        let drawn: Vec<Vec<f64>> = fit
            .draws
            .iter()
            .map(|(gpu, request_s)| predict(gpu, *request_s, 4))
            .collect();
        for (place, value) in measured(4, &mut random).into_iter().enumerate() {
            let mut values: Vec<f64> = drawn
                .iter()
                .map(|drawn| {
                    let beside = fit.unseen_deviations * OFF / 2.0;
                    drawn[place] * libm::exp(beside * standard_normal(&mut random))
                })
                .collect();
            values.sort_by(f64::total_cmp);
            let out = values.len() / 40;
            let (low, high) = (values[out], values[values.len() - 1 - out]);
            inside += u32::from((low..=high).contains(&value));
            all += 1;
            widths += 0.5 * libm::log(high / low);
        }
    }
    let share = f64::from(inside) / f64::from(all);
    let width = widths / f64::from(all);
    assert!((0.9..=0.995).contains(&share), "{inside} of {all}");
    // Twice the deviation of one result is 0.08.
    assert!(width < 0.2, "{width}");
}

#[test]
fn one_stalled_run_does_not_bend_the_rest() {
    let mut stalled = observed(0.01);
    stalled[3].value *= 3.0;
    let fit = fit(&start(), &stalled, &DRAWS, |gpu, s| predict(gpu, s, 1)).unwrap();
    let truth = predict(&another(), 0.012, 1);
    for (index, value) in predict(&fit.gpu, fit.request_s, 1).into_iter().enumerate() {
        let error = value / truth[index] - 1.0;
        assert!(error.abs() < 0.06, "{index}: {error}");
    }
}

#[test]
fn what_cannot_be_fitted_is_told() {
    let none = fit(&start(), &[], &DRAWS, |_, _| Vec::new());
    assert_eq!(none.unwrap_err(), EfficiencyError::NothingMeasured);
    let few = fit(&start(), &observed(0.01), &DRAWS, |_, _| vec![1.0]);
    assert_eq!(few.unwrap_err(), EfficiencyError::Predicted { index: 1 });
    let mut zero = observed(0.01);
    zero[2].value = 0.0;
    let zero = fit(&start(), &zero, &DRAWS, |gpu, s| predict(gpu, s, 1));
    assert_eq!(zero.unwrap_err(), EfficiencyError::Observed { index: 2 });
}
