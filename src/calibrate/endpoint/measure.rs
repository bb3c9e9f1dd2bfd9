//! A run of the load generator, as the calibration needs it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foresail_core::time::SECOND;
use foresail_loadgen::bodies::{self, Bodies, Counting, Form};
use foresail_loadgen::client::Target;
use foresail_loadgen::clock::RunClock;
use foresail_loadgen::exchange::Patience;
use foresail_loadgen::plan::{Planned, Prompt};
use foresail_loadgen::record::Sink;
use foresail_loadgen::run::{self, RunError, Settings};
use foresail_loadgen::schedule::Plan;
use foresail_loadgen::watch::{Reason, ReasonCode, limits};
use foresail_reports::records::{AttemptRecord, Gaps, Outcome, RequestRecord};
use foresail_reports::summary::Load;
use foresail_scenarios::workload::Skipped;

use super::design::Job;
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// How often the run is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);
/// For a connection, for the first token of a request that is alone, and for anything more to come of an answer;
/// longer than that, nothing is there.
const CONNECT_PATIENCE_NS: u64 = 30 * SECOND;
pub(super) const FIRST_TOKEN_PATIENCE_NS: u64 = 120 * SECOND;
const STALL_PATIENCE_NS: u64 = 120 * SECOND;
/// So many connections are opened ahead at most.
const WARM_CONNECTIONS_MAX: u64 = 256;
/// What a run takes beside its requests (s): its head start, and what is left of it at the end.
pub(super) const PAUSE_S: f64 = 0.4;

/// What every run of a calibration shares.
pub(super) struct Client<'a> {
    pub(super) target: &'a Target,
    pub(super) model: String,
    pub(super) form: Form,
    pub(super) counting: &'a Counting,
    pub(super) interrupt: &'a Interrupt,
}

/// A run that was done.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) job: Job,
    /// One a request, in their order.
    pub(super) records: Vec<RequestRecord>,
    /// Why the client was the limit, if it was.
    pub(super) degraded: Vec<String>,
    /// What requests that came to nothing were told, and how many of them.
    pub(super) failures: BTreeMap<String, u64>,
    /// How long it took.
    pub(super) took: Duration,
}

impl Done {
    /// Requests that came to nothing.
    pub(super) fn failed(&self) -> usize {
        let failed = |record: &&RequestRecord| record.outcome != Outcome::Completed;
        self.records.iter().filter(failed).count()
    }
}

impl Client<'_> {
    /// Does a run to its end. A request that has no token after `patience_ns` came to nothing.
    pub(super) fn run(&self, job: &Job, patience_ns: u64) -> Result<Done, Failure> {
        self.interrupt.check()?;
        let began = Instant::now();
        let plan = Arc::new(plan(job));
        let bodies = self.bodies(&plan)?;
        let connections = connections(job);
        limits::allow(connections).map_err(|error| Failure::Input(error.to_string()))?;
        let clock = RunClock::starting_at(Instant::now() + run::HEAD_START);
        let make_body =
            move |planned: &Planned| bodies.body(planned).map_err(|error| error.to_string());
        let started = run::start(
            settings(job.load, connections, patience_ns),
            plan,
            Box::new(make_body),
            self.target,
            clock,
            Kept::default(),
        );
        let started = started.map_err(of_run)?;
        while !started.is_finished() {
            if self.interrupt.is_requested() {
                started.stopper().stop(Duration::ZERO);
            }
            thread::sleep(WATCH_INTERVAL);
        }
        let outcome = started.wait().map_err(of_run)?;
        self.interrupt.check()?;
        if let Some(failure) = outcome.failure {
            return Err(Failure::Input(failure));
        }
        let Kept {
            mut records,
            failures,
        } = outcome.sink;
        records.sort_by_key(|record| record.id);
        let degraded = outcome.verdict.degraded.into_iter();
        let degraded = degraded.filter(|reason| is_harmful(reason.code));
        Ok(Done {
            job: job.clone(),
            records,
            degraded: degraded.map(in_terms_of_calibration).collect(),
            failures,
            took: began.elapsed(),
        })
    }

    fn bodies(&self, plan: &Plan) -> Result<Bodies, Failure> {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let settings = bodies::Settings {
            model: self.model.clone(),
            form: self.form,
            // What an earlier run sent may be in a prefix cache.
            salt: since.as_nanos() as u64,
            ..bodies::Settings::default()
        };
        Bodies::new(&settings, &plan.adapters, self.counting)
            .map_err(|error| Failure::Input(error.to_string()))
    }
}

/// Whether times are wrong for it. A request that was sent late was still sent when its record says, and that is
/// when it is simulated to be.
fn is_harmful(code: ReasonCode) -> bool {
    match code {
        ReasonCode::LateSends | ReasonCode::Rate | ReasonCode::Feeder => false,
        ReasonCode::LoopLag
        | ReasonCode::Processor
        | ReasonCode::LocalErrors
        | ReasonCode::Paused => true,
    }
}

/// What was seen, and what helps here: a calibration has no rate, nor threads to set.
fn in_terms_of_calibration(reason: Reason) -> String {
    let remedy = match reason.code {
        ReasonCode::LoopLag | ReasonCode::Processor => {
            "lower --concurrency-max and --burst, or give the client processors of its own"
        }
        ReasonCode::LocalErrors => "raise `ulimit -n`, or lower --concurrency-max and --burst",
        ReasonCode::LateSends | ReasonCode::Rate | ReasonCode::Feeder | ReasonCode::Paused => {
            return reason.text;
        }
    };
    // A reason ends with what `foresail load` would do about it.
    let seen = reason.text.rsplit_once("; ").map(|(seen, _)| seen);
    format!("{}; {remedy}", seen.unwrap_or(&reason.text))
}

fn of_run(error: RunError) -> Failure {
    match error {
        RunError::Panicked(_) => Failure::Defect(error.to_string()),
        RunError::Settings(_) | RunError::System { .. } => Failure::Input(error.to_string()),
    }
}

fn plan(job: &Job) -> Plan {
    let planned = (0..).zip(&job.requests).map(|(id, request)| Planned {
        id,
        request: request.clone(),
        prompt: Prompt::Synthetic,
    });
    Plan {
        requests: planned.collect(),
        requests_total: job.requests.len() as u64,
        adapters: Vec::new(),
        duration_ns: None,
        description: job.name.clone(),
        skipped: Skipped::default(),
        repeated_prompts: 0,
    }
}

fn connections(job: &Job) -> u64 {
    let requests = job.requests.len() as u64;
    match job.load {
        Load::Closed { concurrency } => concurrency.min(requests),
        Load::Capped { in_flight_max } => in_flight_max.min(requests),
        Load::Open => requests,
    }
}

fn settings(load: Load, connections: u64, patience_ns: u64) -> Settings {
    Settings {
        load,
        drain_ns: STALL_PATIENCE_NS,
        patience: Patience {
            connect_ns: Some(CONNECT_PATIENCE_NS),
            first_output_ns: Some(patience_ns),
            stall_ns: Some(STALL_PATIENCE_NS),
            total_ns: None,
        },
        warm_connections: connections.min(WARM_CONNECTIONS_MAX) as usize,
        ..Settings::default()
    }
}

/// Keeps every record.
#[derive(Debug, Default)]
struct Kept {
    records: Vec<RequestRecord>,
    failures: BTreeMap<String, u64>,
}

impl Sink for Kept {
    fn window(&mut self, _: u64, _: u64) {}

    fn request(&mut self, record: &RequestRecord) {
        self.records.push(record.clone());
    }

    fn gaps(&mut self, _: Gaps) {}

    fn attempt(&mut self, attempt: &AttemptRecord) {
        if attempt.outcome != Outcome::Completed {
            *self.failures.entry(in_words(attempt)).or_default() += 1;
        }
    }
}

fn in_words(attempt: &AttemptRecord) -> String {
    let outcome = attempt.outcome.name().replace('_', " ");
    let status = attempt
        .status
        .map(|status| format!(" with status {status}"));
    let detail = match attempt.detail.trim() {
        "" => String::new(),
        // What comes from a server may have control characters in it, and be long.
        detail => {
            let plain: String = detail
                .replace(char::is_control, " ")
                .chars()
                .take(200)
                .collect();
            format!(": {plain}")
        }
    };
    format!("{outcome}{}{detail}", status.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use foresail_loadgen::client;
    use foresail_mock_endpoint::{Behaviour, Fault, MockEndpoint, Rule, When};

    use super::super::design;
    use super::*;

    #[test]
    fn an_endpoint_that_never_answers_is_not_waited_for_for_ever() {
        let when = When::Always;
        let fault = Fault::NeverAnswer;
        let mock = MockEndpoint::start(Behaviour {
            rules: vec![Rule { fault, when }],
            ..Behaviour::default()
        });
        let mock = mock.expect("a port is free");
        let target = Target::resolve(&client::Settings::new(mock.base_url())).unwrap();
        let interrupt = Interrupt::listen().unwrap();
        let client = Client {
            target: &target,
            model: "mock".to_owned(),
            form: Form::Completions,
            counting: &Counting::Bytes {
                bytes_per_token: 4.0,
            },
            interrupt: &interrupt,
        };
        let done = client.run(&design::probe(32, 2), SECOND / 5).unwrap();
        assert_eq!(done.failed(), 2);
        let failures: Vec<&String> = done.failures.keys().collect();
        assert!(failures[0].contains("timeout"), "{failures:?}");
    }

    #[test]
    fn reasons_name_options_that_there_are() {
        let of = |code, text: &str| {
            in_terms_of_calibration(Reason {
                code,
                text: text.to_owned(),
            })
        };
        let lag = of(
            ReasonCode::LoopLag,
            "the loop was late by 3 ms; raise --threads, lower the rate",
        );
        assert_eq!(
            lag,
            "the loop was late by 3 ms; lower --concurrency-max and --burst, or give the client processors of its own"
        );
        let paused = "the client stood still once; run it again";
        assert_eq!(of(ReasonCode::Paused, paused), paused);
    }
}
