use foresail_core::step_time::AllReduceRange;
use foresail_core::step_time::calibrated::{CalibratedAllReduce, Cell, HowMeasured};

use super::engine::*;
use crate::steps::{FitError, Options, fit};

fn refused(cells: &[Cell]) -> FitError {
    fit(cells, 1, HowMeasured::Ranks, None, &Options::default()).unwrap_err()
}

fn measured(cells: Vec<Cell>) -> Vec<Cell> {
    Engine::new(terms(), 0.01, 1).measure(cells)
}

#[test]
fn times_that_are_none_are_refused() {
    for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY, 4000.0] {
        let mut cells = measured(grid());
        cells[2].seconds[1] = seconds;
        let error = refused(&cells);
        let FitError::Seconds { cell, repeat, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!((cell, repeat), (3, 2));
    }
}

#[test]
fn steps_that_cannot_be_are_refused() {
    let spoil: [fn(&mut Cell); 6] = [
        |cell| cell.decodes = 0,
        |cell| *cell = step(0, 0, &[]),
        |cell| *cell = step(1, 1, &[(0, 0)]),
        |cell| cell.seconds.clear(),
        |cell| cell.rounds.push(3),
        |cell| cell.device_seconds.push(1.0),
    ];
    for spoil in spoil {
        let mut cells = measured(grid());
        spoil(&mut cells[1]);
        let error = refused(&cells);
        assert!(matches!(error, FitError::Cell { cell: 2, .. }), "{error:?}");
    }
}

#[test]
fn grids_that_are_too_small_are_refused_with_what_is_missing() {
    let few = |keep: fn(&Cell) -> bool| {
        let mut cells = grid();
        cells.retain(keep);
        refused(&measured(cells)).to_string()
    };
    let none = refused(&[]).to_string();
    assert!(
        none.contains("no batch size") && none.contains("two batch sizes"),
        "{none}"
    );
    let one_batch = few(|cell| cell.decodes == 8 || cell.decodes == 0);
    assert!(one_batch.contains("batch size 8 only"), "{one_batch}");
    let one_context =
        few(|cell| !cell.chunks.is_empty() || cell.decode_past == u64::from(cell.decodes) * 256);
    assert!(
        one_context.contains("a context of 256 only"),
        "{one_context}"
    );
    let no_prompts = few(|cell| cell.chunks.is_empty());
    assert!(no_prompts.contains("no length"), "{no_prompts}");
    let one_length = few(|cell| cell.chunks.iter().all(|chunk| chunk.len == 64));
    assert!(one_length.contains("length 64 only"), "{one_length}");
    let five = measured(vec![
        step(1, 32, &[]),
        step(1, 256, &[]),
        step(8, 256, &[]),
        step(0, 0, &[(0, 64)]),
        step(0, 0, &[(64, 256)]),
    ]);
    let error = refused(&five);
    assert!(
        matches!(error, FitError::TooFewCells { cells: 5, .. }),
        "{error:?}"
    );
}

#[test]
fn exchanges_longer_than_the_step_are_refused() {
    let exchanges = CalibratedAllReduce {
        per_step: 100.0,
        bytes_per_token: 100,
        ranges: vec![AllReduceRange {
            bytes_last: 1 << 20,
            alpha_s: 0.1,
            beta_bytes_per_s: 1e9,
        }],
    };
    let cells = measured(grid());
    let options = Options::default();
    let ranks = fit(
        &cells,
        2,
        HowMeasured::Ranks,
        Some(exchanges.clone()),
        &options,
    );
    assert!(
        matches!(ranks, Err(FitError::Exchanges { cell: 1, .. })),
        "{ranks:?}"
    );
    let alone = fit(
        &cells,
        2,
        HowMeasured::ShardAlone,
        Some(exchanges),
        &options,
    );
    assert!(alone.is_ok(), "{alone:?}");
}

#[test]
fn too_few_draws_for_an_interval_are_refused() {
    let options = Options {
        draws: 3,
        ..Options::default()
    };
    let refused = fit(&measured(grid()), 1, HowMeasured::Ranks, None, &options);
    assert_eq!(refused, Err(FitError::Draws { draws: 3 }));
}

#[test]
fn a_table_that_makes_no_sense_is_refused() {
    let nothing = CalibratedAllReduce {
        per_step: 1.0,
        bytes_per_token: 1,
        ranges: Vec::new(),
    };
    let cells = measured(grid());
    let refused = fit(
        &cells,
        2,
        HowMeasured::Ranks,
        Some(nothing),
        &Options::default(),
    );
    assert!(matches!(refused, Err(FitError::Profile(_))), "{refused:?}");
}

#[test]
fn times_that_have_nothing_to_do_with_the_steps_are_refused() {
    let mut cells = measured(grid());
    let mut random = 7_u64;
    for cell in &mut cells {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let seconds = 1e-3 * libm::exp(6.0 * (random >> 40) as f64 / (1_u64 << 24) as f64);
        cell.seconds.fill(seconds);
    }
    let error = refused(&cells);
    assert!(
        matches!(
            error,
            FitError::DoesNotFit { .. } | FitError::TooManyOutliers { .. }
        ),
        "{error:?}"
    );
}

#[test]
fn rounds_by_different_machines_are_refused() {
    let mut cells = measured(grid());
    for cell in &mut cells {
        for (seconds, round) in cell.seconds.iter_mut().zip(&cell.rounds) {
            *seconds *= if round % 2 == 0 { 1.0 } else { 20.0 };
        }
    }
    let error = refused(&cells);
    assert!(matches!(error, FitError::Unsteady { .. }), "{error:?}");
}
