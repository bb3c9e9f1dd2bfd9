//! `foresail calibrate cold-start`: how long each stage of a start takes.
//!
//! ```text
//! arguments ──> starts in turn, cold and warm ──> each a process: foresail serve
//!                                                    │ its line: the stages that it took
//!                                                    │ two requests of one token
//!               fit a stage  <── times a stage ──────┘
//!                 └──> text or JSON, and a `[cold_start]` table
//! ```

mod page_cache;
mod record;
mod server;
mod show;

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, ValueEnum};
use foresail_calibration::cold_start::STARTS_MIN;
use foresail_scenarios::duration;

use self::page_cache::ModelFiles;
use self::record::{Kind, PageCache, Record};
use self::server::{Server, Started};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output_file::NamedFile;
use crate::progress::Progress;
use crate::terminal::{OutputFormat, Terminal};

/// A distribution of three outcomes is no better known after more starts.
const STARTS_MAX: usize = 10_000;

/// Start an engine several times, and fit how long each stage takes
///
/// Each start is a process of its own, `foresail serve`, from when it is made until it takes requests. --out
/// writes a `[cold_start]` table for a scenario: what was measured, and the catalogue's figures for
/// what happens before a process can start.
///
/// For example:
///   foresail calibrate cold-start --dummy smollm2-135m
///   foresail calibrate cold-start --model models/smollm2 --cold --out cold-start.toml
///   foresail calibrate cold-start --dummy tiny --starts 20 -- --threads 1 --max-num-seqs 8
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
#[command(group(ArgGroup::new("source").required(true).args(["model", "dummy"])))]
pub(crate) struct Arguments {
    /// A model in a Hugging Face folder
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// Random weights in a shape of the catalogue, or `tiny`
    #[arg(long, value_name = "SHAPE", conflicts_with = "cold")]
    dummy: Option<String>,

    /// What computes; `auto` is a GPU if there is one, else the CPU
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,

    /// Ranks that the model is split over
    #[arg(long, value_name = "N", default_value = "1")]
    world_size: NonZeroU32,

    /// How often it is started; with --cold so often cold, and so often warm
    #[arg(long, value_name = "N", default_value_t = 10)]
    starts: usize,

    /// Also starts that find nothing of the model in the page cache, in turn with those that find all
    /// of it; the table is of these
    #[arg(long)]
    cold: bool,

    /// How long a start may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = patience)]
    timeout: Duration,

    /// Write the `[cold_start]` table of a scenario to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Text for people, or JSON for machines
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,

    /// More arguments of `foresail serve`, after `--`
    #[arg(last = true, value_name = "SERVE ARGUMENTS")]
    more: Vec<OsString>,
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    Auto,
    Cpu,
    Cuda,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen()?;
    if arguments.starts < STARTS_MIN {
        return Err(Failure::Input(format!(
            "--starts {}: so few say nothing of a spread; start at least {STARTS_MIN} times",
            arguments.starts
        )));
    }
    if arguments.starts > STARTS_MAX {
        return Err(Failure::Input(format!(
            "--starts {}: more than {STARTS_MAX} would say nothing more",
            arguments.starts
        )));
    }
    // Before anything is measured, so that a place that cannot be written is known first.
    let out = arguments.out.as_deref();
    let out = out.map(|path| NamedFile::create("--out", path));
    let out = out.transpose()?;
    let files = match (&arguments.model, arguments.cold) {
        (Some(folder), true) => Some(ModelFiles::of_folder(folder)?),
        _ => None,
    };
    let measured = measure(arguments, files.as_ref(), terminal, &interrupt)?;
    for note in &measured.notes {
        terminal.note(note);
    }
    terminal.print(&show::result(
        &measured,
        arguments.format,
        terminal.style(),
    )?)?;
    if let Some(file) = out {
        file.write(&show::table(&measured))?;
    }
    Ok(ExitCode::Success)
}

/// Starts once to fill what can be filled (the page cache, compiled kernels), then as often as was asked.
fn measure(
    arguments: &Arguments,
    files: Option<&ModelFiles>,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<Record, Failure> {
    let kinds = match files {
        Some(_) => &[PageCache::Cold, PageCache::Warm][..],
        None => &[PageCache::Warm],
    };
    let total = 1 + arguments.starts * kinds.len();
    let progress = Progress::of("starts", Some(total as u64), !terminal.quiet);
    let first = start(arguments, "the start before the first", interrupt)?;
    progress.advance(1, "the first, which is not counted".to_owned());
    let mut measured: Vec<Vec<Started>> = vec![Vec::new(); kinds.len()];
    for number in 1..=arguments.starts {
        for (kind, starts) in kinds.iter().zip(&mut measured) {
            let files = files.filter(|_| *kind == PageCache::Cold);
            files.map_or(Ok(()), ModelFiles::forget)?;
            let what = format!("{} start {number} of {}", kind.word(), arguments.starts);
            let started = start(arguments, &what, interrupt)?;
            if files.is_some() {
                page_cache::check_cold(&started, &what)?;
            }
            starts.push(started);
            progress.advance(1, what);
        }
    }
    drop(progress);
    let kinds = kinds.iter().zip(measured);
    let kinds: Result<Vec<Kind>, Failure> = kinds
        .map(|(kind, starts)| Kind::of(*kind, &starts))
        .collect();
    Ok(Record::new(&first.ready, kinds?))
}

/// One start, two requests, and its end.
fn start(arguments: &Arguments, what: &str, interrupt: &Interrupt) -> Result<Started, Failure> {
    Server::spawn(&serve_arguments(arguments), what)?.measure(arguments.timeout, interrupt)
}

fn serve_arguments(arguments: &Arguments) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: OsString| all.extend([name.into(), value]);
    match (&arguments.model, &arguments.dummy) {
        (Some(folder), _) => option("--model", folder.into()),
        (None, Some(shape)) => option("--dummy", shape.into()),
        // The parser lets one of them through.
        (None, None) => {}
    }
    let backend = match arguments.backend {
        Backend::Auto => "auto",
        Backend::Cpu => "cpu",
        Backend::Cuda => "cuda",
    };
    option("--backend", backend.into());
    option("--world-size", arguments.world_size.to_string().into());
    // Any port: several of these may run at once, and none is held by the start before.
    option("--port", "0".into());
    option("--access-log", "none".into());
    option("--format", "json".into());
    all.extend(arguments.more.iter().cloned());
    all
}

fn patience(text: &str) -> Result<Duration, String> {
    let nanos = duration::parse(text).map_err(|error| error.to_string())?;
    match u64::try_from(nanos) {
        Ok(nanos) if nanos > 0 => Ok(Duration::from_nanos(nanos)),
        _ => Err("must be longer than 0".to_owned()),
    }
}
