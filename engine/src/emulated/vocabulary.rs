//! The tokens of an emulated device: a counter.

use std::f32::consts::LN_2;
use std::ops::Range;

use crate::backend::{Row, RowOutput};
use crate::sampling::{Context, Logprobs, Sampled};

/// The tokens that an emulated device says, and those that it never says by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    said: Range<u32>,
    never: Vec<u32>,
}

/// Why there is nothing to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an emulated model needs a token to say: there is none in {said:?} that does not end a text"
)]
pub struct VocabularyError {
    /// The tokens that may be said.
    said: Range<u32>,
}

impl Vocabulary {
    /// Says the tokens of `said`, but never one of `never`, which end a text.
    /// With a tokenizer, `said` is best a range of tokens that are readable alone.
    ///
    /// # Errors
    /// If no token is left.
    pub fn new(said: Range<u32>, never: Vec<u32>) -> Result<Self, VocabularyError> {
        if said.clone().all(|token| never.contains(&token)) {
            return Err(VocabularyError { said });
        }
        Ok(Self { said, never })
    }

    /// What comes of a row, but for the time that it takes.
    pub(super) fn output(&self, row: &Row<'_>) -> RowOutput {
        let logprobs = row.prompt_logprobs.map(|top| {
            let told = row.known.iter().skip(row.past + 1).take(row.len);
            told.map(|token| self.logprobs(*token, top)).collect()
        });
        RowOutput {
            prompt_logprobs: logprobs.unwrap_or_default(),
            sampled: row.sample.as_ref().map(|context| self.sample(row, context)),
            failure: None,
        }
    }

    fn sample(&self, row: &Row<'_>, context: &Context<'_>) -> Sampled {
        let last = row.known.last().copied().unwrap_or(0);
        let token = self.next(last, context.banned);
        Sampled {
            token,
            logprobs: context
                .sampling
                .logprobs
                .map(|top| self.logprobs(token, top)),
        }
    }

    /// The token after `last` that may be said. If all are banned, the first that
    /// does not end a text: a text has to go on with something.
    fn next(&self, last: u32, banned: &[u32]) -> u32 {
        let width = u64::from(self.said.end - self.said.start);
        let place = u64::from(last.wrapping_sub(self.said.start)) % width;
        let round = (1..=width).map(|ahead| self.said.start + ((place + ahead) % width) as u32);
        let mut sayable = round.filter(|token| !self.never.contains(token));
        let first = sayable.next();
        let unbanned = first
            .into_iter()
            .chain(sayable)
            .find(|token| !banned.contains(token));
        unbanned.or(first).unwrap_or(self.said.start)
    }

    /// The token is the likeliest, and those after it follow: halves of what is left.
    fn logprobs(&self, token: u32, top: u32) -> Logprobs {
        let mut likeliest = Vec::new();
        let mut next = token;
        for place in 1..=top {
            likeliest.push((next, -LN_2 * place as f32));
            next = self.next(next, &[]);
        }
        Logprobs {
            token,
            logprob: -LN_2,
            rank: 1,
            top: likeliest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Sampling;

    #[test]
    fn it_counts_round_and_leaves_out_what_ends_a_text() {
        let vocabulary = Vocabulary::new(10..15, vec![12]).unwrap();
        let mut said = vec![10];
        for _ in 0..6 {
            said.push(vocabulary.next(*said.last().unwrap(), &[]));
        }
        assert_eq!(said, [10, 11, 13, 14, 10, 11, 13]);
        assert_eq!(vocabulary.next(11, &[13, 14]), 10);
        assert_eq!(vocabulary.next(14, &[10, 11, 13, 14]), 10, "it goes on");
        for from in [0, 9, 15, u32::MAX] {
            let next = vocabulary.next(from, &[]);
            assert!((10..15).contains(&next) && next != 12, "{from} then {next}");
        }
    }

    #[test]
    fn it_needs_something_to_say() {
        assert!(Vocabulary::new(3..3, vec![]).is_err());
        let error = Vocabulary::new(3..5, vec![4, 3]).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"an emulated model needs a token to say: there is none in 3..5 that does not end a text");
    }

    #[test]
    fn log_probabilities_are_of_the_tokens_that_the_step_passes() {
        let vocabulary = Vocabulary::new(0..50, vec![]).unwrap();
        let sampling = Sampling {
            logprobs: Some(2),
            ..Sampling::default()
        };
        let known = [5, 9, 7, 3];
        let row = Row {
            known: &known,
            past: 1,
            len: 3,
            table: &[],
            adapter: None,
            prompt_logprobs: Some(0),
            sample: Some(Context {
                sampling: &sampling,
                prompt: &known,
                generated: &[],
                banned: &[],
            }),
        };
        let output = vocabulary.output(&row);
        let told: Vec<_> = output
            .prompt_logprobs
            .iter()
            .map(|told| told.token)
            .collect();
        assert_eq!(told, [7, 3]);
        let sampled = output.sampled.unwrap();
        let logprobs = sampled.logprobs.unwrap();
        assert_eq!((sampled.token, logprobs.token, logprobs.rank), (4, 4, 1));
        let sum: f32 = logprobs.top.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((sum - 0.75).abs() < 1e-6, "{:?}", logprobs.top);
    }
}
