//! How text reaches the person: results on standard output, everything else on
//! standard error, colour only where it is seen.

use std::env;
use std::io::{self, IsTerminal, Write as _};

use clap::ValueEnum;
use foresail_reports::Style;
use terminal_size::{Width, terminal_size_of};

use crate::failure::Failure;

/// Where help lists the options of every command: after a command's own.
const LAST: usize = 900;

/// Options of every command about what is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct TerminalArguments {
    /// When to colour; `auto` means on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", display_order = LAST)]
    color: ColorChoice,
    /// No progress bar and no notes on standard error; errors are still told
    #[arg(short, long, global = true, display_order = LAST)]
    quiet: bool,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    Auto,
    Always,
    Never,
}

/// For people or for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    Text,
    Json,
}

/// Columns of error messages that nobody sees on a terminal: logs, mostly.
const ERROR_WIDTH: usize = 100;

/// Where a command shows what it has to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    color: ColorChoice,
    pub(crate) quiet: bool,
}

impl Terminal {
    pub(crate) fn new(arguments: &TerminalArguments) -> Self {
        Self {
            color: arguments.color,
            quiet: arguments.quiet,
        }
    }

    /// How results are set on standard output.
    pub(crate) fn style(&self) -> Style {
        let stdout = io::stdout();
        let width = match terminal_size_of(&stdout) {
            Some((Width(columns), _)) => usize::from(columns),
            None => Style::default().width,
        };
        Style {
            colour: self.is_coloured(&stdout),
            width,
        }
    }

    /// How errors are set on standard error.
    pub(crate) fn error_style(&self) -> Style {
        let stderr = io::stderr();
        let width =
            terminal_size_of(&stderr).map_or(ERROR_WIDTH, |(Width(columns), _)| columns.into());
        Style {
            colour: self.is_coloured(&stderr),
            width,
        }
    }

    /// The convention of <https://no-color.org>: set, and not empty.
    fn is_coloured(&self, stream: &impl IsTerminal) -> bool {
        let refused = || env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => stream.is_terminal() && !refused(),
        }
    }

    /// Writes a result to standard output.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(Failure::stdout)
    }

    /// Says something that is good to know, beside the result.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.say("note: ", "36", text);
        }
    }

    /// Says why there is no result.
    pub(crate) fn failure(&self, failure: &Failure) {
        match failure {
            Failure::BrokenPipe => {}
            Failure::Diagnosed(text) => self.say("", "", text),
            _ => self.say("error: ", "1;31", &failure.to_string()),
        }
    }

    fn say(&self, label: &str, code: &str, text: &str) {
        let label = match self.error_style().colour && !label.is_empty() {
            true => format!("\x1b[{code}m{label}\x1b[0m"),
            false => label.to_owned(),
        };
        // Where standard error cannot be written, nobody can be told.
        let _ = writeln!(io::stderr().lock(), "{label}{}", text.trim_end());
    }
}
