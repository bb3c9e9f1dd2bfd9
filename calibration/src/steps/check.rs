//! What cells must be before anything is fitted to them.

use std::collections::BTreeSet;

use foresail_core::step_time::calibrated::Cell;

use super::FitError;

/// A step that takes longer is a mistake of units.
const SECONDS_MAX: f64 = 3600.0;

/// Whether every cell is a step that took some time.
pub(super) fn check_cells(cells: &[Cell]) -> Result<(), FitError> {
    for (index, cell) in cells.iter().enumerate() {
        let wrong = |what| FitError::Cell {
            cell: index + 1,
            what,
        };
        if cell.decodes == 0 && cell.chunks.is_empty() {
            return Err(wrong(
                "it computes nothing; it needs sequences that decode, or chunks",
            ));
        }
        if cell.decodes == 0 && cell.decode_past > 0 {
            return Err(wrong("it has a decode_past, but no sequence that decodes"));
        }
        if cell.chunks.iter().any(|chunk| chunk.len == 0) {
            return Err(wrong("a chunk has no tokens"));
        }
        if cell.seconds.is_empty() {
            return Err(wrong("it has no repeats; measure it at least once"));
        }
        if cell.rounds.len() != cell.seconds.len() {
            return Err(wrong("it must have as many rounds as repeats"));
        }
        if !cell.device_seconds.is_empty() && cell.device_seconds.len() != cell.seconds.len() {
            return Err(wrong(
                "it must have as many device times as repeats, or none",
            ));
        }
        check_seconds(index, cell)?;
    }
    Ok(())
}

fn check_seconds(index: usize, cell: &Cell) -> Result<(), FitError> {
    let sound = |seconds: &f64| *seconds > 0.0 && *seconds < SECONDS_MAX;
    match cell.seconds.iter().position(|seconds| !sound(seconds)) {
        Some(repeat) => Err(FitError::Seconds {
            cell: index + 1,
            step: super::name(cell),
            repeat: repeat + 1,
            seconds: cell.seconds[repeat],
        }),
        None => Ok(()),
    }
}

/// Whether the cells differ in what no fit can do without.
pub(super) fn check_variety<'a>(cells: impl Iterator<Item = &'a Cell>) -> Result<(), FitError> {
    let (mut batches, mut contexts, mut lengths) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for cell in cells {
        lengths.extend(cell.chunks.iter().map(|chunk| chunk.len));
        if cell.chunks.is_empty() {
            batches.insert(cell.decodes);
            contexts.insert(cell.decode_past / u64::from(cell.decodes));
        }
    }
    if batches.len() < 2 {
        let known = known(&batches, "no batch size", "batch size");
        return Err(FitError::Batches { known });
    }
    if contexts.len() < 2 {
        let known = known(&contexts, "no context", "a context of");
        return Err(FitError::Contexts { known });
    }
    if lengths.len() < 2 {
        let known = known(&lengths, "no length", "length");
        return Err(FitError::Chunks { known });
    }
    Ok(())
}

fn known<T: Ord + ToString>(values: &BTreeSet<T>, none: &str, one: &str) -> String {
    match values.first() {
        Some(value) => format!("{one} {} only", value.to_string()),
        None => none.to_owned(),
    }
}
