//! A model on several ranks computes what it computes on one; adapters do what
//! PEFT does; and a rank that fails costs a step, no more.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use foresail_core::batching::BlockId;
use foresail_core::step_time::StepLoad;
use foresail_engine::adapters::{Base, load};
use foresail_engine::backend::{Backend, Limits, Row, RowOutput, StepError, StepInput};
use foresail_engine::checkpoint::{Checkpoint, CheckpointError, WeightFormat};
use foresail_engine::comm::Comm;
use foresail_engine::config::{ModelConfig, Partition};
use foresail_engine::cpu::CpuOps;
use foresail_engine::model::Model;
use foresail_engine::ops::{KvFormat, Ops};
use foresail_engine::ranks::{Rank, RankBackend, RankError, World};
use foresail_engine::reference::ReferenceOps;
use foresail_engine::sampling::{Context, Sampling};
use foresail_engine::weights::Adapter;
use serde_json::Value;

/// Long enough for the slowest machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

const LIMITS: Limits = Limits {
    block_size: 4,
    num_blocks: 128,
    max_num_seqs: 4,
    max_batched_tokens: 256,
    max_model_len: 128,
    max_loras: 2,
    max_lora_rank: 8,
};

const FAMILIES: [&str; 5] = ["llama", "llama-2", "mistral", "qwen2", "qwen3"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("goldens")
        .join(name)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Operations that a test can make.
trait Made: Ops + Send + 'static {
    fn made(config: Arc<ModelConfig>, comm: Box<dyn Comm>) -> Self;
}

impl Made for ReferenceOps {
    fn made(config: Arc<ModelConfig>, comm: Box<dyn Comm>) -> Self {
        Self::new(config, LIMITS, KvFormat::F32, comm)
    }
}

impl Made for CpuOps {
    fn made(config: Arc<ModelConfig>, comm: Box<dyn Comm>) -> Self {
        Self::new(config, LIMITS, KvFormat::F32, comm, 2).unwrap()
    }
}

/// The ranks of a golden model, each with the end of the exchange that `wrap` makes of its own.
fn backend_with<O: Made>(
    name: &str,
    world_size: usize,
    wrap: impl Fn(Box<dyn Comm>) -> Box<dyn Comm> + Send + Sync + 'static,
) -> Result<RankBackend<O>, RankError<CheckpointError>> {
    let checkpoint = Checkpoint::open(&golden(name)).unwrap();
    let config = Arc::new(checkpoint.config().clone());
    let of_ranks = Arc::clone(&config);
    RankBackend::start(World::Ranks(world_size), config, LIMITS, move |comm| {
        let partition = comm.partition();
        let mut ops = O::made(Arc::clone(&of_ranks), wrap(comm));
        let weights =
            checkpoint.load(partition, WeightFormat::F32, |it, role| ops.pack(it, role))?;
        let model = Model::new(&mut ops, &of_ranks, partition, weights);
        Ok(Rank { ops, model })
    })
}

fn backend<O: Made>(name: &str, world_size: usize) -> RankBackend<O> {
    backend_with(name, world_size, |comm| comm).unwrap()
}

/// A sequence: its tokens, and how many of them are in the KV cache.
#[derive(Clone)]
struct Sequence {
    known: Vec<u32>,
    prompt: usize,
    past: usize,
    table: Vec<BlockId>,
    adapter: Option<usize>,
}

impl Sequence {
    /// The `place`-th sequence, with blocks of its own, in no simple order.
    fn new(place: usize, prompt: &[u32], adapter: Option<usize>) -> Self {
        let blocks = LIMITS.max_model_len / LIMITS.block_size;
        let blocks = (place * blocks..(place + 1) * blocks).rev();
        Self {
            known: prompt.to_vec(),
            prompt: prompt.len(),
            past: 0,
            table: blocks.map(|block| block as BlockId).collect(),
            adapter,
        }
    }

    /// Its next tokens, of which the last is followed by one that is sampled.
    fn row<'a>(&'a self, sampling: &'a Sampling) -> Row<'a> {
        let (prompt, generated) = self.known.split_at(self.prompt);
        let sample = Context {
            sampling,
            prompt,
            generated,
            banned: &[],
        };
        Row {
            known: &self.known,
            past: self.past,
            len: self.known.len() - self.past,
            table: &self.table,
            adapter: self.adapter,
            prompt_logprobs: None,
            sample: Some(sample),
        }
    }
}

fn step(backend: &mut impl Backend, rows: Vec<Row<'_>>) -> Result<Vec<RowOutput>, StepError> {
    backend.step(&StepInput {
        load: StepLoad {
            decodes: 0,
            decode_past: 0,
            chunks: &[],
        },
        adapters: 0,
        continues: false,
        ahead: 0,
        rows,
    })
}

/// The bits of a log-probability are part of what is compared.
type Chosen = Vec<Vec<(u32, u32)>>;

/// Generates for all sequences at once; tokens, and the bits of their log-probabilities.
fn generate(backend: &mut impl Backend, sequences: &[Sequence], steps: usize) -> Chosen {
    let sampling = Sampling {
        temperature: 0.0,
        logprobs: Some(0),
        ..Sampling::default()
    };
    let mut sequences = sequences.to_vec();
    let mut chosen = vec![Vec::new(); sequences.len()];
    for _ in 0..steps {
        let rows = sequences.iter().map(|it| it.row(&sampling)).collect();
        let outputs = step(backend, rows).unwrap();
        for ((sequence, chosen), output) in sequences.iter_mut().zip(&mut chosen).zip(outputs) {
            let sampled = output.sampled.unwrap();
            chosen.push((sampled.token, sampled.logprobs.unwrap().logprob.to_bits()));
            sequence.past = sequence.known.len();
            sequence.known.push(sampled.token);
        }
    }
    chosen
}

fn tokens(chosen: &Chosen) -> Vec<Vec<u32>> {
    let tokens = |chosen: &Vec<(u32, u32)>| chosen.iter().map(|(token, _)| *token).collect();
    chosen.iter().map(tokens).collect()
}

/// The texts of a golden file, each with the log-probabilities of its tokens from the second on.
fn texts(folder: &Path) -> Vec<(Vec<u32>, Vec<f64>)> {
    let golden = json(&folder.join("golden.json"));
    let texts = golden["texts"].as_array().unwrap().iter();
    let text = |text: &Value| {
        let tokens = text["tokens"].as_array().unwrap().iter();
        let next = text["f32"]["next"].as_array().unwrap().iter();
        (
            tokens.map(|token| token.as_u64().unwrap() as u32).collect(),
            next.map(|logprob| logprob.as_f64().unwrap()).collect(),
        )
    };
    texts.map(text).collect()
}

fn generates_the_same_tokens_on_every_world_size<O: Made>()
where
    RankBackend<O>: Backend,
{
    for family in FAMILIES {
        let prompts = texts(&golden(family));
        let sequences: Vec<_> = prompts
            .iter()
            .enumerate()
            .map(|(place, (text, _))| Sequence::new(place, &text[..40], None))
            .collect();
        let alone = generate(&mut backend::<O>(family, 1), &sequences, 16);
        for world_size in [2, 4] {
            let several = generate(&mut backend::<O>(family, world_size), &sequences, 16);
            assert_eq!(
                tokens(&several),
                tokens(&alone),
                "{family}, world size {world_size}"
            );
            let again = generate(&mut backend::<O>(family, world_size), &sequences, 16);
            assert_eq!(several, again, "{family}: not the same from run to run");
            // Sums over ranks are rounded elsewhere, so the bits differ, or nothing was summed.
            assert_ne!(several, alone, "{family}: computed on one rank");
        }
    }
}

#[test]
fn every_world_size_generates_the_same_tokens() {
    generates_the_same_tokens_on_every_world_size::<CpuOps>();
    generates_the_same_tokens_on_every_world_size::<ReferenceOps>();
}

#[test]
fn a_world_that_a_model_cannot_be_split_over_is_refused() {
    let error = backend_with::<CpuOps>("llama", 3, |comm| comm)
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "4 query heads cannot be split over 3 ranks; choose a world size that divides them"
    );
}

fn adapters() -> [(Adapter, PathBuf); 2] {
    let checkpoint = Checkpoint::open(&golden("llama")).unwrap();
    let base = Base {
        name: "llama",
        config: checkpoint.config(),
        rank_max: 8,
    };
    ["plain", "rslora"].map(|name| {
        let folder = golden("llama").join("adapters").join(name);
        (load(name, &folder, &base).unwrap(), folder)
    })
}

fn adapters_give_what_peft_gives<O: Made>()
where
    RankBackend<O>: Backend,
{
    let sampling = Sampling::default();
    for world_size in [1, 2, 4] {
        let mut backend = backend::<O>("llama", world_size);
        for (slot, (adapter, folder)) in adapters().iter().enumerate() {
            backend.load_adapter(slot, adapter).unwrap();
            for (text, expected) in texts(folder) {
                let sequence = Sequence::new(0, &text, Some(slot));
                let row = Row {
                    prompt_logprobs: Some(0),
                    sample: None,
                    ..sequence.row(&sampling)
                };
                let outputs = step(&mut backend, vec![row]).unwrap();
                let found = &outputs[0].prompt_logprobs;
                assert_eq!(found.len(), expected.len());
                for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert_eq!(found.token, text[place + 1]);
                    let difference = (f64::from(found.logprob) - expected).abs();
                    assert!(
                        difference < 1e-4,
                        "{} at {place}: off by {difference}",
                        adapter.name
                    );
                }
            }
        }
    }
}

#[test]
fn adapters_give_the_log_probabilities_that_peft_gives() {
    adapters_give_what_peft_gives::<CpuOps>();
    adapters_give_what_peft_gives::<ReferenceOps>();
}

#[test]
fn adapters_and_the_base_in_one_batch_are_each_as_if_alone() {
    for world_size in [1, 2] {
        let mut backend = backend::<CpuOps>("llama", world_size);
        for (slot, (adapter, _)) in adapters().iter().enumerate() {
            backend.load_adapter(slot, adapter).unwrap();
        }
        let (text, _) = &texts(&golden("llama"))[0];
        let slots = [None, Some(0), Some(1), None];
        let sequences: Vec<_> = (0..4)
            .map(|place| Sequence::new(place, &text[..20 + place], slots[place]))
            .collect();
        let together = generate(&mut backend, &sequences, 8);
        for (sequence, together) in sequences.iter().zip(&together) {
            let alone = generate(&mut backend, std::slice::from_ref(sequence), 8);
            assert_eq!(&alone[0], together);
        }
        assert_ne!(together[0], together[1]);
        // A slot that was emptied takes another adapter, and the base is the base again.
        backend.unload_adapter(0);
        let (other, _) = &adapters()[1];
        backend.load_adapter(0, other).unwrap();
        let moved = Sequence {
            adapter: Some(0),
            ..sequences[2].clone()
        };
        let moved = generate(&mut backend, &[moved], 8);
        assert_eq!(moved[0], together[2]);
    }
}

/// A rank's exchange, which fails when it is told to.
struct Failing {
    comm: Box<dyn Comm>,
    /// In which of the exchanges to come, counted down by each; of which rank.
    fails: Arc<[AtomicUsize]>,
}

impl Comm for Failing {
    fn partition(&self) -> Partition {
        self.comm.partition()
    }

    fn all_reduce(&mut self, values: &mut [f32]) {
        let left = &self.fails[self.partition().rank];
        let is_due = left.load(Ordering::SeqCst) == 1;
        let _ = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
        assert!(!is_due, "the sum is on fire");
        self.comm.all_reduce(values);
    }

    fn gather(&mut self, rows: usize, part: &[f32], whole: &mut Vec<f32>) {
        self.comm.gather(rows, part, whole);
    }
}

/// Does something that may hang on a thread of its own, and says what came of it.
fn within_patience<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("it ends with a result or a panic"),
        },
    }
}

#[test]
fn a_rank_that_panics_costs_the_step_and_nothing_after_it() {
    within_patience(|| {
        let fails: Arc<[AtomicUsize]> = (0..4).map(|_| AtomicUsize::new(0)).collect();
        let of_ranks = Arc::clone(&fails);
        let mut backend = backend_with::<CpuOps>("llama", 4, move |comm| {
            let fails = Arc::clone(&of_ranks);
            Box::new(Failing { comm, fails })
        })
        .unwrap();
        let (text, _) = &texts(&golden("llama"))[0];
        let sequence = Sequence::new(0, &text[..30], None);
        let expected = generate(&mut backend, std::slice::from_ref(&sequence), 4);
        let sampling = Sampling::default();
        for rank in 0..4 {
            for exchange in 1..=5 {
                fails[rank].store(exchange, Ordering::SeqCst);
                let error = step(&mut backend, vec![sequence.row(&sampling)]).unwrap_err();
                let reason = format!("rank {rank} failed: the sum is on fire");
                assert_eq!(error, StepError(reason));
                let after = generate(&mut backend, std::slice::from_ref(&sequence), 4);
                assert_eq!(after, expected, "after exchange {exchange} of rank {rank}");
            }
        }
        // All at once: the first is named, and the next step works again.
        fails
            .iter()
            .for_each(|left| left.store(1, Ordering::SeqCst));
        let error = step(&mut backend, vec![sequence.row(&sampling)]).unwrap_err();
        assert!(error.0.ends_with("the sum is on fire"), "{error}");
        assert_eq!(generate(&mut backend, &[sequence], 4), expected);
    });
}

#[test]
fn dropping_a_backend_ends_its_threads() {
    within_patience(|| {
        let marker = Arc::new(());
        let of_ranks = Arc::clone(&marker);
        let backend = backend_with::<CpuOps>("llama", 4, move |comm| {
            let _ = &of_ranks;
            let fails: Arc<[AtomicUsize]> = (0..4).map(|_| AtomicUsize::new(0)).collect();
            Box::new(Failing { comm, fails })
        });
        drop(backend.unwrap());
        // Whatever the ranks' threads owned, they have dropped.
        assert_eq!(Arc::strong_count(&marker), 1);
    });
}

#[test]
fn a_rank_that_cannot_be_made_ends_the_others() {
    within_patience(|| {
        let marker = Arc::new(());
        let of_ranks = Arc::clone(&marker);
        let error = backend_with::<CpuOps>("llama", 4, move |comm| {
            let _ = &of_ranks;
            assert!(comm.partition().rank != 2, "no memory");
            comm
        });
        assert_eq!(
            error.err().unwrap().to_string(),
            "rank 2 failed to start: no memory"
        );
        assert_eq!(Arc::strong_count(&marker), 1);
    });
}

#[test]
fn prompt_log_probabilities_do_not_depend_on_how_many_passes_they_take() {
    let (text, expected) = texts(&golden("llama")).pop().unwrap();
    // More rows of logits than one pass has, and a sequence that samples beside it.
    assert!(text.len() > 64);
    let mut backend = backend::<CpuOps>("llama", 2);
    let sequence = Sequence::new(0, &text, None);
    let other = Sequence::new(1, &text[..9], None);
    let sampling = Sampling {
        temperature: 0.0,
        ..Sampling::default()
    };
    let prompt = Row {
        prompt_logprobs: Some(3),
        ..sequence.row(&sampling)
    };
    let whole = step(&mut backend, vec![prompt.clone(), other.row(&sampling)]).unwrap();
    assert!(whole.iter().all(|output| output.sampled.is_some()));
    assert_eq!(whole[0].prompt_logprobs.len(), expected.len());
    for (found, expected) in whole[0].prompt_logprobs.iter().zip(&expected) {
        assert!((f64::from(found.logprob) - expected).abs() < 1e-4);
        assert_eq!(found.top.len(), 3);
    }

    let mut pieces = Vec::new();
    for (past, len) in [(0, 1), (1, 30), (31, text.len() - 31)] {
        let is_last = past + len == text.len();
        let piece = Row {
            past,
            len,
            sample: prompt.sample.filter(|_| is_last),
            ..prompt.clone()
        };
        let output = step(&mut backend, vec![piece]).unwrap().remove(0);
        assert_eq!(output.sampled.is_some(), is_last);
        pieces.extend(output.prompt_logprobs);
    }
    assert_eq!(pieces, whole[0].prompt_logprobs);
    let alone = step(&mut backend, vec![other.row(&sampling)]).unwrap();
    assert_eq!(alone[0], whole[1]);
}

#[test]
fn a_step_that_cannot_be_computed_is_refused() {
    let mut backend = backend::<CpuOps>("llama", 2);
    let (adapter, _) = &adapters()[0];
    backend.load_adapter(0, adapter).unwrap();
    let sampling = Sampling::default();
    let sequence = Sequence::new(0, &[1, 2, 3, 4, 5], None);
    let row = sequence.row(&sampling);
    let mut refused = |change: &dyn Fn(&mut Row<'_>)| {
        let mut row = row.clone();
        change(&mut row);
        step(&mut backend, vec![row]).unwrap_err().to_string()
    };
    let cases = [
        refused(&|row| row.len = 0),
        refused(&|row| row.len = 6),
        refused(&|row| (row.past, row.len) = (usize::MAX, 2)),
        refused(&|row| row.len = 4),
        refused(&|row| row.table = &[7]),
        refused(&|row| row.table = &[7, 128]),
        refused(&|row| row.known = &[1, 2, 269, 4, 5]),
        refused(&|row| row.adapter = Some(1)),
        refused(&|row| row.adapter = Some(2)),
    ];
    insta::assert_snapshot!(cases.join("\n"), @r"
    row 0 of the step: 0 tokens from 0 on, of 5 that are known, in a context of 128
    row 0 of the step: 6 tokens from 0 on, of 5 that are known, in a context of 128
    row 0 of the step: 2 tokens from 18446744073709551615 on, of 5 that are known, in a context of 128
    row 0 of the step: a token is sampled after 4 of 5 known tokens
    row 0 of the step: 1 KV blocks for 5 tokens
    row 0 of the step: KV block 128 of 128 is not there
    row 0 of the step: token 269 is not in the vocabulary of 269
    row 0 of the step: there is no adapter in slot 1
    row 0 of the step: there is no adapter in slot 2
    ");
    let five = step(&mut backend, vec![row.clone(); 5]).unwrap_err();
    assert_eq!(five.to_string(), "5 sequences in a step of at most 4");
    assert_eq!(step(&mut backend, Vec::new()), Ok(Vec::new()));
}

#[test]
fn an_adapter_that_has_no_place_is_refused() {
    let mut backend = backend::<CpuOps>("llama", 2);
    let (adapter, _) = &adapters()[0];
    backend.load_adapter(1, adapter).unwrap();
    let wide = Adapter {
        rank: 9,
        ..adapter.clone()
    };
    let mut short = adapter.clone();
    short.layers.pop();
    let cases = [
        backend.load_adapter(1, adapter),
        backend.load_adapter(2, adapter),
        backend.load_adapter(0, &wide),
        backend.load_adapter(0, &short),
    ];
    let cases = cases.map(|case| case.unwrap_err().to_string());
    insta::assert_snapshot!(cases.join("\n"), @r"
    adapter plain: slot 1 is not empty
    adapter plain: there is no slot 2, only 2
    adapter plain: its rank 9 is above the largest of 8
    adapter plain: it has 1 layers and the model has 2
    ");
    // Slots that are empty, or not there, can be emptied.
    backend.unload_adapter(0);
    backend.unload_adapter(7);
}
