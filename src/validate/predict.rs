//! The measured requests, simulated.

use std::ops::ControlFlow;

use foresail_core::step_time::{DecodePiece, StepLoad, StepTime};
use foresail_core::time::Picos;
use foresail_reports::records::{Change, Gaps, RecordSink, RequestRecord, RunTotals};
use foresail_reports::validation::{Counts, Times};
use foresail_scenarios::scenario::{Scenario, StepTimeModel};
use foresail_scenarios::workload::{Request, WorkloadError};
use foresail_simulator::{Options, SimulationError, simulate, simulate_timed_by};

use super::measured::{Measured, TokenRatios};
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// A simulation of the measured requests.
#[derive(Debug)]
pub(super) struct Prediction {
    /// What each took; `None` if it did not complete. In the order of the requests.
    pub(super) times: Vec<Option<Times>>,
    /// Replicas over the run.
    pub(super) replicas: Counts,
    /// What is known of the run as a whole.
    pub(super) totals: RunTotals,
}

/// What is simulated.
#[derive(Debug)]
pub(super) struct Predictor<'a> {
    scenario: &'a Scenario,
    requests: Vec<Request>,
    interrupt: &'a Interrupt,
}

/// How step times differ from the scenario's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Steps {
    /// Not at all.
    Best,
    /// As the draw of this seed has them.
    Drawn(u64),
    /// Each takes so many times as long.
    Times(f64),
}

impl<'a> Predictor<'a> {
    pub(super) fn new(
        scenario: &'a Scenario,
        measured: &Measured,
        interrupt: &'a Interrupt,
    ) -> Self {
        let requests = measured.requests.iter();
        Self {
            scenario,
            requests: requests.map(|each| each.request.clone()).collect(),
            interrupt,
        }
    }

    /// The same requests with as many times as many tokens; their client counts them as before.
    pub(super) fn with_tokens(&self, ratios: TokenRatios) -> Predictor<'a> {
        let scaled = |tokens: u32, ratio: f64| ((f64::from(tokens) * ratio).round() as u32).max(1);
        let requests = self.requests.iter().map(|request| Request {
            prompt_tokens: scaled(request.prompt_tokens, ratios.prompt),
            output_tokens: scaled(request.output_tokens, ratios.output),
            ..request.clone()
        });
        Predictor {
            requests: requests.collect(),
            ..*self
        }
    }

    /// Simulates the requests. `counted` are the output tokens of each, as its client counts them;
    /// `sink` gets the records as well.
    pub(super) fn predict(
        &self,
        steps: Steps,
        counted: &[u32],
        sink: impl RecordSink,
    ) -> Result<Prediction, Failure> {
        let drawn;
        let (scenario, seed) = match steps {
            Steps::Drawn(seed) => {
                drawn = self.scenario.drawn(seed);
                (&drawn, seed)
            }
            Steps::Best | Steps::Times(_) => (self.scenario, self.scenario.seed),
        };
        let mut sink = Collected {
            records: vec![None; self.requests.len()],
            counted,
            sink,
        };
        let requests = self.requests.iter().cloned().map(Ok::<_, WorkloadError>);
        let options = Options { seed, leaps: true };
        let watch = |_| {
            if self.interrupt.is_requested() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let totals = match steps {
            Steps::Times(factor) => {
                let inner: &dyn StepTime = match &scenario.deployment.step_time {
                    StepTimeModel::Roofline(roofline) => &**roofline,
                    StepTimeModel::Profile(profile) => &**profile,
                    StepTimeModel::Calibrated(calibrated) => &**calibrated,
                };
                let scaled = Scaled { inner, factor };
                simulate_timed_by(&scaled, scenario, requests, options, &mut sink, watch)
            }
            Steps::Best | Steps::Drawn(_) => {
                simulate(scenario, requests, options, &mut sink, watch)
            }
        };
        let totals = totals.map_err(|source| failure(&scenario.name, source))?;
        Ok(Prediction {
            times: sink.records,
            replicas: counts(&totals),
            totals,
        })
    }
}

fn failure(run: &str, source: SimulationError) -> Failure {
    match source {
        SimulationError::Interrupted => Failure::Interrupted,
        SimulationError::UnknownAdapter { .. } => Failure::Input(format!(
            "{run}: {source}; the measured run has adapters that the scenario does not deploy: list as many in \
             `[adapters]`"
        )),
        source => Failure::Simulation {
            run: run.to_owned(),
            source,
        },
    }
}

fn counts(totals: &RunTotals) -> Counts {
    Counts {
        mean: totals.replica_ns as f64 / (totals.end_ns as f64).max(1.0),
        max: f64::from(totals.replicas_max),
    }
}

/// Keeps what each request took, by its place among the requests.
struct Collected<'a, S> {
    records: Vec<Option<Times>>,
    counted: &'a [u32],
    sink: S,
}

impl<S: RecordSink> RecordSink for Collected<'_, S> {
    fn request(&mut self, record: &RequestRecord) {
        let place = record.id as usize;
        self.records[place] = Times::of(record, self.counted[place]);
        self.sink.request(record);
    }

    fn gaps(&mut self, gaps: Gaps) {
        self.sink.gaps(gaps);
    }

    fn change(&mut self, change: &Change) {
        self.sink.change(change);
    }
}

/// Step times, each so many times as long.
struct Scaled<'a> {
    inner: &'a dyn StepTime,
    factor: f64,
}

impl StepTime for Scaled<'_> {
    fn step(&self, load: &StepLoad<'_>) -> Picos {
        if load.chunks.is_empty() {
            // The same as the piece, to the picosecond, so that a leap is its steps.
            let piece = self.decode(load.decodes, load.decode_past);
            return piece.at(load.decode_past);
        }
        (self.inner.step(load) as f64 * self.factor).round() as Picos
    }

    fn decode(&self, batch: u32, past: u64) -> DecodePiece {
        let piece = self.inner.decode(batch, past);
        DecodePiece {
            fixed: (piece.fixed as f64 * self.factor).round() as i64,
            per_past_token: (piece.per_past_token as f64 * self.factor).round() as Picos,
            past_last: piece.past_last,
        }
    }
}
