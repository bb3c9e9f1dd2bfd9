//! A fit cell by cell, for tables and pictures.

use foresail_core::step_time::calibrated::{CalibrationError, Cell, HowMeasured, WorldSizeFit};

use super::observation::formula_s;
use super::stalled;
use crate::statistics::{MedianInterval, mean, median};

/// A measured step beside what the fit says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct CellSummary {
    /// The step in words.
    pub name: String,
    /// What it took: the median, with its interval.
    pub measured: MedianInterval,
    /// The mean of its repeats (s): more than the median where the machine stalls now and then.
    pub mean_s: f64,
    /// What the fit says (s).
    pub fitted_s: f64,
    /// That beyond the median, as a share of the median.
    pub error: f64,
    /// The median of the device's busy time (s); none if the device does not say.
    pub device_s: Option<f64>,
    /// Repeats, and those of them that stalled.
    pub repeats: usize,
    /// See `repeats`.
    pub stalled: usize,
    /// Whether the fit leaves it out as an outlier.
    pub is_left_out: bool,
}

/// Every cell of a fit, in order. A shard that was measured alone is compared without the exchanges that are modelled beside it.
///
/// # Errors
/// If the fit does not hold what it should.
pub fn summary(fit: &WorldSizeFit) -> Result<Vec<CellSummary>, CalibrationError> {
    let mut formula = fit.formula()?;
    if fit.how == HowMeasured::ShardAlone {
        formula.all_reduce = None;
    }
    let of_cell = |cell: &Cell| {
        let measured = MedianInterval::of(&cell.seconds)?;
        let fitted_s = formula_s(&formula, cell);
        Some(CellSummary {
            name: super::name(cell),
            measured,
            mean_s: mean(&cell.seconds),
            fitted_s,
            error: (fitted_s - measured.median_s) / measured.median_s,
            device_s: median(&cell.device_seconds),
            repeats: cell.seconds.len(),
            stalled: stalled::count(cell),
            is_left_out: cell.is_left_out,
        })
    };
    Ok(fit.cells.iter().filter_map(of_cell).collect())
}
