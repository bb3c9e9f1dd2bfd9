//! What goes wrong with replicas: starts that fail, and crashes.

use foresail_core::control::replica_set::Stage;
use foresail_core::control::retry::Retry;
use foresail_core::time::{Nanos, seconds};
use foresail_reports::records::{ChangeKind, RecordSink};
use foresail_scenarios::random::stream;

use super::Fleet;
use crate::agenda::What;
use crate::cold_start;
use crate::replica::Lost;
use crate::scene::Scene;
use crate::start::StartEnd;
use crate::{SimulationError, TIME_MAX};

/// What went wrong with replicas so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mishaps {
    pub(super) start_failures: u64,
    pub(super) given_up: u64,
    pub(super) crashes: u64,
    /// Whether an order was given up that the provider has not been told of.
    pub(super) has_given_up: bool,
}

impl Fleet<'_> {
    /// A start has failed: it is tried again after a while, or given up.
    pub(super) fn start_failed(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        let Some(start) = self.starting.get(&id) else {
            return Ok(());
        };
        let (attempt, after_s) = (start.attempt, seconds(start.total));
        let how = match start.end {
            StartEnd::TimedOut => "timed out",
            StartEnd::Failed | StartEnd::Ready => "failed",
        };
        self.mishaps.start_failures += 1;
        let config = &self.deployment.failures.start_retry;
        let attempts_max = config.attempts_max;
        let story = format!("{how} after {after_s:.1} s, attempt {attempt} of {attempts_max}");
        match config.after(attempt, 1.0) {
            Retry::After(wait) => {
                self.rollout.restart(scene.now, id)?;
                scene
                    .agenda
                    .add(scene.now + wait, What::Restart { replica: id });
                let story = format!("{story}; tries again in {:.1} s", seconds(wait));
                self.report(ChangeKind::StartFailed, Some(id), &story, scene);
            }
            Retry::GiveUp => {
                self.starting.remove(&id);
                self.mishaps.given_up += 1;
                self.mishaps.has_given_up = true;
                let (was, follow) = self.rollout.gone(scene.now, id)?;
                self.bill(id, scene.now, was.stage, Stage::Gone)?;
                scene.share.release(id, self.rollout.world_size(id));
                let story = format!("{story}; given up");
                self.report(ChangeKind::StartFailed, Some(id), &story, scene);
                self.carry_out(follow, scene)?;
            }
        }
        Ok(())
    }

    /// A replica whose start failed is started again, unless it is not wanted any more.
    pub(crate) fn restart(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<(), SimulationError> {
        match self.starting.get(&id) {
            Some(start) => self.attempt_start(id, start.attempt + 1, scene),
            None => Ok(()),
        }
    }

    /// A replica is ready: when will it crash?
    pub(super) fn foresee_crash(&self, id: u32, scene: &mut Scene<'_, impl RecordSink>) {
        if let Some(crash) = &self.deployment.failures.crash {
            let mut rng = stream(self.options.seed, &format!("crash.{id}"));
            let lives: Nanos = cold_start::nanos(&crash.time_to_failure, &mut rng);
            let at = scene.now.saturating_add(lives);
            // What lies beyond the longest run never comes.
            if at < TIME_MAX {
                scene.agenda.add(at, What::Crash { replica: id });
            }
        }
    }

    /// A replica crashes, if it lives still, and is replaced, as the target
    /// stands. Returns the requests that it had, oldest first.
    pub(crate) fn crash(
        &mut self,
        id: u32,
        scene: &mut Scene<'_, impl RecordSink>,
    ) -> Result<Vec<Lost>, SimulationError> {
        let Some(place) = self.place(id) else {
            return Ok(Vec::new());
        };
        self.mishaps.crashes += 1;
        let server = &mut self.servers[place];
        let mut lost = server.evict(scene.now, &mut scene.sink);
        lost.sort_unstable_by_key(|lost| lost.passage.id());
        if !server.draining {
            self.sizes
                .busy(server.size, server.replica.busy_by(scene.now));
            self.candidates.retain(|candidate| candidate.replica != id);
        }
        let reason = format!("crashed with {} requests", lost.len());
        self.remove(place, ChangeKind::Crashed, &reason, scene)?;
        let target = self.rollout.counts().target;
        let actions = self.order(target, scene);
        self.carry_out(actions, scene)?;
        Ok(lost)
    }

    /// Whether nothing serves, nothing starts, and nothing will: every order was given up.
    pub(crate) fn is_given_up(&self) -> bool {
        let counts = self.rollout.counts();
        self.mishaps.given_up > 0 && counts.target > 0 && counts.alive() + counts.draining == 0
    }
}
