//! `foresail gate`: whether a candidate is worse than a baseline, or than its objectives.
//!
//! ```text
//! RUN… ──runs──> GateRun… ─┐
//!                          ├─ reports: Gate::judge ─> GateReport ──outputs──> text, JSON, Markdown, JUnit,
//! FILE ──baseline──────────┘                                                  GitHub, history; exit code
//! ```

mod baseline;
mod limits;
mod outputs;
mod runs;
mod simulated;

use std::path::PathBuf;

use clap::ValueEnum;
use foresail_reports::gate::{Gate, GateReport, GateRun, Verdict};

use crate::cli::tool;
use crate::exit_code::{self, ExitCode};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Judge runs against a baseline, and against objectives
///
/// Says whether the candidate is worse than the baseline: out of several runs of
/// each, so that luck is told from difference. Alternate the runs of both sides
/// on one machine, five of each at best; runs of the same seeds are paired. A
/// RUN is a folder that --out was given, or one with folders run-N or seed-N in
/// it; a baseline may be a file of --save-baseline too. Simulated runs are
/// compared to the last digit.
///
/// It fails only if a metric is worse than is allowed at a level of 5 % for all
/// metrics together, and by more than the smallest change of interest: 2 % of
/// mean TPOT and throughput, 3 % of median TTFT, 5 % of tails, half a point of
/// the success rate. It passes if all are within that with 95 % confidence each.
/// Else it is inconclusive, and says how many more runs would decide.
///
/// For example:
///   foresail gate --baseline runs/base --candidate runs/new
///   foresail gate --baseline base.json --candidate runs/new --max-change 'ttft.p99 +10%'
///   foresail gate --candidate runs/new --objective 'ttft.p99 < 500ms' --objective 'goodput > 95%'
///   foresail gate --save-baseline base.json runs/base
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = exit_code::help())]
pub(crate) struct Arguments {
    /// Runs of the baseline: folders, or one file of --save-baseline
    #[arg(long, value_name = "RUN", num_args = 1..)]
    baseline: Vec<PathBuf>,

    /// Runs of the candidate
    #[arg(long, value_name = "RUN", num_args = 1.., required_unless_present = "save_baseline")]
    candidate: Vec<PathBuf>,

    /// A limit that the candidate has to meet, such as 'ttft.p99 < 500ms'; can be repeated, and is
    /// added to those of the scenario
    #[arg(long, value_name = "EXPRESSION")]
    objective: Vec<String>,

    /// Judge the candidate by --objective only, not by the objectives of its scenario
    #[arg(long)]
    no_scenario_objectives: bool,

    /// How much worse a metric may be than that of the baseline, such as 'ttft.p99 +3%'; can be
    /// repeated, and then no other metric is compared
    #[arg(long, value_name = "EXPRESSION", requires = "baseline")]
    max_change: Vec<String>,

    /// The smallest change of interest of a metric, such as 'tpot.mean 1%'; can be repeated
    #[arg(long, value_name = "EXPRESSION", requires = "baseline")]
    min_effect: Vec<String>,

    /// Compare means, although there are as many runs of the one as of the other
    #[arg(long)]
    unpaired: bool,

    /// Judge runs also if they are degraded
    #[arg(long)]
    allow_degraded: bool,

    /// How to end if the runs do not tell
    #[arg(long, value_name = "HOW", default_value = "degraded")]
    inconclusive: Inconclusive,

    #[command(flatten)]
    outputs: outputs::OutputArguments,

    /// Write what a gate needs of these runs to a file that can be committed, and judge nothing
    #[arg(
        long,
        value_name = "FILE",
        requires = "runs",
        conflicts_with_all = ["baseline", "candidate", "objective"],
    )]
    save_baseline: Option<PathBuf>,

    /// The runs for --save-baseline
    #[arg(value_name = "RUN", requires = "save_baseline")]
    runs: Vec<PathBuf>,
}

/// How to end if the runs do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Inconclusive {
    /// With exit code 0
    Pass,
    /// With exit code 3
    Fail,
    /// With exit code 4
    Degraded,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    if let Some(file) = &arguments.save_baseline {
        return baseline::save(file, &arguments.runs, terminal);
    }
    let gate = gate(arguments)?;
    let report = gate.judge();
    arguments
        .outputs
        .write(&report, &gate.candidate, terminal)?;
    Ok(ending(&report, arguments.inconclusive))
}

fn gate(arguments: &Arguments) -> Result<Gate, Failure> {
    let objectives = limits::objectives(&arguments.objective)?;
    let changes = limits::changes(&arguments.max_change)?;
    let minima = limits::minima(&arguments.min_effect)?;
    let candidate = runs::read_all(&arguments.candidate)?;
    let baseline = baseline::read(&arguments.baseline)?;
    if arguments.baseline.is_empty()
        && objectives.is_empty()
        && !has_objectives(arguments, &candidate)
    {
        return Err(Failure::Input(
            "there is nothing to judge by; give --baseline RUN… or --objective 'ttft.p99 < 500ms'"
                .to_owned(),
        ));
    }
    let exact = match &baseline {
        baseline::Baseline::Runs(baseline) if changes.is_empty() => {
            simulated::compare(baseline, &candidate)?
        }
        _ => None,
    };
    let baseline = baseline.into_runs();
    let candidate: Vec<GateRun> = candidate.into_iter().map(|run| run.gate).collect();
    let of_scenario = exact.is_none() && !arguments.no_scenario_objectives;
    let limits = limits::with_minima(changes, &minima, &baseline, &candidate);
    Ok(Gate {
        tool: tool(),
        objectives: limits::with_scenario(objectives, of_scenario, &candidate),
        limits,
        baseline,
        candidate,
        unpaired: arguments.unpaired,
        allow_degraded: arguments.allow_degraded,
        exact,
    })
}

fn has_objectives(arguments: &Arguments, candidate: &[runs::Run]) -> bool {
    !arguments.no_scenario_objectives && candidate.iter().any(|run| !run.gate.objectives.is_empty())
}

fn ending(report: &GateReport, inconclusive: Inconclusive) -> ExitCode {
    match (report.verdict, inconclusive) {
        (Verdict::Pass, _) | (Verdict::Inconclusive, Inconclusive::Pass) => ExitCode::Success,
        (Verdict::Fail, _) | (Verdict::Inconclusive, Inconclusive::Fail) => ExitCode::NotMet,
        (Verdict::Degraded, _) | (Verdict::Inconclusive, Inconclusive::Degraded) => {
            ExitCode::Degraded
        }
    }
}
