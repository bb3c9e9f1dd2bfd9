//! A measured configuration: an engine, what it was given, and what that took.

use foresail_core::batching::Config;
use foresail_core::step_time::{Chunk, Gpu, ModelShape, Precision, Roofline, StepLoad, StepTime};
use foresail_scenarios::memory::{Demand, Layout};

use crate::Result;
use crate::replica::{Load, Served, serve};

/// What was measured of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    TtftMean,
    TtftP50,
    TtftP90,
    TtftP99,
    TpotMean,
    TpotP50,
    TpotP90,
    TpotP99,
    E2eMean,
    E2eP50,
    E2eP90,
    E2eP99,
    RequestsPerSecond,
    /// Of a batch of prompts together.
    PromptTime,
    /// From token to token of a batch.
    TokenTime,
    /// From the prompts of a batch to its last tokens.
    BatchTime,
    /// A step.
    StepTime,
}

impl Figure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TtftMean => "TTFT mean",
            Self::TtftP50 => "TTFT p50",
            Self::TtftP90 => "TTFT p90",
            Self::TtftP99 => "TTFT p99",
            Self::TpotMean => "TPOT mean",
            Self::TpotP50 => "TPOT p50",
            Self::TpotP90 => "TPOT p90",
            Self::TpotP99 => "TPOT p99",
            Self::E2eMean => "E2E mean",
            Self::E2eP50 => "E2E p50",
            Self::E2eP90 => "E2E p90",
            Self::E2eP99 => "E2E p99",
            Self::RequestsPerSecond => "requests/s",
            Self::PromptTime => "prompt time",
            Self::TokenTime => "token time",
            Self::BatchTime => "whole batch",
            Self::StepTime => "step",
        }
    }

    /// Standard deviation of its natural logarithm that a fit expects: means are steadier than tails, and
    /// a first token has more around it than the engine.
    fn deviation(self) -> f64 {
        match self {
            Self::TpotMean | Self::E2eMean | Self::E2eP50 | Self::TpotP50 => 0.03,
            Self::RequestsPerSecond | Self::TokenTime | Self::BatchTime | Self::StepTime => 0.03,
            Self::E2eP90 | Self::TpotP90 | Self::PromptTime => 0.05,
            Self::TtftMean | Self::TtftP50 | Self::E2eP99 | Self::TpotP99 => 0.07,
            Self::TtftP90 => 0.12,
            Self::TtftP99 => 0.2,
        }
    }
}

/// An engine without its GPU.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) shape: ModelShape,
    pub(crate) precision: Precision,
    pub(crate) kv_precision: Precision,
    pub(crate) world_size: u32,
    pub(crate) max_num_seqs: u32,
    pub(crate) max_batched_tokens: u32,
    /// Share of the GPU's memory that it may use.
    pub(crate) memory_share: f64,
}

impl Engine {
    fn layout(&self, gpu: &Gpu, longest: u32) -> Layout {
        let demand = Demand {
            shape: &self.shape,
            precision: self.precision,
            kv_precision: self.kv_precision,
            gpu_memory_utilization: self.memory_share,
            max_num_batched_tokens: self.max_batched_tokens,
            max_num_seqs: self.max_num_seqs,
            max_model_len: longest,
            block_size: BLOCK_SIZE,
            adapter_bytes: 0,
        };
        Layout::new(&demand, gpu, self.world_size)
    }

    /// How many sequences of so many tokens the KV cache holds.
    pub(crate) fn sequences(&self, gpu: &Gpu, tokens: u32) -> u32 {
        self.layout(gpu, tokens).num_blocks / tokens.div_ceil(BLOCK_SIZE)
    }
}

/// Tokens of a KV block.
const BLOCK_SIZE: u32 = 16;

/// What it was given.
#[derive(Clone, Debug)]
pub(crate) enum Given {
    /// Requests, of which those in this range count.
    Load(Load, std::ops::Range<usize>),
    /// A batch of prompts, then all answers, in step.
    Batch {
        batch: u32,
        prompt: u32,
        output: u32,
    },
    /// A step that decodes.
    Step { batch: u32, past: u64 },
}

/// A measured configuration.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What it is called in a list of the largest errors.
    pub(crate) name: String,
    /// What served it, if so lightly loaded that what its requests take beside steps shows.
    pub(crate) server: Option<&'static str>,
    pub(crate) engine: Engine,
    pub(crate) given: Given,
    /// What was measured (s, or 1/s), and whether a fit may use it.
    pub(crate) measured: Vec<(Figure, f64, bool)>,
}

impl Case {
    /// What a fit is told of each figure that it may use.
    pub(crate) fn observed(&self) -> impl Iterator<Item = (f64, f64)> {
        let used = self.measured.iter().filter(|(_, _, used)| *used);
        used.map(|(figure, value, _)| (*value, self.deviation(*figure)))
    }

    /// Standard deviation of a figure's natural logarithm that a fit expects. Figures of the same requests say much
    /// the same, so that many count no more than two would.
    pub(crate) fn deviation(&self, figure: Figure) -> f64 {
        let used = self.measured.iter().filter(|(_, _, used)| *used);
        figure.deviation() * (used.count() as f64 / 2.0).max(1.0).sqrt()
    }

    /// Of all figures, those that a fit may use.
    pub(crate) fn usable<'a>(&'a self, figures: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        let both = figures.iter().zip(&self.measured);
        both.filter(|(_, (_, _, used))| *used)
            .map(|(value, _)| *value)
    }

    /// What this GPU would take for each figure, in the order of `measured`.
    pub(crate) fn predict(&self, gpu: &Gpu, request_s: f64) -> Result<Vec<f64>> {
        let engine = &self.engine;
        let model = Roofline::new(
            &engine.shape,
            engine.precision,
            engine.kv_precision,
            gpu,
            engine.world_size,
            engine.max_num_seqs,
        )?;
        let of = |of: &dyn Fn(Figure) -> f64| -> Vec<f64> {
            self.measured
                .iter()
                .map(|(figure, ..)| of(*figure))
                .collect()
        };
        Ok(match &self.given {
            Given::Load(load, counted) => {
                let served = serve(load, self.config(gpu), &model, request_s)?;
                let counted = &served[counted.clone()];
                of(&|figure| of_requests(counted, figure))
            }
            Given::Batch {
                batch,
                prompt,
                output,
            } => {
                let (prompts_s, answers_s) = batch_times(&model, *batch, *prompt, *output);
                of(&|figure| match figure {
                    Figure::PromptTime => prompts_s + request_s,
                    Figure::TokenTime => answers_s / f64::from(output - 1),
                    _ => prompts_s + answers_s + request_s,
                })
            }
            Given::Step { batch, past } => {
                let step_s = seconds(model.decode(*batch, *past).at(*past));
                of(&|_| step_s)
            }
        })
    }

    fn config(&self, gpu: &Gpu) -> Config {
        let engine = &self.engine;
        let longest = match &self.given {
            Given::Load(load, _) => load.requests.iter().map(|of| of.prompt + of.output).max(),
            _ => None,
        };
        let longest = longest.unwrap_or(1);
        Config {
            block_size: BLOCK_SIZE,
            num_blocks: engine.layout(gpu, longest).num_blocks,
            max_num_seqs: engine.max_num_seqs,
            max_batched_tokens: engine.max_batched_tokens,
            max_model_len: longest,
            prefill_chunk: engine.max_batched_tokens,
            max_loras: 0,
            watermark: 0,
            prefix_caching: false,
        }
    }
}

fn seconds(picos: u64) -> f64 {
    picos as f64 / 1e12
}

/// The time of a batch of prompts, and of all further tokens (s).
fn batch_times(model: &Roofline, batch: u32, prompt: u32, output: u32) -> (f64, f64) {
    let chunk = Chunk {
        past: 0,
        len: prompt,
        sample: true,
    };
    let prompts = model.step(&StepLoad {
        decodes: 0,
        decode_past: 0,
        chunks: &vec![chunk; batch as usize],
    });
    let past = u64::from(batch) * u64::from(prompt);
    let answers = model.decode(batch, past).leap(batch, past, output - 1);
    (seconds(prompts), seconds(answers))
}

/// What is taken of each request (s).
type OfRequest = fn(&Served) -> f64;

fn of_requests(served: &[Served], figure: Figure) -> f64 {
    let ttft: OfRequest = Served::ttft_s;
    let (tpot, e2e): (OfRequest, OfRequest) = (Served::tpot_s, Served::e2e_s);
    // An answer of one token has no time per further token; load generators leave it out.
    let longer: Vec<Served>;
    let served = match figure {
        Figure::TpotMean | Figure::TpotP50 | Figure::TpotP90 | Figure::TpotP99 => {
            longer = served.iter().filter(|of| of.output > 1).copied().collect();
            &longer
        }
        _ => served,
    };
    match figure {
        Figure::TtftMean => mean(served, ttft),
        Figure::TtftP50 => percentile(served, ttft, 0.5),
        Figure::TtftP90 => percentile(served, ttft, 0.9),
        Figure::TtftP99 => percentile(served, ttft, 0.99),
        Figure::TpotMean => mean(served, tpot),
        Figure::TpotP50 => percentile(served, tpot, 0.5),
        Figure::TpotP90 => percentile(served, tpot, 0.9),
        Figure::TpotP99 => percentile(served, tpot, 0.99),
        Figure::E2eMean => mean(served, e2e),
        Figure::E2eP50 => percentile(served, e2e, 0.5),
        Figure::E2eP90 => percentile(served, e2e, 0.9),
        Figure::E2eP99 => percentile(served, e2e, 0.99),
        _ => {
            let begin = served.iter().map(|of| of.sent_s).fold(f64::MAX, f64::min);
            let end = served.iter().map(|of| of.end_s).fold(0.0, f64::max);
            served.len() as f64 / (end - begin)
        }
    }
}

fn mean(served: &[Served], of: OfRequest) -> f64 {
    served.iter().map(of).sum::<f64>() / served.len() as f64
}

/// Between the two nearest, as numpy has it.
fn percentile(served: &[Served], of: OfRequest, share: f64) -> f64 {
    let mut sorted: Vec<f64> = served.iter().map(of).collect();
    sorted.sort_by(f64::total_cmp);
    percentile_of_sorted(&sorted, share)
}

/// Between the two nearest, as numpy has it.
pub(crate) fn percentile_of_sorted(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// The middle of some numbers.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile_of_sorted(&values, 0.5)
}
