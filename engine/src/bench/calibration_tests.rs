//! Rounds of a design on a device that only looks at what it is asked.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::tests::config;
use super::*;
use crate::backend::{Backend, Limits, Row, RowOutput, StepError, StepInput};
use crate::sampling::{Sampled, Sampling};
use crate::weights::Adapter;

const LIMITS: DesignLimits = DesignLimits {
    max_num_seqs: 4,
    max_batched_tokens: 64,
    max_model_len: 256,
    kv_tokens: 640,
    block_size: 16,
    adapters: 2,
};

/// What a step computed: contexts of the sequences that decode, chunks, adapters.
type Computed = (Vec<usize>, Vec<(usize, usize)>, u32);

/// Keeps what it computed.
#[derive(Clone, Default)]
struct Witness {
    computed: Arc<Mutex<Vec<Computed>>>,
    /// The step, from 0, that takes very long.
    stalls_at: Option<usize>,
    fails_at: Option<usize>,
    takes: Duration,
}

impl Backend for Witness {
    fn step(&mut self, step: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        let mut computed = self.computed.lock().unwrap();
        if self.fails_at == Some(computed.len()) {
            return Err(StepError("out of order".to_owned()));
        }
        if self.stalls_at == Some(computed.len()) {
            std::thread::sleep(Duration::from_millis(300));
        }
        std::thread::sleep(self.takes);
        let mut blocks = BTreeSet::new();
        for row in &step.rows {
            let used = &row.table[..(row.past + row.len).div_ceil(LIMITS.block_size)];
            let apart = used.iter().all(|block| blocks.insert(*block));
            assert!(apart, "a block is shared in {row:?}");
        }
        let decodes = step.load.decodes as usize;
        let contexts = step.rows[..decodes].iter().map(|row| row.past);
        let chunks = step.rows[decodes..].iter().map(|row| (row.past, row.len));
        computed.push((contexts.collect(), chunks.collect(), step.adapters));
        let output = |row: &Row<'_>| RowOutput {
            sampled: row.sample.is_some().then_some(Sampled {
                token: 7,
                logprobs: None,
            }),
            ..RowOutput::default()
        };
        Ok(step.rows.iter().map(output).collect())
    }

    fn load_adapter(&mut self, _slot: usize, _adapter: &Adapter) -> Result<(), StepError> {
        Ok(())
    }

    fn unload_adapter(&mut self, _slot: usize) {}
}

fn run(
    witness: &Witness,
    budget: Duration,
    rounds_max: usize,
    watch: &mut dyn FnMut(RoundProgress) -> ControlFlow<()>,
) -> Result<(Design, MeasuredCells), BenchError> {
    let design = Design::new(LIMITS).unwrap();
    let limits = Limits {
        block_size: LIMITS.block_size,
        num_blocks: design.num_blocks(),
        max_num_seqs: LIMITS.max_num_seqs,
        max_batched_tokens: LIMITS.max_batched_tokens,
        max_model_len: LIMITS.max_model_len,
        max_loras: LIMITS.adapters,
        max_lora_rank: 4,
    };
    let config = config();
    let engine = Engine {
        config: &config,
        limits,
    };
    let plan = Plan {
        design: &design,
        precision: Precision {
            rounds_min: rounds_max,
            rounds_max,
            ..Precision::default()
        },
        seed: 3,
        budget,
        sampling: Sampling::default(),
        adapters: (0..2)
            .map(|number| random_adapter(&config, 4, 0, number))
            .collect(),
    };
    let measured = measure_cells(Box::new(witness.clone()), engine, plan, watch)?;
    Ok((design, measured))
}

fn go_on(_: RoundProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Longer than any of this takes on the busiest machine.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn every_step_is_computed_as_designed_in_every_round() {
    let witness = Witness::default();
    let (design, measured) = run(&witness, LONG, 3, &mut go_on).unwrap();
    assert_eq!(measured.cells.len(), design.cells().len());
    assert_eq!(measured.rounds, 3);
    for (planned, measured) in design.cells().iter().zip(&measured.cells) {
        let cell = &measured.cell;
        assert_eq!(cell.rounds, [0, 1, 2]);
        assert_eq!(cell.decodes as usize, planned.decodes());
        assert_eq!(cell.chunks, planned.chunks);
        assert_eq!(cell.adapters as usize, planned.adapters);
        // Two tokens beyond the context, and half of the steps in a row.
        let beyond = match planned.chunks.is_empty() {
            true => 2 + (measured.steps_in_a_row - 1) / 2,
            false => 2,
        };
        let contexts: usize = planned
            .contexts
            .iter()
            .map(|context| context + beyond)
            .sum();
        assert_eq!(cell.decode_past as usize, contexts, "{planned:?}");
    }
    let computed = witness.computed.lock().unwrap();
    let uneven = computed
        .iter()
        .any(|(contexts, ..)| contexts.iter().max() > contexts.iter().min());
    assert!(uneven, "no batch has uneven contexts");
    let with_two = computed.iter().filter(|(.., adapters)| *adapters == 2);
    // Decode and mixed, each with a step before, in the warm-up and in three rounds.
    assert!(with_two.count() >= 4 * 4);
    // Prompts are skipped but for the chunks that are timed.
    let chunks = computed.iter().filter(|(_, chunks, _)| !chunks.is_empty());
    let designed = design
        .cells()
        .iter()
        .filter(|cell| !cell.chunks.is_empty())
        .count();
    assert_eq!(chunks.count(), 4 * designed);
}

#[test]
fn the_order_of_steps_is_another_in_every_round() {
    let witness = Witness::default();
    let (design, _) = run(&witness, LONG, 2, &mut go_on).unwrap();
    let computed = witness.computed.lock().unwrap();
    let chunks = computed
        .iter()
        .filter(|(_, chunks, _)| !chunks.is_empty())
        .map(|(contexts, chunks, adapters)| (contexts.len(), chunks.clone(), *adapters));
    let chunks: Vec<_> = chunks.collect();
    let each = chunks.len() / 3;
    let rounds: Vec<_> = chunks.chunks(each).collect();
    assert!(each > 5 && design.cells().len() > 15);
    let sorted = |round: &[_]| {
        let mut sorted = round.to_vec();
        sorted.sort();
        sorted
    };
    assert_eq!(sorted(rounds[1]), sorted(rounds[2]));
    assert!(rounds[0] != rounds[1] && rounds[1] != rounds[2]);
}

#[test]
fn a_step_that_is_held_up_is_told() {
    // The last of a first run without one is in the last round, and timed.
    let witness = Witness {
        takes: Duration::from_millis(1),
        ..Witness::default()
    };
    let (_, measured) = run(&witness, LONG, 3, &mut go_on).unwrap();
    let steps: usize = witness.computed.lock().unwrap().len();
    assert!(
        measured
            .cells
            .iter()
            .all(|cell| cell.cell.seconds.len() == 3)
    );
    let witness = Witness {
        stalls_at: Some(steps * 9 / 10),
        ..witness
    };
    witness.computed.lock().unwrap().clear();
    let mut held_up = 0;
    // Steps that are not timed may be the one that stalls, so a few are tried.
    for later in 0..4 {
        let witness = Witness {
            stalls_at: witness.stalls_at.map(|step| step + later),
            computed: Arc::default(),
            ..witness.clone()
        };
        let (_, measured) = run(&witness, LONG, 3, &mut go_on).unwrap();
        let stalls = measured.cells.iter().map(|measured| {
            let seconds = measured.cell.seconds.iter();
            seconds
                .filter(|each| **each > 2.0 * measured.spread.median)
                .count()
        });
        held_up += stalls.sum::<usize>();
    }
    assert!(held_up > 0);
}

#[test]
fn a_budget_below_a_round_is_refused_with_what_a_round_takes() {
    let witness = Witness {
        takes: Duration::from_millis(5),
        ..Witness::default()
    };
    let error = run(&witness, Duration::from_millis(20), 3, &mut go_on).unwrap_err();
    let BenchError::Budget { round_s, .. } = error else {
        panic!("{error}")
    };
    let cells = Design::new(LIMITS).unwrap().cells().len() as f64;
    // A repeat is at least two steps of 5 ms.
    assert!(round_s >= cells * 0.01, "{round_s} s for {cells}");
    assert!(error.to_string().contains("one round of the grid takes"));
}

#[test]
fn a_measurement_ends_in_time_with_what_it_has() {
    let witness = Witness {
        takes: Duration::from_millis(1),
        ..Witness::default()
    };
    // Enough for a few rounds, and by far not for a thousand.
    let (_, measured) = run(&witness, Duration::from_secs(8), 1000, &mut go_on).unwrap();
    assert!((1..1000).contains(&measured.rounds), "{}", measured.rounds);
    assert!(measured.cells.iter().all(|cell| !cell.is_tight));
    let spent = measured.spent;
    assert!(spent.warm_up_s > 0.0 && spent.timed_s > 0.0 && spent.between_s > 0.0);
}

#[test]
fn a_failing_engine_and_a_stop_end_it() {
    let witness = Witness {
        fails_at: Some(9),
        ..Witness::default()
    };
    let error = run(&witness, LONG, 3, &mut go_on).unwrap_err();
    assert_eq!(error.to_string(), "a step failed: out of order");
    let mut told = 0;
    let mut stop = |_: RoundProgress| {
        told += 1;
        match told {
            30 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    let error = run(&Witness::default(), LONG, 3, &mut stop).unwrap_err();
    assert!(matches!(error, BenchError::Stopped));
}
