//! Plans, sinks and runs for the tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foresail_core::time::{MILLISECOND, Nanos, SECOND};
use foresail_loadgen::client::{self, Target};
use foresail_loadgen::clock::RunClock;
use foresail_loadgen::exchange::Patience;
use foresail_loadgen::plan::{Planned, Prompt};
use foresail_loadgen::record::{Sink, WindowSettings};
use foresail_loadgen::run::{self, HEAD_START, MakeBody, Run, RunOutcome, Settings};
use foresail_loadgen::schedule::Plan;
use foresail_mock_endpoint::{Behaviour, MockEndpoint};
use foresail_reports::records::{AttemptRecord, Gaps, Outcome, RequestRecord};
use foresail_scenarios::workload::{Content, Request};

/// Keeps all records.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) records: Vec<RequestRecord>,
    pub(crate) attempts: Vec<AttemptRecord>,
    pub(crate) gaps: Vec<Gaps>,
}

impl Sink for Kept {
    fn window(&mut self, _: u64, _: u64) {
        assert!(self.records.is_empty(), "told before any record");
    }
    fn request(&mut self, record: &RequestRecord) {
        self.records.push(record.clone());
    }
    fn gaps(&mut self, gaps: Gaps) {
        self.gaps.push(gaps);
    }
    fn attempt(&mut self, attempt: &AttemptRecord) {
        self.attempts.push(attempt.clone());
    }
}

/// A plan of requests that are due then, of so many output tokens.
pub(crate) fn plan(dues: impl IntoIterator<Item = Nanos>, output_tokens: u32) -> Plan {
    let planned = |(id, due)| Planned {
        id,
        request: Request {
            due,
            prompt_tokens: 8,
            output_tokens,
            session: None,
            adapter: None,
            content: Content::Unique,
        },
        prompt: Prompt::Synthetic,
    };
    let requests: Vec<_> = (0..).zip(dues).map(planned).collect();
    Plan {
        requests_total: requests.len() as u64,
        requests,
        adapters: Vec::new(),
        duration_ns: None,
        description: String::new(),
        skipped: Default::default(),
        repeated_prompts: 0,
    }
}

/// So many times, so far apart.
pub(crate) fn every(gap: Nanos, count: u64) -> impl Iterator<Item = Nanos> {
    (0..count).map(move |index| index * gap)
}

/// A server that answers after a millisecond, a token each millisecond.
pub(crate) fn quick() -> Behaviour {
    Behaviour {
        ttft: Duration::from_millis(1),
        itl: Duration::from_millis(1),
        ..Behaviour::default()
    }
}

/// Everything counts, and nobody waits for ever.
pub(crate) fn settings() -> Settings {
    Settings {
        window: WindowSettings {
            warm_up_ns: Some(0),
            cool_down_ns: 0,
        },
        patience: Patience {
            total_ns: Some(30 * SECOND),
            ..Patience::default()
        },
        ..Settings::default()
    }
}

pub(crate) fn bodies(is_streamed: bool) -> MakeBody {
    Box::new(move |planned| Ok(body(planned, is_streamed)))
}

fn body(planned: &Planned, is_streamed: bool) -> Bytes {
    let usage = if is_streamed {
        r#","stream_options":{"include_usage":true}"#
    } else {
        ""
    };
    format!(
        r#"{{"model":"mock","prompt":"request {}","max_tokens":{},"stream":{is_streamed}{usage}}}"#,
        planned.id, planned.request.output_tokens
    )
    .into()
}

pub(crate) fn target(mock: &MockEndpoint) -> Target {
    Target::resolve(&client::Settings::new(mock.base_url())).expect("an address")
}

/// Starts a run whose clock starts then.
pub(crate) fn start_at(
    mock: &MockEndpoint,
    settings: Settings,
    plan: Plan,
    zero: Instant,
) -> Run<Kept> {
    let bodies = bodies(settings.is_streamed);
    let clock = RunClock::starting_at(zero);
    let plan = Arc::new(plan);
    run::start(
        settings,
        plan,
        bodies,
        &target(mock),
        clock,
        Kept::default(),
    )
    .expect("threads")
}

pub(crate) fn start(mock: &MockEndpoint, settings: Settings, plan: Plan) -> Run<Kept> {
    start_at(mock, settings, plan, Instant::now() + HEAD_START)
}

/// A whole run. What every run must keep is checked.
pub(crate) fn load(behaviour: Behaviour, settings: Settings, plan: Plan) -> RunOutcome<Kept> {
    let mock = MockEndpoint::start(behaviour).expect("a port");
    let offered = plan.requests.len();
    let outcome = start(&mock, settings, plan).wait().expect("a run");
    check(&outcome, offered);
    outcome
}

/// Each request is recorded once, in the order of ends, and the sums add up.
#[track_caller]
pub(crate) fn check(outcome: &RunOutcome<Kept>, offered: usize) {
    let records = &outcome.sink.records;
    assert_eq!(records.len(), offered);
    assert_eq!(outcome.tally.offered, offered as u64);
    assert_eq!(outcome.tally.sent + outcome.tally.unsent, offered as u64);
    let mut ids: Vec<_> = records.iter().map(|record| record.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), offered, "each once");
    assert!(records.is_sorted_by_key(|record| record.end_ns));
    for record in records {
        assert!(record.end_ns >= record.due_ns);
        let sent = record.wire.and_then(|wire| wire.sent_ns);
        assert!(sent.is_none_or(|sent| sent >= record.due_ns), "never early");
    }
}

pub(crate) fn count(outcome: &RunOutcome<Kept>, of: Outcome) -> usize {
    let records = &outcome.sink.records;
    records.iter().filter(|record| record.outcome == of).count()
}

pub(crate) fn ttft(record: &RequestRecord) -> Nanos {
    record.first_token_ns.expect("output") - record.due_ns
}

/// The value of this percentile by nearest rank.
pub(crate) fn percentile(mut values: Vec<Nanos>, percentile: usize) -> Nanos {
    values.sort_unstable();
    values[(values.len() * percentile).div_ceil(100) - 1]
}

/// What a busy machine may add.
pub(crate) const BUSY: Nanos = 500 * MILLISECOND;
