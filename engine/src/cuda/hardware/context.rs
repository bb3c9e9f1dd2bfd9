//! A device of the driver: its context, its one stream, and what its codes mean.

use crate::cuda::compile::Architecture;
use crate::cuda::gpu::{GpuError, Properties};
use crate::cuda::libraries::libraries;
use crate::cuda::libraries::tables::Driver;
use cudarc::driver::sys;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long is waited for the GPU before it is taken for lost. No step comes near it; a kernel that never ends would be waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// What several ranks tell each other: the first failure of any. A rank that waits for one that has failed would wait for ever.
#[derive(Debug, Default)]
pub(super) struct Alarm(OnceLock<String>);

impl Alarm {
    pub(super) fn raise(&self, why: &str) {
        // The first counts.
        let _ = self.0.set(why.to_owned());
    }

    pub(super) fn raised(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// The primary context of a device, and a stream in it.
pub(super) struct Context {
    pub(super) driver: &'static Driver,
    device: sys::CUdevice,
    handle: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    lost: Option<String>,
    /// That of this GPU's group, where it is in one.
    pub(super) alarm: Arc<Alarm>,
}

/// How many GPUs the driver has.
pub(super) fn count() -> Result<u32, GpuError> {
    let driver = initialised()?;
    let mut count = 0;
    // SAFETY: it writes one number.
    let code = unsafe { (driver.cuDeviceGetCount)(&raw mut count) };
    refused(driver, "counting GPUs", code)?;
    Ok(count.unsigned_abs())
}

fn initialised() -> Result<&'static Driver, GpuError> {
    let driver = libraries().driver()?;
    // SAFETY: it may be called any number of times.
    let code = unsafe { (driver.cuInit)(0) };
    if code == sys::CUresult::CUDA_ERROR_NO_DEVICE as u32 {
        return Err(no_gpu());
    }
    refused(driver, "starting the CUDA driver", code)?;
    Ok(driver)
}

fn no_gpu() -> GpuError {
    GpuError::Library(
        "no GPU: there is a CUDA driver, and no device that it can use; \
         is one there (nvidia-smi), and is it in CUDA_VISIBLE_DEVICES?"
            .to_owned(),
    )
}

/// An error of a machine that cannot be used at all, in one line.
fn refused(driver: &Driver, what: &'static str, code: u32) -> Result<(), GpuError> {
    if code == 0 {
        return Ok(());
    }
    let why = words(driver, code);
    Err(GpuError::Library(format!("{what} failed: {why}")))
}

impl Context {
    pub(super) fn open(ordinal: u32) -> Result<(Self, Properties), GpuError> {
        let driver = initialised()?;
        let count = count()?;
        if count == 0 {
            return Err(no_gpu());
        }
        if ordinal >= count {
            return Err(GpuError::Library(format!(
                "no GPU {ordinal}: they are counted from 0, and the CUDA driver has {count}"
            )));
        }
        let mut device = 0;
        let index = c_int::try_from(ordinal).expect("it is less than a count of the driver");
        // SAFETY: it writes one number.
        let code = unsafe { (driver.cuDeviceGet)(&raw mut device, index) };
        refused(driver, "opening the GPU", code)?;
        let properties = properties(driver, device)?;
        usable(&properties)?;

        let mut handle = ptr::null_mut();
        // SAFETY: the device is there; the context is released when this is dropped.
        let code = unsafe { (driver.cuDevicePrimaryCtxRetain)(&raw mut handle, device) };
        refused(driver, "making a context on the GPU", code)?;
        let mut context = Self {
            driver,
            device,
            handle,
            stream: ptr::null_mut(),
            lost: None,
            alarm: Arc::default(),
        };
        context.enter()?;
        // Not in step with the default stream, which libraries may use.
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
        // SAFETY: the context is current; the stream is destroyed when this is dropped.
        let code = unsafe { (driver.cuStreamCreate)(&raw mut context.stream, flags) };
        context.check("making a stream", code)?;
        Ok((context, properties))
    }

    /// What each call begins with: fails if the GPU is lost, and makes its context that of this
    /// thread. The latter is asked for every time, at some tens of nanoseconds, as other code of
    /// this thread may have made another current meanwhile.
    pub(super) fn enter(&mut self) -> Result<(), GpuError> {
        if let Some(why) = &self.lost {
            return Err(GpuError::Lost(why.clone()));
        }
        if let Some(why) = self.alarm.raised() {
            let why = format!("another GPU of its group failed: {why}");
            return Err(self.lose(why));
        }
        // SAFETY: the context is retained until this is dropped.
        let code = unsafe { (self.driver.cuCtxSetCurrent)(self.handle) };
        self.check("making the GPU current", code)
    }

    /// From here on, every call fails with this.
    pub(super) fn lose(&mut self, why: String) -> GpuError {
        let why = self.lost.get_or_insert(why).clone();
        self.alarm.raise(&why);
        GpuError::Lost(why)
    }

    /// What a code of the driver means for the GPU.
    pub(super) fn check(&mut self, what: &'static str, code: u32) -> Result<(), GpuError> {
        if code == 0 {
            return Ok(());
        }
        let why = words(self.driver, code);
        Err(if is_fatal(code) {
            self.lose(format!("{what}: {why}"))
        } else {
            GpuError::Call { what, why }
        })
    }

    /// An event on no stream yet. Those that only order are cheaper than those that are timed.
    pub(super) fn event(&mut self, timed: bool) -> Result<sys::CUevent, GpuError> {
        let flags = if timed {
            sys::CUevent_flags::CU_EVENT_DEFAULT
        } else {
            sys::CUevent_flags::CU_EVENT_DISABLE_TIMING
        };
        let mut event = ptr::null_mut();
        // SAFETY: the context is current: calls begin with `enter`.
        let code = unsafe { (self.driver.cuEventCreate)(&raw mut event, flags as c_uint) };
        self.check("making an event", code)?;
        Ok(event)
    }

    /// Has an event happen when all that was asked for before is done.
    pub(super) fn record(&mut self, event: sys::CUevent) -> Result<(), GpuError> {
        // SAFETY: the event and the stream are of this context.
        let code = unsafe { (self.driver.cuEventRecord)(event, self.stream) };
        self.check("recording an event", code)
    }

    /// The time between two timed events that have happened (s).
    pub(super) fn seconds(
        &mut self,
        first: sys::CUevent,
        second: sys::CUevent,
    ) -> Result<f64, GpuError> {
        let mut milliseconds = 0_f32;
        // SAFETY: it writes one number; both are events of this context.
        let code =
            unsafe { (self.driver.cuEventElapsedTime_v2)(&raw mut milliseconds, first, second) };
        self.check("timing", code)?;
        Ok(f64::from(milliseconds) / 1e3)
    }

    /// Waits until an event has happened. Spins, as whoever waits has nothing else to do and a step's end counts in microseconds;
    /// gives up when another rank fails, or when the GPU takes longer than anything does.
    pub(super) fn wait_for(&mut self, event: sys::CUevent) -> Result<(), GpuError> {
        let not_ready = sys::CUresult::CUDA_ERROR_NOT_READY as u32;
        let began = Instant::now();
        loop {
            // SAFETY: the event is of this context.
            let code = unsafe { (self.driver.cuEventQuery)(event) };
            if code != not_ready {
                return self.check("waiting for the GPU", code);
            }
            if let Some(why) = self.alarm.raised() {
                let why = format!("another GPU of its group failed: {why}");
                return Err(self.lose(why));
            }
            if began.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(self.lose(format!("it has not finished in {seconds} seconds")));
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // A lost context takes no calls, and what it held goes with the process.
        if self.enter().is_err() {
            return;
        }
        // SAFETY: nothing uses the stream or the context after this; there is nothing to do if it fails.
        unsafe {
            if !self.stream.is_null() {
                (self.driver.cuStreamDestroy_v2)(self.stream);
            }
            (self.driver.cuDevicePrimaryCtxRelease_v2)(self.device);
        }
    }
}

/// The driver's words for a code.
pub(super) fn words(driver: &Driver, code: u32) -> String {
    let mut text: *const c_char = ptr::null();
    // SAFETY: it takes any number, and gives a string that stays, or null.
    let known = unsafe { (driver.cuGetErrorString)(code, &raw mut text) };
    if known != 0 || text.is_null() {
        return format!("CUDA error {code}");
    }
    // SAFETY: it is not null, and ends in a zero.
    let text = unsafe { CStr::from_ptr(text) };
    format!("{} (CUDA error {code})", text.to_string_lossy())
}

/// Whether nothing can be done with a context after this code. Those that the driver's documentation
/// says leave the process in an inconsistent state, and those by which the device is gone.
fn is_fatal(code: u32) -> bool {
    use sys::CUresult as Code;
    const FATAL: [Code; 22] = [
        Code::CUDA_ERROR_DEINITIALIZED,
        Code::CUDA_ERROR_DEVICE_UNAVAILABLE,
        Code::CUDA_ERROR_INVALID_CONTEXT,
        Code::CUDA_ERROR_ECC_UNCORRECTABLE,
        Code::CUDA_ERROR_NVLINK_UNCORRECTABLE,
        Code::CUDA_ERROR_CONTAINED,
        Code::CUDA_ERROR_ILLEGAL_ADDRESS,
        Code::CUDA_ERROR_LAUNCH_TIMEOUT,
        Code::CUDA_ERROR_CONTEXT_IS_DESTROYED,
        Code::CUDA_ERROR_ASSERT,
        Code::CUDA_ERROR_HARDWARE_STACK_ERROR,
        Code::CUDA_ERROR_ILLEGAL_INSTRUCTION,
        Code::CUDA_ERROR_MISALIGNED_ADDRESS,
        Code::CUDA_ERROR_INVALID_ADDRESS_SPACE,
        Code::CUDA_ERROR_INVALID_PC,
        Code::CUDA_ERROR_LAUNCH_FAILED,
        Code::CUDA_ERROR_TENSOR_MEMORY_LEAK,
        Code::CUDA_ERROR_SYSTEM_NOT_READY,
        Code::CUDA_ERROR_MPS_CLIENT_TERMINATED,
        Code::CUDA_ERROR_TIMEOUT,
        Code::CUDA_ERROR_EXTERNAL_DEVICE,
        Code::CUDA_ERROR_UNKNOWN,
    ];
    FATAL.iter().any(|fatal| *fatal as u32 == code)
}

/// Whether kernels can run on it.
fn usable(properties: &Properties) -> Result<(), GpuError> {
    let (major, minor) = properties.architecture;
    let least = Architecture::LEAST;
    if (major, minor) < (least.major, least.minor) {
        return Err(GpuError::Library(format!(
            "{} has compute capability {major}.{minor}; the CUDA backend needs {}.{} (Ampere) or later",
            properties.name, least.major, least.minor
        )));
    }
    Ok(())
}

fn properties(driver: &Driver, device: sys::CUdevice) -> Result<Properties, GpuError> {
    use sys::CUdevice_attribute as Attribute;
    let what = "asking the GPU what it is";
    let attribute = |attribute| {
        let mut value = 0;
        // SAFETY: it writes one number.
        let code = unsafe { (driver.cuDeviceGetAttribute)(&raw mut value, attribute, device) };
        refused(driver, what, code).map(|()| value.unsigned_abs())
    };
    let mut name = [0_u8; 256];
    // SAFETY: it writes at most so many bytes, the last of which is a zero.
    let code = unsafe { (driver.cuDeviceGetName)(name.as_mut_ptr().cast(), 256, device) };
    refused(driver, what, code)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut memory_bytes = 0;
    // SAFETY: it writes one number.
    let code = unsafe { (driver.cuDeviceTotalMem_v2)(&raw mut memory_bytes, device) };
    refused(driver, what, code)?;
    Ok(Properties {
        name: String::from_utf8_lossy(name).into_owned(),
        architecture: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes_max: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?,
        memory_bytes: memory_bytes as u64,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_kernel_is_fatal_and_one_of_a_call_is_not() {
        use sys::CUresult as Code;
        for code in [
            Code::CUDA_ERROR_ILLEGAL_ADDRESS,
            Code::CUDA_ERROR_LAUNCH_FAILED,
            Code::CUDA_ERROR_ECC_UNCORRECTABLE,
        ] {
            assert!(is_fatal(code as u32), "{code:?}");
        }
        for code in [
            Code::CUDA_ERROR_OUT_OF_MEMORY,
            Code::CUDA_ERROR_INVALID_VALUE,
            Code::CUDA_ERROR_NOT_READY,
            Code::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
            Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
        ] {
            assert!(!is_fatal(code as u32), "{code:?}");
        }
        assert!(!is_fatal(123_456));
    }

    #[test]
    fn an_architecture_before_ampere_is_refused_by_name() {
        let with = |architecture| Properties {
            name: "NVIDIA T4".to_owned(),
            architecture,
            multiprocessors: 40,
            shared_bytes_max: 64 << 10,
            memory_bytes: 16 << 30,
            l2_bytes: 4 << 20,
        };
        let error = usable(&with((7, 5))).expect_err("it is Turing").to_string();
        assert_eq!(
            error,
            "NVIDIA T4 has compute capability 7.5; the CUDA backend needs 8.0 (Ampere) or later"
        );
        assert_eq!(usable(&with((8, 0))), Ok(()));
        assert_eq!(usable(&with((12, 0))), Ok(()));
    }

    #[test]
    fn the_first_alarm_counts() {
        let alarm = Alarm::default();
        assert_eq!(alarm.raised(), None);
        alarm.raise("first");
        alarm.raise("second");
        assert_eq!(alarm.raised(), Some("first"));
    }
}
