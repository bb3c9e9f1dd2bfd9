//! What a forward pass is made of: fused operations, one implementation a device.
//!
//! Each operation is one kernel's worth of work, as a good engine fuses it, and
//! its documentation is the formula. A device implements them twice: fast, and
//! in the slow clear form of [`crate::reference`] that tests compare with.

use crate::backend::StepError;
use crate::batch::Batch;
use crate::choose::{Choice, Wants, choose};
use crate::weights::{Adapter, HostMatrix, Layer, Weights};

/// The number format of keys and values in the KV cache. What does not fit it is rounded to nearest even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    /// 32 bits: exact, as activations are.
    F32,
    /// 16 bits: half the memory, as models in bf16 expect.
    Bf16,
}

/// What a matrix is, where a device keeps it in a form of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Tokens' rows, and the output projection where they are the same.
    Embedding,
    /// Gate and up on top of each other.
    GateUp,
    /// Another projection.
    Projection,
}

/// Whether a pass has still to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Operation by operation, from here on.
    Compute,
    /// The device knows this kind of pass, or had begun it before.
    UnderWay,
}

/// The operations of a forward pass on one rank's part of a model, with the
/// memory that they work in: the KV cache and the adapters.
///
/// Shapes are `[tokens of the step][width]`; sizes are this rank's. Of an
/// operation that sums over ranks, every rank has the sum.
///
/// The result for a token depends on the token, what comes before it in its
/// sequence, and its adapter: never on what else is in the batch, nor on how its
/// prompt was cut into chunks. On CPUs that holds to the last bit; a GPU sums in
/// another order when a batch has another size, which shows in the last bits.
pub trait Ops {
    /// A matrix `[out][in]` as the device keeps it.
    type Matrix;
    /// Activations `[tokens][width]`, with room for the largest step.
    type Buffer;

    /// Brings a matrix into the device's form.
    fn pack(&mut self, matrix: HostMatrix, role: Role) -> Self::Matrix;

    /// Brings what else the weights have into the device's form: they are complete.
    fn prepare(&mut self, _weights: &Weights<Self::Matrix>) {}

    /// Room for activations of this width.
    fn buffer(&mut self, width: usize) -> Self::Buffer;

    /// Puts this rank's part of an adapter into a slot.
    ///
    /// # Errors
    /// If the device has no memory for it.
    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError>;

    /// Empties a slot.
    fn unload_adapter(&mut self, slot: usize);

    /// Begins a pass. Rank 0 is told what is wanted of its logits, the others are not.
    ///
    /// # Errors
    /// If the device cannot compute it.
    fn begin(&mut self, _batch: &Batch, _wants: Option<&Wants<'_>>) -> Result<Begun, StepError> {
        Ok(Begun::Compute)
    }

    /// Ends a pass of which every operation was called.
    ///
    /// # Errors
    /// If one of them failed.
    fn end(&mut self) -> Result<(), StepError> {
        Ok(())
    }

    /// What is wanted of the pass that has just ended: in rank 0.
    ///
    /// # Errors
    /// If the pass failed on the device.
    fn choose(&mut self, wants: &Wants<'_>) -> Result<Vec<Choice>, StepError> {
        Ok(choose(self.read_logits()?, wants))
    }

    /// The logits of the pass that has just ended, row after row,
    /// `[logit_rows][vocab_size]`, in rank 0; empty in the others.
    ///
    /// # Errors
    /// If the pass failed on the device.
    fn read_logits(&mut self) -> Result<&[f32], StepError>;

    /// Whether all that was packed and prepared is there.
    ///
    /// # Errors
    /// If the device had no memory for it, or failed.
    fn ready(&mut self) -> Result<(), StepError> {
        Ok(())
    }

    /// As [`crate::backend::Backend::warm_up_steps`].
    fn warm_up_steps(&self) -> usize {
        1
    }

    /// As [`crate::backend::Backend::warm_up_batches`].
    fn warm_up_batches(&self) -> Vec<usize> {
        Vec::new()
    }

    /// As [`crate::backend::Backend::take_busy_seconds`].
    fn take_busy_seconds(&mut self) -> Option<f64> {
        None
    }

    /// Whether the device is gone for good, so that nothing that comes after can succeed.
    fn is_lost(&self) -> bool {
        false
    }

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

    /// `logits = L rmsnorm(x)` of the rows in `batch.logit_rows`, gathered from all ranks:
    /// see [`Ops::read_logits`].
    fn logits(&mut self, weights: &Weights<Self::Matrix>, batch: &Batch, x: &Self::Buffer);
}
