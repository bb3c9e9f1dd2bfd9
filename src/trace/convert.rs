//! `foresail trace convert`: a trace of any format into the native one.

use std::path::PathBuf;

use foresail_scenarios::duration;
use foresail_scenarios::workload::{Adapters, Slice, Source, Transforms, Workload};

use super::source::SourceArguments;
use super::write;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Convert a trace into foresail's own format, all of it or a part
///
/// The options act in the order: slice, rate scale, time stretch, repeat.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: SourceArguments,

    /// The file to write; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,

    /// Keep a part of the trace's time, such as 10m..1h, 10m.. or ..1h
    #[arg(long, value_name = "FROM..TO", value_parser = slice)]
    slice: Option<Slice>,

    /// Multiply the rate, by moving requests closer together
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    rate_scale: f64,

    /// Multiply every time
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    time_stretch: f64,

    /// Play the result so many times, one after the other
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: u32,
}

pub(super) fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode, Failure> {
    let transforms = Transforms {
        slice: arguments.slice,
        rate_scale: arguments.rate_scale,
        time_stretch: arguments.time_stretch,
        repeat: arguments.repeat,
    };
    let workload = Workload {
        source: Source::Trace(arguments.source.source()),
        transforms,
        adapters: Adapters::default(),
    };
    // A recorded trace draws nothing, so any seed will do.
    write::requests(workload.open(0)?, &arguments.out, terminal)?;
    Ok(ExitCode::Success)
}

/// Reads `10m..1h`; either side may be left out.
fn slice(text: &str) -> Result<Slice, String> {
    let (from, to) = text
        .split_once("..")
        .ok_or("expected FROM..TO, such as 10m..1h")?;
    Ok(Slice {
        from: time(from)?.unwrap_or(0),
        to: time(to)?,
    })
}

fn time(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let nanos = duration::parse(text).map_err(|error| error.to_string())?;
    let nanos = u64::try_from(nanos).map_err(|_| format!("{text} is before the start"))?;
    Ok(Some(nanos))
}

#[cfg(test)]
mod tests {
    use foresail_core::time::{HOUR, MINUTE};

    use super::*;

    #[test]
    fn a_slice_may_be_open_on_either_side() {
        assert_eq!(
            slice("10m..1h"),
            Ok(Slice {
                from: 10 * MINUTE,
                to: Some(HOUR)
            })
        );
        assert_eq!(
            slice("10m.."),
            Ok(Slice {
                from: 10 * MINUTE,
                to: None
            })
        );
        assert_eq!(
            slice("..1h"),
            Ok(Slice {
                from: 0,
                to: Some(HOUR)
            })
        );
    }

    #[test]
    fn a_slice_that_is_none_says_why() {
        assert_eq!(
            slice("1h").unwrap_err(),
            "expected FROM..TO, such as 10m..1h"
        );
        assert_eq!(slice("-1m..1h").unwrap_err(), "-1m is before the start");
        let days = slice("0..7d").unwrap_err();
        assert_eq!(days, r#"time: unknown unit "d" in duration "7d""#);
    }
}
