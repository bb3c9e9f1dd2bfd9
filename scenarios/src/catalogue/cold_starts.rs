//! How long replicas take to start, stage by stage.
//!
//! The medians and spreads are chosen inside published ranges, not fitted to
//! one system: measure your own where it matters. Together they reproduce "1 or
//! 2 minutes" from zero to one replica: the median is about one minute for 8B
//! and under two for 70B, and one start in twenty takes 2 to 3 minutes.

use crate::distribution::Distribution;
use crate::scenario::{ColdStartOutcome, ColdStartPhase, ColdStartStage};

/// From one node's memory to a GPU over PCIe (bytes/s): what pinned copies
/// reach on PCIe 5 with some of it lost to the framework (ServerlessLLM's loader
/// of 2025-12 reads 29 GB/s from NVMe into an H100).
const HOST_TO_DEVICE_BYTES_PER_S: f64 = 20e9;

/// Where the weights are: how often, and how fast they are read (bytes/s).
const WEIGHT_TIERS: [(f64, f64); 3] = [
    // Object storage or a registry: 3.1 GB/s at concurrency 16 and more
    // (Run:ai model streamer, S3), 5 GB/s (ServerlessLLM, OSDI 2024).
    (0.5, 2.5e9),
    // Local NVMe, read through safetensors.
    (0.4, 6e9),
    // The page cache of a node that had the model before.
    (0.1, 20e9),
];

/// The stages of a start of a replica whose weights take `weight_bytes` on
/// `world_size` GPUs, in the order in which they happen.
#[must_use]
pub fn default_stages(weight_bytes: u64, world_size: u32) -> Vec<ColdStartStage> {
    use ColdStartPhase::{Downloading, Initialising, Pending};
    vec![
        // A warm pool of nodes: placing a container takes seconds. Waiting for a
        // node to be provisioned (Karpenter: 1 to 5 minutes) is not in it.
        stage("schedule", Pending, [certain(3.0, 0.6)]),
        // 12 GB of image: cached on the node, or fetched at 0.15 GB/s.
        stage(
            "image",
            Downloading,
            [outcome(0.95, 2.0, 0.5), outcome(0.05, 80.0, 0.4)],
        ),
        stage(
            "weights",
            Downloading,
            weights(weight_bytes as f64, f64::from(world_size)),
        ),
        // Starting Python and importing torch and the engine.
        stage("process", Initialising, [certain(12.0, 0.25)]),
        stage(
            "context",
            Initialising,
            [certain(context_seconds(world_size), 0.2)],
        ),
        // torch.compile: 7.5 s from its cache, 40 s and more without
        // (vllm-project/vllm#20264, #19824).
        stage(
            "compile",
            Initialising,
            [outcome(0.8, 8.0, 0.3), outcome(0.2, 40.0, 0.4)],
        ),
        // CUDA graphs: 17 s for a small model, 54 to 60 s for a large one (the same).
        stage("graphs", Initialising, [certain(12.0, 0.35)]),
        // First inference: 3.7 s cold against 0.9 s (vLLM blog, 2025-10-26).
        stage("warm-up", Initialising, [certain(4.0, 0.5)]),
        // Until a health check has seen it and the router knows.
        stage(
            "route",
            Initialising,
            [ColdStartOutcome {
                probability: 1.0,
                seconds: Distribution::Uniform { min: 1.0, max: 5.0 },
            }],
        ),
    ]
}

fn stage(
    name: &str,
    phase: ColdStartPhase,
    outcomes: impl Into<Vec<ColdStartOutcome>>,
) -> ColdStartStage {
    ColdStartStage {
        name: name.to_owned(),
        phase,
        outcomes: outcomes.into(),
    }
}

fn certain(median: f64, cv: f64) -> ColdStartOutcome {
    outcome(1.0, median, cv)
}

fn outcome(probability: f64, median: f64, cv: f64) -> ColdStartOutcome {
    ColdStartOutcome {
        probability,
        seconds: Distribution::log_normal_median(median, cv),
    }
}

/// To the node at the speed of its tier, then to each GPU its share.
fn weights(bytes: f64, world_size: f64) -> Vec<ColdStartOutcome> {
    let to_device = bytes / world_size / HOST_TO_DEVICE_BYTES_PER_S;
    WEIGHT_TIERS
        .into_iter()
        .map(|(probability, bytes_per_s)| {
            outcome(probability, bytes / bytes_per_s + to_device, 0.25)
        })
        .collect()
}

/// CUDA's context, and the communicator of several GPUs.
fn context_seconds(world_size: u32) -> f64 {
    let communicator = if world_size > 1 { 4.0 } else { 0.0 };
    6.0 + communicator + 2.0 * libm::log2(f64::from(world_size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    /// Percentiles 50, 95 and 99 of the sum of all stages (s).
    fn percentiles(weight_bytes: u64, world_size: u32) -> [f64; 3] {
        let stages = default_stages(weight_bytes, world_size);
        let mut rng = stream(1, "test");
        let mut draw = |stage: &ColdStartStage| {
            let mut rest = crate::distribution::unit(&mut rng);
            let outcome = stage.outcomes.iter().find(|outcome| {
                rest -= outcome.probability;
                rest < 0.0
            });
            outcome
                .unwrap_or(&stage.outcomes[0])
                .seconds
                .sample(&mut rng)
        };
        let mut sums: Vec<f64> = (0..20_000)
            .map(|_| stages.iter().map(&mut draw).sum())
            .collect();
        sums.sort_by(f64::total_cmp);
        [10_000, 19_000, 19_800].map(|index| sums[index])
    }

    fn assert_close(actual: [f64; 3], expected: [f64; 3]) {
        for (actual, expected) in actual.into_iter().zip(expected) {
            assert!(
                (actual / expected - 1.0).abs() < 0.06,
                "{actual} against {expected}"
            );
        }
    }

    /// An independent Monte Carlo of the same stages gave these (20,000 draws).
    #[test]
    fn sums_are_one_to_two_minutes() {
        assert_close(percentiles(16_060_000_000, 1), [61.0, 121.0, 177.0]);
        assert_close(percentiles(70_600_000_000, 2), [85.0, 145.0, 201.0]);
        assert_close(percentiles(141_100_000_000, 4), [109.0, 174.0, 233.0]);
    }

    #[test]
    fn the_outcomes_of_every_stage_are_complete() {
        for stage in default_stages(16_000_000_000, 8) {
            let sum: f64 = stage
                .outcomes
                .iter()
                .map(|outcome| outcome.probability)
                .sum();
            assert!((sum - 1.0).abs() < 1e-12, "{}", stage.name);
        }
    }

    #[test]
    fn larger_models_start_more_slowly() {
        assert!(percentiles(140_000_000_000, 4)[0] > percentiles(16_000_000_000, 4)[0]);
    }
}
