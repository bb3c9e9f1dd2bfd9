//! What weights have beside matrices, on the GPU: scales of norms, and biases.

use super::{CudaOps, Exchange};
use crate::config::AttentionBias;
use crate::cuda::gpu::{Address, Gpu, GpuError};
use crate::cuda::memory::{self, Matrix};
use crate::weights::{Layer, Weights};

/// The vectors of all layers.
#[derive(Debug, Default)]
pub(super) struct Vectors {
    layers: Vec<LayerVectors>,
    norm: Address,
}

#[derive(Clone, Copy, Debug)]
struct LayerVectors {
    attention_norm: Address,
    qkv_bias: Option<Address>,
    head_norm: Option<(Address, Address)>,
    output_bias: Option<Address>,
    mlp_norm: Address,
}

impl Vectors {
    fn upload(gpu: &mut dyn Gpu, weights: &Weights<Matrix>) -> Result<Self, GpuError> {
        let layers = weights.layers.iter();
        let layers = layers.map(|layer| LayerVectors::upload(gpu, layer));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            norm: memory::vector(gpu, &weights.norm)?,
        })
    }

    /// Scales of the norm before a layer's attention; after the last layer, those of the last norm.
    pub(super) fn attention_norm(&self, layer: usize) -> Address {
        let layer = self.layers.get(layer);
        layer.map_or(self.norm, |layer| layer.attention_norm)
    }

    /// Scales of the last norm.
    pub(super) fn norm(&self) -> Address {
        self.norm
    }

    pub(super) fn mlp_norm(&self, layer: usize) -> Address {
        self.layers[layer].mlp_norm
    }

    pub(super) fn qkv_bias(&self, layer: usize) -> Option<Address> {
        self.layers[layer].qkv_bias
    }

    pub(super) fn output_bias(&self, layer: usize) -> Option<Address> {
        self.layers[layer].output_bias
    }

    pub(super) fn head_norm(&self, layer: usize) -> Option<(Address, Address)> {
        self.layers[layer].head_norm
    }
}

impl LayerVectors {
    fn upload(gpu: &mut dyn Gpu, layer: &Layer<Matrix>) -> Result<Self, GpuError> {
        let mut vector = |values: &Vec<f32>| memory::vector(gpu, values);
        Ok(Self {
            attention_norm: vector(&layer.attention_norm)?,
            qkv_bias: layer.qkv_bias.as_ref().map(&mut vector).transpose()?,
            head_norm: match &layer.query_key_norm {
                Some((query, key)) => Some((vector(query)?, vector(key)?)),
                None => None,
            },
            output_bias: layer.output_bias.as_ref().map(&mut vector).transpose()?,
            mlp_norm: vector(&layer.mlp_norm)?,
        })
    }
}

impl CudaOps {
    pub(super) fn upload_vectors(&mut self, weights: &Weights<Matrix>) -> Result<(), GpuError> {
        self.vectors = Vectors::upload(&mut *self.gpu, weights)?;
        let has_bias = self.config.attention_bias == AttentionBias::All;
        if has_bias && matches!(self.exchange, Exchange::Group) {
            for layer in 0..weights.layers.len() {
                self.share_output_bias(layer)?;
            }
        }
        // Kernels read weights before they wait for what is before them.
        self.gpu.wait()
    }

    /// Rank 0 alone has what the output projection adds, and here all add it after they have summed.
    fn share_output_bias(&mut self, layer: usize) -> Result<(), GpuError> {
        let bytes = 4 * self.config.hidden_size;
        let own = match self.vectors.output_bias(layer) {
            Some(bias) => bias,
            None => memory::zeros(&mut *self.gpu, bytes)?,
        };
        let of_ranks = self.gpu.allocate(self.partition.world_size * bytes)?;
        self.gpu.all_gather(own, of_ranks, bytes)?;
        // Rank 0's is the first of them.
        self.vectors.layers[layer].output_bias = Some(of_ranks);
        Ok(())
    }
}
