//! What the built-in figures come from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use foresail_calibration::efficiency::{Draws, EfficiencyFit, FittedFigure, Observed, fit};
use foresail_core::step_time::{EfficiencySpread, Gpu};

use crate::Result;
use crate::data::Data;
use crate::errors::{fit_cases, unaware};
use crate::operators;
use crate::studies::Study;

/// The overheads that operators alone do not show.
const OVERHEADS: [&str; 3] = ["step_overhead", "sequence_overhead", "layer_overhead"];

/// What requests of the rate sweeps take outside their steps (s), as their own fits have it.
const REQUEST_S: f64 = 0.019;

pub(crate) fn text(data: &Data, studies: &[Study]) -> Result<String> {
    let mut text = operators::text(data)?;
    text.push_str(
        "\nWhole engines, fitted to all of a study: times the built-in figure, deviation of the logarithm\n",
    );
    let mut together: BTreeMap<&str, (Vec<&Study>, Vec<FittedFigure>)> = BTreeMap::new();
    let is_fitted = |study: &&Study| !study.folds.is_empty();
    for study in studies.iter().filter(is_fitted) {
        let start = unaware(&study.start);
        let cases: Vec<_> = study.cases.iter().collect();
        let fit = fit_cases(&start, &cases)?;
        let _ = writeln!(
            text,
            "  {} ({} cases, off by {:.1} % in the mean)",
            study.title,
            cases.len(),
            100.0 * fit.residual_mean
        );
        for figure in &fit.figures {
            if figure.is_identified() || OVERHEADS.contains(&figure.name) {
                let _ = writeln!(
                    text,
                    "    {:18} {:6.2}  {:.2} (before {:.2})",
                    figure.name, figure.factor, figure.deviation, figure.deviation_before
                );
            }
        }
        if let Some(family) = study.family {
            let (studies, figures) = together.entry(family).or_default();
            studies.push(study);
            figures.extend(fit.figures);
        }
    }
    for (family, (studies, figures)) in together {
        let fit = fit_together(&studies)?;
        let _ = writeln!(
            text,
            "\n{family} engines, one fit to all: times the built-in figure, deviation; then, of the fits to each, \
             the deviation from engine to engine"
        );
        for figure in &fit.figures {
            let is_of = |each: &&FittedFigure| each.name == figure.name && each.is_identified();
            let of: Vec<&FittedFigure> = figures.iter().filter(is_of).collect();
            let between = match of.len() {
                0 | 1 => "not known".to_owned(),
                count => format!("{:.2} of {count}", between(&of)),
            };
            let _ = writeln!(
                text,
                "  {:18} {:6.2}  {:.2}  {between}",
                figure.name, figure.factor, figure.deviation
            );
        }
    }
    Ok(text)
}

/// The figures that explain all these engines best, each engine counting as much as the others.
fn fit_together(studies: &[&Study]) -> Result<EfficiencyFit> {
    /// Figures that a study counts as.
    const WEIGHT: f64 = 20.0;
    let mut start = unaware(&studies.first().ok_or("no engines")?.start);
    // What operators show by themselves stays; all-reduces may be fused with what follows them.
    start.gpu.spread = EfficiencySpread {
        step_overhead: start.gpu.spread.step_overhead,
        sequence_overhead: start.gpu.spread.sequence_overhead,
        layer_overhead: start.gpu.spread.layer_overhead,
        all_reduce: start.gpu.spread.all_reduce,
        ..EfficiencySpread::default()
    };
    start.request = None;
    let mut observed = Vec::new();
    for (study, group) in studies.iter().zip(0..) {
        let of = study.cases.iter().flat_map(|case| case.observed());
        let of: Vec<(f64, f64)> = of.collect();
        let less = (of.len() as f64 / WEIGHT).max(1.0).sqrt();
        observed.extend(of.into_iter().map(|(value, deviation)| Observed {
            value,
            deviation: deviation * less,
            group,
        }));
    }
    let fit = fit(&start, &observed, &Draws::default(), |gpu, _| {
        let mut all = Vec::with_capacity(observed.len());
        for study in studies {
            // The engines run on GPUs of one family, with more or less memory.
            let gpu = Gpu {
                memory_bytes: study.start.gpu.memory_bytes,
                memory_bytes_per_s: study.start.gpu.memory_bytes_per_s,
                ..gpu.clone()
            };
            let request_s = study.start.request.map_or(0.0, |_| REQUEST_S);
            for case in &study.cases {
                // A case that cannot be predicted is missing, which the fit tells.
                let figures = case.predict(&gpu, request_s).unwrap_or_default();
                all.extend(case.usable(&figures));
            }
        }
        all
    });
    Ok(fit?)
}

/// Deviation between engines, each of which is known only so well (DerSimonian and Laird,
/// "Meta-analysis in clinical trials", 1986), of the logarithm.
fn between(of: &[&FittedFigure]) -> f64 {
    let weights: Vec<f64> = of
        .iter()
        .map(|figure| 1.0 / (figure.deviation * figure.deviation))
        .collect();
    let sum: f64 = weights.iter().sum();
    let all = || of.iter().zip(&weights);
    let mean = all()
        .map(|(figure, weight)| weight * libm::log(figure.factor))
        .sum::<f64>()
        / sum;
    let spread = all().map(|(figure, weight)| {
        let beside = libm::log(figure.factor) - mean;
        weight * beside * beside
    });
    let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    let freedom = of.len() as f64 - 1.0;
    ((spread.sum::<f64>() - freedom) / (sum - squares / sum))
        .max(0.0)
        .sqrt()
}
