//! Where a verdict goes: standard output, files, and what GitHub Actions reads.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use foresail_reports::gate::{GateReport, GateRun, github, history};
use foresail_reports::text;

use crate::failure::Failure;
use crate::output_file::{OutputFile, Place};
use crate::terminal::Terminal;

/// The file that GitHub Actions shows on the page of a job.
const STEP_SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// Attributes of a line of history that GitHub Actions knows.
const KNOWN_ATTRIBUTES: [(&str, &str); 2] =
    [("commit", "GITHUB_SHA"), ("branch", "GITHUB_REF_NAME")];

/// Where a verdict goes.
#[derive(Debug, clap::Args)]
pub(super) struct OutputArguments {
    /// What to write to standard output; `github` stands beside one of the others: annotations, and
    /// the summary of the job
    #[arg(
        long,
        value_name = "FORMAT,…",
        value_delimiter = ',',
        default_value = "text"
    )]
    format: Vec<Format>,

    /// Write JSON to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write JUnit XML to this file too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write Markdown to this file too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Append the candidate's figures to this file, a line of JSON a gate, for a change-point
    /// detector such as Apache Otava
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,

    /// Say this in the line of history, such as commit=a3f9c12; can be repeated
    #[arg(long, value_name = "NAME=VALUE", requires = "history", value_parser = attribute)]
    attribute: Vec<(String, String)>,
}

/// A form of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Markdown,
    Junit,
    Github,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() {
        return Err("expected a name in front of `=`".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl OutputArguments {
    /// Writes the verdict to wherever it is wanted.
    pub(super) fn write(
        &self,
        report: &GateReport,
        candidate: &[GateRun],
        terminal: &Terminal,
    ) -> Result<(), Failure> {
        self.check()?;
        let files = [
            (&self.json, Format::Json),
            (&self.junit, Format::Junit),
            (&self.markdown, Format::Markdown),
        ];
        for (path, format) in files {
            if let Some(path) = path {
                write_file(path, &rendered(report, format, terminal)?)?;
            }
        }
        if let Some(path) = &self.history {
            self.append_history(path, report, candidate)?;
        }
        if self.format.contains(&Format::Github) {
            append_step_summary(report)?;
        }
        // What people read first, then the annotations.
        let mut formats = self.format.clone();
        formats.sort_by_key(|format| *format == Format::Github);
        formats.dedup();
        let texts: Result<String, Failure> = formats
            .iter()
            .map(|format| rendered(report, *format, terminal))
            .collect();
        terminal.print(&texts?)
    }

    /// Two forms on one stream are neither.
    fn check(&self) -> Result<(), Failure> {
        let mut forms = self.format.clone();
        forms.retain(|format| *format != Format::Github);
        forms.dedup();
        if forms.len() > 1 {
            return Err(Failure::Input(
                "--format: standard output can have one of text, json, markdown and junit, with \
                 github beside it; give the others a file with --json, --markdown or --junit"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn append_history(
        &self,
        path: &Path,
        report: &GateReport,
        candidate: &[GateRun],
    ) -> Result<(), Failure> {
        let is_given = |name: &str| self.attribute.iter().any(|(given, _)| given == name);
        let known = KNOWN_ATTRIBUTES.iter().filter(|(name, _)| !is_given(name));
        let known = known
            .filter_map(|(name, variable)| Some(((*name).to_owned(), env::var(variable).ok()?)));
        let attributes: Vec<_> = known.chain(self.attribute.iter().cloned()).collect();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_s = since_1970.map_or(0, |since| since.as_secs()) as i64;
        let line = history::line(report, candidate, unix_s, &attributes)
            .map_err(|error| Failure::Defect(format!("the history has no JSON form: {error}")))?;
        append(path, &line)
    }
}

fn rendered(report: &GateReport, format: Format, terminal: &Terminal) -> Result<String, Failure> {
    let no_form = |error: String| Failure::Defect(format!("the verdict has no such form: {error}"));
    match format {
        Format::Text => Ok(text::gate(report, terminal.style())),
        Format::Json => report.to_json().map_err(|error| no_form(error.to_string())),
        Format::Markdown => Ok(text::gate_markdown(report)),
        Format::Junit => report
            .to_junit()
            .map_err(|error| no_form(error.to_string())),
        Format::Github => Ok(github::annotations(report)),
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let place = Place::Path(path.to_owned());
    let mut file = OutputFile::create(&place)?;
    file.write_all(text.as_bytes())
        .map_err(|error| place.failure(error))?;
    file.finish()
}

fn append_step_summary(report: &GateReport) -> Result<(), Failure> {
    let Some(path) = env::var_os(STEP_SUMMARY).filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let path = PathBuf::from(path);
    let used = fs::metadata(&path).map_or(0, |metadata| metadata.len());
    append(
        &path,
        &github::step_summary(report, usize::try_from(used).unwrap_or(usize::MAX)),
    )
}

fn append(path: &Path, text: &str) -> Result<(), Failure> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::output(path, error))
}
