//! Values of arguments: from text to what it means, or what to write instead.

use std::num::{NonZeroU64, NonZeroUsize};

use foresail_core::control::biller::Price;
use foresail_core::time::Nanos;
use foresail_scenarios::duration as go;

/// Requests a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// All at once.
    Unlimited,
    /// So many a second.
    PerSecond(f64),
}

/// A share of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardOf {
    /// Which, from 1.
    pub(crate) index: u32,
    /// Of how many.
    pub(crate) count: u32,
}

/// A number above 0, or `inf`, as vLLM writes it.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    if text == "inf" {
        return Ok(Rate::Unlimited);
    }
    let wrong = |_| "expected a number above 0, or `inf`".to_owned();
    positive(text).map(Rate::PerSecond).map_err(wrong)
}

/// More requests than this are no plan that a machine holds: 20 million have 2 GB.
const REQUESTS_MAX: u64 = 20_000_000;

/// More threads than this send no better.
const THREADS_MAX: usize = 256;

/// Shorter than this, metrics are more work to a server than a request.
const INTERVAL_MIN: Nanos = 10_000_000;

pub(super) fn requests(text: &str) -> Result<NonZeroU64, String> {
    let number = text.parse().ok();
    let number = number.filter(|number: &NonZeroU64| number.get() <= REQUESTS_MAX);
    number.ok_or_else(|| format!("expected a number of requests from 1 to {REQUESTS_MAX}"))
}

pub(super) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok();
    let number = number.filter(|number: &NonZeroUsize| number.get() <= THREADS_MAX);
    number.ok_or_else(|| format!("expected a number of threads from 1 to {THREADS_MAX}"))
}

pub(super) fn interval(text: &str) -> Result<Nanos, String> {
    let interval = duration(text)?;
    if interval >= INTERVAL_MIN {
        Ok(interval)
    } else {
        Err("expected a duration of at least 10ms".to_owned())
    }
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    let number = number.filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

pub(super) fn not_negative(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    let number = number.filter(|number: &f64| *number >= 0.0 && number.is_finite());
    number.ok_or_else(|| "expected a number of at least 0".to_owned())
}

/// US dollars, exactly.
pub(super) fn price(text: &str) -> Result<Price, String> {
    Price::from_usd_per_gpu_hour(text).map_err(|error| error.to_string())
}

/// A share below 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let wrong = || "expected a number from 0 to less than 1".to_owned();
    let number = text
        .parse()
        .ok()
        .filter(|number| (0.0..1.0).contains(number));
    number.ok_or_else(wrong)
}

/// A duration as scenarios write it, of at least 0.
pub(crate) fn duration(text: &str) -> Result<Nanos, String> {
    let nanos = go::parse(text).map_err(|error| format!("{error}; write 60s or 5m"))?;
    Nanos::try_from(nanos).map_err(|_| "must not be negative".to_owned())
}

/// A header as HTTP writes it (`Name: value`), or as vLLM's options do (`Name=value`).
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let colon = text.find(':');
    let equals = text.find('=');
    // A value may have the other sign in it, so the first one splits.
    let at = match (colon, equals) {
        (Some(colon), Some(equals)) => Some(colon.min(equals)),
        (at, None) | (None, at) => at,
    };
    let Some(at) = at.filter(|at| !text[..*at].trim().is_empty()) else {
        return Err("expected a name, a colon and a value".to_owned());
    };
    Ok((
        text[..at].trim().to_owned(),
        text[at + 1..].trim().to_owned(),
    ))
}

/// A JSON object.
pub(super) fn object(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("expected a JSON object, such as {\"top_k\": 1}".to_owned()),
        Err(error) => Err(format!("not valid JSON: {error}")),
    }
}

/// When a run begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum StartAt {
    /// So long from now (ns).
    In(Nanos),
    /// At this Unix time (ns), on the clock of this machine.
    Unix(u64),
}

/// `+10s`, or seconds since 1970, such as 1764000000.5.
pub(super) fn start(text: &str) -> Result<StartAt, String> {
    if let Some(wait) = text.strip_prefix('+') {
        return duration(wait).map(StartAt::In);
    }
    let seconds = text.parse().ok();
    // Nanoseconds in 64 bits end in 2554; before 2001 it is a mistake.
    let seconds = seconds.filter(|seconds: &f64| (1e9..1.8e10).contains(seconds));
    let unix = seconds.map(|seconds| StartAt::Unix((seconds * 1e9) as u64));
    unix.ok_or_else(|| {
        "expected a Unix time in seconds, such as 1764000000, or a wait, such as +10s".to_owned()
    })
}

/// `I/N`, such as `2/4`.
pub(super) fn shard(text: &str) -> Result<ShardOf, String> {
    let parse = || {
        let (index, count) = text.split_once('/')?;
        let shard = ShardOf {
            index: index.parse().ok()?,
            count: count.parse().ok()?,
        };
        (shard.index >= 1 && shard.index <= shard.count).then_some(shard)
    };
    parse().ok_or_else(|| "expected I/N with I from 1 to N, such as 2/4".to_owned())
}

/// A latency in vLLM's words.
pub(super) fn latency(text: &str) -> Result<String, String> {
    match text {
        "ttft" | "tpot" | "itl" | "e2el" => Ok(text.to_owned()),
        _ => Err("expected ttft, tpot, itl or e2el".to_owned()),
    }
}

pub(super) fn percentile(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| "expected a percentile from 0 to 100".to_owned())
}

/// vLLM's goodput limits, such as `ttft:500`: a latency and milliseconds.
pub(super) fn goodput(text: &str) -> Result<(String, f64), String> {
    let parse = || {
        let (name, limit_ms) = text.split_once(':')?;
        let is_known = ["ttft", "tpot", "e2el"].contains(&name);
        let limit_ms = positive(limit_ms).ok().filter(|_| is_known)?;
        Some((name.to_owned(), limit_ms))
    };
    parse().ok_or_else(|| {
        "expected ttft, tpot or e2el, a colon, and milliseconds, such as ttft:500".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_may_be_unlimited_and_never_zero() {
        assert_eq!(rate("inf"), Ok(Rate::Unlimited));
        assert_eq!(rate("2.5"), Ok(Rate::PerSecond(2.5)));
        for wrong in ["0", "-1", "nan", "infinity", "fast", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers_are_split_at_the_first_sign() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(header("X-Team: search"), pair("X-Team", "search"));
        assert_eq!(header("X-Team=a:b"), pair("X-Team", "a:b"));
        assert_eq!(header("X-Query: a=b"), pair("X-Query", "a=b"));
        for wrong in ["", "X-Team", ": search", "=search"] {
            assert!(header(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_shard_is_one_of_those_there_are() {
        assert_eq!(shard("2/4"), Ok(ShardOf { index: 2, count: 4 }));
        for wrong in ["0/4", "5/4", "2", "2/", "/4", "-1/4", "0/0"] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_start_is_a_time_or_a_wait() {
        assert_eq!(start("+10s"), Ok(StartAt::In(10_000_000_000)));
        assert_eq!(
            start("1764000000.5"),
            Ok(StartAt::Unix(1_764_000_000_500_000_000))
        );
        for wrong in ["10s", "5", "-1", "+", "nan", "1764000000000"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn goodput_is_in_milliseconds_of_known_latencies() {
        assert_eq!(goodput("ttft:500"), Ok(("ttft".to_owned(), 500.0)));
        for wrong in ["ttft", "ttft:", "ttft:0", "itl:5", "ttft:5s"] {
            assert!(goodput(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_say_so() {
        assert_eq!(duration("1m30s"), Ok(90_000_000_000));
        let error = duration("60").unwrap_err();
        assert!(
            error.contains("missing unit") && error.contains("60s"),
            "{error}"
        );
        assert!(duration("-1s").is_err());
    }

    #[test]
    fn more_fields_are_an_object() {
        assert_eq!(object(r#"{"top_k": 1}"#).unwrap().len(), 1);
        assert!(object("[1]").unwrap_err().contains("JSON object"));
        assert!(object("{").unwrap_err().contains("not valid JSON"));
    }
}
