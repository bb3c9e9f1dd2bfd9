//! The forward pass of every family.

use crate::backend::StepError;
use crate::batch::Batch;
use crate::choose::Wants;
use crate::config::{ModelConfig, Partition};
use crate::ops::{Begun, Ops};
use crate::weights::Weights;

/// One rank's part of a model, with room for the activations of a step.
#[derive(Debug)]
pub struct Model<O: Ops> {
    weights: Weights<O::Matrix>,
    /// The residual stream: `[tokens][hidden]`.
    x: O::Buffer,
    /// Queries: `[tokens][query heads * head_dim]`.
    q: O::Buffer,
    /// What the heads attended to: the same.
    a: O::Buffer,
    /// The inside of the MLP: `[tokens][intermediate]`.
    h: O::Buffer,
}

impl<O: Ops> Model<O> {
    /// A model with these weights of this rank.
    pub fn new(
        ops: &mut O,
        config: &ModelConfig,
        partition: Partition,
        weights: Weights<O::Matrix>,
    ) -> Self {
        let query_width = partition.query_heads(config).len() * config.head_dim;
        ops.prepare(&weights);
        Self {
            weights,
            x: ops.buffer(config.hidden_size),
            q: ops.buffer(query_width),
            a: ops.buffer(query_width),
            h: ops.buffer(partition.intermediate(config).len()),
        }
    }

    /// Computes a pass: the KV cache has its tokens, and the device the logits of the rows that want them.
    ///
    /// # Errors
    /// If the device fails.
    pub fn compute(
        &mut self,
        ops: &mut O,
        batch: &Batch,
        wants: Option<&Wants<'_>>,
    ) -> Result<(), StepError> {
        let Self {
            weights,
            x,
            q,
            a,
            h,
        } = self;
        if ops.begin(batch, wants)? == Begun::UnderWay {
            return Ok(());
        }
        ops.embed(weights, batch, x);
        for layer in &weights.layers {
            ops.queries_keys_values(layer, batch, x, q);
            ops.attend(layer, batch, q, a);
            ops.add_attention_output(layer, batch, a, x);
            ops.gate_and_up(layer, batch, x, h);
            ops.add_mlp_output(layer, batch, h, x);
        }
        ops.logits(weights, batch, x);
        ops.end()
    }

    /// Computes a pass and returns its logits, `[logit_rows][vocab_size]` in rank 0.
    ///
    /// # Panics
    /// If the device fails: a CPU does not.
    pub fn forward<'ops>(&mut self, ops: &'ops mut O, batch: &Batch) -> &'ops [f32] {
        let logits = self.compute(ops, batch, None);
        let logits = logits.and_then(|()| ops.read_logits());
        logits.unwrap_or_else(|error| panic!("{error}"))
    }
}
