//! `[deployment]` and the tables around it: what is deployed on which GPUs,
//! and the parts of the machine that serves it.

use foresail_core::batching;
use foresail_core::control::biller::{BillingRule, Price};
use foresail_core::control::lifecycle::{DeploymentSpec, GpuKind, Settings};
use foresail_core::step_time::{Gpu, ModelShape, Precision};

use super::adapters::{self, Settings as AdapterSettings};
use super::autoscaler::{self, Autoscaling};
use super::decode;
use super::engine::{self, Limits};
use super::problem::Problem;
use super::profile::Deployed;
use super::reader::{Field, Reader, Setting, suggestion};
use super::{cold_start, failures, fit, node, shape};
use crate::catalogue::{gpus, models, prices};
use crate::drawn::SaidOverheads;
use crate::memory::{self, Demand};
use crate::scenario::Deployment;

const PRECISIONS: [(&str, Precision); 2] = [("bf16", Precision::Bf16), ("fp8", Precision::Fp8)];

/// What a model is called that only has a shape.
pub(super) const UNNAMED: &str = "custom";

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
    pub(super) kind: GpuKind,
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
    let adapters = adapters::decode(root, &hardware.model, &limits);
    let step_time = root.table("step_time");
    let cold_start = root.table("cold_start");
    let failures = failures::decode(root.table("failures"));
    let price = root.table("price");

    let (Some(model), Some(gpu)) = (&hardware.model.value, &hardware.gpu.value) else {
        // What depends on them cannot be decoded, but their keys are read, so
        // that only keys that are unknown are called so.
        engine::read_step_time_keys(step_time);
        cold_start::decode(cold_start, 0, 1);
        read_price(price, None);
        return None;
    };
    let demand = hardware.demand(model, &limits, adapters.as_ref());
    let (world_size, layout) = fit::fit(root, &hardware, &limits, &demand, model, gpu);
    let step_time = if memory::is_divisible(&model.shape, world_size) {
        let deployed = Deployed {
            hardware: &hardware,
            model,
            gpu,
            world_size,
            limits: &limits,
        };
        engine::step_time(step_time, deployed)
    } else {
        engine::read_step_time_keys(step_time);
        None
    };
    let weight_bytes = model.shape.weight_bytes(hardware.precision.value);
    let cold_start = cold_start::decode(cold_start, weight_bytes, world_size);
    let (price, price_source, billing) = read_price(price, Some(gpu.name));
    let adapters = adapters.map(|adapters| {
        let of_batch = adapters.max_loras(&limits);
        (of_batch, adapters.resolve(model, gpu, world_size))
    });
    let (max_loras, adapters, said) = match adapters {
        Some((max_loras, (adapters, said))) => (max_loras, Some(adapters), said),
        None => (limits.max_loras.value, None, adapters::Said::default()),
    };
    let Autoscaling {
        autoscaler,
        initial_replica_count,
        at_zero,
        profile,
        settings,
        drain_timeout,
    } = autoscaling;
    let spec = DeploymentSpec {
        gpu: gpu.kind,
        profile,
        initial_replica_count: Some(initial_replica_count),
        settings: Settings {
            world_size: hardware.world_size.value,
            ..settings
        },
    };
    let times = step_time?;
    if gpu.kind == GpuKind::Cpu {
        adapters::check_cpu(root, said, times.overheads);
    }
    let mut deployment = Deployment {
        model: model.name.clone(),
        shape: model.shape,
        precision: hardware.precision.value,
        kv_precision: hardware.kv_precision.value,
        gpu: gpu.name.to_owned(),
        gpu_spec: gpu.spec.clone(),
        world_size,
        spec,
        initial_replica_count,
        autoscaler,
        at_zero,
        drain_timeout,
        router,
        batching: batching::Config {
            max_loras,
            ..batching_config(&limits, hardware.max_model_len.value, layout.num_blocks)
        },
        adapters,
        step_time: times.model,
        said_overheads: SaidOverheads {
            adapter_step_is_calibrated: times.overheads.adapter_step_is_calibrated
                && !said.step_overhead,
            adapter_is_calibrated: times.overheads.adapter_is_calibrated && !said.adapter_overhead,
            ..times.overheads
        },
        notes: times.notes,
        cold_start,
        failures,
        price,
        billing,
        price_source,
    };
    deployment.use_calibrated_adapters();
    Some(deployment)
}

impl Hardware {
    fn decode(reader: &Reader<'_>) -> Self {
        let model = model(reader);
        let gpu = reader.required("gpu", "\"h100\"", gpu);
        let longest = model
            .value
            .as_ref()
            .map(|model| model.max_position_embeddings);
        let default_len = longest.unwrap_or(1);
        let max_model_len = reader.setting("max_model_len", default_len, decode::positive_integer);
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
    pub(super) fn demand<'a>(
        &self,
        model: &'a Model,
        limits: &Limits,
        adapters: Option<&AdapterSettings>,
    ) -> Demand<'a> {
        Demand {
            shape: &model.shape,
            precision: self.precision.value,
            kv_precision: self.kv_precision.value,
            gpu_memory_utilization: self.gpu_memory_utilization.value,
            max_num_batched_tokens: limits.max_num_batched_tokens,
            max_num_seqs: limits.max_num_seqs,
            max_model_len: self.max_model_len.value,
            block_size: limits.block_size,
            adapter_bytes: adapters.map_or(0, AdapterSettings::slot_bytes),
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
    let name = reader
        .setting("model", UNNAMED.to_owned(), decode::text)
        .value;
    let shape = reader.optional("shape", shape::decode);
    shape.map(|shape| {
        shape.map(|(shape, max_position_embeddings)| Model {
            name,
            shape,
            max_position_embeddings,
        })
    })
}

fn catalogue_model(field: Field<'_>) -> Result<Model, Problem> {
    let name = decode::text(field)?;
    let Some(model) = models::find(&name) else {
        let names = models::MODELS.iter().map(|model| model.name);
        let help = suggestion(&name, names, "the catalogue has");
        return Err(unknown_name(field, &name, "model").help(format!(
            "{help}; any other model can be described in `[deployment.shape]`"
        )));
    };
    Ok(Model {
        name: model.name.to_owned(),
        shape: model.shape,
        max_position_embeddings: model.max_position_embeddings,
    })
}

fn gpu(field: Field<'_>) -> Result<NamedGpu, Problem> {
    let name = decode::text(field)?;
    let found = gpus::find(&name).or_else(|| gpus::find_cpu(&name));
    let Some(gpu) = found else {
        let names = gpus::GPUS.iter().chain([&gpus::CPU]).map(|gpu| gpu.name);
        return Err(unknown_name(field, &name, "GPU").help(suggestion(
            &name,
            names,
            "the catalogue has",
        )));
    };
    Ok(NamedGpu {
        kind: gpu.kind,
        name: gpu.name,
        spec: gpu.spec(),
    })
}

fn unknown_name(field: Field<'_>, name: &str, what: &str) -> Problem {
    let message = format!("unknown {what} \"{}\"", node::shorten(name));
    Problem::new("scenario::unknown_name", message).at(field.place(), "not in the catalogue")
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
        max_loras: limits.max_loras.value,
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
        None if gpu == Some(gpus::CPU.name) && !price.is_written() => {
            "no price: a processor of one's own".to_owned()
        }
        _ => "the scenario".to_owned(),
    };
    // Fireworks bills from the moment the server accepts requests, "without
    // paying for boot times" (its FAQ and its blog of 2024-06); what it bills
    // while a replica drains is not documented.
    let billing = BillingRule {
        starting: reader
            .setting("bill_starting", false, decode::boolean)
            .value,
        draining: reader.setting("bill_draining", true, decode::boolean).value,
    };
    reader.finish();
    (
        Price {
            nanodollars_per_gpu_hour: price.value,
        },
        source,
        billing,
    )
}
