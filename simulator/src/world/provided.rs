//! What the provider has to say to a deployment, carried out; and what it is told.

use foresail_core::control::lifecycle::{Effect, Observed, Refusal, Transition};
use foresail_core::step_time::StepTime;
use foresail_core::time::Nanos;
use foresail_reports::records::{Outcome, RecordSink};

use super::World;
use crate::SimulationError;
use crate::passage::Passage;
use crate::provider::Notice;

impl<M: StepTime, S: RecordSink> World<'_, M, S> {
    /// It is now as late as this, at the provider.
    pub(crate) fn pass_to(&mut self, at: Nanos) {
        self.scene.now = at;
        // What waits joins no step that has begun at this time, if one has.
        self.scene.steps_are_over = true;
    }

    /// The provider has something to say.
    pub(crate) fn notice(&mut self, notice: Notice) -> Result<(), SimulationError> {
        match notice {
            Notice::Granted(replica) => self.fleet.granted(replica, &mut self.scene)?,
            Notice::Do(effect) => self.carry_out(effect)?,
        }
        self.settle();
        // A cold start that takes no time is over.
        self.release_held();
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), SimulationError> {
        let now = self.scene.now;
        match effect {
            Effect::Transition(Transition { to, cause, .. }) => {
                let reason = format!("{}: {cause}", to.name());
                self.fleet.note(&reason, &mut self.scene);
            }
            Effect::Start {
                replicas,
                world_size,
                scaling,
            } => {
                self.governor.start(now, scaling, replicas)?;
                let (fleet, scene) = (&mut self.fleet, &mut self.scene);
                fleet.begin_again(world_size, replicas, "started again", scene)?;
            }
            Effect::Reconfigure(scaling) => {
                if let Some(decision) = self.governor.reconfigure(now, scaling)? {
                    self.scale(decision.target, &decision.reason)?;
                }
            }
            Effect::Scale { replicas } => {
                if let Some(decision) = self.governor.scale(now, replicas)? {
                    self.scale(decision.target, &decision.reason)?;
                }
            }
            Effect::Replace(replacement) => self.fleet.replace(replacement, &mut self.scene)?,
            Effect::DrainAll => {
                self.governor.stop();
                self.fleet
                    .scale(0, &"all replicas are to go", &mut self.scene)?;
            }
            Effect::Refuse(refusal) => {
                let reason = format!("refuses requests: {refusal}");
                self.fleet.note(&reason, &mut self.scene);
                self.refuse_held(refusal);
            }
            Effect::Admit => self.fleet.note("takes requests again", &mut self.scene),
            // A scenario's adapters are there from the beginning.
            Effect::LoadAdapter(_) | Effect::UnloadAdapter(_) => {}
        }
        Ok(())
    }

    /// A request is refused.
    pub(super) fn refuse(&mut self, passage: Passage, refusal: Refusal) {
        let outcome = match refusal {
            Refusal::NotDeployed => Outcome::RejectedDeleted,
            Refusal::SpendLimit => Outcome::RejectedPaused,
            Refusal::Parked => Outcome::RejectedParked,
        };
        self.clients.forget(passage.id());
        let record = passage.record(self.scene.now, outcome, 0, None);
        self.scene.sink.request(&record);
        self.settle();
    }

    /// Those that no replica has taken yet are refused, too.
    fn refuse_held(&mut self, refusal: Refusal) {
        while let Some(passage) = self.front.release(self.fleet.unready_ns(self.scene.now)) {
            self.refuse(passage, refusal);
        }
    }

    /// Tells the provider what this deployment is, if that has changed.
    #[inline]
    pub(crate) fn tell_news(&mut self) -> Result<(), SimulationError> {
        if self.fleet.has_news() {
            self.tell()?;
        }
        Ok(())
    }

    /// Tells the provider what this deployment is.
    #[cold]
    pub(crate) fn tell(&mut self) -> Result<(), SimulationError> {
        self.fleet.take_news();
        let counts = self.fleet.counts();
        let observed = Observed {
            target: counts.target,
            starting: counts.starting,
            ready: counts.ready,
            draining: counts.draining,
            outdated: self.fleet.outdated(),
            in_flight: self.received.requests - self.scene.sink.ended,
        };
        let now = self.scene.now;
        let spend = self.fleet.spend(now)?;
        self.scene.share.observe(now, observed, spend);
        if self.fleet.take_given_up() {
            self.scene.share.start_failed();
        }
        Ok(())
    }
}
