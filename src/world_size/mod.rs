//! `foresail world-size`: what more GPUs a replica bring, and from which rate on.
//!
//! ```text
//! SCENARIO ──once a world size──> sound deployment ──probe──> Row: speed-up, TTFT, ITL, rate within the objectives
//!                                      │                       │
//!                                      └─ why there is none    └──pairs──> BreakEven ──show──> text, JSON, SVG
//! ```
//!
//! Every world size is the scenario itself with another `deployment.world_size`, so that what the scenario format
//! refuses (heads that do not divide, memory, all-reduce times, a profile without that world size) is a row that
//! says so, and the others are still there.

mod break_even;
mod probe;
mod show;

use std::path::PathBuf;

use foresail_scenarios::format::Overrides;
use serde::Serialize;

use crate::diagnostics::Diagnostics;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output_file::{OutputFile, Place};
use crate::runs::{self, Changes};
use crate::terminal::{OutputFormat, Terminal};
use break_even::BreakEven;
use probe::{Probe, Row};

/// The version of what `--format json` prints.
const SCHEMA: &str = "foresail.world-size/1";

/// Compare numbers of GPUs a replica
///
/// For each world size: how much faster a token and a first token are, how many requests a second one replica
/// serves within the scenario's objectives, what that costs, and the request rates at which one replica of
/// more GPUs beats several of fewer.
///
/// For example:
///   foresail world-size chat
///   foresail world-size deployment.toml --world-size 1,2,4 --set deployment.gpu=h200 --format json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// The scenario file, or name of a ready scenario
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,

    /// The world sizes to compare
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4,8",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    world_size: Vec<u32>,

    #[command(flatten)]
    changes: Changes,

    /// Requests of the scenario's workload, from the first on, that each rate is tried with: all of them, if there are
    /// no more
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    requests: u32,

    /// For people or for machines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,

    /// Draw speed-up, rates and token times to this SVG file
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// All that there is to say.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    scenario: String,
    model: String,
    gpu: String,
    /// Mean lengths of the requests (tokens).
    prompt_tokens_mean: f64,
    output_tokens_mean: f64,
    /// What decides how many requests are too many; empty is saturation.
    objectives: Vec<String>,
    /// Objectives of the scenario that decide nothing here.
    objectives_not_judged: usize,
    world_sizes: Vec<Row>,
    break_even: Vec<BreakEven>,
    /// What each number stands on, and what is not judged.
    facts: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let mut sizes = arguments.world_size.clone();
    sizes.sort_unstable();
    sizes.dedup();
    let overrides = arguments.changes.overrides();
    let mut probes = Vec::new();
    let mut refused = Vec::new();
    let mut first_unsound = None;
    for size in &sizes {
        let overrides = with_world_size(&overrides, *size);
        match runs::prepare_one(&arguments.scenario, &overrides) {
            Ok(prepared) => match Probe::new(&prepared.group, arguments.requests)? {
                Ok(probe) => probes.push(probe),
                Err(why) => refused.push(Row::refused(*size, why)),
            },
            Err(unsound) => {
                refused.push(Row::refused(*size, unsound.in_short()));
                first_unsound.get_or_insert(unsound);
            }
        }
    }
    let Some(first) = probes.first() else {
        // If none is sound, the scenario is what is wrong: everything about the first of them.
        let mut diagnostics = Diagnostics::new(terminal.error_style());
        if let Some(unsound) = first_unsound {
            unsound.add_to(&mut diagnostics, &arguments.scenario);
        }
        diagnostics.into_result()?;
        let why = refused.into_iter().find_map(|row| row.why_not);
        let why = why.unwrap_or_else(|| "no world size was given".to_owned());
        return Err(Failure::Input(why));
    };
    let mut rows = Vec::new();
    for probe in &probes {
        rows.push(probe.row(first)?);
    }
    let break_even = break_even::all(&probes, &rows)?;
    let mut facts = first.facts();
    for probe in &probes {
        facts.extend(probe.doubts()?);
    }
    rows.extend(refused);
    rows.sort_by_key(|row| row.world_size);
    let report = Report {
        schema: SCHEMA,
        scenario: first.name().to_owned(),
        model: first.deployment().model.clone(),
        gpu: first.deployment().gpu.clone(),
        prompt_tokens_mean: first.prompt_tokens_mean(),
        output_tokens_mean: first.output_tokens_mean(),
        objectives: first.objectives(),
        objectives_not_judged: first.objectives_not_judged(),
        facts,
        world_sizes: rows,
        break_even,
    };
    if let Some(path) = &arguments.picture {
        let mut file = OutputFile::create(&Place::of_argument(path))?;
        std::io::Write::write_all(&mut file, show::picture(&report).as_bytes())
            .map_err(|error| Failure::output(path, error))?;
        file.finish()?;
    }
    terminal.print(&match arguments.format {
        OutputFormat::Text => show::text(&report),
        OutputFormat::Json => json(&report)?,
    })?;
    Ok(ExitCode::Success)
}

fn with_world_size(overrides: &Overrides, size: u32) -> Overrides {
    let mut overrides = overrides.clone();
    overrides.set.push(format!("deployment.world_size={size}"));
    overrides
}

fn json(report: &Report) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(report);
    let text = text.map_err(|error| Failure::Defect(error.to_string()))?;
    Ok(text + "\n")
}
