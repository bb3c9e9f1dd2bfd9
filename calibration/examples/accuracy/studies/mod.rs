//! One file a source: what was measured, and what is predicted from what.

mod argonne;
mod dstack;
mod gpustack;
mod kubecon;
mod lengths;
mod llmservingsim;
mod mlperf;
mod silicon;
mod splitwise;
mod steps;
mod tensorrt_llm;

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::{Gpu, ModelShape};
use foresail_scenarios::catalogue::{gpus, models};

use crate::Result;
use crate::case::Case;
use crate::data::Data;

/// Results of one source about one engine.
pub(crate) struct Study {
    pub(crate) title: String,
    /// Where from, what, and what is not known of it.
    pub(crate) about: &'static str,
    /// The built-in engine that it is one of; none if the source is of an older one, or counted already.
    pub(crate) family: Option<&'static str>,
    /// What a fit begins with.
    pub(crate) start: Start,
    pub(crate) cases: Vec<Case>,
    /// None where nothing is fitted: such a study only judges the built-in figures.
    pub(crate) folds: Vec<Fold>,
}

/// What is fitted, and what is predicted with it. No case is in both.
pub(crate) struct Fold {
    pub(crate) name: String,
    pub(crate) fitted: Vec<usize>,
    pub(crate) held_out: Vec<usize>,
}

/// What a request takes outside its steps, before anything is known of it (s), and the deviation of its
/// logarithm: a few milliseconds on one machine, tens through a cluster's network.
const REQUEST: (f64, f64) = (0.008, 1.0);

impl Fold {
    fn new(name: &str, fitted: &[usize], held_out: &[usize]) -> Self {
        Self {
            name: name.to_owned(),
            fitted: fitted.to_vec(),
            held_out: held_out.to_vec(),
        }
    }

    /// Each world size from the others.
    fn by_world_size(cases: &[Case]) -> Vec<Self> {
        let mut sizes: Vec<u32> = cases.iter().map(|case| case.engine.world_size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let fold = |size: u32| {
            let is_held_out = |index: &usize| cases[*index].engine.world_size == size;
            let (held_out, fitted): (Vec<_>, Vec<_>) = (0..cases.len()).partition(is_held_out);
            Self::new(&format!("world size {size}"), &fitted, &held_out)
        };
        sizes.into_iter().map(fold).collect()
    }
}

/// All studies, in the order of the document.
pub(crate) fn all(data: &Data) -> Result<Vec<Study>> {
    let mut studies = kubecon::studies(data)?;
    studies.extend(silicon::studies(data)?);
    studies.push(splitwise::study(data)?);
    studies.push(llmservingsim::study(data)?);
    studies.extend(argonne::studies(data)?);
    studies.push(steps::study(data)?);
    // No figure was fitted to these, and no fit begins with them.
    studies.push(dstack::study(data)?);
    studies.extend(mlperf::studies(data)?);
    studies.extend(tensorrt_llm::studies()?);
    studies.push(gpustack::study()?);
    Ok(studies)
}

fn shape(name: &str) -> Result<ModelShape> {
    let model = models::find(name).ok_or_else(|| format!("the catalogue has no model {name}"))?;
    Ok(model.shape)
}

fn gpu(name: &str) -> Result<Gpu> {
    let entry = gpus::find(name).ok_or_else(|| format!("the catalogue has no GPU {name}"))?;
    Ok(entry.spec())
}
