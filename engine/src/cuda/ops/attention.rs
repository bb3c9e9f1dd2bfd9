//! Attention of a step: shared out on the host, and launched layer by layer.

use super::CudaOps;
use crate::batch::BatchSequence;
use crate::cuda::gpu::GpuError;
use crate::cuda::inputs::{Array, Inputs};
use crate::cuda::kernels::attention_decode::DecodeCall;
use crate::cuda::kernels::attention_decode_plan::{DecodeQuery, plan};
use crate::cuda::kernels::attention_prefill::PrefillCall;
use crate::cuda::kernels::attention_prefill_plan::{self, PrefillSequence};
use crate::cuda::memory::Buffer;

impl CudaOps {
    /// Shares the decode attention out.
    pub(super) fn plan_decodes(&self, sequences: &[BatchSequence], inputs: &mut Inputs) {
        let queries: Vec<_> = sequences
            .iter()
            .enumerate()
            .map(|(sequence, it)| DecodeQuery {
                row: it.first,
                sequence,
                context: it.past + 1,
            })
            .collect();
        let (units, blocks) = (self.kernels.decode.units(), self.kernels.decode.blocks());
        let mut fill = |array, window| {
            let words = plan(&queries, units, window, blocks).words();
            inputs.array(array)[..words.len()].copy_from_slice(&words);
        };
        let window = self.config.sliding_window;
        if window.is_none_or(|window| window.first_layer > 0) {
            fill(Array::DecodeWork, None);
        }
        if let Some(window) = window {
            fill(Array::WindowedDecodeWork, Some(window.tokens));
        }
    }

    /// Cuts the chunks, which come after so many other sequences, into tiles.
    pub(super) fn plan_chunks(
        &mut self,
        sequences: &[BatchSequence],
        before: usize,
        inputs: &mut Inputs,
    ) {
        let chunks: Vec<_> = (before..)
            .zip(sequences)
            .map(|(sequence, it)| PrefillSequence {
                sequence,
                first: it.first,
                len: it.len,
                past: it.past,
            })
            .collect();
        // In which order tiles are begun follows from what most layers see.
        let window = self.config.window(self.config.num_hidden_layers - 1);
        self.chunks = self.kernels.prefill.plan(&chunks, window);
        let words = self.chunks.words();
        inputs.array(Array::PrefillWork)[..words.len()].copy_from_slice(&words);
    }

    /// The most words that [`CudaOps::plan_chunks`] writes.
    pub(super) fn prefill_words_max(&self) -> usize {
        let limits = &self.limits;
        attention_prefill_plan::plan_words_max(
            &self.shape,
            limits.max_batched_tokens,
            limits.max_num_seqs,
        )
    }

    /// Attention of the rows that are one token of a sequence.
    pub(super) fn attend_decodes(
        &mut self,
        layer: usize,
        q: Buffer,
        a: Buffer,
    ) -> Result<(), GpuError> {
        if self.pass.decodes == 0 {
            return Ok(());
        }
        let window = self.config.window(layer);
        let work = match window {
            Some(_) => Array::WindowedDecodeWork,
            None => Array::DecodeWork,
        };
        let call = DecodeCall {
            q: q.address,
            cache: self.cache[layer],
            tables: self.input(Array::Tables),
            table_stride: self.pass.layout.table_stride,
            positions: self.input(Array::Positions),
            work: self.input(work),
            window,
            a: a.address,
            a_stride: a.stride,
            workspace: self.scratch.decode_workspace,
            counters: self.scratch.decode_counters,
        };
        self.kernels.decode.enqueue(&mut *self.gpu, &call)
    }

    /// Attention of the rows of chunks.
    pub(super) fn attend_chunks(
        &mut self,
        layer: usize,
        q: Buffer,
        a: Buffer,
    ) -> Result<(), GpuError> {
        if self.pass.chunks == 0 {
            return Ok(());
        }
        let call = PrefillCall {
            plan: &self.chunks,
            work: self.pass.input(Array::PrefillWork),
            q: q.address,
            cache: self.cache[layer],
            tables: self.pass.input(Array::Tables),
            table_stride: self.pass.layout.table_stride,
            window: self.config.window(layer),
            a: a.address,
            a_stride: a.stride,
        };
        self.kernels.prefill.enqueue(&mut *self.gpu, &call)
    }
}
