//! `foresail init`: a scenario to begin with.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use foresail_scenarios::library::{self, Entry};

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output_file::{OutputFile, Place};
use crate::terminal::Terminal;

/// Write a scenario file to begin with: every setting, explained
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file to write; `-` is standard output
    #[arg(default_value = "scenario.toml")]
    file: PathBuf,

    /// Copy this ready scenario instead
    #[arg(long, value_name = "NAME", value_parser = ready_scenario())]
    from: Option<&'static Entry>,

    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

fn ready_scenario() -> impl clap::builder::TypedValueParser<Value = &'static Entry> {
    let names = PossibleValuesParser::new(library::SCENARIOS.iter().map(|entry| entry.name));
    names.try_map(|name| library::find(&name).ok_or("not a ready scenario"))
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let place = Place::of_argument(&arguments.file);
    if let Place::Path(path) = &place
        && !arguments.force
    {
        refuse_to_replace(path)?;
    }
    let text = arguments
        .from
        .map_or_else(library::template, |entry| entry.text);
    let mut output = OutputFile::create(&place)?;
    output
        .write_all(text.as_bytes())
        .map_err(|error| place.failure(error))?;
    output.finish()?;
    if let Place::Path(path) = place {
        let path = path.display();
        terminal.note(&format!("wrote {path}; `foresail simulate {path}` runs it"));
    }
    Ok(ExitCode::Success)
}

fn refuse_to_replace(path: &Path) -> Result<(), Failure> {
    if path.is_file() {
        let path = path.display();
        return Err(Failure::Input(format!(
            "{path} is there already; name another file, or replace it with --force"
        )));
    }
    Ok(())
}
