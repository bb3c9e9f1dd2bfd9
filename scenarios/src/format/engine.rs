//! `[router]`, `[batching]` and `[step_time]`: how requests reach a replica,
//! how it batches them, and how long a step takes.

use foresail_core::control::lifecycle::GpuKind;
use foresail_core::control::router::{RouterConfig, RouterPolicy};
use foresail_core::step_time::{Efficiency, EfficiencySpread, Gpu, Roofline, RooflineError};
use foresail_core::time::{MICROSECOND, MILLISECOND, SECOND, seconds};

use super::decode;
use super::deployment::Hardware;
use super::problem::{Place, Problem};
use super::profile::{self, Deployed, Named, Profiled};
use super::reader::{Field, Reader, Setting};
use crate::drawn::SaidOverheads;
use crate::scenario::StepTimeModel;

const ROUTER_POLICIES: [(&str, RouterPolicy); 6] = [
    ("least-outstanding", RouterPolicy::LeastOutstanding),
    ("round-robin", RouterPolicy::RoundRobin),
    ("least-kv-use", RouterPolicy::LeastKvUse),
    ("power-of-two-choices", RouterPolicy::PowerOfTwoChoices),
    ("prefix-affinity", RouterPolicy::PrefixAffinity),
    ("adapter-affinity", RouterPolicy::AdapterAffinity),
];

/// `[router]`.
pub(super) fn router(reader: Reader<'_>) -> RouterConfig {
    let policy = RouterPolicy::LeastOutstanding;
    let config = RouterConfig {
        policy: reader
            .setting("policy", policy, decode::choice(&ROUTER_POLICIES))
            .value,
        max_outstanding: reader
            .optional("max_outstanding", decode::positive_integer)
            .value,
    };
    reader.finish();
    config
}

/// Sequences in a batch, and tokens in a step, of a scenario that does not say.
///
/// vLLM's server takes 8192 tokens a step on GPUs of 70 GiB or more
/// (`EngineArgs.get_batch_defaults` in `vllm/engine/arg_utils.py`). Its 1024
/// sequences there are a bound for memory profiling rather than a batch that
/// keeps latency low; 256 is its value everywhere else.
pub(super) const MAX_NUM_SEQS_DEFAULT: u32 = 256;
pub(super) const MAX_BATCHED_TOKENS_DEFAULT: u32 = 8192;

/// Most sequences in a batch that are accepted. Schedulers and step-time models
/// keep a table entry for each; real batches stay below a thousand or two.
const MAX_NUM_SEQS_MAX: u32 = 1 << 16;

/// Most tokens in a step that are accepted.
const MAX_BATCHED_TOKENS_MAX: u32 = 1 << 24;

/// Most KV blocks of a replica that are accepted: a scheduler keeps a few tens
/// of bytes for each, so this is some gigabytes.
pub(super) const NUM_BLOCKS_MAX: u32 = 1 << 26;

/// `[batching]`: the limits of a replica's scheduler.
pub(super) struct Limits {
    pub(super) max_num_seqs: u32,
    pub(super) max_num_batched_tokens: u32,
    pub(super) prefill_chunk: u32,
    pub(super) block_size: u32,
    pub(super) prefix_caching: bool,
    /// Share of the KV blocks that an admission leaves free.
    pub(super) watermark: f64,
    pub(super) max_loras: Setting<u32>,
    /// In place of the number that fits in memory.
    pub(super) num_blocks: Option<u32>,
}

/// `[batching]`, with vLLM's names.
pub(super) fn limits(reader: Reader<'_>) -> Limits {
    let sequences = |field: Field<'_>| decode::integer_between(field, 1, MAX_NUM_SEQS_MAX);
    let tokens = |field: Field<'_>| decode::integer_between(field, 1, MAX_BATCHED_TOKENS_MAX);
    let max_num_seqs = reader.setting("max_num_seqs", MAX_NUM_SEQS_DEFAULT, sequences);
    let max_num_batched_tokens = reader.setting(
        "max_num_batched_tokens",
        max_num_seqs.value.max(MAX_BATCHED_TOKENS_DEFAULT),
        tokens,
    );
    let prefill_chunk = reader.setting("prefill_chunk", max_num_batched_tokens.value, tokens);
    check_step(
        &reader,
        &max_num_seqs,
        &max_num_batched_tokens,
        &prefill_chunk,
    );
    let limits = Limits {
        max_num_seqs: max_num_seqs.value,
        max_num_batched_tokens: max_num_batched_tokens.value,
        prefill_chunk: prefill_chunk.value,
        // The tile of the attention kernels that the engine is built for; vLLM's is 16.
        block_size: reader
            .setting("block_size", 64, |field| {
                decode::integer_between(field, 1, 1 << 16)
            })
            .value,
        // vLLM V1's default (`CacheConfig.enable_prefix_caching`).
        prefix_caching: reader
            .setting("prefix_caching", true, decode::boolean)
            .value,
        // vLLM V0's `watermark` of its block manager; V1 has none, which is `0`.
        watermark: reader
            .setting("watermark", 0.01, decode::share_below_one)
            .value,
        max_loras: reader.setting("max_loras", 8, sequences),
        num_blocks: reader
            .optional("num_blocks", |field| {
                decode::integer_between(field, 1, NUM_BLOCKS_MAX)
            })
            .value,
    };
    reader.finish();
    limits
}

fn check_step(
    reader: &Reader<'_>,
    seqs: &Setting<u32>,
    tokens: &Setting<u32>,
    chunk: &Setting<u32>,
) {
    if !(seqs.is_sound && tokens.is_sound && chunk.is_sound) {
        return;
    }
    if tokens.value < seqs.value {
        let message = format!(
            "max_num_batched_tokens ({}) is less than max_num_seqs ({})",
            tokens.value, seqs.value
        );
        let problem = Problem::new("scenario::batching", message)
            .at_if_written(seqs.place, "each of these decodes one token a step")
            .at_if_written(tokens.place, "a step cannot hold one token for each")
            .help(format!(
                "raise max_num_batched_tokens to at least {}, or lower max_num_seqs",
                seqs.value
            ));
        reader.context.report(problem);
    } else if chunk.value > tokens.value {
        let message = format!(
            "prefill_chunk ({}) is more than max_num_batched_tokens ({})",
            chunk.value, tokens.value
        );
        let problem = Problem::new("scenario::batching", message)
            .at_if_written(chunk.place, "no step can hold such a chunk")
            .at_if_written(tokens.place, "tokens that a step holds")
            .help(format!(
                "lower prefill_chunk to at most {}, or leave it out",
                tokens.value
            ));
        reader.context.report(problem);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Roofline,
    Profile,
}

const KINDS: [(&str, Kind); 2] = [("roofline", Kind::Roofline), ("profile", Kind::Profile)];

const EFFICIENCY_KEYS: [&str; 11] = [
    "weight_read",
    "kv_read",
    "gemm",
    "gemm_fp8",
    "attention",
    "elementwise",
    "step_overhead",
    "sequence_overhead",
    "layer_overhead",
    "kernel_overhead",
    "host_launch",
];

/// Keys of `[step_time]` for every kind of model.
const COMMON_KEYS: [&str; 5] = [
    "model",
    "file",
    "check_provenance",
    "request_overhead",
    "prompt_token_overhead",
];

/// Reads `[step_time]` only to find unknown keys, when there is no model or GPU to use it for.
pub(super) fn read_step_time_keys(reader: Reader<'_>) {
    for key in EFFICIENCY_KEYS.into_iter().chain(COMMON_KEYS) {
        reader.has(key);
    }
    reader.finish();
}

/// `[step_time]`.
pub(super) struct StepTimes {
    pub(super) model: StepTimeModel,
    pub(super) overheads: SaidOverheads,
    /// What is good to know.
    pub(super) notes: Vec<String>,
}

/// `[step_time]`; `None` if there is no such model, which has been reported.
pub(super) fn step_time(reader: Reader<'_>, deployed: Deployed<'_>) -> Option<StepTimes> {
    let kind = reader.setting("model", Kind::Roofline, decode::choice(&KINDS));
    let file = reader.optional("file", decode::text);
    let overheads = overheads(&reader);
    let times = match kind.value {
        Kind::Roofline => {
            reader.unused(
                &["file", "check_provenance"],
                "unless `model = \"profile\"`",
            );
            roofline(&reader, deployed).map(|model| StepTimes {
                model,
                overheads,
                notes: Vec::new(),
            })
        }
        Kind::Profile => {
            reader.unused(&EFFICIENCY_KEYS, "unless `model = \"roofline\"`");
            let is_checked = reader.setting("check_provenance", true, decode::boolean);
            match (&file.value, file.place) {
                (Some(path), Some(place)) => {
                    let is_checked = is_checked.value;
                    let named = Named {
                        path,
                        place,
                        is_checked,
                    };
                    profile::read(&reader, named, deployed).map(|read| of_profile(read, overheads))
                }
                _ => Err(no_file(&reader, kind.place, file.is_sound)),
            }
        }
    };
    let times = times.map_err(|problem| reader.context.report(problem));
    reader.finish();
    times.ok()
}

fn of_profile(profiled: Profiled, said: SaidOverheads) -> StepTimes {
    StepTimes {
        overheads: SaidOverheads {
            adapter_step_is_calibrated: profiled.adapter_step_is_identified,
            adapter_is_calibrated: profiled.adapter_is_identified,
            ..said
        },
        model: profiled.model,
        notes: profiled.notes,
    }
}

/// What requests take beside their steps, where the scenario says so.
fn overheads(reader: &Reader<'_>) -> SaidOverheads {
    let time = |key, max| {
        let decode = |field: Field<'_>| decode::duration_up_to(field, max).map(seconds);
        reader.optional(key, decode).value
    };
    SaidOverheads {
        request_s: time("request_overhead", 60 * SECOND),
        // A millisecond a token is far above what any tokenizer takes.
        prompt_token_s: time("prompt_token_overhead", 1_000 * MICROSECOND),
        ..SaidOverheads::default()
    }
}

/// From the GPU's figures.
fn roofline(reader: &Reader<'_>, deployed: Deployed<'_>) -> Result<StepTimeModel, Problem> {
    let Deployed {
        hardware,
        model,
        gpu,
        world_size,
        limits,
    } = deployed;
    if gpu.kind == GpuKind::Cpu {
        return Err(no_roofline_of_cpu(reader, hardware));
    }
    let (efficiency, spread) = efficiency(reader, &gpu.spec);
    let gpu_spec = Gpu {
        efficiency,
        spread,
        ..gpu.spec.clone()
    };
    let roofline = Roofline::new(
        &model.shape,
        hardware.precision.value,
        hardware.kv_precision.value,
        &gpu_spec,
        world_size,
        limits.max_num_seqs,
    );
    roofline
        .map(|roofline| StepTimeModel::Roofline(Box::new(roofline)))
        .map_err(|error| no_roofline(reader, hardware, &error))
}

fn no_roofline_of_cpu(reader: &Reader<'_>, hardware: &Hardware) -> Problem {
    for key in EFFICIENCY_KEYS {
        reader.has(key);
    }
    Problem::new(
        "scenario::step_time",
        "no step times: none are known of processors",
    )
    .at_if_written(hardware.gpu.place, "its step times have to be measured")
    .help(
        "measure them with `foresail calibrate engine --backend cpu --out profile.json`, and write \
             `model = \"profile\"` and `file = \"profile.json\"` in `[step_time]`",
    )
}

/// The GPU's efficiencies, where the scenario does not say its own, and how well they are known: what the
/// scenario says is certain.
fn efficiency(reader: &Reader<'_>, gpu: &Gpu) -> (Efficiency, EfficiencySpread) {
    let (default, mut spread) = (&gpu.efficiency, gpu.spread);
    let share = |key, default, spread: &mut f64| {
        said(reader.setting(key, default, decode::efficiency), spread)
    };
    // Far above what any engine takes; with more, a few steps would outlast a run.
    let time = |key, default, max, spread: &mut f64| {
        let decode = |field: Field<'_>| decode::duration_up_to(field, max).map(seconds);
        said(reader.setting(key, default, decode), spread)
    };
    let known = &mut spread;
    let efficiency = Efficiency {
        weight_read: share("weight_read", default.weight_read, &mut known.weight_read),
        kv_read: share("kv_read", default.kv_read, &mut known.kv_read),
        gemm: share("gemm", default.gemm, &mut known.gemm),
        gemm_fp8: share("gemm_fp8", default.gemm_fp8, &mut known.gemm_fp8),
        attention: share("attention", default.attention, &mut known.attention),
        elementwise: share("elementwise", default.elementwise, &mut known.elementwise),
        step_overhead_s: time(
            "step_overhead",
            default.step_overhead_s,
            SECOND,
            &mut known.step_overhead,
        ),
        sequence_overhead_s: time(
            "sequence_overhead",
            default.sequence_overhead_s,
            MILLISECOND,
            &mut known.sequence_overhead,
        ),
        layer_overhead_s: time(
            "layer_overhead",
            default.layer_overhead_s,
            10 * MILLISECOND,
            &mut known.layer_overhead,
        ),
        kernel_overhead_s: time(
            "kernel_overhead",
            default.kernel_overhead_s,
            MILLISECOND,
            &mut known.kernel_overhead,
        ),
        host_launch_s: time(
            "host_launch",
            default.host_launch_s,
            SECOND,
            &mut known.host_launch,
        ),
    };
    (efficiency, spread)
}

/// A figure, whose deviation is none if it is written.
fn said(figure: Setting<f64>, spread: &mut f64) -> f64 {
    if figure.is_written() {
        *spread = 0.0;
    }
    figure.value
}

fn no_roofline(reader: &Reader<'_>, hardware: &Hardware, error: &RooflineError) -> Problem {
    let problem = Problem::new("scenario::step_time", format!("no step times: {error}"))
        .at_if_written(hardware.gpu.place, "this GPU");
    let problem = match error {
        RooflineError::NoFp8 => problem
            .at_if_written(hardware.precision.place, "this precision")
            .help("write `precision = \"bf16\"`, or choose a GPU from h100 on"),
        _ => problem
            .at_if_written(hardware.world_size.place, "this world size")
            .help("choose a world size of 1, 2, 4 or 8 that divides the model's heads"),
    };
    problem.at_if_written(reader.place(), "for this model of step times")
}

fn no_file(reader: &Reader<'_>, kind: Option<Place>, file_is_sound: bool) -> Problem {
    if !file_is_sound {
        // The reader has said what is wrong with it; this adds where it is used.
        return Problem::new("scenario::step_time", "the profile's file is not known")
            .at_if_written(kind, "a profile is read from a file")
            .help("for example `file = \"profile.json\"`");
    }
    Problem::new("scenario::missing", "`[step_time]` has no `file`")
        .at(
            kind.unwrap_or(reader.place_or_start()),
            "a profile is read from a file",
        )
        .help("for example `file = \"profile.json\"`")
}
