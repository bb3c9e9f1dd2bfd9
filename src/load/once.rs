//! One run: started, watched, and made into a summary and files.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foresail_core::time::Nanos;
use foresail_loadgen::bodies::Bodies;
use foresail_loadgen::client::Target;
use foresail_loadgen::clock::RunClock;
use foresail_loadgen::record::Recording;
use foresail_loadgen::run::{self, MakeBody, Run, RunError, RunOutcome};
use foresail_loadgen::scrape::{self, Scraped, Scraper};
use foresail_reports::records::AttemptRecord;
use foresail_reports::summary::Load;
use foresail_reports::{FilesError, MeasuredFiles, ObjectiveSpec, Summary};

use super::arguments::value::StartAt;
use super::job::Job;
use super::live::{Live, Snapshot};
use super::result::{self, Facts};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::terminal::Terminal;

/// How often the run is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// How long before the first request a run is begun, unless somebody says.
const HEAD_START: Duration = Duration::from_millis(500);

/// How long answers may take once the person has asked to stop.
const INTERRUPTED_DRAIN: Duration = Duration::from_secs(2);

/// What a run needs beside its job.
pub(super) struct Means<'a> {
    pub(super) target: &'a Target,
    pub(super) bodies: Bodies,
    pub(super) objectives: &'a [ObjectiveSpec],
    /// Limits of single requests, for the goodput.
    pub(super) limits: &'a [ObjectiveSpec],
    pub(super) files: Option<MeasuredFiles>,
    pub(super) scrape: Option<scrape::Settings>,
    pub(super) start: Start,
    pub(super) facts: Facts,
    pub(super) interrupt: &'a Interrupt,
    pub(super) terminal: &'a Terminal,
}

/// What has come of a run.
pub(super) struct Done {
    pub(super) summary: Summary,
    /// What is good to know about it.
    pub(super) notes: Vec<String>,
    /// What the first request that came to nothing was told.
    pub(super) first_failure: Option<String>,
    /// What failed on this side, so that the run was broken off.
    pub(super) failure: Option<String>,
    /// Why its records could not all be written; what is there says where.
    pub(super) not_written: Option<FilesError>,
}

/// When a run begins, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) instant: Instant,
    pub(super) unix: Duration,
}

/// What makes the texts of a run its own, because those of an earlier one may be in the endpoint's prefix
/// cache. Shards that begin together have the same, and so share what the plan shares.
pub(super) fn salt(start_at: Option<StartAt>) -> u64 {
    match start_at {
        Some(StartAt::Unix(unix)) => unix,
        Some(StartAt::In(_)) | None => unix_now().as_nanos() as u64,
    }
}

fn unix_now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

impl Start {
    /// When the arguments say, or soon: once the metrics have been read for the first time, which
    /// may take so long.
    pub(super) fn at(
        asked: Option<StartAt>,
        first_scrape: Option<Duration>,
    ) -> Result<Self, Failure> {
        let now = unix_now();
        let soon = HEAD_START + first_scrape.unwrap_or_default();
        let wait = match asked {
            None => soon,
            Some(StartAt::In(wait)) => Duration::from_nanos(wait).max(soon),
            Some(StartAt::Unix(unix)) => {
                let wait = Duration::from_nanos(unix).checked_sub(now);
                wait.filter(|wait| *wait >= run::HEAD_START)
                    .ok_or_else(too_late)?
            }
        };
        Ok(Self {
            instant: Instant::now() + wait,
            unix: now + wait,
        })
    }
}

fn too_late() -> Failure {
    let text =
        "--start-at is over already, or about to be; name a time that is at least a second away";
    Failure::Input(text.to_owned())
}

/// Does a run to its end, or until the person asks to stop.
pub(super) fn run(job: &Job, means: Means<'_>) -> Result<Done, Failure> {
    let clock = RunClock::starting_at(means.start.instant);
    let scraper = means.scrape.map(|settings| Scraper::start(settings, clock));
    let scraper = scraper
        .transpose()
        .map_err(|error| Failure::Input(format!("metrics cannot be read: {error}")))?;
    let is_exact = means.bodies.is_exact();
    let keeps = means.files.is_some();
    let mut recording = Recording::new(means.objectives, means.files);
    recording.measurements = recording.measurements.with_request_limits(means.limits);
    let started = run::start(
        job.settings.clone(),
        Arc::clone(&job.plan),
        make_body(means.bodies),
        means.target,
        clock,
        recording,
    );
    let started = started.map_err(of_run)?;
    watch(&started, job, keeps, means.interrupt, means.terminal);
    let outcome = started.wait().map_err(of_run)?;
    let scraped = scraper.map(Scraper::stop);
    finish(job, outcome, scraped, is_exact, &means.facts, means.start)
}

fn make_body(bodies: Bodies) -> MakeBody {
    Box::new(move |planned| bodies.body(planned).map_err(|error| error.to_string()))
}

fn of_run(error: RunError) -> Failure {
    match error {
        RunError::Panicked(_) => Failure::Defect(error.to_string()),
        RunError::Settings(_) | RunError::System { .. } => Failure::Input(error.to_string()),
    }
}

/// Shows how it goes, and hands on what the person asks for.
fn watch(run: &Run<Recording>, job: &Job, keeps: bool, interrupt: &Interrupt, terminal: &Terminal) {
    let ends_at = ends_at(job);
    let mut live = Live::new(terminal);
    let mut is_stopped = false;
    while !run.is_finished() {
        if interrupt.is_requested() && !is_stopped {
            is_stopped = true;
            terminal.note(if keeps {
                "interrupted: nothing more is sent, and the records so far are kept; a second signal keeps nothing"
            } else {
                "interrupted: nothing more is sent"
            });
            run.stopper().stop(INTERRUPTED_DRAIN);
        }
        live.tell(snapshot(run, job, ends_at), terminal);
        thread::sleep(WATCH_INTERVAL);
    }
}

/// When the last request is due, if that is known.
fn ends_at(job: &Job) -> Option<Nanos> {
    match job.settings.load {
        Load::Closed { .. } => job.settings.duration_ns,
        Load::Open | Load::Capped { .. } => {
            let last = job.plan.last_due_ns();
            Some(
                job.settings
                    .duration_ns
                    .map_or(last, |duration| duration.min(last)),
            )
        }
    }
}

fn snapshot(run: &Run<Recording>, job: &Job, ends_at: Option<Nanos>) -> Snapshot {
    let live = run.live();
    let is_closed = matches!(job.settings.load, Load::Closed { .. });
    Snapshot {
        at: live.at_ns,
        ends_at,
        due: (!is_closed).then_some(live.asked),
        sent: live.sent,
        completed: live.completed,
        errors: live.failed,
        in_flight: live.in_flight,
        ttft: live.ttft_p50_ns.zip(live.ttft_p99_ns),
    }
}

fn in_words(attempt: &AttemptRecord) -> String {
    let status = attempt.status.map(|status| format!(" with {status}"));
    let detail = match attempt.detail.trim() {
        "" => String::new(),
        // What comes from a server may have control characters in it.
        detail => format!(": {}", detail.replace(char::is_control, " ")),
    };
    let outcome = attempt.outcome.name().replace('_', " ");
    format!("{outcome}{}{detail}", status.unwrap_or_default())
}

/// From what was recorded to the summary and the files.
fn finish(
    job: &Job,
    mut outcome: RunOutcome<Recording>,
    scraped: Option<Scraped>,
    is_exact: bool,
    facts: &Facts,
    start: Start,
) -> Result<Done, Failure> {
    let failure = outcome.failure.take();
    let mut files = outcome.sink.files.take();
    let first_failure = outcome.sink.first_failure.as_ref().map(in_words);
    let result = result::of(job, &outcome, scraped.as_ref(), is_exact, facts, start)?;
    if let Some(files) = &mut files {
        result.write_changes(files, scraped.as_ref());
    }
    let written = files.map(|files| files.finish(&result.summary, &result.histograms));
    let wall_s = start.instant.elapsed().as_secs_f64();
    Ok(Done {
        summary: result.summary.with_wall_s(wall_s),
        notes: result.notes,
        first_failure,
        failure,
        not_written: written.and_then(Result::err),
    })
}
