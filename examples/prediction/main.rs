//! How wrong predictions are: calibrate an engine, predict runs that the fit never saw, and do them.
//!
//! ```text
//! for each system (our engine on the CPU, the emulated one):
//!   calibrate engine, calibrate endpoint ──> profiles          what it takes at most ──> rates
//!   for each of some repeats, for each run:  serve <── load    30 %, 60 %, 85 %, bursts, other prompts
//!   simulate the same arrivals with each profile ──> errors, beside how far repeats are apart; validate
//! world sizes: one shard and modelled exchanges, beside ranks that exchange
//! ```
//!
//! It drives the built program as a person would, in half an hour, on a machine that does nothing else:
//!
//! ```sh
//! cargo build --release && cargo run --release --example prediction -- --out runs/prediction --table table.md
//! ```

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table is what it is for, and half an hour is long"
)]

mod figures;
mod program;
mod report;
mod runs;
mod systems;
mod world_sizes;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

use figures::Figures;
use program::Program;
use systems::System;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Clone, Debug, Parser)]
struct Options {
    /// What is predicted
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "cpu,emulated,world-sizes"
    )]
    of: Vec<Subject>,
    /// How often each run is done
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Length of a run (s)
    #[arg(long, default_value_t = 45)]
    seconds: u32,
    /// How long a calibration from inside may measure (s)
    #[arg(long, default_value_t = 60)]
    inside_seconds: u32,
    /// How long a calibration from outside may measure (s)
    #[arg(long, default_value_t = 240)]
    outside_seconds: u32,
    /// Where profiles and runs are kept; those that are there are not done again
    #[arg(long)]
    out: PathBuf,
    /// Where the table goes, in Markdown [default: standard output]
    #[arg(long)]
    table: Option<PathBuf>,
    /// The program [default: that beside this one]
    #[arg(long)]
    foresail: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Our engine on the CPU, one thread
    Cpu,
    /// Our engine on a GPU
    Cuda,
    /// The emulated backend
    Emulated,
    /// World sizes 1 and 2 of our engine on the CPU
    WorldSizes,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let program = Program::find(options.foresail.clone())?;
    fs::create_dir_all(&options.out)?;
    let mut text = String::new();
    for subject in &options.of {
        let part = match subject {
            Subject::Cpu => of_system(&systems::cpu(), &program, &options)?,
            Subject::Cuda => of_system(&systems::cuda(), &program, &options)?,
            Subject::Emulated => of_system(&systems::emulated(), &program, &options)?,
            Subject::WorldSizes => world_sizes::compare(&program, &options)?,
        };
        text = text + &part + "\n";
    }
    match &options.table {
        Some(path) => fs::write(path, text)?,
        None => print!("{text}"),
    }
    Ok(())
}

/// Calibrates a system, does the runs, predicts them, and compares.
fn of_system(system: &System, program: &Program, options: &Options) -> Result<String> {
    let folder = options.out.join(system.name);
    fs::create_dir_all(&folder)?;
    let predictions = calibrate(system, program, options, &folder)?;
    let server = program.serve(&system.serve_arguments(&folder)?)?;
    let limits = system.limits(&server)?;
    let capacities = runs::capacities(system, program, &server, &folder)?;
    let all = runs::all(system, capacities, options.seconds);
    for run in &all {
        run.write(system, &limits, &predictions, program, &folder)?;
    }
    for repeat in 0..options.repeats {
        // Who is first changes from round to round, so that drift is nobody's.
        for turn in 0..all.len() {
            let run = &all[(turn + repeat) % all.len()];
            run.measure(repeat, &predictions[0], program, &server, &folder)?;
        }
    }
    drop(server);
    let mut compared = Vec::new();
    for run in &all {
        compared.push(compare(run, &predictions, program, options, &folder)?);
    }
    Ok(report::system(system, capacities, &compared))
}

/// Step times, and what requests take beside them.
struct Prediction {
    name: &'static str,
    /// Step times of a profile; none of one are the system's own.
    profile: Option<PathBuf>,
    /// What requests take beside their steps, of a calibration from outside.
    overheads_of: Option<PathBuf>,
}

/// A run with its repeats, and what is predicted of it.
struct Compared {
    run: &'static str,
    measured: Vec<Figures>,
    /// In the order of the predictions, under their names.
    predicted: Vec<(&'static str, Figures)>,
}

fn compare(
    run: &runs::Run,
    predictions: &[Prediction],
    program: &Program,
    options: &Options,
    folder: &Path,
) -> Result<Compared> {
    let measured: Vec<_> = (0..options.repeats)
        .map(|repeat| figures::read(&run.folder(folder, repeat)))
        .collect::<Result<_>>()?;
    // The same requests on both sides: those that every repeat counts.
    let counted = figures::counted(&measured);
    let mut predicted = Vec::new();
    for prediction in predictions {
        let out = run.predict(prediction, program, folder)?;
        run.validate(prediction, program, folder)?;
        let figures = Figures::of(&figures::read(&out)?, &counted)?;
        predicted.push((prediction.name, figures));
    }
    Ok(Compared {
        run: run.name,
        measured: measured
            .iter()
            .map(|requests| Figures::of(requests, &counted))
            .collect::<Result<_>>()?,
        predicted,
    })
}

/// Calibrates a system from inside, if it has an inside, and from outside.
fn calibrate(
    system: &System,
    program: &Program,
    options: &Options,
    folder: &Path,
) -> Result<Vec<Prediction>> {
    let outside = folder.join("outside.json");
    if !outside.exists() {
        let server = program.serve(&system.serve_arguments(folder)?)?;
        let budget = format!("--budget={}s", options.outside_seconds);
        let url = format!("--url={}", server.url());
        let to_endpoint = ["calibrate", "endpoint", &url, "--tokenizer=bytes"];
        let arguments = [&to_endpoint[..], system.outside, &[&budget, "--out"]].concat();
        program.run_to_file(&arguments, &outside, &folder.join("outside.txt"))?;
    }
    let (steps, names) = match system.inside {
        Some(arguments) => {
            let inside = folder.join("inside.json");
            if !inside.exists() {
                let budget = format!("--budget={}s", options.inside_seconds);
                let to_engine = ["calibrate", "engine"];
                let arguments = [&to_engine[..], arguments, &[&budget, "--out"]].concat();
                program.run_to_file(&arguments, &inside, &folder.join("inside.txt"))?;
            }
            (Some(inside), ["inside", "inside, and overheads of outside"])
        }
        None => (
            None,
            ["its own step times", "its own, and overheads of outside"],
        ),
    };
    let of = |name, profile, overheads_of| Prediction {
        name,
        profile,
        overheads_of,
    };
    Ok(vec![
        of(names[0], steps.clone(), None),
        of(names[1], steps, Some(outside.clone())),
        of("outside", Some(outside), None),
    ])
}
