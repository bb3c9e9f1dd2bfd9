//! Where the errors of means come from.

use super::figures::{TimeOf, Times};
use super::report::SourceOfError;

/// Fewer requests than this that came to an idle system do not say what their TTFT is.
pub(super) const IDLE_MIN: usize = 5;

/// The same requests, simulated in other ways; each as in [`Comparison`](super::Comparison).
#[derive(Clone, Debug, Default)]
pub struct Variants {
    /// With as many tokens as the server counted, as a client would have seen it that counts as the measured one
    /// did; `None` if nobody knows of a difference.
    pub server_tokens: Option<Vec<Option<Times>>>,
    /// As that, with all steps as many times as long as makes mean TPOT as it was measured; `None` if that
    /// was not found.
    pub scaled: Option<Scaled>,
}

/// A prediction with scaled step times.
#[derive(Clone, Debug)]
pub struct Scaled {
    /// As many times as long as predicted.
    pub scale: f64,
    /// The requests.
    pub times: Vec<Option<Times>>,
}

/// A request in the measurement, and in each prediction.
struct Row {
    measured: Times,
    predicted: Times,
    tokens: Times,
    scaled: Times,
    is_idle: bool,
}

/// The sources of the errors of all means. `is_idle` says of each measured request whether it came to an idle system.
pub(super) fn sources(
    measured: &[Times],
    predicted: &[Option<Times>],
    variants: &Variants,
    is_idle: &[bool],
) -> Vec<SourceOfError> {
    let tokens = variants.server_tokens.as_deref().unwrap_or(predicted);
    let scaled = variants.scaled.as_ref();
    let scaled = scaled.map_or(tokens, |scaled| scaled.times.as_slice());
    let row = |index: usize| {
        Some(Row {
            measured: measured[index],
            predicted: predicted[index]?,
            tokens: tokens[index]?,
            scaled: scaled[index]?,
            is_idle: is_idle[index],
        })
    };
    let rows: Vec<Row> = (0..measured.len()).filter_map(row).collect();
    let overhead_s = overhead_s(&rows);
    let of = |time| source(time, &rows, overhead_s);
    TimeOf::ALL.into_iter().filter_map(of).collect()
}

/// What remains of the TTFT's error in an idle system when step times are scaled, for the mean request (s): the
/// times of prompts, and outside the engine, have errors of their own. `None` if too few requests tell.
fn overhead_s(rows: &[Row]) -> Option<f64> {
    let idle: Vec<&Row> = rows.iter().filter(|row| row.is_idle).collect();
    let service_s = |row: &Row| row.scaled.service_s.unwrap_or(0.0);
    let of_idle: f64 = idle.iter().map(|row| service_s(row)).sum();
    if idle.len() < IDLE_MIN || of_idle <= 0.0 {
        return None;
    }
    let error: f64 = (idle.iter())
        .map(|row| row.scaled.ttft_s - row.measured.ttft_s)
        .sum();
    // Longer prompts have more of it.
    let of_all: f64 = rows.iter().map(service_s).sum();
    Some(error / of_idle * of_all / rows.len() as f64)
}

fn source(time: TimeOf, rows: &[Row], overhead_s: Option<f64>) -> Option<SourceOfError> {
    let measured = mean(time, rows, |row| &row.measured)?;
    let predicted = mean(time, rows, |row| &row.predicted)?;
    let tokens = mean(time, rows, |row| &row.tokens)?;
    // Nobody waits for a step but for the first: what is left of later tokens is steps that differ
    // otherwise than by a factor.
    let (overhead_s, queueing_s) = match time {
        TimeOf::Tpot => (Some(0.0), 0.0),
        TimeOf::Ttft | TimeOf::E2e => {
            let scaled = mean(TimeOf::Ttft, rows, |row| &row.scaled)?;
            let rest = scaled - mean(TimeOf::Ttft, rows, |row| &row.measured)?;
            (overhead_s, rest - overhead_s.unwrap_or(0.0))
        }
    };
    Some(SourceOfError {
        metric: format!("{}.mean", time.name()),
        error_s: predicted - measured,
        tokens_s: predicted - tokens,
        step_time_s: tokens - measured - queueing_s - overhead_s.unwrap_or(0.0),
        overhead_s,
        queueing_s,
    })
}

/// The mean of a time over the requests that have it.
fn mean(time: TimeOf, rows: &[Row], of: impl Fn(&Row) -> &Times) -> Option<f64> {
    let values: Option<Vec<f64>> = (rows.iter())
        .filter(|row| time.of(&row.measured).is_some())
        .map(|row| time.of(of(row)))
        .collect();
    let values = values?;
    let count = values.len() as f64;
    (count > 0.0).then(|| values.iter().sum::<f64>() / count)
}
