//! The workload that both simulators get: plain rows, drawn once.

use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::random::stream;

/// A request, before anything has served it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// When it is sent, since the start of the run (ns).
    pub(crate) due_ns: u64,
    /// Tokens in the prompt, at least 1.
    pub(crate) prompt_tokens: u32,
    /// Tokens to generate, at least 1.
    pub(crate) output_tokens: u32,
}

/// What the rows are drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// How many requests.
    pub(crate) requests: usize,
    /// Mean arrivals of the Poisson process (1/s).
    pub(crate) rate_per_s: f64,
    /// Seed of the three streams: gaps, prompts and outputs.
    pub(crate) seed: u64,
}

/// Mean prompt, the one that published runs of this field's simulators share (tokens).
const PROMPT_TOKENS_MEAN: f64 = 512.0;
/// Mean output of the same runs (tokens).
const OUTPUT_TOKENS_MEAN: f64 = 256.0;
/// Coefficient of variation of both lengths.
const LENGTH_CV: f64 = 1.0;

impl Traffic {
    /// Draws the rows, in order of their due times.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let gap = Distribution::Exponential {
            mean: 1e9 / self.rate_per_s,
        };
        let prompt = Distribution::log_normal_mean(PROMPT_TOKENS_MEAN, LENGTH_CV);
        let output = Distribution::log_normal_mean(OUTPUT_TOKENS_MEAN, LENGTH_CV);
        let mut gaps = stream(self.seed, "peers.gaps");
        let mut prompts = stream(self.seed, "peers.prompts");
        let mut outputs = stream(self.seed, "peers.outputs");
        let mut due_ns = 0;
        (0..self.requests)
            .map(|_| {
                due_ns += gap.sample(&mut gaps).round() as u64;
                Row {
                    due_ns,
                    prompt_tokens: tokens(prompt.sample(&mut prompts)),
                    output_tokens: tokens(output.sample(&mut outputs)),
                }
            })
            .collect()
    }
}

/// A drawn length as a whole number of tokens; a request has at least one.
fn tokens(length: f64) -> u32 {
    (length.round() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(seed: u64) -> Traffic {
        Traffic {
            requests: 20_000,
            rate_per_s: 32.0,
            seed,
        }
    }

    fn mean_and_cv(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn rows_have_the_promised_rate_and_lengths() {
        let rows = traffic(1).rows();
        let gaps: Vec<f64> = rows
            .windows(2)
            .map(|pair| (pair[1].due_ns - pair[0].due_ns) as f64 / 1e9)
            .collect();
        let prompts: Vec<f64> = rows.iter().map(|row| row.prompt_tokens.into()).collect();
        let outputs: Vec<f64> = rows.iter().map(|row| row.output_tokens.into()).collect();
        for (values, mean_expected) in [(gaps, 1.0 / 32.0), (prompts, 512.0), (outputs, 256.0)] {
            let (mean, cv) = mean_and_cv(&values);
            assert!((mean / mean_expected - 1.0).abs() < 0.03, "mean {mean}");
            assert!((cv - 1.0).abs() < 0.06, "coefficient of variation {cv}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_rows_and_another_seed_others() {
        assert_eq!(traffic(1).rows(), traffic(1).rows());
        assert_ne!(traffic(1).rows(), traffic(2).rows());
    }
}
