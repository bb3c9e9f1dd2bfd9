//! `foresail man`: the manual pages.

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Print a manual page
///
/// For example: foresail man simulate | man -l -
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The command to print the page of, such as `simulate` or `trace convert`; without, foresail itself
    #[arg(value_name = "COMMAND")]
    path: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let mut page = Vec::new();
    Man::new(command(&arguments.path)?)
        .render(&mut page)
        .map_err(|error| Failure::Defect(format!("cannot make the manual page: {error}")))?;
    terminal.print(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::Success)
}

/// The command at the end of the path, under the name that a person types.
fn command(path: &[String]) -> Result<clap::Command, Failure> {
    let mut command = Cli::command();
    // Options of every command are known to the others only from here on.
    command.build();
    let mut page = &command;
    for name in path {
        page = page.find_subcommand(name).ok_or_else(|| {
            Failure::Input(format!(
                "there is no command `{}`; `foresail --help` lists them",
                path.join(" ")
            ))
        })?;
    }
    let name = page.get_bin_name().unwrap_or("foresail").replace(' ', "-");
    Ok(page.clone().name(name))
}
