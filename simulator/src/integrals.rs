//! What is integrated over time as the deployment changes.

use foresail_core::time::Nanos;

/// The time for which something has been the case.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    before: Nanos,
    since: Option<Nanos>,
}

impl Span {
    /// It is the case at time 0.
    pub(crate) fn from_the_beginning() -> Self {
        Self {
            before: 0,
            since: Some(0),
        }
    }

    /// For how long it has been the case, up to `now`.
    pub(crate) fn by(&self, now: Nanos) -> Nanos {
        self.before + self.since.map_or(0, |since| now - since)
    }

    /// From `now` on it is the case, or not.
    pub(crate) fn set(&mut self, now: Nanos, holds: bool) {
        if holds != self.since.is_some() {
            self.before = self.by(now);
            self.since = holds.then_some(now);
        }
    }
}

/// The replicas that hold GPUs, integrated over time beside the biller.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    replicas: u32,
    most: u32,
    gpus: u64,
    replica_ns: u128,
    gpu_ns: u128,
    last: Nanos,
}

impl Held {
    /// From `now` on so many hold so many GPUs together.
    pub(crate) fn set(&mut self, now: Nanos, replicas: u32, gpus: u64) {
        let elapsed = u128::from(now - self.last);
        self.replica_ns += u128::from(self.replicas) * elapsed;
        self.gpu_ns += u128::from(self.gpus) * elapsed;
        self.last = now;
        (self.replicas, self.gpus) = (replicas, gpus);
        self.most = self.most.max(replicas);
    }

    /// The integral up to the last change.
    pub(crate) fn replica_ns(&self) -> u128 {
        self.replica_ns
    }

    /// The integral of their GPUs up to the last change.
    pub(crate) fn gpu_ns(&self) -> u128 {
        self.gpu_ns
    }

    /// Most at once.
    pub(crate) fn most(&self) -> u32 {
        self.most
    }
}
