//! What runs show without a fit: a prefix cache, the noise of the measurement, a drift.

use foresail_calibration::requests::{Figure, Observed, Run, Statistic};
use foresail_reports::records::{Outcome, RequestRecord, TokensFrom};
use foresail_reports::summary::Load;
use foresail_scenarios::workload::{Content, Request};
use foresail_simulator::replay::{Replayed, Traffic};

use super::design::Kind;
use super::measure::Done;

/// A figure is known no better than this, however alike two measurements were.
const DEVIATION_MIN: f64 = 0.003;
/// What is assumed where nothing was measured twice.
const DEVIATION_UNKNOWN: f64 = 0.03;
/// With fewer pairs, their spread says little.
const PAIRS_MIN: usize = 4;
/// A second prompt that takes less than this share of the first was found in a cache.
const CACHED_SHARE_MAX: f64 = 0.7;
/// A drift of less than this share is none.
const DRIFT_MIN: f64 = 0.02;

/// A run as the fit gets it, and as a picture shows it.
#[derive(Clone, Debug)]
pub(super) struct FitRun {
    pub(super) run: Run,
    pub(super) kind: Kind,
    /// Tokens of its prompts, if all are alike.
    pub(super) prompt_tokens: Option<u32>,
    /// Which half of the measurement it is of.
    pub(super) half: usize,
}

/// Whether a run is worth fitting: the client did not hold it up, and few of its requests failed.
pub(super) fn is_sound(done: &Done) -> bool {
    done.degraded.is_empty() && done.failed() * 50 <= done.records.len()
}

/// The runs of a half. A run of single prompts is one for each of their lengths.
pub(super) fn fit_runs(done: &Done, half: usize) -> Vec<FitRun> {
    let again = if half == 0 { "" } else { ", again" };
    match done.job.kind {
        Kind::Prefix => Vec::new(),
        Kind::Loaded | Kind::Burst => {
            let figures = [
                Figure::Ttft(Statistic::Mean),
                Figure::Tpot(Statistic::Mean),
                Figure::EndToEnd(Statistic::Mean),
            ];
            let name = format!("{}{again}", done.job.name);
            fit_run(name, done, |_| true, &figures, half)
                .into_iter()
                .collect()
        }
        Kind::Idle => {
            let mut lengths: Vec<u32> = done
                .job
                .requests
                .iter()
                .map(|each| each.prompt_tokens)
                .collect();
            lengths.sort_unstable();
            lengths.dedup();
            let figures = [Figure::Ttft(Statistic::Percentile(50))];
            let runs = lengths.into_iter().filter_map(|length| {
                let name = format!("a prompt of {length} tokens alone{again}");
                let is_so_long = |request: &Request| request.prompt_tokens == length;
                fit_run(name, done, is_so_long, &figures, half)
            });
            runs.collect()
        }
    }
}

fn fit_run(
    name: String,
    done: &Done,
    is_of: impl Fn(&Request) -> bool,
    figures: &[Figure],
    half: usize,
) -> Option<FitRun> {
    let asked = done.job.requests.iter().filter(|asked| is_of(asked));
    let mut lengths: Vec<u32> = asked.map(|asked| asked.prompt_tokens).collect();
    lengths.dedup();
    // In a closed loop, ids are in the order of the plan whoever sends them.
    let completed = done.records.iter().filter(|record| {
        let planned = done.job.requests.get(record.id as usize);
        record.outcome == Outcome::Completed && planned.is_some_and(&is_of)
    });
    let replayed: Vec<Replayed> = completed.filter_map(replayed).collect();
    let observed = figures.iter().filter_map(|figure| {
        Some(Observed {
            figure: *figure,
            value: figure.of(&replayed)?,
            relative_deviation: DEVIATION_UNKNOWN,
        })
    });
    let observed: Vec<Observed> = observed.collect();
    if observed.is_empty() {
        return None;
    }
    let requests = replayed.iter().map(|each| Request {
        due: each.due_ns,
        prompt_tokens: each.prompt_tokens,
        output_tokens: each.output_tokens,
        session: None,
        adapter: None,
        content: Content::Unique,
    });
    let traffic = traffic(done, requests.collect());
    Some(FitRun {
        run: Run {
            name,
            traffic,
            observed,
        },
        kind: done.job.kind,
        prompt_tokens: (lengths.len() == 1).then(|| lengths[0]),
        half,
    })
}

/// Clients that wait for an answer send just after a step has ended. If their times were replayed under steps that
/// end a little later, they would come just before instead, and be a whole step faster; so they wait in the
/// simulation too.
fn traffic(done: &Done, mut requests: Vec<Request>) -> Traffic {
    match (done.job.kind, done.job.load) {
        (Kind::Loaded, Load::Closed { concurrency }) => Traffic::ClosedLoop {
            concurrency: concurrency as u32,
            requests,
        },
        _ => {
            requests.sort_by_key(|request| request.due);
            Traffic::Recorded(requests)
        }
    }
}

/// What the client saw of a request that completed, from when it was really sent; `None` if it got no token.
pub(super) fn replayed(record: &RequestRecord) -> Option<Replayed> {
    let last = record.wire.and_then(|wire| wire.last_output_ns);
    let sent = record.wire.and_then(|wire| wire.sent_ns);
    (record.output_tokens > 0 && record.prompt_tokens > 0).then(|| Replayed {
        due_ns: sent.unwrap_or(record.due_ns),
        first_token_ns: record.first_token_ns.unwrap_or(record.end_ns),
        end_ns: last.unwrap_or(record.end_ns),
        prompt_tokens: record.prompt_tokens,
        cached_tokens: record.cached_tokens,
        output_tokens: record.output_tokens,
    })
}

/// What one measurement of a figure and another differ by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Noise {
    /// Standard deviation of the natural logarithm of the time of a first token that came alone.
    ttft_alone: Option<f64>,
    /// The same, of first tokens beside others: whether one joins a step or just misses it is noise too.
    ttft: Option<f64>,
    /// The same, of times between tokens.
    pub(super) tpot: Option<f64>,
    /// Of whole requests.
    end_to_end: Option<f64>,
    /// How much longer all took in the second half, as a share, if it is more than noise.
    pub(super) drift: Option<f64>,
}

impl Noise {
    /// Standard deviation of the natural logarithm of all step times together, from run to run: what times
    /// between tokens show of it, or what is assumed.
    pub(super) fn run_to_run(&self) -> f64 {
        self.tpot.unwrap_or(DEVIATION_UNKNOWN)
    }
}

/// The pairs of equal figures of the two halves, as logarithms of their ratios.
fn ratios(runs: &[FitRun], is_of: impl Fn(Kind, Figure) -> bool) -> Vec<f64> {
    let seconds = runs.iter().filter(|run| run.half == 1);
    let pairs = seconds.flat_map(|second| {
        let kind = second.kind;
        let name = second.run.name.trim_end_matches(", again");
        let first = runs
            .iter()
            .find(|first| first.half == 0 && first.run.name == name);
        let first = first.map_or(&[][..], |first| &first.run.observed);
        let observed = second.run.observed.iter();
        observed.filter_map(move |second| {
            let first = first.iter().find(|first| first.figure == second.figure)?;
            let ratio = second.value / first.value;
            // What is no time at all has no ratio; the fit refuses it.
            let is_sound = ratio.is_finite() && ratio > 0.0;
            is_sound.then(|| (kind, second.figure, ratio.ln()))
        })
    });
    let of = pairs.filter(|(kind, figure, _)| is_of(*kind, *figure));
    of.map(|(.., ratio)| ratio).collect()
}

/// The noise of these runs.
pub(super) fn noise(runs: &[FitRun]) -> Noise {
    let of = |is_of: fn(Kind, Figure) -> bool| deviation(ratios(runs, is_of));
    Noise {
        ttft_alone: of(|kind, _| kind == Kind::Idle),
        ttft: of(|kind, figure| kind != Kind::Idle && matches!(figure, Figure::Ttft(_))),
        tpot: of(|_, figure| matches!(figure, Figure::Tpot(_))),
        end_to_end: of(|_, figure| matches!(figure, Figure::EndToEnd(_))),
        drift: drift(ratios(runs, |_, figure| {
            !matches!(figure, Figure::EndToEnd(_))
        })),
    }
}

/// Standard deviation of one measurement from the ratios of pairs, by the median of their magnitudes so that a
/// run that stalled is not taken for noise: 1.4826 times that is the deviation of normal ratios, and a ratio
/// has the noise of two.
fn deviation(ratios: Vec<f64>) -> Option<f64> {
    if ratios.len() < PAIRS_MIN {
        return None;
    }
    let magnitudes = ratios.into_iter().map(f64::abs).collect();
    Some((1.4826 * median(magnitudes) / 2.0_f64.sqrt()).max(DEVIATION_MIN))
}

fn drift(ratios: Vec<f64>) -> Option<f64> {
    if ratios.len() < PAIRS_MIN {
        return None;
    }
    let middle = median(ratios.clone());
    let spread = 1.4826 * median(ratios.iter().map(|ratio| (ratio - middle).abs()).collect());
    // The standard error of a median of normal values is 1.2533 times that of their mean.
    let error = 1.2533 * spread / (ratios.len() as f64).sqrt();
    (middle.abs() > DRIFT_MIN && middle.abs() > 3.0 * error).then(|| middle.exp_m1())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

/// Gives each figure the noise of its kind.
pub(super) fn with_noise(runs: &mut [FitRun], noise: &Noise) {
    for run in runs {
        for observed in &mut run.run.observed {
            let of_kind = match observed.figure {
                Figure::Ttft(_) if run.kind == Kind::Idle => noise.ttft_alone,
                Figure::Ttft(_) => noise.ttft,
                Figure::EndToEnd(_) => noise.end_to_end,
                _ => noise.tpot,
            };
            observed.relative_deviation = of_kind.unwrap_or(DEVIATION_UNKNOWN);
        }
    }
}

/// What the run that sends prompts twice shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum PrefixCache {
    /// The second took this share of the first's time, so much less that a cache had it.
    Seen(f64),
    /// The second took this share, which needs no cache to explain it.
    NotSeen(f64),
    /// The run was held up, or failed.
    NotMeasured,
}

/// Whether there is a prefix cache, from the runs that are sound.
pub(super) fn prefix_cache<'a>(mut runs: impl Iterator<Item = &'a Done>) -> PrefixCache {
    let ttft = |record: &RequestRecord| {
        let is_completed = record.outcome == Outcome::Completed;
        let (first, sent) = (record.first_token_ns?, record.wire?.sent_ns?);
        is_completed.then(|| first.saturating_sub(sent) as f64)
    };
    let share_of = |pair: &[RequestRecord]| {
        let share = ttft(&pair[1])? / ttft(&pair[0])?;
        share.is_finite().then_some(share)
    };
    let done = runs.find(|done| done.job.kind == Kind::Prefix);
    let shares: Vec<f64> = done.map_or_else(Vec::new, |done| {
        done.records.chunks_exact(2).filter_map(share_of).collect()
    });
    if shares.is_empty() {
        return PrefixCache::NotMeasured;
    }
    match median(shares) {
        share if share < CACHED_SHARE_MAX => PrefixCache::Seen(share),
        share => PrefixCache::NotSeen(share),
    }
}

/// Whether the endpoint counted all tokens.
pub(super) fn is_counted(done: &Done) -> bool {
    let counted = |record: &RequestRecord| {
        record
            .wire
            .is_some_and(|wire| wire.tokens_from == TokensFrom::Usage)
    };
    let completed = |record: &&RequestRecord| record.outcome == Outcome::Completed;
    done.records.iter().filter(completed).all(counted)
}

#[cfg(test)]
pub(super) mod tests;
