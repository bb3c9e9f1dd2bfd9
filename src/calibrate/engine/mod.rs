//! `foresail calibrate engine`: measured steps of an engine of ours, and the formula that they follow.
//!
//! ```text
//! arguments ──plan──> for each world size: a design, engine settings
//!                         │
//!                         ├─ start the engine ── rounds of steps ──> cells ──> fit
//!                         │  (one shard alone: and the exchanges of its ranks)
//!                         v
//!                     profile.json, text, a picture
//! ```

mod exchanges;
mod measure;
mod picture;
mod plan;
mod profile;
mod text;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use foresail_core::step_time::CalibratedProfile;
use foresail_scenarios::duration as go;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output_file::NamedFile;
use crate::subject::Subject;
use crate::terminal::{OutputFormat, Terminal};
use plan::Plan;

/// Measure the steps of an engine of ours, and fit the formula of their times
///
/// A small grid of steps (decode, prefill, mixed, with adapters) is measured in rounds of random order, as
/// intervals from step to step of a replica's driver, until each is known to 1 % or the budget is spent.
/// The profile is what `[step_time]` of a scenario reads: terms with intervals, and every repeat beside them.
///
/// For example:
///   foresail calibrate engine --dummy smollm2-135m --out profile.json
///   foresail calibrate engine --model models/llama --world-size 1,2 --out profile.json --picture fit.svg
///   foresail calibrate engine --dummy llama-3.1-8b --world-size 1,2,4 --shard-alone h100 --out profile.json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(flatten)]
    subject: Subject,

    /// World sizes to measure, each with an engine of its own
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1")]
    world_size: Vec<NonZeroUsize>,

    /// Of world sizes above 1, measure one rank alone, and add the exchanges between so many GPUs of this
    /// kind, such as h200. With `threads`, the ranks of this machine's CPU compute side by side without
    /// exchanging, and their exchanges are measured apart
    #[arg(long, value_name = "GPU")]
    shard_alone: Option<String>,

    /// Most sequences of a step, as the engine will be served with [default: 64; cuda 256]
    #[arg(long, value_name = "N")]
    max_num_seqs: Option<NonZeroUsize>,

    /// Most tokens of a step, as the engine will be served with [default: 512; cuda 8192]
    #[arg(long, value_name = "TOKENS")]
    max_batched_tokens: Option<NonZeroUsize>,

    /// Tokens of the longest sequence that is measured [default: the model's, at most 4 full steps]
    #[arg(long, value_name = "TOKENS")]
    max_model_len: Option<NonZeroUsize>,

    /// Tokens that the KV cache has room for: the largest total context that is measured [default: 32768;
    /// cuda 131072]
    #[arg(long, value_name = "TOKENS")]
    kv_tokens: Option<NonZeroUsize>,

    /// A LoRA adapter in a PEFT folder, to measure steps with; may be given several times
    #[arg(long, value_name = "DIR")]
    adapter: Vec<PathBuf>,

    /// Measure steps with so many random adapters of rank 16
    #[arg(long, value_name = "N", conflicts_with = "adapter")]
    random_adapters: Option<NonZeroUsize>,

    /// How sequences choose tokens: 0 always takes the likeliest. Requests that do not say have 1
    #[arg(long, value_name = "T", default_value = "1", value_parser = temperature)]
    temperature: f32,

    /// How long measuring may take, all world sizes together; starting engines comes on top
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = budget)]
    budget: Duration,

    /// What the order of the steps and the draws of the fit are drawn from
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,

    /// Write the profile to this file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Draw the fit beside what was measured, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,

    /// Text for people, or the profile as JSON for machines
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

fn budget(text: &str) -> Result<Duration, String> {
    let nanos = go::parse(text).map_err(|error| error.to_string())?;
    let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos > 0);
    nanos
        .map(Duration::from_nanos)
        .ok_or_else(|| "expected a duration above 0, such as 60s".to_owned())
}

fn temperature(text: &str) -> Result<f32, String> {
    let number = text.parse().ok();
    // The range of OpenAI's API.
    let number = number.filter(|number| (0.0..=2.0).contains(number));
    number.ok_or_else(|| "expected a number from 0 to 2".to_owned())
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen()?;
    let plan = Plan::of(arguments)?;
    // First of all, so that a place that cannot be written is known before anything is measured.
    let out = NamedFile::create("--out", &arguments.out)?;
    let picture = arguments
        .picture
        .as_deref()
        .map(|path| NamedFile::create("--picture", path))
        .transpose()?;
    if let Some(note) = &plan.note {
        terminal.note(note);
    }
    let measured = measure::all(&plan, terminal, &interrupt)?;
    let profile = profile::of(&plan, &measured);
    profile
        .check()
        .map_err(|error| Failure::Defect(format!("the profile makes no sense: {error}")))?;
    interrupt.check()?;
    let json = json(&profile)?;
    match arguments.format {
        OutputFormat::Text => terminal.print(&text::of(&profile, &measured)?)?,
        OutputFormat::Json => terminal.print(&json)?,
    }
    out.write(&json)?;
    if let Some(file) = picture {
        file.write(&picture::of(&profile, &measured)?)?;
    }
    Ok(measured.exit_code())
}

fn json(profile: &CalibratedProfile) -> Result<String, Failure> {
    let json = serde_json::to_string_pretty(profile);
    let json = json.map_err(|error| Failure::Defect(format!("no JSON: {error}")))?;
    Ok(json + "\n")
}
