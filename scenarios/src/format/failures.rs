//! `[failures]`: what goes wrong with replicas, and how often.

use foresail_core::control::retry::RetryConfig;

use super::decode;
use super::distribution::{distribution, seconds};
use super::problem::Problem;
use super::reader::{Field, Reader};
use super::retry;
use crate::distribution::Distribution;
use crate::failures::{Crash, Failures, OnCrash, SlowStart, StartFailure};

/// How often a request is served again after a crash unless something else is
/// said: one that meets more of them will most likely never be served.
const CRASH_RETRIES_MAX: u32 = 10;

pub(super) fn decode(reader: Reader<'_>) -> Failures {
    let start_failure = reader.optional("start_failure", start_failure).value;
    let start_timeout = reader.optional("start_timeout", decode::positive_duration);
    let start_retry = reader.setting("start_retry", RetryConfig::START, |field| {
        let reader = field.reader()?;
        let config = retry::decode(&reader, RetryConfig::START);
        reader.finish();
        Ok(config)
    });
    if start_failure.is_none() && !start_timeout.is_written() {
        reader.unused(
            &["start_retry"],
            "without `start_failure` or `start_timeout`: no start fails",
        );
    }
    let failures = Failures {
        start_failure,
        start_timeout: start_timeout.value,
        start_retry: start_retry.value,
        slow_start: reader.optional("slow_start", slow_start).value,
        crash: reader.optional("crash", crash).value,
    };
    reader.finish();
    failures
}

fn start_failure(field: Field<'_>) -> Result<StartFailure, Problem> {
    let reader = field.reader()?;
    let anywhere = Distribution::Uniform { min: 0.0, max: 1.0 };
    let failure = StartFailure {
        probability: probability(&reader),
        at: reader.setting("at", anywhere, shares).value,
    };
    reader.finish();
    Ok(failure)
}

fn slow_start(field: Field<'_>) -> Result<SlowStart, Problem> {
    let reader = field.reader()?;
    let factor = reader.required("factor", "{ uniform = { min = 2, max = 4 } }", distribution);
    let slow = SlowStart {
        probability: probability(&reader),
        // What is missing has been reported.
        factor: factor.value.unwrap_or(Distribution::Fixed { value: 1.0 }),
    };
    reader.finish();
    Ok(slow)
}

fn probability(reader: &Reader<'_>) -> f64 {
    let probability = reader.required("probability", "0.05", decode::share);
    probability.value.unwrap_or(1.0)
}

fn crash(field: Field<'_>) -> Result<Crash, Problem> {
    const CHOICES: [(&str, bool); 2] = [("retry", true), ("fail", false)];
    let reader = field.reader()?;
    let time_to_failure = reader.required(
        "time_to_failure",
        "{ exponential = { mean = 86400 } }",
        lifetime,
    );
    let retries = reader
        .setting("on_crash", true, decode::choice(&CHOICES))
        .value;
    let retries_max = reader
        .setting("retries_max", CRASH_RETRIES_MAX, decode::positive_integer)
        .value;
    if !retries {
        reader.unused(&["retries_max"], "with `on_crash = \"fail\"`");
    }
    reader.finish();
    Ok(Crash {
        time_to_failure: time_to_failure
            .value
            .unwrap_or(Distribution::Fixed { value: 1.0 }),
        on_crash: if retries {
            OnCrash::Retry { retries_max }
        } else {
            OnCrash::Fail
        },
    })
}

/// Times that are a second or more on average. Replicas that crash as they start
/// would be replaced again and again without any time going by.
fn lifetime(field: Field<'_>) -> Result<Distribution, Problem> {
    let distribution = seconds(field)?;
    let mean = distribution.mean();
    if mean >= 1.0 {
        return Ok(distribution);
    }
    Err(field
        .problem(
            "scenario::range",
            "must be a second or more on average",
            &format!("the mean is {mean} s"),
        )
        .help("for example `{ exponential = { mean = 86400 } }`: once a day"))
}

/// Shares of a whole: nothing above 1.
fn shares(field: Field<'_>) -> Result<Distribution, Problem> {
    let distribution = distribution(field)?;
    let (most, label) = match &distribution {
        Distribution::Fixed { value } => (*value, "more than the whole start"),
        Distribution::Uniform { max, .. } => (*max, "more than the whole start"),
        Distribution::Empirical { values, .. } => (
            values.iter().copied().fold(0.0, f64::max),
            "more than the whole start",
        ),
        Distribution::Exponential { .. } | Distribution::LogNormal { .. } => {
            (f64::INFINITY, "this has no upper limit")
        }
    };
    if most <= 1.0 {
        return Ok(distribution);
    }
    Err(field
        .problem(
            "scenario::range",
            "must be shares of a start, 0 to 1",
            label,
        )
        .help("for example `{ uniform = { min = 0, max = 1 } }`, or `{ fixed = 0.5 }`"))
}
