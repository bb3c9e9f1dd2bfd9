//! What a replica tells about itself: counts that anybody may read at any time.
//!
//! The thread that owns the device adds to them without a lock, and whoever
//! reads them never makes it wait. Counts that are read together may be a step apart.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::generation::Refusal;

/// A replica at one moment. Counts are since its start.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// Requests in the batch.
    pub running: u64,
    /// Requests that were never in the batch yet, those that wait for their adapter included.
    pub waiting: u64,
    /// KV blocks that requests hold.
    pub kv_blocks_used: u64,
    /// KV blocks.
    pub kv_blocks: u64,
    /// Tokens of the prompts that were admitted.
    pub prompt_tokens: u64,
    /// Of those, the tokens that the prefix cache had.
    pub prompt_tokens_cached: u64,
    /// Prompt tokens that were computed, those computed again after preemptions included.
    pub prompt_tokens_computed: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Steps, failed ones included.
    pub steps: u64,
    /// Steps that failed.
    pub failed_steps: u64,
    /// Times that a request lost its KV blocks to another.
    pub preemptions: u64,
    /// Requests that were done.
    pub finished: u64,
    /// Requests that were given up.
    pub cancelled: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Adapters loaded into slots.
    pub adapter_loads: u64,
    /// Adapters that gave their slot to another.
    pub adapter_evictions: u64,
    /// Time between steps that the driver took itself (s): planning, and telling those who wait.
    pub driver_s: f64,
    /// How long the backend took for each step (s).
    pub step_s: Histogram,
    /// Sequences in each step.
    pub step_sequences: Histogram,
    /// Tokens computed in each step.
    pub step_tokens: Histogram,
}

/// How many of the observed values are how large.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The largest value of each bucket but the last, ascending.
    pub bounds: &'static [f64],
    /// Values in each bucket, one more than there are bounds: the last is unbounded.
    pub counts: Vec<u64>,
    /// All values together.
    pub sum: f64,
}

impl Histogram {
    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// From a small model on a GPU to a long prompt on a CPU.
const STEP_S: &[f64] = &[
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

const STEP_SEQUENCES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// The buckets of vLLM's `iteration_tokens_total` (`vllm/v1/metrics/loggers.py`).
const STEP_TOKENS: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0,
];

/// A count that one thread changes and others read.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counts behind [`Stats`], and the bound of the queue.
#[derive(Debug)]
pub(super) struct Counters {
    /// Requests that were taken and never admitted yet.
    waiting: AtomicUsize,
    pub(super) running: Count,
    pub(super) kv_blocks_used: Count,
    kv_blocks: u64,
    prompt_tokens: Count,
    prompt_tokens_cached: Count,
    pub(super) prompt_tokens_computed: Count,
    pub(super) generated_tokens: Count,
    pub(super) failed_steps: Count,
    pub(super) preemptions: Count,
    pub(super) finished: Count,
    pub(super) cancelled: Count,
    pub(super) failed: Count,
    pub(super) adapter_loads: Count,
    pub(super) adapter_evictions: Count,
    pub(super) driver_ns: Count,
    step_s: Buckets,
    step_sequences: Buckets,
    step_tokens: Buckets,
}

impl Counters {
    pub(super) fn new(kv_blocks: u64) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            running: Count::default(),
            kv_blocks_used: Count::default(),
            kv_blocks,
            prompt_tokens: Count::default(),
            prompt_tokens_cached: Count::default(),
            prompt_tokens_computed: Count::default(),
            generated_tokens: Count::default(),
            failed_steps: Count::default(),
            preemptions: Count::default(),
            finished: Count::default(),
            cancelled: Count::default(),
            failed: Count::default(),
            adapter_loads: Count::default(),
            adapter_evictions: Count::default(),
            driver_ns: Count::default(),
            // Sums are integers: nanoseconds for times, and else the values themselves.
            step_s: Buckets::new(STEP_S, 1e9),
            step_sequences: Buckets::new(STEP_SEQUENCES, 1.0),
            step_tokens: Buckets::new(STEP_TOKENS, 1.0),
        }
    }

    /// Counts one more request that waits, if there may be one more.
    pub(super) fn enter_queue(&self, waiting_max: usize) -> Result<(), Refusal> {
        let more = |waiting| (waiting < waiting_max).then_some(waiting + 1);
        let entered = self.waiting.fetch_update(Relaxed, Relaxed, more);
        entered.map_err(|waiting| Refusal::QueueFull { waiting })?;
        Ok(())
    }

    /// One request fewer waits: it is admitted for the first time, or has ended.
    pub(super) fn leave_queue(&self) {
        let before = self.waiting.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a request leaves the queue once");
    }

    /// A request is admitted for the first time.
    pub(super) fn admitted(&self, prompt_tokens: u64, cached: u64) {
        self.leave_queue();
        self.prompt_tokens.add(prompt_tokens);
        self.prompt_tokens_cached.add(cached);
    }

    /// The backend has taken so long for a step.
    pub(super) fn stepped(&self, seconds: f64, sequences: u64, tokens: u64) {
        self.step_s.observe(seconds);
        self.step_sequences.observe(sequences as f64);
        self.step_tokens.observe(tokens as f64);
    }

    pub(super) fn read(&self) -> Stats {
        let step_s = self.step_s.read();
        Stats {
            running: self.running.get(),
            waiting: self.waiting.load(Relaxed) as u64,
            kv_blocks_used: self.kv_blocks_used.get(),
            kv_blocks: self.kv_blocks,
            prompt_tokens: self.prompt_tokens.get(),
            prompt_tokens_cached: self.prompt_tokens_cached.get(),
            prompt_tokens_computed: self.prompt_tokens_computed.get(),
            generated_tokens: self.generated_tokens.get(),
            steps: step_s.count(),
            failed_steps: self.failed_steps.get(),
            preemptions: self.preemptions.get(),
            finished: self.finished.get(),
            cancelled: self.cancelled.get(),
            failed: self.failed.get(),
            adapter_loads: self.adapter_loads.get(),
            adapter_evictions: self.adapter_evictions.get(),
            driver_s: self.driver_ns.get() as f64 / 1e9,
            step_s,
            step_sequences: self.step_sequences.read(),
            step_tokens: self.step_tokens.read(),
        }
    }
}

/// A histogram that one thread adds to and others read.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    counts: Vec<Count>,
    /// Units of `sum` in 1.
    scale: f64,
    sum: Count,
}

impl Buckets {
    fn new(bounds: &'static [f64], scale: f64) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| Count::default()).collect(),
            scale,
            sum: Count::default(),
        }
    }

    fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].add(1);
        self.sum.add((value * self.scale) as u64);
    }

    fn read(&self) -> Histogram {
        Histogram {
            bounds: self.bounds,
            counts: self.counts.iter().map(Count::get).collect(),
            sum: self.sum.get() as f64 / self.scale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let buckets = Buckets::new(&[1.0, 2.0], 1.0);
        for value in [1.0, 2.0, 2.0, 3.0] {
            buckets.observe(value);
        }
        let read = buckets.read();
        assert_eq!(read.counts, [1, 2, 1]);
        assert_eq!((read.count(), read.sum), (4, 8.0));
    }

    #[test]
    fn the_queue_takes_as_many_as_it_may() {
        let counters = Counters::new(1);
        assert_eq!(counters.enter_queue(2), Ok(()));
        assert_eq!(counters.enter_queue(2), Ok(()));
        let full = Refusal::QueueFull { waiting: 2 };
        assert_eq!(counters.enter_queue(2), Err(full));
        counters.leave_queue();
        assert_eq!(counters.enter_queue(2), Ok(()));
    }
}
