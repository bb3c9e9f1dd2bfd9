//! One shard of a world, alone on one device.
//!
//! It does one rank's work with one rank's shapes, and waits where it would
//! exchange. That gives the time of a step at a world size for which there are
//! not enough devices. **Its numbers are not those of the model**: sums lack the
//! other ranks' parts, and the logits of their part of the vocabulary are
//! missing. What the wait leaves out: that ranks are not equally fast, and that
//! an exchange takes bandwidth and cores from what runs beside it.

use std::time::{Duration, Instant};

use foresail_core::step_time::AllReduce;

use super::Comm;
use crate::config::Partition;

/// A sleeping thread wakes up late, by tens of microseconds; the last part of a wait is spun.
const WAKE_UP_LATENESS: Duration = Duration::from_micros(200);

/// One rank whose exchanges take their time and exchange nothing.
#[derive(Clone, Debug)]
pub struct Modelled {
    partition: Partition,
    vocab_size: usize,
    bytes_per_value: u64,
    all_reduce: AllReduce,
}

/// Why exchanges cannot be timed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelledError {
    /// The times are those of other world sizes.
    #[error("there are no all-reduce times for world size {world_size}; there are for {known:?}")]
    WorldSize {
        /// What was asked for.
        world_size: usize,
        /// What the table has.
        known: Vec<u32>,
    },
}

impl Modelled {
    /// Rank `partition.rank` of a model with `vocab_size` tokens, whose
    /// exchanges would take `all_reduce`'s times with `bytes_per_value` bytes
    /// for each value (2 where activations are bf16).
    ///
    /// # Errors
    /// If `all_reduce` does not know the world size.
    pub fn new(
        partition: Partition,
        vocab_size: usize,
        all_reduce: AllReduce,
        bytes_per_value: u64,
    ) -> Result<Self, ModelledError> {
        let world_size = partition.world_size;
        let known = u32::try_from(world_size).ok();
        if known.and_then(|size| all_reduce.seconds(size, 0)).is_none() {
            let sizes = all_reduce.by_world_size.iter().map(|(size, _)| *size);
            return Err(ModelledError::WorldSize {
                world_size,
                known: sizes.collect(),
            });
        }
        Ok(Self {
            partition,
            vocab_size,
            bytes_per_value,
            all_reduce,
        })
    }

    /// The same with exchanges that take no time.
    #[must_use]
    pub fn free(partition: Partition, vocab_size: usize) -> Self {
        Self {
            partition,
            vocab_size,
            bytes_per_value: 0,
            all_reduce: AllReduce::free(partition.world_size as u32),
        }
    }

    /// How long the all-reduce of so many values takes.
    #[must_use]
    pub fn duration(&self, values: usize) -> Duration {
        let bytes = values as u64 * self.bytes_per_value;
        let seconds = self
            .all_reduce
            .seconds(self.partition.world_size as u32, bytes);
        Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or(Duration::MAX)
    }
}

impl Comm for Modelled {
    fn partition(&self) -> Partition {
        self.partition
    }

    fn modelled(&self) -> Option<&Modelled> {
        Some(self)
    }

    /// Waits as long as the sum would take, and leaves the values as they are.
    fn all_reduce(&mut self, values: &mut [f32]) {
        wait(self.duration(values.len()));
    }

    /// Puts the part at its place among the vocabulary, and minus infinity, which
    /// is never sampled, at the others'. It waits for nothing: in
    /// [`foresail_core::step_time::Roofline`], too, gathering logits is part of
    /// what a sequence's sampling takes.
    fn gather(&mut self, rows: usize, part: &[f32], whole: &mut Vec<f32>) {
        whole.clear();
        let own = |rank| {
            let partition = Partition {
                rank,
                ..self.partition
            };
            partition.part(self.vocab_size)
        };
        let mine = own(self.partition.rank);
        assert_eq!(
            part.len(),
            rows * mine.len(),
            "only logits are gathered here"
        );
        whole.resize(rows * self.vocab_size, f32::NEG_INFINITY);
        for (row, part) in part.chunks_exact(mine.len().max(1)).enumerate() {
            let first = row * self.vocab_size + mine.start;
            whole[first..first + mine.len()].copy_from_slice(part);
        }
    }
}

fn wait(duration: Duration) {
    let began = Instant::now();
    if let Some(asleep) = duration.checked_sub(WAKE_UP_LATENESS) {
        std::thread::sleep(asleep);
    }
    while began.elapsed() < duration {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_core::step_time::Gpu;

    fn rank_1_of_2() -> Modelled {
        let partition = Partition {
            rank: 1,
            world_size: 2,
        };
        Modelled::new(partition, 5, Gpu::h200().all_reduce, 2).unwrap()
    }

    #[test]
    fn a_sum_takes_at_least_the_time_of_the_model_and_changes_nothing() {
        let mut comm = rank_1_of_2();
        let mut values = vec![1.5; 1 << 20];
        let expected = Gpu::h200().all_reduce.seconds(2, 2 << 20).unwrap();
        assert_eq!(
            comm.duration(values.len()),
            Duration::from_secs_f64(expected)
        );
        let began = Instant::now();
        comm.all_reduce(&mut values);
        assert!(began.elapsed().as_secs_f64() >= expected);
        assert!(values.iter().all(|value| *value == 1.5));
    }

    #[test]
    fn a_free_sum_takes_no_time() {
        let partition = Partition {
            rank: 2,
            world_size: 3,
        };
        assert_eq!(
            Modelled::free(partition, 5).duration(1 << 30),
            Duration::ZERO
        );
    }

    #[test]
    fn the_other_ranks_tokens_are_never_the_most_likely() {
        let mut whole = vec![0.0];
        // Rank 1 of 2 has tokens 2, 3 and 4 of 5.
        rank_1_of_2().gather(2, &[-1.0, -2.0, -3.0, 4.0, 5.0, 6.0], &mut whole);
        let none = f32::NEG_INFINITY;
        assert_eq!(
            whole,
            [none, none, -1.0, -2.0, -3.0, none, none, 4.0, 5.0, 6.0]
        );
    }

    #[test]
    fn an_unknown_world_size_is_refused_with_those_known() {
        let partition = Partition {
            rank: 0,
            world_size: 3,
        };
        let error = Modelled::new(partition, 5, Gpu::h200().all_reduce, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there are no all-reduce times for world size 3; there are for [2, 4, 8]"
        );
    }
}
