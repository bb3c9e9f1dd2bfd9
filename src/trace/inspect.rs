//! `foresail trace inspect`: what a trace looks like.

use foresail_core::time::{MILLISECOND, seconds};
use foresail_scenarios::duration;
use foresail_scenarios::workload::{
    Adapters, LengthStats, Requests, Skipped, Source, StatsCollector, TraceFormat, TraceStats,
    Transforms, Workload, WorkloadError,
};
use serde::Serialize;

use super::source::SourceArguments;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::terminal::{OutputFormat, Terminal};

/// Show rates, burstiness and lengths of a trace
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: SourceArguments,

    /// For people or for machines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,
}

pub(super) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let inspection = Inspection::of(arguments)?;
    let text = match arguments.format {
        OutputFormat::Text => inspection.text(),
        OutputFormat::Json => inspection.json()?,
    };
    terminal.print(&text)?;
    Ok(ExitCode::Success)
}

/// What is known of a trace.
#[derive(Debug)]
struct Inspection {
    file: String,
    format: TraceFormat,
    stats: TraceStats,
    skipped: Skipped,
}

impl Inspection {
    fn of(arguments: &Arguments) -> Result<Self, Failure> {
        let trace = arguments.source.source();
        let (path, format) = (trace.path.clone(), trace.format);
        let workload = Workload {
            source: Source::Trace(trace),
            transforms: Transforms::default(),
            adapters: Adapters::default(),
        };
        // A recorded trace draws nothing, so any seed will do.
        let mut requests = workload.open(0)?;
        let stats =
            statistics(&mut requests)?.ok_or(WorkloadError::Empty { path: path.clone() })?;
        let format = format.map_or_else(|| TraceFormat::detect(&path), Ok)?;
        Ok(Self {
            file: path.display().to_string(),
            format,
            stats,
            skipped: requests.skipped(),
        })
    }

    fn text(&self) -> String {
        let stats = &self.stats;
        let mut lines = vec![
            format!(
                "{} · {} · {} requests over {}",
                self.file,
                self.format.name(),
                stats.requests,
                duration::format_nanos(stats.span / MILLISECOND * MILLISECOND),
            ),
            format!(
                "  rate           {}/s mean · {:.2}/s in the busiest minute · {} in the busiest second",
                decimals(stats.rate_per_s_mean),
                stats.rate_per_s_60_s_max,
                stats.requests_in_1_s_max,
            ),
            format!(
                "  burstiness     interarrival cv {} · dispersion {} in 1 s, {} in 10 s, {} in 60 s \
                 (Poisson arrivals: 1)",
                decimals(stats.interarrival_cv),
                decimals(stats.dispersion_1_s),
                decimals(stats.dispersion_10_s),
                decimals(stats.dispersion_60_s),
            ),
            format!(
                "  sharing        {} requests in conversations · {} with a known prefix",
                stats.requests_in_sessions, stats.requests_with_prefix,
            ),
            lengths_heading(),
            lengths("prompt tokens", stats.prompt_tokens),
            lengths("output tokens", stats.output_tokens),
        ];
        if self.skipped.rows > 0 {
            let Skipped { rows, reason } = &self.skipped;
            lines.insert(1, format!("  skipped        {rows} rows: {reason}"));
        }
        lines.join("\n") + "\n"
    }

    fn json(&self) -> Result<String, Failure> {
        serde_json::to_string_pretty(&Form::of(self))
            .map(|json| json + "\n")
            .map_err(|error| Failure::Defect(format!("the statistics have no JSON form: {error}")))
    }
}

fn statistics(requests: &mut Requests) -> Result<Option<TraceStats>, Failure> {
    let interrupt = Interrupt::listen()?;
    let mut collector = StatsCollector::default();
    for request in requests {
        interrupt.check()?;
        collector.observe(&request?);
    }
    Ok(collector.finish())
}

/// Two decimals; a dash where there is nothing to measure.
fn decimals(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"))
}

fn lengths_heading() -> String {
    let names = ["mean", "p50", "p90", "p99", "min", "max"];
    format!(
        "  {:13}{}",
        "",
        names.map(|name| format!("{name:>9}")).concat()
    )
}

fn lengths(name: &str, stats: LengthStats) -> String {
    let LengthStats {
        mean,
        p50,
        p90,
        p99,
        min,
        max,
    } = stats;
    format!("  {name:13}{mean:>9.1}{p50:>9}{p90:>9}{p99:>9}{min:>9}{max:>9}")
}

/// What `--format json` prints, field by field. Times are in seconds, rates in
/// requests a second; `null` is where there is nothing to measure.
#[derive(Debug, Serialize)]
struct Form<'a> {
    file: &'a str,
    format: &'a str,
    requests: u64,
    rows_skipped: u64,
    span_s: f64,
    rate_per_s_mean: Option<f64>,
    rate_per_s_60_s_max: f64,
    requests_in_1_s_max: u64,
    interarrival_cv: Option<f64>,
    dispersion_1_s: Option<f64>,
    dispersion_10_s: Option<f64>,
    dispersion_60_s: Option<f64>,
    prompt_tokens: LengthsForm,
    output_tokens: LengthsForm,
    requests_in_sessions: u64,
    requests_with_prefix: u64,
}

#[derive(Debug, Serialize)]
struct LengthsForm {
    mean: f64,
    p50: u32,
    p90: u32,
    p99: u32,
    min: u32,
    max: u32,
}

impl<'a> Form<'a> {
    fn of(inspection: &'a Inspection) -> Self {
        let stats = &inspection.stats;
        Self {
            file: &inspection.file,
            format: inspection.format.name(),
            requests: stats.requests,
            rows_skipped: inspection.skipped.rows,
            span_s: seconds(stats.span),
            rate_per_s_mean: stats.rate_per_s_mean,
            rate_per_s_60_s_max: stats.rate_per_s_60_s_max,
            requests_in_1_s_max: stats.requests_in_1_s_max,
            interarrival_cv: stats.interarrival_cv,
            dispersion_1_s: stats.dispersion_1_s,
            dispersion_10_s: stats.dispersion_10_s,
            dispersion_60_s: stats.dispersion_60_s,
            prompt_tokens: LengthsForm::of(stats.prompt_tokens),
            output_tokens: LengthsForm::of(stats.output_tokens),
            requests_in_sessions: stats.requests_in_sessions,
            requests_with_prefix: stats.requests_with_prefix,
        }
    }
}

impl LengthsForm {
    fn of(stats: LengthStats) -> Self {
        let LengthStats {
            mean,
            p50,
            p90,
            p99,
            min,
            max,
        } = stats;
        Self {
            mean,
            p50,
            p90,
            p99,
            min,
            max,
        }
    }
}
