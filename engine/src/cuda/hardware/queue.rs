//! What is asked of a GPU in order: kernels, recordings of them, and moments between.

use super::context::Context;
use crate::cuda::gpu::{GpuError, Kernel, KernelFacts, Launch, Mark, Recording};
use cudarc::driver::sys;
use std::ffi::{CString, c_int, c_void};
use std::ptr;

/// The first architecture on which a kernel can begin before the one before it ends.
const OVERLAPPING: (u32, u32) = (9, 0);

/// Moments that are kept. Whoever compares two has not made so many between them.
const MARKS: usize = 4096;

/// The kernels that were loaded.
pub(super) struct Kernels {
    kernels: Vec<Loaded>,
    modules: Vec<sys::CUmodule>,
    overlap: bool,
    shared_bytes_max: u32,
}

struct Loaded {
    name: &'static str,
    function: sys::CUfunction,
    argument_bytes: usize,
    /// The most that a launch can ask for.
    shared_bytes_max: u32,
}

impl Kernels {
    /// None yet, for a GPU of such an architecture.
    pub(super) fn new(architecture: (u32, u32), shared_bytes_max: u32) -> Self {
        Self {
            kernels: Vec::new(),
            modules: Vec::new(),
            overlap: architecture >= OVERLAPPING,
            shared_bytes_max,
        }
    }

    /// Loads machine code, and finds these kernels in it.
    pub(super) fn load(
        &mut self,
        context: &mut Context,
        cubin: &[u8],
        facts: &[KernelFacts],
    ) -> Result<Vec<Kernel>, GpuError> {
        let mut module = ptr::null_mut();
        // SAFETY: it is a whole cubin, which says its own length, and the driver copies it.
        let code =
            unsafe { (context.driver.cuModuleLoadData)(&raw mut module, cubin.as_ptr().cast()) };
        context.check("loading kernels", code)?;
        self.modules.push(module);
        facts
            .iter()
            .map(|facts| self.find(context, module, facts))
            .collect()
    }

    fn find(
        &mut self,
        context: &mut Context,
        module: sys::CUmodule,
        facts: &KernelFacts,
    ) -> Result<Kernel, GpuError> {
        let name = CString::new(facts.name).expect("names of C have no zero byte");
        let mut function = ptr::null_mut();
        // SAFETY: the module is loaded, and the name is a string.
        let code = unsafe {
            (context.driver.cuModuleGetFunction)(&raw mut function, module, name.as_ptr())
        };
        context.check("finding a kernel", code)?;
        // Here and now: the driver would otherwise load it at its first launch, which may be in a recording.
        // SAFETY: the function is of a loaded module.
        let code = unsafe { (context.driver.cuFuncLoad)(function) };
        context.check("loading a kernel", code)?;
        let shared_bytes_max = self.allow_shared(context, function)?;
        // All kernels alike, so that a multiprocessor need not be emptied to divide its memory anew between two that could
        // overlap (CUDA C++ Programming Guide, "Shared Memory", carveout). It is a hint, which a driver may not know.
        let attribute =
            sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        // SAFETY: the function is of a loaded module.
        unsafe { (context.driver.cuFuncSetAttribute)(function, attribute, 100) };
        self.kernels.push(Loaded {
            name: facts.name,
            function,
            argument_bytes: facts.argument_bytes,
            shared_bytes_max,
        });
        Ok(Kernel(self.kernels.len() - 1))
    }

    /// Lets a kernel have all the shared memory that a block can have: beyond 48 KB the driver wants to be told before.
    ///
    /// Kernels have none of their own. Since Hopper their machine code carries 1 KB that the system reserves in each
    /// block, which the limit of the GPU leaves out already, so that it is taken off only if the driver wants it to be.
    fn allow_shared(
        &self,
        context: &mut Context,
        function: sys::CUfunction,
    ) -> Result<u32, GpuError> {
        use sys::CUfunction_attribute as Attribute;
        let allow = |context: &Context, bytes: u32| {
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let value = c_int::try_from(bytes).unwrap_or(c_int::MAX);
            // SAFETY: the function is of a loaded module.
            unsafe { (context.driver.cuFuncSetAttribute)(function, attribute, value) }
        };
        if allow(context, self.shared_bytes_max) == 0 {
            return Ok(self.shared_bytes_max);
        }
        let mut own: c_int = 0;
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: it writes one number.
        let code =
            unsafe { (context.driver.cuFuncGetAttribute)(&raw mut own, attribute, function) };
        context.check("asking what a kernel takes", code)?;
        let most = self.shared_bytes_max.saturating_sub(own.unsigned_abs());
        let code = allow(context, most);
        context.check("allowing a kernel its shared memory", code)?;
        Ok(most)
    }

    pub(super) fn launch(
        &self,
        context: &mut Context,
        launch: &Launch<'_>,
    ) -> Result<(), GpuError> {
        let what = "launching a kernel";
        let wrong = |why| GpuError::Call { what, why };
        let Some(kernel) = self.kernels.get(launch.kernel.0) else {
            return Err(wrong("it was not compiled on this GPU".to_owned()));
        };
        refuse(kernel, launch).map_err(wrong)?;

        let mut overlap = overlap_attribute();
        let config = sys::CUlaunchConfig {
            gridDimX: launch.blocks[0],
            gridDimY: launch.blocks[1],
            gridDimZ: launch.blocks[2],
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared_bytes,
            hStream: context.stream,
            attrs: &raw mut overlap,
            numAttrs: u32::from(launch.overlaps && self.overlap),
        };
        // A kernel has one argument, its structure; the driver copies as many bytes of it as the kernel's own
        // metadata says, which were compared with the facts when it was compiled.
        let mut arguments = launch.arguments.as_ptr().cast_mut().cast::<c_void>();
        // SAFETY: the configuration and the arguments outlive the call, and there are as many bytes of them.
        let code = unsafe {
            (context.driver.cuLaunchKernelEx)(
                &raw const config,
                kernel.function,
                &raw mut arguments,
                ptr::null_mut(),
            )
        };
        match context.check(what, code) {
            Err(GpuError::Call { why, .. }) => Err(wrong(format!(
                "{}, {:?} blocks of {} threads with {} bytes of shared memory: {why}",
                kernel.name, launch.blocks, launch.threads, launch.shared_bytes
            ))),
            outcome => outcome,
        }
    }

    pub(super) fn release(&mut self, context: &mut Context) {
        self.kernels.clear();
        for module in self.modules.drain(..) {
            // SAFETY: it was loaded by this context, and nothing of it is used any more.
            unsafe { (context.driver.cuModuleUnload)(module) };
        }
    }
}

/// Why a launch is not possible, in words better than the driver's.
fn refuse(kernel: &Loaded, launch: &Launch<'_>) -> Result<(), String> {
    let name = kernel.name;
    if launch.arguments.len() != kernel.argument_bytes {
        return Err(format!(
            "{name} takes {} bytes of arguments, not {}",
            kernel.argument_bytes,
            launch.arguments.len()
        ));
    }
    if launch.shared_bytes > kernel.shared_bytes_max {
        return Err(format!(
            "{name} asks for {} bytes of shared memory, and a block of this GPU has {}",
            launch.shared_bytes, kernel.shared_bytes_max
        ));
    }
    Ok(())
}

/// Says that a kernel may begin when the one before it lets it, or ends; what it must wait for, it waits for
/// itself (CUDA programming guide, "Programmatic Dependent Launch and Synchronization").
fn overlap_attribute() -> sys::CUlaunchAttribute {
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue {
            programmaticStreamSerializationAllowed: 1,
        },
    }
}

/// What was recorded.
pub(super) struct Recordings {
    graphs: Vec<sys::CUgraphExec>,
    recording: bool,
}

impl Recordings {
    pub(super) fn new() -> Self {
        Self {
            graphs: Vec::new(),
            recording: false,
        }
    }

    /// Fails while a recording is under way: what is asked for then could not be recorded, or would be done
    /// again with every replay.
    pub(super) fn refuse(&self, what: &'static str) -> Result<(), GpuError> {
        if self.recording {
            let why = "it cannot be part of a recording".to_owned();
            return Err(GpuError::Call { what, why });
        }
        Ok(())
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.recording
    }

    pub(super) fn begin(&mut self, context: &mut Context) -> Result<(), GpuError> {
        let what = "beginning to record";
        if self.recording {
            let why = "a recording is under way".to_owned();
            return Err(GpuError::Call { what, why });
        }
        // Other threads, which have their own GPUs, may do meanwhile what cannot be recorded.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is of this context.
        let code = unsafe { (context.driver.cuStreamBeginCapture_v2)(context.stream, mode) };
        context.check(what, code)?;
        self.recording = true;
        Ok(())
    }

    pub(super) fn end(&mut self, context: &mut Context) -> Result<Recording, GpuError> {
        let what = "ending a recording";
        if !self.recording {
            let why = "none is under way".to_owned();
            return Err(GpuError::Call { what, why });
        }
        self.recording = false;
        let mut graph = ptr::null_mut();
        // SAFETY: the stream is of this context; the graph is destroyed below.
        let code = unsafe { (context.driver.cuStreamEndCapture)(context.stream, &raw mut graph) };
        context.check(what, code)?;
        let mut executable = ptr::null_mut();
        // SAFETY: the graph was just made.
        let made =
            unsafe { (context.driver.cuGraphInstantiateWithFlags)(&raw mut executable, graph, 0) };
        // SAFETY: what is executable does not need the graph that it was made of.
        unsafe { (context.driver.cuGraphDestroy)(graph) };
        context.check("making a recording ready", made)?;
        self.graphs.push(executable);
        // So that the first replay does not have to.
        // SAFETY: it was just made.
        let code = unsafe { (context.driver.cuGraphUpload)(executable, context.stream) };
        context.check("uploading a recording", code)?;
        Ok(Recording(self.graphs.len() - 1))
    }

    pub(super) fn replay(
        &self,
        context: &mut Context,
        recording: Recording,
    ) -> Result<(), GpuError> {
        let what = "replaying a recording";
        let Some(graph) = self.graphs.get(recording.0) else {
            let why = "it was not made on this GPU".to_owned();
            return Err(GpuError::Call { what, why });
        };
        // SAFETY: the graph and the stream are of this context.
        let code = unsafe { (context.driver.cuGraphLaunch)(*graph, context.stream) };
        context.check(what, code)
    }

    pub(super) fn release(&mut self, context: &mut Context) {
        for graph in self.graphs.drain(..) {
            // SAFETY: it was made by this context, and does not run any more.
            unsafe { (context.driver.cuGraphExecDestroy)(graph) };
        }
    }
}

/// Moments in the queue, the last [`MARKS`] of them.
pub(super) struct Marks {
    events: Vec<sys::CUevent>,
    made: usize,
}

impl Marks {
    pub(super) fn new() -> Self {
        Self {
            events: Vec::new(),
            made: 0,
        }
    }

    pub(super) fn mark(&mut self, context: &mut Context) -> Result<Mark, GpuError> {
        let index = self.made % MARKS;
        if index == self.events.len() {
            self.events.push(context.event(true)?);
        }
        context.record(self.events[index])?;
        self.made += 1;
        Ok(Mark(self.made - 1))
    }

    fn event(&self, mark: Mark) -> Result<sys::CUevent, GpuError> {
        kept(mark.0, self.made)
            .map(|index| self.events[index])
            .ok_or_else(|| GpuError::Call {
                what: "timing",
                why: format!("one of the moments is not of this GPU, or {MARKS} came after it"),
            })
    }

    pub(super) fn seconds_between(
        &self,
        context: &mut Context,
        first: Mark,
        second: Mark,
    ) -> Result<f64, GpuError> {
        let (first, second) = (self.event(first)?, self.event(second)?);
        context.wait_for(first)?;
        context.wait_for(second)?;
        context.seconds(first, second)
    }

    pub(super) fn release(&mut self, context: &mut Context) {
        for event in self.events.drain(..) {
            // SAFETY: it was made by this context, and is forgotten.
            unsafe { (context.driver.cuEventDestroy_v2)(event) };
        }
    }
}

/// Which event has the moment that was made so manieth, if it was not used again since.
fn kept(mark: usize, made: usize) -> Option<usize> {
    (mark < made && made - mark <= MARKS).then_some(mark % MARKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_kept_until_its_event_is_used_again() {
        assert_eq!(kept(0, 0), None);
        assert_eq!(kept(0, 1), Some(0));
        assert_eq!(kept(0, MARKS), Some(0));
        assert_eq!(kept(0, MARKS + 1), None);
        assert_eq!(kept(MARKS, MARKS + 1), Some(0));
    }

    #[test]
    fn a_launch_with_other_arguments_or_too_much_shared_memory_is_refused_by_name() {
        let kernel = Loaded {
            name: "norm",
            function: ptr::null_mut(),
            argument_bytes: 16,
            shared_bytes_max: 1000,
        };
        let why = |bytes: usize, shared_bytes| {
            let arguments = vec![0; bytes];
            let launch = Launch {
                kernel: Kernel(0),
                blocks: [1, 1, 1],
                threads: 32,
                shared_bytes,
                overlaps: true,
                arguments: &arguments,
            };
            refuse(&kernel, &launch)
        };
        assert_eq!(why(16, 1000), Ok(()));
        assert_eq!(
            why(8, 0),
            Err("norm takes 16 bytes of arguments, not 8".to_owned())
        );
        assert!(why(16, 1001).is_err_and(|why| why.contains("1001 bytes of shared memory")));
    }
}
