//! The time of an all-reduce, in three size ranges.
//!
//! One latency and one bandwidth do not describe it: small messages go through
//! a one-shot kernel, middle ones through a two-shot kernel, large ones through
//! NCCL's rings or the switch, and each has a latency and a bandwidth of its own.

use serde::{Deserialize, Serialize};

/// `alpha + bytes / beta` up to a size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllReduceRange {
    /// Largest message of the range (bytes).
    pub bytes_last: u64,
    /// Latency (s).
    pub alpha_s: f64,
    /// Algorithmic bandwidth (bytes/s).
    pub beta_bytes_per_s: f64,
}

impl AllReduceRange {
    fn seconds(&self, bytes: u64) -> f64 {
        self.alpha_s + bytes as f64 / self.beta_bytes_per_s
    }

    pub(super) fn is_valid(&self) -> bool {
        let beta = self.beta_bytes_per_s;
        self.alpha_s.is_finite() && self.alpha_s >= 0.0 && beta > 0.0 && !beta.is_nan()
    }
}

/// For each world size, its ranges in order of size.
#[derive(Clone, Debug, PartialEq)]
pub struct AllReduce {
    /// (world size, ranges). The last range also serves messages beyond its `bytes_last`.
    pub by_world_size: Vec<(u32, Vec<AllReduceRange>)>,
}

impl AllReduce {
    /// Exchanges over so many GPUs that take no time: to measure what is left of a step without them.
    #[must_use]
    pub fn free(world_size: u32) -> Self {
        let range = AllReduceRange {
            bytes_last: u64::MAX,
            alpha_s: 0.0,
            beta_bytes_per_s: f64::INFINITY,
        };
        Self {
            by_world_size: vec![(world_size, vec![range])],
        }
    }

    /// The time of one all-reduce of `bytes` over `world_size` GPUs (s); 0 for
    /// one GPU, and `None` for a world size that the table lacks.
    #[must_use]
    pub fn seconds(&self, world_size: u32, bytes: u64) -> Option<f64> {
        if world_size == 1 {
            return Some(0.0);
        }
        self.ranges(world_size).map(|ranges| seconds(ranges, bytes))
    }

    /// The ranges of a world size, if there are any and they make sense.
    pub(super) fn ranges(&self, world_size: u32) -> Option<&[AllReduceRange]> {
        let (_, ranges) = self
            .by_world_size
            .iter()
            .find(|(size, _)| *size == world_size)?;
        let in_order = ranges
            .windows(2)
            .all(|pair| pair[0].bytes_last < pair[1].bytes_last);
        let valid = !ranges.is_empty() && in_order && ranges.iter().all(AllReduceRange::is_valid);
        valid.then_some(ranges)
    }
}

/// The time in the range that holds `bytes`, but never less than at the end of
/// an earlier range: the ranges are fitted apart and may step down where they
/// meet, and a larger message that is faster would make longer chunks shorter.
pub(super) fn seconds(ranges: &[AllReduceRange], bytes: u64) -> f64 {
    let mut floor = 0.0;
    for (index, range) in ranges.iter().enumerate() {
        if bytes <= range.bytes_last || index + 1 == ranges.len() {
            return f64::max(floor, range.seconds(bytes));
        }
        floor = f64::max(floor, range.seconds(range.bytes_last));
    }
    floor
}

#[cfg(test)]
mod tests {
    use super::super::Gpu;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_gpu_reduces_nothing_and_unknown_world_sizes_are_not_guessed() {
        let all_reduce = Gpu::h200().all_reduce;
        assert_eq!(all_reduce.seconds(1, 1 << 20), Some(0.0));
        assert_eq!(all_reduce.seconds(3, 1 << 20), None);
        assert_eq!(
            AllReduce {
                by_world_size: vec![(2, vec![])]
            }
            .seconds(2, 1),
            None
        );
    }

    #[test]
    fn ranges_out_of_order_are_refused() {
        let range = |bytes_last| AllReduceRange {
            bytes_last,
            alpha_s: 1e-6,
            beta_bytes_per_s: 1e9,
        };
        let all_reduce = AllReduce {
            by_world_size: vec![(2, vec![range(10), range(10)])],
        };
        assert_eq!(all_reduce.seconds(2, 1), None);
    }

    #[test]
    fn a_small_message_costs_its_latency_and_a_large_one_its_bandwidth() {
        // 8 KB on 8 H200: "3.5 us" for a one-shot kernel at best, 18.3 for NCCL.
        let small = Gpu::h200().all_reduce.seconds(8, 8192).unwrap();
        assert!((3.0e-6..9.0e-6).contains(&small), "{small}");
        // 128 Mi elements of 16 bits: 1.05 ms on H200 and 1.09 on H100 (aiconfigurator 77a06bf and 67f90e7). That is the
        // 430 GB/s of bus bandwidth that NVLink 4 gives, and half of it would be what NVLink 3 gives.
        let large = Gpu::h200().all_reduce.seconds(8, 256 << 20).unwrap();
        assert!((0.95e-3..1.15e-3).contains(&large), "{large}");
    }

    #[test]
    fn where_ranges_meet_time_does_not_step_down() {
        // On 2 H200 the fits say 4.70 us at the end of the first range and 4.48 us just beyond.
        let all_reduce = Gpu::h200().all_reduce;
        let end = all_reduce.seconds(2, 64 << 10);
        assert_eq!(all_reduce.seconds(2, (64 << 10) + 1), end);
        assert!(all_reduce.seconds(2, 128 << 10) > end);
    }

    proptest! {
        #[test]
        fn time_never_falls_with_size(world in prop::sample::select(vec![2_u32, 4, 8]), bytes in 0_u64..1 << 30, more in 0_u64..1 << 24) {
            for gpu in [Gpu::a100_80gb(), Gpu::h100(), Gpu::h200(), Gpu::b200()] {
                prop_assert!(gpu.all_reduce.seconds(world, bytes) <= gpu.all_reduce.seconds(world, bytes + more));
            }
        }
    }
}
