//! What a measurement was made on, when and how.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::time::{SystemTime, UNIX_EPOCH};

use foresail_engine::bench;
use foresail_engine::cpu::Isa;
use foresail_engine::startup::Device;
use foresail_reports::bench::Ceilings;

use crate::failure::Failure;

/// What a device can do.
pub(crate) fn ceilings(device: Device) -> Result<Ceilings, Failure> {
    match device {
        Device::Cuda | Device::SoftwareGpu => {
            let ceilings = bench::gpu_ceilings(device);
            ceilings.map_err(|error| Failure::Input(error.to_string()))
        }
        Device::Cpu { .. } | Device::Reference => of_cpu(device),
    }
}

/// What this machine can do with the threads that compute.
fn of_cpu(device: Device) -> Result<Ceilings, Failure> {
    let threads = NonZeroUsize::new(threads(device)).unwrap_or(NonZeroUsize::MIN);
    bench::cpu_ceilings(threads).map_err(|error| {
        Failure::Input(match error.kind() {
            ErrorKind::OutOfMemory => error.to_string(),
            _ => format!("cannot start {threads} threads: {error}; ask for fewer with --threads"),
        })
    })
}

/// The kind of a device.
pub(crate) fn backend(device: Device) -> &'static str {
    match device {
        Device::Cpu { .. } | Device::Reference => "cpu",
        Device::Cuda => "cuda",
        Device::SoftwareGpu => "software GPU",
    }
}

/// Threads of a CPU that compute; none with a GPU.
pub(crate) fn threads(device: Device) -> usize {
    match device {
        Device::Cpu { threads } => threads.map_or(1, NonZeroUsize::get),
        Device::Reference => 1,
        Device::Cuda | Device::SoftwareGpu => 0,
    }
}

/// The processor and its vectors.
pub(crate) fn device() -> String {
    let vectors = match Isa::detect() {
        Isa::Avx512 => "avx512",
        Isa::Avx2 => "avx2",
        Isa::Portable => "portable vectors",
    };
    format!("{}, {vectors}", processor())
}

/// What Linux calls the processor; elsewhere its architecture.
fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(
        || env::consts::ARCH.to_owned(),
        |(_, name)| name.trim().to_owned(),
    )
}

/// The command as it was typed, as far as a line shows it.
pub(crate) fn command() -> String {
    let arguments = env::args_os().skip(1);
    let words = arguments.map(|argument| match argument.to_string_lossy() {
        word if word.contains(char::is_whitespace) => format!("'{word}'"),
        word => word.into_owned(),
    });
    ["foresail".to_owned()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The day in UTC, as `2026-11-21`.
pub(crate) fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is not set.
    let days = since.map_or(0, |time| time.as_secs() / 86_400);
    date(days)
}

/// The date of a day since 1970-01-01: `civil_from_days` of Howard Hinnant,
/// <https://howardhinnant.github.io/date_algorithms.html>, for days from then on.
fn date(days: u64) -> String {
    // Years begin in March, so that the leap day is the last of one.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_know_leap_years() {
        // As `date -u -d @SECONDS +%F` has them.
        let days = [0, 58, 59, 789, 790, 11_016, 11_017, 20_778, 47_540, 47_541];
        assert_eq!(
            days.map(date),
            [
                "1970-01-01",
                "1970-02-28",
                "1970-03-01",
                "1972-02-29",
                "1972-03-01",
                "2000-02-29",
                "2000-03-01",
                "2026-11-21",
                "2100-02-28",
                "2100-03-01",
            ]
        );
    }

    #[test]
    fn the_processor_has_a_name() {
        assert!(!processor().is_empty());
    }
}
