//! The GPUs that step times are known for.
//!
//! Peaks are the vendor's, dense (its sheets quote fp8 and bf16 with sparsity,
//! which is twice as much). Shares of the peaks and fixed times come from
//! published kernel measurements where there are some; the three overheads that
//! only a whole engine shows were fitted to published serving results.
//! `docs/accuracy.md` says how far the result is off.

use super::{AllReduce, AllReduceRange, EfficiencySpread, RooflineError};

/// A GPU, as far as a step's time and a replica's memory depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Memory (bytes).
    pub memory_bytes: u64,
    /// Peak memory bandwidth (bytes/s).
    pub memory_bytes_per_s: f64,
    /// Peak dense bf16 rate (FLOP/s).
    pub bf16_flops: f64,
    /// Peak dense fp8 rate (FLOP/s); `None` if the GPU has no fp8 units.
    pub fp8_flops: Option<f64>,
    /// Shares of the peaks that engines reach, and fixed times.
    pub efficiency: Efficiency,
    /// How well those are known.
    pub spread: EfficiencySpread,
    /// All-reduce over this GPU's interconnect.
    pub all_reduce: AllReduce,
}

/// What a real engine reaches of the peaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Efficiency {
    /// Share of peak bandwidth when reading weights.
    pub weight_read: f64,
    /// Share of peak bandwidth when reading KV cache.
    pub kv_read: f64,
    /// Share of peak bf16 FLOP/s in matrix products.
    pub gemm: f64,
    /// Share of peak fp8 FLOP/s in matrix products.
    pub gemm_fp8: f64,
    /// Share of peak bf16 FLOP/s in prefill attention.
    pub attention: f64,
    /// Share of peak bandwidth in norms, rotary embedding, activation and residual additions.
    pub elementwise: f64,
    /// Host and launch time of a step that is not hidden (s).
    pub step_overhead_s: f64,
    /// Host time of a step for each sequence that samples a token (s).
    pub sequence_overhead_s: f64,
    /// Launch and skew of a layer's kernels other than matrix products (s).
    pub layer_overhead_s: f64,
    /// Start and tail of one matrix product: what a shard does not shrink (s).
    pub kernel_overhead_s: f64,
    /// Time the host takes to launch a step's kernels one by one (s). The GPU works meanwhile, so that the longer of
    /// the two counts; 0 for engines that launch a step as one graph.
    pub host_launch_s: f64,
}

impl Gpu {
    /// NVIDIA A100 40 GB SXM4.
    #[must_use]
    pub fn a100_40gb() -> Self {
        // NVIDIA A100 Tensor Core GPU datasheet: 40 GB HBM2 at 1,555 GB/s; the rest as the 80 GB model.
        Self {
            memory_bytes: 40_000_000_000,
            memory_bytes_per_s: 1.555e12,
            ..Self::a100_80gb()
        }
    }

    /// NVIDIA A100 80 GB SXM4.
    #[must_use]
    pub fn a100_80gb() -> Self {
        Self {
            // NVIDIA A100 Tensor Core GPU datasheet: 80 GB HBM2e at 2,039 GB/s, 312 TFLOPS bf16.
            memory_bytes: 80_000_000_000,
            memory_bytes_per_s: 2.039e12,
            bf16_flops: 312e12,
            fp8_flops: None,
            efficiency: ampere_engine(),
            spread: ampere_spread(),
            all_reduce: a100_nvswitch(),
        }
    }

    /// NVIDIA H100 80 GB SXM5.
    #[must_use]
    pub fn h100() -> Self {
        Self {
            // NVIDIA H100 Tensor Core GPU datasheet, SXM: 80 GB at 3.35 TB/s; 1,979 TFLOPS bf16 and
            // 3,958 fp8, both with sparsity.
            memory_bytes: 80_000_000_000,
            memory_bytes_per_s: 3.35e12,
            bf16_flops: 989.4e12,
            fp8_flops: Some(1978.9e12),
            efficiency: hopper_engine(),
            spread: hopper_spread(),
            all_reduce: hopper_nvswitch(),
        }
    }

    /// NVIDIA H200 141 GB SXM5.
    #[must_use]
    pub fn h200() -> Self {
        // NVIDIA H200 Tensor Core GPU datasheet: 141 GB at 4.8 TB/s; compute as the H100 SXM.
        Self {
            memory_bytes: 141_000_000_000,
            memory_bytes_per_s: 4.8e12,
            ..Self::h100()
        }
    }

    /// NVIDIA B200 180 GB SXM6.
    ///
    /// No serving measurements were at hand: the shares of its peaks and its
    /// all-reduce latencies are the H200's, so expect a larger error.
    #[must_use]
    pub fn b200() -> Self {
        Self {
            // NVIDIA DGX B200 datasheet, a system of 8: 1,440 GB at 64 TB/s, 72 PFLOPS fp8 with
            // sparsity; bf16 is half of fp8.
            memory_bytes: 180_000_000_000,
            memory_bytes_per_s: 8.0e12,
            bf16_flops: 2.25e15,
            fp8_flops: Some(4.5e15),
            efficiency: hopper_engine(),
            spread: blackwell_spread(),
            all_reduce: blackwell_nvswitch(),
        }
    }

    /// NVIDIA B300 288 GB SXM6 (Blackwell Ultra). As unmeasured as [`Gpu::b200`].
    #[must_use]
    pub fn b300() -> Self {
        // NVIDIA HGX B300 page: up to 288 GB HBM3e at 8 TB/s a GPU, fp8 and bf16 as the B200.
        Self {
            memory_bytes: 288_000_000_000,
            ..Self::b200()
        }
    }

    /// Every rate and share is positive, and no overhead is negative.
    pub(super) fn check(&self) -> Result<(), RooflineError> {
        let efficiency = &self.efficiency;
        let positive = [
            ("memory_bytes_per_s", self.memory_bytes_per_s),
            ("bf16_flops", self.bf16_flops),
            ("fp8_flops", self.fp8_flops.unwrap_or(1.0)),
            ("weight_read", efficiency.weight_read),
            ("kv_read", efficiency.kv_read),
            ("gemm", efficiency.gemm),
            ("gemm_fp8", efficiency.gemm_fp8),
            ("attention", efficiency.attention),
            ("elementwise", efficiency.elementwise),
        ];
        let not_negative = [
            ("step_overhead_s", efficiency.step_overhead_s),
            ("sequence_overhead_s", efficiency.sequence_overhead_s),
            ("layer_overhead_s", efficiency.layer_overhead_s),
            ("kernel_overhead_s", efficiency.kernel_overhead_s),
            ("host_launch_s", efficiency.host_launch_s),
        ];
        if let Some((field, _)) = positive
            .into_iter()
            .find(|(_, value)| !(value.is_finite() && *value > 0.0))
        {
            return Err(RooflineError::InvalidGpu {
                field,
                expected: "a positive number",
            });
        }
        if let Some((field, _)) = not_negative
            .into_iter()
            .find(|(_, value)| !(value.is_finite() && *value >= 0.0))
        {
            return Err(RooflineError::InvalidGpu {
                field,
                expected: "a number that is not negative",
            });
        }
        Ok(())
    }
}

/// What engines reach on A100.
fn ampere_engine() -> Efficiency {
    Efficiency {
        // Vidur (microsoft/vidur 7d47513) `a100/*/mlp.csv`, one token: from world size 1 to 8 the four
        // products of Llama-2-7B and 70B take 1.61 TB/s for each byte more, and 4.2 us whatever the size.
        weight_read: 0.79,
        kernel_overhead_s: 4.2e-6,
        // aiconfigurator 095f58a, A100 vLLM 0.14 generation attention: 1.5-1.6 TB/s for each token more.
        kv_read: 0.76,
        // Vidur `a100/*/mlp.csv` from 2048 tokens on: 186 to 247 TFLOP/s, in the median 222.
        gemm: 0.71,
        // No fp8 units: never used.
        gemm_fp8: 0.71,
        // aiconfigurator 095f58a, A100 context attention, 16 heads or more, 2048 tokens or more: 120-178
        // TFLOP/s, in the median 163.
        attention: 0.52,
        // Vidur `a100/*/mlp.csv` from 2048 tokens on: norms, rope, activation and two additions together
        // take 0.85 to 0.95 TB/s of what the model counts as their bytes.
        elementwise: 0.44,
        // These three are fitted to Argonne's LLM-Inference-Bench (4211f5d), vLLM and TensorRT-LLM of
        // 2024 on A100 40 GB, 329 rows that fit in memory.
        step_overhead_s: 1.0e-3,
        sequence_overhead_s: 50e-6,
        layer_overhead_s: 38e-6,
        host_launch_s: 0.0,
    }
}

/// What engines reach on H100 and H200.
fn hopper_engine() -> Efficiency {
    Efficiency {
        // aiconfigurator 095f58a, cuBLAS bf16 on H200 with one token: qkv of Llama-3-8B takes 16.6, 10.8,
        // 7.6 and 6.0 us at world sizes 1, 2, 4 and 8: 4.15 TB/s for each byte more. Vidur's
        // `h100/*/mlp.csv` gives 2.80 TB/s on H100 (a share of 0.84).
        weight_read: 0.865,
        // The same tables: 2.9 us a product on H100 (Vidur), 3.5 to 4.5 us on H200.
        kernel_overhead_s: 3.5e-6,
        // aiconfigurator 095f58a, FA3 decode on H200: 0.93 us for 1000 tokens of 8 heads, 4.4 TB/s.
        kv_read: 0.917,
        // aiconfigurator 095f58a, 2048 to 8192 tokens on H200: cuBLAS 650-710 TFLOP/s in vLLM, 700-823
        // in TensorRT-LLM; Vidur on H100 496-796, in the median 685.
        gemm: 0.72,
        // TPOT of Llama-3.1-70B fp8 with prompts of 8192 tokens (silicon_sample.csv, below) lies within
        // 11 % for shares of 0.6 to 0.7.
        gemm_fp8: 0.65,
        // FA3 README, H100, head 128 causal: 521-616 TFLOP/s from 2k to 16k tokens.
        attention: 0.55,
        // Vidur `h100/meta-llama/Llama-2-7b-hf/mlp.csv` from 2048 tokens on: 1.38 to 1.71 TB/s with two
        // additions a layer; engines fuse those with the norms, which reads and writes less than the model counts.
        elementwise: 0.55,
        // These three are one fit to six engines, each counting as much as the others, with the figures above held:
        // inference-perf's sweep of vLLM 0.11 (7de5ef2), aiconfigurator 095f58a `silicon_sample.csv` (TensorRT-LLM with
        // Llama-3.1-8B on H100, vLLM and TensorRT-LLM with 70B fp8 on H200), LLM-Inference-Bench's TensorRT-LLM
        // (4211f5d), and BLIS's steps of vLLM (9293b22): `accuracy --built-in` prints it. With all-reduces twice as fast and
        // with what is now known of InferenceMAX's settings, the same fit asks for 0.89, 1.07 and 1.05 times these, far within
        // what engines differ by. Engines without a server ask for a third of what a sequence takes, 6 us.
        step_overhead_s: 0.91e-3,
        sequence_overhead_s: 17e-6,
        layer_overhead_s: 22e-6,
        host_launch_s: 0.0,
    }
}

/// How well they are known: from operator to operator in the tables above, and from engine to engine in the
/// fits to each (`accuracy --built-in`). Where one engine alone says something, or none, it is a guess
/// that leaves room: such deviations are round numbers.
fn ampere_spread() -> EfficiencySpread {
    EfficiencySpread {
        // The engines on the 40 GB model reach 1.15 times the share that the operators on the 80 GB model do.
        weight_read: 0.08,
        kv_read: 0.05,
        gemm: 0.07,
        gemm_fp8: 0.07,
        attention: 0.11,
        elementwise: 0.1,
        step_overhead: 0.7,
        // Between vLLM and TensorRT-LLM of 2024.
        sequence_overhead: 0.9,
        layer_overhead: 0.6,
        kernel_overhead: 0.5,
        host_launch: 0.0,
        // From 2 to 8 GPUs in the tables.
        all_reduce: 0.2,
        // Most engines of 2025 are up to 12 % faster or slower in the median than these figures say, each at nearly all its
        // sizes (docs/accuracy.md). Those of 2024 are slower by up to 30 %, and small models without a server faster by 20 %.
        engine: 0.1,
    }
}

/// As [`ampere_spread`].
fn hopper_spread() -> EfficiencySpread {
    EfficiencySpread {
        weight_read: 0.05,
        kv_read: 0.05,
        gemm: 0.1,
        gemm_fp8: 0.1,
        attention: 0.1,
        elementwise: 0.15,
        step_overhead: 0.5,
        sequence_overhead: 0.4,
        layer_overhead: 0.3,
        kernel_overhead: 0.3,
        host_launch: 0.0,
        // From engine to engine.
        all_reduce: 0.27,
        engine: 0.1,
    }
}

/// Nothing of it was measured: twice as uncertain as what it is taken from.
fn blackwell_spread() -> EfficiencySpread {
    let twice = hopper_spread().to_array().map(|deviation| 2.0 * deviation);
    EfficiencySpread::of_array(twice)
}

/// aiconfigurator 095f58a, vLLM 0.14 custom all-reduce in CUDA graphs on A100-SXM4-80GB, fitted by
/// relative least squares in each range (within 7 %, 18 % and 7 %). Its sizes are counts of 16-bit
/// elements, not bytes: only then do large messages agree with Vidur's `a100_dgx/all_reduce.csv`.
fn a100_nvswitch() -> AllReduce {
    three_ranges([
        (2, [(4.95, 106.0), (5.27, 207.0), (44.7, 194.0)]),
        (4, [(5.24, 45.0), (7.48, 112.0), (61.4, 144.0)]),
        (8, [(5.6, 24.0), (12.3, 123.0), (68.7, 125.0)]),
    ])
}

/// aiconfigurator 77a06bf `h200_sxm/custom_allreduce_perf.txt`, vLLM 0.20 in CUDA graphs on H200 with NVSwitch (within 12 %,
/// 18 % and 10 %). H100 has the same NVLink 4. Its sizes are counts of 16-bit elements as well: its collector
/// allocates so many (`collect_all_reduce.py`, `get_input_shape_and_comm_size`).
fn hopper_nvswitch() -> AllReduce {
    three_ranges([
        (2, [(4.48, 299.0), (4.23, 258.0), (18.6, 308.0)]),
        (4, [(4.56, 86.0), (5.51, 166.0), (17.3, 229.0)]),
        (8, [(4.71, 35.0), (8.01, 196.0), (18.1, 252.0)]),
    ])
}

/// Not measured: the H200's latencies with twice its bandwidths, as NVLink 5 has twice NVLink 4's
/// (1.8 against 0.9 TB/s, NVIDIA DGX B200 and H200 datasheets).
fn blackwell_nvswitch() -> AllReduce {
    let mut all_reduce = hopper_nvswitch();
    for range in all_reduce
        .by_world_size
        .iter_mut()
        .flat_map(|(_, ranges)| ranges)
    {
        range.beta_bytes_per_s *= 2.0;
    }
    all_reduce
}

/// Ranges up to 64 KiB, up to 4 MiB and beyond, from (alpha in us, beta in GB/s).
fn three_ranges(table: [(u32, [(f64, f64); 3]); 3]) -> AllReduce {
    const BYTES_LAST: [u64; 3] = [64 << 10, 4 << 20, u64::MAX];
    let range = |(bytes_last, (alpha_us, beta_gb_per_s)): (u64, (f64, f64))| AllReduceRange {
        bytes_last,
        alpha_s: alpha_us * 1e-6,
        beta_bytes_per_s: beta_gb_per_s * 1e9,
    };
    let row = |(world_size, ranges): (u32, [(f64, f64); 3])| {
        (
            world_size,
            BYTES_LAST.into_iter().zip(ranges).map(range).collect(),
        )
    };
    AllReduce {
        by_world_size: table.into_iter().map(row).collect(),
    }
}
