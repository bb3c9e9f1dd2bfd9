//! Drives a backend through the steps of a grid.
//!
//! Each sequence has KV blocks of its own, dealt in turn as they are to
//! sequences that grow together, so that nothing is read twice from a cache
//! that a real batch would not share. Their memory is written first: see `pages`.

use std::ops::ControlFlow;
use std::time::Instant;

use foresail_core::batching::BlockId;
use foresail_core::step_time::{Chunk, StepLoad};

use super::grid::{Grid, Step};
use super::pages;
use crate::backend::{Backend, Row, RowOutput, StepError, StepInput};
use crate::config::{Dtype, ModelConfig};
use crate::driver::StartError;
use crate::generation::{GenerationError, Refusal};
use crate::sampling::{Context, Sampling};

/// Most decode steps that are measured one after the other.
const RUNNING_STEPS_MAX: usize = 32;

/// A step and how long each repeat of it took.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredStep {
    /// The step.
    pub step: Step,
    /// The duration of each repeat, in order (s).
    pub seconds: Vec<f64>,
    /// Steps of the same batch that follow each other, if it decodes.
    pub running: Option<Running>,
}

/// Decode steps that follow each other, each a token further, as a batch really goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Running {
    /// How many.
    pub steps: usize,
    /// What one took on average, from its call to the next one's (s).
    pub seconds_mean: f64,
    /// The share of the time in which the device did not compute, if it keeps count.
    pub idle_share: Option<f64>,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Steps computed.
    pub done: usize,
    /// Steps to compute.
    pub total: usize,
    /// What is being measured; `None` while contexts are filled.
    pub step: Option<Step>,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The engine could not compute a step.
    #[error("a step failed: {0}")]
    Step(#[from] StepError),
    /// The engine did not do what it was asked to.
    #[error("the engine sampled {sampled} tokens in a step of {sequences} sequences")]
    Rows {
        /// Tokens that were sampled.
        sampled: usize,
        /// Sequences that were due one.
        sequences: usize,
    },
    /// The driver did something else than what it was brought to.
    #[error("the driver computed something else than was to be measured: {0}")]
    Unplanned(String),
    /// There is no time to measure every step even once.
    #[error(
        "the budget of {budget_s:.1} s is too small: one round of the grid takes about {round_s:.1} s, after {before_s:.1} s of \
         warming up, and a step has to be measured in six rounds or more, for which {:.0} s would do",
        before_s + 6.0 * round_s
    )]
    Budget {
        /// What there was (s).
        budget_s: f64,
        /// What a round takes (s).
        round_s: f64,
        /// What comes before the first (s).
        before_s: f64,
    },
    /// The driver does not run on this engine.
    #[error("the driver does not start: {0}")]
    Driver(#[from] StartError),
    /// The driver takes no request that was made for it.
    #[error("a request was refused: {0}")]
    Refused(#[from] Refusal),
    /// A request came to nothing.
    #[error("a request failed: {0}")]
    Failed(#[from] GenerationError),
    /// It was asked to stop.
    #[error("the measurement was stopped")]
    Stopped,
}

/// Measures every step of a grid on a backend with [room](Grid::room) for it.
/// Each is computed once before it is timed. `watch` is told before every step,
/// and can stop the measurement.
///
/// # Errors
/// If a step fails, or `watch` says so.
pub fn measure(
    backend: &mut dyn Backend,
    config: &ModelConfig,
    kv_dtype: Dtype,
    block_size: usize,
    grid: &Grid,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<MeasuredStep>, BenchError> {
    let stride = pages::stride(config, kv_dtype);
    let fills = grid.context_max().div_ceil(stride);
    let total = steps_total(config, kv_dtype, grid, backend.warm_up_steps());
    // From here on it keeps count.
    let _ = backend.take_busy_seconds();
    let mut bench = Bench {
        backend,
        sequences: Sequences::new(config, block_size, grid),
        watch,
        progress: Progress {
            done: 0,
            total,
            step: None,
        },
    };
    for fill in 0..fills {
        bench.fill(fill * stride)?;
    }
    let steps = grid.steps().into_iter();
    steps
        .map(|step| bench.measure(step, grid.repeats()))
        .collect()
}

/// How many steps [`measure`] tells of: to fill contexts, and each of the grid
/// as often as it is timed, after so many that are not.
#[must_use]
pub fn steps_total(
    config: &ModelConfig,
    kv_dtype: Dtype,
    grid: &Grid,
    warm_up_steps: usize,
) -> usize {
    let fills = grid.context_max().div_ceil(pages::stride(config, kv_dtype));
    fills + grid.steps().len() * (warm_up_steps + grid.repeats())
}

/// The sequences that steps are made of.
struct Sequences {
    block_size: usize,
    /// The tokens of each: they are alike, as what is read does not depend on them.
    tokens: Vec<u32>,
    /// The blocks of each sequence that decodes.
    tables: Vec<Vec<BlockId>>,
    /// The blocks of the prompt whose chunks are measured: those of the first sequence, then others.
    prompt_table: Vec<BlockId>,
    sampling: Sampling,
}

impl Sequences {
    fn new(config: &ModelConfig, block_size: usize, grid: &Grid) -> Self {
        let room = grid.room(block_size);
        let batch = grid.batch_max();
        let table_len = (grid.context_max() + 1).div_ceil(block_size);
        let table = |sequence| {
            let blocks = (0..table_len).map(|place| (place * batch + sequence) as BlockId);
            blocks.collect::<Vec<_>>()
        };
        let tables: Vec<_> = (0..batch).map(table).collect();
        let others = (0..room.num_blocks as BlockId).filter(|block| !tables[0].contains(block));
        let prompt_table = tables[0].iter().copied().chain(others).collect();
        // Rows of the embedding that are far from each other.
        let token = |place: usize| (place * 7919 % config.vocab_size) as u32;
        Self {
            block_size,
            tokens: (0..room.max_model_len).map(token).collect(),
            tables,
            prompt_table,
            sampling: Sampling {
                temperature: 0.0,
                ..Sampling::default()
            },
        }
    }

    /// A sequence that computes its last known tokens and samples the next, greedily.
    fn row<'a>(&'a self, table: &'a [BlockId], past: usize, len: usize) -> Row<'a> {
        let known = &self.tokens[..past + len];
        self.row_of(known, known.len(), table, len)
    }

    /// How many tokens a sequence of so many has blocks for, and places.
    fn room(&self, context: usize) -> usize {
        let blocks = self.tables[0].len() * self.block_size;
        // Blocks that a longer context has would do, but then it would not be its own that are measured.
        let own = (context + 1).next_multiple_of(self.block_size);
        blocks
            .min(own)
            .min(self.tokens.len())
            .saturating_sub(context)
    }

    /// The same of a sequence with these tokens, of which so many are its prompt.
    fn row_of<'a>(
        &'a self,
        known: &'a [u32],
        prompt: usize,
        table: &'a [BlockId],
        len: usize,
    ) -> Row<'a> {
        let past = known.len() - len;
        Row {
            known,
            past,
            len,
            table,
            adapter: None,
            prompt_logprobs: None,
            sample: Some(Context {
                sampling: &self.sampling,
                prompt: &known[..prompt],
                generated: &known[prompt..],
                banned: &[],
            }),
        }
    }
}

/// A measurement that is under way.
struct Bench<'a> {
    backend: &'a mut dyn Backend,
    sequences: Sequences,
    watch: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    progress: Progress,
}

impl Bench<'_> {
    fn tell(&mut self) -> Result<(), BenchError> {
        if (self.watch)(self.progress).is_break() {
            return Err(BenchError::Stopped);
        }
        self.progress.done += 1;
        Ok(())
    }

    /// Computes the token at a position of every sequence.
    fn fill(&mut self, position: usize) -> Result<(), BenchError> {
        self.tell()?;
        let Sequences { tokens, tables, .. } = &self.sequences;
        pages::write(self.backend, tables, tokens, position)?;
        Ok(())
    }

    fn measure(&mut self, step: Step, repeats: usize) -> Result<MeasuredStep, BenchError> {
        self.progress.step = Some(step);
        // The first are to bring pages and caches to where they are in a run.
        for _ in 0..self.backend.warm_up_steps() {
            self.tell()?;
            self.time(step)?;
        }
        let mut seconds = Vec::with_capacity(repeats);
        for _ in 0..repeats {
            self.tell()?;
            seconds.push(self.time(step)?);
        }
        let running = match step {
            Step::Decode { batch, context } => self.run(batch, context)?,
            Step::Prefill { .. } => None,
        };
        Ok(MeasuredStep {
            step,
            seconds,
            running,
        })
    }

    /// Decodes step after step, as far as the sequences' blocks go; `None` if that is not far.
    fn run(&mut self, batch: usize, context: usize) -> Result<Option<Running>, BenchError> {
        let sequences = &self.sequences;
        let steps = sequences.room(context).min(RUNNING_STEPS_MAX);
        if steps < 2 {
            return Ok(None);
        }
        let mut texts = vec![sequences.tokens[..=context].to_vec(); batch];
        let _ = self.backend.take_busy_seconds();
        let began = Instant::now();
        for step in 0..steps {
            let rows = texts.iter().zip(&sequences.tables);
            let rows = rows.map(|(known, table)| sequences.row_of(known, context + 1, table, 1));
            let input = StepInput {
                load: StepLoad {
                    decodes: batch as u32,
                    decode_past: (batch * (context + step)) as u64,
                    chunks: &[],
                },
                adapters: 0,
                continues: true,
                ahead: (steps - 1 - step) as u32,
                rows: rows.collect(),
            };
            let outputs = self.backend.step(&input)?;
            let sampled = outputs.iter().filter_map(|output| output.sampled.as_ref());
            let tokens: Vec<u32> = sampled.map(|sampled| sampled.token).collect();
            if tokens.len() != batch {
                return Err(BenchError::Rows {
                    sampled: tokens.len(),
                    sequences: batch,
                });
            }
            for (text, token) in texts.iter_mut().zip(tokens) {
                text.push(token);
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let busy = self.backend.take_busy_seconds();
        Ok(Some(Running {
            steps,
            seconds_mean: seconds / steps as f64,
            idle_share: busy.map(|busy| (1.0 - busy / seconds).max(0.0)),
        }))
    }

    /// Computes a step, and says how long it took (s).
    fn time(&mut self, step: Step) -> Result<f64, BenchError> {
        let sequences = &self.sequences;
        match step {
            Step::Decode { batch, context } => {
                let tables = sequences.tables[..batch].iter();
                let rows = tables.map(|table| sequences.row(table, context, 1));
                let load = StepLoad {
                    decodes: batch as u32,
                    decode_past: (batch * context) as u64,
                    chunks: &[],
                };
                timed(self.backend, load, rows.collect())
            }
            Step::Prefill { chunk, context } => {
                let row = sequences.row(&sequences.prompt_table, context, chunk);
                let chunks = [Chunk {
                    past: context as u32,
                    len: chunk as u32,
                    sample: true,
                }];
                let load = StepLoad {
                    decodes: 0,
                    decode_past: 0,
                    chunks: &chunks,
                };
                timed(self.backend, load, vec![row])
            }
        }
    }
}

fn timed(
    backend: &mut dyn Backend,
    load: StepLoad<'_>,
    rows: Vec<Row<'_>>,
) -> Result<f64, BenchError> {
    let sequences = rows.len();
    let input = StepInput {
        load,
        adapters: 0,
        continues: true,
        ahead: 0,
        rows,
    };
    let began = Instant::now();
    let outputs = backend.step(&input)?;
    let seconds = began.elapsed().as_secs_f64();
    let has_token = |output: &&RowOutput| output.sampled.is_some();
    let sampled = outputs.iter().filter(has_token).count();
    if sampled != sequences {
        return Err(BenchError::Rows { sampled, sequences });
    }
    Ok(seconds)
}
