//! What a page of metrics says of a server, whichever server it is.
//!
//! Names are tried in the order of the lists below; the first that the page has
//! counts. Where they come from:
//! - vLLM V1: `vllm/v1/metrics/loggers.py` (0.11; `prometheus_client` appends `_total` to counters). `gpu_cache_usage_perc`
//!   and `gpu_prefix_cache_*` are what versions before 0.9.2 say.
//! - foresail: vLLM's names, and those that begin with `foresail_` (`engine/src/server/metrics`).
//! - SGLang: `python/sglang/srt/metrics/collector.py`.
//! - NVIDIA's exporter of GPU metrics: `etc/default-counters.csv` of NVIDIA/dcgm-exporter.

use std::collections::BTreeMap;

use foresail_core::time::Nanos;

use super::exposition::Sample;
use super::selector::Selector;

const RUNNING: &[&str] = &["vllm:num_requests_running", "sglang:num_running_reqs"];
const WAITING: &[&str] = &["vllm:num_requests_waiting", "sglang:num_queue_reqs"];
const KV_USAGE: &[&str] = &[
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "sglang:token_usage",
];
const PROMPT_TOKENS: &[&str] = &["vllm:prompt_tokens_total", "sglang:prompt_tokens_total"];
const GENERATION_TOKENS: &[&str] = &[
    "vllm:generation_tokens_total",
    "sglang:generation_tokens_total",
];
const PREEMPTIONS: &[&str] = &[
    "vllm:num_preemptions_total",
    "sglang:num_retracted_requests_total",
];
/// SGLang looks every prompt token up and has no counter of its own for that.
const CACHE_QUERIES: &[&str] = &[
    "vllm:prefix_cache_queries_total",
    "vllm:gpu_prefix_cache_queries_total",
    "sglang:prompt_tokens_total",
];
const CACHE_HITS: &[&str] = &[
    "vllm:prefix_cache_hits_total",
    "vllm:gpu_prefix_cache_hits_total",
    "sglang:cached_tokens_total",
];
const CACHE_HIT_RATE: &[&str] = &["sglang:cache_hit_rate"];
const GENERATION_RATE: &[&str] = &["sglang:gen_throughput"];
const BUSY_S: &[&str] = &["foresail_step_seconds_sum"];
const READY: &[&str] = &["foresail_ready"];

const GPU_UTILISATION: &str = "DCGM_FI_DEV_GPU_UTIL";
const GPU_MEMORY_USED_MIB: &str = "DCGM_FI_DEV_FB_USED";
const GPU_POWER_W: &str = "DCGM_FI_DEV_POWER_USAGE";

const MIB: f64 = 1_048_576.0;

/// What DCGM says where it knows nothing: this or more (`DCGM_INT32_BLANK`, the
/// smallest of its blanks, in `dcgm_structs.h`).
const DCGM_BLANK: f64 = 2_147_483_632.0;

/// With these labels SGLang tells ranks of one scheduler apart, each of which says
/// the same (`--enable-metrics-for-all-schedulers`). Ranks of data parallelism have
/// schedulers of their own; their label is not among these.
const RANKS_THAT_REPEAT: [&str; 3] = ["tp_rank", "pp_rank", "moe_ep_rank"];

/// What a server said at one time. What it does not tell, or not as a number that can be, is `None`.
///
/// Of a server with several schedulers (data parallelism) counts are added and shares averaged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerSample {
    /// When the page had arrived.
    pub at_ns: Nanos,
    /// Requests in the batch.
    pub running: Option<u64>,
    /// Requests that wait for a place in the batch.
    pub waiting: Option<u64>,
    /// Share of the KV cache that is held; 1 is all.
    pub kv_usage: Option<f64>,
    /// Prompt tokens since the server started.
    pub prompt_tokens_total: Option<u64>,
    /// Tokens generated since the server started.
    pub generation_tokens_total: Option<u64>,
    /// Times that a request lost its KV blocks to another since the server started.
    pub preemptions_total: Option<u64>,
    /// Tokens looked for in the prefix cache since the server started.
    pub cache_queries_total: Option<u64>,
    /// Those of them that were there.
    pub cache_hits_total: Option<u64>,
    /// Share of tokens lately found in the prefix cache, as the server reckons it (SGLang).
    pub cache_hit_rate: Option<f64>,
    /// Tokens generated a second lately, as the server reckons it (SGLang).
    pub generation_tokens_per_s: Option<f64>,
    /// Seconds with a step in flight since the server started (foresail).
    pub busy_s_total: Option<f64>,
    /// Whether it takes requests (foresail); a server that does not say takes them as soon as it answers.
    pub is_ready: Option<bool>,
    /// Replicas, by the metric that was named for it.
    pub replicas: Option<u32>,
    /// GPUs, in the order of their names.
    pub gpus: Vec<GpuSample>,
}

/// What NVIDIA's exporter says of a GPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuSample {
    /// The GPU's UUID, or its number where there is none; of a part of a GPU (MIG), with `/` and the part.
    pub name: String,
    /// Share of the time that something ran on it.
    pub utilisation: Option<f64>,
    /// Memory in use (bytes).
    pub memory_used_bytes: Option<u64>,
    /// Power drawn (W).
    pub power_w: Option<f64>,
}

impl ServerSample {
    /// What a page says.
    #[must_use]
    pub fn of(page: &[Sample<'_>], at_ns: Nanos, replicas: Option<&Selector>) -> Self {
        let total = |names| sum(page, names).and_then(whole);
        Self {
            at_ns,
            running: total(RUNNING),
            waiting: total(WAITING),
            kv_usage: mean(page, KV_USAGE).filter(|share| is_amount(*share)),
            prompt_tokens_total: total(PROMPT_TOKENS),
            generation_tokens_total: total(GENERATION_TOKENS),
            preemptions_total: total(PREEMPTIONS),
            cache_queries_total: total(CACHE_QUERIES),
            cache_hits_total: total(CACHE_HITS),
            cache_hit_rate: mean(page, CACHE_HIT_RATE).filter(|rate| is_amount(*rate)),
            generation_tokens_per_s: sum(page, GENERATION_RATE).filter(|rate| is_amount(*rate)),
            busy_s_total: sum(page, BUSY_S).filter(|time| is_amount(*time)),
            is_ready: sum(page, READY).map(|ready| ready > 0.0),
            replicas: replicas.and_then(|selector| replica_count(page, selector)),
            gpus: gpus(page),
        }
    }

    /// Whether this is a server of a model, rather than an exporter beside one.
    #[must_use]
    pub fn is_of_a_server(&self) -> bool {
        self.running.is_some() || self.generation_tokens_total.is_some() || self.is_ready.is_some()
    }
}

/// The values of the first of these names that the page has, one a scheduler.
fn values(page: &[Sample<'_>], names: &[&str]) -> Vec<f64> {
    let of = |name: &str| one_a_scheduler(page.iter().filter(|sample| sample.name == name));
    let found = names.iter().map(|name| of(name));
    found
        .into_iter()
        .find(|values| !values.is_empty())
        .unwrap_or_default()
}

fn one_a_scheduler<'a>(samples: impl Iterator<Item = &'a Sample<'a>>) -> Vec<f64> {
    let mut schedulers = BTreeMap::new();
    for sample in samples {
        let mut labels: Vec<(&str, &str)> = sample
            .labels
            .iter()
            .map(|(name, value)| (*name, value.as_ref()))
            .filter(|(name, _)| !RANKS_THAT_REPEAT.contains(name))
            .collect();
        labels.sort_unstable();
        schedulers.entry(labels).or_insert(sample.value);
    }
    schedulers.into_values().collect()
}

fn sum(page: &[Sample<'_>], names: &[&str]) -> Option<f64> {
    let values = values(page, names);
    (!values.is_empty()).then(|| values.iter().sum())
}

fn mean(page: &[Sample<'_>], names: &[&str]) -> Option<f64> {
    let values = values(page, names);
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn replica_count(page: &[Sample<'_>], selector: &Selector) -> Option<u32> {
    let chosen = page.iter().filter(|sample| selector.chooses(sample));
    let values: Vec<f64> = chosen.map(|sample| sample.value).collect();
    let sum = (!values.is_empty()).then(|| values.iter().sum())?;
    u32::try_from(whole(sum)?).ok()
}

/// An amount that is a count; counters are exact up to 2^53.
fn whole(value: f64) -> Option<u64> {
    is_amount(value).then_some(value.round() as u64)
}

fn is_amount(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

fn gpus(page: &[Sample<'_>]) -> Vec<GpuSample> {
    let mut gpus: BTreeMap<String, GpuSample> = BTreeMap::new();
    for sample in page {
        let is_of_gpu = [GPU_UTILISATION, GPU_MEMORY_USED_MIB, GPU_POWER_W].contains(&sample.name);
        let Some(name) = is_of_gpu.then(|| gpu_name(sample)).flatten() else {
            continue;
        };
        let value = Some(sample.value).filter(|value| is_amount(*value) && *value < DCGM_BLANK);
        let gpu = gpus.entry(name).or_default();
        match sample.name {
            GPU_UTILISATION => gpu.utilisation = value.map(|percent| percent / 100.0),
            GPU_MEMORY_USED_MIB => {
                gpu.memory_used_bytes = value.and_then(|mib| whole(mib * MIB));
            }
            _ => gpu.power_w = value,
        }
    }
    let named = gpus
        .into_iter()
        .map(|(name, gpu)| GpuSample { name, ..gpu });
    named.collect()
}

fn gpu_name(sample: &Sample<'_>) -> Option<String> {
    let gpu = sample.label("UUID").or_else(|| sample.label("gpu"))?;
    Some(match sample.label("GPU_I_ID") {
        Some(part) if !part.is_empty() => format!("{gpu}/{part}"),
        _ => gpu.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::exposition::parse;
    use super::*;

    fn read(page: &str) -> ServerSample {
        ServerSample::of(&parse(page).expect("a page"), 7, None)
    }

    #[test]
    fn a_page_of_foresail_is_understood() {
        // As `foresail serve` writes it.
        let page = r#"vllm:num_requests_running{model_name="m",engine="0"} 3
vllm:num_requests_waiting{model_name="m",engine="0"} 1
vllm:kv_cache_usage_perc{model_name="m",engine="0"} 0.25
vllm:gpu_cache_usage_perc{model_name="m",engine="0"} 0.25
vllm:num_preemptions_total{model_name="m",engine="0"} 2
vllm:prompt_tokens_total{model_name="m",engine="0"} 4096
vllm:generation_tokens_total{model_name="m",engine="0"} 1234
vllm:prefix_cache_queries_total{model_name="m",engine="0"} 4096
vllm:prefix_cache_hits_total{model_name="m",engine="0"} 1024
foresail_step_seconds_bucket{model_name="m",engine="0",le="+Inf"} 90
foresail_step_seconds_sum{model_name="m",engine="0"} 1.5
foresail_step_seconds_count{model_name="m",engine="0"} 90
foresail_ready{model_name="m",engine="0"} 1
"#;
        let expected = ServerSample {
            at_ns: 7,
            running: Some(3),
            waiting: Some(1),
            kv_usage: Some(0.25),
            prompt_tokens_total: Some(4096),
            generation_tokens_total: Some(1234),
            preemptions_total: Some(2),
            cache_queries_total: Some(4096),
            cache_hits_total: Some(1024),
            busy_s_total: Some(1.5),
            is_ready: Some(true),
            ..ServerSample::default()
        };
        assert_eq!(read(page), expected);
    }

    #[test]
    fn engines_of_data_parallel_vllm_are_added_and_shares_averaged() {
        let page = r#"vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.4
vllm:generation_tokens_total{engine="0",model_name="m"} 1.5e+06
vllm:generation_tokens_total{engine="1",model_name="m"} 1.0
"#;
        let sample = read(page);
        assert_eq!(sample.running, Some(8));
        assert_eq!(sample.generation_tokens_total, Some(1_500_001));
        let usage = sample.kv_usage.expect("it is told");
        assert!((usage - 0.3).abs() < 1e-12, "{usage}");
        assert_eq!(sample.is_ready, None);
        assert!(sample.is_of_a_server());
    }

    #[test]
    fn older_vllm_has_other_names() {
        let page = "vllm:num_requests_running 0\nvllm:gpu_cache_usage_perc 0.5\n\
            vllm:gpu_prefix_cache_queries_total 100\nvllm:gpu_prefix_cache_hits_total 25\n";
        let sample = read(page);
        assert_eq!(sample.kv_usage, Some(0.5));
        assert_eq!(sample.cache_queries_total, Some(100));
        assert_eq!(sample.cache_hits_total, Some(25));
    }

    #[test]
    fn ranks_of_one_scheduler_of_sglang_count_once() {
        let page = r#"sglang:num_running_reqs{dp_rank="0",tp_rank="0",pp_rank="0"} 4
sglang:num_running_reqs{dp_rank="0",tp_rank="1",pp_rank="0"} 4
sglang:num_running_reqs{dp_rank="1",tp_rank="2",pp_rank="0"} 6
sglang:num_queue_reqs{tp_rank="0"} 2
sglang:token_usage{tp_rank="0"} 0.28
sglang:gen_throughput{tp_rank="0"} 86.5
sglang:cache_hit_rate{tp_rank="0"} 0.0075
sglang:prompt_tokens_total{model_name="m"} 8.128902e+06
sglang:generation_tokens_total{model_name="m"} 7.557572e+06
sglang:cached_tokens_total{model_name="m",cache_source="device"} 10
sglang:cached_tokens_total{model_name="m",cache_source="host"} 5
"#;
        let sample = read(page);
        assert_eq!(sample.running, Some(10));
        assert_eq!(sample.waiting, Some(2));
        assert_eq!(sample.kv_usage, Some(0.28));
        assert_eq!(sample.generation_tokens_per_s, Some(86.5));
        assert_eq!(sample.cache_hit_rate, Some(0.0075));
        assert_eq!(sample.prompt_tokens_total, Some(8_128_902));
        assert_eq!(sample.cache_queries_total, Some(8_128_902));
        assert_eq!(sample.cache_hits_total, Some(15));
    }

    #[test]
    fn gpus_are_told_apart_and_blanks_are_not_values() {
        let page = r#"DCGM_FI_DEV_GPU_UTIL{gpu="1", UUID="GPU-b"} 40
DCGM_FI_DEV_GPU_UTIL{gpu="0", UUID="GPU-a"} 95
DCGM_FI_DEV_FB_USED{gpu="0", UUID="GPU-a"} 2
DCGM_FI_DEV_FB_USED{gpu="1", UUID="GPU-b"} 9223372036854775794
DCGM_FI_DEV_POWER_USAGE{gpu="0", UUID="GPU-a"} 312.5
DCGM_FI_DEV_FB_USED{gpu="1", UUID="GPU-b", GPU_I_ID="7"} 1
"#;
        let sample = read(page);
        assert!(!sample.is_of_a_server());
        insta::assert_debug_snapshot!(sample.gpus, @r#"
        [
            GpuSample {
                name: "GPU-a",
                utilisation: Some(
                    0.95,
                ),
                memory_used_bytes: Some(
                    2097152,
                ),
                power_w: Some(
                    312.5,
                ),
            },
            GpuSample {
                name: "GPU-b",
                utilisation: Some(
                    0.4,
                ),
                memory_used_bytes: None,
                power_w: None,
            },
            GpuSample {
                name: "GPU-b/7",
                utilisation: None,
                memory_used_bytes: Some(
                    1048576,
                ),
                power_w: None,
            },
        ]
        "#);
    }

    #[test]
    fn what_cannot_be_is_not_known() {
        let page = "vllm:num_requests_running -1\nvllm:num_requests_waiting NaN\nvllm:kv_cache_usage_perc +Inf\n";
        let expected = ServerSample {
            at_ns: 7,
            ..ServerSample::default()
        };
        assert_eq!(read(page), expected);
    }

    #[test]
    fn replicas_are_counted_by_the_metric_that_was_named() {
        let page = r#"kube_deployment_status_replicas_available{namespace="a",deployment="llm"} 3
kube_deployment_status_replicas_available{namespace="a",deployment="web"} 40
"#;
        let page = parse(page).expect("a page");
        let count = |selector: &str| {
            let selector: Selector = selector.parse().expect("a selector");
            ServerSample::of(&page, 0, Some(&selector)).replicas
        };
        let name = "kube_deployment_status_replicas_available";
        assert_eq!(count(&format!("{name}{{deployment=\"llm\"}}")), Some(3));
        assert_eq!(count(name), Some(43));
        assert_eq!(count("absent"), None);
    }
}
