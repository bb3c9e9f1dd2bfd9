//! What single operations take on a GPU, at the shapes of Llama 3 8B, beside what their bytes and their
//! arithmetic would take at the ceilings that are measured first.
//!
//! ```text
//! gpu_ops [--software]      JSON on standard output, a table on standard error
//! ```
//!
//! Each operation is recorded many times over, on several copies of what it reads so that none of it is in a
//! cache, and replayed: launches cost nothing then, and what is left is the GPU's own time.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what it is for"
)]

use std::process::ExitCode;

use foresail_engine::bench::{GpuCeilings, measure_gpu};
use foresail_engine::cuda::gpu::{Address, Format, Gpu, GpuError, Product};
use foresail_engine::cuda::hardware::Hardware;
use foresail_engine::cuda::kernels::attention_decode::{AttentionDecode, DecodeCall};
use foresail_engine::cuda::kernels::attention_decode_plan::{DecodeQuery, plan};
use foresail_engine::cuda::kernels::attention_prefill::{AttentionPrefill, PrefillCall};
use foresail_engine::cuda::kernels::attention_prefill_plan::PrefillSequence;
use foresail_engine::cuda::kernels::attention_shape::AttentionShape;
use foresail_engine::cuda::kernels::norm::{Norm, NormCall, Rows};
use foresail_engine::cuda::kernels::skinny::{Epilogue, Skinny, SkinnyCall};
use foresail_engine::cuda::memory;
use foresail_engine::cuda::software::Software;
use foresail_engine::startup::Device;
use serde_json::{Value, json};

/// Products of a layer, and of the end: name, outputs, inputs.
const PRODUCTS: [(&str, usize, usize); 5] = [
    ("qkv", 6144, 4096),
    ("output", 4096, 4096),
    ("gate_up", 28_672, 4096),
    ("down", 4096, 14_336),
    ("lm_head", 128_256, 4096),
];

/// How much is measured.
struct Sizes {
    /// Products are divided by it.
    shrink: usize,
    shape: AttentionShape,
    skinny_tokens: &'static [usize],
    product_rows: &'static [usize],
    /// Sequences and tokens of each.
    decodes: &'static [(usize, usize)],
    prompts: &'static [usize],
    /// What copies of an operation's input have together, at least (bytes).
    rotated_bytes: usize,
    copies_max: usize,
}

const REAL: Sizes = Sizes {
    shrink: 1,
    shape: AttentionShape::LLAMA_3_8B,
    skinny_tokens: &[1, 8, 16, 32, 64],
    product_rows: &[128, 256, 512, 2048, 8192],
    decodes: &[
        (1, 1024),
        (1, 4096),
        (8, 1024),
        (64, 1024),
        (64, 4096),
        (256, 1024),
    ],
    prompts: &[512, 2048, 8192],
    // An H200's L2 cache has 50 MiB.
    rotated_bytes: 256 << 20,
    copies_max: 8,
};

const REHEARSED: Sizes = Sizes {
    shrink: 64,
    shape: AttentionShape::ODD,
    skinny_tokens: &[1, 16],
    product_rows: &[128],
    decodes: &[(2, 40)],
    prompts: &[20],
    rotated_bytes: 0,
    copies_max: 2,
};

/// What an operation has to do.
struct Work {
    bytes: f64,
    flops: f64,
}

struct Ops<'a> {
    gpu: &'a mut dyn Gpu,
    sizes: &'a Sizes,
    ceilings: GpuCeilings,
    rows: Vec<Value>,
}

fn main() -> ExitCode {
    let software = std::env::args().any(|argument| argument == "--software");
    match run(software) {
        Ok(json) => {
            println!("{json:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gpu_ops: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(software: bool) -> Result<Value, GpuError> {
    let (ceilings, sizes) = match software {
        true => (measure_gpu(Device::SoftwareGpu)?, &REHEARSED),
        false => (measure_gpu(Device::Cuda)?, &REAL),
    };
    let mut gpu: Box<dyn Gpu> = match software {
        true => Box::new(Software::open()?),
        false => Box::new(Hardware::open(0)?),
    };
    let mut ops = Ops {
        gpu: &mut *gpu,
        sizes,
        ceilings,
        rows: Vec::new(),
    };
    ops.products()?;
    ops.decode_attention()?;
    ops.prefill_attention()?;
    ops.norms()?;
    let GpuCeilings {
        name,
        read_bytes_per_s,
        copy_bytes_per_s,
        bf16_flops_per_s,
    } = ops.ceilings;
    Ok(json!({
        "gpu": name,
        "read_bytes_per_s": read_bytes_per_s,
        "copy_bytes_per_s": copy_bytes_per_s,
        "bf16_flops_per_s": bf16_flops_per_s,
        "ops": ops.rows,
    }))
}

impl Ops<'_> {
    /// Times an operation, which is told which copy of its input to take.
    fn time(
        &mut self,
        name: &str,
        size: &str,
        work: &Work,
        copies: usize,
        mut operation: impl FnMut(&mut dyn Gpu, usize) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        // Once outside a recording, so that all is compiled and tuned.
        operation(self.gpu, 0)?;
        self.gpu.wait()?;
        self.gpu.begin_recording()?;
        for copy in 0..copies {
            operation(self.gpu, copy)?;
        }
        let recording = self.gpu.end_recording()?;
        let mut seconds: Vec<f64> = Vec::new();
        for repeat in 0..7 {
            let began = self.gpu.mark()?;
            self.gpu.replay(recording)?;
            let ended = self.gpu.mark()?;
            let took = self.gpu.seconds_between(began, ended)? / copies as f64;
            if repeat > 0 {
                seconds.push(took);
            }
        }
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        let floor = (work.bytes / self.ceilings.read_bytes_per_s)
            .max(work.flops / self.ceilings.bf16_flops_per_s);
        eprintln!(
            "{name:<18}{size:<16}{:>10.2} us{:>9.0} GB/s{:>9.1} TFLOP/s{:>6.0} % of floor",
            median * 1e6,
            work.bytes / median / 1e9,
            work.flops / median / 1e12,
            floor / median * 100.0
        );
        self.rows.push(json!({
            "op": name,
            "size": size,
            "seconds_median": median,
            "seconds_min": seconds[0],
            "bytes_per_s": work.bytes / median,
            "flops_per_s": work.flops / median,
            "floor_share": floor / median,
        }));
        Ok(())
    }

    /// How many copies of so many bytes no cache holds.
    fn copies(&self, bytes: usize) -> usize {
        let enough = self.sizes.rotated_bytes.div_ceil(bytes.max(1));
        enough.clamp(1, self.sizes.copies_max)
    }

    /// Memory full of small numbers.
    fn numbers(&mut self, values: usize) -> Result<Address, GpuError> {
        let address = self.gpu.allocate(2 * values)?;
        // Products of zeros would be quicker: 0x3c3c is 0.011 in bf16.
        self.gpu.fill(address, 2 * values, 0x3c)?;
        Ok(address)
    }

    fn products(&mut self) -> Result<(), GpuError> {
        let outputs_max = PRODUCTS
            .iter()
            .map(|(_, outputs, _)| outputs / self.sizes.shrink);
        let outputs_max = outputs_max.max().unwrap_or(0);
        let bytes = Skinny::workspace_bytes(self.gpu.properties(), outputs_max);
        let workspace = memory::zeros(self.gpu, bytes)?;
        let mut skinny = Skinny::new(self.gpu, workspace, outputs_max)?;
        for (name, outputs, inputs) in PRODUCTS {
            let (outputs, inputs) = (outputs / self.sizes.shrink, inputs / self.sizes.shrink);
            let stride = memory::stride(inputs);
            let copies = self.copies(2 * outputs * stride);
            let weights = self.numbers(copies * outputs * stride)?;
            let rows_max = self.sizes.product_rows.iter().copied().max().unwrap_or(0);
            let x = self.numbers(rows_max.max(64) * stride)?;
            let y_stride = memory::stride(outputs);
            let is_wide = name == "lm_head";
            let y_rows = if is_wide { 256 } else { rows_max.max(64) };
            let y = self.numbers(2 * y_rows * y_stride)?;
            let at = |copy: usize| weights.offset(2 * copy * outputs * stride);
            let work = |rows: usize| Work {
                bytes: 2.0 * (outputs * inputs) as f64,
                flops: 2.0 * (rows * outputs * inputs) as f64,
            };
            for &tokens in self.sizes.skinny_tokens {
                self.time(
                    name,
                    &format!("tokens {tokens}"),
                    &work(tokens),
                    copies,
                    |gpu, copy| {
                        let epilogue = match is_wide {
                            true => Epilogue::StoreF32 { y, y_stride },
                            false => Epilogue::Store {
                                y,
                                y_stride,
                                bias: None,
                            },
                        };
                        let call = SkinnyCall {
                            tokens,
                            x,
                            x_stride: stride,
                            weights: at(copy),
                            weights_stride: stride,
                            outputs,
                            inputs,
                            norm: None,
                            epilogue,
                        };
                        skinny.enqueue(gpu, &call)
                    },
                )?;
            }
            for &rows in self
                .sizes
                .product_rows
                .iter()
                .filter(|rows| **rows <= y_rows)
            {
                self.time(
                    name,
                    &format!("rows {rows}"),
                    &work(rows),
                    copies,
                    |gpu, copy| {
                        gpu.multiply(&Product {
                            rows,
                            outputs,
                            inputs: stride,
                            x,
                            x_stride: stride,
                            weights: at(copy),
                            weights_stride: stride,
                            y,
                            y_stride,
                            y_format: if is_wide { Format::F32 } else { Format::Bf16 },
                            adds: false,
                        })
                    },
                )?;
            }
            for address in [weights, x, y] {
                self.gpu.free(address)?;
            }
        }
        Ok(())
    }

    fn decode_attention(&mut self) -> Result<(), GpuError> {
        let shape = self.sizes.shape;
        let attention = AttentionDecode::new(self.gpu, shape)?;
        let workspace = memory::zeros(self.gpu, attention.workspace_bytes())?;
        for &(batch, context) in self.sizes.decodes {
            let counters = memory::zeros(self.gpu, attention.counter_bytes(batch))?;
            let table_stride = context.div_ceil(shape.block_size);
            let layer = batch * table_stride * shape.block_values();
            let copies = self.copies(2 * layer);
            let cache = self.numbers(copies * layer)?;
            let tables = self.words((0..batch * table_stride).map(|block| block as u32))?;
            let positions = self.words((0..batch).map(|_| context as u32 - 1))?;
            let queries: Vec<_> = (0..batch)
                .map(|row| DecodeQuery {
                    row,
                    sequence: row,
                    context,
                })
                .collect();
            let words = plan(&queries, attention.units(), None, attention.blocks()).words();
            let work = self.words(words.into_iter())?;
            let width = shape.query_heads * shape.padded();
            let (q, a) = (
                self.numbers(batch * width)?,
                self.numbers(batch * memory::stride(width))?,
            );
            let kv_values = 2 * batch * context * shape.kv_heads * shape.head_dim;
            let to_do = Work {
                bytes: 2.0 * kv_values as f64,
                flops: 4.0 * (batch * context * shape.query_heads * shape.head_dim) as f64,
            };
            let size = format!("{batch} x {context}");
            self.time("decode attention", &size, &to_do, copies, |gpu, copy| {
                let call = DecodeCall {
                    q,
                    cache: cache.offset(2 * copy * layer),
                    tables,
                    table_stride,
                    positions,
                    work,
                    window: None,
                    a,
                    a_stride: memory::stride(width),
                    workspace,
                    counters,
                };
                attention.enqueue(gpu, &call)
            })?;
            for address in [counters, cache, tables, positions, work, q, a] {
                self.gpu.free(address)?;
            }
        }
        Ok(())
    }

    fn prefill_attention(&mut self) -> Result<(), GpuError> {
        let shape = self.sizes.shape;
        let attention = AttentionPrefill::new(self.gpu, shape)?;
        for &len in self.sizes.prompts {
            let table_stride = len.div_ceil(shape.block_size);
            let cache = self.numbers(table_stride * shape.block_values())?;
            let tables = self.words((0..table_stride).map(|block| block as u32))?;
            let sequence = PrefillSequence {
                sequence: 0,
                first: 0,
                len,
                past: 0,
            };
            let plan = attention.plan(&[sequence], None);
            let work = self.words(plan.words().into_iter())?;
            let width = shape.query_heads * shape.padded();
            let (q, a) = (
                self.numbers(len * width)?,
                self.numbers(len * memory::stride(width))?,
            );
            // Causal: half of all pairs.
            let pairs = len as f64 * (len + 1) as f64 / 2.0;
            let to_do = Work {
                bytes: 2.0
                    * (2 * len * (shape.query_heads + shape.kv_heads) * shape.head_dim) as f64,
                flops: 4.0 * pairs * (shape.query_heads * shape.head_dim) as f64,
            };
            self.time(
                "prefill attention",
                &format!("{len}"),
                &to_do,
                2,
                |gpu, _| {
                    let call = PrefillCall {
                        plan: &plan,
                        work,
                        q,
                        cache,
                        tables,
                        table_stride,
                        window: None,
                        a,
                        a_stride: memory::stride(width),
                    };
                    attention.enqueue(gpu, &call)
                },
            )?;
            for address in [cache, tables, work, q, a] {
                self.gpu.free(address)?;
            }
        }
        Ok(())
    }

    fn norms(&mut self) -> Result<(), GpuError> {
        let width = 4096 / self.sizes.shrink;
        let stride = memory::stride(width);
        let norm = Norm::new(self.gpu, width)?;
        let scales = memory::vector(self.gpu, &vec![1.0; width])?;
        let rows_max = self.sizes.product_rows.iter().copied().max().unwrap_or(1);
        let (x, n) = (
            self.numbers(rows_max * stride)?,
            self.numbers(rows_max * stride)?,
        );
        for rows in [1, rows_max] {
            let work = Work {
                bytes: 4.0 * (rows * width) as f64,
                flops: 0.0,
            };
            self.time("norm", &format!("rows {rows}"), &work, 4, |gpu, _| {
                let call = NormCall {
                    rows,
                    x,
                    x_stride: stride,
                    of: Rows::All,
                    scales,
                    eps: 1e-5,
                    n,
                    n_stride: stride,
                };
                norm.enqueue(gpu, &call)
            })?;
        }
        Ok(())
    }

    fn words(&mut self, words: impl Iterator<Item = u32>) -> Result<Address, GpuError> {
        let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
        let address = self.gpu.allocate(bytes.len().max(1))?;
        self.gpu.write(address, &bytes)?;
        Ok(address)
    }
}
