//! From logits to tokens: on the GPU, or on the host where the GPU cannot.

use super::pass::Area;
use super::{CudaOps, Exchange};
use crate::choose::{Choice, Wants, choose};
use crate::cuda::gpu::{Address, Gpu, GpuError};
use crate::cuda::inputs::Array;
use crate::cuda::kernels::advance::AdvanceCall;
use crate::cuda::kernels::sample::{OUTCOME_BYTES, ROW_BYTES, Rows, SampleCall, outcome};
use crate::cuda::memory;

/// Rows of a step whose logits may be changed (bans, biases, penalties) before the host has to sample.
pub(super) const ADJUSTED_ROWS: usize = 64;

/// Room for the lists of a step's rows (bytes).
pub(super) const LISTS_BYTES: usize = 16 << 20;

/// The memory of sampling.
#[derive(Clone, Copy, Debug)]
pub(super) struct SamplingArea {
    parameters: Address,
    outcomes: Address,
    /// What [`AdvanceCall`] counts and writes beside; nobody reads it.
    ring: Address,
    step: Address,
}

impl SamplingArea {
    pub(super) fn new(gpu: &mut dyn Gpu, rows: usize) -> Result<Self, GpuError> {
        Ok(Self {
            parameters: memory::zeros(gpu, rows * ROW_BYTES)?,
            outcomes: memory::zeros(gpu, rows * OUTCOME_BYTES)?,
            ring: memory::zeros(gpu, rows * 8)?,
            step: memory::zeros(gpu, 4)?,
        })
    }
}

impl CudaOps {
    /// What the GPU is told to sample; `None` if the host has to.
    pub(super) fn sampling_rows(&self, wants: &Wants<'_>, rows: usize) -> Option<Rows> {
        if matches!(self.exchange, Exchange::Group) {
            // Each rank has a part of the logits; they are put together on the host.
            return None;
        }
        let mut told = Rows::new(self.config.vocab_size, ADJUSTED_ROWS);
        for want in wants.wants {
            let row = &wants.rows[want.row];
            match row.known.get(want.place) {
                Some(known) => told
                    .push_scored(*known, row.prompt_logprobs.unwrap_or(0))
                    .ok()?,
                // A batch goes on by itself within a block at most.
                None => {
                    let more = self.limits.block_size;
                    told.push_sampled(row.sample.as_ref()?, more, usize::MAX)
                        .ok()?;
                }
            }
        }
        while told.len() < rows {
            told.push_none();
        }
        (told.lists().len() <= LISTS_BYTES).then_some(told)
    }

    /// Brings the rows to the GPU.
    pub(super) fn write_sampling(&mut self, area: &Area, rows: &Rows) -> Result<(), GpuError> {
        self.gpu
            .write(area.sampling.parameters, rows.parameters())?;
        let lists = rows.lists();
        if lists.is_empty() {
            return Ok(());
        }
        self.gpu.write(self.scratch.lists, &lists)
    }

    /// Samples what is to be sampled on the GPU, and makes the tokens the inputs of the next step.
    pub(super) fn sample(&mut self) -> Result<(), GpuError> {
        let (pass, Some(stages)) = (self.pass, self.pass.stages) else {
            return Ok(());
        };
        let area = pass
            .sampling
            .expect("a step that samples has memory for it");
        let call = SampleCall {
            rows: pass.logits,
            logits: self.scratch.logits,
            parameters: area.parameters,
            lists: self.scratch.lists,
            outcomes: area.outcomes,
            stages,
        };
        self.kernels.sampler.enqueue(&mut *self.gpu, &call)?;
        if pass.key.is_none() {
            return Ok(());
        }
        let call = AdvanceCall {
            rows: pass.rows,
            outcomes: area.outcomes,
            parameters: area.parameters,
            lists: self.scratch.lists,
            tokens: pass.input(Array::Tokens),
            positions: pass.input(Array::Positions),
            slots: pass.input(Array::Slots),
            tables: pass.input(Array::Tables),
            table_stride: pass.layout.table_stride,
            block_size: self.limits.block_size,
            ring: area.ring,
            outcome_ring: Address::NONE,
            ring_steps: 1,
            step: area.step,
        };
        self.kernels.advance.enqueue(&mut *self.gpu, &call)
    }

    /// Begins to read what came of a step.
    pub(super) fn read_outputs(&mut self) -> Result<(), GpuError> {
        let Some(area) = self.pass.sampling.filter(|_| self.pass.stages.is_some()) else {
            return Ok(());
        };
        let bytes = self.pass.logits_wanted * OUTCOME_BYTES;
        if bytes > 0 {
            self.reading = Some(self.gpu.read(area.outcomes, bytes)?);
        }
        Ok(())
    }

    /// What is wanted of the step that has ended.
    pub(super) fn choices(&mut self, wants: &Wants<'_>) -> Result<Vec<Choice>, GpuError> {
        let Some(reading) = self.reading.take() else {
            self.fetch_logits()?;
            return Ok(choose(&self.host_logits, wants));
        };
        let bytes = self.gpu.finish(reading)?;
        // Those are older, and so they are there.
        for reading in std::mem::take(&mut self.forgotten) {
            self.gpu.finish(reading)?;
        }
        let each = bytes.chunks_exact(OUTCOME_BYTES).zip(wants.wants);
        let choices: Vec<_> = each
            .map(|(bytes, want)| {
                let row = &wants.rows[want.row];
                let is_known = want.place < row.known.len();
                let sampling = row.sample.as_ref().map(|context| context.sampling);
                let has_logprobs =
                    is_known || sampling.is_some_and(|sampling| sampling.logprobs.is_some());
                match outcome(bytes, has_logprobs) {
                    Err(error) => Choice::Failed(error),
                    Ok(sampled) if is_known => match sampled.logprobs {
                        Some(logprobs) => Choice::Known(logprobs),
                        None => unreachable!("they were asked for"),
                    },
                    Ok(sampled) => Choice::Sampled(sampled),
                }
            })
            .collect();
        self.go_on(&choices);
        Ok(choices)
    }

    /// The batch that runs is a step further, if all of it is.
    fn go_on(&mut self, choices: &[Choice]) {
        let token = |choice: &Choice| match choice {
            Choice::Sampled(sampled) => Some(sampled.token),
            Choice::Known(_) | Choice::Failed(_) => None,
        };
        let tokens: Option<Vec<u32>> = choices.iter().map(token).collect();
        match (&mut self.running, tokens) {
            (Some(running), Some(tokens)) => running.advance(tokens.into_iter()),
            _ => self.forget_running(),
        }
    }

    /// Nobody will ask for the steps that were begun.
    pub(super) fn forget_running(&mut self) {
        if let Some(running) = self.running.take() {
            self.forgotten.extend(running.queue);
        }
        self.forgotten.extend(self.reading.take());
    }

    /// Where this rank's part of the logits goes.
    pub(super) fn logits_of_rank(&self) -> (Address, usize) {
        let stride = self.scratch.logits_stride;
        let first = self.partition.vocabulary(&self.config).start;
        match self.exchange {
            Exchange::Alone | Exchange::Modelled(_) => {
                (self.scratch.logits.offset(4 * first), stride)
            }
            Exchange::Group => (self.scratch.part, self.scratch.part_stride),
        }
    }

    /// Puts the parts of all ranks together, one after the other.
    pub(super) fn gather_logits(&mut self) -> Result<(), GpuError> {
        if !matches!(self.exchange, Exchange::Group) {
            return Ok(());
        }
        let bytes = 4 * self.pass.logits * self.scratch.part_stride;
        self.gpu
            .all_gather(self.scratch.part, self.scratch.logits, bytes)
    }

    /// Brings the logits of the step that has ended to the host: rank 0's.
    pub(super) fn fetch_logits(&mut self) -> Result<(), GpuError> {
        self.host_logits.clear();
        let rows = self.pass.logits_wanted;
        if self.partition.rank > 0 && matches!(self.exchange, Exchange::Group) || rows == 0 {
            return self.gpu.wait();
        }
        let vocab_size = self.config.vocab_size;
        if !matches!(self.exchange, Exchange::Group) {
            let stride = self.scratch.logits_stride;
            let logits = self.read_floats(rows * stride)?;
            for row in logits.chunks_exact(stride) {
                self.host_logits.extend_from_slice(&row[..vocab_size]);
            }
            return Ok(());
        }
        let (stride, world_size) = (self.scratch.part_stride, self.partition.world_size);
        let padded = self.pass.logits;
        let parts = self.read_floats(world_size * padded * stride)?;
        for row in 0..rows {
            for rank in 0..world_size {
                let partition = crate::config::Partition { rank, world_size };
                let width = partition.vocabulary(&self.config).len();
                let first = (rank * padded + row) * stride;
                self.host_logits
                    .extend_from_slice(&parts[first..first + width]);
            }
        }
        Ok(())
    }

    fn read_floats(&mut self, count: usize) -> Result<Vec<f32>, GpuError> {
        let reading = self.gpu.read(self.scratch.logits, 4 * count)?;
        let bytes = self.gpu.finish(reading)?;
        let (floats, _) = bytes.as_chunks::<4>();
        Ok(floats
            .iter()
            .map(|float| f32::from_ne_bytes(*float))
            .collect())
    }
}
