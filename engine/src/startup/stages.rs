//! How long each stage of a start takes.

use std::time::{Duration, Instant};

/// How long a stage of a start took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTime {
    /// Which.
    pub name: &'static str,
    /// How long.
    pub duration: Duration,
}

/// The stages so far: one begins where the one before ends, so that together
/// they are the whole start.
pub(super) struct Stages {
    pub(super) times: Vec<StageTime>,
    began: Instant,
}

impl Stages {
    pub(super) fn begin() -> Self {
        Self {
            times: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Ends a stage, and begins the next.
    pub(super) fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        let duration = now.duration_since(self.began);
        self.times.push(StageTime { name, duration });
        self.began = now;
    }

    /// Ends several stages that something else took the time of, and begins the
    /// next. What is left over is the last one's.
    pub(super) fn extend(&mut self, times: Vec<StageTime>) {
        let now = Instant::now();
        let mut left = now.duration_since(self.began);
        let first = self.times.len();
        self.times.extend(times);
        for stage in &mut self.times[first..] {
            stage.duration = stage.duration.min(left);
            left -= stage.duration;
        }
        if let Some(last) = self.times[first..].last_mut() {
            last.duration += left;
        }
        self.began = now;
    }
}
