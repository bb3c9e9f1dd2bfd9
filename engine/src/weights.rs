//! The weights of one rank, in the form that its operations want them.

use half::bf16;

/// The weights of one rank of a model. `M` is a matrix `[out][in]` as the device keeps it.
#[derive(Clone, Debug)]
pub struct Weights<M> {
    /// The embedding, this rank's rows of the vocabulary: `[vocabulary][hidden]`.
    pub embedding: M,
    /// The decoder layers.
    pub layers: Vec<Layer<M>>,
    /// Scales of the last norm: `[hidden]`.
    pub norm: Vec<f32>,
    /// The output projection, this rank's rows of the vocabulary; `None` if it is the embedding.
    pub lm_head: Option<M>,
}

/// One decoder layer.
#[derive(Clone, Debug)]
pub struct Layer<M> {
    /// Its place, from 0.
    pub index: usize,
    /// Scales of the norm before the attention: `[hidden]`.
    pub attention_norm: Vec<f32>,
    /// Query, key and value projections on top of each other:
    /// `[(query_heads + 2 * key_value_heads) * head_dim][hidden]`, of this rank's heads.
    pub qkv: M,
    /// What they add: as many as `qkv` has rows.
    pub qkv_bias: Option<Vec<f32>>,
    /// Scales of the norm of each query head and each key head: `[head_dim]` each.
    pub query_key_norm: Option<(Vec<f32>, Vec<f32>)>,
    /// The attention's output projection: `[hidden][query_heads * head_dim]`.
    pub output: M,
    /// What it adds, once for all ranks together: `[hidden]`, in rank 0 only.
    pub output_bias: Option<Vec<f32>>,
    /// Scales of the norm before the MLP: `[hidden]`.
    pub mlp_norm: Vec<f32>,
    /// Gate and up projections on top of each other: `[2 * intermediate][hidden]`,
    /// all rows of the gate first, of this rank's columns of the MLP.
    pub gate_up: M,
    /// The MLP's output projection: `[hidden][intermediate]`.
    pub down: M,
}

impl<M> Weights<M> {
    /// The output projection, this rank's rows of the vocabulary.
    #[must_use]
    pub fn output_projection(&self) -> &M {
        self.lm_head.as_ref().unwrap_or(&self.embedding)
    }
}

/// A matrix on its way from a checkpoint to a device, row-major: `[rows][columns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostMatrix {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// The values, row after row.
    pub values: HostValues,
}

/// The values of a [`HostMatrix`]. What a checkpoint has as f16 comes as f32, which holds it exactly.
#[derive(Clone, Debug, PartialEq)]
pub enum HostValues {
    /// 32 bits.
    F32(Vec<f32>),
    /// 16 bits.
    Bf16(Vec<bf16>),
}

impl HostMatrix {
    /// The value at a row and column.
    #[must_use]
    pub fn at(&self, row: usize, column: usize) -> f32 {
        let place = row * self.columns + column;
        match &self.values {
            HostValues::F32(values) => values[place],
            HostValues::Bf16(values) => values[place].to_f32(),
        }
    }

    /// The values, row after row.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.values {
            HostValues::F32(values) => values.clone(),
            HostValues::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
        }
    }
}

/// A LoRA adapter (Hu et al. 2021), in the form in which its file has it, before it is split over ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Its name.
    pub name: String,
    /// The width between its two matrices.
    pub rank: usize,
    /// What its output is multiplied with: `alpha / rank`, or `alpha / sqrt(rank)` with rslora.
    pub scale: f32,
    /// What it adds to each layer.
    pub layers: Vec<AdapterLayer<HostMatrix>>,
}

/// What an adapter adds to the projections of one layer: `scale * B (A x)` each.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterLayer<M> {
    /// To the query projection.
    pub query: Option<LowRank<M>>,
    /// To the key projection.
    pub key: Option<LowRank<M>>,
    /// To the value projection.
    pub value: Option<LowRank<M>>,
    /// To the attention's output projection.
    pub output: Option<LowRank<M>>,
    /// To the MLP's gate.
    pub gate: Option<LowRank<M>>,
    /// To the MLP's up projection.
    pub up: Option<LowRank<M>>,
    /// To the MLP's output projection.
    pub down: Option<LowRank<M>>,
}

/// Two matrices whose product is added to a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank<M> {
    /// `A`: `[rank][in]`.
    pub down: M,
    /// `B`: `[out][rank]`.
    pub up: M,
}

impl<M> Default for AdapterLayer<M> {
    fn default() -> Self {
        Self {
            query: None,
            key: None,
            value: None,
            output: None,
            gate: None,
            up: None,
            down: None,
        }
    }
}
