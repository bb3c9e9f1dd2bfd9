//! Why a command ended without its result: what the person is told, and the exit code.

use std::io;
use std::path::{Path, PathBuf};

use foresail_engine::checkpoint::{CheckpointError, ConfigError, ConfigProblem};
use foresail_engine::startup::StartError;
use foresail_reports::FilesError;
use foresail_scenarios::workload::WorkloadError;
use foresail_simulator::SimulationError;

use crate::exit_code::ExitCode;

/// Why a command ended without its result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Bad usage or input; the text says what to change.
    #[error("{0}")]
    Input(String),
    /// Everything that is wrong with scenarios, rendered for the terminal already.
    #[error("{0}")]
    Diagnosed(String),
    /// A trace or generator cannot be used.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The records of a run cannot be written.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A run ended without a result.
    #[error("{run}: {source}")]
    Simulation {
        /// The scenario, and the seed where there are several.
        run: String,
        /// Why.
        source: SimulationError,
    },
    /// An output file cannot be written.
    #[error("cannot write {}: {source}; free space, check permissions, or name another file", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Stdout(io::Error),
    /// Whoever read standard output has gone away.
    #[error("standard output was closed")]
    BrokenPipe,
    /// The person, or the system, asked to stop.
    #[error("interrupted; no file was written")]
    Interrupted,
    /// It ran, and what came of it is not to be trusted; the text says why, and what to do.
    #[error("{0}")]
    Degraded(String),
    /// What computes has failed for good, and the text says how.
    #[error("{0}")]
    Device(String),
    /// A defect of foresail.
    #[error("{0}; this is a defect of foresail, please report it")]
    Defect(String),
}

impl Failure {
    pub(crate) fn output(path: &Path, source: io::Error) -> Self {
        Self::Output {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn stdout(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Stdout(source),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::BrokenPipe => ExitCode::Success,
            Self::Input(_)
            | Self::Diagnosed(_)
            | Self::Workload(_)
            | Self::Files(_)
            | Self::Output { .. }
            | Self::Stdout(_) => ExitCode::Input,
            Self::Simulation { source, .. } => of_simulation(source),
            Self::Degraded(_) => ExitCode::Degraded,
            Self::Interrupted => ExitCode::Interrupted,
            Self::Device(_) | Self::Defect(_) => ExitCode::Unexpected,
        }
    }
}

/// Why an engine did not start. The engine names the file; what to do about files is the command's to say.
pub(crate) fn of_start_with_remedy(error: &StartError) -> String {
    let is_of_files = match error {
        StartError::Tokenizer(_) => true,
        StartError::Checkpoint(error) => is_of_files(error),
        _ => false,
    };
    if is_of_files {
        format!("{error}; get the files of the model again, or name another folder with --model")
    } else {
        error.to_string()
    }
}

/// Whether a whole set of files would help; what is not supported says itself what is.
fn is_of_files(error: &CheckpointError) -> bool {
    match error {
        CheckpointError::Read { .. }
        | CheckpointError::NoWeights { .. }
        | CheckpointError::File { .. }
        | CheckpointError::Tensor { .. }
        | CheckpointError::Shape { .. }
        | CheckpointError::Missing { .. }
        | CheckpointError::Unexpected { .. }
        | CheckpointError::Twice { .. } => true,
        CheckpointError::Config(ConfigError { problem, .. }) => {
            matches!(problem, ConfigProblem::Json(_))
        }
        CheckpointError::Dtype { .. }
        | CheckpointError::UnknownShape { .. }
        | CheckpointError::UnsupportedShape { .. }
        | CheckpointError::Partition(_) => false,
    }
}

fn of_simulation(error: &SimulationError) -> ExitCode {
    match error {
        SimulationError::Workload(_)
        | SimulationError::Batching(_)
        | SimulationError::Overloaded { .. }
        | SimulationError::PoolTooSmall
        | SimulationError::Refused { .. }
        | SimulationError::TooLong => ExitCode::Input,
        SimulationError::Interrupted => ExitCode::Interrupted,
        // The command's own workloads have no empty requests, and no others' adapters;
        // its oracles are told.
        SimulationError::EmptyRequest { .. }
        | SimulationError::NotForeseen
        | SimulationError::Reconfigure(_)
        | SimulationError::UnknownAdapter { .. }
        | SimulationError::Replica(_)
        | SimulationError::Biller(_)
        | SimulationError::Conservation(_) => ExitCode::Unexpected,
    }
}
