//! What a forward pass is made of: fused operations, one implementation a device.
//!
//! Each operation is one kernel's worth of work, as a good engine fuses it, and
//! its documentation is the formula. A device implements them twice: fast, and
//! in the slow clear form of [`crate::reference`] that tests compare with.

use crate::batch::Batch;
use crate::weights::{Adapter, HostMatrix, Layer, Weights};

/// The number format of keys and values in the KV cache. What does not fit it is rounded to nearest even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    /// 32 bits: exact, as activations are.
    F32,
    /// 16 bits: half the memory, as models in bf16 expect.
    Bf16,
}

/// The operations of a forward pass on one rank's part of a model, with the
/// memory that they work in: the KV cache and the adapters.
///
/// Shapes are `[tokens of the step][width]`; sizes are this rank's. Of an
/// operation that sums over ranks, every rank has the sum.
///
/// The result for a token depends on the token, what comes before it in its
/// sequence, and its adapter, to the last bit: never on what else is in the
/// batch, nor on how its prompt was cut into chunks.
pub trait Ops {
    /// A matrix `[out][in]` as the device keeps it.
    type Matrix;
    /// Activations `[tokens][width]`, with room for the largest step.
    type Buffer;

    /// Brings a matrix into the device's form.
    fn pack(&mut self, matrix: HostMatrix) -> Self::Matrix;

    /// Room for activations of this width.
    fn buffer(&mut self, width: usize) -> Self::Buffer;

    /// Puts this rank's part of an adapter into a slot.
    fn load_adapter(&mut self, slot: usize, adapter: &Adapter);

    /// Empties a slot.
    fn unload_adapter(&mut self, slot: usize);

    /// `x = E[token]`, summed over ranks, each of which has a part of the vocabulary.
    fn embed(&mut self, weights: &Weights<Self::Matrix>, batch: &Batch, x: &mut Self::Buffer);

    /// `n = rmsnorm(x)`; `q, k, v = W n + b + adapter(n)`; each head of `q` and `k` is normalised
    /// if the model does that, and rotated by its position; `k` and `v` go into the cache.
    fn queries_keys_values(
        &mut self,
        layer: &Layer<Self::Matrix>,
        batch: &Batch,
        x: &Self::Buffer,
        q: &mut Self::Buffer,
    );

    /// `a = softmax(q Kᵀ / sqrt(head_dim)) V`, each head over its sequence's tokens up to itself,
    /// or over the last of them where the layer has a window.
    fn attend(
        &mut self,
        layer: &Layer<Self::Matrix>,
        batch: &Batch,
        q: &Self::Buffer,
        a: &mut Self::Buffer,
    );

    /// `x += W a + b + adapter(a)`, summed over ranks.
    fn add_attention_output(
        &mut self,
        layer: &Layer<Self::Matrix>,
        batch: &Batch,
        a: &Self::Buffer,
        x: &mut Self::Buffer,
    );

    /// `n = rmsnorm(x)`; `h = silu(G n + adapter(n)) * (U n + adapter(n))`.
    fn gate_and_up(
        &mut self,
        layer: &Layer<Self::Matrix>,
        batch: &Batch,
        x: &Self::Buffer,
        h: &mut Self::Buffer,
    );

    /// `x += D h + adapter(h)`, summed over ranks.
    fn add_mlp_output(
        &mut self,
        layer: &Layer<Self::Matrix>,
        batch: &Batch,
        h: &Self::Buffer,
        x: &mut Self::Buffer,
    );

    /// `logits = L rmsnorm(x)` of the rows in `batch.logit_rows`, gathered from all ranks.
    /// Returned row after row, `[logit_rows][vocab_size]`, in rank 0; empty in the others.
    fn logits(
        &mut self,
        weights: &Weights<Self::Matrix>,
        batch: &Batch,
        x: &Self::Buffer,
    ) -> &[f32];
}
