//! `foresail bench`: what steps take on this machine, beside what they could.
//!
//! ```text
//! arguments ──plan──> grid, engine settings ──> ceilings ──> engine ──> steps, requests
//!                                                                          │
//!                                   text or JSON, and the profile <────────┘
//! ```

mod plan;

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use foresail_core::step_time::ProfileTable;
use foresail_engine::bench::{self, BenchError, Facts, MeasuredStep, Step};
use foresail_engine::startup::{self, StartError, Started};
use foresail_reports::bench::{Bench, Ceilings, Stage};
use foresail_reports::text;

use crate::cli;
use crate::exit_code::ExitCode;
use crate::failure::{self, Failure};
use crate::interrupt::Interrupt;
use crate::machine;
use crate::output_file::{OutputFile, Place};
use crate::progress::Progress;
use crate::subject::Subject;
use crate::terminal::{OutputFormat, Terminal};
use plan::Plan;

/// Measure an engine's prefill and decode steps on this machine
///
/// Every step is shown with its bytes and floating-point operations, as shares of the read bandwidth
/// and the multiply-add rate that are measured before and after them. --out writes a profile: what
/// `[step_time]` of a scenario reads, with every repeat beside it.
///
/// For example:
///   foresail bench --dummy smollm2-135m
///   foresail bench --model models/smollm2 --batch 1,8,32 --context 512,4096 --out profile.json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(flatten)]
    subject: Subject,

    /// Ranks that the model is split over
    #[arg(long, value_name = "N", default_value = "1")]
    world_size: NonZeroUsize,

    /// Only one of the ranks, which waits as long as exchanges between so many GPUs of this kind take,
    /// such as h200: the times of a world size for which there are not enough GPUs
    #[arg(long, value_name = "GPU")]
    shard_alone: Option<String>,

    /// Sequences of decode steps [default: 1,2,4,8,16]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    batch: Vec<usize>,

    /// Tokens in the KV cache, of each sequence of a decode step and before a chunk, which is measured
    /// without any as well [default: 128,1024, as far as the model goes]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    context: Vec<usize>,

    /// Tokens of prefill steps [default: 16,128,512, as far as the model goes]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    chunk: Vec<usize>,

    /// How often each step is timed
    #[arg(long, value_name = "N", default_value = "7")]
    repeats: NonZeroUsize,

    /// Write a profile for `[step_time]` to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Text for people, or JSON for machines
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen()?;
    let plan = Plan::of(arguments, terminal)?;
    // First of all, so that a place that cannot be written is known before it is measured.
    let out = arguments.out.as_deref().map(profile_file).transpose()?;
    if let Some(note) = &plan.note {
        terminal.note(note);
    }
    let ceilings = machine::ceilings(plan.settings.device)?;
    interrupt.check()?;
    let started = startup::start(&plan.settings).map_err(not_started)?;
    interrupt.check()?;
    let mut facts = facts(&plan, &started, ceilings);
    let (record, steps) = measure(&plan, &mut facts, started, terminal, &interrupt)?;
    let profile = out.map(|out| (out, bench::profile(&facts, &steps)));
    show(&record, arguments.format, terminal)?;
    if let Some((out, profile)) = profile {
        let profile = profile.map_err(|error| Failure::Defect(format!("no profile: {error}")))?;
        write_profile(out, &profile, terminal)?;
    }
    Ok(ExitCode::Success)
}

fn not_started(error: StartError) -> Failure {
    match error {
        // Its remedies are the options of `serve`.
        StartError::Memory(error) => Failure::Input(format!(
            "{error}; of a bench: smaller --batch, --context or --chunk"
        )),
        StartError::Rank { .. } | StartError::WarmUp(_) => Failure::Defect(error.to_string()),
        error => Failure::Input(failure::of_start_with_remedy(&error)),
    }
}

fn profile_file(path: &Path) -> Result<(Place, OutputFile), Failure> {
    let place = Place::of_argument(path);
    if place == Place::Stdout {
        let message = "--out needs the name of a file; standard output has the figures";
        return Err(Failure::Input(message.to_owned()));
    }
    let file = OutputFile::create(&place)?;
    Ok((place, file))
}

fn facts(plan: &Plan, started: &Started, ceilings: Ceilings) -> Facts {
    let stage = |stage: &startup::StageTime| Stage {
        name: stage.name.to_owned(),
        seconds: stage.duration.as_secs_f64(),
    };
    Facts {
        tool: cli::tool(),
        measured_on: machine::today(),
        command: machine::command(),
        model_name: plan.model_name.clone(),
        model: started.config.clone(),
        formats: plan.formats,
        backend: machine::backend(plan.settings.device).to_owned(),
        device: started.gpu_name.clone().unwrap_or_else(machine::device),
        threads: machine::threads(plan.settings.device),
        world_size: plan.settings.world_size,
        is_shard_alone: plan.settings.shard_alone.is_some(),
        block_size: started.limits.block_size,
        startup: started.stages.iter().map(stage).collect(),
        ceilings,
    }
}

/// Measures the steps of the grid, then whole requests on the same engine, then
/// the ceilings once more: a machine that others share may have been slower before.
fn measure(
    plan: &Plan,
    facts: &mut Facts,
    started: Started,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(Bench, Vec<MeasuredStep>), Failure> {
    let Started {
        mut backend,
        config,
        limits,
        ..
    } = started;
    let warm_ups = backend.warm_up_steps();
    let expected = bench::steps_total(&config, plan.formats.kv, &plan.grid, warm_ups) as u64;
    let progress = Progress::of("steps", Some(expected), !terminal.quiet);
    let mut watch = |at: bench::Progress| {
        progress.advance(1, message(at));
        match interrupt.is_requested() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let (kv, block_size) = (plan.formats.kv, limits.block_size);
    let steps = bench::measure(
        &mut *backend,
        &config,
        kv,
        block_size,
        &plan.grid,
        &mut watch,
    )
    .map_err(failure)?;
    drop(progress);
    let requests = bench::measure_requests(backend, limits, config.vocab_size, plan.requests)
        .map_err(failure)?;
    interrupt.check()?;
    facts.ceilings = bench::higher(facts.ceilings, machine::ceilings(plan.settings.device)?);
    Ok((bench::record(facts, &steps, Some(requests)), steps))
}

/// What is being measured, for the progress bar.
fn message(at: bench::Progress) -> String {
    match at.step {
        None => "filling the KV cache".to_owned(),
        Some(Step::Decode { batch, context }) => {
            format!("decode, batch {batch}, context {context}")
        }
        Some(Step::Prefill { chunk, context }) => {
            format!("prefill, chunk {chunk}, context {context}")
        }
    }
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::Stopped => Failure::Interrupted,
        error => Failure::Defect(error.to_string()),
    }
}

fn show(record: &Bench, format: OutputFormat, terminal: &Terminal) -> Result<(), Failure> {
    let text = match format {
        OutputFormat::Text => text::bench(record, terminal.style()),
        OutputFormat::Json => record
            .to_json()
            .map_err(|error| Failure::Defect(format!("no JSON: {error}")))?,
    };
    terminal.print(&text)
}

fn write_profile(
    (place, mut file): (Place, OutputFile),
    profile: &ProfileTable,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(profile)
        .map_err(|error| Failure::Defect(format!("no JSON: {error}")))?;
    writeln!(file, "{json}").map_err(|error| place.failure(error))?;
    file.finish()?;
    let correction = profile.correction_max();
    if correction > 0.0 {
        terminal.note(&format!(
            "in the profile, steps that took less time than smaller ones were evened out: \
             they differ from what was measured by up to {:.1} %",
            correction * 100.0
        ));
    }
    Ok(())
}
