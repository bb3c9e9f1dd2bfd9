//! How much of a run a backend's steps take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::backend::{Backend, RowOutput, StepError, StepInput};
use crate::weights::Adapter;

/// Time spent in steps, and their number. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct StepClock(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    nanoseconds: AtomicU64,
    steps: AtomicU64,
}

impl StepClock {
    /// Time spent in steps so far, and how many they were.
    #[must_use]
    pub fn read(&self) -> (Duration, u64) {
        let nanoseconds = self.0.nanoseconds.load(Ordering::Relaxed);
        let steps = self.0.steps.load(Ordering::Relaxed);
        (Duration::from_nanos(nanoseconds), steps)
    }

    fn add(&self, duration: Duration) {
        let nanoseconds = duration.as_nanos() as u64;
        self.0.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// A backend whose steps are timed, and nothing else is changed.
pub struct TimedBackend {
    backend: Box<dyn Backend>,
    clock: StepClock,
}

impl TimedBackend {
    /// Times the steps of a backend on a clock.
    #[must_use]
    pub fn new(backend: Box<dyn Backend>, clock: StepClock) -> Self {
        Self { backend, clock }
    }
}

impl std::fmt::Debug for TimedBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimedBackend").finish_non_exhaustive()
    }
}

impl Backend for TimedBackend {
    fn step(&mut self, step: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        let began = Instant::now();
        let outputs = self.backend.step(step);
        self.clock.add(began.elapsed());
        outputs
    }

    fn load_adapter(&mut self, slot: usize, adapter: &Adapter) -> Result<(), StepError> {
        self.backend.load_adapter(slot, adapter)
    }

    fn unload_adapter(&mut self, slot: usize) {
        self.backend.unload_adapter(slot);
    }
}
