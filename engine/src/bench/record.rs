//! From durations to what a person reads and the simulator uses.

use foresail_core::step_time::{
    MeasuredDecode, MeasuredPrefill, MeasuredSteps, ProfileError, ProfilePrecision, ProfileTable,
    Provenance,
};
use foresail_reports::bench::{
    Bench, Ceilings, DecodeStep, Engine, Figures, Model, PrefillStep, RunningSteps, SCHEMA, Stage,
    WholeRequests,
};
use foresail_reports::summary::Tool;

use super::cost::{self, Formats};
use super::grid::Step;
use super::steps::MeasuredStep;
use crate::config::{Dtype, ModelConfig};

/// What is known of a measurement beside its durations.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What measures.
    pub tool: Tool,
    /// The day, as `2026-11-21`.
    pub measured_on: String,
    /// The command.
    pub command: String,
    /// The name of the model.
    pub model_name: String,
    /// The model.
    pub model: ModelConfig,
    /// Its number formats, as the engine has them.
    pub formats: Formats,
    /// The kind of device.
    pub backend: String,
    /// Which one.
    pub device: String,
    /// Threads of a CPU that compute; 0 with GPUs.
    pub threads: usize,
    /// Ranks.
    pub world_size: usize,
    /// Whether only one of them is there.
    pub is_shard_alone: bool,
    /// Tokens a KV block holds.
    pub block_size: usize,
    /// How long each stage of starting took (s).
    pub startup: Vec<Stage>,
    /// What the machine can do.
    pub ceilings: Ceilings,
}

/// The record of a measurement. A step without repeats has no figures, and is not in it.
#[must_use]
pub fn record(facts: &Facts, steps: &[MeasuredStep], requests: Option<WholeRequests>) -> Bench {
    let (mut decode, mut prefill) = (Vec::new(), Vec::new());
    for measured in steps {
        let mut work = cost::work(&facts.model, facts.world_size, facts.formats, measured.step);
        if facts.is_shard_alone {
            work = cost::of_one_rank(work, facts.world_size);
        }
        let Some(figures) = Figures::of(measured.seconds.clone(), work, &facts.ceilings) else {
            continue;
        };
        match measured.step {
            Step::Decode { batch, context } => decode.push(DecodeStep {
                batch: batch as u32,
                context: context as u64,
                figures,
                running: measured.running.map(|running| RunningSteps {
                    steps: running.steps as u32,
                    seconds_mean: running.seconds_mean,
                    idle_share: running.idle_share,
                }),
            }),
            Step::Prefill { chunk, context } => prefill.push(PrefillStep {
                chunk: chunk as u32,
                context: context as u64,
                figures,
            }),
        }
    }
    Bench {
        schema: SCHEMA.to_owned(),
        tool: facts.tool.clone(),
        measured_on: facts.measured_on.clone(),
        command: facts.command.clone(),
        model: Model {
            name: facts.model_name.clone(),
            parameters: cost::parameters(&facts.model),
        },
        engine: engine(facts),
        startup: facts.startup.clone(),
        ceilings: facts.ceilings,
        decode,
        prefill,
        requests,
    }
}

/// What a scenario's `[step_time]` reads, with every repeat.
///
/// # Errors
/// If there are no steps of a kind, or none of batch 1.
pub fn profile(facts: &Facts, steps: &[MeasuredStep]) -> Result<ProfileTable, ProfileError> {
    let mut measured = MeasuredSteps::default();
    for MeasuredStep { step, seconds, .. } in steps {
        let seconds = seconds.clone();
        match *step {
            Step::Decode { batch, context } => measured.decode.push(MeasuredDecode {
                batch: batch as u32,
                past_tokens: (batch * context) as u64,
                seconds,
            }),
            Step::Prefill { chunk, context } => measured.prefill.push(MeasuredPrefill {
                tokens: chunk as u32,
                past_tokens: context as u64,
                seconds,
            }),
        }
    }
    ProfileTable::of_measured(provenance(facts), measured)
}

fn provenance(facts: &Facts) -> Provenance {
    let Facts {
        backend, device, ..
    } = facts;
    Provenance {
        engine: format!("foresail {}", facts.tool.version),
        model: facts.model_name.clone(),
        gpu: match facts.threads {
            0 => device.clone(),
            threads => format!("none: {backend} ({device}), {threads} threads"),
        },
        world_size: facts.world_size as u32,
        precision: match facts.formats.weights {
            Dtype::Bf16 => ProfilePrecision::Bf16,
            // Half precision is computed with as f32.
            Dtype::F32 | Dtype::F16 => ProfilePrecision::F32,
        },
        measured_on: facts.measured_on.clone(),
        source: facts.command.clone(),
    }
}

fn engine(facts: &Facts) -> Engine {
    Engine {
        backend: facts.backend.clone(),
        device: facts.device.clone(),
        threads: facts.threads as u32,
        world_size: facts.world_size as u32,
        is_shard_alone: facts.is_shard_alone,
        dtype: name(facts.formats.weights).to_owned(),
        kv_dtype: name(facts.formats.kv).to_owned(),
        block_size: facts.block_size as u32,
    }
}

fn name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 | Dtype::F16 => "f32",
        Dtype::Bf16 => "bf16",
    }
}
