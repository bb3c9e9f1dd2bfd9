//! Scenarios from text, and what their runs recorded.

use std::ops::ControlFlow;
use std::path::Path;

use foresail_reports::records::{Change, Gaps, RecordSink, RequestRecord, RunTotals};
use foresail_scenarios::format::{self, Overrides};
use foresail_scenarios::scenario::Scenario;
use foresail_simulator::{Deployed, Options, simulate_together};

/// Everything that a deployment's run recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(crate) requests: Vec<RequestRecord>,
    pub(crate) changes: Vec<Change>,
    pub(crate) totals: RunTotals,
}

impl RecordSink for Records {
    fn request(&mut self, record: &RequestRecord) {
        self.requests.push(record.clone());
    }

    fn gaps(&mut self, _: Gaps) {}

    fn change(&mut self, change: &Change) {
        self.changes.push(change.clone());
    }
}

impl Records {
    /// Requests a second, of a run into which all requests come at once.
    pub(crate) fn capacity(&self) -> f64 {
        self.requests.len() as f64 / (self.totals.end_ns as f64 / 1e9)
    }

    /// From the intended send to the first token, on average (s).
    pub(crate) fn ttft_s(&self) -> f64 {
        let of = |request: &RequestRecord| request.first_token_ns.unwrap() - request.due_ns;
        let sum: u64 = self.requests.iter().map(of).sum();
        sum as f64 / 1e9 / self.requests.len() as f64
    }

    /// Between two tokens of a request, on average (s).
    pub(crate) fn between_tokens_s(&self) -> f64 {
        let of = |request: &RequestRecord| request.end_ns - request.first_token_ns.unwrap();
        let sum: u64 = self.requests.iter().map(of).sum();
        let gaps = |request: &RequestRecord| u64::from(request.output_tokens) - 1;
        let gaps: u64 = self.requests.iter().map(gaps).sum();
        sum as f64 / 1e9 / gaps as f64
    }
}

pub(crate) fn scenario(text: &str) -> Scenario {
    let parsed = format::parse("test", text, Path::new("."), &Overrides::default());
    parsed.unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

/// Deployments under one clock, each with its own seed.
pub(crate) fn together(deployments: &[(&Scenario, u64)]) -> Vec<Records> {
    let mut records = vec![Records::default(); deployments.len()];
    let deployed = deployments.iter().zip(&mut records);
    let deployed = deployed.map(|(&(scenario, seed), sink)| Deployed {
        scenario,
        requests: scenario.workload.open(seed).unwrap(),
        sink,
        seed,
    });
    let options = Options {
        seed: 1,
        leaps: true,
    };
    let go_on = |_| ControlFlow::Continue(());
    let totals = simulate_together(deployed.collect(), options, go_on).unwrap();
    for (records, totals) in records.iter_mut().zip(totals) {
        records.totals = totals;
    }
    records
}

pub(crate) fn run(scenario: &Scenario, seed: u64) -> Records {
    together(&[(scenario, seed)]).remove(0)
}
