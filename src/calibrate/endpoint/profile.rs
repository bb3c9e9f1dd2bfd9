//! From the runs to a profile: what is known of the engine, the fit, and all that could not be told.

use foresail_calibration::requests::{self, Fit, FitError, Options, Prior, Run};
use foresail_core::batching::Config;
use foresail_core::step_time::calibrated::{
    BatchingLimits, CalibratedProfile, CalibrationProvenance, HowMeasured,
};
use foresail_core::step_time::{ModelShape, Precision, Roofline};
use foresail_scenarios::catalogue;

use super::arguments::Known;
use super::findings::{BatchLimit, FitRun, Noise};
use crate::cli;
use crate::failure::Failure;
use crate::machine;

/// Tokens of a KV block: any number will do where the cache is never full.
const BLOCK_SIZE: u32 = 16;
/// Tokens of a step that are tried, if they are not known: those that engines have as defaults, and between.
const BATCHED_TOKENS: [u32; 7] = [256, 512, 1024, 2048, 4096, 8192, 16384];
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
    let batching = batching(&runs, facts);
    let mut options = Options::new(batching, prior);
    if facts.known.max_num_batched_tokens.is_none() {
        let room = |tokens: &u32| *tokens >= batching.max_num_seqs;
        options.max_batched_tokens = BATCHED_TOKENS.into_iter().filter(room).collect();
    }
    if let (None, BatchLimit::Between(least, most)) = (facts.known.max_num_seqs, facts.batch_limit)
    {
        options.max_num_seqs = vec![*least, *most];
    }
    options.world_size = facts.known.world_size.get();
    options.how = HowMeasured::Requests;
    options.run_to_run = facts.noise.tpot.unwrap_or(0.0);
    options.seed = facts.seed;
    requests::fit(&runs, &options).map_err(of_fit)
}

fn of_fit(error: FitError) -> Failure {
    match error {
        FitError::Option { .. } | FitError::NoSuchFigure { .. } | FitError::NotANumber { .. } => {
            Failure::Defect(error.to_string())
        }
        FitError::Replay { .. }
        | FitError::TooFew { .. }
        | FitError::NotIdentified { .. }
        | FitError::Unexplained { .. } => {
            Failure::Degraded(format!("no profile was written: {error}"))
        }
    }
}

/// The batches to simulate: what is known of them, and room for the rest.
fn batching(runs: &[Run], facts: &Facts<'_>) -> Config {
    let sequences = runs
        .iter()
        .map(|run| run.traffic.requests().len())
        .max()
        .unwrap_or(1) as u32;
    let max_num_seqs = match (facts.known.max_num_seqs, facts.batch_limit) {
        (Some(known), _) => known.get(),
        (None, BatchLimit::Found(found)) => *found,
        (None, BatchLimit::Between(_, most)) => *most,
        // Nothing was ever held up, so any limit will do that holds nothing up.
        (None, BatchLimit::AtLeast(_) | BatchLimit::Unknown) => sequences,
    };
    let blocks_of = |run: &Run| -> u32 {
        let requests = run.traffic.requests().iter();
        let blocks =
            requests.map(|each| (each.prompt_tokens + each.output_tokens).div_ceil(BLOCK_SIZE) + 1);
        blocks.sum()
    };
    let tokens = facts
        .known
        .max_num_batched_tokens
        .map_or(2048, |tokens| tokens.get());
    let max_batched_tokens = tokens.max(max_num_seqs);
    Config {
        block_size: BLOCK_SIZE,
        // All that a run ever sends would fit at once: how much does is not looked for.
        num_blocks: runs.iter().map(blocks_of).max().unwrap_or(1),
        max_num_seqs,
        max_batched_tokens,
        max_model_len: u32::MAX / 2,
        // Tried values are up to the largest of all.
        prefill_chunk: match facts.known.max_num_batched_tokens {
            Some(_) => max_batched_tokens,
            None => u32::MAX / 2,
        },
        max_loras: 0,
        watermark: 0,
        prefix_caching: false,
    }
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
