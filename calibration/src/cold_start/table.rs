//! The fit as a scenario's `[cold_start]`.

use std::fmt::Write as _;

use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::scenario::{ColdStartPhase, ColdStartStage};

use super::{Choice, Outcome, StageFit};

/// A stage of the table, with what is to be said of it.
#[derive(Clone, Debug)]
pub enum TableStage<'a> {
    /// It was measured.
    Measured(&'a StageFit),
    /// It cannot be measured here; what it is instead, and where that is from.
    Assumed(&'a ColdStartStage, &'a str),
}

/// A `[cold_start]` table in TOML, ending with a newline. `heading` is put before it as a comment.
#[must_use]
pub fn scenario_table(heading: &[String], stages: &[TableStage<'_>]) -> String {
    let mut text = String::new();
    for line in heading {
        text.push_str(format!("# {line}").trim_end());
        text.push('\n');
    }
    text.push_str("[cold_start]\nstages = [\n");
    for stage in stages {
        let (said, name, phase, outcomes) = match stage {
            TableStage::Measured(stage) => (
                said(stage),
                stage.name.as_str(),
                // From the start of the process on, everything is that.
                ColdStartPhase::Initialising,
                stage.outcomes.clone(),
            ),
            TableStage::Assumed(stage, source) => {
                let outcome = |outcome: &foresail_scenarios::scenario::ColdStartOutcome| Outcome {
                    probability: outcome.probability,
                    seconds: outcome.seconds.clone(),
                };
                let outcomes = stage.outcomes.iter().map(outcome).collect();
                let said = format!("not measured: {source}");
                (said, stage.name.as_str(), stage.phase, outcomes)
            }
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  # {said}\n  {{ name = {name:?}, phase = \"{}\", {} }},",
            phase_name(phase),
            way(&outcomes)
        );
    }
    text.push_str("]\n");
    text
}

fn said(stage: &StageFit) -> String {
    let count = stage.seconds.len();
    let StageFit {
        mean_s,
        p50_s,
        p90_s,
        max_s,
        ..
    } = stage;
    let chosen = match stage.choice {
        Choice::Short => "less than 1 % of a start: its mean",
        Choice::Same => "always about the same: its mean",
        Choice::LogNormal => "log-normal",
        Choice::LogNormalAndOutliers => "log-normal, and what was far from that",
        Choice::Measured => "as measured",
    };
    format!(
        "measured {count} times: mean {}, p50 {}, p90 {}, max {} s; {chosen}",
        number(*mean_s),
        number(*p50_s),
        number(*p90_s),
        number(*max_s)
    )
}

fn phase_name(phase: ColdStartPhase) -> &'static str {
    match phase {
        ColdStartPhase::Pending => "pending",
        ColdStartPhase::Downloading => "downloading",
        ColdStartPhase::Initialising => "initialising",
    }
}

fn way(outcomes: &[Outcome]) -> String {
    match outcomes {
        [only] => format!("seconds = {}", distribution(&only.seconds)),
        several => {
            let several = several.iter().map(|outcome| {
                format!(
                    "{{ probability = {}, seconds = {} }}",
                    exact(outcome.probability),
                    distribution(&outcome.seconds)
                )
            });
            let several: Vec<String> = several.collect();
            format!("outcomes = [{}]", several.join(", "))
        }
    }
}

fn distribution(distribution: &Distribution) -> String {
    match distribution {
        Distribution::Fixed { value } => number(*value),
        Distribution::Uniform { min, max } => format!(
            "{{ uniform = {{ min = {}, max = {} }} }}",
            number(*min),
            number(*max)
        ),
        Distribution::Exponential { mean } => {
            format!("{{ exponential = {{ mean = {} }} }}", number(*mean))
        }
        Distribution::LogNormal { mu, sigma } => format!(
            "{{ log_normal = {{ median = {}, cv = {} }} }}",
            number(libm::exp(*mu)),
            // The inverse of what makes `sigma` of it: Distribution::log_normal_median.
            number(libm::sqrt(libm::exp(sigma * sigma) - 1.0))
        ),
        Distribution::Empirical { values, cumulative } => {
            let before = [0.0].into_iter().chain(cumulative.iter().copied());
            let rows = values.iter().zip(cumulative).zip(before);
            let rows: Vec<String> = rows
                .map(|((value, upto), before)| {
                    format!("[{}, {}]", number(*value), number(upto - before))
                })
                .collect();
            format!("{{ empirical = [{}] }}", rows.join(", "))
        }
    }
}

/// As many digits as a number has: probabilities have to add up.
fn exact(value: f64) -> String {
    format!("{value:?}")
}

/// Five significant digits at most, which TOML reads as a number whatever they are.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = 4 - libm::floor(libm::log10(value.abs())) as i32;
    let text = format!("{value:.*}", digits.clamp(0, 18) as usize);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}
