//! An HdrHistogram log (format 1.3, histograms in V2, compressed), for HdrHistogram's own tools and plots.
//!
//! It has the completed requests of the window: for each second in which some ended a histogram of
//! their latencies (ns) tagged `ttft`, `tpot` and `e2e`, from when they were due. All gaps between
//! chunks are one histogram tagged `itl`, as long as the window. Its lines added up give the summary's percentiles.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};
use hdrhistogram::{Histogram as Hdr, RecordError};

use super::MeasuredRun;
use crate::histogram::Histogram;
use crate::records::{Outcome, RequestRecord};

/// As many as the summary's percentiles have.
const SIGNIFICANT_DIGITS: u8 = 3;

const SECOND_NS: u64 = 1_000_000_000;

/// The largest value of a line is for people: ms.
const NS_PER_MS: f64 = 1e6;

/// Writes the log.
///
/// # Errors
/// What the output says.
pub fn write(run: &MeasuredRun, output: &mut impl Write) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    let began = began(run);
    builder
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("latencies in ns; the largest of a line in ms")
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(NS_PER_MS);
    let mut log = builder.begin_log_with(output, &mut serializer)?;
    let window = window(run);
    let mut gaps_are_written = false;
    for (second, latencies) in by_second(&run.requests)? {
        let from = Duration::from_secs(second);
        // Lines are in the order of their times.
        if !gaps_are_written && window.0 <= from {
            line(&mut log, &of_gaps(&run.histograms.itl)?, window, "itl")?;
            gaps_are_written = true;
        }
        for (tag, histogram) in ["ttft", "tpot", "e2e"].into_iter().zip(&latencies.by_tag) {
            line(&mut log, histogram, (from, Duration::from_secs(1)), tag)?;
        }
    }
    if !gaps_are_written {
        line(&mut log, &of_gaps(&run.histograms.itl)?, window, "itl")?;
    }
    Ok(())
}

type Log<'a, 'b, W> = IntervalLogWriter<'a, 'b, W, V2DeflateSerializer>;

fn line<W: Write>(
    log: &mut Log<'_, '_, W>,
    histogram: &Hdr<u64>,
    (from, duration): (Duration, Duration),
    tag: &str,
) -> io::Result<()> {
    if histogram.is_empty() {
        return Ok(());
    }
    let written = log.write_histogram(histogram, from, duration, Tag::new(tag));
    written.map_err(|error| match error {
        IntervalLogWriterError::IoError(error) => error,
        IntervalLogWriterError::SerializeError(error) => io::Error::other(error.to_string()),
    })
}

fn began(run: &MeasuredRun) -> SystemTime {
    let unix = Duration::try_from_secs_f64(run.began_unix_s()).unwrap_or_default();
    UNIX_EPOCH.checked_add(unix).unwrap_or(UNIX_EPOCH)
}

/// Where the window begins, and how long it is.
fn window(run: &MeasuredRun) -> (Duration, Duration) {
    let Some(measured) = &run.summary.measured else {
        return (Duration::ZERO, Duration::ZERO);
    };
    let (from_s, until_s) = (measured.window.from_s, measured.window.until_s);
    let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    (duration(from_s), duration(until_s - from_s))
}

struct Latencies {
    /// TTFT, TPOT, E2E.
    by_tag: [Hdr<u64>; 3],
}

fn by_second(requests: &[RequestRecord]) -> io::Result<BTreeMap<u64, Latencies>> {
    let mut seconds = BTreeMap::new();
    for record in requests {
        let is_in_window = record.wire.as_ref().is_none_or(|wire| wire.is_in_window);
        if record.outcome == Outcome::Completed && is_in_window {
            let second = seconds.entry(record.end_ns / SECOND_NS);
            let recorded = second.or_insert_with(Latencies::none).record(record);
            recorded.map_err(|error| too_large(&error))?;
        }
    }
    Ok(seconds)
}

/// Half a thousand years are.
fn too_large(error: &RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
}

impl Latencies {
    fn none() -> Self {
        Self {
            by_tag: [empty(), empty(), empty()],
        }
    }

    fn record(&mut self, record: &RequestRecord) -> Result<(), RecordError> {
        let [ttft, tpot, e2e] = &mut self.by_tag;
        if let Some(first_ns) = record.first_token_ns {
            ttft.record(first_ns - record.due_ns)?;
            if let Some(others) = record
                .output_tokens
                .checked_sub(1)
                .filter(|others| *others > 0)
            {
                tpot.record((record.last_token_ns() - first_ns) / u64::from(others))?;
            }
        }
        e2e.record(record.end_ns - record.due_ns)
    }
}

/// It grows with its values.
fn empty() -> Hdr<u64> {
    // Any number of digits up to 5 is possible.
    Hdr::new(SIGNIFICANT_DIGITS).unwrap_or_else(|_| unreachable!("three digits are possible"))
}

fn of_gaps(gaps: &Histogram) -> io::Result<Hdr<u64>> {
    let mut histogram = empty();
    let max_ns = gaps.max_ns().unwrap_or(0);
    for bucket in gaps.buckets() {
        let recorded = histogram.record_n(bucket.highest_ns.min(max_ns), bucket.count);
        recorded.map_err(|error| too_large(&error))?;
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::super::testing::run;
    use super::*;

    fn log(run: &MeasuredRun) -> String {
        let mut bytes = Vec::new();
        write(run, &mut bytes).expect("memory takes it");
        String::from_utf8(bytes).expect("a log is text")
    }

    #[test]
    fn the_log_has_a_head_and_a_line_a_second_and_tag() {
        let lines: Vec<String> = log(&run())
            .lines()
            .map(|line| {
                line.rsplit_once(",HIST")
                    .map_or(line, |(head, _)| head)
                    .to_owned()
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        #[Histogram log format version 1.3]
        #latencies in ns; the largest of a line in ms
        #[StartTime: 1770091506.500 (seconds since epoch)]
        #[BaseTime: 1770091506.500 (seconds since epoch)]
        #[MaxValueDivisor: 1000000.000]
        Tag=ttft,0.000,1.000,60.031
        Tag=tpot,0.000,1.000,10.002
        Tag=e2e,0.000,1.000,81.002
        Tag=itl,0.500,2.000,10.002
        Tag=ttft,1.000,1.000,80.019
        Tag=tpot,1.000,1.000,10.002
        Tag=e2e,1.000,1.000,101.057
        ");
    }

    #[test]
    fn what_is_written_is_read_again_and_adds_up() {
        let run = run();
        let log = log(&run);
        let mut all: BTreeMap<String, Hdr<u64>> = BTreeMap::new();
        for entry in IntervalLogIterator::new(log.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.expect("a line of a log") {
                let tag = interval.tag().expect("each has one").as_str().to_owned();
                let one: Hdr<u64> = decoded(interval.encoded_histogram());
                all.entry(tag)
                    .or_insert_with(empty)
                    .add(one)
                    .expect("it grows");
            }
        }
        let tags: Vec<&String> = all.keys().collect();
        assert_eq!(tags, ["e2e", "itl", "tpot", "ttft"]);
        for (tag, ours) in run.histograms.named() {
            let Some(theirs) = all.get(tag) else { continue };
            assert_eq!(theirs.len(), ours.count(), "{tag}");
            for percentile in [50.0, 99.0, 100.0] {
                let ours = ours.percentile_ns(percentile).expect("there are some") as f64;
                let theirs = theirs.value_at_percentile(percentile) as f64;
                assert!(
                    (theirs / ours - 1.0).abs() < 2e-3,
                    "{tag} p{percentile}: {theirs} {ours}"
                );
            }
        }
    }

    fn decoded(text: &str) -> Hdr<u64> {
        let bytes = STANDARD.decode(text).expect("it is in base 64");
        let mut bytes = bytes.as_slice();
        Deserializer::new()
            .deserialize(&mut bytes)
            .expect("a histogram")
    }

    #[test]
    fn a_run_without_requests_has_a_head_alone() {
        let mut run = run();
        run.requests.clear();
        run.histograms = crate::Histograms::default();
        let log = log(&run);
        assert!(log.lines().all(|line| !line.starts_with("Tag=")), "{log}");
    }
}
