//! What the built-in figures come from.

use std::fmt::Write as _;

use foresail_calibration::efficiency::Start;
use foresail_core::step_time::EfficiencySpread;

use crate::Result;
use crate::data::Data;
use crate::errors::fit_cases;
use crate::operators;
use crate::studies::Study;

/// The overheads that operators alone do not show.
const OVERHEADS: [&str; 3] = ["step_overhead", "sequence_overhead", "layer_overhead"];

/// A fit to one engine begins this unsure of them: within a factor of 7, two times in three.
const UNSURE: f64 = 2.0;

pub(crate) fn text(data: &Data, studies: &[Study]) -> Result<String> {
    let mut text = operators::text(data)?;
    text.push_str("\nOverheads, by engine (all cases of a study; times the built-in figure, deviation of the logarithm):\n");
    for study in studies {
        let mut start = study.start.clone();
        start.gpu.spread = unsure(&study.start);
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
                    "    {:18} {:6.2}  {:5.2} (before {:.2})",
                    figure.name, figure.factor, figure.deviation, figure.deviation_before
                );
            }
        }
    }
    Ok(text)
}

fn unsure(start: &Start) -> EfficiencySpread {
    EfficiencySpread {
        step_overhead: UNSURE,
        sequence_overhead: UNSURE,
        layer_overhead: UNSURE,
        ..start.gpu.spread
    }
}
