//! `foresail trace record`: a run, or an access log, as a trace that can be replayed.
//!
//! Neither knows what prompts said, so nothing is known of what they share: a
//! replay finds nothing in a prefix cache. Neither knows how much output was
//! asked for where it did not come; such requests are left out, and counted.

mod access_log;
mod run_folder;

use std::io;
use std::path::{Path, PathBuf};

use foresail_scenarios::workload::{NativeWriter, Request, is_adapter_name};

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output_file::{OutputFile, Place};
use crate::terminal::Terminal;

/// Turn a run, or an access log, into a trace that can be replayed
///
/// Times, lengths, conversations and adapters are kept. Prompts are not recorded, so that
/// a replay shares no prefixes. Requests that did not complete are left out.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of a run, or the access log of `foresail serve`
    from: PathBuf,

    /// The file to write; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,

    /// Of a run: the name of an adapter, in the order of the scenario; can be repeated
    #[arg(long, value_name = "NAME")]
    adapter: Vec<String>,

    /// Of an access log with several models: which one is the model itself, and not an adapter of it
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

/// What was recorded.
#[derive(Debug, Default, PartialEq)]
struct Recorded {
    /// Requests with the names of their adapters.
    requests: Vec<(Request, Option<String>)>,
    /// Requests that did not complete.
    incomplete: u64,
    /// Whether the server found any part of a prompt in its prefix cache.
    shared_prefixes: bool,
    /// Whether times are of the sends, as nothing was due at any time.
    is_of_sends: bool,
}

pub(super) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen()?;
    let mut recorded = read(arguments, &interrupt)?;
    if recorded.requests.is_empty() {
        return Err(Failure::Input(format!(
            "{} has no request that completed; there is nothing to replay",
            arguments.from.display()
        )));
    }
    recorded.sort();
    let place = Place::of_argument(&arguments.out);
    write(&recorded.requests, &place)?;
    for note in recorded.notes() {
        terminal.note(&note);
    }
    if let Place::Path(path) = place {
        let count = recorded.requests.len();
        terminal.note(&format!("requests in {}: {count}", path.display()));
    }
    Ok(ExitCode::Success)
}

fn read(arguments: &Arguments, interrupt: &Interrupt) -> Result<Recorded, Failure> {
    let Arguments {
        from,
        adapter,
        model,
        ..
    } = arguments;
    let superfluous = |flag: &str, of: &str| {
        Failure::Input(format!(
            "{flag} is for {of}, and {} is none; leave it out",
            from.display()
        ))
    };
    if from.is_dir() {
        if model.is_some() {
            return Err(superfluous("--model", "an access log"));
        }
        check_names(adapter)?;
        return run_folder::read(from, adapter, interrupt);
    }
    if !adapter.is_empty() {
        return Err(superfluous("--adapter", "the folder of a run"));
    }
    access_log::read(from, model.as_deref(), interrupt)
}

fn check_names(adapters: &[String]) -> Result<(), Failure> {
    match adapters.iter().find(|name| !is_adapter_name(name)) {
        Some(name) => Err(Failure::Input(format!(
            "{name:?} cannot be the name of an adapter in a trace; name one without commas and quotes"
        ))),
        None => Ok(()),
    }
}

/// The file cannot be read, or not so.
fn unreadable(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::Input(format!(
        "cannot read {}: {what}; name the folder of a run, or the access log of `foresail serve`",
        path.display()
    ))
}

impl Recorded {
    /// Into the order of their times, which a trace has. Those at one time stay as they are.
    fn sort(&mut self) {
        self.requests.sort_by_key(|(request, _)| request.due);
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.incomplete > 0 {
            notes.push(format!(
                "requests left out because they did not complete, so that nobody knows how much output they asked for: {}",
                self.incomplete
            ));
        }
        if self.shared_prefixes {
            notes.push(
                "some prompts shared prefixes, which are not recorded: a replay finds none in a prefix cache".into(),
            );
        }
        if self.is_of_sends {
            notes.push("the run was a closed loop: times are those of the sends".into());
        }
        notes
    }
}

fn write(requests: &[(Request, Option<String>)], place: &Place) -> Result<(), Failure> {
    let mut output = OutputFile::create(place)?;
    rows(requests, &mut output).map_err(|error| place.failure(error))?;
    output.finish()
}

fn rows(requests: &[(Request, Option<String>)], output: &mut OutputFile) -> io::Result<()> {
    let names_adapters = requests.iter().any(|(_, adapter)| adapter.is_some());
    let mut writer = if names_adapters {
        NativeWriter::with_adapters(output)?
    } else {
        NativeWriter::new(output)?
    };
    for (request, adapter) in requests {
        writer.write(request, adapter.as_deref())?;
    }
    Ok(())
}
