//! What the system says of this process: thin, and asked from outside the hot path.

use std::fs;

use foresail_core::time::Nanos;
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::Sample;

/// Asks the system about this process. CPU times of workers come from the
/// [workers themselves](thread_cpu), and descriptors from whoever counts connections.
#[must_use]
pub fn sample(worker_cpu_ns: Vec<Nanos>, descriptors: u64) -> Sample {
    Sample {
        monotonic_ns: nanos(clock_gettime(ClockId::Monotonic)),
        wall_ns: nanos(clock_gettime(ClockId::Realtime)),
        boot_ns: boot(),
        process_cpu_ns: nanos(clock_gettime(ClockId::ProcessCPUTime)),
        worker_cpu_ns,
        resident_bytes: resident_bytes(),
        descriptors,
    }
}

/// CPU time of the calling thread so far.
#[must_use]
pub fn thread_cpu() -> Nanos {
    nanos(clock_gettime(ClockId::ThreadCPUTime))
}

/// Descriptors that this process has open now; `None` where the system does not list
/// them. It takes a system call for many of them: not to be asked in the middle of a run.
#[must_use]
pub fn descriptors_open() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    // The folder that is read is open itself.
    Some(entries.count().saturating_sub(1) as u64)
}

#[cfg(target_os = "linux")]
fn boot() -> Option<Nanos> {
    Some(nanos(clock_gettime(ClockId::Boottime)))
}

#[cfg(not(target_os = "linux"))]
fn boot() -> Option<Nanos> {
    None
}

/// The second number of `statm` (proc(5)), in pages.
fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn nanos(time: Timespec) -> Nanos {
    // Clocks of today are neither negative nor beyond 2554.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_what_it_is_asked() {
        let before = sample(Vec::new(), 3);
        // Something to count: touched memory and spent time.
        let memory = vec![1_u8; 32 << 20];
        let sum: u64 = memory.iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(sum, 32 << 20);
        let after = sample(vec![thread_cpu()], 3);
        assert!(after.monotonic_ns > before.monotonic_ns);
        assert!(after.process_cpu_ns > before.process_cpu_ns);
        assert!(after.process_cpu_ns >= after.worker_cpu_ns[0]);
        if let (Some(before), Some(after)) = (before.resident_bytes, after.resident_bytes) {
            assert!(after > before + (16 << 20), "{before} {after}");
        }
        assert!(before.wall_ns > 1_700_000_000_000_000_000, "after 2023");
    }

    #[test]
    fn open_descriptors_are_counted() {
        let Some(before) = descriptors_open() else {
            return;
        };
        // Other tests open and close descriptors too: only what is held for sure is asserted.
        let held: Vec<_> = (0..200).map(|_| fs::File::open(".").unwrap()).collect();
        let after = descriptors_open().unwrap();
        assert!(after >= held.len() as u64 && after + 100 >= before + 200);
    }
}
