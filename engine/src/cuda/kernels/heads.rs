//! Queries, keys and values between their projection and attention: bias, norm, rotation,
//! and the way into the KV cache.

use super::attention_shape::AttentionShape;
use super::{Arguments, launch};
use crate::config::Rotary;
use crate::cuda::gpu::{Address, Gpu, GpuError, Kernel, KernelFacts, Unit};

const THREADS: u32 = 256;

const KERNELS: &[KernelFacts] = &[KernelFacts {
    name: "heads",
    argument_bytes: 88,
    registers_max: 64,
    instructions: &["LDG", "STG"],
}];

/// Launches `heads.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    kernel: Kernel,
    shape: AttentionShape,
    variant: HeadsVariant,
}

/// What a model does with its heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadsVariant {
    /// Whether the projection has a bias (Qwen 2).
    pub bias: bool,
    /// Whether heads of queries and keys are normalised (Qwen 3).
    pub norm: bool,
}

/// Queries, keys and values of a step.
#[derive(Clone, Copy, Debug)]
pub struct HeadsCall {
    /// Rows, those of padding included.
    pub rows: usize,
    /// The projection's product, bf16 `[rows][product_stride]`.
    pub product: Address,
    /// Values from one of its rows to the next.
    pub product_stride: usize,
    /// Its bias, f32 `[product_width]`, if the variant has one.
    pub bias: Option<Address>,
    /// The norms, if the variant has them.
    pub norm: Option<HeadNorm>,
    /// [`rotary_table`], for all positions that there may be.
    pub rotary: Address,
    /// Each row's position, i32; -1 is a row of padding, of which nothing is written.
    pub positions: Address,
    /// Each row's place in the KV cache, u32: `block * block_size + position % block_size`.
    pub slots: Address,
    /// Where queries go, bf16 `[rows][query_heads][padded]`.
    pub q: Address,
    /// The layer's KV cache.
    pub cache: Address,
}

/// The RMS norms of heads.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm {
    /// Scales of queries, f32 `[head_dim]`.
    pub query_scales: Address,
    /// Scales of keys, f32 `[head_dim]`.
    pub key_scales: Address,
    /// What is added to the mean square.
    pub eps: f32,
}

impl Heads {
    /// Compiles it.
    ///
    /// # Errors
    /// As [`Gpu::compile`].
    pub fn new(
        gpu: &mut dyn Gpu,
        shape: AttentionShape,
        variant: HeadsVariant,
    ) -> Result<Self, GpuError> {
        let kernel = gpu.compile(&unit(&shape, variant))?[0];
        Ok(Self {
            kernel,
            shape,
            variant,
        })
    }

    /// Launches it.
    ///
    /// # Errors
    /// If the call has not what the variant needs, or as [`Gpu::launch`].
    pub fn enqueue(&self, gpu: &mut dyn Gpu, call: &HeadsCall) -> Result<(), GpuError> {
        if call.rows == 0 {
            return Ok(());
        }
        let has = HeadsVariant {
            bias: call.bias.is_some(),
            norm: call.norm.is_some(),
        };
        if has != self.variant {
            return Err(GpuError::Call {
                what: "heads",
                why: format!("compiled for {:?}, called with {has:?}", self.variant),
            });
        }
        let norm = call.norm.unwrap_or(HeadNorm {
            query_scales: Address::NONE,
            key_scales: Address::NONE,
            eps: 0.0,
        });
        let arguments = Arguments::new()
            .address(call.product)
            .address(call.bias.unwrap_or(Address::NONE))
            .address(norm.query_scales)
            .address(norm.key_scales)
            .address(call.rotary)
            .address(call.positions)
            .address(call.slots)
            .address(call.q)
            .address(call.cache)
            .count(call.rows)
            .count(call.product_stride)
            .number(norm.eps)
            .count(0);
        launch(
            gpu,
            self.kernel,
            [blocks(&self.shape, call.rows), 1, 1],
            THREADS,
            0,
            arguments,
        )
    }
}

/// What a rank's heads are turned by: of each position, the cosines of all pairs, then the sines,
/// `[positions][2][head_dim / 2]`, computed in f64 and rounded once.
#[must_use]
pub fn rotary_table(rotary: &Rotary, head_dim: usize, positions: usize) -> Vec<f32> {
    let frequencies = rotary.frequencies(head_dim);
    let mut table = Vec::with_capacity(positions * head_dim);
    for position in 0..positions {
        let turns = frequencies
            .iter()
            .map(|frequency| libm::sincos(position as f64 * frequency));
        table.extend(turns.clone().map(|(_, cosine)| cosine as f32));
        table.extend(turns.map(|(sine, _)| sine as f32));
    }
    table
}

/// Lanes that share a head, as the kernel's constants `WIDTH`, `PIECES` and `LANES` say.
fn lanes(head_dim: usize) -> usize {
    let pairs = head_dim / 2;
    let width = [8, 4, 2, 1]
        .into_iter()
        .find(|width| pairs.is_multiple_of(*width))
        .unwrap_or(1);
    (pairs / width).next_power_of_two().min(32)
}

fn blocks(shape: &AttentionShape, rows: usize) -> u32 {
    let lanes = rows * (shape.query_heads + 2 * shape.kv_heads) * lanes(shape.head_dim);
    u32::try_from(lanes.div_ceil(THREADS as usize)).expect("a step's heads fit into a launch")
}

fn unit(shape: &AttentionShape, variant: HeadsVariant) -> Unit {
    let mut constants = shape.constants();
    constants.push(("QUERY_HEADS", shape.query_heads as u32));
    constants.push(("BIAS", variant.bias.into()));
    constants.push(("NORM", variant.norm.into()));
    Unit {
        file: "heads.cu",
        source: include_str!("../../../kernels/heads.cu"),
        constants,
        kernels: KERNELS,
    }
}

/// What it is compiled for in checks without a GPU.
#[must_use]
pub fn units() -> Vec<Unit> {
    let narrow = AttentionShape {
        head_dim: 90,
        ..AttentionShape::ODD
    };
    let shapes = [AttentionShape::LLAMA_3_8B, AttentionShape::ODD, narrow];
    let variants = [(false, false), (true, true)];
    let variants = variants.map(|(bias, norm)| HeadsVariant { bias, norm });
    shapes
        .iter()
        .flat_map(|shape| variants.map(|variant| unit(shape, variant)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RotaryScaling;

    #[test]
    fn a_head_is_shared_by_as_many_lanes_as_have_16_bytes_of_each_half() {
        let widths = [6, 16, 64, 80, 90, 96, 128, 256];
        assert_eq!(widths.map(lanes), [4, 1, 4, 8, 32, 8, 8, 16]);
    }

    #[test]
    fn blocks_hold_all_heads() {
        assert_eq!(
            blocks(&AttentionShape::LLAMA_3_8B, 1),
            2,
            "48 heads of 8 lanes"
        );
        assert_eq!(blocks(&AttentionShape::LLAMA_3_8B, 8192), 12288);
    }

    #[test]
    fn the_table_has_cosines_before_sines() {
        let rotary = Rotary {
            theta: 10_000.0,
            scaling: RotaryScaling::None,
        };
        let table = rotary_table(&rotary, 4, 3);
        assert_eq!(table[..4], [1.0, 1.0, 0.0, 0.0]);
        let angle = 2.0_f64;
        assert_eq!(table[8], angle.cos() as f32);
        assert_eq!(table[10], angle.sin() as f32);
        assert_eq!(table[11], (angle * 0.01).sin() as f32);
    }
}
