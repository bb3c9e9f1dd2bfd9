//! The roofline against measurements that others published.
//!
//! Most of these were fitted, if only a little: Hopper's three overheads are one fit to six engines, of which
//! the sweeps and steps below are five, each a sixth of it (`gpus.rs`), with all other figures from kernels. Ampere's
//! were fitted to Argonne's batches. So these bounds hold the model to what it was when it was fitted; how far it is off
//! what it never saw is in `docs/accuracy.md`.
//!
//! Run with `--nocapture` to see the tables of errors.

use super::shapes::*;
use super::*;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

const BF16: Precision = Precision::Bf16;

/// A file of the shared ground truth, or `None`, loudly, where there is none.
fn ground_truth(name: &str) -> Option<Vec<BTreeMap<String, String>>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("FORESAIL_SHARED").map_or(beside, PathBuf::from);
    let path = shared.join("data/groundtruth").join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        // Past the capture of the test harness: a test that is skipped must be seen.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {} is absent; set FORESAIL_SHARED to the folder of recorded data",
            path.display()
        );
        return None;
    };
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
    let header: Vec<String> = lines.next().expect("a header").collect();
    Some(
        lines
            .map(|cells| header.iter().cloned().zip(cells).collect())
            .collect(),
    )
}

#[expect(clippy::print_stderr, reason = "`--nocapture` shows the errors")]
fn say(text: &str) {
    eprintln!("{text}");
}

fn number<T: std::str::FromStr>(row: &BTreeMap<String, String>, key: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    row[key]
        .parse()
        .unwrap_or_else(|error| panic!("{key}: {error:?} in {row:?}"))
}

/// Relative errors by what they belong to.
#[derive(Default)]
struct Errors(BTreeMap<String, Vec<f64>>);

impl Errors {
    fn add(&mut self, group: String, predicted: f64, measured: f64) {
        self.0
            .entry(group)
            .or_default()
            .push(predicted / measured - 1.0);
    }

    /// Prints each group's errors, and fails where their mean magnitude is above its bound.
    fn check(&self, title: &str, bound: impl Fn(&str) -> f64) {
        say(&format!(
            "{title}: rows, mean error, mean |error|, largest |error|"
        ));
        for (group, errors) in &self.0 {
            let count = errors.len() as f64;
            let mean = errors.iter().sum::<f64>() / count;
            let magnitude = errors.iter().map(|error| error.abs()).sum::<f64>() / count;
            let largest = errors
                .iter()
                .fold(0.0, |largest: f64, error| largest.max(error.abs()));
            let [mean, magnitude_percent, largest] =
                [mean, magnitude, largest].map(|share| 100.0 * share);
            let rows = errors.len();
            say(&format!(
                "  {group:40} {rows:4} {mean:+6.1} % {magnitude_percent:5.1} % {largest:5.1} %"
            ));
            assert!(magnitude <= bound(group), "{group}: {magnitude_percent} %");
        }
    }
}

/// Mean time per output token of clients that each send the next request
/// when the last is answered (s), as the benchmarks behind the data do.
///
/// Chunks of up to 8192 tokens a step (vLLM's and TensorRT-LLM's default for
/// servers) join the decoding sequences; the first round is left out.
fn closed_loop_tpot(model: &impl StepTime, clients: u32, prompt: u32, output: u32) -> f64 {
    const BUDGET: u32 = 8192;
    const ROUNDS: u32 = 3;
    struct Client {
        computed: u32,
        tokens: u32,
        round: u32,
        first_token_at: Picos,
    }
    let start = || Client {
        computed: 0,
        tokens: 0,
        round: 0,
        first_token_at: 0,
    };
    let mut all: Vec<Client> = (0..clients).map(|_| start()).collect();
    let (mut now, mut decode_time, mut answers) = (0, 0, 0);
    while answers < clients * (ROUNDS - 1) {
        let (mut decodes, mut decode_past, mut chunks) = (0, 0, Vec::new());
        let mut budget = BUDGET;
        for client in all.iter().filter(|client| client.tokens > 0) {
            decodes += 1;
            budget -= 1;
            decode_past += u64::from(prompt + client.tokens - 1);
        }
        let mut chunk_of: Vec<u32> = vec![0; all.len()];
        for (client, len) in all
            .iter()
            .zip(&mut chunk_of)
            .filter(|(client, _)| client.tokens == 0)
        {
            *len = budget.min(prompt - client.computed);
            budget -= *len;
            if *len > 0 {
                let sample = client.computed + *len == prompt;
                chunks.push(Chunk {
                    past: client.computed,
                    len: *len,
                    sample,
                });
            }
        }
        now += model.step(&StepLoad {
            decodes,
            decode_past,
            chunks: &chunks,
        });
        for (client, len) in all.iter_mut().zip(chunk_of) {
            client.computed += len;
            if client.tokens == 0 && client.computed == prompt {
                (client.tokens, client.first_token_at) = (1, now);
            } else if client.tokens > 0 {
                client.tokens += 1;
            }
            if client.tokens == output {
                if client.round > 0 {
                    decode_time += now - client.first_token_at;
                    answers += 1;
                }
                *client = Client {
                    round: client.round + 1,
                    ..start()
                };
            }
        }
    }
    decode_time as f64 / 1e12 / f64::from(answers) / f64::from(output - 1)
}

/// The measured time per output token in aiconfigurator's `silicon_sample.csv`,
/// at up to 64 clients. Rows with a time to first token above 5 s are left out:
/// there the cache was full, which a step-time model knows nothing of. The rows of Llama-3.1-70B are
/// InferenceMAX's (SemiAnalysisAI/InferenceX 409e9a4 and 73ef922 `benchmarks/70b_fp8_h200_*.sh`): an fp8 KV cache, lengths evenly
/// between 0.8 and 1 times those given, and TensorRT-LLM told to let prompts of 1024 tokens wait for others on fewer
/// than 8 GPUs, which is left out.
#[test]
fn time_per_output_token_on_hopper() {
    let Some(rows) = ground_truth("aiconfigurator_silicon.csv") else {
        return;
    };
    let mut errors = Errors::default();
    for row in rows {
        let (shape, precision, gpu, name) = match row["model_path"].as_str() {
            "meta-llama/Llama-3.1-8B-Instruct" => (LLAMA_3_8B, BF16, Gpu::h100(), "8B bf16 H100"),
            "meta-llama/Llama-3.1-70B" => {
                (LLAMA_3_70B, Precision::Fp8, Gpu::h200(), "70B fp8 H200")
            }
            _ => continue,
        };
        let source = row["silicon_data_source"]
            .rsplit("silicon_concurrency=")
            .next()
            .unwrap();
        let digits: String = source.chars().take_while(char::is_ascii_digit).collect();
        let clients: u32 = digits.parse().unwrap();
        if clients > 64 || number::<f64>(&row, "silicon_ttft_ms") > 5000.0 {
            continue;
        }
        let engine = row["backend"].as_str();
        let world_size: u32 = number(&row, "tp_size");
        let [mut prompt, mut output] = ["isl", "osl"].map(|key| number::<u32>(&row, key));
        if precision == Precision::Fp8 {
            if engine == "trtllm" && (prompt, output) == (1024, 1024) && world_size < 8 {
                continue;
            }
            (prompt, output) = (prompt * 9 / 10, output * 9 / 10);
        }
        let model = Roofline::new(&shape, precision, precision, &gpu, world_size, 64).unwrap();
        let tpot = closed_loop_tpot(&model, clients, prompt, output);
        let measured: f64 = number(&row, "silicon_tpot_ms");
        errors.add(
            format!("{name} {engine} world size {world_size}"),
            tpot * 1e3,
            measured,
        );
    }
    assert_eq!(
        errors.0.values().map(Vec::len).sum::<usize>(),
        245,
        "rows compared"
    );
    errors.check("time per output token", |group| {
        match group.rsplit(' ').next() {
            Some("1") => 0.1,
            Some("8") => 0.135,
            _ => 0.115,
        }
    });
}

/// Argonne's LLM-Inference-Bench: a whole batch of prompts, then a whole batch of
/// answers of the same length, on A100 with 40 GB. Its engines are of 2024.
#[test]
fn whole_batches_on_a100() {
    let Some(rows) = ground_truth("argonne_llm_inference_bench.csv") else {
        return;
    };
    let mut errors = Errors::default();
    for row in rows
        .iter()
        .filter(|row| row["Hardware"] == "Nvidia A100 GPU")
    {
        let shape = match row["Model"].as_str() {
            "meta-llama/Llama-2-7b-hf" => LLAMA_2_7B,
            "meta-llama/Meta-Llama-3-8B" => LLAMA_3_8B,
            "mistralai/Mistral-7B-v0.1" => ModelShape {
                vocab_size: 32000,
                ..LLAMA_3_8B
            },
            _ => continue,
        };
        let engine = row["Framework"].as_str();
        let world_size: u32 = number(row, "Num of Hardware");
        let (length, batch): (u32, u32) = (
            number(row, "Input Output Length"),
            number(row, "Batch Size"),
        );
        let kv_bytes =
            shape.kv_bytes_per_token_per_rank(BF16, world_size) * u64::from(2 * length * batch);
        // Beyond this the engines run the batch in waves.
        let fits = shape.weight_bytes_per_rank(BF16, world_size) + kv_bytes <= 34_000_000_000;
        if !fits || !["vLLM", "TensorRT-LLM"].contains(&engine) {
            continue;
        }
        let gpu = Gpu::a100_40gb();
        let model = Roofline::new(&shape, BF16, BF16, &gpu, world_size, 64).unwrap();
        let chunks = vec![
            Chunk {
                past: 0,
                len: length,
                sample: true
            };
            batch as usize
        ];
        let prefill = model.step(&StepLoad {
            decodes: 0,
            decode_past: 0,
            chunks: &chunks,
        });
        let past = u64::from(batch * length);
        let decode = model.decode(batch, past).leap(batch, past, length - 1);
        let predicted = (prefill + decode) as f64 / 1e12;
        errors.add(
            format!("{engine} world size {world_size}"),
            predicted,
            number(row, "Latency"),
        );
    }
    assert!(
        errors.0.values().map(Vec::len).sum::<usize>() > 300,
        "rows compared"
    );
    errors.check("whole batches on A100 40 GB", |_| 0.15);
}

/// Inference-perf's sweep of vLLM 0.11 with Llama-3-8B on an H100, as long as it keeps up: one of
/// the six engines that Hopper's overheads were fitted to.
#[test]
fn rate_sweep_on_h100() {
    let Some(rows) = ground_truth("inference_perf_kubecon.csv") else {
        return;
    };
    let mut errors = Errors::default();
    let model = Roofline::new(&LLAMA_3_8B, BF16, BF16, &Gpu::h100(), 1, 192).unwrap();
    for row in rows
        .iter()
        .filter(|row| number::<f64>(row, "ttft_mean_ms") < 100.0)
    {
        let [rate, e2e_ms, prompt, output] =
            ["req_per_s", "e2e_mean_ms", "isl", "osl"].map(|key| number::<f64>(row, key).max(1.0));
        // Little's law gives the clients of a closed loop with the same rate.
        let clients = (rate * e2e_ms / 1e3).round().max(1.0) as u32;
        let tpot = closed_loop_tpot(
            &model,
            clients,
            prompt.round() as u32,
            output.round() as u32,
        );
        errors.add(
            "8B bf16 H100 vllm".into(),
            tpot * 1e3,
            number(row, "tpot_mean_ms"),
        );
    }
    errors.check("time per output token of a rate sweep", |_| 0.15);
}

/// Single steps of vLLM with Llama-2-70B on four H100 (BLIS), those that only decode: one of the six
/// engines that Hopper's overheads were fitted to. A step's time is from its start to the
/// next one's, so that a few hold idle time: their median is compared.
#[test]
fn single_steps_on_h100() {
    let Some(rows) = ground_truth("blis_steps.csv") else {
        return;
    };
    let model = Roofline::new(&LLAMA_2_70B, BF16, BF16, &Gpu::h100(), 4, 256).unwrap();
    let mut ratios: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for row in &rows {
        let measured_us = row["next_step_start_dt_us"].parse::<f64>();
        let (Ok(measured_us), "0") = (measured_us, row["num_prefill_reqs"].as_str()) else {
            continue;
        };
        let batch: u32 = number(row, "num_decode_reqs");
        let blocks =
            number::<f64>(row, "kv_usage_gpu_ratio") * number::<f64>(row, "kv_blocks_total_gpu");
        // A block holds 16 tokens, and the last of each sequence is half full on average.
        let past = (16.0 * blocks - 8.0 * f64::from(batch)).max(0.0) as u64;
        if (8..128).contains(&batch) {
            let predicted_us = model.decode(batch, past).at(past) as f64 / 1e6;
            ratios
                .entry(batch / 32 * 32)
                .or_default()
                .push(predicted_us / measured_us);
        }
    }
    for (batch, ratios) in &mut ratios {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        let last = batch + 31;
        say(&format!(
            "steps of {batch} to {last}: {} rows, predicted / measured {median:.3}",
            ratios.len()
        ));
        assert!((0.8..1.2).contains(&median), "{batch}: {median}");
    }
    assert!(!ratios.is_empty());
}

/// Sums of measured kernels on an H200 (aiconfigurator 095f58a; cuBLAS and FA3
/// in vLLM 0.22): four products a layer, attention and the output projection,
/// Llama-3-8B bf16 at 1024 tokens of context. The model adds the small kernels
/// and the host's share, so it lies above, but not far.
#[test]
fn decode_on_h200_is_the_measured_kernels_and_a_little() {
    let model = Roofline::new(&LLAMA_3_8B, BF16, BF16, &Gpu::h200(), 1, 256).unwrap();
    let efficiency = Gpu::h200().efficiency;
    let host = |batch: u32| {
        1e3 * (efficiency.step_overhead_s + efficiency.sequence_overhead_s * f64::from(batch))
    };
    for (batch, kernels_ms) in [
        (1, 4.47),
        (8, 4.51),
        (32, 5.50),
        (64, 6.77),
        (128, 9.27),
        (256, 15.76),
    ] {
        let past = 1024 * u64::from(batch);
        let step_ms = model.decode(batch, past).at(past) as f64 / 1e9 - host(batch);
        let error = step_ms / kernels_ms - 1.0;
        say(&format!(
            "decode, batch {batch}: {step_ms:.2} ms without the host, kernels {kernels_ms} ms, {error:+.3}"
        ));
        assert!(
            (-0.05..0.15).contains(&error),
            "batch {batch}: {step_ms} ms against {kernels_ms} ms"
        );
    }
}

/// The same sums for a prompt: 40.6 (SGLang) to 44.5 ms (vLLM) for 2048 tokens,
/// 186 (TensorRT-LLM) to 200 ms (vLLM) for 8192. The small kernels come on top.
#[test]
fn prefill_on_h200_is_near_the_measured_kernels() {
    let model = Roofline::new(&LLAMA_3_8B, BF16, BF16, &Gpu::h200(), 1, 256).unwrap();
    for (len, range) in [(512, 10.8..14.5), (2048, 41.0..50.0), (8192, 186.0..216.0)] {
        let chunks = [Chunk {
            past: 0,
            len,
            sample: true,
        }];
        let step_ms = model.step(&StepLoad {
            decodes: 0,
            decode_past: 0,
            chunks: &chunks,
        }) as f64
            / 1e9;
        say(&format!("prefill of {len}: {step_ms:.1} ms"));
        assert!(range.contains(&step_ms), "{len} tokens: {step_ms} ms");
    }
}

/// Time per output token at world size 1 over that at 2, 4 and 8, measured by
/// aiconfigurator: Llama-3.1-70B fp8, H200, vLLM, 1024 tokens in and out; and
/// Llama-3.1-8B, H100, TensorRT-LLM, 1024 in and 512 out.
#[test]
fn world_size_speeds_up_as_measured() {
    let cases = [
        (
            LLAMA_3_70B,
            Precision::Fp8,
            Gpu::h200(),
            4,
            1024,
            [1.54, 2.18, 2.71],
        ),
        (
            LLAMA_3_70B,
            Precision::Fp8,
            Gpu::h200(),
            64,
            1024,
            [1.65, 2.33, 2.94],
        ),
        (LLAMA_3_8B, BF16, Gpu::h100(), 32, 512, [1.49, 1.92, 2.26]),
    ];
    for (shape, precision, gpu, clients, output, measured) in cases {
        let tpot = |world_size| {
            let model = Roofline::new(&shape, precision, BF16, &gpu, world_size, 64).unwrap();
            closed_loop_tpot(&model, clients, 1024, output)
        };
        for (world_size, measured) in [2, 4, 8].into_iter().zip(measured) {
            let speed_up = tpot(1) / tpot(world_size);
            say(&format!(
                "{clients} clients, world size {world_size}: {speed_up:.2} times, measured {measured}"
            ));
            assert!(
                (speed_up / measured - 1.0).abs() < 0.12,
                "{speed_up} against {measured}"
            );
            assert!(speed_up < f64::from(world_size));
        }
    }
}
