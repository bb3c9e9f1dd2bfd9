//! From tensors to the weights of one rank: parts read, put on top of each
//! other, and handed to the device.

use std::sync::mpsc;
use std::thread;

use half::bf16;

use crate::config::{Dtype, ModelConfig, Partition};
use crate::ops::Role;
use crate::weights::{HostMatrix, HostValues, Layer, Weights};

use super::error::CheckpointError;
use super::layout::{self, Piece, Slot, Tensor};

/// Where tensors come from: files, or a formula.
pub trait TensorSource: Sync {
    /// Checks, without reading values, that there is all that a model needs. [`load`] does that first.
    ///
    /// # Errors
    /// If something is missing, or not as it should be.
    fn check(&self, config: &ModelConfig) -> Result<(), CheckpointError>;

    /// The number format in which a tensor is stored.
    ///
    /// # Errors
    /// If there is no such tensor, or its format is not supported.
    fn dtype(&self, tensor: &Tensor) -> Result<Dtype, CheckpointError>;

    /// Appends part of a tensor to `values`, row after row, converted to their format.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&self, piece: &Piece, values: &mut HostValues) -> Result<(), CheckpointError>;
}

/// The format in which matrices are handed over. Norms and biases are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightFormat {
    /// As they are stored; f16 as f32, which holds it exactly.
    #[default]
    AsStored,
    /// 32 bits.
    F32,
    /// 16 bits, rounded to the nearest, ties to even.
    Bf16,
}

/// Loads the weights of one rank. `pack` brings each matrix into the device's
/// form; it is called on this thread, while another reads ahead, by a layer at most.
///
/// # Errors
/// If the model cannot be split so, or the source cannot be read.
pub fn load<M>(
    source: &impl TensorSource,
    config: &ModelConfig,
    partition: Partition,
    format: WeightFormat,
    mut pack: impl FnMut(HostMatrix, Role) -> M,
) -> Result<Weights<M>, CheckpointError> {
    Partition::check(config, partition.world_size)?;
    source.check(config)?;
    let reader = Reader {
        source,
        config,
        partition,
        format,
    };
    thread::scope(|scope| {
        // Nothing waits in the channel: two layers at most are in memory before they are packed.
        let (sender, layers) = mpsc::sync_channel(0);
        scope.spawn(move || {
            let read = (0..config.num_hidden_layers).map(|index| reader.layer(index));
            for layer in read {
                // Whoever listens has met an error, and ends.
                let is_last = layer.is_err();
                if sender.send(layer).is_err() || is_last {
                    return;
                }
            }
        });
        let embedding = pack(reader.matrix(&layout::EMBEDDING, None)?, Role::Embedding);
        let norm = reader.vector(&layout::NORM, None)?;
        let lm_head = reader.optional(&layout::LM_HEAD, Reader::matrix, None)?;
        let lm_head = lm_head.map(|matrix| pack(matrix, Role::Projection));
        let layers = layers.into_iter();
        let layers: Result<_, _> = layers
            .map(|layer| layer.map(|layer| packed(layer, &mut pack)))
            .collect();
        Ok(Weights {
            embedding,
            layers: layers?,
            norm,
            lm_head,
        })
    })
}

/// Bytes of the weights of one rank, matrices in `format` and all else in f32.
/// `stored` is the number format of the checkpoint.
#[must_use]
pub fn weight_bytes(
    config: &ModelConfig,
    partition: Partition,
    stored: Dtype,
    format: WeightFormat,
) -> u64 {
    let matrix = match host_dtype(stored, format) {
        HostDtype::F32 => 4,
        HostDtype::Bf16 => 2,
    };
    let bytes = |piece: Piece| {
        let size = match piece.tensor.kind {
            layout::TensorKind::Matrix => matrix,
            layout::TensorKind::NormScales | layout::TensorKind::Bias => 4,
        };
        piece.values() as u64 * size
    };
    layout::pieces(config, partition).map(bytes).sum()
}

fn packed<M>(layer: Layer<HostMatrix>, pack: &mut impl FnMut(HostMatrix, Role) -> M) -> Layer<M> {
    Layer {
        index: layer.index,
        attention_norm: layer.attention_norm,
        qkv: pack(layer.qkv, Role::Projection),
        qkv_bias: layer.qkv_bias,
        query_key_norm: layer.query_key_norm,
        output: pack(layer.output, Role::Projection),
        output_bias: layer.output_bias,
        mlp_norm: layer.mlp_norm,
        gate_up: pack(layer.gate_up, Role::GateUp),
        down: pack(layer.down, Role::Projection),
    }
}

/// What a matrix on its way to the device consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostDtype {
    F32,
    Bf16,
}

fn host_dtype(stored: Dtype, format: WeightFormat) -> HostDtype {
    match (format, stored) {
        (WeightFormat::Bf16, _) | (WeightFormat::AsStored, Dtype::Bf16) => HostDtype::Bf16,
        (WeightFormat::F32, _) | (WeightFormat::AsStored, _) => HostDtype::F32,
    }
}

impl HostDtype {
    /// Room for so many values.
    fn room(self, values: usize) -> HostValues {
        match self {
            Self::F32 => HostValues::F32(Vec::with_capacity(values)),
            Self::Bf16 => HostValues::Bf16(Vec::<bf16>::with_capacity(values)),
        }
    }
}

/// Reads slots of one rank.
#[derive(Debug)]
struct Reader<'a, S> {
    source: &'a S,
    config: &'a ModelConfig,
    partition: Partition,
    format: WeightFormat,
}

impl<S> Clone for Reader<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Reader<'_, S> {}

impl<S: TensorSource> Reader<'_, S> {
    fn layer(&self, index: usize) -> Result<Layer<HostMatrix>, CheckpointError> {
        let layer = Some(index);
        let query_norm = self.optional(&layout::QUERY_NORM, Self::vector, layer)?;
        let key_norm = self.optional(&layout::KEY_NORM, Self::vector, layer)?;
        Ok(Layer {
            index,
            attention_norm: self.vector(&layout::ATTENTION_NORM, layer)?,
            qkv: self.matrix(&layout::QKV, layer)?,
            qkv_bias: self.optional(&layout::QKV_BIAS, Self::vector, layer)?,
            query_key_norm: query_norm.zip(key_norm),
            output: self.matrix(&layout::OUTPUT, layer)?,
            output_bias: self.optional(&layout::OUTPUT_BIAS, Self::vector, layer)?,
            mlp_norm: self.vector(&layout::MLP_NORM, layer)?,
            gate_up: self.matrix(&layout::GATE_UP, layer)?,
            down: self.matrix(&layout::DOWN, layer)?,
        })
    }

    /// A slot that not every model, and not every rank, has.
    fn optional<T>(
        &self,
        slot: &Slot,
        read: impl Fn(&Self, &Slot, Option<usize>) -> Result<T, CheckpointError>,
        layer: Option<usize>,
    ) -> Result<Option<T>, CheckpointError> {
        let is_on = slot.is_on(self.config, self.partition);
        is_on.then(|| read(self, slot, layer)).transpose()
    }

    fn matrix(&self, slot: &Slot, layer: Option<usize>) -> Result<HostMatrix, CheckpointError> {
        let pieces: Vec<_> = slot.pieces(self.config, self.partition, layer).collect();
        let dtype = self.host_dtype(&pieces)?;
        let mut values = dtype.room(pieces.iter().map(Piece::values).sum());
        for piece in &pieces {
            self.source.read(piece, &mut values)?;
        }
        Ok(HostMatrix {
            rows: pieces.iter().map(|piece| piece.rows.len()).sum(),
            columns: pieces[0].columns.len(),
            values,
        })
    }

    fn vector(&self, slot: &Slot, layer: Option<usize>) -> Result<Vec<f32>, CheckpointError> {
        let mut values = HostValues::F32(Vec::new());
        for piece in slot.pieces(self.config, self.partition, layer) {
            self.source.read(&piece, &mut values)?;
        }
        match values {
            HostValues::F32(values) => Ok(values),
            HostValues::Bf16(_) => unreachable!("sources keep the format that they append to"),
        }
    }

    /// What parts are put together in: where they are stored differently, the wider format.
    fn host_dtype(&self, pieces: &[Piece]) -> Result<HostDtype, CheckpointError> {
        for piece in pieces {
            let stored = self.source.dtype(&piece.tensor)?;
            if host_dtype(stored, self.format) == HostDtype::F32 {
                return Ok(HostDtype::F32);
            }
        }
        Ok(HostDtype::Bf16)
    }
}
