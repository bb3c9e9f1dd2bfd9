//! `[deployment]` and the tables around it: what is deployed on which GPUs,
//! and the parts of the machine that serves it.

use foresail_core::batching;
use foresail_core::control::biller::{BillingRule, Price};
use foresail_core::step_time::{Gpu, ModelShape, Precision};

use super::autoscaler::{self, Autoscaling};
use super::decode;
use super::engine::{self, Limits};
use super::problem::{Place, Problem};
use super::reader::{Field, Reader, Setting, suggestion};
use super::{cold_start, node};
use crate::catalogue::{GpuEntry, gpus, models, prices};
use crate::memory::{self, Demand, Layout};
use crate::scenario::Deployment;

const PRECISIONS: [(&str, Precision); 2] = [("bf16", Precision::Bf16), ("fp8", Precision::Fp8)];

/// A model as the scenario names or describes it.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) shape: ModelShape,
    pub(super) max_position_embeddings: u32,
}

/// A GPU as the scenario names it.
#[derive(Clone)]
pub(super) struct NamedGpu {
    pub(super) name: &'static str,
    pub(super) spec: Gpu,
}

/// What is deployed on what: everything that memory and step times depend on.
pub(super) struct Hardware {
    pub(super) model: Setting<Option<Model>>,
    pub(super) gpu: Setting<Option<NamedGpu>>,
    pub(super) precision: Setting<Precision>,
    pub(super) kv_precision: Setting<Precision>,
    pub(super) gpu_memory_utilization: Setting<f64>,
    pub(super) max_model_len: Setting<u32>,
    pub(super) world_size: Setting<Option<u32>>,
}

/// The deployment; `None` if a part is missing, which has then been reported.
pub(super) fn decode(root: &Reader<'_>) -> Option<Deployment> {
    if !root.has("deployment") {
        root.missing_table("deployment", "model = \"llama-3-8b\" and gpu = \"h100\"");
    }
    let reader = root.table("deployment");
    let hardware = Hardware::decode(&reader);
    let autoscaling = autoscaler::decode(&reader, root.table("autoscaler"));
    reader.finish();
    let router = engine::router(root.table("router"));
    let limits = engine::limits(root.table("batching"));
    let step_time = root.table("step_time");
    let cold_start = root.table("cold_start");
    let price = root.table("price");

    let (Some(model), Some(gpu)) = (&hardware.model.value, &hardware.gpu.value) else {
        // What depends on them cannot be decoded, but their keys are read, so
        // that only keys that are unknown are called so.
        engine::read_step_time_keys(step_time);
        cold_start::decode(cold_start, 0, 1);
        read_price(price, None);
        return None;
    };
    let (world_size, layout) = fit(root, &hardware, &limits, model, gpu);
    let step_time = if memory::is_divisible(&model.shape, world_size) {
        engine::step_time(step_time, &hardware, model, gpu, world_size, &limits)
    } else {
        engine::read_step_time_keys(step_time);
        None
    };
    let weight_bytes = model.shape.weight_bytes(hardware.precision.value);
    let cold_start = cold_start::decode(cold_start, weight_bytes, world_size);
    let (price, price_source, billing) = read_price(price, Some(gpu.name));
    let Autoscaling {
        autoscaler,
        initial_replica_count,
        at_zero,
        unused_auto_delete_duration,
        drain_timeout,
    } = autoscaling;
    Some(Deployment {
        model: model.name.clone(),
        shape: model.shape,
        precision: hardware.precision.value,
        kv_precision: hardware.kv_precision.value,
        gpu: gpu.name.to_owned(),
        gpu_spec: gpu.spec.clone(),
        world_size,
        initial_replica_count,
        autoscaler,
        at_zero,
        unused_auto_delete_duration,
        drain_timeout,
        router,
        batching: batching_config(&limits, hardware.max_model_len.value, layout.num_blocks),
        step_time: step_time?,
        cold_start,
        price,
        billing,
        price_source,
    })
}

impl Hardware {
    fn decode(reader: &Reader<'_>) -> Self {
        let model = model(reader);
        let gpu = reader.required("gpu", "\"h100\"", gpu);
        let longest = model.value.as_ref().map(|model| model.max_position_embeddings);
        let default_len = longest.unwrap_or(1);
        let max_model_len =
            reader.setting("max_model_len", default_len, decode::positive_integer);
        if let Some(longest) = longest.filter(|&longest| max_model_len.value > longest) {
            let message = format!("`deployment.max_model_len` is above the model's {longest}");
            let problem = Problem::new("scenario::range", message)
                .at_if_written(max_model_len.place, "longer than the model was made for")
                .help(format!("write at most {longest}, or leave it out"));
            reader.context.report(problem);
        }
        Self {
            model,
            gpu,
            precision: reader.setting("precision", Precision::Bf16, decode::choice(&PRECISIONS)),
            kv_precision: reader.setting(
                "kv_precision",
                Precision::Bf16,
                decode::choice(&PRECISIONS),
            ),
            // vLLM's default (`CacheConfig.gpu_memory_utilization`).
            gpu_memory_utilization: reader.setting("gpu_memory_utilization", 0.9, decode::share),
            max_model_len,
            world_size: reader.optional("world_size", decode::positive_integer),
        }
    }

    /// What decides the memory of a rank.
    fn demand<'a>(&self, model: &'a Model, limits: &Limits) -> Demand<'a> {
        Demand {
            shape: &model.shape,
            precision: self.precision.value,
            kv_precision: self.kv_precision.value,
            gpu_memory_utilization: self.gpu_memory_utilization.value,
            max_num_batched_tokens: limits.max_num_batched_tokens,
            max_num_seqs: limits.max_num_seqs,
            max_model_len: self.max_model_len.value,
            block_size: limits.block_size,
        }
    }
}

/// A catalogue name, or a name for the shape that is given.
fn model(reader: &Reader<'_>) -> Setting<Option<Model>> {
    // Asked for first, so that it comes first in the list of keys.
    reader.has("model");
    if !reader.has("shape") {
        return reader.required("model", "\"llama-3-8b\"", catalogue_model);
    }
    let name = reader.setting("model", "custom".to_owned(), decode::text).value;
    let shape = reader.optional("shape", shape);
    shape.map(|shape| {
        shape.map(|(shape, max_position_embeddings)| Model { name, shape, max_position_embeddings })
    })
}

fn catalogue_model(field: Field<'_>) -> Result<Model, Problem> {
    let name = decode::text(field)?;
    let Some(model) = models::find(&name) else {
        let names = models::MODELS.iter().map(|model| model.name);
        let help = suggestion(&name, names, "the catalogue has");
        return Err(unknown_name(field, &name, "model")
            .help(format!("{help}; any other model can be described in `[deployment.shape]`")));
    };
    Ok(Model {
        name: model.name.to_owned(),
        shape: model.shape,
        max_position_embeddings: model.max_position_embeddings,
    })
}

fn gpu(field: Field<'_>) -> Result<NamedGpu, Problem> {
    let name = decode::text(field)?;
    let Some(gpu) = gpus::find(&name) else {
        let names = gpus::GPUS.iter().map(|gpu| gpu.name);
        return Err(unknown_name(field, &name, "GPU")
            .help(suggestion(&name, names, "the catalogue has")));
    };
    Ok(NamedGpu { name: gpu.name, spec: gpu.spec() })
}

fn unknown_name(field: Field<'_>, name: &str, what: &str) -> Problem {
    let message = format!("unknown {what} \"{}\"", node::shorten(name));
    Problem::new("scenario::unknown_name", message).at(field.place(), "not in the catalogue")
}

/// `[deployment.shape]`, with the names of a Hugging Face `config.json`.
fn shape(field: Field<'_>) -> Result<(ModelShape, u32), Problem> {
    let reader = field.reader()?;
    let size = |key, example, most: u32| {
        let decode = move |field: Field<'_>| decode::integer_between(field, 1, most);
        reader.required(key, example, decode).value
    };
    let or = |key, default: u32| {
        reader.setting(key, default, |f| decode::integer_between(f, 1, 1 << 12)).value
    };
    // The bounds are far above any model; they keep every product below 2^64.
    let layers = size("num_hidden_layers", "32", 1 << 12);
    let hidden = size("hidden_size", "4096", 1 << 17);
    let heads = size("num_attention_heads", "32", 1 << 12);
    let intermediate = size("intermediate_size", "14336", 1 << 20);
    let vocab = size("vocab_size", "128256", 1 << 24);
    let max_position_embeddings = size("max_position_embeddings", "8192", 1 << 30);
    let kv_heads = reader.setting("num_key_value_heads", heads.unwrap_or(1), |field| {
        decode::integer_between(field, 1, 1 << 12)
    });
    let head_dim = or("head_dim", hidden.unwrap_or(1) / heads.unwrap_or(1));
    let tied = reader.setting("tie_word_embeddings", false, decode::boolean).value;
    let experts = experts(&reader);
    let place = reader.place_or_start();
    reader.finish();
    let (Some(num_attention_heads), kv) = (heads, kv_heads.value) else {
        return Err(incomplete(place));
    };
    if num_attention_heads % kv != 0 {
        let message = "`num_key_value_heads` must divide `num_attention_heads`";
        return Err(Problem::new("scenario::shape", message)
            .at_if_written(kv_heads.place, format!("{kv} does not divide {num_attention_heads}"))
            .help("each key and value head serves the same number of query heads"));
    }
    let parts = (layers, hidden, intermediate, vocab, max_position_embeddings);
    let (Some(layers), Some(hidden), Some(intermediate), Some(vocab), Some(longest)) = parts else {
        return Err(incomplete(place));
    };
    let shape = ModelShape {
        num_hidden_layers: layers,
        hidden_size: hidden,
        num_attention_heads,
        num_key_value_heads: kv,
        head_dim: head_dim.max(1),
        intermediate_size: intermediate,
        vocab_size: vocab,
        tie_word_embeddings: tied,
        experts,
    };
    Ok((shape, longest))
}

fn incomplete(place: Place) -> Problem {
    Problem::new("scenario::shape", "the model's shape is incomplete")
        .at(place, "a dimension is missing or wrong")
        .help("copy the dimensions from the model's `config.json`")
}

fn experts(reader: &Reader<'_>) -> Option<foresail_core::step_time::Experts> {
    let integer = |field: Field<'_>| decode::integer_between(field, 1, 1 << 12);
    let count = reader.optional("num_experts", integer);
    let active = reader.optional("num_experts_per_tok", integer);
    match (count.value, active.value) {
        (Some(count), Some(active)) if active <= count => {
            Some(foresail_core::step_time::Experts { count, active })
        }
        (None, None) => None,
        _ => {
            let message = "`num_experts_per_tok` must be given with `num_experts`, and not above it";
            let problem = Problem::new("scenario::shape", message)
                .at_if_written(count.place, "experts in a layer")
                .at_if_written(active.place, "experts that a token uses")
                .help("give both, or neither for a dense model");
            reader.context.report(problem);
            None
        }
    }
}

/// The world size, and the memory of each GPU at it.
fn fit(
    root: &Reader<'_>,
    hardware: &Hardware,
    limits: &Limits,
    model: &Model,
    gpu: &NamedGpu,
) -> (u32, Layout) {
    let demand = hardware.demand(model, limits);
    let default = memory::default_world_size(&demand, &gpu.spec);
    let world_size = hardware.world_size.value.or(default).unwrap_or(1);
    let layout = Layout::new(&demand, &gpu.spec, world_size);
    let heads = model.shape.num_attention_heads;
    if !memory::is_divisible(&model.shape, world_size) {
        let sizes = memory::WORLD_SIZES.into_iter().filter(|size| heads.is_multiple_of(*size));
        let message = format!("world size {world_size} does not divide {heads} attention heads");
        let problem = Problem::new("scenario::world_size", message)
            .at_if_written(hardware.world_size.place, "each GPU needs as many heads as the others")
            .at_if_written(hardware.model.place, format!("it has {heads} heads"))
            .help(format!("world sizes that divide {heads}: {}", list(sizes)));
        root.context.report(problem);
    } else if limits.num_blocks.is_none() && !layout.fits(&demand) {
        root.context.report(does_not_fit(hardware, &demand, &layout, model, gpu, world_size));
    }
    let num_blocks = limits.num_blocks.unwrap_or(layout.num_blocks);
    if num_blocks > engine::NUM_BLOCKS_MAX {
        let message = format!("the KV cache would have {num_blocks} blocks");
        let problem = Problem::new("scenario::memory", message)
            .at_if_written(hardware.model.place, "so small a model leaves room for so many")
            .help(format!("raise `batching.block_size`, or set `batching.num_blocks` to at most {}", engine::NUM_BLOCKS_MAX));
        root.context.report(problem);
    }
    (world_size, Layout { num_blocks, ..layout })
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
    let label = if layout.num_blocks == 0 {
        format!("the weights take {} of each GPU's usable {}", gib(layout.weight_bytes), gib(layout.usable_bytes))
    } else {
        format!("{left} are left for KV cache; one sequence of {} tokens takes {}", demand.max_model_len, gib(sequence))
    };
    Problem::new("scenario::memory", message)
        .at_if_written(hardware.model.place, label)
        .at_if_written(hardware.gpu.place, format!("{} of memory", gib(gpu.spec.memory_bytes)))
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
    let fp8 = Demand { precision: Precision::Fp8, ..*demand };
    if demand.precision != Precision::Fp8 && gpu.spec.fp8_flops.is_some() {
        let mut sizes = memory::fitting_world_sizes(&fp8, &gpu.spec);
        remedies.extend(sizes.any(|size| size == world_size).then(|| "`precision` = fp8".to_owned()));
    }
    let layout = Layout::new(demand, &gpu.spec, world_size);
    let kv_tokens = layout.kv_tokens(demand);
    if kv_tokens >= 1024 {
        remedies.push(format!("`max_model_len` = {} or less", kv_tokens / 1024 * 1024));
    }
    let fits = |other: &&GpuEntry| Layout::new(demand, &other.spec(), world_size).fits(demand);
    let larger: Vec<&str> = gpus::GPUS.iter().filter(fits).map(|other| other.name).collect();
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

fn batching_config(limits: &Limits, max_model_len: u32, num_blocks: u32) -> batching::Config {
    // Rounded up, so that a share above 0 keeps at least one block free.
    let watermark = (f64::from(num_blocks) * limits.watermark).ceil() as u32;
    batching::Config {
        block_size: limits.block_size,
        num_blocks,
        max_num_seqs: limits.max_num_seqs,
        max_batched_tokens: limits.max_num_batched_tokens,
        max_model_len,
        prefill_chunk: limits.prefill_chunk,
        max_loras: limits.max_loras,
        watermark,
        prefix_caching: limits.prefix_caching,
    }
}

/// `[price]`: the price, where it comes from, and what is billed.
fn read_price(reader: Reader<'_>, gpu: Option<&str>) -> (Price, String, BillingRule) {
    let entry = gpu.and_then(prices::default_price);
    let default = entry.map_or(0, |entry| entry.price.nanodollars_per_gpu_hour);
    let price = reader.setting("usd_per_gpu_hour", default, decode::nanodollars);
    let source = match entry {
        Some(entry) if !price.is_written() => entry.describe(),
        _ => "the scenario".to_owned(),
    };
    // Fireworks bills from the moment the server accepts requests, "without
    // paying for boot times" (its FAQ and its blog of 2024-06); what it bills
    // while a replica drains is not documented.
    let billing = BillingRule {
        starting: reader.setting("bill_starting", false, decode::boolean).value,
        draining: reader.setting("bill_draining", true, decode::boolean).value,
    };
    reader.finish();
    (Price { nanodollars_per_gpu_hour: price.value }, source, billing)
}
