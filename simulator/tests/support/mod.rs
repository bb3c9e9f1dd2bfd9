//! What the simulator's tests have in common: scenarios from text, and runs of them.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use foresail_reports::records::{Change, Gaps, RecordSink, RequestRecord, RunTotals};
use foresail_scenarios::format::{self, Overrides};
use foresail_scenarios::scenario::Scenario;
use foresail_simulator::{Options, SimulationError, simulate};

/// Everything that a run recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Records {
    pub(crate) requests: Vec<RequestRecord>,
    pub(crate) changes: Vec<Change>,
    /// The lengths of gaps (ns), each with its tokens, if they are to be kept.
    pub(crate) gaps: Option<BTreeMap<u64, u64>>,
    pub(crate) totals: RunTotals,
}

impl RecordSink for Records {
    fn request(&mut self, record: &RequestRecord) {
        self.requests.push(record.clone());
    }

    fn gaps(&mut self, gaps: Gaps) {
        let Some(kept) = &mut self.gaps else { return };
        for step in 0..u64::from(gaps.steps) {
            let nanos = (gaps.first_ps + step * gaps.growth_ps) / 1000;
            *kept.entry(nanos).or_default() += u64::from(gaps.tokens);
        }
    }

    fn change(&mut self, change: &Change) {
        self.changes.push(change.clone());
    }
}

impl Records {
    /// Mean of a time of the requests (s).
    pub(crate) fn mean_s(&self, time: impl Fn(&RequestRecord) -> u64) -> f64 {
        let sum: f64 = self.requests.iter().map(|record| time(record) as f64).sum();
        sum / self.requests.len() as f64 / 1e9
    }
}

pub(crate) fn scenario(text: &str) -> Scenario {
    match format::parse("test", text, Path::new("."), &Overrides::default()) {
        Ok(scenario) => scenario,
        Err(error) => panic!("the test's scenario is not valid: {error:?}\n{text}"),
    }
}

pub(crate) fn run(scenario: &Scenario, seed: u64) -> Records {
    run_with(scenario, Options { seed, leaps: true }, Records::default())
}

/// A run that keeps every gap too, with leaps or step by step.
pub(crate) fn run_closely(scenario: &Scenario, seed: u64, leaps: bool) -> Records {
    let records = Records {
        gaps: Some(BTreeMap::new()),
        ..Records::default()
    };
    run_with(scenario, Options { seed, leaps }, records)
}

/// As [`run_closely`], where the provider may refuse what it is asked.
///
/// # Panics
/// If the run ends in any other way without a result, or does not end.
pub(crate) fn try_closely(scenario: &Scenario, seed: u64, leaps: bool) -> Result<Records, String> {
    let mut records = Records {
        gaps: Some(BTreeMap::new()),
        ..Records::default()
    };
    let options = Options { seed, leaps };
    let requests = scenario.workload.open(seed).expect("the workload opens");
    let mut looks = 0;
    let at_most = |_| {
        looks += 1;
        match looks {
            0..64 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    };
    match simulate(scenario, requests, options, &mut records, at_most) {
        Ok(totals) => Ok(Records { totals, ..records }),
        Err(refused @ SimulationError::Refused { .. }) => Err(refused.to_string()),
        Err(error) => panic!("{error}"),
    }
}

fn run_with(scenario: &Scenario, options: Options, records: Records) -> Records {
    try_run(scenario, options, records).unwrap_or_else(|error| panic!("{error}"))
}

/// A run that may end without a result.
pub(crate) fn try_run(
    scenario: &Scenario,
    options: Options,
    mut records: Records,
) -> Result<Records, SimulationError> {
    let requests = scenario
        .workload
        .open(options.seed)
        .expect("the workload opens");
    let go_on = |_| ControlFlow::Continue(());
    records.totals = simulate(scenario, requests, options, &mut records, go_on)?;
    Ok(records)
}

/// Mean, and the standard error of the mean, of independent values.
pub(crate) fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values
        .iter()
        .map(|value| (value - mean) * (value - mean))
        .sum::<f64>()
        / (n - 1.0);
    (mean, (variance / n).sqrt())
}
