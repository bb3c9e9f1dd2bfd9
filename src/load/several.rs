//! Several runs at several rates: a sweep over a list, or a search for the highest
//! rate that meets the objectives.
//!
//! Every run has a seed of its own, so that no rate is decided by the luck of one
//! sequence of arrivals. A search ends where this machine, and not the endpoint, was the limit:
//! what is beyond cannot be measured from here.

mod table;

use std::path::{Path, PathBuf};

use foresail_loadgen::search::{self, Ending, Found, Reading, Search, Step};
use foresail_reports::objectives::{Bound, Objective};
use foresail_reports::{ObjectiveSpec, Summary};
use serde::Serialize;
use table::Row;

use super::once::Done;
use super::{Session, at_rate, show};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::OutputFormat;

/// A run of a search in which this machine was the limit is done again so often, in case it was busy for a moment.
const REPEATED_MAX: u32 = 2;

pub(super) fn run(session: &Session<'_>) -> Result<ExitCode, Failure> {
    match &session.common.arguments.rates.rate {
        Some(list) => sweep(session, list),
        None => search(session),
    }
}

/// A run, and the rate that it was asked for.
struct AtRate {
    rate_per_s: f64,
    summary: Summary,
}

/// How a series of runs ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ended {
    is_interrupted: bool,
    is_degraded: bool,
}

fn sweep(session: &Session<'_>, list: &str) -> Result<ExitCode, Failure> {
    let rates = search::rates(list).map_err(|error| Failure::Input(format!("--rate: {error}")))?;
    let runs = session
        .common
        .arguments
        .rates
        .runs
        .map_or(1, |runs| runs.get());
    let mut done = Vec::new();
    let mut ended = Ended::default();
    for (number, rate_per_s) in (0..).zip(
        rates
            .iter()
            .flat_map(|rate| std::iter::repeat_n(*rate, runs as usize)),
    ) {
        let repeat = number % runs;
        let run = one(session, rate_per_s, (number, repeat), &mut ended)?;
        done.push(run);
        if ended.is_interrupted {
            break;
        }
    }
    let text = match session.common.arguments.output.format {
        OutputFormat::Text => table::of(&rows(&done)),
        OutputFormat::Json => {
            let summaries: Vec<_> = done.iter().map(|run| &run.summary).collect();
            json(&summaries)?
        }
    };
    session.terminal.print(&text)?;
    Ok(code(ended, true))
}

fn search(session: &Session<'_>) -> Result<ExitCode, Failure> {
    let arguments = session.common.arguments;
    let mut settings = search::Settings::default();
    if let Some(runs) = arguments.rates.runs {
        if runs.get() < 2 {
            let text = "--runs 1: a rate is decided by several runs; give at least 2";
            return Err(Failure::Input(text.to_owned()));
        }
        // As many at first, and up to twice as many where they do not tell.
        settings.looks = vec![runs.get(), 2 * runs.get()];
    }
    let input = |error: search::SettingsError| Failure::Input(format!("--runs: {error}"));
    let mut search = Search::new(settings).map_err(input)?;
    let mut done = Vec::new();
    let mut ended = Ended::default();
    let mut repeated = 0;
    let found = loop {
        let run = match search.next() {
            Step::Done(found) => break found,
            Step::Run(run) => run,
        };
        session.terminal.note(&format!(
            "run {} at {:.3} requests/s",
            run.number + 1,
            run.rate_per_s
        ));
        let ran = one(
            session,
            run.rate_per_s,
            (run.number, run.repeat),
            &mut ended,
        )?;
        if ended.is_degraded && !ended.is_interrupted && repeated < REPEATED_MAX {
            repeated += 1;
            ended.is_degraded = false;
            session.terminal.note("the run is done again");
            continue;
        }
        if ended.is_interrupted || ended.is_degraded {
            done.push(ran);
            break search.stopped();
        }
        repeated = 0;
        search.told(reading(&session.judged.searched, &ran.summary.objectives));
        done.push(ran);
    };
    let text = match arguments.output.format {
        OutputFormat::Text => table::of(&rows(&done)) + "\n" + &table::found(&found),
        OutputFormat::Json => json(&Searched::of(&found, &done))?,
    };
    session.terminal.print(&text)?;
    Ok(code(ended, found.met_per_s.is_some()))
}

/// A run at a rate. Its number tells its seed, its repeat its folder.
fn one(
    session: &Session<'_>,
    rate_per_s: f64,
    (number, repeat): (u32, u32),
    ended: &mut Ended,
) -> Result<AtRate, Failure> {
    let workload = at_rate(&session.common.subject.workload, rate_per_s)?;
    let job = session.common.job(&workload, number.into())?;
    let out = session.common.arguments.output.out.as_deref();
    let out = out.map(|out| folder(out, rate_per_s, repeat));
    let done = session.once(&job, out.as_deref())?;
    show::notes(&done, session.terminal);
    let Done {
        summary,
        failure,
        not_written,
        ..
    } = done;
    if let Some(failure) = failure {
        return Err(Failure::Input(failure));
    }
    if let Some(error) = not_written {
        return Err(error.into());
    }
    let measured = summary.measured.as_deref();
    ended.is_interrupted |= measured.is_some_and(|measured| measured.is_interrupted);
    for degraded in measured.iter().flat_map(|measured| &measured.degraded) {
        session
            .terminal
            .note(&format!("degraded: {}", degraded.text));
        ended.is_degraded = true;
    }
    Ok(AtRate {
        rate_per_s,
        summary,
    })
}

/// The runs at a rate are in a folder of it, where `compare` and `gate` find them.
fn folder(out: &Path, rate_per_s: f64, repeat: u32) -> PathBuf {
    out.join(format!("rate-{rate_per_s:.3}"))
        .join(format!("run-{}", repeat + 1))
}

/// By how much a run met what is searched for: the objective that it met least.
fn reading(searched: &[ObjectiveSpec], objectives: &[Objective]) -> Reading {
    let readings: Vec<_> = searched
        .iter()
        .map(|spec| {
            let judged = objectives.iter().find(|judged| judged.name == spec.name);
            match judged.and_then(|judged| Some((judged.observed?, judged.bound))) {
                None => Reading::Collapsed,
                Some((observed, Bound::AtMost)) => Reading::below(observed, spec.limit),
                Some((observed, Bound::AtLeast)) => Reading::above(observed, spec.limit),
            }
        })
        .collect();
    Reading::worst(&readings).unwrap_or(Reading::Collapsed)
}

fn code(ended: Ended, is_found: bool) -> ExitCode {
    if ended.is_interrupted {
        ExitCode::Interrupted
    } else if ended.is_degraded {
        ExitCode::Degraded
    } else if is_found {
        ExitCode::Success
    } else {
        ExitCode::NotMet
    }
}

fn rows(done: &[AtRate]) -> Vec<Row> {
    done.iter()
        .map(|run| Row::of(run.rate_per_s, &run.summary))
        .collect()
}

/// What a search found, for machines.
#[derive(Serialize)]
struct Searched<'a> {
    /// The highest rate that met the objectives; none if no rate did, or the search was broken off.
    met_per_s: Option<f64>,
    not_met_per_s: Option<f64>,
    is_complete: bool,
    runs: Vec<&'a Summary>,
}

impl<'a> Searched<'a> {
    fn of(found: &Found, done: &'a [AtRate]) -> Self {
        Self {
            met_per_s: found.met_per_s,
            not_met_per_s: found.not_met_per_s,
            is_complete: found.ending != Ending::Stopped,
            runs: done.iter().map(|run| &run.summary).collect(),
        }
    }
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string_pretty(value);
    json.map(|json| json + "\n").map_err(show::not_json)
}

#[cfg(test)]
mod tests {
    use foresail_reports::objectives::Unit;
    use foresail_reports::{Latency, ObjectiveMetric, Statistic};

    use super::*;

    fn spec(name: &str, limit: f64) -> ObjectiveSpec {
        ObjectiveSpec {
            name: name.to_owned(),
            metric: ObjectiveMetric::Latency(Latency::Ttft, Statistic::Mean),
            limit,
        }
    }

    fn judged(name: &str, observed: Option<f64>) -> Objective {
        Objective {
            name: name.to_owned(),
            observed,
            limit: 1.0,
            met: false,
            unit: Unit::Seconds,
            bound: Bound::AtMost,
        }
    }

    #[test]
    fn the_objective_that_is_met_least_is_read() {
        let mut objectives = vec![judged("a", Some(0.5)), judged("b", Some(2.0))];
        let both = [spec("a", 1.0), spec("b", 1.0)];
        assert_eq!(reading(&both, &objectives), Reading::below(2.0, 1.0));
        assert_eq!(reading(&both[..1], &objectives), Reading::below(0.5, 1.0));
        objectives.push(judged("c", None));
        assert_eq!(reading(&[spec("c", 1.0)], &objectives), Reading::Collapsed);
    }

    #[test]
    fn an_interruption_counts_most() {
        let both = Ended {
            is_interrupted: true,
            is_degraded: true,
        };
        assert_eq!(code(both, true), ExitCode::Interrupted);
        let degraded = Ended {
            is_interrupted: false,
            ..both
        };
        assert_eq!(code(degraded, true), ExitCode::Degraded);
        assert_eq!(code(Ended::default(), false), ExitCode::NotMet);
    }
}
