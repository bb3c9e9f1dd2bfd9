//! Steps as they are in service: the interval from step to step of a real driver.
//!
//! A driver, with the scheduler of every replica, runs on a device that computes only while something is
//! measured. To bring a batch to where a step is to be timed (so many sequences, so much context each), requests
//! are submitted whose prompts the prefix cache has, and their few tokens are skipped:
//!
//! ```text
//! device      skips: prompts into the prefix cache, their sequences into the batch    │ computes
//! driver      submit … step, step, …                                                  │ step    step │ step │ step
//!                                                                                     │ (not timed)  └──────┴─────> s
//! ```
//!
//! What is in the KV cache does not change how long attention takes. What the scheduler and the driver
//! do between two steps is in the interval, as it is in service: a device that begins a step before it is asked for hides it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use foresail_core::step_time::calibrated::CellChunk;

use super::design::{LEAD_TOKENS, Planned};
use super::steps::BenchError;
use crate::backend::{Backend, Limits, Row, RowOutput, StepError, StepInput};
use crate::driver::{AdapterKey, Driver, Progress, RequestKey, Settings};
use crate::generation::{Event, Generation};
use crate::sampling::{Sampled, Sampling};
use crate::weights::Adapter;

/// What a driver was asked to compute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    decodes: u32,
    decode_past: u64,
    chunks: Vec<CellChunk>,
    adapters: u32,
}

/// A device that computes only when it is told to.
struct Device {
    backend: Box<dyn Backend>,
    computes: bool,
    /// The steps since it was last asked.
    seen: Vec<Seen>,
    failure: Option<StepError>,
}

/// The driver's end of it.
struct Switched(Arc<Mutex<Device>>);

/// A driver on a device that can be switched.
pub(super) struct Service {
    driver: Driver,
    device: Arc<Mutex<Device>>,
    vocab_size: usize,
    sampling: Sampling,
    next_key: RequestKey,
    /// Prompts that nobody had before have this number.
    next_text: u64,
}

/// What one repeat of a step came to: means over the steps in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Timed {
    /// From step to step (s).
    pub(super) seconds: f64,
    /// In which the device computed, if it keeps count (s).
    pub(super) device_seconds: Option<f64>,
    /// Tokens that the sequences which decode had in the KV cache, on average over the steps.
    pub(super) decode_past: u64,
}

/// A request of which nothing is wanted but that it is there.
struct Asked {
    key: RequestKey,
    /// Kept, as a server would keep it.
    events: UnboundedReceiver<Event>,
}

impl Service {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        limits: Limits,
        vocab_size: usize,
        sampling: Sampling,
        adapters: Vec<Adapter>,
    ) -> Result<Self, BenchError> {
        let device = Arc::new(Mutex::new(Device {
            backend,
            computes: false,
            seen: Vec::new(),
            failure: None,
        }));
        let switched = Box::new(Switched(Arc::clone(&device)));
        let mut driver = Driver::new(switched, &Settings::new(limits, vocab_size))?;
        for (key, adapter) in (0..).zip(adapters) {
            driver.add_adapter(key, Arc::new(adapter));
        }
        // From here on it keeps count.
        let _ = lock(&device).backend.take_busy_seconds();
        Ok(Self {
            driver,
            device,
            vocab_size,
            sampling,
            next_key: 0,
            next_text: 1 << 32,
        })
    }

    /// Times a step: so many in a row if its sequences only decode, else one.
    ///
    /// # Errors
    /// If the engine fails, or does something else than the step.
    pub(super) fn time(&mut self, cell: &Planned, steps: usize) -> Result<Timed, BenchError> {
        let failed_before = self.driver.stats().failed;
        let running = self.bring(cell, steps)?;
        self.lead(cell)?;
        let timed = match cell.chunks.is_empty() {
            true => self.time_decodes(cell, steps),
            false => self.time_chunks(cell),
        }?;
        for asked in running {
            self.driver.cancel(asked.key);
            drop(asked.events);
        }
        let failed = self.driver.stats().failed - failed_before;
        if !self.driver.is_idle() || failed > 0 {
            return Err(BenchError::Unplanned(format!(
                "{failed} requests failed, and the driver is {}idle",
                if self.driver.is_idle() { "" } else { "not " }
            )));
        }
        Ok(timed)
    }

    /// Puts the sequences that decode into the batch, each with its context and one token.
    fn bring(&mut self, cell: &Planned, steps: usize) -> Result<Vec<Asked>, BenchError> {
        self.know(cell)?;
        let mut running = Vec::with_capacity(cell.decodes());
        for (slot, &context) in cell.contexts.iter().enumerate() {
            let prompt = self.text(slot as u64, context + 1);
            let adapter = Self::adapter(cell, slot);
            running.push(self.submit(prompt, new_tokens(steps), adapter)?);
        }
        if !running.is_empty() {
            let seen = self.step(false)?;
            let is_in = |chunk: &CellChunk| chunk.len == 1;
            if seen.chunks.len() != cell.decodes() || !seen.chunks.iter().all(is_in) {
                return Err(unplanned(cell, &seen));
            }
        }
        Ok(running)
    }

    /// Computes, in name only, what the prompts begin with, so that the prefix cache has it. One token more
    /// is asked for, since a prompt's last block is never taken from the cache: it would be computed
    /// again, and forgotten as the copy that was used longest ago.
    fn know(&mut self, cell: &Planned) -> Result<(), BenchError> {
        let pasts = cell.chunks.iter().map(|chunk| chunk.past as usize);
        let lens: Vec<usize> = cell.contexts.iter().copied().chain(pasts).collect();
        let mut known = Vec::new();
        for (slot, len) in lens.into_iter().enumerate() {
            if len > 0 {
                let prompt = self.text(slot as u64, len + 1);
                let adapter = Self::adapter(cell, slot);
                known.push(self.submit(prompt, 1, adapter)?);
            }
        }
        while !self.driver.is_idle() {
            self.step(false)?;
        }
        Ok(())
    }

    /// One computed step that is not timed, so that the device is not woken by one that is.
    fn lead(&mut self, cell: &Planned) -> Result<(), BenchError> {
        if cell.decodes() > 0 {
            let seen = self.step(true)?;
            if seen.decodes as usize != cell.decodes() {
                return Err(unplanned(cell, &seen));
            }
            return Ok(());
        }
        let prompt = self.fresh_text(1);
        let alone = self.submit(prompt, 2, None)?;
        self.step(false)?;
        self.step(true)?;
        drop(alone.events);
        Ok(())
    }

    fn time_decodes(&mut self, cell: &Planned, steps: usize) -> Result<Timed, BenchError> {
        self.take_busy_seconds();
        self.begin(true);
        let began = Instant::now();
        for _ in 0..steps {
            self.stepped()?;
        }
        let seconds = began.elapsed().as_secs_f64();
        let device_seconds = self.take_busy_seconds();
        let seen = self.end();
        let is_planned = |seen: &&Seen| {
            seen.decodes as usize == cell.decodes()
                && seen.chunks.is_empty()
                && seen.adapters as usize == cell.adapters
        };
        if seen.len() != steps || !seen.iter().all(|seen| is_planned(&seen)) {
            return Err(unplanned(cell, &seen.last().cloned().unwrap_or_default()));
        }
        let past: u64 = seen.iter().map(|seen| seen.decode_past).sum();
        Ok(Timed {
            seconds: seconds / steps as f64,
            device_seconds: device_seconds.map(|busy| busy / steps as f64),
            decode_past: past / steps as u64,
        })
    }

    /// From when the prompts have come to the end of the step that computes them.
    fn time_chunks(&mut self, cell: &Planned) -> Result<Timed, BenchError> {
        let mut prompts = Vec::with_capacity(cell.chunks.len());
        for (index, chunk) in cell.chunks.iter().enumerate() {
            let slot = cell.decodes() + index;
            let mut prompt = self.text(slot as u64, chunk.past as usize);
            prompt.extend(self.fresh_text(chunk.len as usize));
            let adapter = Self::adapter(cell, slot);
            prompts.push((self.generation(prompt, 2), adapter));
        }
        self.take_busy_seconds();
        self.begin(true);
        let began = Instant::now();
        let mut asked = Vec::with_capacity(prompts.len());
        for (generation, adapter) in prompts {
            asked.push(self.submit_generation(generation, adapter)?);
        }
        self.stepped()?;
        let seconds = began.elapsed().as_secs_f64();
        let device_seconds = self.take_busy_seconds();
        let seen = self.end().pop().unwrap_or_default();
        let is_planned = seen.decodes as usize == cell.decodes()
            && seen.chunks == cell.chunks
            && seen.adapters as usize == cell.adapters;
        if !is_planned {
            return Err(unplanned(cell, &seen));
        }
        for asked in asked {
            self.driver.cancel(asked.key);
        }
        Ok(Timed {
            seconds,
            device_seconds,
            decode_past: seen.decode_past,
        })
    }

    fn submit(
        &mut self,
        prompt: Vec<u32>,
        max_new: u32,
        adapter: Option<AdapterKey>,
    ) -> Result<Asked, BenchError> {
        let generation = self.generation(prompt, max_new);
        self.submit_generation(generation, adapter)
    }

    fn submit_generation(
        &mut self,
        generation: Generation,
        adapter: Option<AdapterKey>,
    ) -> Result<Asked, BenchError> {
        let (sender, events) = unbounded_channel();
        let key = self.next_key;
        self.next_key += 1;
        self.driver.submit(key, generation, adapter, sender)?;
        Ok(Asked { key, events })
    }

    fn generation(&self, prompt: Vec<u32>, max_new: u32) -> Generation {
        Generation {
            id: String::new(),
            prompt: prompt.into(),
            max_new,
            min_new: 0,
            stop_tokens: Vec::new(),
            sampling: self.sampling.clone(),
            prompt_logprobs: None,
            adapter: None,
            cache_salt: None,
        }
    }

    /// The adapter of a sequence: all that the step is to have, in turn.
    fn adapter(cell: &Planned, slot: usize) -> Option<AdapterKey> {
        (cell.adapters > 0).then(|| (slot % cell.adapters) as AdapterKey)
    }

    /// The tokens of a prompt: those of other prompts differ from the first on.
    fn text(&self, number: u64, len: usize) -> Vec<u32> {
        let vocabulary = self.vocab_size as u64;
        let token = |place: u64| {
            // Digits of the number first, then rows of the embedding that are far from each other.
            let value = match place {
                0..4 => number / vocabulary.pow(place as u32),
                _ => place * 7919 + number,
            };
            (value % vocabulary) as u32
        };
        (0..len as u64).map(token).collect()
    }

    /// Tokens that no prompt had.
    fn fresh_text(&mut self, len: usize) -> Vec<u32> {
        self.next_text += 1;
        self.text(self.next_text, len)
    }

    /// A step that is computed, or skipped, and what it was.
    fn step(&mut self, computes: bool) -> Result<Seen, BenchError> {
        self.begin(computes);
        self.stepped()?;
        Ok(self.end().pop().unwrap_or_default())
    }

    fn stepped(&mut self) -> Result<(), BenchError> {
        match self.driver.step() {
            Progress::Stepped => {}
            Progress::Idle => {
                return Err(BenchError::Unplanned("nothing".to_owned()));
            }
            Progress::Lost(reason) => return Err(StepError(reason).into()),
        }
        match lock(&self.device).failure.take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// From here on, steps are seen, and computed or skipped.
    fn begin(&self, computes: bool) {
        let mut device = lock(&self.device);
        device.computes = computes;
        device.seen.clear();
    }

    /// The steps since it began.
    fn end(&self) -> Vec<Seen> {
        let mut device = lock(&self.device);
        device.computes = false;
        std::mem::take(&mut device.seen)
    }

    fn take_busy_seconds(&self) -> Option<f64> {
        lock(&self.device).backend.take_busy_seconds()
    }
}

/// Tokens that a sequence may generate which is measured for so many steps: one more than it will.
fn new_tokens(steps: usize) -> u32 {
    (LEAD_TOKENS + steps + 1) as u32
}

fn unplanned(cell: &Planned, seen: &Seen) -> BenchError {
    BenchError::Unplanned(format!(
        "{} decodes, chunks {:?} and {} adapters instead of {}, {:?} and {}",
        seen.decodes,
        seen.chunks,
        seen.adapters,
        cell.decodes(),
        cell.chunks,
        cell.adapters
    ))
}

fn lock(device: &Mutex<Device>) -> MutexGuard<'_, Device> {
    // A panic of the backend fails the step, and what it was doing is not looked at again.
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    fn step(&mut self, step: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        let chunks = step.load.chunks.iter().map(|chunk| CellChunk {
            past: chunk.past,
            len: chunk.len,
        });
        self.seen.push(Seen {
            decodes: step.load.decodes,
            decode_past: step.load.decode_past,
            chunks: chunks.collect(),
            adapters: step.adapters,
        });
        if self.computes {
            return self.backend.step(step);
        }
        Ok(step.rows.iter().map(skipped).collect())
    }
}

/// What comes of a row that is not computed: any token.
fn skipped(row: &Row<'_>) -> RowOutput {
    RowOutput {
        sampled: row.sample.is_some().then_some(Sampled {
            token: 0,
            logprobs: None,
        }),
        ..RowOutput::default()
    }
}

impl Backend for Switched {
    fn step(&mut self, step: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        let mut device = lock(&self.0);
        let outputs = device.step(step);
        device.failure = outputs.as_ref().err().cloned();
        outputs
    }

    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        lock(&self.0).backend.load_adapter(slot, adapter)
    }

    fn unload_adapter(&mut self, slot: usize) {
        lock(&self.0).backend.unload_adapter(slot);
    }

    fn is_lost(&self) -> bool {
        lock(&self.0).backend.is_lost()
    }
}
