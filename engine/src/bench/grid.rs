//! Which steps are measured, and the memory that they need.

use crate::config::ModelConfig;

/// A step of one kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every sequence computes one token and samples the next.
    Decode {
        /// Sequences.
        batch: usize,
        /// Tokens of each in the KV cache before the step.
        context: usize,
    },
    /// The last chunk of one prompt, after which a token is sampled.
    Prefill {
        /// Tokens computed.
        chunk: usize,
        /// Tokens of the prompt in the KV cache before the step.
        context: usize,
    },
}

/// The steps to measure, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    batches: Vec<usize>,
    contexts: Vec<usize>,
    chunks: Vec<usize>,
    repeats: usize,
}

/// The engine that a grid needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Sequences in the largest step.
    pub max_num_seqs: usize,
    /// Tokens in the largest step.
    pub max_batched_tokens: usize,
    /// Tokens of the longest sequence.
    pub max_model_len: usize,
    /// KV blocks.
    pub num_blocks: usize,
}

/// Why steps cannot be measured. Lists are called as the options of the command are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GridError {
    /// A list has a zero.
    #[error("{list} must be at least 1, got 0")]
    Zero {
        /// Which list.
        list: &'static str,
    },
    /// A list has a number twice.
    #[error("{list} has {value} twice; name each once")]
    Repeated {
        /// Which list.
        list: &'static str,
        /// The number.
        value: usize,
    },
    /// Nothing would be measured.
    #[error(
        "there is nothing to measure; name at least one batch with a context, or at least one chunk"
    )]
    Nothing,
    /// More than a machine of any kind holds.
    #[error("{list} must be at most {most}, got {value}")]
    TooLarge {
        /// Which list.
        list: &'static str,
        /// The number.
        value: usize,
        /// The largest that is taken.
        most: usize,
    },
    /// Longer than the model was made for.
    #[error(
        "a context of {context} and {new} more tokens are more than the {max_position_embeddings} \
         that the model was made for; shorten the longest context, or the longest chunk"
    )]
    BeyondModel {
        /// The longest context.
        context: usize,
        /// Tokens computed after it.
        new: usize,
        /// The model's longest context.
        max_position_embeddings: usize,
    },
}

/// Far beyond what steps are, so that sizes made of two of these do not overflow.
const VALUE_MAX: usize = 1 << 20;

impl Grid {
    /// Decode steps of every batch at every context, and chunks of every size
    /// without context and after every context, each `repeats` times.
    ///
    /// # Errors
    /// If a list has a zero or a number twice, or there is nothing to measure.
    pub fn new(
        batches: Vec<usize>,
        contexts: Vec<usize>,
        chunks: Vec<usize>,
        repeats: usize,
    ) -> Result<Self, GridError> {
        let lists = [
            ("batch", &batches),
            ("context", &contexts),
            ("chunk", &chunks),
            ("repeats", &vec![repeats]),
        ];
        for (list, values) in lists {
            check(list, values)?;
        }
        let grid = Self {
            batches,
            contexts,
            chunks,
            repeats,
        };
        if grid.steps().is_empty() {
            return Err(GridError::Nothing);
        }
        Ok(grid)
    }

    /// Checks that the model has positions for the longest sequence.
    ///
    /// # Errors
    /// If it has not.
    pub fn check_model(&self, config: &ModelConfig) -> Result<(), GridError> {
        let (context, new) = (self.context_max(), self.chunk_max().max(1));
        if context + new > config.max_position_embeddings {
            return Err(GridError::BeyondModel {
                context,
                new,
                max_position_embeddings: config.max_position_embeddings,
            });
        }
        Ok(())
    }

    /// Whether what is measured makes a profile, which needs steps of both kinds, and batch 1.
    #[must_use]
    pub fn has_profile(&self) -> bool {
        self.batches.contains(&1) && !self.contexts.is_empty() && !self.chunks.is_empty()
    }

    /// How often each step is timed.
    #[must_use]
    pub fn repeats(&self) -> usize {
        self.repeats
    }

    /// The steps, in the order in which they are measured.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let decode = self.batches.iter().flat_map(|&batch| {
            let contexts = self.contexts.iter();
            contexts.map(move |&context| Step::Decode { batch, context })
        });
        let prefill = self.chunks.iter().flat_map(|&chunk| {
            let contexts = [0].into_iter().chain(self.contexts.iter().copied());
            contexts.map(move |context| Step::Prefill { chunk, context })
        });
        decode.chain(prefill).collect()
    }

    /// Sequences of the largest decode step, at least one.
    #[must_use]
    pub fn batch_max(&self) -> usize {
        self.batches.iter().copied().max().unwrap_or(1)
    }

    /// Tokens of the longest context.
    #[must_use]
    pub fn context_max(&self) -> usize {
        self.contexts.iter().copied().max().unwrap_or(0)
    }

    /// Tokens of the longest chunk.
    #[must_use]
    pub fn chunk_max(&self) -> usize {
        self.chunks.iter().copied().max().unwrap_or(0)
    }

    /// What an engine must have room for, with KV blocks of so many tokens.
    #[must_use]
    pub fn room(&self, block_size: usize) -> Room {
        let (batch, context, chunk) = (self.batch_max(), self.context_max(), self.chunk_max());
        let decode_blocks = batch * (context + 1).div_ceil(block_size);
        let prefill_blocks = (context + chunk).div_ceil(block_size);
        Room {
            max_num_seqs: batch,
            max_batched_tokens: batch.max(chunk),
            max_model_len: context + chunk.max(1),
            num_blocks: decode_blocks.max(prefill_blocks),
        }
    }
}

fn check(list: &'static str, values: &[usize]) -> Result<(), GridError> {
    for (index, &value) in values.iter().enumerate() {
        if value == 0 {
            return Err(GridError::Zero { list });
        }
        if value > VALUE_MAX {
            let most = VALUE_MAX;
            return Err(GridError::TooLarge { list, value, most });
        }
        if values[..index].contains(&value) {
            return Err(GridError::Repeated { list, value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(batches: &[usize], contexts: &[usize], chunks: &[usize], repeats: usize) -> String {
        let grid = Grid::new(batches.into(), contexts.into(), chunks.into(), repeats);
        grid.unwrap_err().to_string()
    }

    #[test]
    fn chunks_are_measured_without_context_too() {
        let grid = Grid::new(vec![1, 4], vec![128], vec![32], 3).unwrap();
        assert_eq!(
            grid.steps(),
            [
                Step::Decode {
                    batch: 1,
                    context: 128
                },
                Step::Decode {
                    batch: 4,
                    context: 128
                },
                Step::Prefill {
                    chunk: 32,
                    context: 0
                },
                Step::Prefill {
                    chunk: 32,
                    context: 128
                },
            ]
        );
    }

    #[test]
    fn there_is_room_for_the_largest_of_each_kind() {
        let room = |batch, context, chunk| {
            let grid = Grid::new(vec![1, batch], vec![context], vec![chunk], 1).unwrap();
            grid.room(16)
        };
        // Four sequences of 33 tokens, three blocks each.
        assert_eq!(
            room(4, 32, 8),
            Room {
                max_num_seqs: 4,
                max_batched_tokens: 8,
                max_model_len: 40,
                num_blocks: 12
            }
        );
        // One sequence of 532 tokens.
        assert_eq!(room(2, 32, 500).num_blocks, 34);
        assert_eq!(room(64, 1, 8).max_batched_tokens, 64);
    }

    #[test]
    fn what_cannot_be_measured_is_named() {
        assert_eq!(error(&[0], &[1], &[], 1), "batch must be at least 1, got 0");
        assert_eq!(
            error(&[1], &[1], &[], 0),
            "repeats must be at least 1, got 0"
        );
        assert_eq!(
            error(&[1], &[8, 8], &[], 1),
            "context has 8 twice; name each once"
        );
        assert_eq!(
            error(&[1], &[1], &[usize::MAX], 1),
            "chunk must be at most 1048576, got 18446744073709551615"
        );
        assert!(error(&[1], &[], &[], 1).starts_with("there is nothing to measure"));
    }
}
