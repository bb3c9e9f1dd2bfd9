//! What a request may ask of the sampler.

use super::Sampling;

/// Most log-probabilities of the most likely tokens, unless a server allows
/// more: OpenAI's limit for chats, and vLLM's default (`--max-logprobs`).
pub const LOGPROBS_MAX: u32 = 20;

/// A parameter that is out of its range. The ranges are those of OpenAI's API,
/// and of vLLM for what only it has (`SamplingParams._verify_args`, vllm/sampling_params.py).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A number that is too small, too large, or not a number.
    #[error("{parameter} must be {range}, got {value}")]
    OutOfRange {
        /// Which, with OpenAI's and vLLM's name.
        parameter: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it is.
        value: f32,
    },
    /// More log-probabilities than are given.
    #[error("logprobs must be at most {most}, got {value}")]
    Logprobs {
        /// The most.
        most: u32,
        /// What was asked for.
        value: u32,
    },
    /// A bias for a token that the model does not have.
    #[error("logit_bias has token {token}, which is not in the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Tokens there are.
        vocab_size: usize,
    },
}

impl SamplingError {
    /// The parameter that is wrong, as OpenAI's API calls it.
    #[must_use]
    pub fn parameter(&self) -> &'static str {
        match self {
            Self::OutOfRange { parameter, .. } => parameter,
            Self::Logprobs { .. } => "logprobs",
            Self::UnknownToken { .. } => "logit_bias",
        }
    }
}

impl Sampling {
    /// Checks what a request asks for, with at most [`LOGPROBS_MAX`] log-probabilities.
    ///
    /// # Errors
    /// With the first parameter that is out of its range.
    pub fn validate(&self, vocab_size: usize) -> Result<(), SamplingError> {
        self.validate_with(vocab_size, LOGPROBS_MAX)
    }

    /// The same with another limit of log-probabilities.
    ///
    /// # Errors
    /// With the first parameter that is out of its range.
    pub fn validate_with(&self, vocab_size: usize, logprobs_max: u32) -> Result<(), SamplingError> {
        let parameters = [
            (
                "temperature",
                self.temperature,
                "between 0 and 2",
                (0.0..=2.0).contains(&self.temperature),
            ),
            (
                "top_p",
                self.top_p,
                "above 0 and at most 1",
                self.top_p > 0.0 && self.top_p <= 1.0,
            ),
            (
                "min_p",
                self.min_p,
                "between 0 and 1",
                (0.0..=1.0).contains(&self.min_p),
            ),
            (
                "presence_penalty",
                self.presence_penalty,
                "between -2 and 2",
                (-2.0..=2.0).contains(&self.presence_penalty),
            ),
            (
                "frequency_penalty",
                self.frequency_penalty,
                "between -2 and 2",
                (-2.0..=2.0).contains(&self.frequency_penalty),
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                "above 0",
                self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite(),
            ),
        ];
        if let Some((parameter, value, range, _)) = parameters.into_iter().find(|(.., fits)| !fits)
        {
            return Err(SamplingError::OutOfRange {
                parameter,
                range,
                value,
            });
        }
        if let Some(value) = self.logprobs.filter(|&logprobs| logprobs > logprobs_max) {
            return Err(SamplingError::Logprobs {
                most: logprobs_max,
                value,
            });
        }
        self.logit_bias
            .iter()
            .try_for_each(|&bias| valid_bias(bias, vocab_size))
    }
}

fn valid_bias((token, bias): (u32, f32), vocab_size: usize) -> Result<(), SamplingError> {
    if token as usize >= vocab_size {
        return Err(SamplingError::UnknownToken { token, vocab_size });
    }
    if !(-100.0..=100.0).contains(&bias) {
        return Err(SamplingError::OutOfRange {
            parameter: "logit_bias",
            range: "between -100 and 100",
            value: bias,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn message(change: impl FnOnce(&mut Sampling)) -> String {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        sampling.validate(10).unwrap_err().to_string()
    }

    #[test]
    fn defaults_and_limits_are_valid() {
        let limits = Sampling {
            temperature: 2.0,
            top_k: u32::MAX,
            top_p: 1e-9,
            min_p: 1.0,
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            repetition_penalty: 1e-9,
            logit_bias: vec![(9, -100.0), (0, 100.0)],
            seed: u64::MAX,
            logprobs: Some(20),
        };
        for sampling in [Sampling::default(), limits] {
            assert_eq!(sampling.validate(10), Ok(()));
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let messages = [
            message(|sampling| sampling.temperature = -0.1),
            message(|sampling| sampling.temperature = f32::NAN),
            message(|sampling| sampling.top_p = 0.0),
            message(|sampling| sampling.min_p = 1.5),
            message(|sampling| sampling.presence_penalty = 2.5),
            message(|sampling| sampling.frequency_penalty = f32::NEG_INFINITY),
            message(|sampling| sampling.repetition_penalty = 0.0),
            message(|sampling| sampling.logprobs = Some(21)),
            message(|sampling| sampling.logit_bias = vec![(10, 0.0)]),
            message(|sampling| sampling.logit_bias = vec![(3, 101.0)]),
        ];
        insta::assert_snapshot!(messages.join("\n"), @r"
        temperature must be between 0 and 2, got -0.1
        temperature must be between 0 and 2, got NaN
        top_p must be above 0 and at most 1, got 0
        min_p must be between 0 and 1, got 1.5
        presence_penalty must be between -2 and 2, got 2.5
        frequency_penalty must be between -2 and 2, got -inf
        repetition_penalty must be above 0, got 0
        logprobs must be at most 20, got 21
        logit_bias has token 10, which is not in the vocabulary of 10
        logit_bias must be between -100 and 100, got 101
        ");
    }
}
