//! Limits of the batches that are not known: several are tried.

use foresail_core::batching::Config;
use foresail_core::step_time::calibrated::BatchingLimits;

use super::marquardt::{Point, Search};
use super::problem::Problem;
use super::{FitError, ITERATIONS_MAX, ITERATIONS_NEAR, Options};

/// Limits whose objective is larger by less than this are as likely: twice the logarithm of
/// a likelihood ratio, which is 3.84 at 95 % for one parameter (Wilks, 1938).
const AS_LIKELY: f64 = 3.84;

/// What came of trying.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    /// The best.
    pub(super) batching: Config,
    /// The terms that were found with it.
    pub(super) point: Point,
    /// Sequences of a batch that are as likely, if that was looked for.
    max_num_seqs: Vec<u32>,
    /// Tokens of a step that are as likely, if that was looked for.
    max_batched_tokens: Vec<u32>,
}

/// Tries all combinations; the terms are looked for with each, from where the last ended.
pub(super) fn search(problem: Problem<'_>, options: &Options) -> Result<Tried, FitError> {
    let candidates = candidates(options);
    let mut all: Vec<(Config, Point)> = Vec::with_capacity(candidates.len());
    for batching in candidates {
        let search = Search::new(Problem {
            batching,
            ..problem
        });
        let (start, iterations) = match best(&all) {
            None => (search.start()?, ITERATIONS_MAX),
            Some((_, point)) => (search.at(point.ln_terms.clone())?, ITERATIONS_NEAR),
        };
        // With a single candidate, whoever asked goes on from the start.
        let is_only = options.max_num_seqs.len() <= 1 && options.max_batched_tokens.len() <= 1;
        let point = match is_only {
            true => start,
            false => search.descend(start, iterations)?.0,
        };
        all.push((batching, point));
    }
    let all = level(problem, all)?;
    let Some((batching, point)) = best(&all).cloned() else {
        return Err(FitError::Option {
            what: "batch limits, of which none leaves room to work,",
        });
    };
    let as_likely = |of: fn(&Config) -> u32, tried: &[u32]| -> Vec<u32> {
        let near = all
            .iter()
            .filter(|(_, other)| other.objective < point.objective + AS_LIKELY);
        let values: Vec<u32> = near.map(|(config, _)| of(config)).collect();
        let tried = tried.iter().copied();
        tried.filter(|value| values.contains(value)).collect()
    };
    let max_num_seqs = as_likely(|config| config.max_num_seqs, &options.max_num_seqs);
    let max_batched_tokens = as_likely(
        |config| config.max_batched_tokens,
        &options.max_batched_tokens,
    );
    Ok(Tried {
        batching,
        point,
        max_num_seqs,
        max_batched_tokens,
    })
}

/// Looks at each limit with the best terms of all as well: a search that began where another ended has come further,
/// and that must not speak for its limit.
fn level(
    problem: Problem<'_>,
    mut all: Vec<(Config, Point)>,
) -> Result<Vec<(Config, Point)>, FitError> {
    let Some((_, leader)) = best(&all).cloned() else {
        return Ok(all);
    };
    if all.len() > 1 {
        for (batching, point) in &mut all {
            let search = Search::new(Problem {
                batching: *batching,
                ..problem
            });
            let there = search.at(leader.ln_terms.clone())?;
            if there.objective < point.objective {
                *point = there;
            }
        }
    }
    Ok(all)
}

fn best(all: &[(Config, Point)]) -> Option<&(Config, Point)> {
    all.iter()
        .min_by(|(_, a), (_, b)| a.objective.total_cmp(&b.objective))
}

/// What is tried, as far as it leaves room to work.
fn candidates(options: &Options) -> Vec<Config> {
    let known = options.batching;
    let or = |tried: &[u32], known: u32| match tried.is_empty() {
        true => vec![known],
        false => tried.to_vec(),
    };
    let mut candidates = Vec::new();
    for max_num_seqs in or(&options.max_num_seqs, known.max_num_seqs) {
        for max_batched_tokens in or(&options.max_batched_tokens, known.max_batched_tokens) {
            let tried = Config {
                max_num_seqs,
                max_batched_tokens,
                prefill_chunk: known.prefill_chunk.min(max_batched_tokens),
                ..known
            };
            if tried.validate().is_ok() {
                candidates.push(tried);
            }
        }
    }
    candidates
}

impl Tried {
    /// The limits that were looked for and found.
    pub(super) fn limits(&self) -> BatchingLimits {
        let only = |values: &[u32]| match values {
            [value] => Some(*value),
            _ => None,
        };
        BatchingLimits {
            max_num_seqs: only(&self.max_num_seqs),
            max_num_batched_tokens: only(&self.max_batched_tokens),
            ..BatchingLimits::default()
        }
    }

    /// What was looked for and not found.
    pub(super) fn sentences(&self) -> Vec<String> {
        let each = [
            (
                "batch limit",
                &self.max_num_seqs,
                self.batching.max_num_seqs,
            ),
            (
                "limit of tokens in a step",
                &self.max_batched_tokens,
                self.batching.max_batched_tokens,
            ),
        ];
        let open = each.into_iter().filter(|(_, values, _)| values.len() > 1);
        open.map(|(what, values, taken)| {
            let values: Vec<String> = values.iter().map(u32::to_string).collect();
            let values = values.join(", ");
            format!("The {what} is open: {values} explain the figures as well as each other; {taken} was taken.")
        })
        .collect()
    }
}
