//! [`CudaOps`]: the operations of one rank on a GPU.
//!
//! ```text
//! begin ── is it what was begun ahead? ── yes ──> more steps ahead, if the driver promises some
//!   │ no
//!   ├─ inputs ──> one copy to the GPU                                     pass.rs
//!   ├─ this kind of batch was recorded? ── yes ──> replay
//!   └─ no: each operation launches its kernels; end stops the recording   forward.rs
//! choose ── what was sampled on the GPU, or logits for the host           choices.rs
//! ```
//!
//! A batch of decoding sequences is padded to a [bucket](super::buckets). The first
//! of its kind is computed launch by launch, so that everything is compiled and tuned;
//! the second is recorded; from the third on a step is one replay.

mod adapters;
mod ahead;
mod attention;
mod choices;
mod forward;
mod kernels;
mod pass;
mod scratch;
mod vectors;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use self::adapters::Slots;
use self::ahead::Running;
use self::forward::Normed;
use self::kernels::Kernels;
use self::pass::{Area, Key, Pass};
use self::scratch::Scratch;
use self::vectors::Vectors;
use super::gpu::{Address, Gpu, GpuError, Mark, Reading, Recording};
use super::kernels::attention_prefill_plan::PrefillPlan;
use super::kernels::attention_shape::AttentionShape;
use super::kernels::heads::rotary_table;
use super::memory;
use crate::backend::{Limits, StepError};
use crate::comm::{Comm, Modelled};
use crate::config::{ModelConfig, Partition};

/// How the ranks of a world exchange.
enum Exchange {
    /// There is one.
    Alone,
    /// Each has a GPU, and those are a group.
    Group,
    /// There is one here, which takes the time that exchanges would take.
    Modelled(Modelled),
}

/// The operations of one rank, with its GPU, its KV cache and its adapters.
pub struct CudaOps {
    gpu: Box<dyn Gpu>,
    config: Arc<ModelConfig>,
    limits: Limits,
    partition: Partition,
    exchange: Exchange,
    shape: AttentionShape,
    kernels: Kernels,
    /// The KV cache of each layer.
    cache: Vec<Address>,
    /// Cosines and sines of every position.
    rotary: Address,
    vectors: Vectors,
    slots: Slots,
    scratch: Scratch,
    /// The step that is under way.
    pass: Pass,
    /// The tiles of its chunks.
    chunks: PrefillPlan,
    /// What came of it, on its way to the host.
    reading: Option<Reading>,
    /// What came of steps that nobody asked for after all.
    forgotten: Vec<Reading>,
    /// What the scratch has of the norm that comes next.
    normed: Normed,
    /// The memory of inputs and outputs: of a bucket, or of steps that are not recorded.
    areas: BTreeMap<Option<usize>, Area>,
    /// Kinds of steps that were computed once.
    seen: HashSet<Key>,
    recordings: HashMap<Key, Recording>,
    /// Kinds of steps of which a recording failed.
    unrecordable: HashSet<Key>,
    /// Whether operations are being recorded.
    is_recording: bool,
    /// The batch that decodes, with the steps that were begun for it.
    running: Option<Running>,
    host_logits: Vec<f32>,
    /// When the GPU computed, since that was last asked, if it ever was.
    busy: Option<Vec<(Mark, Mark)>>,
    /// What went wrong since the pass began.
    failure: Option<GpuError>,
}

/// Most steps that are begun before they are asked for. One hides the host entirely; a request
/// that comes meanwhile waits for each.
const STEPS_AHEAD_MAX: u32 = 1;

impl CudaOps {
    /// The operations of the rank that `comm` is of, on a GPU that is in the same
    /// group as those of the other ranks, with an empty KV cache and empty adapter slots.
    ///
    /// # Errors
    /// If a kernel is not compiled, or there is too little memory.
    pub fn new(
        mut gpu: Box<dyn Gpu>,
        config: Arc<ModelConfig>,
        limits: Limits,
        comm: &dyn Comm,
    ) -> Result<Self, GpuError> {
        let partition = comm.partition();
        let exchange = match (comm.modelled(), partition.world_size) {
            (Some(modelled), _) => Exchange::Modelled(modelled.clone()),
            (None, 1) => Exchange::Alone,
            (None, _) => Exchange::Group,
        };
        let shape = AttentionShape::new(
            &config,
            partition.query_heads(&config).len(),
            partition.key_value_heads(&config).len(),
            limits.block_size,
        );
        let kernels = Kernels::new(&mut *gpu, &config, shape, limits, partition)?;
        let layer_bytes = 2 * limits.num_blocks * shape.block_values();
        let cache = (0..config.num_hidden_layers).map(|_| memory::zeros(&mut *gpu, layer_bytes));
        let cache = cache.collect::<Result<_, _>>()?;
        let rotary = rotary_table(&config.rotary, config.head_dim, limits.max_model_len);
        let rotary = memory::vector(&mut *gpu, &rotary)?;
        let scratch = Scratch::new(&mut *gpu, &config, limits, partition, shape, &kernels)?;
        Ok(Self {
            cache,
            rotary,
            vectors: Vectors::default(),
            slots: Slots::new(&mut *gpu, &config, limits)?,
            scratch,
            pass: Pass::default(),
            chunks: PrefillPlan::default(),
            reading: None,
            forgotten: Vec::new(),
            normed: Normed::No,
            areas: BTreeMap::new(),
            seen: HashSet::new(),
            recordings: HashMap::new(),
            unrecordable: HashSet::new(),
            is_recording: false,
            running: None,
            host_logits: Vec::new(),
            busy: None,
            failure: None,
            gpu,
            config,
            limits,
            partition,
            exchange,
            shape,
            kernels,
        })
    }

    /// What it computes on.
    #[must_use]
    pub fn gpu(&self) -> &dyn Gpu {
        &*self.gpu
    }

    /// Does something, unless something went wrong before; what goes wrong is kept for the end of the pass.
    fn run(&mut self, work: impl FnOnce(&mut Self) -> Result<(), GpuError>) {
        self.attempt((), work);
    }

    fn attempt<T>(
        &mut self,
        otherwise: T,
        work: impl FnOnce(&mut Self) -> Result<T, GpuError>,
    ) -> T {
        if self.failure.is_some() {
            return otherwise;
        }
        match work(self) {
            Ok(done) => done,
            Err(error) => {
                self.failure = Some(error);
                otherwise
            }
        }
    }

    /// Replays a step.
    fn replay(&mut self, recording: Recording) -> Result<(), GpuError> {
        if self.busy.is_none() {
            return self.gpu.replay(recording);
        }
        let began = self.gpu.mark()?;
        self.gpu.replay(recording)?;
        let ended = self.gpu.mark()?;
        self.busy.get_or_insert_default().push((began, ended));
        Ok(())
    }

    /// How long the GPU replayed since this was last asked (s).
    fn busy_seconds(&mut self) -> Result<f64, GpuError> {
        let spans = self.busy.replace(Vec::new()).unwrap_or_default();
        let mut seconds = 0.0;
        for (began, ended) in spans {
            seconds += self.gpu.seconds_between(began, ended)?;
        }
        Ok(seconds)
    }

    /// What the caller is told of an error. One that is for good is kept.
    fn failed(&mut self, error: GpuError) -> StepError {
        self.forget_running();
        let reason = StepError(error.to_string());
        self.failure = error.is_fatal().then_some(error);
        reason
    }
}

impl fmt::Debug for CudaOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaOps")
            .field("gpu", &self.gpu.properties().name)
            .field("partition", &self.partition)
            .field("recordings", &self.recordings.len())
            .finish_non_exhaustive()
    }
}
