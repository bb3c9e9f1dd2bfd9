//! What the exit code of the command says.
//!
//! Scripts branch on these, so they never change their meaning. The same table
//! is at the end of `foresail --help`.

use std::fmt::Write as _;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// It did what was asked. A reader of standard output that went away early,
    /// such as `head`, has what it wanted, and is success as well.
    Success = 0,
    /// A defect of foresail, or a failure that it has no name for.
    Unexpected = 1,
    /// Bad usage, input that is not right, or an output that cannot be written.
    /// The same command will fail again.
    Input = 2,
    /// It ran, and an objective or a gate was not met.
    NotMet = 3,
    /// It ran, and a part of the result is missing or not to be trusted.
    Degraded = 4,
    /// It was asked to stop, for example with Ctrl-C.
    Interrupted = 130,
}

impl ExitCode {
    const ALL: [Self; 6] = [
        Self::Success,
        Self::Unexpected,
        Self::Input,
        Self::NotMet,
        Self::Degraded,
        Self::Interrupted,
    ];

    fn meaning(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Unexpected => "unexpected failure: a defect of foresail",
            Self::Input => "bad usage or input, or an output that cannot be written",
            Self::NotMet => "an objective or a gate was not met",
            Self::Degraded => "incomplete or degraded result",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        // The code is the discriminant, and fits a byte.
        Self::from(code as u8)
    }
}

/// The table of exit codes, for `--help`.
pub(crate) fn help() -> String {
    let mut text = "Exit codes:\n".to_owned();
    for code in ExitCode::ALL {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {:>3}  {}", code as u8, code.meaning());
    }
    text
}
