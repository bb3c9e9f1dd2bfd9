//! The tensors of a model: one table of names, shapes and splits, from which
//! everything else follows: what a checkpoint has to have, what is put on top
//! of what, and which part of it a rank reads.
//!
//! Names and shapes are those of Hugging Face transformers
//! (`src/transformers/models/llama/modeling_llama.py` and its siblings).

use std::ops::Range;

use crate::config::{AttentionBias, ModelConfig, Partition};

/// A tensor of a checkpoint, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// What it is.
    pub kind: TensorKind,
    /// Rows of a matrix, or values of a vector.
    pub rows: usize,
    /// Columns of a matrix; 1 for a vector.
    pub columns: usize,
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorKind {
    /// A matrix `[out][in]`, or an embedding `[vocabulary][hidden]`.
    Matrix,
    /// The scales of a norm.
    NormScales,
    /// What a projection adds.
    Bias,
}

impl Tensor {
    /// Its shape in the checkpoint.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        match self.kind {
            TensorKind::Matrix => vec![self.rows, self.columns],
            TensorKind::NormScales | TensorKind::Bias => vec![self.rows],
        }
    }
}

/// The part of a tensor that one rank has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The tensor, whole.
    pub tensor: Tensor,
    /// The rows of it.
    pub rows: Range<usize>,
    /// The columns of those rows.
    pub columns: Range<usize>,
}

impl Piece {
    /// Values in it.
    #[must_use]
    pub fn values(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}

/// A width of the model.
#[derive(Clone, Copy, Debug)]
enum Width {
    Hidden,
    Intermediate,
    Vocabulary,
    QueryHeads,
    KeyValueHeads,
    Head,
}

impl Width {
    fn whole(self, config: &ModelConfig) -> usize {
        match self {
            Self::Hidden => config.hidden_size,
            Self::Intermediate => config.intermediate_size,
            Self::Vocabulary => config.vocab_size,
            Self::QueryHeads => config.query_width(),
            Self::KeyValueHeads => config.key_value_width(),
            Self::Head => config.head_dim,
        }
    }

    /// A rank's part. Heads are not cut, and what all ranks work on is not split.
    fn part(self, config: &ModelConfig, partition: Partition) -> Range<usize> {
        let of_heads =
            |heads: Range<usize>| heads.start * config.head_dim..heads.end * config.head_dim;
        match self {
            Self::Hidden | Self::Head => 0..self.whole(config),
            Self::Intermediate => partition.intermediate(config),
            Self::Vocabulary => partition.vocabulary(config),
            Self::QueryHeads => of_heads(partition.query_heads(config)),
            Self::KeyValueHeads => of_heads(partition.key_value_heads(config)),
        }
    }
}

/// A row of the table: a tensor by the end of its name.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    kind: TensorKind,
    rows: Width,
    columns: Option<Width>,
}

const fn matrix(name: &'static str, rows: Width, columns: Width) -> Row {
    Row {
        name,
        kind: TensorKind::Matrix,
        rows,
        columns: Some(columns),
    }
}

const fn vector(name: &'static str, kind: TensorKind, rows: Width) -> Row {
    Row {
        name,
        kind,
        rows,
        columns: None,
    }
}

/// When a model has a tensor.
#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    /// If query, key and value have biases.
    QueryKeyValueBias,
    /// If the attention's output has one. Ranks add up what they have, so the first alone has it.
    OutputBias,
    QueryKeyNorm,
    /// If the output projection is not the embedding.
    Untied,
}

/// What a rank has as one matrix or one vector: tensors on top of each other.
#[derive(Debug)]
pub(super) struct Slot {
    rows: &'static [Row],
    when: When,
}

use TensorKind::{Bias, NormScales};
use Width::{Head, Hidden, Intermediate, KeyValueHeads, QueryHeads, Vocabulary};

const fn slot(rows: &'static [Row], when: When) -> Slot {
    Slot { rows, when }
}

/// The name of the embedding, which may be the output projection as well.
pub(super) const EMBEDDING_NAME: &str = "model.embed_tokens.weight";

/// The name of the output projection.
pub(super) const LM_HEAD_NAME: &str = "lm_head.weight";

pub(super) const EMBEDDING: Slot =
    slot(&[matrix(EMBEDDING_NAME, Vocabulary, Hidden)], When::Always);
pub(super) const NORM: Slot = slot(
    &[vector("model.norm.weight", NormScales, Hidden)],
    When::Always,
);
pub(super) const LM_HEAD: Slot = slot(&[matrix(LM_HEAD_NAME, Vocabulary, Hidden)], When::Untied);

pub(super) const ATTENTION_NORM: Slot = slot(
    &[vector("input_layernorm.weight", NormScales, Hidden)],
    When::Always,
);
pub(super) const QKV: Slot = slot(
    &[
        matrix("self_attn.q_proj.weight", QueryHeads, Hidden),
        matrix("self_attn.k_proj.weight", KeyValueHeads, Hidden),
        matrix("self_attn.v_proj.weight", KeyValueHeads, Hidden),
    ],
    When::Always,
);
pub(super) const QKV_BIAS: Slot = slot(
    &[
        vector("self_attn.q_proj.bias", Bias, QueryHeads),
        vector("self_attn.k_proj.bias", Bias, KeyValueHeads),
        vector("self_attn.v_proj.bias", Bias, KeyValueHeads),
    ],
    When::QueryKeyValueBias,
);
pub(super) const QUERY_NORM: Slot = slot(
    &[vector("self_attn.q_norm.weight", NormScales, Head)],
    When::QueryKeyNorm,
);
pub(super) const KEY_NORM: Slot = slot(
    &[vector("self_attn.k_norm.weight", NormScales, Head)],
    When::QueryKeyNorm,
);
pub(super) const OUTPUT: Slot = slot(
    &[matrix("self_attn.o_proj.weight", Hidden, QueryHeads)],
    When::Always,
);
pub(super) const OUTPUT_BIAS: Slot = slot(
    &[vector("self_attn.o_proj.bias", Bias, Hidden)],
    When::OutputBias,
);
pub(super) const MLP_NORM: Slot = slot(
    &[vector(
        "post_attention_layernorm.weight",
        NormScales,
        Hidden,
    )],
    When::Always,
);
pub(super) const GATE_UP: Slot = slot(
    &[
        matrix("mlp.gate_proj.weight", Intermediate, Hidden),
        matrix("mlp.up_proj.weight", Intermediate, Hidden),
    ],
    When::Always,
);
pub(super) const DOWN: Slot = slot(
    &[matrix("mlp.down_proj.weight", Hidden, Intermediate)],
    When::Always,
);

/// The slots of every layer.
const LAYER: [&Slot; 10] = [
    &ATTENTION_NORM,
    &QKV,
    &QKV_BIAS,
    &QUERY_NORM,
    &KEY_NORM,
    &OUTPUT,
    &OUTPUT_BIAS,
    &MLP_NORM,
    &GATE_UP,
    &DOWN,
];

/// The slots that a model has once.
const OUTSIDE: [&Slot; 3] = [&EMBEDDING, &NORM, &LM_HEAD];

impl Slot {
    /// Whether a model has it.
    fn is_in(&self, config: &ModelConfig) -> bool {
        match self.when {
            When::Always => true,
            When::QueryKeyValueBias => config.attention_bias != AttentionBias::None,
            When::OutputBias => config.attention_bias == AttentionBias::All,
            When::QueryKeyNorm => config.query_key_norm,
            When::Untied => !config.tie_word_embeddings,
        }
    }

    /// Whether a rank of a model has it.
    pub(super) fn is_on(&self, config: &ModelConfig, partition: Partition) -> bool {
        let is_skipped = matches!(self.when, When::OutputBias) && partition.rank != 0;
        self.is_in(config) && !is_skipped
    }

    /// What a rank reads for it, top to bottom; `layer` is `None` for what a model has once.
    pub(super) fn pieces(
        &self,
        config: &ModelConfig,
        partition: Partition,
        layer: Option<usize>,
    ) -> impl Iterator<Item = Piece> {
        let rows = self.rows.iter();
        rows.map(move |row| row.piece(config, partition, layer))
    }
}

impl Row {
    fn piece(&self, config: &ModelConfig, partition: Partition, layer: Option<usize>) -> Piece {
        let whole = |width: Width| width.whole(config);
        let prefix = layer.map_or(String::new(), |layer| format!("model.layers.{layer}."));
        let tensor = Tensor {
            name: prefix + self.name,
            kind: self.kind,
            rows: whole(self.rows),
            columns: self.columns.map_or(1, whole),
        };
        Piece {
            tensor,
            rows: self.rows.part(config, partition),
            columns: self
                .columns
                .map_or(0..1, |width| width.part(config, partition)),
        }
    }
}

/// Everything that a rank of a model reads.
pub fn pieces(config: &ModelConfig, partition: Partition) -> impl Iterator<Item = Piece> {
    let outside = OUTSIDE.iter().map(|slot| (*slot, None));
    let layers = 0..config.num_hidden_layers;
    let inside = layers.flat_map(|layer| LAYER.iter().map(move |slot| (*slot, Some(layer))));
    let slots = outside.chain(inside);
    slots
        .filter(move |(slot, _)| slot.is_on(config, partition))
        .flat_map(move |(slot, layer)| slot.pieces(config, partition, layer))
}

/// Everything that a checkpoint of a model has to have.
pub fn tensors(config: &ModelConfig) -> impl Iterator<Item = Tensor> {
    pieces(config, Partition::WHOLE).map(|piece| piece.tensor)
}
