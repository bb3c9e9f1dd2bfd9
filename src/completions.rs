//! `foresail completions`: what a shell needs to complete arguments.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Print completions for a shell
///
/// For bash: foresail completions bash > ~/.local/share/bash-completion/completions/foresail
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Cli::command(),
        "foresail",
        &mut script,
    );
    terminal.print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Success)
}
