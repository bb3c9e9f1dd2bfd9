//! The fit beside what was measured, as a picture: a plot of steps and one of errors for each world size.

use foresail_calibration::steps::{self, CellSummary};
use foresail_core::step_time::CalibratedProfile;
use foresail_core::step_time::calibrated::Cell;
use foresail_reports::picture::{Axis, Mark, Plot, Point, Series, svg};

use super::measure::{Measured, MeasuredWorld};
use crate::failure::Failure;

/// The kinds of steps, which are told apart in the picture.
const KINDS: [&str; 3] = ["decode", "prompts", "decode and prompts"];

pub(super) fn of(profile: &CalibratedProfile, measured: &Measured) -> Result<String, Failure> {
    let mut plots = Vec::new();
    for world in &measured.worlds {
        let cells = steps::summary(&world.fit);
        let cells = cells.map_err(|error| Failure::Defect(format!("no fit: {error}")))?;
        let title = format!(
            "{}, world size {}",
            profile.provenance.model, world.world_size
        );
        plots.push(times(&title, world, &cells));
        plots.push(errors(&title, world, &cells));
    }
    Ok(svg(&plots))
}

/// What each step was fitted as, against what it was measured as.
fn times(title: &str, world: &MeasuredWorld, cells: &[CellSummary]) -> Plot {
    let fitted = cells.iter().map(|cell| cell.fitted_s * 1e3);
    let (low, high) = fitted.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), ms| {
        (low.min(ms), high.max(ms))
    });
    let line = Series {
        name: "as fitted".to_owned(),
        mark: Mark::Line,
        points: vec![Point::new(low, low), Point::new(high, high)],
    };
    let kinds = series(world, cells, |summary, _| {
        let measured = summary.measured;
        Point::within(
            summary.fitted_s * 1e3,
            measured.median_s * 1e3,
            measured.low_s * 1e3,
            measured.high_s * 1e3,
        )
    });
    Plot {
        title: format!("{title}: measured steps against the fit"),
        x: Axis::log("fitted (ms)"),
        y: Axis::log("measured (ms)"),
        series: [line].into_iter().chain(kinds).collect(),
    }
}

/// How far each step is from the fit, by its tokens.
fn errors(title: &str, world: &MeasuredWorld, cells: &[CellSummary]) -> Plot {
    let kinds = series(world, cells, |summary, cell| {
        let (fitted, measured) = (summary.fitted_s, summary.measured);
        let error = |seconds: f64| (fitted / seconds - 1.0) * 100.0;
        Point::within(
            tokens(cell) as f64,
            error(measured.median_s),
            error(measured.high_s),
            error(measured.low_s),
        )
    });
    Plot {
        title: format!("{title}: error of the fit"),
        x: Axis::log("tokens in the step"),
        y: Axis::linear("fitted beyond measured (%)"),
        series: kinds,
    }
}

/// A series for each kind of step that there is.
fn series(
    world: &MeasuredWorld,
    cells: &[CellSummary],
    point: impl Fn(&CellSummary, &Cell) -> Point,
) -> Vec<Series> {
    let mut all = KINDS.map(|name| Series {
        name: name.to_owned(),
        mark: Mark::Points,
        points: Vec::new(),
    });
    for (summary, cell) in cells.iter().zip(&world.fit.cells) {
        let kind = match (cell.decodes > 0, cell.chunks.is_empty()) {
            (_, true) => 0,
            (false, false) => 1,
            (true, false) => 2,
        };
        all[kind].points.push(point(summary, cell));
    }
    let some = all.into_iter().filter(|series| !series.points.is_empty());
    some.collect()
}

fn tokens(cell: &Cell) -> u64 {
    let chunks = cell.chunks.iter().map(|chunk| u64::from(chunk.len));
    u64::from(cell.decodes) + chunks.sum::<u64>()
}
