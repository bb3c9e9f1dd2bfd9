//! The options of other load generators, in this one's words.

use std::path::Path;

use foresail_core::time::{Nanos, SECOND};
use foresail_loadgen::schedule::{Pattern, RampUp, Rate, Traffic};
use foresail_scenarios::workload::{GrowthLaw, Source, Workload};

use super::arguments::{self, Arguments, ArrivalPattern, TrafficArguments, value};
use crate::failure::Failure;

/// How many requests there are if nothing ends them, as in vLLM.
const REQUESTS: u64 = 1000;

/// A plan of so many requests has a hundred megabytes.
const REQUESTS_MAX: u64 = 1_000_000;

/// How long each of several runs lasts unless it is said.
const RUN_DURATION: Nanos = 60 * SECOND;

/// From here on a rate is none: one request a nanosecond stands for all at once.
const AT_ONCE_PER_S: f64 = 1e9;

/// The workload that the options stand for.
pub(super) fn workload(arguments: &Arguments) -> Result<Workload, Failure> {
    let workload = traffic(arguments).workload();
    workload.map_err(|error| Failure::Input(error.to_string()))
}

/// Whether its requests are due as close to each other as times can be: all at once, or in a
/// closed loop, where `due` is only their order.
pub(super) fn is_at_once(workload: &Workload) -> bool {
    match &workload.source {
        Source::Generated(generator) => generator.arrivals.rate_per_s >= AT_ONCE_PER_S,
        Source::Trace(_) | Source::ServeGen(_) => false,
    }
}

/// What is said of a workload without its first words, which are those of a rate.
pub(super) fn without_rate(description: &str) -> String {
    let rest = description.split_once("requests/s").map(|(_, rest)| rest);
    format!("as fast as can be{}", rest.unwrap_or_default())
}

/// What is said of a workload whose prompts are those of a file.
pub(super) fn with_prompts_of(description: &str, path: &Path) -> String {
    let arrivals = description.split(", prompts of ").next();
    // Without its folder: shards of one plan may have the file at different places.
    let file = path.file_name().unwrap_or(path.as_os_str());
    format!(
        "{}, prompts of {}",
        arrivals.unwrap_or_default(),
        file.display()
    )
}

fn traffic(arguments: &Arguments) -> Traffic {
    let (traffic, prompts) = (&arguments.traffic, &arguments.prompts);
    let is_several = arguments.rates.are_several();
    let defaults = Traffic::default();
    Traffic {
        // Of several runs, each has a rate of its own in place of this one.
        rate: match is_several {
            true => Rate::PerSecond(1.0),
            false => rate(traffic),
        },
        pattern: pattern(traffic),
        requests: requests(traffic, is_several),
        // Requests of a closed loop are due when another has ended; their number ends them, and a clock.
        duration: match traffic.concurrency {
            Some(_) => None,
            None if is_several && traffic.num_prompts.is_none() => {
                traffic.duration.or(Some(RUN_DURATION))
            }
            None => traffic.duration,
        },
        prompt_tokens: prompts
            .random_input_len
            .map_or(defaults.prompt_tokens, |tokens| tokens.get()),
        output_tokens: prompts
            .random_output_len
            .map_or(defaults.output_tokens, |tokens| tokens.get()),
        range_ratio: prompts.random_range_ratio.unwrap_or(defaults.range_ratio),
        prefix_tokens: prompts.random_prefix_len.unwrap_or(defaults.prefix_tokens),
    }
}

/// A run that a duration ends has as many requests as fit, unless somebody said how many.
fn requests(traffic: &TrafficArguments, is_several: bool) -> Option<u64> {
    if let Some(said) = traffic.num_prompts {
        return Some(said.get());
    }
    match (traffic.duration, traffic.concurrency) {
        // As many as the users can ask for in that time, if answers take a hundredth of a second.
        (Some(duration), Some(users)) => {
            let rounds = duration.div_ceil(SECOND).saturating_mul(100);
            Some(rounds.saturating_mul(users.get().into()).min(REQUESTS_MAX))
        }
        (Some(_), None) => None,
        (None, _) => (!is_several).then_some(REQUESTS),
    }
}

fn rate(traffic: &TrafficArguments) -> Rate {
    let strategy = traffic.ramp_up_strategy;
    let ends = traffic.ramp_up_start_rps.zip(traffic.ramp_up_end_rps);
    if let (Some(strategy), Some((start_per_s, end_per_s))) = (strategy, ends) {
        return Rate::RampUp(RampUp {
            strategy: match strategy {
                arguments::RampUp::Linear => GrowthLaw::Linear,
                arguments::RampUp::Exponential => GrowthLaw::Exponential,
            },
            start_per_s,
            end_per_s,
        });
    }
    match traffic.request_rate {
        Some(value::Rate::PerSecond(rate)) => Rate::PerSecond(rate),
        Some(value::Rate::Unlimited) | None => Rate::AtOnce,
    }
}

fn pattern(traffic: &TrafficArguments) -> Pattern {
    match (traffic.arrival_pattern, traffic.burstiness) {
        (Some(ArrivalPattern::Constant), _) => Pattern::Constant,
        (_, Some(burstiness)) => Pattern::Gamma { burstiness },
        (Some(ArrivalPattern::Poisson | ArrivalPattern::Gamma) | None, None) => Pattern::Poisson,
    }
}
