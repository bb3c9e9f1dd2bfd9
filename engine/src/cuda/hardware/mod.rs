//! A real GPU: what is asked of [`Gpu`], asked of the driver.
//!
//! | part | is |
//! |---|---|
//! | `context` | the device, its one stream, what codes mean, waiting |
//! | `memory` | allocations, and copies through pinned memory |
//! | `queue` | kernels, recordings, moments |
//! | `products`, `matrices` | products of large matrices, by cuBLASLt |
//! | `collectives` | exchanges between GPUs, by NCCL |
//!
//! Every call of a library is checked. After an error of a kernel or of the hardware a
//! context takes no more calls; the first such error is kept, and is what every later call fails with.

#![allow(
    unsafe_code,
    reason = "the driver and NVIDIA's libraries are libraries of C"
)]

mod collectives;
mod context;
mod matrices;
mod memory;
mod products;
mod queue;

use super::compile::{Architecture, Compiler};
use super::gpu::{
    Address, Gpu, GpuError, Kernel, Launch, Mark, Product, Properties, Reading, Recording, Unit,
};
use super::libraries::libraries;
use collectives::{Invitation, Member};
use context::Context;
use cudarc::driver::sys;
use memory::Memory;
use products::Products;
use queue::{Kernels, Marks, Recordings};
use std::collections::HashMap;
use std::thread;

/// A GPU of this machine.
pub struct Hardware {
    properties: Properties,
    compiler: Compiler,
    compiled: HashMap<Unit, Vec<Kernel>>,
    memory: Memory,
    kernels: Kernels,
    recordings: Recordings,
    marks: Marks,
    products: Products,
    member: Option<Member>,
    /// What [`Gpu::wait`] waits for.
    everything: sys::CUevent,
    // Dropped last, as all the rest is in it.
    context: Context,
}

// SAFETY: what the parts point to is the driver's, and belongs to the process and not to a thread; each call
// makes the context current in the thread that it is made from, and takes `&mut self`.
unsafe impl Send for Hardware {}

impl Hardware {
    /// How many GPUs there are.
    ///
    /// # Errors
    /// [`GpuError::Library`], in one line, if there is no driver, or none that is new enough.
    pub fn count() -> Result<u32, GpuError> {
        context::count()
    }

    /// Opens one of them, counted from 0.
    ///
    /// # Errors
    /// [`GpuError::Library`], in one line, with what is missing: the driver, a GPU, a library; or what is too old.
    pub fn open(ordinal: u32) -> Result<Self, GpuError> {
        let (mut context, properties) = Context::open(ordinal)?;
        // Both before anything is made, so that what is missing is all that is said.
        libraries().nvrtc()?;
        libraries().cublas_lt()?;
        let (major, minor) = properties.architecture;
        let mut memory = Memory::new();
        Ok(Self {
            compiler: Compiler::new(Architecture { major, minor })?,
            compiled: HashMap::new(),
            kernels: Kernels::new(properties.architecture, properties.shared_bytes_max),
            recordings: Recordings::new(),
            marks: Marks::new(),
            products: Products::new(&mut context, &mut memory, &properties)?,
            member: None,
            everything: context.event(false)?,
            memory,
            properties,
            context,
        })
    }

    /// Opens several, which exchange what they compute: the first is rank 0. One alone is a group of itself.
    ///
    /// # Errors
    /// As [`Hardware::open`], and if they do not reach each other.
    pub fn group(ordinals: &[u32]) -> Result<Vec<Self>, GpuError> {
        let world = ordinals.len();
        if world <= 1 {
            return ordinals
                .iter()
                .map(|ordinal| Self::open(*ordinal))
                .collect();
        }
        let opened: Result<Vec<_>, _> = ordinals.iter().map(|o| Self::open(*o)).collect();
        let mut opened = opened?;
        let invitation = Invitation::new()?;
        // All at the same time, as each waits for the others.
        let joined: Vec<Result<(), GpuError>> = thread::scope(|scope| {
            let ranks = opened.iter_mut().enumerate();
            let joining: Vec<_> = ranks
                .map(|(rank, gpu)| {
                    let invitation = invitation.clone();
                    scope.spawn(move || gpu.join(&invitation, rank, world))
                })
                .collect();
            let outcomes = joining.into_iter().map(|thread| thread.join());
            outcomes
                .map(|outcome| outcome.expect("joining does not panic"))
                .collect()
        });
        joined.into_iter().collect::<Result<(), _>>()?;
        Ok(opened)
    }

    fn join(&mut self, invitation: &Invitation, rank: usize, world: usize) -> Result<(), GpuError> {
        self.context.enter()?;
        self.member = Some(Member::join(&mut self.context, invitation, rank, world)?);
        Ok(())
    }

    /// Compiles many units at the same time, so that [`Gpu::compile`] finds them compiled.
    ///
    /// # Errors
    /// [`GpuError::Compile`] of the first that does not compile.
    pub fn compile_all(&mut self, units: &[Unit]) -> Result<(), GpuError> {
        self.begin("compiling kernels")?;
        let missing = units
            .iter()
            .filter(|unit| !self.compiled.contains_key(*unit));
        let missing: Vec<Unit> = missing.cloned().collect();
        let cubins = self.compiler.cubins(&missing);
        for (unit, cubin) in missing.into_iter().zip(cubins) {
            let cubin = cubin?;
            self.load(&unit, &cubin)?;
        }
        Ok(())
    }

    /// Finds the fastest way for each of these products, where it is not known from an earlier run.
    /// Only the weights are read, and nothing is written.
    ///
    /// # Errors
    /// As [`Gpu::multiply`].
    pub fn tune(&mut self, products: &[Product]) -> Result<(), GpuError> {
        self.begin("measuring products")?;
        for product in products {
            self.products
                .tune(&mut self.context, &mut self.memory, product)?;
        }
        Ok(())
    }

    /// What a user may want to know and nothing failed for: a cache that cannot be written, kernels that
    /// are not those built in.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.compiler.notes();
        notes.extend(self.products.notes().cloned());
        notes
    }

    /// What calls begin with that cannot be part of a recording.
    fn begin(&mut self, what: &'static str) -> Result<(), GpuError> {
        self.context.enter()?;
        self.recordings.refuse(what)
    }

    fn load(&mut self, unit: &Unit, cubin: &[u8]) -> Result<Vec<Kernel>, GpuError> {
        let kernels = self.kernels.load(&mut self.context, cubin, unit.kernels)?;
        self.compiled.insert(unit.clone(), kernels.clone());
        Ok(kernels)
    }

    /// The group's failure in the background, if there is one, is the GPU's.
    fn check_group(&mut self) -> Result<(), GpuError> {
        match self.member.as_ref().and_then(Member::failure) {
            Some(why) => Err(self.context.lose(why)),
            None => Ok(()),
        }
    }
}

impl Gpu for Hardware {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn memory_free_bytes(&mut self) -> Result<u64, GpuError> {
        self.context.enter()?;
        Memory::free_bytes(&mut self.context)
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address, GpuError> {
        self.begin("allocating memory")?;
        self.memory.allocate(&mut self.context, bytes)
    }

    fn free(&mut self, at: Address) -> Result<(), GpuError> {
        self.begin("freeing memory")?;
        self.wait()?;
        self.memory.free(&mut self.context, at)
    }

    fn fill(&mut self, at: Address, bytes: usize, value: u8) -> Result<(), GpuError> {
        self.begin("filling memory")?;
        self.memory.fill(&mut self.context, at, bytes, value)
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), GpuError> {
        self.begin("copying to the GPU")?;
        self.memory.write(&mut self.context, to, bytes)
    }

    fn read(&mut self, from: Address, bytes: usize) -> Result<Reading, GpuError> {
        self.begin("copying from the GPU")?;
        self.memory.read(&mut self.context, from, bytes)
    }

    fn finish(&mut self, reading: Reading) -> Result<Vec<u8>, GpuError> {
        self.begin("finishing a copy from the GPU")?;
        let bytes = self.memory.finish(&mut self.context, reading)?;
        self.check_group()?;
        Ok(bytes)
    }

    fn wait(&mut self) -> Result<(), GpuError> {
        self.begin("waiting for the GPU")?;
        self.context.record(self.everything)?;
        self.context.wait_for(self.everything)?;
        self.check_group()
    }

    fn compile(&mut self, unit: &Unit) -> Result<Vec<Kernel>, GpuError> {
        if let Some(kernels) = self.compiled.get(unit) {
            return Ok(kernels.clone());
        }
        self.begin("compiling kernels")?;
        let cubin = self.compiler.cubin(unit)?;
        self.load(unit, &cubin)
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), GpuError> {
        self.context.enter()?;
        self.kernels.launch(&mut self.context, launch)
    }

    fn multiply(&mut self, product: &Product) -> Result<(), GpuError> {
        self.context.enter()?;
        let recorded = self.recordings.is_under_way();
        let (context, memory) = (&mut self.context, &mut self.memory);
        self.products.multiply(context, memory, product, recorded)
    }

    fn all_reduce(&mut self, values: Address, count: usize) -> Result<(), GpuError> {
        self.context.enter()?;
        match &self.member {
            Some(member) => member.all_reduce(&self.context, values, count),
            None => Ok(()),
        }
    }

    fn all_gather(&mut self, from: Address, to: Address, bytes: usize) -> Result<(), GpuError> {
        self.context.enter()?;
        match &self.member {
            Some(member) => member.all_gather(&self.context, from, to, bytes),
            None => self.memory.copy(&mut self.context, from, to, bytes),
        }
    }

    fn begin_recording(&mut self) -> Result<(), GpuError> {
        self.context.enter()?;
        self.recordings.begin(&mut self.context)
    }

    fn end_recording(&mut self) -> Result<Recording, GpuError> {
        self.context.enter()?;
        self.recordings.end(&mut self.context)
    }

    fn replay(&mut self, recording: Recording) -> Result<(), GpuError> {
        self.begin("replaying a recording")?;
        self.recordings.replay(&mut self.context, recording)
    }

    fn mark(&mut self) -> Result<Mark, GpuError> {
        self.begin("marking a moment")?;
        self.marks.mark(&mut self.context)
    }

    fn seconds_between(&mut self, first: Mark, second: Mark) -> Result<f64, GpuError> {
        self.begin("timing")?;
        self.marks.seconds_between(&mut self.context, first, second)
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // A lost GPU takes no calls, and may never finish: what it has goes with the process. A recording that was not
        // ended is ended, as nothing can be waited for in it.
        if self.recordings.is_under_way() {
            let _ = self.end_recording();
        }
        let orderly = self.wait().is_ok();
        if !orderly {
            // Neither can the group be left: NCCL would wait for the recordings that have its kernels.
            return;
        }
        let context = &mut self.context;
        // Before the group is left, which waits until no recording has a kernel of it.
        self.recordings.release(context);
        if let Some(member) = &mut self.member {
            member.release(true);
        }
        self.products.release(context);
        self.marks.release(context);
        self.kernels.release(context);
        self.memory.release(context);
        // SAFETY: it was made by this context, and is not used any more.
        unsafe { (context.driver.cuEventDestroy_v2)(self.everything) };
    }
}
