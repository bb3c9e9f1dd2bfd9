//! Operators that were measured alone, and what they reach of a GPU's peaks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use foresail_calibration::least_squares::{Matrix, least_squares};
use foresail_core::step_time::Gpu;

use crate::Result;
use crate::case::percentile_of_sorted;
use crate::data::{Data, Row};

/// Bytes of a bf16 value.
const BF16: f64 = 2.0;

/// Prompts from this length on are bound by arithmetic.
const LONG: f64 = 2048.0;

pub(crate) fn text(data: &Data) -> Result<String> {
    let mut text =
        "Operators measured alone: median, 95 % of the values, deviation of the logarithm\n"
            .to_owned();
    for (title, gpu, tables) in [
        (
            "A100 80 GB, Vidur mlp.csv (Llama-2-7B, Llama-2-70B)",
            Gpu::a100_80gb(),
            &[
                "a100/meta-llama/Llama-2-7b-hf",
                "a100/meta-llama/Llama-2-70b-hf",
            ][..],
        ),
        (
            "H100, Vidur mlp.csv (Llama-2-7B)",
            Gpu::h100(),
            &["h100/meta-llama/Llama-2-7b-hf"][..],
        ),
    ] {
        let _ = writeln!(text, "  {title}");
        let mut rows = Vec::new();
        for table in tables {
            rows.extend(data.table(&format!("ops_vidur/compute/{table}/mlp.csv"))?);
        }
        products(&mut text, &rows, &gpu)?;
        small_kernels(&mut text, &rows, &gpu)?;
    }
    attention(&mut text, data)?;
    all_reduce(&mut text, data)?;
    Ok(text)
}

/// What a matrix product reads, by the name of its column.
fn products_of(row: &Row) -> Result<[(&'static str, f64); 4]> {
    let [hidden, heads, kv_heads, expanded, ranks] = [
        "n_embd",
        "n_head",
        "n_kv_head",
        "n_expanded_embd",
        "num_tensor_parallel_workers",
    ]
    .map(|column| row.number::<f64>(column));
    let (hidden, heads, kv_heads, expanded, ranks) =
        (hidden?, heads?, kv_heads?, expanded?, ranks?);
    let width = hidden / heads;
    Ok([
        (
            "attn_pre_proj",
            hidden * width * (heads + 2.0 * kv_heads) / ranks,
        ),
        ("attn_post_proj", hidden * width * heads / ranks),
        ("mlp_up_proj", 2.0 * hidden * expanded / ranks),
        ("mlp_down_proj", hidden * expanded / ranks),
    ])
}

fn products(text: &mut String, rows: &[Row], gpu: &Gpu) -> Result<()> {
    let (mut bytes, mut times, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let tokens: f64 = row.number("num_tokens")?;
        for (name, parameters) in products_of(row)? {
            let time_s = row.number::<f64>(&format!("time_stats.{name}.median"))? / 1e3;
            if tokens == 1.0 {
                bytes.push(BF16 * parameters);
                times.push(time_s);
            } else if tokens >= LONG {
                shares.push(2.0 * parameters * tokens / time_s / gpu.bf16_flops);
            }
        }
    }
    // Each as a share of its own time, as large products would be all that counts otherwise.
    let matrix = Matrix::of(bytes.len(), 2, |row, column| {
        [bytes[row], 1.0][column] / times[row]
    });
    let solution = least_squares(&matrix, &vec![1.0; bytes.len()])?;
    let [per_byte_s, fixed_s] = [solution.values[0], solution.values[1]];
    let off = solution.residual_norm / (bytes.len() as f64 - 2.0).sqrt();
    let _ = writeln!(
        text,
        "    weight_read {:.3}, kernel_overhead {:.2} us ({} products of one token, off by {:.1} %)",
        1.0 / per_byte_s / gpu.memory_bytes_per_s,
        1e6 * fixed_s,
        bytes.len(),
        100.0 * off
    );
    line(text, "gemm", shares);
    Ok(())
}

fn small_kernels(text: &mut String, rows: &[Row], gpu: &Gpu) -> Result<()> {
    const KERNELS: [&str; 5] = [
        "input_layernorm",
        "post_attention_layernorm",
        "attn_rope",
        "mlp_act",
        "add",
    ];
    let mut shares = Vec::new();
    for row in rows {
        let tokens: f64 = row.number("num_tokens")?;
        if tokens < LONG {
            continue;
        }
        let [hidden, heads, kv_heads, expanded, ranks] = [
            "n_embd",
            "n_head",
            "n_kv_head",
            "n_expanded_embd",
            "num_tensor_parallel_workers",
        ]
        .map(|column| row.number::<f64>(column));
        let (hidden, heads, ranks) = (hidden?, heads?, ranks?);
        let rotated = hidden / heads * (heads + kv_heads?) / ranks;
        // As the roofline counts them, without the KV cache's new entry, which is not in the table.
        let elements = 8.0 * hidden + 2.0 * rotated + 3.0 * expanded? / ranks;
        let mut time_s = 0.0;
        for kernel in KERNELS {
            let each: f64 = row.number(&format!("time_stats.{kernel}.median"))?;
            // Two additions a layer, one column.
            let times = if kernel == "add" { 2.0 } else { 1.0 };
            time_s += times * each / 1e3;
        }
        shares.push(BF16 * elements * tokens / time_s / gpu.memory_bytes_per_s);
    }
    line(text, "elementwise", shares);
    Ok(())
}

fn attention(text: &mut String, data: &Data) -> Result<()> {
    let gpu = Gpu::a100_80gb();
    let _ = writeln!(text, "  A100 SXM4 80 GB, aiconfigurator, vLLM 0.14.0");
    let mut shares = Vec::new();
    for row in data.table("ops_aiconfigurator/a100_sxm_vllm0.14.0_context_attention.csv")? {
        let [batch, len, heads, width, past, time_ms] = [
            "batch_size",
            "isl",
            "num_heads",
            "head_dim",
            "step",
            "latency_ms",
        ]
        .map(|column| row.number::<f64>(column));
        let (batch, len, past) = (batch?, len?, past?);
        let pairs = batch * (len * past + len * (len + 1.0) / 2.0);
        let heads = heads?;
        if len >= LONG && heads >= 16.0 {
            let flops = 4.0 * heads * width? * pairs;
            shares.push(flops / (time_ms? / 1e3) / gpu.bf16_flops);
        }
    }
    line(text, "attention", shares);
    // The longest context and one of at most half of it, so that what does not depend on it falls out.
    let mut contexts: BTreeMap<[u32; 3], Vec<(f64, f64)>> = BTreeMap::new();
    for row in data.table("ops_aiconfigurator/a100_sxm_vllm0.14.0_generation_attention.csv")? {
        let batch: u32 = row.number("batch_size")?;
        let heads: u32 = row.number("num_heads")?;
        let kv_heads: u32 = row.number("num_key_value_heads")?;
        let tokens = f64::from(batch) * row.number::<f64>("step")?;
        let bytes = 2.0 * BF16 * f64::from(kv_heads) * row.number::<f64>("head_dim")? * tokens;
        let of = contexts.entry([batch, heads, kv_heads]).or_default();
        of.push((bytes, row.number::<f64>("latency_ms")? / 1e3));
    }
    let mut shares = Vec::new();
    for points in contexts.values_mut() {
        points.sort_by(|left, right| left.0.total_cmp(&right.0));
        let Some((more, later)) = points.last().copied() else {
            continue;
        };
        let half = points.iter().rev().find(|(bytes, _)| *bytes <= more / 2.0);
        if let Some((fewer, sooner)) = half
            && later > 200e-6
        {
            shares.push((more - fewer) / (later - sooner) / gpu.memory_bytes_per_s);
        }
    }
    line(text, "kv_read", shares);
    Ok(())
}

fn all_reduce(text: &mut String, data: &Data) -> Result<()> {
    let gpu = Gpu::a100_80gb();
    let _ = writeln!(
        text,
        "  A100, all-reduce: measured over built-in, aiconfigurator's vLLM custom kernels in graphs"
    );
    let mut ratios: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for row in data.table("ops_aiconfigurator/a100_sxm_vllm0.14.0_custom_allreduce.csv")? {
        let ranks: u32 = row.number("num_gpus")?;
        if row.text("backend") != "vllm_graph" {
            continue;
        }
        // Sizes are counts of 16-bit elements.
        let bytes = 2 * row.number::<u64>("message_size")?;
        if let Some(built_in_s) = gpu.all_reduce.seconds(ranks, bytes) {
            let measured_s = row.number::<f64>("latency_ms")? / 1e3;
            ratios
                .entry(ranks)
                .or_default()
                .push(measured_s / built_in_s);
        }
    }
    for (ranks, ratios) in ratios {
        line(text, &format!("{ranks} GPUs"), ratios);
    }
    Ok(())
}

fn line(text: &mut String, name: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        let _ = writeln!(text, "    {name}: nothing measured");
        return;
    }
    let count = values.len() as f64;
    let logs: Vec<f64> = values.iter().map(|value| libm::log(*value)).collect();
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs
        .iter()
        .map(|log| (log - mean) * (log - mean))
        .sum::<f64>()
        / count;
    let [low, middle, high] = [0.025, 0.5, 0.975].map(|share| percentile_of_sorted(&values, share));
    let _ = writeln!(
        text,
        "    {name} {middle:.3}, {low:.3} to {high:.3}, {:.3} ({count} values)",
        variance.sqrt()
    );
}
