//! From fits to the profile that is written.

use foresail_core::step_time::calibrated::{BatchingLimits, CalibrationProvenance};
use foresail_core::step_time::{CalibratedProfile, ModelShape, ProfilePrecision};
use foresail_engine::config::{Dtype, ModelConfig};

use super::measure::Measured;
use super::plan::{Exchanges, Plan};
use crate::{cli, machine};

pub(super) fn of(plan: &Plan, measured: &Measured) -> CalibratedProfile {
    let limits = plan.design.limits();
    CalibratedProfile {
        schema: CalibratedProfile::SCHEMA.to_owned(),
        provenance: provenance(plan, measured),
        batching: BatchingLimits {
            max_num_seqs: Some(limits.max_num_seqs as u32),
            max_num_batched_tokens: Some(limits.max_batched_tokens as u32),
            block_size: Some(limits.block_size as u32),
            // Those of this measurement are not those of a replica.
            num_blocks: None,
        },
        world_sizes: measured
            .worlds
            .iter()
            .map(|world| world.fit.clone())
            .collect(),
        not_identified: not_identified(plan, measured),
    }
}

fn provenance(plan: &Plan, measured: &Measured) -> CalibrationProvenance {
    let version = cli::tool().version;
    let device = measured.gpu_name.clone();
    CalibrationProvenance {
        tool: format!("foresail {version} calibrate engine"),
        engine: format!("foresail {version}, {}", machine::backend(plan.device)),
        model: plan.model_name.clone(),
        shape: Some(shape(&plan.model)),
        device: device.unwrap_or_else(machine::device),
        threads: machine::threads(plan.device) as u32,
        precision: Some(precision(plan.formats.weights)),
        kv_precision: Some(precision(plan.formats.kv)),
        measured_on: machine::today(),
        source: machine::command(),
    }
}

fn precision(dtype: Dtype) -> ProfilePrecision {
    match dtype {
        Dtype::Bf16 => ProfilePrecision::Bf16,
        // Half precision is computed with as f32.
        Dtype::F32 | Dtype::F16 => ProfilePrecision::F32,
    }
}

fn shape(model: &ModelConfig) -> ModelShape {
    ModelShape {
        num_hidden_layers: model.num_hidden_layers as u32,
        hidden_size: model.hidden_size as u32,
        num_attention_heads: model.num_attention_heads as u32,
        num_key_value_heads: model.num_key_value_heads as u32,
        head_dim: model.head_dim as u32,
        intermediate_size: model.intermediate_size as u32,
        vocab_size: model.vocab_size as u32,
        tie_word_embeddings: model.tie_word_embeddings,
        // A mixture of experts is refused when the model is opened.
        experts: None,
    }
}

/// What the steps leave open, with the world size where there are several, and what no step could show.
fn not_identified(plan: &Plan, measured: &Measured) -> Vec<String> {
    let is_one = measured.worlds.len() == 1;
    let of_fits = measured.worlds.iter().flat_map(|world| {
        let named = move |text: &String| match is_one {
            true => text.clone(),
            false => format!("world size {}: {text}", world.world_size),
        };
        world.not_identified.iter().map(named)
    });
    let mut open: Vec<String> = of_fits.collect();
    for world in &plan.worlds {
        let size = world.world_size;
        match &world.exchanges {
            None => {}
            Some(Exchanges::Gpu { name, .. }) => open.push(format!(
                "world size {size}: one shard was measured alone; what its exchanges take is the table of {name}, \
                 without what they take from what runs beside them"
            )),
            Some(Exchanges::Threads) => open.push(format!(
                "world size {size}: the ranks computed side by side without exchanging; what exchanges add, with waiting for \
                 the slowest rank, was measured between other work than steps, and ranks of steps may wait longer"
            )),
        }
    }
    open
}
