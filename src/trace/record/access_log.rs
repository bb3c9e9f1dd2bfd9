//! The requests of the access log that `foresail serve` writes: a line of JSON for each, at its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use foresail_scenarios::workload::{Content, Request, is_adapter_name};
use serde::Deserialize;

use super::{Recorded, unreadable};
use crate::failure::Failure;
use crate::interrupt::Interrupt;

const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Requests for tokens; others are no part of the traffic.
const ROUTES: [&str; 2] = ["/v1/completions", "/v1/chat/completions"];

/// What is needed of a line.
#[derive(Debug, Deserialize)]
struct Line {
    time: String,
    event: String,
    route: String,
    status: Option<u16>,
    model: Option<String>,
    prompt_tokens: u32,
    cached_tokens: u32,
    output_tokens: u32,
    duration_ms: f64,
    client_gone: bool,
    error: Option<String>,
}

/// A request, when it began, and whom it asked.
#[derive(Debug)]
struct Asked {
    began_unix_ns: u64,
    model: Option<String>,
    prompt_tokens: u32,
    output_tokens: u32,
}

pub(super) fn read(
    path: &Path,
    model: Option<&str>,
    interrupt: &Interrupt,
) -> Result<Recorded, Failure> {
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    let mut log = Log::default();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        interrupt.check()?;
        let line = line.map_err(|error| unreadable(path, error))?;
        let added = log.add(&line);
        added.map_err(|what| unreadable(path, format!("line {}: {what}", index + 1)))?;
    }
    log.recorded(model).map_err(Failure::Input)
}

/// What was read so far.
#[derive(Debug, Default)]
struct Log {
    asked: Vec<Asked>,
    recorded: Recorded,
}

impl Log {
    fn add(&mut self, line: &str) -> Result<(), String> {
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if line.event != "request" || !ROUTES.contains(&line.route.as_str()) {
            return Ok(());
        }
        let is_whole = line.status == Some(200)
            && line.error.is_none()
            && !line.client_gone
            && line.prompt_tokens > 0
            && line.output_tokens > 0;
        if !is_whole {
            self.recorded.incomplete += 1;
            return Ok(());
        }
        self.recorded.shared_prefixes |= line.cached_tokens > 0;
        self.asked.push(Asked {
            began_unix_ns: began_unix_ns(&line)?,
            model: line.model,
            prompt_tokens: line.prompt_tokens,
            output_tokens: line.output_tokens,
        });
        Ok(())
    }

    /// The first request is at 0. With several models, all but one are adapters of it.
    fn recorded(self, model: Option<&str>) -> Result<Recorded, String> {
        let Self {
            asked,
            mut recorded,
        } = self;
        let zero_ns = asked
            .iter()
            .map(|asked| asked.began_unix_ns)
            .min()
            .unwrap_or(0);
        let adapters = adapters(&asked, model)?;
        let request = |asked: Asked| {
            let adapter = asked.model.and_then(|name| adapters.get_key_value(&name));
            let request = Request {
                due: asked.began_unix_ns - zero_ns,
                prompt_tokens: asked.prompt_tokens,
                output_tokens: asked.output_tokens,
                session: None,
                adapter: adapter.map(|(_, number)| *number),
                content: Content::Unique,
            };
            (request, adapter.map(|(name, _)| name.clone()))
        };
        recorded.requests = asked.into_iter().map(request).collect();
        Ok(recorded)
    }
}

/// The names that are not the model's own, with numbers.
fn adapters(asked: &[Asked], model: Option<&str>) -> Result<BTreeMap<String, u32>, String> {
    let mut names: Vec<&str> = asked
        .iter()
        .filter_map(|asked| asked.model.as_deref())
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    match model {
        None if names.len() > 1 => {
            return Err(format!(
                "the log names {} models; say with --model which one is the model itself: {}",
                names.len(),
                names.join(", ")
            ));
        }
        Some(model) if !names.contains(&model) => {
            return Err(format!(
                "the log has no request for the model {model}; it names {}",
                names.join(", ")
            ));
        }
        _ => {}
    }
    let model = model.or(names.first().copied());
    names.retain(|name| Some(*name) != model);
    if let Some(name) = names.iter().find(|name| !is_adapter_name(name)) {
        return Err(format!(
            "{name:?} cannot be the name of an adapter in a trace"
        ));
    }
    Ok(names.into_iter().map(str::to_owned).zip(0..).collect())
}

/// Lines are written at the end of a request.
fn began_unix_ns(line: &Line) -> Result<u64, String> {
    let what = || {
        format!(
            "{:?} is no time such as 2026-02-03T04:05:06.789Z",
            line.time
        )
    };
    let ended_ns = unix_ns(&line.time).ok_or_else(what)?;
    // A cast saturates, and what is not a number is 0.
    let duration_ns = (line.duration_ms * NANOS_PER_MILLI as f64).round() as u64;
    let negative = || {
        format!(
            "the request took {} ms, and so began before 1970",
            line.duration_ms
        )
    };
    ended_ns.checked_sub(duration_ns).ok_or_else(negative)
}

/// Nanoseconds since 1970 of a time as the log has it: `2026-02-03T04:05:06.789Z`.
fn unix_ns(time: &str) -> Option<u64> {
    let (date, time) = time.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':')?;
    // The 60th second is a leap second.
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let is_date = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_fraction = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !(is_time && is_date && is_fraction) {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let fraction_ns = fraction.parse::<u64>().ok()? * 10_u64.pow(9 - fraction.len() as u32);
    seconds
        .checked_mul(NANOS_PER_SECOND)?
        .checked_add(fraction_ns)
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let number = |part: &str| {
        let is_number = part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse::<u64>().ok()).flatten()
    };
    let parts: Option<Vec<u64>> = text.split(separator).map(number).collect();
    parts?.try_into().ok()
}

/// Days since 1970-01-01 of a date not before it: `days_from_civil` of Howard Hinnant,
/// <https://howardhinnant.github.io/date_algorithms.html>.
fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years begin in March, so that the leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let month_of_year = (month + 9) % 12;
    let day_of_year = (153 * month_of_year + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: &str, duration_ms: f64, model: &str) -> String {
        format!(
            r#"{{"time":"{time}","event":"request","id":"r","method":"POST","route":"/v1/completions","status":200,"model":"{model}","stream":true,"prompt_tokens":12,"cached_tokens":0,"output_tokens":3,"queue_ms":0.1,"ttft_ms":5.0,"duration_ms":{duration_ms},"client_gone":false,"error":null}}"#
        )
    }

    fn log(lines: &[String]) -> Log {
        let mut log = Log::default();
        for line in lines {
            log.add(line).expect("a line of the log");
        }
        log
    }

    #[test]
    fn requests_are_at_their_beginnings() {
        let log = log(&[
            line("2026-02-03T04:05:07.000Z", 250.5, "m"),
            line("2026-02-03T04:05:07.500Z", 1_500.0, "m"),
        ]);
        let mut recorded = log.recorded(None).expect("one model");
        recorded.sort();
        let requests = recorded.requests.iter();
        let times: Vec<(u64, u32, u32)> = requests
            .map(|(request, adapter)| {
                assert_eq!(adapter.as_deref(), None);
                (request.due, request.prompt_tokens, request.output_tokens)
            })
            .collect();
        assert_eq!(times, [(0, 12, 3), (749_500_000, 12, 3)]);
    }

    #[test]
    fn what_is_no_generation_or_did_not_complete_is_left_out() {
        let whole = line("2026-02-03T04:05:07.000Z", 1.0, "m");
        let lines = [
            whole.replace("/v1/completions", "/health"),
            whole.replace("\"event\":\"request\"", "\"event\":\"other\""),
            whole.replace("\"status\":200", "\"status\":503"),
            whole.replace("\"status\":200", "\"status\":null"),
            whole.replace("\"client_gone\":false", "\"client_gone\":true"),
            whole.replace("\"output_tokens\":3", "\"output_tokens\":0"),
            whole.replace("\"cached_tokens\":0", "\"cached_tokens\":8"),
        ];
        let recorded = log(&lines).recorded(None).expect("one model");
        assert_eq!((recorded.requests.len(), recorded.incomplete), (1, 4));
        assert!(recorded.shared_prefixes);
    }

    #[test]
    fn other_models_are_adapters_of_the_one_that_is_named() {
        let models = ["base", "law", "code", "law"];
        let time = "2026-02-03T04:05:07.000Z";
        let lines = models.map(|model| line(time, 1.0, model));
        let recorded = log(&lines).recorded(Some("base")).expect("it is there");
        let of = |(request, name): &(Request, Option<String>)| (request.adapter, name.clone());
        let adapters: Vec<_> = recorded.requests.iter().map(of).collect();
        let named = |number, name: &str| (Some(number), Some(name.to_owned()));
        assert_eq!(
            adapters,
            [
                (None, None),
                named(1, "law"),
                named(0, "code"),
                named(1, "law")
            ]
        );
        let unnamed = log(&lines).recorded(None).unwrap_err();
        insta::assert_snapshot!(unnamed, @"the log names 3 models; say with --model which one is the model itself: base, code, law");
        let absent = log(&lines).recorded(Some("other")).unwrap_err();
        insta::assert_snapshot!(absent, @"the log has no request for the model other; it names base, code, law");
    }

    #[test]
    fn what_is_no_line_says_why() {
        let mut log = Log::default();
        let no_time = log.add(&line("yesterday", 1.0, "m")).unwrap_err();
        insta::assert_snapshot!(no_time, @r#""yesterday" is no time such as 2026-02-03T04:05:06.789Z"#);
        assert!(log.add("ready on port 8000").is_err());
        assert!(log.add("{}").is_err());
        let long = line("1970-01-01T00:00:01Z", 2_000.0, "m");
        insta::assert_snapshot!(log.add(&long).unwrap_err(), @"the request took 2000 ms, and so began before 1970");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        // date -u -d TIME +%s
        let seconds = |time: &str| unix_ns(time).map(|ns| ns / NANOS_PER_SECOND);
        assert_eq!(unix_ns("1970-01-01T00:00:00.007Z"), Some(7_000_000));
        assert_eq!(seconds("2000-02-29T00:00:00Z"), Some(951_782_400));
        assert_eq!(seconds("2026-02-28T23:59:59.999Z"), Some(1_772_323_199));
        assert_eq!(seconds("2100-03-01T00:00:00.000Z"), Some(4_107_542_400));
        for wrong in [
            "2026-02-03 04:05:06Z",
            "2026-02-03T04:05:06",
            "2026-13-03T04:05:06Z",
            "2026-02-03T24:05:06Z",
            "1969-12-31T00:00:00Z",
            "2026-02-03T04:05:06.1234567890Z",
            "+2026-02-03T04:05:06Z",
        ] {
            assert_eq!(unix_ns(wrong), None, "{wrong}");
        }
    }
}
