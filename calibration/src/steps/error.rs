//! Why measured steps give no fit, and what to do about it.

use foresail_core::step_time::calibrated::CalibrationError;

use crate::least_squares::LeastSquaresError;

/// Why measured steps give no fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// A step computes nothing, or says something that cannot be.
    #[error("cell {cell}: {what}")]
    Cell {
        /// Its place among the cells, from 1.
        cell: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A repeat took no time, less, or no number of seconds.
    #[error(
        "repeat {repeat} of cell {cell} ({step}) took {seconds} s; every repeat must have taken more \
         than 0 s and less than 3600 s"
    )]
    Seconds {
        /// The cell's place among the cells, from 1.
        cell: usize,
        /// The step, in words.
        step: String,
        /// Which repeat, from 1.
        repeat: usize,
        /// What it says.
        seconds: f64,
    },
    /// Every step that decodes has as many sequences.
    #[error(
        "steps that only decode were measured at {known}; measure them at two batch sizes or more, \
         else a step's fixed time and a sequence's cannot be told apart"
    )]
    Batches {
        /// What there is, in words.
        known: String,
    },
    /// Every step that decodes has as long a context.
    #[error(
        "steps that only decode were measured at {known}; measure them at two contexts or more, \
         else the time to read the KV cache is not known"
    )]
    Contexts {
        /// What there is, in words.
        known: String,
    },
    /// There are no prompts, or all of one length.
    #[error(
        "pieces of prompts were measured at {known}; measure them at two lengths or more, else the \
         time of a prompt's token is not known"
    )]
    Chunks {
        /// What there is, in words.
        known: String,
    },
    /// There are fewer steps than the formula has terms.
    #[error(
        "{cells} different steps are too few for the {terms} terms that they have; measure {} or more",
        terms + 1
    )]
    TooFewCells {
        /// Different steps that are not outliers.
        cells: usize,
        /// Terms that they have.
        terms: usize,
    },
    /// Exchanges between GPUs are said to take longer than the step they are in.
    #[error(
        "cell {cell} ({step}) took {seconds} s, less than its all-reduces are said to: \
         {exchanges_s} s; check the table of all-reduce times, or say that the shard was alone"
    )]
    Exchanges {
        /// The cell's place among the cells, from 1.
        cell: usize,
        /// The step, in words.
        step: String,
        /// The median of what it took.
        seconds: f64,
        /// What its exchanges are said to take.
        exchanges_s: f64,
    },
    /// Too many steps took what no smooth function of their size says.
    #[error(
        "{left_out} of {cells} steps or more are off from any smooth fit, first of all {worst}; the machine was \
         not quiet, or the steps are not of one engine: measure them again"
    )]
    TooManyOutliers {
        /// Steps that would have to be left out.
        left_out: usize,
        /// All steps.
        cells: usize,
        /// The one that is most off, in words.
        worst: String,
    },
    /// The formula is far from what was measured.
    #[error(
        "the formula is off by {percent:.0} % in the mean, and by {worst_percent:.0} % for {worst}; \
         measure again on a quiet machine, or keep the measured steps as a table"
    )]
    DoesNotFit {
        /// Mean magnitude of the error, in percent of what was measured.
        percent: f64,
        /// The largest.
        worst_percent: f64,
        /// Where that is, in words.
        worst: String,
    },
    /// Rounds differ so much that no number describes them.
    #[error(
        "rounds differ by a factor of {factor:.1} from one to another; measure again on a quiet machine"
    )]
    Unsteady {
        /// One standard deviation, as a factor.
        factor: f64,
    },
    /// Too few draws give no interval.
    #[error(
        "{draws} draws are too few for an interval; ask for {} or more",
        super::DRAWS_MIN
    )]
    Draws {
        /// What was asked for.
        draws: u32,
    },
    /// The equations have no solution.
    #[error("the fit failed: {0}")]
    LeastSquares(#[from] LeastSquaresError),
    /// What was fitted would not be read back.
    #[error("the fit makes no sense: {0}")]
    Profile(#[from] CalibrationError),
}
