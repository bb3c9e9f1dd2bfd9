//! What a run comes to: the records of the run, what the server said, and what is known of both, as one summary.

use std::time::Duration;

use foresail_core::time::{Nanos, seconds};
use foresail_loadgen::record::Recording;
use foresail_loadgen::run::RunOutcome;
use foresail_loadgen::scrape::{self, Billing, Deployment, Point, ReplicaCount, Scraped};
use foresail_reports::intervals::ServerLoad;
use foresail_reports::records::{MeasuredTotals, RecordSink as _};
use foresail_reports::summary::{
    Degraded, Load, Measured, ScenarioFacts, Shard, Source, Summary, Window,
};
use foresail_reports::{Histograms, MeasuredFiles, RunDescription};

use super::job::{Job, plan_digest};
use super::once::Start;
use crate::cli;
use crate::failure::Failure;

/// What is known of a run beside what was measured.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The scenario, but for the traffic.
    pub(super) scenario: ScenarioFacts,
    /// Where requests go, without credentials.
    pub(super) endpoint: String,
    pub(super) billing: Option<Billing>,
    /// How it is known how many replicas there are.
    pub(super) replicas: Option<ReplicaCount>,
    /// Which part of the plan this is, and of how many.
    pub(super) shard: Option<(u32, u32)>,
    /// Conversations, dataset rows and the like that are worth a word.
    pub(super) notes: Vec<String>,
}

/// What a run comes to.
pub(super) struct RunResult {
    pub(super) summary: Summary,
    pub(super) histograms: Histograms,
    pub(super) notes: Vec<String>,
    deployment: Option<Deployment>,
    end_ns: Nanos,
}

/// The result of a run that has ended.
pub(super) fn of(
    job: &Job,
    outcome: &RunOutcome<Recording>,
    scraped: Option<&Scraped>,
    is_exact: bool,
    facts: &Facts,
    start: Start,
) -> Result<RunResult, Failure> {
    let end_ns = outcome
        .tally
        .end_ns
        .max(outcome.window.until_ns.saturating_sub(1));
    let deployment = deployment(facts, scraped, end_ns)?;
    let totals = MeasuredTotals {
        offered: outcome.tally.in_window,
        end_ns,
        deployment: deployment.as_ref().map(|deployment| deployment.totals),
        measured: measured(job, outcome, scraped, is_exact, facts, (start.unix, end_ns)),
    };
    let description = RunDescription {
        tool: cli::tool(),
        source: Source::Measured,
        scenario: ScenarioFacts {
            workload: job.plan.description.clone(),
            ..facts.scenario.clone()
        },
        seed: job.seed,
    };
    let summary = outcome
        .sink
        .measurements
        .measured_summary(&description, &totals);
    let notes = notes(outcome, &summary, facts);
    Ok(RunResult {
        summary,
        histograms: histograms(outcome),
        notes,
        deployment,
        end_ns,
    })
}

impl RunResult {
    /// Writes what the server said, and how its replicas changed.
    pub(super) fn write_changes(&self, files: &mut MeasuredFiles, scraped: Option<&Scraped>) {
        for change in self
            .deployment
            .iter()
            .flat_map(|deployment| &deployment.changes)
        {
            files.change(change);
        }
        for point in scraped
            .into_iter()
            .flat_map(|scraped| scraped.timeline(self.end_ns))
        {
            files.server(point.at_ns, &server_load(&point));
        }
    }
}

fn server_load(point: &Point) -> ServerLoad {
    let as_float = |count: Option<u64>| count.map(|count| count as f64);
    ServerLoad {
        running: as_float(point.running),
        waiting: as_float(point.waiting),
        kv_usage: point.kv_usage,
        ready_replicas: Some(f64::from(point.replicas.unwrap_or(point.servers))),
    }
}

/// What the deployment held and cost, if it is known how many replicas there were and what they cost.
fn deployment(
    facts: &Facts,
    scraped: Option<&Scraped>,
    end_ns: Nanos,
) -> Result<Option<Deployment>, Failure> {
    let (Some(billing), Some(count)) = (facts.billing, facts.replicas) else {
        return Ok(None);
    };
    let nothing = Scraped {
        every_ns: 0,
        targets: Vec::new(),
    };
    scrape::deployment(scraped.unwrap_or(&nothing), count, billing, end_ns)
        .map_err(|error| Failure::Input(format!("the cost cannot be counted: {error}")))
}

fn measured(
    job: &Job,
    outcome: &RunOutcome<Recording>,
    scraped: Option<&Scraped>,
    is_exact: bool,
    facts: &Facts,
    (began_unix, end_ns): (Duration, Nanos),
) -> Measured {
    let mut measured = outcome.measured();
    let window = &outcome.window;
    measured.endpoint = facts.endpoint.clone();
    measured.began_unix_s = began_unix.as_secs_f64();
    measured.window = Window {
        from_s: seconds(window.from_ns),
        until_s: seconds(window.until_ns),
        rule: window.rule.clone(),
        ..Window::default()
    };
    if let Some(tally) = &outcome.sink.tally {
        measured.client = tally.client(measured.client);
        measured.window = Window {
            from_s: measured.window.from_s,
            until_s: measured.window.until_s,
            ..tally.window(window.rule.clone(), end_ns)
        };
    }
    measured.client.prompts_are_exact = is_exact;
    measured.server = scraped.map(|scraped| scraped.summary(window.from_ns, window.until_ns));
    measured.shard = facts.shard.map(|(part, of)| Shard {
        parts: vec![part],
        of,
        plan_digest: plan_digest(&job.plan, job.workload_seed),
    });
    if matches!(measured.load, Load::Closed { .. }) || job.is_at_once {
        measured.rates.asked_per_s = None;
    }
    if outcome.tally.in_window == 0 && !measured.is_interrupted {
        measured.degraded.push(empty_window());
    }
    measured
}

/// Figures of no request are none.
fn empty_window() -> Degraded {
    Degraded {
        code: "empty_window".to_owned(),
        text: "no request was due in the window that counts; send more, for longer, or choose \
            a shorter --warmup and --cooldown"
            .to_owned(),
    }
}

/// The histograms, so that runs can be added.
fn histograms(outcome: &RunOutcome<Recording>) -> Histograms {
    let mut histograms = Histograms::of(&outcome.sink.measurements);
    if let Some(tally) = &outcome.sink.tally {
        histograms.send_late = tally.send_late().clone();
    }
    histograms.loop_lag = outcome.watch.loop_lag().clone();
    histograms
}

/// What is good to know about a run, beside its figures.
fn notes(outcome: &RunOutcome<Recording>, summary: &Summary, facts: &Facts) -> Vec<String> {
    let mut notes = facts.notes.clone();
    notes.extend(outcome.verdict.notes.iter().map(|note| note.text.clone()));
    if let Some(why) = &outcome.not_warmed {
        notes.push(format!("before the run, {why}"));
    }
    let measured = summary.measured.as_deref();
    if let Some(steadiness) = measured.and_then(|measured| measured.steadiness.as_ref())
        && !steadiness.is_steady
    {
        notes.push(steadiness.text.clone());
    }
    if let Some(server) = measured.and_then(|measured| measured.server.as_ref()) {
        let tokens = &summary.tokens;
        let differ = scrape::tokens_differ(server, tokens.prompt, outcome.tally.output_tokens);
        let differ = differ.iter().filter(|differ| differ.which == "output");
        notes.extend(differ.map(|differ| {
            format!(
                "the server counted {} {} tokens in the run, and the client {}; does it serve others?",
                differ.server, differ.which, differ.client
            )
        }));
    }
    notes
}
