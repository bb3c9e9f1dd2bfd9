//! The simulator's side.

use std::cell::RefCell;
use std::ops::ControlFlow;

use foresail_core::step_time::{DecodePiece, StepLoad, StepTime};
use foresail_core::time::Picos;
use foresail_reports::records::{Change, Gaps, RecordSink, RequestRecord, RunTotals};
use foresail_scenarios::scenario::{Scenario, StepTimeModel};
use foresail_scenarios::workload::Request;
use foresail_simulator::{Options, simulate_timed_by};

use crate::Load;

/// A run of the simulator.
pub(crate) struct Simulated {
    pub(crate) loads: Vec<Load>,
    pub(crate) records: Vec<RequestRecord>,
    pub(crate) totals: RunTotals,
}

pub(crate) fn run(scenario: &Scenario, requests: &[Request]) -> Simulated {
    let model: &dyn StepTime = match &scenario.deployment.step_time {
        StepTimeModel::Roofline(roofline) => &**roofline,
        StepTimeModel::Profile(profile) => &**profile,
        StepTimeModel::Calibrated(calibrated) => &**calibrated,
    };
    let looker = Looker {
        model,
        loads: RefCell::default(),
    };
    let options = Options {
        seed: scenario.seed,
        leaps: false,
    };
    let requests = requests.iter().cloned().map(Ok);
    let mut records = Records::default();
    let go_on = |_| ControlFlow::Continue(());
    let run = simulate_timed_by(&looker, scenario, requests, options, &mut records, go_on);
    Simulated {
        loads: looker.loads.into_inner(),
        records: records.0,
        totals: run.unwrap(),
    }
}

/// A model that writes down what it is asked about.
struct Looker<'a> {
    model: &'a dyn StepTime,
    loads: RefCell<Vec<Load>>,
}

impl StepTime for Looker<'_> {
    fn step(&self, load: &StepLoad<'_>) -> Picos {
        self.loads.borrow_mut().push(Load::of(load));
        self.model.step(load)
    }

    fn decode(&self, batch: u32, past: u64) -> DecodePiece {
        self.model.decode(batch, past)
    }
}

#[derive(Default)]
struct Records(Vec<RequestRecord>);

impl RecordSink for Records {
    fn request(&mut self, record: &RequestRecord) {
        self.0.push(record.clone());
    }

    fn gaps(&mut self, _: Gaps) {}

    fn change(&mut self, _: &Change) {}
}
