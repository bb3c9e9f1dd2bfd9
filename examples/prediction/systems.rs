//! What is measured and predicted: engines, with their limits, their scenarios and their traffic.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::program::Server;

/// Prompts and answers, as a scenario writes their lengths.
pub(crate) struct Mix {
    pub(crate) prompt_tokens: &'static str,
    pub(crate) output_tokens: &'static str,
    /// Means, for the closed loop that finds the capacity.
    pub(crate) prompt_mean: u32,
    pub(crate) output_mean: u32,
}

/// An engine that is served.
pub(crate) struct System {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    serve: &'static [&'static str],
    /// The tables of its scenario, but its traffic and its step times; `BLOCKS` is how many KV blocks it has.
    tables: &'static str,
    /// Whether the server reads the scenario.
    serves_scenario: bool,
    /// Arguments of `calibrate engine`; none of an engine that takes its step times from a model.
    pub(crate) inside: Option<&'static [&'static str]>,
    /// Arguments of `calibrate endpoint`.
    pub(crate) outside: &'static [&'static str],
    /// What most runs ask for.
    pub(crate) mix: Mix,
    /// What one run asks for instead.
    pub(crate) other_mix: Mix,
    /// As many clients keep it busy.
    pub(crate) clients: u32,
    /// Requests of the run that finds the capacity.
    pub(crate) capacity_requests: u32,
}

/// What a scenario has to know of a server.
pub(crate) struct Limits {
    num_blocks: u64,
}

/// SmolLM2-135M in bfloat16, with random weights, on one thread: the other core is the load generator's.
pub(crate) fn cpu() -> System {
    System {
        name: "cpu",
        title: "our engine on the CPU: SmolLM2-135M, bf16, one thread",
        serve: &[
            "--dummy=smollm2-135m",
            "--backend=cpu",
            "--threads=1",
            "--block-size=16",
            "--max-num-seqs=16",
            "--max-batched-tokens=256",
            "--max-model-len=1024",
            "--kv-cache-memory=1GiB",
            "--no-prefix-caching",
        ],
        tables: r#"
[deployment]
model = "smollm2-135m"
gpu = "cpu"
world_size = 1
max_model_len = 1024
min_replica_count = 1
max_replica_count = 1

[autoscaler]
policy = "fixed"

[batching]
max_num_seqs = 16
max_num_batched_tokens = 256
block_size = 16
num_blocks = BLOCKS
prefix_caching = false
"#,
        serves_scenario: false,
        inside: Some(&[
            "--dummy=smollm2-135m",
            "--backend=cpu",
            "--threads=1",
            "--block-size=16",
            "--max-num-seqs=16",
            "--max-batched-tokens=256",
            "--max-model-len=1024",
        ]),
        outside: &["--concurrency-max=16", "--prompt-tokens-max=512"],
        mix: Mix {
            prompt_tokens: "{ log_normal = { mean = 48, cv = 0.7 }, max = 250 }",
            output_tokens: "{ log_normal = { mean = 24, cv = 0.7 }, max = 120 }",
            prompt_mean: 48,
            output_mean: 24,
        },
        other_mix: Mix {
            prompt_tokens: "{ log_normal = { mean = 128, cv = 0.7 }, max = 700 }",
            output_tokens: "{ log_normal = { mean = 12, cv = 0.7 }, max = 60 }",
            prompt_mean: 128,
            output_mean: 12,
        },
        clients: 16,
        capacity_requests: 150,
    }
}

/// Llama-3-8B on a GPU, with random weights.
pub(crate) fn cuda() -> System {
    System {
        name: "cuda",
        title: "our engine on a GPU: Llama-3-8B, bf16",
        serve: &[
            "--dummy=llama-3-8b",
            "--backend=cuda",
            "--block-size=64",
            "--max-num-seqs=64",
            "--max-batched-tokens=2048",
            "--max-model-len=8192",
            "--no-prefix-caching",
        ],
        tables: r#"
[deployment]
model = "llama-3-8b"
gpu = "h200"
world_size = 1
max_model_len = 8192
min_replica_count = 1
max_replica_count = 1

[autoscaler]
policy = "fixed"

[batching]
max_num_seqs = 64
max_num_batched_tokens = 2048
block_size = 64
num_blocks = BLOCKS
prefix_caching = false
"#,
        inside: Some(&[
            "--dummy=llama-3-8b",
            "--backend=cuda",
            "--block-size=64",
            "--max-num-seqs=64",
            "--max-batched-tokens=2048",
            "--max-model-len=8192",
        ]),
        outside: &["--concurrency-max=64", "--shape=llama-3-8b", "--gpu=h200"],
        serves_scenario: false,
        ..emulated()
    }
}

/// Llama-3-8B on an emulated H100: all is real but the device.
pub(crate) fn emulated() -> System {
    System {
        name: "emulated",
        title: "the emulated backend: Llama-3-8B on one H100",
        serve: &["--backend=emulated"],
        tables: r#"
[deployment]
model = "llama-3-8b"
gpu = "h100"
world_size = 1
min_replica_count = 1
max_replica_count = 1

[autoscaler]
policy = "fixed"

[batching]
max_num_seqs = 64
max_num_batched_tokens = 2048
"#,
        serves_scenario: true,
        inside: None,
        outside: &["--concurrency-max=64", "--shape=llama-3-8b", "--gpu=h100"],
        mix: Mix {
            prompt_tokens: "{ log_normal = { mean = 512, cv = 1.0 }, max = 4000 }",
            output_tokens: "{ log_normal = { mean = 128, cv = 0.8 }, max = 600 }",
            prompt_mean: 512,
            output_mean: 128,
        },
        other_mix: Mix {
            prompt_tokens: "{ log_normal = { mean = 1500, cv = 0.7 }, max = 6000 }",
            output_tokens: "{ log_normal = { mean = 48, cv = 0.8 }, max = 300 }",
            prompt_mean: 1500,
            output_mean: 48,
        },
        clients: 64,
        capacity_requests: 600,
    }
}

impl System {
    /// Arguments of `serve`; a scenario that it takes is written first.
    pub(crate) fn serve_arguments(&self, folder: &Path) -> Result<Vec<String>> {
        let mut arguments: Vec<String> = self.serve.iter().map(|text| (*text).to_owned()).collect();
        if self.serves_scenario {
            let file = folder.join("served.toml");
            let traffic = "[workload]\nduration = \"1s\"\narrivals = { rate_per_s = 1.0 }\n\
                           prompt_tokens = 1\noutput_tokens = 1\n";
            fs::write(&file, format!("{}\n{traffic}", self.tables))?;
            arguments.push(format!("--scenario={}", file.display()));
        }
        Ok(arguments)
    }

    /// What the running server says of itself.
    pub(crate) fn limits(&self, server: &Server) -> Result<Limits> {
        Ok(Limits {
            num_blocks: server.metric("foresail_kv_blocks")? as u64,
        })
    }

    /// Its tables for a server of these limits.
    pub(crate) fn tables(&self, limits: &Limits) -> String {
        self.tables
            .replace("BLOCKS", &limits.num_blocks.to_string())
    }
}
