//! The autoscaler of a deployment, for as long as the provider lets it decide.

use foresail_core::control::autoscaler::{
    Autoscaler, AutoscalerConfig, Decision, Event, FireworksConfig, Observation, ReplicaLoad,
};
use foresail_core::control::lifecycle::Scaling;
use foresail_core::time::Nanos;
use foresail_scenarios::scenario::Deployment;

use crate::SimulationError;

/// An autoscaler that can be let go, begin again, and be changed meanwhile.
pub(super) struct Governor {
    /// `None` while nothing is to be decided: the deployment is paused or deleted.
    autoscaler: Option<Autoscaler>,
    /// Its parameters, if they are those that an update speaks of.
    fireworks: Option<FireworksConfig>,
}

impl Governor {
    pub(super) fn new(deployment: &Deployment) -> Self {
        let Deployment {
            autoscaler,
            initial_replica_count,
            ..
        } = deployment;
        Self {
            autoscaler: Some(Autoscaler::new(autoscaler, *initial_replica_count)),
            fireworks: match autoscaler {
                AutoscalerConfig::Fireworks(config) => Some(config.clone()),
                _ => None,
            },
        }
    }

    #[inline]
    pub(super) fn on_request(&mut self, now: Nanos) -> Option<Decision> {
        let autoscaler = self.autoscaler.as_mut()?;
        autoscaler.on_event(now, Event::RequestReceived)
    }

    pub(super) fn observe(
        &mut self,
        now: Nanos,
        deployment: &Observation,
        replicas: &[ReplicaLoad],
    ) -> Option<Decision> {
        let autoscaler = self.autoscaler.as_mut()?;
        autoscaler.observe(now, deployment, replicas)
    }

    pub(super) fn wants_each_replica(&self) -> bool {
        (self.autoscaler.as_ref()).is_some_and(Autoscaler::wants_each_replica)
    }

    pub(super) fn replicas_changed(&mut self, now: Nanos) {
        if let Some(autoscaler) = &mut self.autoscaler {
            autoscaler.replicas_changed(now);
        }
    }

    #[inline]
    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        self.autoscaler.as_ref()?.next_deadline()
    }

    /// Decides nothing any more.
    pub(super) fn stop(&mut self) {
        self.autoscaler = None;
    }

    /// Decides again, from so many replicas on.
    pub(super) fn start(
        &mut self,
        now: Nanos,
        scaling: Scaling,
        replicas: u32,
    ) -> Result<(), SimulationError> {
        let Some(config) = &mut self.fireworks else {
            return Ok(());
        };
        *config = scaling.applied_to(config);
        let autoscaler = Autoscaler::beginning_at(now, config, replicas);
        self.autoscaler =
            Some(autoscaler.map_err(|error| SimulationError::Reconfigure(error.into()))?);
        Ok(())
    }

    /// Goes on under other limits and windows.
    pub(super) fn reconfigure(
        &mut self,
        now: Nanos,
        scaling: Scaling,
    ) -> Result<Option<Decision>, SimulationError> {
        let (Some(autoscaler), Some(config)) = (&mut self.autoscaler, &mut self.fireworks) else {
            return Ok(None);
        };
        *config = scaling.applied_to(config);
        Ok(autoscaler.reconfigure(now, config)?)
    }

    /// Takes up this number of replicas.
    pub(super) fn scale(
        &mut self,
        now: Nanos,
        replicas: u32,
    ) -> Result<Option<Decision>, SimulationError> {
        match &mut self.autoscaler {
            Some(autoscaler) => Ok(autoscaler.scale(now, replicas)?),
            None => Ok(None),
        }
    }
}
