//! Measurements on a backend that only looks at what it is asked.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use foresail_core::batching::BlockId;
use foresail_core::step_time::{Profile, StepTime as _};
use foresail_reports::bench::{Ceilings, Flops};
use foresail_reports::summary::Tool;

use super::cost::Formats;
use super::*;
use crate::backend::{Backend, Limits, Row, RowOutput, StepError, StepInput};
use crate::config::{AttentionBias, Dtype, Family, ModelConfig, Rotary, RotaryScaling};
use crate::sampling::Sampled;
use crate::weights::Adapter;

/// A model of a few thousand parameters.
pub(super) fn config() -> ModelConfig {
    ModelConfig {
        family: Family::Llama,
        vocab_size: 320,
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: 2048,
        rms_norm_eps: 1e-5,
        rotary: Rotary {
            theta: 10_000.0,
            scaling: RotaryScaling::None,
        },
        attention_bias: AttentionBias::None,
        query_key_norm: false,
        sliding_window: None,
        tie_word_embeddings: true,
        dtype: Dtype::F32,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
    }
}

const BLOCK_SIZE: usize = 16;

/// Keeps what it was asked for, and which tokens of which blocks were ever computed.
#[derive(Default)]
struct Witness {
    written: BTreeSet<(BlockId, usize)>,
    /// Sequences and tokens of each step that samples, in order.
    sampled: Vec<(usize, usize, usize)>,
    /// Sequences, context and generated tokens of each step of a batch that goes on.
    ran: Vec<(usize, usize, usize)>,
    steps: usize,
    fails_after: Option<usize>,
    forgets: bool,
}

impl Backend for Witness {
    fn step(&mut self, step: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        self.steps += 1;
        if self.fails_after.is_some_and(|steps| self.steps > steps) {
            return Err(StepError("out of order".to_owned()));
        }
        let mut blocks = BTreeSet::new();
        for row in &step.rows {
            assert!(row.past + row.len <= row.known.len());
            assert!(row.past + row.len <= row.table.len() * BLOCK_SIZE);
            let is_end = row.past + row.len == row.known.len();
            assert_eq!(row.sample.is_some(), is_end);
            let used = &row.table[..(row.past + row.len).div_ceil(BLOCK_SIZE)];
            assert!(
                used.iter().all(|block| blocks.insert(*block)),
                "a block is shared"
            );
            for position in row.past..row.past + row.len {
                self.written
                    .insert((row.table[position / BLOCK_SIZE], position % BLOCK_SIZE));
            }
        }
        assert_eq!(
            step.rows.len(),
            step.load.decodes as usize + step.load.chunks.len()
        );
        if let Some(row) = step.rows.iter().find(|row| row.sample.is_some()) {
            self.assert_pages_written(step);
            let generated = row.sample.map_or(0, |context| context.generated.len());
            if step.ahead > 0 || generated > 0 {
                self.ran.push((step.rows.len(), row.past, generated));
            } else {
                self.sampled.push((step.rows.len(), row.len, row.past));
            }
        }
        let output = |row: &Row<'_>| RowOutput {
            sampled: (row.sample.is_some() && !self.forgets).then_some(Sampled {
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

impl Witness {
    /// A page holds the keys and values of 16 tokens of a layer: two heads of 16
    /// keys and as many values, of 4 bytes each.
    fn assert_pages_written(&self, step: &StepInput<'_>) {
        for row in &step.rows {
            for block in &row.table[..row.past / BLOCK_SIZE] {
                let is_written = |slot| self.written.contains(&(*block, slot));
                assert!((0..BLOCK_SIZE).any(is_written), "{block} of {row:?}");
            }
        }
    }
}

fn grid() -> Grid {
    Grid::new(vec![1, 3], vec![40, 200], vec![8, 24], 2).unwrap()
}

fn run(witness: &mut Witness) -> Result<Vec<MeasuredStep>, BenchError> {
    let mut watch = |_| ControlFlow::Continue(());
    measure(
        witness,
        &config(),
        Dtype::F32,
        BLOCK_SIZE,
        &grid(),
        &mut watch,
    )
}

fn facts() -> Facts {
    Facts {
        tool: Tool::default(),
        measured_on: "2026-11-21".into(),
        command: "foresail bench".into(),
        model_name: "tiny".into(),
        model: config(),
        formats: Formats {
            weights: Dtype::F32,
            kv: Dtype::F32,
        },
        backend: "cpu".into(),
        device: "none".into(),
        threads: 1,
        world_size: 1,
        is_shard_alone: false,
        block_size: BLOCK_SIZE,
        startup: Vec::new(),
        ceilings: Ceilings {
            read_bytes_per_s: 1e9,
            flops_per_s: 1e9,
            flops_of: Flops::F32,
        },
    }
}

#[test]
fn batches_go_on_as_far_as_their_blocks_go() {
    let mut witness = Witness::default();
    let measured = run(&mut witness).unwrap();
    let running = |step: &MeasuredStep| step.running.map(|running| running.steps);
    // Of 41 tokens, blocks of 16 have 48; of 201, 208.
    let steps: Vec<_> = measured.iter().map(running).collect();
    assert_eq!(steps[..4], [Some(8), Some(8), Some(8), Some(8)]);
    assert!(steps[4..].iter().all(Option::is_none), "prompts do not");
    let expected: Vec<_> = (0..8).map(|step| (3, 200 + step, step)).collect();
    assert_eq!(witness.ran[24..], expected);
}

#[test]
fn every_step_of_the_grid_is_measured_after_one_that_is_not() {
    let mut witness = Witness::default();
    let measured = run(&mut witness).unwrap();
    let steps: Vec<_> = measured.iter().map(|measured| measured.step).collect();
    assert_eq!(steps, grid().steps());
    assert!(measured.iter().all(|measured| measured.seconds.len() == 2));
    let expected: Vec<_> = grid()
        .steps()
        .into_iter()
        .map(|step| match step {
            Step::Decode { batch, context } => (batch, 1, context),
            Step::Prefill { chunk, context } => (1, chunk, context),
        })
        .flat_map(|step| [step; 3])
        .collect();
    assert_eq!(witness.sampled, expected);
}

#[test]
fn progress_counts_every_step_and_can_stop_them() {
    let mut seen = Vec::new();
    let mut witness = Witness::default();
    let mut watch = |progress: Progress| {
        seen.push(progress);
        ControlFlow::Continue(())
    };
    measure(
        &mut witness,
        &config(),
        Dtype::F32,
        BLOCK_SIZE,
        &grid(),
        &mut watch,
    )
    .unwrap();
    // Steps of batches that go on are too short to tell of.
    let told = witness.steps - witness.ran.len();
    assert!(seen.iter().map(|progress| progress.done).eq(0..told));
    assert!(seen.iter().all(|progress| progress.total == told));

    let mut witness = Witness::default();
    let mut watch = |progress: Progress| match progress.done {
        9 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let stopped = measure(
        &mut witness,
        &config(),
        Dtype::F32,
        BLOCK_SIZE,
        &grid(),
        &mut watch,
    );
    assert!(matches!(stopped, Err(BenchError::Stopped)));
    assert_eq!(witness.steps, 9);
}

#[test]
fn an_engine_that_fails_or_forgets_is_told() {
    let mut witness = Witness {
        fails_after: Some(12),
        ..Witness::default()
    };
    let error = run(&mut witness).unwrap_err();
    assert_eq!(error.to_string(), "a step failed: out of order");
    let mut witness = Witness {
        forgets: true,
        ..Witness::default()
    };
    let error = run(&mut witness).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the engine sampled 0 tokens in a step of 1 sequences"
    );
}

#[test]
fn a_record_has_every_step_with_its_work() {
    let steps = run(&mut Witness::default()).unwrap();
    let record = record(&facts(), &steps, None);
    assert_eq!((record.decode.len(), record.prefill.len()), (4, 6));
    let step = &record.decode[3];
    assert_eq!((step.batch, step.context, step.figures.tokens), (3, 200, 3));
    let work = cost::work(&config(), 1, facts().formats, steps[3].step);
    assert_eq!(
        (step.figures.bytes, step.figures.flops),
        (work.bytes, work.flops)
    );
    assert_eq!(record.engine.dtype, "f32");
}

#[test]
fn what_was_measured_is_a_profile() {
    let steps = run(&mut Witness::default()).unwrap();
    let table = profile(&facts(), &steps).unwrap();
    assert_eq!(table.decode[3].past_tokens, 600);
    assert_eq!(table.prefill[5].past_tokens, 200);
    let profile = Profile::new(&table, 3).unwrap();
    assert!(profile.decode(2, 300).at(300) > 0);
}

#[test]
fn whole_requests_are_counted_with_what_they_wait_for() {
    let sizes = RequestSizes {
        batch: 4,
        prompt_tokens: 20,
        output_tokens: 6,
    };
    let limits = Limits {
        block_size: BLOCK_SIZE,
        num_blocks: sizes.num_blocks(BLOCK_SIZE),
        max_num_seqs: 4,
        max_batched_tokens: 64,
        max_model_len: 32,
        max_loras: 0,
        max_lora_rank: 0,
    };
    assert_eq!(limits.num_blocks, 8);
    let measured = measure_requests(Box::new(Steady), limits, 320, sizes).unwrap();
    assert!(measured.steps >= 6, "{measured:?}");
    assert!(measured.step_seconds >= 6.0 * STEADY.as_secs_f64());
    assert!(measured.wall_seconds >= measured.step_seconds * 0.99);
    assert!((0.0..1.0).contains(&measured.outside_share));
    let tokens = measured.output_tokens_per_s * measured.wall_seconds;
    assert!((tokens - 24.0).abs() < 1e-6, "{measured:?}");
}

const STEADY: Duration = Duration::from_millis(2);

/// Takes as long for every step.
struct Steady;

impl Backend for Steady {
    fn step(&mut self, step: &StepInput<'_>) -> Result<Vec<RowOutput>, StepError> {
        std::thread::sleep(STEADY);
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
