//! What may be changed while a deployment runs, and what that takes.
//!
//! Counts and windows hold from the next look of the autoscaler on. Another world
//! size replaces the replicas, which takes GPUs for old and new ones at the same
//! time: where the account's quota has no room for that, the update is refused,
//! unless there is nothing to strand.

use super::admission::check_quota;
use super::deployment::{Deployment, Replacing};
use super::error::LifecycleError;
use super::rollout::{gpus_at_fullest, surge};
use super::spec::{Resolved, Settings};
use super::state::{Cause, Effect, Replacement, State};
use crate::time::Nanos;

impl Deployment {
    /// Changes settings; `left` is what other deployments leave of the GPU quota.
    pub(super) fn update(
        &mut self,
        now: Nanos,
        update: Settings,
        left: Option<u64>,
    ) -> Result<Vec<Effect>, LifecycleError> {
        self.check_serves("updated")?;
        let settings = self.spec.settings.updated(update);
        let resolved = settings.resolve(self.spec.profile, self.identity.world_size)?;
        check_quota(self.spec.gpu, &resolved, left)?;
        let replacement = self.replacement(&resolved, left)?;
        Ok(self.apply(now, settings, resolved, replacement))
    }

    /// Sets how many replicas there are now (B10). The autoscaler goes on from there.
    pub(super) fn scale(&mut self, replicas: u32) -> Result<Vec<Effect>, LifecycleError> {
        self.check_serves("scaled")?;
        if self.is_paused {
            let account = self.name().account.clone();
            return Err(LifecycleError::SpendLimitReached { account });
        }
        let replicas = self.resolved.scaling.replicas.check(replicas)?;
        self.observed.target = replicas;
        Ok(vec![Effect::Scale { replicas }])
    }

    fn replacement(
        &self,
        resolved: &Resolved,
        left: Option<u64>,
    ) -> Result<Option<Replacement>, LifecycleError> {
        let (from, to) = (self.world_size_max(), resolved.world_size);
        if to == self.resolved.world_size {
            return Ok(None);
        }
        let ready = self.observed.ready;
        let needed = gpus_at_fullest(ready, from, to);
        let fits = left.is_none_or(|left| needed <= left);
        let limits = resolved.scaling.replicas;
        let is_idle = limits.min == 0 && self.observed.in_flight == 0;
        if let Some(left) = left.filter(|_| !fits && ready > 0 && !is_idle) {
            let gpu = self.spec.gpu;
            return Err(LifecycleError::WouldStrandRequests {
                from,
                to,
                ready,
                gpu,
                needed,
                left,
            });
        }
        // No more than a replacement of all can use, so that others may have the rest.
        let most = limits.max.saturating_add(surge(limits.max));
        let useful = u64::from(most) * u64::from(from.max(to));
        Ok(Some(Replacement {
            world_size: to,
            gpus_max: left.map(|left| left.min(useful.max(needed))),
            drain_first: !fits,
        }))
    }

    fn apply(
        &mut self,
        now: Nanos,
        settings: Settings,
        resolved: Resolved,
        replacement: Option<Replacement>,
    ) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.resolved, resolved);
        let settings_before = std::mem::replace(&mut self.spec.settings, settings);
        if before.unused_auto_delete != resolved.unused_auto_delete {
            // The new duration begins with the update: nobody who shortens it
            // means to delete the deployment at once.
            self.used_at = now;
        }
        let mut effects = Vec::new();
        self.admit_or_refuse(&mut effects);
        if self.is_paused {
            // There is nothing to change: it will resume with the new settings.
            return effects;
        }
        if let Some(replacement) = replacement {
            self.replace(replacement, settings_before, before);
            effects.push(Effect::Replace(replacement));
        }
        if resolved.scaling != before.scaling {
            self.observed.target = resolved.scaling.replicas.nearest(self.observed.target);
            effects.push(Effect::Reconfigure(resolved.scaling));
        }
        let moves_replicas =
            replacement.is_some() || resolved.scaling.replicas != before.scaling.replicas;
        if moves_replicas && self.state == State::Ready && !self.is_as_asked() {
            self.enter(State::Updating, Cause::Updated, &mut effects);
        }
        self.settle(&mut effects);
        effects
    }

    fn replace(&mut self, replacement: Replacement, settings: Settings, resolved: Resolved) {
        let begun = Replacing {
            settings,
            resolved,
            from: resolved.world_size,
            gpus_max: None,
        };
        let before = self.replacing.unwrap_or(begun);
        self.replacing = Some(Replacing {
            from: before.from.max(resolved.world_size),
            gpus_max: replacement.gpus_max,
            ..before
        });
        // Until it is told, all are taken for what they were.
        self.observed.outdated = self.observed.starting + self.observed.ready;
    }
}
