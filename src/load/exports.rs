//! The result in the files of other tools.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, io, process};

use foresail_reports::Summary;
use foresail_reports::export::{MeasuredRun, aiperf, hdr, table, vllm};
use serde_json::Value;

use super::arguments::value::Rate;
use super::arguments::{Arguments, Export, OutputArguments};
use crate::failure::Failure;
use crate::output_file::{OutputFile, Place};

/// What vLLM, AIPerf and HdrHistogram call their files.
const VLLM: &str = "vllm.json";
const AIPERF: &str = "profile_export_aiperf.json";
const HDR: &str = "latencies.hlog";
const TABLE: &str = "metrics.csv";

/// The folder of the records: that of --out, or one that goes again if only other forms are wanted.
#[derive(Debug)]
pub(super) struct Records {
    folder: Option<PathBuf>,
    is_scratch: bool,
}

impl Records {
    pub(super) fn of(output: &OutputArguments) -> Self {
        match (&output.out, output.save_result) {
            (None, true) => Self {
                folder: Some(env::temp_dir().join(format!("foresail-load-{}", process::id()))),
                is_scratch: true,
            },
            (out, _) => Self {
                folder: out.clone(),
                is_scratch: false,
            },
        }
    }

    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.as_ref().filter(|_| self.is_scratch) {
            // What is left over in a folder for what is temporary is no failure.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Writes the forms of other tools that were asked for, out of the records of a run.
pub(super) fn write(
    arguments: &Arguments,
    summary: &Summary,
    records: &Records,
) -> Result<(), Failure> {
    let output = &arguments.output;
    let Some(folder) = records
        .folder()
        .filter(|_| output.save_result || !output.export.is_empty())
    else {
        return Ok(());
    };
    let run = MeasuredRun::read(folder).map_err(|error| Failure::Defect(error.to_string()))?;
    for form in &output.export {
        match form {
            Export::Vllm => write_json(
                &folder.join(VLLM),
                &vllm::to_json(&run, &options(arguments)),
            )?,
            Export::Aiperf => write_json(&folder.join(AIPERF), &aiperf::to_json(&run))?,
            Export::Hdr => write_with(&folder.join(HDR), |file| hdr::write(&run, file))?,
            Export::Csv => write_with(&folder.join(TABLE), |file| {
                file.write_all(table::to_csv(summary).as_bytes())
            })?,
        }
    }
    if output.save_result {
        let path = result_path(arguments, summary);
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            fs::create_dir_all(parent).map_err(|error| Failure::output(parent, error))?;
        }
        write_json(&path, &vllm::to_json(&run, &options(arguments)))?;
    }
    Ok(())
}

/// Where `--save-result` goes: vLLM names the file after backend, rate, model and time.
fn result_path(arguments: &Arguments, summary: &Summary) -> PathBuf {
    let output = &arguments.output;
    let name = output.result_filename.clone().unwrap_or_else(|| {
        let rate = match arguments.traffic.request_rate {
            Some(Rate::PerSecond(rate)) => format!("{rate:?}qps"),
            Some(Rate::Unlimited) | None => "infqps".to_owned(),
        };
        let model = summary.scenario.model.rsplit('/').next().unwrap_or("model");
        let began = summary
            .measured
            .as_ref()
            .map_or(0.0, |measured| measured.began_unix_s);
        format!("openai-{rate}-{model}-{began:.0}.json").into()
    });
    output.result_dir.clone().unwrap_or_default().join(name)
}

fn options(arguments: &Arguments) -> vllm::Options {
    let (traffic, output) = (&arguments.traffic, &arguments.output);
    let defaults = vllm::Options::default();
    vllm::Options {
        backend: match arguments.endpoint.endpoint.as_deref() {
            Some(path) if path.ends_with("/chat/completions") => "openai-chat".to_owned(),
            _ => defaults.backend.clone(),
        },
        tokenizer_id: arguments
            .prompts
            .tokenizer
            .as_ref()
            .map(|path| path.display().to_string()),
        request_rate: match traffic.request_rate {
            Some(Rate::PerSecond(rate)) => Some(rate),
            Some(Rate::Unlimited) | None => None,
        },
        burstiness: traffic.burstiness,
        percentiles: match output.metric_percentiles.is_empty() {
            true => defaults.percentiles.clone(),
            false => output.metric_percentiles.clone(),
        },
        with_details: output.save_detailed,
        ..defaults
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(super::show::not_json)?;
    write_with(path, |file| writeln!(file, "{json}"))
}

fn write_with(
    path: &Path,
    write: impl FnOnce(&mut OutputFile) -> io::Result<()>,
) -> Result<(), Failure> {
    let place = Place::Path(path.to_owned());
    let mut file = OutputFile::create(&place)?;
    write(&mut file).map_err(|error| place.failure(error))?;
    file.finish()
}
