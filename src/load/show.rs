//! The result of a run, for people or for machines, and what it means for the exit code.

use foresail_reports::{Summary, text};

use super::once::Done;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::{OutputFormat, Terminal};

/// Says what is good to know beside the figures.
pub(super) fn notes(done: &Done, terminal: &Terminal) {
    for note in &done.notes {
        terminal.note(note);
    }
}

pub(super) fn text(
    summary: &Summary,
    format: OutputFormat,
    terminal: &Terminal,
) -> Result<String, Failure> {
    match format {
        OutputFormat::Text => Ok(text::summary(summary, terminal.style())),
        OutputFormat::Json => summary.to_json().map_err(not_json),
    }
}

pub(super) fn not_json(error: serde_json::Error) -> Failure {
    Failure::Defect(format!("the summary has no JSON form: {error}"))
}

/// How the command ends after this run.
pub(super) fn exit_code(done: &Done, terminal: &Terminal) -> Result<ExitCode, Failure> {
    if let Some(failure) = &done.failure {
        return Err(Failure::Input(failure.clone()));
    }
    if let Some(text) = unanswered(&done.summary) {
        let first = done.first_failure.as_ref();
        let first = first.map(|first| format!("; the first: {first}"));
        terminal.failure(&Failure::Input(text + &first.unwrap_or_default()));
    }
    Ok(of(&done.summary))
}

/// What a person interrupted is no verdict, and neither is what the client itself was the limit of.
fn of(summary: &Summary) -> ExitCode {
    let measured = summary.measured.as_deref();
    if measured.is_some_and(|measured| measured.is_interrupted) {
        ExitCode::Interrupted
    } else if is_degraded(summary) {
        ExitCode::Degraded
    } else if summary.objectives_met() {
        ExitCode::Success
    } else {
        ExitCode::NotMet
    }
}

/// Whether the figures are not to be trusted, or there are none.
pub(super) fn is_degraded(summary: &Summary) -> bool {
    let measured = summary.measured.as_deref();
    measured.is_some_and(|measured| !measured.degraded.is_empty()) || unanswered(summary).is_some()
}

/// What to say of a run without a single answer.
fn unanswered(summary: &Summary) -> Option<String> {
    let measured = summary.measured.as_deref()?;
    let whole_run = &measured.window.whole_run;
    let is_silent = whole_run.requests > 0 && whole_run.completed == 0;
    (is_silent && !measured.is_interrupted).then(|| {
        format!(
            "not one of {} requests was answered; is the endpoint up, is the model's name right, and is \
             --timeout long enough? With --out, attempts.csv has each with its reason",
            whole_run.requests
        )
    })
}
