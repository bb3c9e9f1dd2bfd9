//! From the runs to a profile: what is known of the engine, the fit, and all that could not be told.

use std::num::NonZeroU32;

use foresail_calibration::requests::{self, Fit, FitError, Options, Prior, Run};
use foresail_core::batching::Config;
use foresail_core::step_time::calibrated::{
    BatchingLimits, CalibratedProfile, CalibrationProvenance, HowMeasured,
};
use foresail_core::step_time::{ModelShape, Precision, Roofline};
use foresail_scenarios::catalogue;
use foresail_scenarios::workload::Request;

use super::arguments::Known;
use super::burst::BatchLimit;
use super::findings::{FitRun, Noise};
use crate::cli;
use crate::failure::Failure;
use crate::machine;

/// Tokens of a KV block: any number will do where the cache is never full.
const BLOCK_SIZE: u32 = 16;
/// Tokens of a step that are tried, if they are not known: those that engines have as defaults, those between, and
/// one below them all, so that the least can be told. It comes last, as the search begins with the first.
const BATCHED_TOKENS: [u32; 8] = [256, 512, 1024, 2048, 4096, 8192, 16384, 128];
/// What is assumed of them where none of these can be tried.
const BATCHED_TOKENS_ASSUMED: u32 = 2048;
/// More sequences than any engine's default, for the roofline's table.
const ROOFLINE_SEQS: u32 = 256;

/// What the arguments say of the engine, looked up.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    shape: Option<ModelShape>,
    roofline: Option<Roofline>,
    device: String,
}

impl Engine {
    /// Looks shape and GPU up, before anything is measured.
    pub(super) fn of(known: &Known) -> Result<Self, Failure> {
        if let (Some(tokens), Some(sequences)) = (known.max_num_batched_tokens, known.max_num_seqs)
            && tokens < sequences
        {
            return Err(Failure::Input(format!(
                "--max-num-batched-tokens {tokens} is less than --max-num-seqs {sequences}: each sequence computes a \
                 token in a step"
            )));
        }
        let shape = known.shape.as_deref().map(|name| {
            let found = catalogue::models::find(name).map(|model| model.shape);
            found.ok_or_else(|| Failure::Input(format!(
                "--shape {name}: the catalogue has no such model; leave it out, or see the models that scenarios know"
            )))
        });
        let gpu = known.gpu.as_deref().map(|name| {
            let found = catalogue::gpus::find(name);
            found.ok_or_else(|| Failure::Input(format!(
                "--gpu {name}: the catalogue has no such GPU; leave it out, or name one such as h100"
            )))
        });
        let (shape, gpu) = (shape.transpose()?, gpu.transpose()?);
        let roofline = shape.zip(gpu).map(|(shape, gpu)| {
            let bf16 = Precision::Bf16;
            let world_size = known.world_size.get();
            Roofline::new(&shape, bf16, bf16, &gpu.spec(), world_size, ROOFLINE_SEQS).map_err(
                |error| Failure::Input(format!("--shape, --gpu and --world-size: {error}")),
            )
        });
        Ok(Self {
            shape,
            roofline: roofline.transpose()?,
            device: gpu.map_or("not told by the endpoint".to_owned(), |gpu| {
                gpu.name.to_owned()
            }),
        })
    }
}

/// What else the profile says.
pub(super) struct Facts<'a> {
    pub(super) known: &'a Known,
    pub(super) engine: &'a Engine,
    pub(super) model: &'a str,
    pub(super) url: &'a str,
    pub(super) seed: u64,
    pub(super) batch_limit: &'a BatchLimit,
    pub(super) noise: &'a Noise,
    /// Sentences on what was seen beside the fit.
    pub(super) said: Vec<String>,
}

/// Fits the terms, and tries the limits that are not known.
pub(super) fn fit(runs: &[FitRun], facts: &Facts<'_>) -> Result<Fit, Failure> {
    let runs: Vec<Run> = runs.iter().map(|run| run.run.clone()).collect();
    let prior = match &facts.engine.roofline {
        Some(roofline) => Prior::of_roofline(roofline),
        None => Prior::generic(&runs),
    };
    let batching = batching(&runs, facts)?;
    let mut options = Options::new(batching, prior);
    options.max_num_seqs = match (facts.known.max_num_seqs, facts.batch_limit) {
        (None, BatchLimit::Between(least, most)) => vec![*least, *most],
        // Either so many, or none that was ever reached.
        (None, BatchLimit::Prompts(least)) => vec![*least, batching.max_num_seqs],
        _ => Vec::new(),
    };
    if facts.known.max_num_batched_tokens.is_none() {
        let least = options.max_num_seqs.iter().copied().min();
        options.max_batched_tokens = tokens_to_try(least.unwrap_or(batching.max_num_seqs));
    }
    options.world_size = facts.known.world_size.get();
    options.how = HowMeasured::Requests;
    options.run_to_run = facts.noise.run_to_run();
    options.seed = facts.seed;
    let open =
        options.max_batched_tokens.is_empty() && facts.known.max_num_batched_tokens.is_none();
    let mut fit = requests::fit(&runs, &options).map_err(of_fit)?;
    if open {
        fit.not_identified.insert(
            0,
            format!(
                "The limit of tokens in a step is open: so many requests were sent at once that none of what engines \
                 have could be tried; {} was taken, and --max-num-batched-tokens takes it if it is known.",
                batching.max_batched_tokens
            ),
        );
    }
    Ok(fit)
}

/// The limits of tokens in a step that leave a token to each sequence.
fn tokens_to_try(max_num_seqs: u32) -> Vec<u32> {
    let room = |tokens: &u32| *tokens >= max_num_seqs;
    BATCHED_TOKENS.into_iter().filter(room).collect()
}

fn of_fit(error: FitError) -> Failure {
    match error {
        FitError::Option { .. } | FitError::NoSuchFigure { .. } => {
            Failure::Defect(error.to_string())
        }
        // Answers that came whole after all, for example, have no time between their tokens.
        FitError::NotANumber { .. }
        | FitError::Replay { .. }
        | FitError::TooFew { .. }
        | FitError::NotIdentified { .. }
        | FitError::Unexplained { .. } => {
            Failure::Degraded(format!("no profile was written: {error}"))
        }
    }
}

/// The batches to simulate: what is known of them, and room for the rest.
fn batching(runs: &[Run], facts: &Facts<'_>) -> Result<Config, Failure> {
    let sequences = runs
        .iter()
        .map(|run| run.traffic.requests().len())
        .max()
        .unwrap_or(1) as u32;
    let tokens = facts.known.max_num_batched_tokens.map(NonZeroU32::get);
    let max_num_seqs = match (facts.known.max_num_seqs, facts.batch_limit) {
        (Some(known), _) => known.get(),
        (None, BatchLimit::Found(found)) => *found,
        (None, BatchLimit::Between(_, most)) => *most,
        // Nothing was ever held up, so any limit will do that holds nothing up; and no step has more sequences
        // than tokens.
        (None, BatchLimit::AtLeast(_) | BatchLimit::Prompts(_) | BatchLimit::Unknown) => {
            sequences.min(tokens.unwrap_or(sequences))
        }
    };
    if let Some(tokens) = tokens.filter(|tokens| *tokens < max_num_seqs) {
        return Err(Failure::Input(format!(
            "--max-num-batched-tokens {tokens}: a burst showed {max_num_seqs} sequences at once, and each computes a \
             token in a step; no profile was written. Leave the option out, or correct it"
        )));
    }
    let max_batched_tokens = tokens.unwrap_or(BATCHED_TOKENS_ASSUMED.max(max_num_seqs));
    let blocks: Vec<u32> = runs.iter().map(blocks_of).collect::<Result<_, _>>()?;
    Ok(Config {
        block_size: BLOCK_SIZE,
        // All that a run ever sends would fit at once: how much does is not looked for.
        num_blocks: blocks.into_iter().max().unwrap_or(1),
        max_num_seqs,
        max_batched_tokens,
        max_model_len: u32::MAX / 2,
        // Tried values are up to the largest of all.
        prefill_chunk: match tokens {
            Some(_) => max_batched_tokens,
            None => u32::MAX / 2,
        },
        max_loras: 0,
        watermark: 0,
        prefix_caching: false,
    })
}

/// KV blocks of all requests of a run. How long prompts were is what the endpoint says, and it may say anything.
fn blocks_of(run: &Run) -> Result<u32, Failure> {
    let tokens = |each: &Request| u64::from(each.prompt_tokens) + u64::from(each.output_tokens);
    let requests = run.traffic.requests().iter();
    let blocks: u64 = requests
        .map(|each| tokens(each).div_ceil(BLOCK_SIZE.into()) + 1)
        .sum();
    u32::try_from(blocks).map_err(|_| {
        Failure::Degraded(format!(
            "no profile was written: by what the endpoint says of its tokens (`usage`), {} had {} at once, which no \
             engine has room for",
            run.name,
            run.traffic.requests().iter().map(tokens).sum::<u64>()
        ))
    })
}

/// The profile of a fit.
pub(super) fn profile(fit: &Fit, facts: Facts<'_>) -> CalibratedProfile {
    let known = facts.known;
    let max_num_seqs = known.max_num_seqs.map(|known| known.get());
    let max_num_batched_tokens = known.max_num_batched_tokens.map(|known| known.get());
    let found = match facts.batch_limit {
        BatchLimit::Found(found) => Some(*found),
        _ => None,
    };
    let batching = BatchingLimits {
        max_num_seqs: max_num_seqs.or(found).or(fit.limits.max_num_seqs),
        max_num_batched_tokens: max_num_batched_tokens.or(fit.limits.max_num_batched_tokens),
        block_size: None,
        num_blocks: None,
    };
    let mut not_identified = facts.said;
    if facts.noise.tpot.is_none() {
        not_identified.push(format!(
            "How much figures differ from run to run was not measured often enough to say: {:.0} % is assumed; a longer \
             --budget measures it.",
            facts.noise.run_to_run() * 100.0
        ));
    }
    not_identified.extend(fit.not_identified.iter().cloned());
    not_identified.push(
        "How many tokens fit into the KV cache was not looked for: all that was sent is taken to have fitted.".to_owned(),
    );
    let tool = cli::tool();
    CalibratedProfile {
        schema: CalibratedProfile::SCHEMA.to_owned(),
        provenance: CalibrationProvenance {
            tool: format!("foresail {}", tool.version),
            engine: known.engine.clone(),
            model: facts.model.to_owned(),
            shape: facts.engine.shape,
            device: facts.engine.device.clone(),
            threads: 0,
            precision: None,
            kv_precision: None,
            measured_on: machine::today(),
            source: format!("foresail calibrate endpoint --url {}", facts.url),
        },
        batching,
        world_sizes: vec![fit.fit.clone()],
        not_identified,
    }
}

#[cfg(test)]
mod tests;
