//! A GPU on a CPU, for tests: the same kernels, compiled by a C++ compiler and run thread by thread.
//!
//! It is an instrument and not a backend: `serve` never chooses it. It is slow,
//! and it goes out of its way to be as unhelpful as a GPU is allowed to be:
//! threads run in an order drawn by a seed, asynchronous copies arrive as late as
//! possible (even seeds) or at once (odd seeds), memory is full of NaN until it is
//! written, kernels begin before the one before them has ended if they say that they may, and
//! what touches memory that is not its own ends the process with the thread and the address. If
//! it [checks](Options::checks), it also finds accesses that only happen to be in order.
//!
//! ```text
//!  mod.rs        the device: a queue that is worked off when someone waits
//!  queue.rs      what is in the queue, and how it is done
//!  memory.rs     allocations, each beside pages that no one may touch
//!  compiler.rs   units and the runtime, from source to loaded libraries, kept on disk
//!  runtime.rs    the calls into ../../../kernels/software/
//!  group.rs      several of them exchange values
//!  faults.rs     what a test wants to go wrong
//! ```

mod compiler;
mod faults;
mod group;
mod memory;
mod queue;
mod runtime;

use std::collections::HashMap;
use std::sync::Arc;

use self::compiler::{LoadedKernel, Toolchain};
use self::faults::Faults;
pub use self::faults::{Fault, Occasion};
use self::group::Member;
use self::memory::Memory;
use self::queue::{LaunchWork, Work};
use super::gpu::{
    Address, Gpu, GpuError, Kernel, Launch, Mark, Product, Properties, Reading, Recording, Unit,
};

/// Work is begun when so much waits, even if nobody waits for it.
const QUEUE_WORK_MAX: usize = 4096;
/// The same, of bytes that wait to be written.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// What a software device is made to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What it says that it is. Its memory is a limit that it keeps.
    pub properties: Properties,
    /// What draws the order of threads. Copies arrive late if it is even, at once if it is odd;
    /// the next bit has three blocks interleaved instead of one after the other.
    pub seed: u64,
    /// Whether every access of memory is watched: of two that nothing orders, and of
    /// bytes that are not an allocation's, the kernel is lost that does the second. Ten times slower.
    pub checks: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            properties: Properties {
                name: "software".to_owned(),
                architecture: (9, 0),
                // Few, so that kernels whose blocks stay come to more than one piece of work.
                multiprocessors: 3,
                shared_bytes_max: 227 << 10,
                memory_bytes: 4 << 30,
                l2_bytes: 1 << 20,
            },
            seed: 0,
            checks: false,
        }
    }
}

/// A GPU on a CPU: see [the module](self).
pub struct Software {
    options: Options,
    toolchain: &'static Toolchain,
    memory: Memory,
    compiled: HashMap<Unit, Vec<Kernel>>,
    kernels: Vec<LoadedKernel>,
    queue: Vec<Work>,
    queue_bytes: usize,
    recording: Option<Vec<Work>>,
    recordings: Vec<Vec<Work>>,
    readings: Vec<Option<Vec<u8>>>,
    marks: Vec<Option<std::time::Instant>>,
    launches: u64,
    lost: Option<String>,
    faults: Faults,
    member: Option<Member>,
}

impl Software {
    /// One of the usual kind.
    ///
    /// # Errors
    /// [`GpuError::Library`] if there is no C++ compiler, or its output cannot be loaded;
    /// [`GpuError::Compile`] if it does not take the runtime's source.
    pub fn open() -> Result<Self, GpuError> {
        Self::with(Options::default())
    }

    /// One that is made to be something.
    ///
    /// # Errors
    /// As [`Software::open`].
    pub fn with(options: Options) -> Result<Self, GpuError> {
        let toolchain = Toolchain::get()?;
        Ok(Self {
            memory: Memory::new(toolchain.runtime(), options.properties.memory_bytes),
            options,
            toolchain,
            compiled: HashMap::new(),
            kernels: Vec::new(),
            queue: Vec::new(),
            queue_bytes: 0,
            recording: None,
            recordings: Vec::new(),
            readings: Vec::new(),
            marks: Vec::new(),
            launches: 0,
            lost: None,
            faults: Faults::default(),
            member: None,
        })
    }

    /// Several that exchange values, one for each rank; each is for a thread of its own.
    ///
    /// # Errors
    /// As [`Software::open`].
    pub fn group(world_size: usize, options: &Options) -> Result<Vec<Self>, GpuError> {
        let members = Member::group(world_size);
        members
            .into_iter()
            .map(|member| {
                let mut software = Self::with(options.clone())?;
                software.member = Some(member);
                Ok(software)
            })
            .collect()
    }

    /// Has something go wrong later.
    pub fn plan_fault(&mut self, fault: Fault) {
        self.faults.plan(fault);
    }

    fn check_lost(&self) -> Result<(), GpuError> {
        match &self.lost {
            Some(why) => Err(GpuError::Lost(why.clone())),
            None => Ok(()),
        }
    }

    /// As [`Software::check_lost`], for what a recording cannot have in it.
    fn check_not_recording(&self, what: &'static str) -> Result<(), GpuError> {
        self.check_lost()?;
        if self.recording.is_some() {
            return Err(GpuError::Call {
                what,
                why: "not while work is recorded".to_owned(),
            });
        }
        Ok(())
    }

    /// Whether a fault is planned for this: it is an error, and the device may be lost by it.
    fn meet_fault(&mut self, occasion: Occasion) -> Result<(), GpuError> {
        match self.faults.meet(occasion) {
            Some(error) => Err(self.lose(error)),
            None => Ok(()),
        }
    }

    /// Remembers what the device is lost by, and tells the other ranks.
    fn lose(&mut self, error: GpuError) -> GpuError {
        if let GpuError::Lost(why) = &error {
            self.lost = Some(why.clone());
            if let Some(member) = &self.member {
                member.leave();
            }
        }
        error
    }

    /// Puts work at the end of the queue, or of what is recorded.
    fn enqueue(&mut self, work: Work) -> Result<(), GpuError> {
        if let Some(recording) = &mut self.recording {
            recording.push(work);
            return Ok(());
        }
        if let Work::Write { bytes, .. } = &work {
            self.queue_bytes += bytes.len();
        }
        self.queue.push(work);
        if self.queue.len() >= QUEUE_WORK_MAX || self.queue_bytes >= QUEUE_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }
}

impl Drop for Software {
    fn drop(&mut self) {
        // Others may wait for what this one was told to exchange.
        let _ = self.flush();
        if let Some(member) = &self.member {
            member.leave();
        }
    }
}

impl std::fmt::Debug for Software {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Software")
            .field("options", &self.options)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Gpu for Software {
    fn properties(&self) -> &Properties {
        &self.options.properties
    }

    fn memory_free_bytes(&mut self) -> Result<u64, GpuError> {
        self.check_lost()?;
        Ok(self.memory.free_bytes())
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address, GpuError> {
        self.check_not_recording("allocate")?;
        self.meet_fault(Occasion::Allocation)?;
        self.memory.allocate(bytes)
    }

    fn free(&mut self, at: Address) -> Result<(), GpuError> {
        self.check_not_recording("free")?;
        self.memory.forget(at)?;
        self.enqueue(Work::Free(at))
    }

    fn fill(&mut self, at: Address, bytes: usize, value: u8) -> Result<(), GpuError> {
        self.check_not_recording("fill")?;
        self.memory.check("fill", at, bytes)?;
        self.enqueue(Work::Fill { at, bytes, value })
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), GpuError> {
        self.check_not_recording("write")?;
        self.memory.check("write", to, bytes.len())?;
        self.enqueue(Work::Write {
            to,
            bytes: bytes.to_vec(),
        })
    }

    fn read(&mut self, from: Address, bytes: usize) -> Result<Reading, GpuError> {
        self.check_not_recording("read")?;
        self.memory.check("read", from, bytes)?;
        let reading = self.readings.len();
        self.readings.push(None);
        self.enqueue(Work::Read {
            from,
            bytes,
            reading,
        })?;
        Ok(Reading(reading))
    }

    fn finish(&mut self, reading: Reading) -> Result<Vec<u8>, GpuError> {
        self.check_not_recording("finish")?;
        self.flush()?;
        self.readings[reading.0].take().ok_or(GpuError::Call {
            what: "finish",
            why: "this reading is finished, or not of this device".to_owned(),
        })
    }

    fn wait(&mut self) -> Result<(), GpuError> {
        self.check_not_recording("wait")?;
        self.flush()
    }

    fn compile(&mut self, unit: &Unit) -> Result<Vec<Kernel>, GpuError> {
        self.check_lost()?;
        if let Some(kernels) = self.compiled.get(unit) {
            return Ok(kernels.clone());
        }
        self.check_not_recording("compile")?;
        self.meet_fault(Occasion::Compilation)?;
        let (major, minor) = self.options.properties.architecture;
        let loaded = self
            .toolchain
            .compile(unit, 10 * major + minor, self.options.checks)?;
        let first = self.kernels.len();
        self.kernels.extend(loaded);
        let kernels: Vec<Kernel> = (first..self.kernels.len()).map(Kernel).collect();
        self.compiled.insert(unit.clone(), kernels.clone());
        Ok(kernels)
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), GpuError> {
        self.check_lost()?;
        self.meet_fault(Occasion::Launch)?;
        self.check_launch(launch)?;
        self.enqueue(Work::Launch(LaunchWork {
            kernel: launch.kernel.0,
            blocks: launch.blocks,
            threads: launch.threads,
            shared_bytes: launch.shared_bytes,
            overlaps: launch.overlaps,
            arguments: Arc::from(launch.arguments),
        }))
    }

    fn multiply(&mut self, product: &Product) -> Result<(), GpuError> {
        self.check_lost()?;
        self.meet_fault(Occasion::Launch)?;
        self.check_product(product)?;
        self.enqueue(Work::Multiply(*product))
    }

    fn all_reduce(&mut self, values: Address, count: usize) -> Result<(), GpuError> {
        self.check_lost()?;
        self.memory.check("all_reduce", values, 2 * count)?;
        if self.member.is_none() {
            return Ok(());
        }
        self.enqueue(Work::AllReduce { values, count })
    }

    fn all_gather(&mut self, from: Address, to: Address, bytes: usize) -> Result<(), GpuError> {
        self.check_lost()?;
        let ranks = self.member.as_ref().map_or(1, Member::world_size);
        self.memory.check("all_gather", from, bytes)?;
        self.memory.check("all_gather", to, ranks * bytes)?;
        self.enqueue(Work::AllGather { from, to, bytes })
    }

    fn begin_recording(&mut self) -> Result<(), GpuError> {
        self.check_not_recording("begin_recording")?;
        self.recording = Some(Vec::new());
        Ok(())
    }

    fn end_recording(&mut self) -> Result<Recording, GpuError> {
        self.check_lost()?;
        let recording = self.recording.take().ok_or(GpuError::Call {
            what: "end_recording",
            why: "nothing is recorded".to_owned(),
        })?;
        self.recordings.push(recording);
        Ok(Recording(self.recordings.len() - 1))
    }

    fn replay(&mut self, recording: Recording) -> Result<(), GpuError> {
        self.check_not_recording("replay")?;
        self.meet_fault(Occasion::Launch)?;
        let recorded = self.recordings.get(recording.0).ok_or(GpuError::Call {
            what: "replay",
            why: "no such recording".to_owned(),
        })?;
        let mut works = recorded.clone();
        // The first kernel of a recording has none before it to overlap.
        if let Some(Work::Launch(first)) = works.first_mut() {
            first.overlaps = false;
        }
        works.into_iter().try_for_each(|work| self.enqueue(work))
    }

    fn mark(&mut self) -> Result<Mark, GpuError> {
        self.check_not_recording("mark")?;
        let mark = self.marks.len();
        self.marks.push(None);
        self.enqueue(Work::Mark(mark))?;
        Ok(Mark(mark))
    }

    fn seconds_between(&mut self, first: Mark, second: Mark) -> Result<f64, GpuError> {
        self.check_not_recording("seconds_between")?;
        self.flush()?;
        let moment = |mark: Mark| {
            self.marks
                .get(mark.0)
                .copied()
                .flatten()
                .ok_or(GpuError::Call {
                    what: "seconds_between",
                    why: "no such mark".to_owned(),
                })
        };
        let (first, second) = (moment(first)?, moment(second)?);
        let forward = second.saturating_duration_since(first).as_secs_f64();
        let backward = first.saturating_duration_since(second).as_secs_f64();
        Ok(forward - backward)
    }
}
