//! `foresail validate`: how far a prediction is from what was measured.
//!
//! ```text
//! MEASURED ──measured──> requests ─┬─ contents ──> predict: best, draws, scaled, other tokens ─┐
//! SCENARIO ────────────────────────┘                                                           v
//!                                              text, JSON, picture; exit code <── reports: Comparison
//! ```

mod contents;
mod measured;
mod predict;
mod scale;

use std::io::Write as _;
use std::path::PathBuf;

use foresail_reports::validation::{
    Comparison, Counts, MeasuredFacts, ScenarioName, Times, Tolerances, Validation, Variants,
    Verdict, pictures,
};
use foresail_reports::{Measurements, RecordFiles, picture, text};
use foresail_scenarios::format::{self, Overrides};
use foresail_scenarios::random::{below, stream};
use foresail_scenarios::scenario::{Scenario, StepTimeModel};

use crate::cli::tool;
use crate::description;
use crate::diagnostics::Diagnostics;
use crate::exit_code::{self, ExitCode};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output_file::{OutputFile, Place};
use crate::terminal::{OutputFormat, Terminal};
use measured::Measured;
use predict::{Prediction, Predictor, Steps};

/// Validate a scenario's predictions against a measured run
///
/// Simulates the requests of the run when they were sent, with the tokens that they had, and
/// says how far off mean, median and tails of TTFT, TPOT and E2E, throughput and replicas are:
/// signed, beside what the calibration leaves open (--seeds) and what another sample of the
/// traffic might have been. Says whether errors come from tokens, from step times or from
/// queueing. Requests that failed are left out, and counted. Throughput is from when the first
/// request was due to the last token, on both sides; `load` counts what ended in its window.
///
/// MEASURED is the folder of `foresail load --out`, the JSON of `vllm bench serve --save-result
/// --save-detailed`, or requests.jsonl of LLMServingSim.
///
/// For example:
///   foresail validate runs/monday chat --profile profile.json --picture monday.svg
///   foresail validate runs/monday chat --profile profile.json --seeds 20 --tolerance-p99 15%
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = exit_code::help())]
pub(crate) struct Arguments {
    /// What was measured: the folder of a run, or a result file
    #[arg(value_name = "MEASURED")]
    measured: PathBuf,

    /// The scenario of the deployment that was measured: a file, or the name of a ready one
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,

    /// Change a setting, such as batching.max_num_seqs=64; can be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,

    /// The profile that step times are from, as `[step_time]` would name it
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,

    /// Simulate under N draws of the step times as well, for intervals
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    seeds: u16,

    /// The largest error of means, medians, throughput and replicas
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    tolerance_mean: f64,

    /// The largest error of the 90th and the 99th percentile
    #[arg(long, value_name = "SHARE", default_value = "10%", value_parser = share)]
    tolerance_p99: f64,

    /// Compare although the records say that they are of another model, GPU or world size
    #[arg(long)]
    any_scenario: bool,

    /// For people or for machines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,

    /// Draw both distributions of TTFT, TPOT and E2E to this SVG file
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,

    /// Write requests.csv, timeline.csv and summary.json of the prediction to this folder
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// `5%` or `0.05`.
fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(percent) => (percent.trim(), 100.0),
        None => (text, 1.0),
    };
    let share = number.parse().map(|number: f64| number / scale);
    share
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a share of at most 100%, such as 5% or 0.05".to_owned())
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen()?;
    let scenario = scenario(arguments, terminal)?;
    let mut measured = measured::read(&arguments.measured)?;
    if !arguments.any_scenario {
        check_scenario(&measured, &scenario)?;
    }
    let unknown = contents::find(&mut measured, &scenario);
    measured.notes.extend(unknown);
    measured.notes.extend(scenario.deployment.notes.clone());
    let comparison = compare(&measured, &scenario, arguments, &interrupt)?;
    let plots = pictures(&comparison.measured, &comparison.predicted);
    let mut rng = stream(scenario.seed, "validation.noise");
    let validation = comparison.judge(tool(), |end| below(&mut rng, end));
    if let Some(file) = &arguments.picture {
        write(file, &picture::svg(&plots))?;
    }
    let shown = match arguments.format {
        OutputFormat::Text => text::validation(&validation, terminal.style()),
        OutputFormat::Json => validation.to_json().map_err(|error| {
            Failure::Defect(format!("the validation has no JSON form: {error}"))
        })?,
    };
    terminal.print(&shown)?;
    Ok(ending(&validation))
}

fn ending(validation: &Validation) -> ExitCode {
    match validation.verdict {
        Verdict::Beyond => ExitCode::NotMet,
        Verdict::Within if validation.measured.degraded.is_empty() => ExitCode::Success,
        Verdict::Within | Verdict::NotJudged => ExitCode::Degraded,
    }
}

fn write(file: &std::path::Path, text: &str) -> Result<(), Failure> {
    let place = Place::of_argument(file);
    let mut output = OutputFile::create(&place)?;
    let written = output.write_all(text.as_bytes());
    written.map_err(|error| place.failure(error))?;
    output.finish()
}

fn scenario(arguments: &Arguments, terminal: &Terminal) -> Result<Scenario, Failure> {
    let mut set = arguments.set.clone();
    if let Some(profile) = &arguments.profile {
        set.push("step_time.model=profile".to_owned());
        set.push(format!("step_time.file={}", profile.display()));
    }
    let overrides = Overrides {
        set,
        ..Overrides::default()
    };
    let loaded = format::load(&arguments.scenario, &overrides);
    loaded.map_err(|error| Diagnostics::failure(&error, terminal.error_style()))
}

/// Whether the records are of what the scenario deploys, as far as they say.
fn check_scenario(measured: &Measured, scenario: &Scenario) -> Result<(), Failure> {
    let Some(summary) = &measured.summary else {
        return Ok(());
    };
    let (theirs, ours) = (&summary.scenario, &scenario.deployment);
    let differs = |theirs: &str, ours: &str| !theirs.is_empty() && theirs != ours;
    let (their_size, our_size) = (theirs.world_size, ours.world_size);
    let difference = if differs(&theirs.model, &ours.model) {
        Some(("model", theirs.model.clone(), ours.model.clone()))
    } else if differs(&theirs.gpu, &ours.gpu) {
        Some(("GPU", theirs.gpu.clone(), ours.gpu.clone()))
    } else if !theirs.gpu.is_empty() && their_size != our_size {
        let sizes = (their_size.to_string(), our_size.to_string());
        Some(("world size", sizes.0, sizes.1))
    } else {
        None
    };
    match difference {
        None => Ok(()),
        Some((what, theirs, ours)) => Err(Failure::Input(format!(
            "the records are of the {what} `{theirs}`, and the scenario is of `{ours}`; name the scenario that was \
             measured, change this one with --set, or add --any-scenario if they are the same by other names"
        ))),
    }
}

/// Simulates the requests in every way that the comparison needs.
fn compare(
    measured: &Measured,
    scenario: &Scenario,
    arguments: &Arguments,
    interrupt: &Interrupt,
) -> Result<Comparison, Failure> {
    let predictor = Predictor::new(scenario, measured, interrupt);
    let counted: Vec<u32> = (measured.requests.iter())
        .map(|each| each.request.output_tokens)
        .collect();
    let best = best(&predictor, &counted, scenario, arguments)?;
    let mut draws = Vec::new();
    if arguments.seeds > 1 {
        for number in 0..u64::from(arguments.seeds) {
            let seed = scenario.seed.wrapping_add(number);
            draws.push(predictor.predict(Steps::Drawn(seed), &counted, ())?.times);
        }
    }
    let places =
        |(place, each): (usize, &measured::MeasuredRequest)| each.is_in_window.then_some(place);
    let compared: Vec<usize> = (measured.requests.iter().enumerate())
        .filter_map(places)
        .collect();
    let ours: Vec<Times> = (compared.iter())
        .map(|place| measured.requests[*place].times)
        .collect();
    let with_tokens = measured
        .server_tokens
        .map(|ratios| predictor.with_tokens(ratios));
    let (predictor, tokens) = match &with_tokens {
        Some(predictor) => {
            let times = predictor.predict(Steps::Best, &counted, ())?.times;
            (predictor, Some(times))
        }
        None => (&predictor, None),
    };
    let base = tokens.as_deref().unwrap_or(&best.times);
    let mut scaled = scale::find(predictor, &counted, &ours, base, &compared)?;
    let of_compared = |times: &[Option<Times>]| -> Vec<Option<Times>> {
        compared.iter().map(|place| times[*place]).collect()
    };
    if let Some(scaled) = &mut scaled {
        scaled.times = of_compared(&scaled.times);
    }
    let all = idle(measured);
    let mut notes = measured.notes.clone();
    let replicas = replicas(measured, &best).unwrap_or_else(|why| {
        notes.push(why);
        None
    });
    Ok(Comparison {
        facts: facts(measured, arguments, compared.len()),
        scenario: name(scenario),
        is_idle: compared.iter().map(|place| all[*place]).collect(),
        measured: ours,
        predicted: of_compared(&best.times),
        draws: draws.iter().map(|times| of_compared(times)).collect(),
        include_calibration_error: scenario.has_draws(),
        variants: Variants {
            server_tokens: tokens.as_deref().map(of_compared),
            scaled,
        },
        replicas,
        throughput_is_given: measured.throughput_is_given.clone(),
        tolerances: Tolerances {
            mean: arguments.tolerance_mean,
            tail: arguments.tolerance_p99,
        },
        notes,
    })
}

/// The prediction with the best values, its records in files if they are wanted.
fn best(
    predictor: &Predictor<'_>,
    counted: &[u32],
    scenario: &Scenario,
    arguments: &Arguments,
) -> Result<Prediction, Failure> {
    let Some(folder) = &arguments.out else {
        return predictor.predict(Steps::Best, counted, ());
    };
    let files = RecordFiles::create(folder)?;
    let mut files = if scenario.deployment.request_overhead().is_none() {
        files
    } else {
        files.with_outside()?
    };
    let objectives = description::objectives(scenario);
    let mut measurements = Measurements::new(&objectives);
    let prediction = predictor.predict(Steps::Best, counted, (&mut measurements, &mut files))?;
    let workload = format!("the requests of {}", arguments.measured.display());
    let described = description::of_run(scenario, scenario.seed, workload, &arguments.set);
    let summary = measurements.summary(&described, &prediction.totals);
    files.finish(&summary)?;
    Ok(prediction)
}

fn facts(measured: &Measured, arguments: &Arguments, in_window: usize) -> MeasuredFacts {
    let completed = measured.requests.len() as u64;
    MeasuredFacts {
        name: arguments.measured.display().to_string(),
        format: measured.format.to_owned(),
        requests: completed + measured.failed,
        failed: measured.failed,
        outside_window: completed - in_window as u64,
        degraded: measured.degraded.clone(),
        ..MeasuredFacts::default()
    }
}

fn name(scenario: &Scenario) -> ScenarioName {
    let deployment = &scenario.deployment;
    ScenarioName {
        name: scenario.name.clone(),
        model: deployment.model.clone(),
        gpu: deployment.gpu.clone(),
        world_size: deployment.world_size,
        step_times: match deployment.step_time {
            StepTimeModel::Roofline(_) => "step times from the GPU's figures",
            StepTimeModel::Profile(_) => "measured step times",
            StepTimeModel::Calibrated(_) => "calibrated step times",
        }
        .to_owned(),
    }
}

/// Runs whose lengths differ by more than this share have means of replicas over different times.
const DURATIONS_DIFFER_TO: f64 = 0.02;

/// Replicas as they were measured, if they were, and as they are predicted; or why they cannot be compared.
fn replicas(
    measured: &Measured,
    predicted: &Prediction,
) -> Result<Option<(Counts, Counts)>, String> {
    let summary = measured.summary.as_ref();
    let Some((summary, replicas)) = summary.and_then(|summary| Some((summary, summary.replicas?)))
    else {
        return Ok(None);
    };
    let (ours, theirs) = (predicted.totals.end_ns as f64 / 1e9, summary.duration_s);
    if (ours - theirs).abs() > DURATIONS_DIFFER_TO * theirs {
        return Err(format!(
            "replicas are not compared: the run lasted {theirs:.0} s, and the scenario lasts {ours:.0} s; give it the same \
             duration, such as --set workload.duration={theirs:.0}s"
        ));
    }
    let measured = Counts {
        mean: replicas.mean,
        max: f64::from(replicas.max),
    };
    Ok(Some((measured, predicted.replicas)))
}

/// Whether each request came to a system in which no other was.
fn idle(measured: &Measured) -> Vec<bool> {
    let mut spans: Vec<(u64, u64, Option<usize>)> = (measured.requests.iter().enumerate())
        .map(|(place, each)| (each.times.due_ns, each.times.last_ns, Some(place)))
        .collect();
    let failed = measured.failed_spans.iter();
    spans.extend(failed.map(|(due, end)| (*due, *end, None)));
    spans.sort_unstable();
    let mut idle = vec![false; measured.requests.len()];
    let mut busy_until = None;
    for (due, end, place) in spans {
        if let Some(place) = place {
            idle[place] = busy_until.is_none_or(|until| until <= due);
        }
        busy_until = busy_until.max(Some(end));
    }
    idle
}
