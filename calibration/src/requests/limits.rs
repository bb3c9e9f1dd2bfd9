//! Limits of the batches that are not known: several are tried.

use foresail_core::batching::Config;
use foresail_core::step_time::calibrated::BatchingLimits;

use super::identified;
use super::marquardt::{Point, Search};
use super::problem::Problem;
use super::{FitError, ITERATIONS_MAX, ITERATIONS_NEAR, Options};

/// Limits whose objective is larger by less than this are as likely: twice the logarithm of
/// a likelihood ratio, which is 3.84 at 95 % for one parameter (Wilks, 1938). That is for figures that are off
/// as was said; where they are off by more, so much more is needed.
const AS_LIKELY: f64 = 3.84;

/// What came of trying.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    /// The best.
    pub(super) batching: Config,
    /// The terms that were found with it.
    pub(super) point: Point,
    /// Sequences of a batch, if that was looked for.
    max_num_seqs: Option<Likely>,
    /// Tokens of a step, if that was looked for.
    max_batched_tokens: Option<Likely>,
}

/// The values of a limit that explain the figures as well as each other, in increasing order.
#[derive(Clone, Debug)]
struct Likely {
    values: Vec<u32>,
    /// Whether less than the least of them was tried too, and explains them worse.
    is_least_told: bool,
    /// The same of more than the most.
    is_most_told: bool,
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
    let reach = match all.len() {
        1 => AS_LIKELY,
        _ => AS_LIKELY * variances(problem, batching, &point)?,
    };
    let near: Vec<Config> = all
        .iter()
        .filter(|(_, other)| other.objective < point.objective + reach)
        .map(|(config, _)| *config)
        .collect();
    let likely = |of: fn(&Config) -> u32, tried: &[u32]| {
        let all: Vec<u32> = all.iter().map(|(config, _)| of(config)).collect();
        (!tried.is_empty()).then(|| Likely::of(near.iter().map(of).collect(), &all))
    };
    let mut max_num_seqs = likely(|config| config.max_num_seqs, &options.max_num_seqs);
    if let Some(likely) = &mut max_num_seqs {
        // It is one of these, says whoever names them, so that the others need not be beside it.
        let is_told = likely.values.len() < options.max_num_seqs.len();
        (likely.is_least_told, likely.is_most_told) = (is_told, is_told);
    }
    let max_batched_tokens = likely(
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

/// How many times the variances of the figures are as large as was said, with the best limits.
fn variances(problem: Problem<'_>, batching: Config, point: &Point) -> Result<f64, FitError> {
    let search = Search::new(Problem {
        batching,
        ..problem
    });
    // Without an iteration, this is but the slopes there.
    let (_, slopes) = search.descend(point.clone(), 0)?;
    identified::variances_of(&search, point, &slopes)
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
                // No step has more sequences than tokens.
                max_num_seqs: max_num_seqs.min(max_batched_tokens),
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

impl Likely {
    /// Of all that were tried, these are as likely as the best.
    fn of(mut values: Vec<u32>, tried: &[u32]) -> Self {
        values.sort_unstable();
        values.dedup();
        let least = values.first().copied().unwrap_or(0);
        let most = values.last().copied().unwrap_or(u32::MAX);
        Self {
            is_least_told: tried.iter().any(|tried| *tried < least),
            is_most_told: tried.iter().any(|tried| *tried > most),
            values,
        }
    }

    /// The value, if no other explains the figures: neither among those that were tried, nor beyond them.
    fn found(&self) -> Option<u32> {
        match self.values[..] {
            [value] if self.is_least_told && self.is_most_told => Some(value),
            _ => None,
        }
    }

    /// What is open.
    fn sentence(&self, what: &str, taken: u32) -> Option<String> {
        if self.found().is_some() {
            return None;
        }
        let values: Vec<String> = self.values.iter().map(u32::to_string).collect();
        let why = match (values.len(), self.is_least_told, self.is_most_told) {
            (1, true, false) => {
                format!("at least {taken} explains the figures, and more was not tried")
            }
            (1, false, true) => {
                format!("at most {taken} explains the figures, and less was not tried")
            }
            (1, ..) => "no other was tried".to_owned(),
            (_, true, true) | (_, false, false) => {
                format!(
                    "{} explain the figures as well as each other",
                    values.join(", ")
                )
            }
            (_, true, false) => format!(
                "{} explain the figures as well as each other, and more was not tried",
                values.join(", ")
            ),
            (_, false, true) => format!(
                "{} explain the figures as well as each other, and less was not tried",
                values.join(", ")
            ),
        };
        Some(format!("The {what} is open: {why}; {taken} was taken."))
    }
}

impl Tried {
    /// The limits that were looked for and found.
    pub(super) fn limits(&self) -> BatchingLimits {
        let found = |likely: &Option<Likely>| likely.as_ref().and_then(Likely::found);
        BatchingLimits {
            max_num_seqs: found(&self.max_num_seqs),
            max_num_batched_tokens: found(&self.max_batched_tokens),
            ..BatchingLimits::default()
        }
    }

    /// What was looked for and not found.
    pub(super) fn sentences(&self) -> Vec<String> {
        let batching = &self.batching;
        let of = |what, likely: &Option<Likely>, taken| likely.as_ref()?.sentence(what, taken);
        let sentences = [
            of("batch limit", &self.max_num_seqs, batching.max_num_seqs),
            of(
                "limit of tokens in a step",
                &self.max_batched_tokens,
                batching.max_batched_tokens,
            ),
        ];
        sentences.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_found_where_less_and_more_were_tried_and_explain_less() {
        let of = |values: &[u32], tried: &[u32]| Likely::of(values.to_vec(), tried);
        let tried = [512, 1024, 2048, 256];
        assert_eq!(of(&[512], &tried).found(), Some(512));
        assert_eq!(of(&[512], &tried).sentence("limit", 512), None);
        let open = [
            (&[512, 512, 1024][..], &tried[..], 512),
            (&[256], &tried, 256),
            (&[2048], &tried, 2048),
            (&[2048, 1024], &tried, 2048),
            (&[256, 512], &tried, 512),
            (&[256, 512, 1024, 2048], &tried, 512),
            (&[16_384], &[16_384], 16_384),
        ];
        let sentences = open.map(|(values, tried, taken)| {
            let likely = of(values, tried);
            assert_eq!(likely.found(), None);
            likely.sentence("limit", taken).expect("it is open")
        });
        let each = "explain the figures as well as each other";
        let expected = [
            format!("512, 1024 {each}; 512"),
            "at most 256 explains the figures, and less was not tried; 256".to_owned(),
            "at least 2048 explains the figures, and more was not tried; 2048".to_owned(),
            format!("1024, 2048 {each}, and more was not tried; 2048"),
            format!("256, 512 {each}, and less was not tried; 512"),
            format!("256, 512, 1024, 2048 {each}; 512"),
            "no other was tried; 16384".to_owned(),
        ];
        let expected = expected.map(|open| format!("The limit is open: {open} was taken."));
        assert_eq!(sentences, expected);
    }
}
