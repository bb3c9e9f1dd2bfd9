//! Whole models on a GPU: a real one where one is, else the same kernels on a CPU.
//!
//! `$FORESAIL_TEST_GPU` is `hardware`, `software` or `none`, as for the tests of
//! kernels; without a C++ compiler and a GPU they are skipped, loudly.

use std::collections::HashMap;
use std::env;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foresail_engine::comm::Comm;
use foresail_engine::cuda::gpu::Gpu;
use foresail_engine::cuda::hardware::Hardware;
use foresail_engine::cuda::ops::CudaOps;
use foresail_engine::cuda::software::{Options, Software};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::devices::{Device, Reference, Setting, Shaken};
use crate::equality::{Dealer, start};
use crate::hf_golden;
use crate::random_model::{RandomModel, TOKENS_MAX, for_gpus, models, models_for_ranks};
use crate::sequences::{Logits, Sequence, advance};
use crate::world::World;

/// What logits of most models may differ by, root mean square over root mean square: activations are rounded to bf16
/// (by 2^-8 at most) after every operation, and not in the slow clear form. A column too many in one norm makes it 0.1.
const DIFFERENCE_MAX: f64 = 0.03;

/// What logits may differ by over what [`Shaken`] ones do, of models that make more of rounding than most. Of 300 random
/// ones half differ by 0.6 of it, 95 % by less than 0.8, and one of 900 sequences by 1.9.
const DIFFERENCE_OVER_SHAKEN_MAX: f64 = 2.5;

/// By how many seeds models are shaken.
const SHAKES: u64 = 4;

/// One GPU a rank, which its rank takes when it opens.
#[derive(Clone, Copy, Debug)]
struct OnGpus(usize);

/// Those of a world, each until its rank takes it.
type Worlds = HashMap<usize, Vec<Option<Box<dyn Gpu>>>>;

/// The GPUs of every [`OnGpus`], until they are taken.
static GPUS: Mutex<Option<Worlds>> = Mutex::new(None);
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl OnGpus {
    /// GPUs for so many ranks; `None` if there are none, which was said.
    fn open(ranks: usize, seed: u64) -> Option<Self> {
        let gpus = match env::var("FORESAIL_TEST_GPU").as_deref() {
            Ok("hardware") => hardware(ranks)?,
            Ok("software") => software(ranks, seed).expect("a software device"),
            Ok("none") => return skipped("$FORESAIL_TEST_GPU is none"),
            _ if Hardware::count().is_ok() => hardware(ranks)?,
            _ => match software(ranks, seed) {
                Ok(gpus) => gpus,
                Err(error) => return skipped(&error.to_string()),
            },
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut all = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
        let gpus = gpus.into_iter().map(Some).collect();
        all.get_or_insert_default().insert(number, gpus);
        Some(Self(number))
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    // Not a macro that prints: those are held back while tests pass.
    let _ = writeln!(std::io::stderr(), "SKIPPED: no GPU for a model: {why}");
    None
}

fn hardware(ranks: usize) -> Option<Vec<Box<dyn Gpu>>> {
    let count = Hardware::count().expect("a GPU") as usize;
    if ranks > count {
        return skipped(&format!("{ranks} ranks on {count} GPUs"));
    }
    if ranks == 1 {
        return Some(vec![Box::new(Hardware::open(0).expect("a GPU"))]);
    }
    let ordinals: Vec<_> = (0..ranks as u32).collect();
    let gpus = Hardware::group(&ordinals).expect("a group");
    Some(
        gpus.into_iter()
            .map(|gpu| Box::new(gpu) as Box<dyn Gpu>)
            .collect(),
    )
}

fn software(
    ranks: usize,
    seed: u64,
) -> Result<Vec<Box<dyn Gpu>>, foresail_engine::cuda::gpu::GpuError> {
    let options = Options {
        seed,
        ..Options::default()
    };
    if ranks == 1 {
        return Ok(vec![Box::new(Software::with(options)?)]);
    }
    let gpus = Software::group(ranks, &options)?;
    Ok(gpus
        .into_iter()
        .map(|gpu| Box::new(gpu) as Box<dyn Gpu>)
        .collect())
}

impl Device for OnGpus {
    type Ops = CudaOps;

    fn open(self, setting: &Setting, comm: Box<dyn Comm>) -> CudaOps {
        let rank = comm.partition().rank;
        let gpu = {
            let mut all = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
            let gpus = all.as_mut().and_then(|all| all.get_mut(&self.0));
            gpus.expect("they were opened")[rank].take()
        };
        let gpu = gpu.expect("a world takes each GPU once");
        CudaOps::new(gpu, Arc::clone(&setting.config), setting.limits, &*comm)
            .expect("a small model fits")
    }
}

/// How many random models: a GPU takes milliseconds for one.
fn cases() -> u32 {
    if Hardware::count().is_ok() { 64 } else { 6 }
}

fn check<S: Strategy>(strategy: S, property: impl Fn(S::Value)) {
    let config = Config {
        failure_persistence: None,
        // A failing case is small as it is, and each takes seconds on the software device.
        max_shrink_iters: 20,
        ..Config::with_cases(cases())
    };
    let result = TestRunner::new(config).run(&strategy, |value| {
        property(value);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// How far two sequences' logits are from each other, as a share of how large they are.
fn difference(one: &Logits, other: &Logits) -> f64 {
    assert_eq!(one.len(), other.len());
    let (mut apart, mut whole) = (0.0, 0.0);
    for (a, b) in one.iter().flatten().zip(other.iter().flatten()) {
        assert!(a.is_finite() && b.is_finite(), "{a} and {b}");
        apart += f64::from(a - b).powi(2);
        whole += f64::from(*b).powi(2);
    }
    (apart / whole).sqrt()
}

/// Asserts that what a GPU found is near to what the slow clear form says, as far as bf16 lets it.
fn assert_near(found: &[Sequence], model: &RandomModel, lens: [usize; 3], order: u64) {
    let clear = computed(&mut start(Reference, model, 1), model, lens, order);
    let differences = |others: &[Sequence]| -> Vec<f64> {
        let pairs = others.iter().zip(&clear);
        pairs
            .map(|(other, clear)| difference(&other.logits, &clear.logits))
            .collect()
    };
    let found = differences(found);
    if found.iter().all(|difference| *difference <= DIFFERENCE_MAX) {
        return;
    }
    let shaken: Vec<_> = (0..SHAKES)
        .map(|seed| {
            let mut world = start(Shaken(seed), model, 1);
            differences(&computed(&mut world, model, lens, order))
        })
        .collect();
    for (index, found) in found.iter().enumerate() {
        let squares: f64 = shaken.iter().map(|shaken| shaken[index].powi(2)).sum();
        let shaken = (squares / SHAKES as f64).sqrt();
        assert!(
            *found <= DIFFERENCE_MAX.max(DIFFERENCE_OVER_SHAKEN_MAX * shaken),
            "{found} off, and {shaken} when shaken"
        );
    }
}

/// Three sequences, two of them with an adapter: chunks of prompts beside single tokens, then single tokens
/// of all, so often that the step is recorded and replayed.
fn computed(world: &mut World, model: &RandomModel, lens: [usize; 3], order: u64) -> Vec<Sequence> {
    world.load_adapter(0, &model.adapter(0));
    world.load_adapter(1, &model.adapter(1));
    let mut dealer = Dealer::new(model, order);
    let sequences = (0..3).map(|index| {
        let tokens = model.tokens(index, lens[index]);
        let table = dealer.deal(lens[index]);
        Sequence::new(&tokens, index.checked_sub(1), table)
    });
    let mut sequences: Vec<_> = sequences.collect();
    // Each but for five tokens, the second in two pieces.
    let [first, second, third] = &mut sequences[..] else {
        unreachable!("there are three");
    };
    let (a, b, c) = (first.left() - 5, second.left() - 5, third.left() - 5);
    advance(world, &mut [(second, b / 2 + 1)]);
    advance(world, &mut [(first, a), (third, c)]);
    let left = second.left() - 5;
    if left > 0 {
        advance(world, &mut [(first, 1), (second, left)]);
    }
    for _ in 0..4 {
        // One alone, then all: batches of two kinds.
        advance(world, &mut [(third, 1)]);
        advance(world, &mut [(second, 1)]);
        if first.left() > 0 {
            advance(world, &mut [(first, 1)]);
        }
    }
    for sequence in &sequences {
        assert!(sequence.left() <= 1);
    }
    sequences
}

#[test]
fn golden_models_on_a_gpu_are_those_of_transformers() {
    if OnGpus::open(1, 0).is_some() {
        hf_golden::bf16(AnyGpu);
    }
}

/// A GPU that is opened when it is needed: for worlds of one rank that follow each other.
#[derive(Clone, Copy, Debug)]
struct AnyGpu;

impl Device for AnyGpu {
    type Ops = CudaOps;

    fn open(self, setting: &Setting, comm: Box<dyn Comm>) -> CudaOps {
        let device = OnGpus::open(1, 0).expect("there was one before");
        device.open(setting, comm)
    }
}

#[test]
fn any_model_on_a_gpu_is_near_its_slow_clear_form() {
    if OnGpus::open(1, 0).is_none() {
        return;
    }
    let lens = [6..=TOKENS_MAX, 6..=TOKENS_MAX, 6..=TOKENS_MAX];
    check(
        (for_gpus(models()), lens, any::<u64>()),
        |(model, lens, order)| {
            let device = OnGpus::open(1, order % 4).expect("there was one before");
            let mut world = start(device, &model, 1);
            let found = computed(&mut world, &model, lens, order);
            assert_near(&found, &model, lens, order);
        },
    );
}

#[test]
fn ranks_on_gpus_are_together_what_one_is() {
    if OnGpus::open(2, 0).is_none() {
        return;
    }
    let lens = [6_usize..=40, 6..=40, 6..=40];
    check(
        (for_gpus(models_for_ranks()), lens, any::<u64>()),
        |(model, lens, order)| {
            let device = OnGpus::open(2, order % 4).expect("there were two before");
            let mut world = start(device, &model, 2);
            let found = computed(&mut world, &model, lens, order);
            assert_near(&found, &model, lens, order);
        },
    );
}

#[test]
fn the_same_twice_is_the_same_to_the_last_bit() {
    if OnGpus::open(1, 0).is_none() {
        return;
    }
    check((for_gpus(models()), any::<u64>()), |(model, order)| {
        let once = |seed| {
            let device = OnGpus::open(1, seed).expect("there was one before");
            computed(&mut start(device, &model, 1), &model, [30, 17, 64], order)
        };
        // Threads run in another order, and copies arrive at other times.
        for (one, other) in once(0).iter().zip(&once(3)) {
            assert!(one.logits == other.logits);
        }
    });
}
