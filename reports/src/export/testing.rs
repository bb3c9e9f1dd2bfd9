//! A small measured run for the tests of all exports.

use std::collections::BTreeMap;

use serde_json::Value;

use super::MeasuredRun;
use crate::histograms::Histograms;
use crate::measurements::Measurements;
use crate::objectives::{Latency, ObjectiveMetric, ObjectiveSpec, Statistic};
use crate::records::{
    DeploymentTotals, Gaps, MeasuredTotals, Outcome, RecordSink, RequestRecord, TokensFrom, Wire,
};
use crate::summary::{
    Counters, Degraded, Load, Measured, Rates, RunDescription, ScenarioFacts, Source, Tool, Window,
};

const MS: u64 = 1_000_000;

/// Five requests, one every half second, sent 1 ms late: the first is before the window, the last
/// is reset. TTFT is 50 ms and 10 ms more each time; each but the last then has 3 tokens 10 ms apart,
/// and what ends its stream 1 ms later.
pub(super) fn run() -> MeasuredRun {
    let requests: Vec<RequestRecord> = (0..5).map(request).collect();
    let limit = ObjectiveSpec {
        name: "ttft.p99".into(),
        metric: ObjectiveMetric::Latency(Latency::Ttft, Statistic::Percentile(99.0)),
        limit: 0.065,
    };
    let mut measurements = Measurements::new(&[limit]);
    for record in requests.iter().filter(|record| record.id > 0) {
        measurements.request(record);
        if record.outcome == Outcome::Completed {
            let gap_ps = 10 * MS * 1_000;
            measurements.gaps(Gaps {
                first_ps: gap_ps,
                growth_ps: 0,
                steps: 2,
                tokens: 1,
            });
        }
    }
    MeasuredRun {
        summary: measurements.measured_summary(&description(), &totals()),
        histograms: Histograms::of(&measurements),
        requests,
    }
}

fn request(id: u64) -> RequestRecord {
    let due_ns = id * 500 * MS;
    let is_reset = id == 4;
    let first_ns = due_ns + (50 + 10 * id) * MS;
    RequestRecord {
        id,
        due_ns,
        prompt_tokens: 100,
        output_tokens: if is_reset { 1 } else { 3 },
        session: None,
        adapter: None,
        attempts: 1,
        replica: None,
        cached_tokens: 0,
        preemptions: 0,
        outcome: if is_reset {
            Outcome::FailedReset
        } else {
            Outcome::Completed
        },
        first_token_ns: Some(first_ns),
        end_ns: first_ns + 21 * MS,
        parts: None,
        wire: Some(Wire {
            sent_ns: Some(due_ns + MS),
            last_output_ns: Some(first_ns + 20 * MS),
            status: Some(200),
            chunks: 3,
            tokens_from: TokensFrom::Usage,
            is_connection_reused: id > 0,
            body_bytes: 600,
            is_in_window: id > 0,
        }),
    }
}

fn description() -> RunDescription {
    RunDescription {
        tool: Tool {
            version: "0.1.0".into(),
            commit: None,
        },
        source: Source::Measured,
        scenario: ScenarioFacts {
            name: "small".into(),
            model: "llama-3-8b".into(),
            ..ScenarioFacts::default()
        },
        seed: 1,
    }
}

fn totals() -> MeasuredTotals {
    let measured = Measured {
        endpoint: "127.0.0.1:8000".into(),
        // 2026-02-03T04:05:06.5Z
        began_unix_s: 1_770_091_506.5,
        load: Load::Capped { in_flight_max: 8 },
        degraded: vec![Degraded {
            code: "sends_late".into(),
            text: "sends were 1 ms late".into(),
        }],
        window: Window {
            from_s: 0.5,
            until_s: 2.5,
            whole_run: Counters {
                completed: 3,
                output_tokens: 9,
                ..Counters::default()
            },
            ..Window::default()
        },
        rates: Rates {
            asked_per_s: Some(2.0),
            sent_per_s: 2.0,
            in_flight_max: 1,
        },
        ..Measured::default()
    };
    let deployment = DeploymentTotals {
        replica_ns: 2_500 * u128::from(MS),
        replicas_max: 1,
        billed_gpu_ns: 5_000 * u128::from(MS),
        ready_gpu_ns: 5_000 * u128::from(MS),
        cost_nanodollars: 5_000_000,
        ..DeploymentTotals::default()
    };
    MeasuredTotals {
        offered: 4,
        end_ns: 2_500 * MS,
        deployment: Some(deployment),
        measured,
    }
}

/// JSON with its keys in order, one field a line: whether maps keep the
/// order in which they were filled depends on how the workspace is built.
pub(super) fn sorted(json: &Value) -> String {
    let fields = json.as_object().expect("an object");
    let fields: BTreeMap<&String, &Value> = fields.iter().collect();
    let line = |(name, value): (&&String, &&Value)| format!("{name}: {}\n", canonical(value));
    fields.iter().map(line).collect()
}

fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", canonical(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(canonical).collect();
            format!("[{}]", values.join(", "))
        }
        other => other.to_string(),
    }
}
