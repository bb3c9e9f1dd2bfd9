//! A step on its way: what kind it is, where its inputs are, whether it was recorded.

use super::ahead::Running;
use super::choices::SamplingArea;
use super::{CudaOps, STEPS_AHEAD_MAX};
use crate::batch::Batch;
use crate::choose::Wants;
use crate::cuda::buckets::bucket;
use crate::cuda::gpu::{Address, GpuError, Recording};
use crate::cuda::inputs::{Array, Inputs, Layout};
use crate::cuda::kernels::attention_decode_plan::plan_words_max;
use crate::cuda::kernels::sample::{Rows, Stages};
use crate::cuda::kernels::skinny::TOKENS_MAX;
use crate::cuda::memory;
use crate::ops::Begun;

/// A kind of step that is recorded: all steps of the kind make the same launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The rows that it is padded to.
    pub(super) bucket: usize,
    /// Whether an adapter may add something.
    pub(super) adapts: bool,
    /// What is sampled on the GPU, if it is sampled there.
    pub(super) stages: Option<Stages>,
}

/// The memory of inputs and outputs of a kind of steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    layout: Layout,
    inputs: Address,
    pub(super) sampling: SamplingArea,
}

/// The step that is under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pass {
    /// Rows that are computed, those of padding included.
    pub(super) rows: usize,
    /// The first of them that are one token of a sequence each.
    pub(super) decodes: usize,
    /// Sequences after those.
    pub(super) chunks: usize,
    /// Rows of logits, those of padding included.
    pub(super) logits: usize,
    /// Rows of logits that are wanted.
    pub(super) logits_wanted: usize,
    /// Whether those are all rows, in order.
    pub(super) wants_all: bool,
    /// Whether norms are deferred: see `forward.rs`.
    pub(super) is_fused: bool,
    /// Whether an adapter may add something.
    pub(super) adapts: bool,
    /// What is sampled on the GPU, if it is sampled there.
    pub(super) stages: Option<Stages>,
    /// The memory of sampling.
    pub(super) sampling: Option<SamplingArea>,
    /// Where what is.
    pub(super) layout: Layout,
    inputs: Address,
    /// What it is recorded as, if it is.
    pub(super) key: Option<Key>,
}

impl Pass {
    pub(super) fn input(&self, array: Array) -> Address {
        self.layout.address(self.inputs, array)
    }
}

impl CudaOps {
    pub(super) fn begin_pass(
        &mut self,
        batch: &Batch,
        wants: Option<&Wants<'_>>,
    ) -> Result<Begun, GpuError> {
        if let Some(lost) = self.failure.take_if(|failure| failure.is_fatal()) {
            self.failure = Some(lost.clone());
            return Err(lost);
        }
        self.failure = None;
        if std::mem::take(&mut self.is_recording) {
            // A panic came in between, and what was recorded until then is of no use.
            let _ = self.gpu.end_recording();
        }
        if let Some(wants) = wants
            && let Some(running) = self.running.take_if(|running| running.is(batch, wants))
        {
            self.pass.logits_wanted = wants.wants.len();
            self.run_ahead(running, wants.ahead)?;
            return Ok(Begun::UnderWay);
        }
        self.forget_running();
        self.pass = self.plan_pass(batch, wants)?;
        self.normed = super::forward::Normed::No;
        let Some(key) = self.pass.key else {
            return Ok(Begun::Compute);
        };
        if let Some(recording) = self.recordings.get(&key) {
            let recording = *recording;
            self.replay(recording)?;
            self.begin_running(key, batch, wants)?;
            return Ok(Begun::UnderWay);
        }
        if self.seen.contains(&key) && !self.unrecordable.contains(&key) {
            self.gpu.begin_recording()?;
            self.is_recording = true;
        }
        Ok(Begun::Compute)
    }

    pub(super) fn end_pass(&mut self) -> Result<(), GpuError> {
        if std::mem::take(&mut self.is_recording) {
            // A recording has to end even if what it recorded is of no use.
            let recording = self.gpu.end_recording();
            let key = self.pass.key.expect("only steps with a key are recorded");
            let failure = self.failure.take();
            let recording: Recording = match (failure, recording) {
                (None, Ok(recording)) => recording,
                (Some(error), _) | (None, Err(error)) => {
                    // The next of its kind is computed launch by launch.
                    self.unrecordable.insert(key);
                    return Err(error);
                }
            };
            self.recordings.insert(key, recording);
            self.replay(recording)?;
        }
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.seen.extend(self.pass.key);
        self.read_outputs()
    }

    /// What a step of this batch is, with its inputs on the GPU.
    fn plan_pass(&mut self, batch: &Batch, wants: Option<&Wants<'_>>) -> Result<Pass, GpuError> {
        let decodes = leading_decodes(batch);
        let wants_each = batch.logit_rows.iter().copied().eq(0..batch.len() as u32);
        let adapts = batch.sequences.iter().any(|it| it.adapter.is_some());
        let bucket = bucket(batch.len())
            .filter(|_| decodes == batch.sequences.len() && wants_each && decodes > 0);
        let area = self.area(bucket)?;
        let rows = bucket.unwrap_or(batch.len());
        let logits = bucket.unwrap_or(batch.logit_rows.len());
        let told = wants.and_then(|wants| self.sampling_rows(wants, logits));
        let stages = told.as_ref().map(Rows::stages);
        let pass = Pass {
            rows,
            decodes: bucket.unwrap_or(decodes),
            chunks: batch.sequences.len() - decodes,
            logits,
            logits_wanted: batch.logit_rows.len(),
            wants_all: wants_each && bucket.is_none_or(|bucket| bucket == rows),
            is_fused: rows <= TOKENS_MAX && self.is_alone() && !adapts,
            adapts,
            stages,
            sampling: Some(area.sampling),
            layout: area.layout,
            inputs: area.inputs,
            key: bucket.map(|bucket| Key {
                bucket,
                adapts,
                stages,
            }),
        };
        let mut inputs = Inputs::new(area.layout, batch, self.limits.block_size);
        self.plan_decodes(&batch.sequences[..decodes], &mut inputs);
        self.plan_chunks(&batch.sequences[decodes..], decodes, &mut inputs);
        self.gpu.write(area.inputs, &inputs.bytes())?;
        if let Some(told) = told {
            self.write_sampling(&area, &told)?;
        }
        Ok(pass)
    }

    /// The memory of a bucket, or of steps that are not recorded.
    fn area(&mut self, bucket: Option<usize>) -> Result<Area, GpuError> {
        if let Some(area) = self.areas.get(&bucket) {
            return Ok(*area);
        }
        let limits = &self.limits;
        let rows = bucket.unwrap_or(limits.max_batched_tokens);
        let sequences = bucket.unwrap_or(limits.max_num_seqs);
        let (units, blocks) = (self.kernels.decode.units(), self.kernels.decode.blocks());
        let decode_work = plan_words_max(sequences, units, blocks);
        let has_window = self.config.sliding_window.is_some();
        let layout = Layout {
            rows,
            sequences,
            logits: bucket.unwrap_or(self.scratch.logit_rows),
            table_stride: limits.max_model_len.div_ceil(limits.block_size),
            decode_work,
            windowed_decode_work: if has_window { decode_work } else { 0 },
            prefill_work: match bucket {
                Some(_) => 0,
                None => self.prefill_words_max(),
            },
        };
        let area = Area {
            layout,
            inputs: memory::zeros(&mut *self.gpu, 4 * layout.words())?,
            sampling: SamplingArea::new(&mut *self.gpu, layout.logits)?,
        };
        self.areas.insert(bucket, area);
        Ok(area)
    }

    /// A recorded step was begun, and perhaps those after it.
    fn begin_running(
        &mut self,
        key: Key,
        batch: &Batch,
        wants: Option<&Wants<'_>>,
    ) -> Result<(), GpuError> {
        self.read_outputs()?;
        let Some(wants) = wants.filter(|wants| wants.ahead > 0 && key.stages.is_some()) else {
            return Ok(());
        };
        let Some(mut running) = Running::new(key, batch, wants) else {
            return Ok(());
        };
        running.queue.extend(self.reading.take());
        self.run_ahead(running, wants.ahead)
    }

    /// Begins as many steps more as are promised, and are of use.
    fn run_ahead(&mut self, mut running: Running, promised: u32) -> Result<(), GpuError> {
        let queued = 1 + promised.min(STEPS_AHEAD_MAX) as usize;
        while running.queue.len() < queued {
            self.replay(self.recordings[&running.key])?;
            self.read_outputs()?;
            running.queue.extend(self.reading.take());
        }
        self.reading = running.queue.pop_front();
        self.running = Some(running);
        Ok(())
    }
}

/// The sequences at the front that are one token each.
fn leading_decodes(batch: &Batch) -> usize {
    batch.sequences.iter().take_while(|it| it.len == 1).count()
}
