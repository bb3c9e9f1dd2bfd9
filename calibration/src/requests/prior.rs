//! What is assumed of the terms before anything is measured.
//!
//! From outside an engine, no run tells all terms apart. Each has a log-normal prior: a median, and how far
//! off that may be. Where the measurements say nothing, the prior stays, and the fit says so; with
//! a model and a GPU that are known, the medians are those of a [`Roofline`], and closer.

use foresail_core::step_time::Roofline;
use foresail_core::step_time::calibrated::{Factor, Formula, Terms};

use super::Run;
use super::figures::Figure;

/// Medians and spreads of the terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    /// The medians, and what is not fitted: factors and exchanges.
    formula: Formula,
    /// Standard deviation of the natural logarithm of each term, in the order of [`Terms::names`]; a
    /// term is held where it is if this is 0.
    ln_deviations: Vec<f64>,
}

impl Prior {
    /// For an engine of which nothing is known but what its runs show: each term as a share of the shortest
    /// time a token took, wide enough to be off by an order of magnitude.
    #[must_use]
    pub fn generic(runs: &[Run]) -> Self {
        let scale = Scale::of(runs);
        let step_s = scale.step_s;
        Self::of(&[
            ("launch_s", 0.2 * step_s, 1.5),
            ("weights_s", 0.6 * step_s, 1.5),
            ("token_s", 0.5 * scale.prompt_token_s, 1.5),
            ("sequence_s", 0.01 * step_s, 2.0),
            ("kv_token_s", 0.1 * step_s / scale.context, 2.0),
            ("pair_s", 0.1 * scale.prompt_token_s / scale.context, 2.0),
            ("chunk_kv_token_s", 0.02 * step_s / scale.context, 2.0),
            ("chunk_s", 0.02 * step_s, 2.0),
            ("mixed_s", 0.02 * step_s, 2.0),
            ("request_s", 0.1 * scale.ttft_s, 2.0),
            ("prompt_token_s", 0.01 * scale.prompt_token_s, 2.0),
        ])
    }

    /// For a model and a GPU that are known. The spreads are several times those of the GPU's figures
    /// ([`EfficiencySpread`](foresail_core::step_time::EfficiencySpread)), which are of engines that were
    /// measured: a quarter for reading weights, a third for arithmetic, twice as much for what the
    /// host does. This engine may be any, set up in any way, and a prior that is too sure of itself would
    /// outweigh what it shows.
    #[must_use]
    pub fn of_roofline(roofline: &Roofline) -> Self {
        let formula = roofline.formula();
        let Terms {
            launch_s,
            weights_s,
            token_s,
            sequence_s,
            kv_token_s,
            pair_s,
            chunk_kv_token_s,
            ..
        } = formula.terms;
        let step_s = launch_s + weights_s;
        let prior = Self::of(&[
            ("launch_s", launch_s, 0.7),
            ("weights_s", weights_s, 0.25),
            ("token_s", token_s, 0.35),
            ("sequence_s", sequence_s.max(1e-3 * step_s), 1.0),
            ("kv_token_s", kv_token_s, 0.35),
            ("pair_s", pair_s, 0.5),
            ("chunk_kv_token_s", chunk_kv_token_s, 1.0),
            ("chunk_s", 0.02 * step_s, 2.0),
            ("mixed_s", 0.02 * step_s, 2.0),
            // A few milliseconds of HTTP, templates and queues of processes.
            ("request_s", 5e-3, 1.5),
            // Tokenizers take about a microsecond a token.
            ("prompt_token_s", 1e-6, 1.5),
        ]);
        Self {
            formula: Formula {
                terms: prior.formula.terms,
                ..formula
            },
            ..prior
        }
    }

    /// Another median and spread for the term of this name; with a spread of 0 it is held there.
    /// Says whether there is such a term.
    pub fn set(&mut self, name: &str, median_s: f64, ln_deviation: f64) -> bool {
        let place = Terms::names().position(|known| known == name);
        if let Some(place) = place {
            self.ln_deviations[place] = ln_deviation;
        }
        self.formula.terms.set(name, median_s)
    }

    /// The medians, and what is not fitted.
    #[must_use]
    pub fn formula(&self) -> &Formula {
        &self.formula
    }

    /// The places of the terms that are fitted, each with the median of its logarithm and its spread.
    pub(super) fn free(&self) -> Vec<Free> {
        let medians = self.formula.terms.to_vec().into_iter();
        let all = medians.zip(&self.ln_deviations).enumerate();
        let free = all.filter(|(_, (median, deviation))| *median > 0.0 && **deviation > 0.0);
        free.map(|(term, (median, deviation))| Free {
            term,
            ln_median: libm::log(median),
            ln_deviation: *deviation,
        })
        .collect()
    }

    /// Whether all numbers can be used.
    pub(super) fn is_sound(&self) -> bool {
        let medians = self.formula.terms.to_vec();
        let mut numbers = medians.iter().chain(&self.ln_deviations);
        numbers.all(|number| number.is_finite() && *number >= 0.0)
    }

    fn of(terms: &[(&str, f64, f64)]) -> Self {
        let formula = Formula {
            terms: Terms::default(),
            token_factor: Factor::default(),
            kv_factor: Factor::default(),
            all_reduce: None,
        };
        let mut prior = Self {
            formula,
            ln_deviations: vec![0.0; Terms::count()],
        };
        for (name, median_s, ln_deviation) in terms {
            prior.set(name, *median_s, *ln_deviation);
        }
        prior
    }
}

/// A term that is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Free {
    /// Its place among all.
    pub(super) term: usize,
    /// Logarithm of its median before anything is measured.
    pub(super) ln_median: f64,
    /// How far that may be off.
    pub(super) ln_deviation: f64,
}

/// The sizes of things, from the runs.
struct Scale {
    /// The shortest time a token took.
    step_s: f64,
    /// The shortest time to a first token.
    ttft_s: f64,
    /// The shortest time to a first token, a token of the prompt.
    prompt_token_s: f64,
    /// Mean tokens of a request.
    context: f64,
}

impl Scale {
    fn of(runs: &[Run]) -> Self {
        let mut scale = Self {
            step_s: f64::INFINITY,
            ttft_s: f64::INFINITY,
            prompt_token_s: f64::INFINITY,
            context: 0.0,
        };
        let mut requests = 0.0;
        for run in runs {
            let (prompt, output) = mean_tokens(run);
            let count = run.traffic.requests().len() as f64;
            scale.context += (prompt + 0.5 * output) * count;
            requests += count;
            for observed in &run.observed {
                let value = observed.value;
                match observed.figure {
                    Figure::Ttft(_) => {
                        scale.ttft_s = scale.ttft_s.min(value);
                        scale.prompt_token_s = scale.prompt_token_s.min(value / prompt);
                    }
                    Figure::Tpot(_) | Figure::ItlMean => scale.step_s = scale.step_s.min(value),
                    Figure::EndToEnd(_) => {
                        scale.step_s = scale.step_s.min(value / output);
                        scale.prompt_token_s = scale.prompt_token_s.min(value / prompt);
                    }
                    // A step gives each of a batch a token, so a token's share bounds nothing.
                    Figure::RequestsPerSecond | Figure::OutputTokensPerSecond => {}
                }
            }
        }
        scale.context = f64::max(scale.context / f64::max(requests, 1.0), 1.0);
        scale.completed()
    }

    /// Where a kind of figure is missing, the others say what size of number to expect.
    fn completed(mut self) -> Self {
        let known = [self.step_s, self.ttft_s];
        // A hundredth of a second, if only rates are known: between a small GPU step and a large one.
        let fallback = known.into_iter().find(|value| value.is_finite());
        let fallback = fallback.unwrap_or(1e-2);
        for value in [&mut self.step_s, &mut self.ttft_s] {
            if !value.is_finite() {
                *value = fallback;
            }
        }
        if !self.prompt_token_s.is_finite() {
            self.prompt_token_s = self.step_s / 50.0;
        }
        self
    }
}

fn mean_tokens(run: &Run) -> (f64, f64) {
    let requests = run.traffic.requests();
    let count = requests.len().max(1) as f64;
    let prompt: u64 = requests
        .iter()
        .map(|each| u64::from(each.prompt_tokens))
        .sum();
    let output: u64 = requests
        .iter()
        .map(|each| u64::from(each.output_tokens))
        .sum();
    (
        f64::max(prompt as f64 / count, 1.0),
        f64::max(output as f64 / count, 1.0),
    )
}
