//! Measured engine steps, beside what the machine could do at best.
//!
//! A step that decodes is bound by the bytes it reads, a step of a long prompt
//! by arithmetic. So each step is shown with both, as shares of what was
//! measured on the same machine just before and after, and with its floor: the time that
//! the slower of the two would take alone. (That the distance to the roofline
//! should be in the program's own output is learned from gpt-fast.)
//!
//! The value is written as JSON, described by `schema/bench.schema.json`.

use crate::summary::Tool;
use serde::{Deserialize, Serialize};

/// The version of the form of a bench's JSON.
pub const SCHEMA: &str = "foresail.bench/2";

/// Measured steps of one engine on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What measured.
    pub tool: Tool,
    /// The day, as `2026-11-21`.
    pub measured_on: String,
    /// The command that measured.
    pub command: String,
    /// What was run.
    pub model: Model,
    /// What ran it.
    pub engine: Engine,
    /// How long each stage of starting the engine took, in order.
    pub startup: Vec<Stage>,
    /// What the machine can do.
    pub ceilings: Ceilings,
    /// Steps that only decode.
    pub decode: Vec<DecodeStep>,
    /// Steps of one chunk of one prompt.
    pub prefill: Vec<PrefillStep>,
    /// A batch of whole requests; `null` if none was run.
    pub requests: Option<WholeRequests>,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name: of the folder, or of the shape.
    pub name: String,
    /// Its parameters.
    pub parameters: u64,
}

/// What ran it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// The kind of device: `cpu` or `cuda`.
    pub backend: String,
    /// Which one.
    pub device: String,
    /// Threads of a CPU that compute, of all ranks together; 0 with GPUs.
    pub threads: u32,
    /// Ranks that share the model.
    pub world_size: u32,
    /// Whether only one of them was there, and waited where it would have exchanged: for timing, as its results are wrong.
    pub is_shard_alone: bool,
    /// Number format of the weights.
    pub dtype: String,
    /// Number format of the KV cache.
    pub kv_dtype: String,
    /// Tokens a KV block holds.
    pub block_size: u32,
}

/// A stage of starting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// How long it took (s).
    pub seconds: f64,
}

/// What the machine can do, as measured with as many threads as the engine has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceilings {
    /// Bytes read a second from memory that no cache holds.
    pub read_bytes_per_s: f64,
    /// Floating-point operations a second, a fused multiply-add being two.
    pub flops_per_s: f64,
    /// What those operations are of: `f32` on a CPU, `bf16` in the matrix units of a GPU.
    pub flops_of: Flops,
}

/// What floating-point operations are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flops {
    /// 32-bit floats.
    F32,
    /// Products of 16-bit floats, added in 32 bits.
    Bf16,
}

/// A step that only decodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeStep {
    /// Sequences, each of which computes one token.
    pub batch: u32,
    /// Tokens of each sequence in the KV cache.
    pub context: u64,
    /// What was measured.
    pub figures: Figures,
    /// The same batch going on, step after step; `null` if its blocks had no room for that.
    pub running: Option<RunningSteps>,
}

/// Decode steps that follow each other, each a token further.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningSteps {
    /// How many.
    pub steps: u32,
    /// What one took on average, from its call to the next one's (s).
    pub seconds_mean: f64,
    /// The share of the time in which the device did not compute; `null` if it keeps no count.
    pub idle_share: Option<f64>,
}

/// A step of one chunk of one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefillStep {
    /// Tokens computed.
    pub chunk: u32,
    /// Tokens of the same prompt in the KV cache before.
    pub context: u64,
    /// What was measured.
    pub figures: Figures,
}

/// What a step has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Tokens computed.
    pub tokens: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Floating-point operations, a multiply-add being two.
    pub flops: u64,
}

/// What a step took, and how near that is to what the machine can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// The duration of each repeat, in the order of measuring (s).
    pub seconds: Vec<f64>,
    /// Their median (s).
    pub seconds_median: f64,
    /// From the shortest to the longest, as a share of the median.
    pub spread: f64,
    /// Tokens computed.
    pub tokens: u64,
    /// Tokens computed a second.
    pub tokens_per_s: f64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Bytes a second.
    pub bytes_per_s: f64,
    /// Those as a share of the read ceiling.
    pub read_share: f64,
    /// Floating-point operations, a multiply-add being two.
    pub flops: u64,
    /// Operations a second.
    pub flops_per_s: f64,
    /// Those as a share of the ceiling.
    pub flops_share: f64,
    /// What the step would take if one of its bytes and its operations were all
    /// that it waited for, at the ceiling; the longer of the two (s).
    pub floor_seconds: f64,
    /// The floor as a share of the median: 1 is as fast as the machine can be.
    pub floor_share: f64,
}

/// A batch of whole requests, run through scheduler and driver.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WholeRequests {
    /// Requests, all at the same time.
    pub batch: u32,
    /// Tokens of each prompt.
    pub prompt_tokens: u32,
    /// Tokens that each generated.
    pub output_tokens: u32,
    /// From the first request to the last token (s).
    pub wall_seconds: f64,
    /// Of that, in the backend's steps (s).
    pub step_seconds: f64,
    /// Steps.
    pub steps: u64,
    /// Tokens generated a second.
    pub output_tokens_per_s: f64,
    /// The share of the time outside steps: scheduler, driver and queues.
    pub outside_share: f64,
}

impl Figures {
    /// The figures of some work that took so long each time; `None` if it was never measured.
    #[must_use]
    pub fn of(seconds: Vec<f64>, work: Work, ceilings: &Ceilings) -> Option<Self> {
        let (shortest, seconds_median, longest) = order(&seconds)?;
        let per_s = |amount: u64| amount as f64 / seconds_median;
        let read_seconds = work.bytes as f64 / ceilings.read_bytes_per_s;
        let flops_seconds = work.flops as f64 / ceilings.flops_per_s;
        let floor_seconds = read_seconds.max(flops_seconds);
        Some(Self {
            seconds,
            seconds_median,
            spread: (longest - shortest) / seconds_median,
            tokens: work.tokens,
            tokens_per_s: per_s(work.tokens),
            bytes: work.bytes,
            bytes_per_s: per_s(work.bytes),
            read_share: read_seconds / seconds_median,
            flops: work.flops,
            flops_per_s: per_s(work.flops),
            flops_share: flops_seconds / seconds_median,
            floor_seconds,
            floor_share: floor_seconds / seconds_median,
        })
    }
}

/// The shortest, the median and the longest of durations.
fn order(seconds: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (shortest, longest) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    };
    Some((shortest, median, longest))
}

impl Bench {
    /// As JSON, ending with a newline.
    ///
    /// # Errors
    /// If a figure is not a number, which JSON does not have.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILINGS: Ceilings = Ceilings {
        read_bytes_per_s: 100.0,
        flops_per_s: 1000.0,
        flops_of: Flops::F32,
    };

    fn figures(seconds: &[f64], bytes: u64, flops: u64) -> Figures {
        let work = Work {
            tokens: 8,
            bytes,
            flops,
        };
        Figures::of(seconds.to_vec(), work, &CEILINGS).unwrap()
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_middle_two() {
        assert_eq!(figures(&[9.0, 1.0, 2.0], 0, 0).seconds_median, 2.0);
        assert_eq!(figures(&[9.0, 1.0, 2.0, 4.0], 0, 0).seconds_median, 3.0);
        assert_eq!(figures(&[2.0], 0, 0).seconds_median, 2.0);
        assert!(
            Figures::of(
                Vec::new(),
                Work {
                    tokens: 1,
                    bytes: 1,
                    flops: 1
                },
                &CEILINGS
            )
            .is_none()
        );
    }

    #[test]
    fn the_spread_is_from_the_shortest_to_the_longest() {
        assert_eq!(figures(&[2.0, 1.5, 2.5], 0, 0).spread, 0.5);
    }

    #[test]
    fn the_floor_is_the_slower_of_reading_and_computing() {
        // 2 s of reading, 1 s of arithmetic.
        let bound_by_reading = figures(&[4.0], 200, 1000);
        assert_eq!(bound_by_reading.floor_seconds, 2.0);
        assert_eq!(bound_by_reading.floor_share, 0.5);
        assert_eq!(bound_by_reading.read_share, 0.5);
        assert_eq!(bound_by_reading.flops_share, 0.25);
        let bound_by_arithmetic = figures(&[4.0], 100, 3000);
        assert_eq!(bound_by_arithmetic.floor_seconds, 3.0);
        assert_eq!(bound_by_arithmetic.tokens_per_s, 2.0);
        assert_eq!(bound_by_arithmetic.bytes_per_s, 25.0);
        assert_eq!(bound_by_arithmetic.flops_per_s, 750.0);
    }
}
