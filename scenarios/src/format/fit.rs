//! The world size of a replica, whether the model fits on it, and if not, what would.

use foresail_core::control::lifecycle::GpuKind;
use foresail_core::step_time::Precision;

use super::deployment::{Hardware, Model, NamedGpu};
use super::engine::{self, Limits};
use super::problem::Problem;
use super::reader::Reader;
use crate::catalogue::{GpuEntry, gpus};
use crate::memory::{self, Demand, Layout};

/// The world size, and the memory of each GPU at it.
pub(super) fn fit(
    root: &Reader<'_>,
    hardware: &Hardware,
    limits: &Limits,
    demand: &Demand<'_>,
    model: &Model,
    gpu: &NamedGpu,
) -> (u32, Layout) {
    let default = memory::default_world_size(demand, &gpu.spec);
    let world_size = hardware.world_size.value.or(default).unwrap_or(1);
    let layout = Layout::new(demand, &gpu.spec, world_size);
    let heads = model.shape.num_attention_heads;
    if !memory::is_divisible(&model.shape, world_size) {
        let sizes = memory::WORLD_SIZES
            .into_iter()
            .filter(|size| heads.is_multiple_of(*size));
        let message = format!("world size {world_size} does not divide {heads} attention heads");
        let problem = Problem::new("scenario::world_size", message)
            .at_if_written(
                hardware.world_size.place,
                "each GPU needs as many heads as the others",
            )
            .at_if_written(hardware.model.place, format!("it has {heads} heads"))
            .help(format!("world sizes that divide {heads}: {}", list(sizes)));
        root.context.report(problem);
    } else if layout.weight_bytes >= layout.usable_bytes
        || (limits.num_blocks.is_none() && !layout.fits(demand))
    {
        root.context.report(does_not_fit(
            hardware, demand, &layout, model, gpu, world_size,
        ));
    }
    if gpu.kind == GpuKind::Cpu && limits.num_blocks.is_none() {
        let problem = Problem::new("scenario::memory", "nobody says how large the KV cache is")
            .at_if_written(hardware.gpu.place, "a processor has as much memory as it is given")
            .help(
                "write `num_blocks` in `[batching]`: with `foresail serve --kv-cache-memory`, that memory divided by \
                 what a block takes, which is `block_size` times the keys and values of a token",
            );
        root.context.report(problem);
        return (world_size, layout);
    }
    let num_blocks = limits.num_blocks.unwrap_or(layout.num_blocks);
    if num_blocks > engine::NUM_BLOCKS_MAX {
        let message = format!("the KV cache would have {num_blocks} blocks");
        let problem = Problem::new("scenario::memory", message)
            .at_if_written(
                hardware.model.place,
                "so small a model leaves room for so many",
            )
            .help(format!(
                "raise `batching.block_size`, or set `batching.num_blocks` to at most {}",
                engine::NUM_BLOCKS_MAX
            ));
        root.context.report(problem);
    }
    (
        world_size,
        Layout {
            num_blocks,
            ..layout
        },
    )
}

fn does_not_fit(
    hardware: &Hardware,
    demand: &Demand<'_>,
    layout: &Layout,
    model: &Model,
    gpu: &NamedGpu,
    world_size: u32,
) -> Problem {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64);
    let name = &model.name;
    let message = format!("{name} does not fit on {world_size} {}", gpu.name);
    let left = gib(u64::from(layout.num_blocks) * layout.block_bytes);
    let blocks = u64::from(demand.max_model_len.div_ceil(demand.block_size));
    let sequence = layout.block_bytes.saturating_mul(blocks);
    let (weights, usable) = (gib(layout.weight_bytes), gib(layout.usable_bytes));
    let label = if layout.weight_bytes >= layout.usable_bytes {
        format!("the weights take {weights} of each GPU's usable {usable}")
    } else if layout.num_blocks == 0 && layout.adapter_bytes > 0 {
        let adapters = gib(layout.adapter_bytes);
        format!("weights take {weights} and adapters {adapters} of each GPU's usable {usable}")
    } else if layout.num_blocks == 0 {
        let step = gib(layout.activation_bytes);
        format!("weights take {weights} and the largest step {step} of each GPU's usable {usable}")
    } else {
        format!(
            "{left} are left for KV cache; one sequence of {} tokens takes {}",
            demand.max_model_len,
            gib(sequence)
        )
    };
    Problem::new("scenario::memory", message)
        .at_if_written(hardware.model.place, label)
        .at_if_written(
            hardware.gpu.place,
            format!("{} of memory", gib(gpu.spec.memory_bytes)),
        )
        .at_if_written(hardware.world_size.place, "GPUs a replica")
        .help(what_would_fit(demand, gpu, world_size))
}

/// The smallest changes under which the model fits.
fn what_would_fit(demand: &Demand<'_>, gpu: &NamedGpu, world_size: u32) -> String {
    let mut remedies = Vec::new();
    let sizes: Vec<u32> = memory::fitting_world_sizes(demand, &gpu.spec).collect();
    if !sizes.is_empty() {
        remedies.push(format!("`world_size` = {}", list(sizes)));
    }
    let fp8 = Demand {
        precision: Precision::Fp8,
        ..*demand
    };
    if demand.precision != Precision::Fp8 && gpu.spec.fp8_flops.is_some() {
        let mut sizes = memory::fitting_world_sizes(&fp8, &gpu.spec);
        remedies.extend(
            sizes
                .any(|size| size == world_size)
                .then(|| "`precision` = fp8".to_owned()),
        );
    }
    let smaller_steps = Demand {
        max_num_seqs: demand.max_num_seqs.min(engine::MAX_NUM_SEQS_DEFAULT),
        max_num_batched_tokens: (demand.max_num_batched_tokens)
            .min(engine::MAX_BATCHED_TOKENS_DEFAULT),
        ..*demand
    };
    let layout = Layout::new(demand, &gpu.spec, world_size);
    let with_smaller_steps = Layout::new(&smaller_steps, &gpu.spec, world_size);
    if with_smaller_steps.num_blocks > layout.num_blocks && with_smaller_steps.fits(&smaller_steps)
    {
        remedies.push(format!(
            "`max_num_seqs` = {} and `max_num_batched_tokens` = {}",
            smaller_steps.max_num_seqs, smaller_steps.max_num_batched_tokens
        ));
    }
    let without_adapters = Demand {
        adapter_bytes: 0,
        ..*demand
    };
    if demand.adapter_bytes > 0
        && Layout::new(&without_adapters, &gpu.spec, world_size).fits(&without_adapters)
    {
        remedies.push("fewer `adapters.slots`".to_owned());
    }
    let kv_tokens = layout.kv_tokens(demand);
    if kv_tokens >= 1024 {
        remedies.push(format!(
            "`max_model_len` = {} or less",
            kv_tokens / 1024 * 1024
        ));
    }
    let fits = |other: &&GpuEntry| Layout::new(demand, &other.spec(), world_size).fits(demand);
    let larger: Vec<&str> = gpus::GPUS
        .iter()
        .filter(fits)
        .map(|other| other.name)
        .collect();
    if !larger.is_empty() {
        remedies.push(format!("`gpu` = {}", list(larger)));
    }
    if remedies.is_empty() {
        return "no GPU of the catalogue holds it on up to 8 GPUs".to_owned();
    }
    format!("what would fit: {}", remedies.join("; "))
}

/// `1, 2 or 4`.
fn list(items: impl IntoIterator<Item: ToString>) -> String {
    let names: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}
