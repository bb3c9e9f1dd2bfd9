//! How much memory the system has left.

/// The memory that this process can take before something else has to give
/// (bytes), if the system says: what Linux calls available, or what is left
/// within the limit of its control group, whichever is less.
pub(super) fn free_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let available = available(&meminfo)?;
    Some(control_group_left().map_or(available, |left| left.min(available)))
}

/// The line `MemAvailable:   123 kB` of `/proc/meminfo` (proc(5)).
fn available(meminfo: &str) -> Option<u64> {
    let value = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// What the process's control group may still take: version 2, as a container
/// sees its own (Linux, Documentation/admin-guide/cgroup-v2.rst).
fn control_group_left() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok();
    let most: u64 = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    // Cached files count as current, and give way.
    let stat = read("memory.stat").unwrap_or_default();
    let cached = |line: &str| {
        line.strip_prefix("inactive_file ")?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let cached = stat.lines().find_map(cached).unwrap_or(0);
    Some(most.saturating_sub(current.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_available_memory_is_read() {
        let meminfo = "MemTotal:       24551024 kB\nMemFree:  100 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(available(meminfo), Some(2 << 20));
        assert_eq!(available("MemTotal: 3 kB"), None);
        assert_eq!(available("MemAvailable: much kB"), None);
    }
}
