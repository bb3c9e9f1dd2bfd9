//! Steps of a replica on a GPU: tokens sampled there, steps that are begun before they are asked for, and what
//! goes wrong. On the software device: faults are planned, so no GPU is needed, and none would do as it is told.

use std::io::Write as _;
use std::sync::Arc;

use foresail_core::batching::BlockId;
use foresail_core::step_time::StepLoad;
use foresail_engine::backend::{Backend, Limits, Row, RowOutput, StepError, StepInput};
use foresail_engine::checkpoint::{Checkpoint, WeightFormat};
use foresail_engine::cuda::gpu::GpuError;
use foresail_engine::cuda::ops::CudaOps;
use foresail_engine::cuda::software::{Fault, Occasion, Software};
use foresail_engine::model::Model;
use foresail_engine::ops::Ops as _;
use foresail_engine::ranks::{Rank, RankBackend, World};
use foresail_engine::sampling::{Context, Sampling};
use foresail_engine::startup::StartError;

const LIMITS: Limits = Limits {
    block_size: 16,
    num_blocks: 32,
    max_num_seqs: 4,
    max_batched_tokens: 64,
    max_model_len: 64,
    max_loras: 0,
    max_lora_rank: 8,
};

/// A small model on a device that goes wrong as planned; `None` without a C++ compiler, which was said.
fn backend(faults: Vec<Fault>) -> Option<Result<RankBackend<CudaOps>, StartError>> {
    let mut gpu = match Software::open() {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            // Not a macro that prints: those are held back while tests pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED: no software GPU: {error}");
            return None;
        }
    }?;
    for fault in faults {
        gpu.plan_fault(fault);
    }
    let checkpoint = Checkpoint::dummy("tiny", 7).unwrap();
    let config = Arc::new(checkpoint.config().clone());
    let (of_rank, gpu) = (Arc::clone(&config), std::sync::Mutex::new(Some(gpu)));
    let make = move |comm: Box<dyn foresail_engine::comm::Comm>| {
        let gpu = gpu.lock().unwrap().take().expect("one rank");
        let mut ops = CudaOps::new(Box::new(gpu), Arc::clone(&of_rank), LIMITS, &*comm)?;
        let partition = comm.partition();
        let weights =
            checkpoint.load(partition, WeightFormat::Bf16, |it, role| ops.pack(it, role))?;
        let model = Model::new(&mut ops, &of_rank, partition, weights);
        Ok(Rank { ops, model })
    };
    let started = RankBackend::start(World::Ranks(1), config, LIMITS, make);
    Some(started.map_err(StartError::from))
}

fn healthy() -> Option<RankBackend<CudaOps>> {
    backend(Vec::new()).map(|backend| backend.expect("it starts"))
}

/// A request that runs.
#[derive(Clone)]
struct Text {
    known: Vec<u32>,
    prompt: usize,
    past: usize,
    table: Vec<BlockId>,
    sampling: Sampling,
    told: Vec<RowOutput>,
}

impl Text {
    fn new(place: usize, prompt: usize, sampling: Sampling) -> Self {
        let blocks = LIMITS.max_model_len / LIMITS.block_size;
        Self {
            known: (0..prompt)
                .map(|token| (7 * token + place) as u32 % 90)
                .collect(),
            prompt,
            past: 0,
            table: (place * blocks..(place + 1) * blocks)
                .map(|block| block as BlockId)
                .collect(),
            sampling,
            told: Vec::new(),
        }
    }

    fn row(&self) -> Row<'_> {
        let (prompt, generated) = self.known.split_at(self.prompt);
        Row {
            known: &self.known,
            past: self.past,
            len: self.known.len() - self.past,
            table: &self.table,
            adapter: None,
            prompt_logprobs: None,
            sample: Some(Context {
                sampling: &self.sampling,
                prompt,
                generated,
                banned: &[],
            }),
        }
    }

    /// Whether its next step is one token.
    fn decodes(&self) -> bool {
        self.known.len() - self.past == 1
    }
}

/// Computes a step of these texts, promising as much as a driver would, or nothing.
fn step(
    backend: &mut dyn Backend,
    texts: &mut [&mut Text],
    promises: bool,
) -> Result<(), StepError> {
    let room = |text: &&mut Text| LIMITS.block_size - 1 - text.past % LIMITS.block_size;
    let ahead = match promises && texts.iter().all(|text| text.decodes()) {
        true => texts.iter().map(room).min().unwrap_or(0) as u32,
        false => 0,
    };
    let outputs = backend.step(&StepInput {
        load: StepLoad {
            decodes: 0,
            decode_past: 0,
            chunks: &[],
        },
        adapters: 0,
        continues: true,
        ahead,
        rows: texts.iter().map(|text| text.row()).collect(),
    })?;
    for (text, output) in texts.iter_mut().zip(outputs) {
        text.past = text.known.len();
        text.known
            .push(output.sampled.as_ref().expect("a token").token);
        text.told.push(output);
    }
    Ok(())
}

/// Three texts, of which one leaves early and comes back, as a batch that changes does.
fn story(backend: &mut dyn Backend, promises: bool) -> Vec<Vec<RowOutput>> {
    let drawn = Sampling {
        temperature: 0.9,
        top_p: 0.9,
        seed: 11,
        ..Sampling::default()
    };
    let penalised = Sampling {
        temperature: 0.7,
        repetition_penalty: 1.3,
        frequency_penalty: 0.4,
        logprobs: Some(3),
        seed: 5,
        ..Sampling::default()
    };
    let greedy = Sampling {
        temperature: 0.0,
        ..Sampling::default()
    };
    let mut texts = [
        Text::new(0, 5, greedy),
        Text::new(1, 9, drawn),
        Text::new(2, 14, penalised),
    ];
    let [a, b, c] = &mut texts;
    step(backend, &mut [a, b], promises).unwrap();
    for _ in 0..9 {
        step(backend, &mut [a, b], promises).unwrap();
    }
    // A prompt comes in between.
    step(backend, &mut [a, b, c], promises).unwrap();
    for _ in 0..12 {
        step(backend, &mut [a, b, c], promises).unwrap();
    }
    // One waits, and goes on later.
    for _ in 0..6 {
        step(backend, &mut [a, c], promises).unwrap();
    }
    for _ in 0..6 {
        step(backend, &mut [b], promises).unwrap();
    }
    texts.map(|text| text.told).to_vec()
}

#[test]
fn steps_that_were_begun_ahead_are_those_that_would_have_been() {
    let (Some(mut waits), Some(mut runs)) = (healthy(), healthy()) else {
        return;
    };
    let expected = story(&mut waits, false);
    let found = story(&mut runs, true);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(
        expected[2][0]
            .sampled
            .as_ref()
            .unwrap()
            .logprobs
            .as_ref()
            .unwrap()
            .top
            .len(),
        3
    );
}

#[test]
fn a_kernel_that_does_not_compile_is_said_and_nothing_starts() {
    let fault = Fault {
        occasion: Occasion::Compilation,
        after: 3,
        error: GpuError::Compile {
            file: "norm.cu".to_owned(),
            log: "error: no such thing".to_owned(),
        },
    };
    let Some(started) = backend(vec![fault]) else {
        return;
    };
    let error = started.err().expect("it does not start").to_string();
    assert!(
        error.contains("norm.cu does not compile") && error.contains("no such thing"),
        "{error}"
    );
}

#[test]
fn too_little_memory_is_said_with_what_is_free() {
    let fault = Fault {
        occasion: Occasion::Allocation,
        after: 5,
        error: GpuError::OutOfMemory {
            asked: 1000,
            free: 10,
        },
    };
    let Some(started) = backend(vec![fault]) else {
        return;
    };
    let error = started.err().expect("it does not start").to_string();
    assert!(
        error.contains("1000 bytes") && error.contains("only 10"),
        "{error}"
    );
}

/// The launches of a start and of some steps, after which something goes wrong.
const LAUNCHES_BEFORE: u64 = 60;

#[test]
fn a_launch_that_fails_costs_a_step_and_the_next_one_succeeds() {
    let fault = Fault {
        occasion: Occasion::Launch,
        after: LAUNCHES_BEFORE,
        error: GpuError::Call {
            what: "a launch",
            why: "out of luck".to_owned(),
        },
    };
    let (Some(started), Some(mut healthy)) = (backend(vec![fault]), healthy()) else {
        return;
    };
    let mut unlucky = started.expect("it starts");
    let mut text = Text::new(0, 20, Sampling::default());
    let mut failures = 0;
    // What failed is begun anew, as the driver does it.
    while text.told.len() < 12 {
        if let Err(StepError(reason)) = step(&mut unlucky, &mut [&mut text], true) {
            assert!(reason.contains("out of luck"), "{reason}");
            assert!(!unlucky.is_lost());
            failures += 1;
            text = Text::new(0, 20, Sampling::default());
        }
    }
    assert_eq!(failures, 1);
    let mut expected = Text::new(0, 20, Sampling::default());
    while expected.told.len() < 12 {
        step(&mut healthy, &mut [&mut expected], true).unwrap();
    }
    assert_eq!(text.told, expected.told);
}

#[test]
fn a_gpu_that_is_lost_fails_every_step_from_then_on_at_once() {
    let fault = Fault {
        occasion: Occasion::Launch,
        after: LAUNCHES_BEFORE,
        error: GpuError::Lost("an illegal address".to_owned()),
    };
    let Some(started) = backend(vec![fault]) else {
        return;
    };
    let mut backend = started.expect("it starts");
    let mut text = Text::new(0, 20, Sampling::default());
    let failed = loop {
        if let Err(StepError(reason)) = step(&mut backend, &mut [&mut text], true) {
            break reason;
        }
        assert!(text.told.len() < 30, "nothing went wrong");
    };
    assert!(
        failed.contains("the GPU is lost: an illegal address"),
        "{failed}"
    );
    assert!(backend.is_lost());
    let mut other = Text::new(1, 5, Sampling::default());
    let again = step(&mut backend, &mut [&mut other], false);
    assert!(again.is_err() && backend.is_lost());
}
