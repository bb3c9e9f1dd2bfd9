//! Step times as another measurement might have had them.
//!
//! A calibrated profile has its terms' best values, and draws that are each as likely; the figures of the built-in
//! GPUs have deviations. A measured table has neither. A run of one seed uses the
//! best; runs of several seeds have a draw each, so that what differs between them is both the
//! noise of the traffic and what the calibration leaves open. The draw is chosen by the seed alone,
//! whatever the scenario is called: the variants of a comparison, and the deployments of a list, err alike.

use foresail_core::step_time::{AdapterOverhead, RequestOverhead};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::random::stream;
use crate::scenario::{Deployment, Scenario, StepTimeModel};

/// What a scenario says of overheads itself. What it does not say is the step times' to know.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SaidOverheads {
    /// Every request, outside its steps (s).
    pub request_s: Option<f64>,
    /// Every token of a prompt, outside the request's steps (s).
    pub prompt_token_s: Option<f64>,
    /// Whether the time of steps with adapters is the calibration's: it was measured.
    pub adapter_step_is_calibrated: bool,
    /// Whether the time of each adapter in a step is.
    pub adapter_is_calibrated: bool,
}

impl StepTimeModel {
    /// Whether there is anything to draw: whether its intervals are known.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::Roofline(roofline) => {
                let spread = roofline.gpu().spread.to_array();
                spread.iter().any(|deviation| *deviation > 0.0)
            }
            Self::Profile(_) => false,
            Self::Calibrated(calibrated) => calibrated.is_uncertain(),
        }
    }

    /// The draw of this seed; the same model if there is nothing to draw.
    #[must_use]
    pub fn drawn(&self, seed: u64) -> Self {
        let mut rng = stream(seed, "calibration");
        match self {
            Self::Roofline(roofline) => {
                let drawn = roofline.drawn(|| StandardNormal.sample(&mut rng));
                Self::Roofline(Box::new(drawn))
            }
            Self::Profile(_) => self.clone(),
            Self::Calibrated(calibrated) => {
                let draw = rng.next_u64();
                let deviations: f64 = StandardNormal.sample(&mut rng);
                let drawn = calibrated.drawn(draw, libm::exp, deviations);
                Self::Calibrated(Box::new(drawn))
            }
        }
    }

    /// What requests take beside their steps, as far as that was measured.
    fn request_overhead(&self) -> RequestOverhead {
        match self {
            Self::Roofline(_) | Self::Profile(_) => RequestOverhead::default(),
            Self::Calibrated(calibrated) => calibrated.request_overheads(),
        }
    }
}

impl Deployment {
    /// What requests take beside their steps: what the scenario says, else what was measured with the step times.
    #[must_use]
    pub fn request_overhead(&self) -> RequestOverhead {
        let measured = self.step_time.request_overhead();
        let said = self.said_overheads;
        RequestOverhead {
            request_s: said.request_s.unwrap_or(measured.request_s),
            prompt_token_s: said.prompt_token_s.unwrap_or(measured.prompt_token_s),
        }
    }

    /// Whether step times are the built-in ones, which know of no server, and nobody said what one takes for a request.
    #[must_use]
    pub fn leaves_out_request_overhead(&self) -> bool {
        let is_built_in = matches!(self.step_time, StepTimeModel::Roofline(_));
        is_built_in && self.said_overheads.request_s.is_none()
    }

    /// The deployment with the draw of this seed.
    #[must_use]
    pub fn drawn(&self, seed: u64) -> Self {
        let mut drawn = Self {
            step_time: self.step_time.drawn(seed),
            ..self.clone()
        };
        drawn.use_calibrated_adapters();
        drawn
    }

    /// Takes from the step times what adapters add to a step, where that was measured.
    pub(crate) fn use_calibrated_adapters(&mut self) {
        let said = self.said_overheads;
        if let (StepTimeModel::Calibrated(calibrated), Some(adapters)) =
            (&self.step_time, &mut self.adapters)
        {
            let measured = calibrated.adapter_overhead();
            let AdapterOverhead { step, adapter } = &mut adapters.overhead;
            if said.adapter_step_is_calibrated {
                *step = measured.step;
            }
            if said.adapter_is_calibrated {
                *adapter = measured.adapter;
            }
        }
    }
}

impl Scenario {
    /// Whether other seeds may have other step times.
    #[must_use]
    pub fn has_draws(&self) -> bool {
        let all = std::iter::once(&self.deployment).chain(&self.other_world_sizes);
        all.into_iter().any(|each| each.step_time.is_uncertain())
    }

    /// The scenario with the draw of this seed, the same at every world size.
    #[must_use]
    pub fn drawn(&self, seed: u64) -> Self {
        let others = self.other_world_sizes.iter();
        Self {
            deployment: self.deployment.drawn(seed),
            other_world_sizes: others.map(|other| other.drawn(seed)).collect(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::format::{self, Overrides};

    #[test]
    fn a_server_is_left_out_unless_somebody_says_what_it_takes() {
        let leaves_out = |set: &[&str]| {
            let overrides = Overrides {
                set: set.iter().map(ToString::to_string).collect(),
                ..Overrides::default()
            };
            let scenario = format::load(Path::new("one-replica"), &overrides).unwrap();
            let drawn = scenario.drawn(3);
            let [best, drawn] = [scenario.deployment, drawn.deployment];
            assert_eq!(
                best.leaves_out_request_overhead(),
                drawn.leaves_out_request_overhead()
            );
            best.leaves_out_request_overhead()
        };
        assert!(leaves_out(&[]));
        assert!(leaves_out(&["step_time.prompt_token_overhead=1us"]));
        assert!(!leaves_out(&["step_time.request_overhead=25ms"]));
        // That it takes nothing is an answer.
        assert!(!leaves_out(&["step_time.request_overhead=0s"]));
    }
}
