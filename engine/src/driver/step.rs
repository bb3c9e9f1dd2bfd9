//! One step: plan it, add the tokens, compute, and tell those who wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use foresail_core::batching::{Scheduler, SequenceId};

use super::core::{Driver, Progress};
use super::live::Live;
use crate::backend::{Row, RowOutput, StepError, StepInput};
use crate::generation::{Event, GenerationError};

impl Driver {
    /// Computes the next step, if there is something to compute.
    pub fn step(&mut self) -> Progress {
        let begun = Instant::now();
        if !self.plan() {
            self.continues = false;
            self.publish();
            if cfg!(debug_assertions) {
                self.check();
            }
            return Progress::Idle;
        }
        let computed = Instant::now();
        let outputs = self.compute();
        let device_time = computed.elapsed();
        self.count_step(device_time.as_secs_f64());
        match outputs {
            Ok(outputs) => self.complete(outputs),
            Err(StepError(reason)) => {
                self.fail_step(&reason);
                if self.backend.0.is_lost() {
                    self.publish();
                    return Progress::Lost(reason);
                }
            }
        }
        self.continues = true;
        self.publish();
        let driver_time = begun.elapsed().saturating_sub(device_time);
        self.counters.driver_ns.add(driver_time.as_nanos() as u64);
        Progress::Stepped
    }

    /// Plans a step, and says whether there is something in it.
    fn plan(&mut self) -> bool {
        loop {
            let block_size = self.rules.config.block_size as usize;
            let lives = &mut self.lives;
            let mut contents = |id: SequenceId, block| {
                let live = lives[id as usize].as_mut()?;
                live.contents.hash(block, block_size, &live.known)
            };
            let horizon = self.scheduler.horizon();
            let step = self.scheduler.schedule(&mut contents);
            self.ahead = horizon.saturating_sub(1);
            self.counters.preemptions.add(step.preempted.len() as u64);
            for (id, chunk) in step.admitted() {
                let live = live_mut(&mut self.lives, id);
                if !live.admitted {
                    live.admitted = true;
                    self.counters
                        .admitted(live.known.len() as u64, u64::from(chunk.past));
                    let cached_tokens = chunk.past;
                    live.send(Event::Admitted { cached_tokens });
                }
            }
            if !step.is_empty() {
                return true;
            }
            if step.preempted.is_empty() {
                return false;
            }
            // The last running sequence gave its own blocks up: now it can be admitted again.
        }
    }

    /// Has the step in flight computed.
    fn compute(&mut self) -> Result<Vec<RowOutput>, StepError> {
        let mut rows = Vec::with_capacity(self.scheduler.running() as usize);
        for work in self.scheduler.work() {
            let live = live(&self.lives, work.sequence);
            rows.push(Row {
                table: self.scheduler.table(work.sequence),
                adapter: live.adapter.map(|adapter| self.gate.slot(adapter)),
                ..live.row(work.chunk)
            });
        }
        let ahead = self.ahead_of(&rows);
        let input = StepInput {
            load: self.scheduler.planned().load(),
            adapters: self.scheduler.adapters_in_batch(),
            continues: self.continues,
            ahead,
            rows,
        };
        let outputs = guarded(|| self.backend.0.step(&input))?;
        self.check_outputs(&outputs)?;
        Ok(outputs)
    }

    /// For how many steps after this one the rows go on alike: as the scheduler
    /// said before it planned the step, as far as the blocks go that they have, and
    /// if what may be sampled does not change meanwhile.
    fn ahead_of(&self, rows: &[Row<'_>]) -> u32 {
        let block_size = self.rules.config.block_size;
        let room = |row: &Row<'_>| {
            let sample = row.sample.as_ref();
            let is_free = sample.is_some_and(|context| context.banned.is_empty());
            let left = row.table.len() * block_size as usize - row.past - row.len;
            if is_free { left as u32 } else { 0 }
        };
        let room = rows.iter().map(room).min().unwrap_or(0);
        self.ahead.min(room)
    }

    /// Whether the outputs are what the rows asked for.
    fn check_outputs(&self, outputs: &[RowOutput]) -> Result<(), StepError> {
        let rows = self.scheduler.work().count();
        if rows != outputs.len() {
            let got = outputs.len();
            let what = format!("the backend gave {got} outputs for {rows} rows");
            return Err(StepError(what));
        }
        for (work, output) in self.scheduler.work().zip(outputs) {
            let live = live(&self.lives, work.sequence);
            if let Some(what) = live.objection(work.chunk, output, self.rules.vocab_size) {
                return Err(StepError(format!("the backend is at fault: {what}")));
            }
        }
        Ok(())
    }

    /// Tells those who wait what came of the step, and ends those that are done. Prompts
    /// come first, as nothing is waited for as much as a first token.
    fn complete(&mut self, mut outputs: Vec<RowOutput>) {
        let mut generated = 0;
        let mut failed = Vec::new();
        let decodes = self.scheduler.planned().decodes as usize;
        let of_chunks = outputs.split_off(decodes);
        let chunks = self.scheduler.work().skip(decodes).zip(of_chunks);
        for (work, output) in chunks.chain(self.scheduler.work().zip(outputs)) {
            generated += u64::from(output.sampled.is_some());
            let live = live_mut(&mut self.lives, work.sequence);
            live.deliver(work.chunk, output);
            if live.failure().is_some() {
                failed.push(live.key);
            }
        }
        self.counters.generated_tokens.add(generated);
        let lives = &self.lives;
        let finished = self.scheduler.commit(|id| live(lives, id).verdict());
        let lives = &mut self.lives;
        let finished = finished.iter().filter_map(|id| lives[*id as usize].take());
        self.finished.extend(finished);
        // Those that failed before their prompt was computed are not ended by a verdict.
        for key in failed {
            let id = self.sequences.get(&key).copied();
            if let Some(live) = id.and_then(|id| self.lives[id as usize].take()) {
                self.scheduler.abort(id.expect("it has a sequence"));
                self.finished.push(live);
            }
        }
        self.finish();
    }

    /// Ends those that are done. All have left before the first gives its adapter's
    /// slot to another request, which is given the sequence of one of them.
    fn finish(&mut self) {
        let mut finished = std::mem::take(&mut self.finished);
        for live in finished.drain(..) {
            self.sequences.remove(&live.key);
            if let Some(failure) = live.failure() {
                self.fail(&live, GenerationError::Sample(failure.clone()));
            } else {
                let reason = live.ended().expect("the scheduler ends what has ended");
                // Whoever reads that it has finished finds it counted.
                self.counters.finished.add(1);
                live.send(Event::Finished(reason));
            }
            self.release_adapter(&live);
        }
        self.finished = finished;
    }

    /// The step in flight failed: so do its requests. The others begin again with an
    /// empty KV cache, since nobody knows what is in this one.
    fn fail_step(&mut self, reason: &str) {
        self.counters.failed_steps.add(1);
        let failed: Vec<_> = self.scheduler.work().map(|work| work.sequence).collect();
        let failed: Vec<_> = failed
            .iter()
            .filter_map(|id| self.lives[*id as usize].take())
            .collect();
        let mut others: Vec<_> = self.lives.drain(..).flatten().collect();
        others.sort_unstable_by_key(|live| live.key);
        let config = self.rules.config;
        self.scheduler = Scheduler::new(config).expect("it was made with these limits before");
        self.sequences.clear();
        for live in others {
            self.join(live);
        }
        for live in failed {
            self.fail(&live, GenerationError::Step(reason.to_owned()));
            self.release_adapter(&live);
        }
    }

    fn count_step(&self, device_s: f64) {
        let planned = self.scheduler.planned();
        let sequences = planned.decodes as usize + planned.chunks.len();
        let computed: u64 = planned
            .chunks
            .iter()
            .map(|chunk| u64::from(chunk.len))
            .sum();
        self.counters.prompt_tokens_computed.add(computed);
        let tokens = u64::from(planned.tokens());
        self.counters.stepped(device_s, sequences as u64, tokens);
    }
}

pub(super) fn live(lives: &[Option<Live>], id: SequenceId) -> &Live {
    let live = lives[id as usize].as_ref();
    live.expect("a scheduled sequence is live")
}

fn live_mut(lives: &mut [Option<Live>], id: SequenceId) -> &mut Live {
    let live = lives[id as usize].as_mut();
    live.expect("a scheduled sequence is live")
}

/// Calls a backend, whose panic is an error like another.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, StepError>) -> Result<T, StepError> {
    // Nothing of ours is half changed by a backend's panic; what the backend
    // itself holds is not trusted after one.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let said = said.unwrap_or("without a message");
        Err(StepError(format!("the backend panicked: {said}")))
    })
}
