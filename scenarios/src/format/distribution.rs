//! `{ log_normal = { mean = 512, cv = 1.0 } }`: distributions of lengths and times.

use super::decode;
use super::node::{Node, Value};
use super::problem::Problem;
use super::reader::{Field, Reader, Setting};
use crate::distribution::Distribution;
use foresail_core::time;

/// The names of the kinds, as they are written.
const KINDS: [&str; 5] = ["fixed", "uniform", "exponential", "log_normal", "empirical"];

const EXAMPLE: &str =
    "for example `{ log_normal = { mean = 512, cv = 1.0 } }` or `{ fixed = 512 }`";

/// A distribution over numbers of at least 0. A bare number is a fixed value.
pub(super) fn distribution(field: Field<'_>) -> Result<Distribution, Problem> {
    match &field.node.value {
        Value::Integer(_) | Value::Float(_) => fixed(field),
        Value::Table(_) => {
            let reader = field.reader()?;
            let distribution = from_table(&reader, field)?;
            reader.finish();
            Ok(distribution)
        }
        _ => Err(field.wrong_type("a distribution").help(EXAMPLE)),
    }
}

/// The distribution of a table that may have other keys beside it, such as `max`.
/// A duration, or a distribution of seconds.
pub(super) fn seconds(field: Field<'_>) -> Result<Distribution, Problem> {
    match &field.node.value {
        Value::Text(_) => decode::duration(field).map(|nanos| Distribution::Fixed {
            value: time::seconds(nanos),
        }),
        _ => distribution(field),
    }
}

pub(super) fn from_table(reader: &Reader<'_>, field: Field<'_>) -> Result<Distribution, Problem> {
    let written: Vec<_> = KINDS.into_iter().filter(|kind| reader.has(kind)).collect();
    let kind = match written[..] {
        [kind] => kind,
        [] => return Err(no_kind(reader, field)),
        [first, second, ..] => return Err(two_kinds(reader, field, first, second)),
    };
    let decoded = match kind {
        "fixed" => reader.optional("fixed", fixed),
        "uniform" => reader.optional("uniform", uniform),
        "exponential" => reader.optional("exponential", exponential),
        "log_normal" => reader.optional("log_normal", log_normal),
        _ => reader.optional("empirical", empirical),
    };
    // A problem in the parameters has been reported; the value is not used then.
    Ok(decoded.value.unwrap_or(Distribution::Fixed { value: 1.0 }))
}

fn no_kind(reader: &Reader<'_>, field: Field<'_>) -> Problem {
    let place = reader
        .entries()
        .first()
        .map_or(field.place(), |entry| entry.key_place);
    let message = format!("`{}` has no distribution", field.path);
    let kinds = KINDS.join(", ");
    Problem::new("scenario::distribution", message)
        .at(place, "not a kind of distribution")
        .help(format!("the kinds are: {kinds}; {EXAMPLE}"))
}

fn two_kinds(
    reader: &Reader<'_>,
    field: Field<'_>,
    first: &'static str,
    second: &'static str,
) -> Problem {
    let message = format!("`{}` has two distributions", field.path);
    Problem::new("scenario::distribution", message)
        .at_if_written(reader.key_place(first), "one")
        .at_if_written(reader.key_place(second), "and another")
        .help(format!("keep `{first}` or `{second}`"))
}

fn fixed(field: Field<'_>) -> Result<Distribution, Problem> {
    decode::non_negative_number(field).map(|value| Distribution::Fixed { value })
}

fn uniform(field: Field<'_>) -> Result<Distribution, Problem> {
    let reader = field.reader()?;
    let min = reader.required("min", "1", decode::non_negative_number);
    let max = reader.required("max", "100", decode::non_negative_number);
    reader.finish();
    let (Some(min), Some(max), places) = (min.value, max.value, (min.place, max.place)) else {
        return Ok(Distribution::Fixed { value: 1.0 });
    };
    if min <= max {
        return Ok(Distribution::Uniform { min, max });
    }
    Err(Problem::new(
        "scenario::distribution",
        format!("`{}` has min above max", field.path),
    )
    .at_if_written(places.0, "the smallest value")
    .at_if_written(places.1, "the largest value is below it")
    .help("exchange the two"))
}

fn exponential(field: Field<'_>) -> Result<Distribution, Problem> {
    let reader = field.reader()?;
    let mean = reader.required("mean", "100", decode::positive_number);
    reader.finish();
    Ok(Distribution::Exponential {
        mean: mean.value.unwrap_or(1.0),
    })
}

fn log_normal(field: Field<'_>) -> Result<Distribution, Problem> {
    let reader = field.reader()?;
    let mean = reader.optional("mean", decode::positive_number);
    let median = reader.optional("median", decode::positive_number);
    let cv: Setting<Option<f64>> = reader.required("cv", "1.0", decode::non_negative_number);
    reader.finish();
    let cv = cv.value.unwrap_or(1.0);
    match (mean.value, median.value) {
        (Some(mean), None) => Ok(Distribution::log_normal_mean(mean, cv)),
        (None, Some(median)) => Ok(Distribution::log_normal_median(median, cv)),
        // One of them was written and has been reported.
        (None, None) if mean.is_written() || median.is_written() => {
            Ok(Distribution::Fixed { value: 1.0 })
        }
        _ => {
            let message = format!("`{}` needs either a mean or a median", field.path);
            Err(Problem::new("scenario::distribution", message)
                .at(field.place(), "it has both, or neither")
                .help("for example `log_normal = { mean = 512, cv = 1.0 }`"))
        }
    }
}

fn empirical(field: Field<'_>) -> Result<Distribution, Problem> {
    const EXAMPLE: &str = "for example `empirical = [[128, 3], [1024, 1]]`: value and weight";
    let Value::Array(rows) = &field.node.value else {
        return Err(field.wrong_type("a list of [value, weight]").help(EXAMPLE));
    };
    let mut values = Vec::with_capacity(rows.len());
    let mut weights = Vec::with_capacity(rows.len());
    for row in rows {
        let row_field = Field { node: row, ..field };
        let Value::Array(pair) = &row.value else {
            return Err(row_field
                .wrong_type("a list of [value, weight]")
                .help(EXAMPLE));
        };
        let [value, weight]: &[Node; 2] = pair.as_slice().try_into().map_err(|_| {
            row_field
                .problem(
                    "scenario::distribution",
                    "has rows of two numbers",
                    "not two numbers",
                )
                .help(EXAMPLE)
        })?;
        values.push(decode::non_negative_number(Field {
            node: value,
            ..field
        })?);
        weights.push(decode::non_negative_number(Field {
            node: weight,
            ..field
        })?);
    }
    let total: f64 = weights.iter().sum();
    if !(total > 0.0 && total.is_finite()) {
        return Err(field
            .problem(
                "scenario::distribution",
                "needs a weight above 0",
                "the weights add up to 0",
            )
            .help(EXAMPLE));
    }
    Ok(Distribution::Empirical {
        values,
        cumulative: cumulative(&weights, total),
    })
}

/// Running sums of the weights over their total; the last is exactly 1.
fn cumulative(weights: &[f64], total: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut cumulative: Vec<f64> = weights
        .iter()
        .map(|weight| {
            sum += weight;
            sum / total
        })
        .collect();
    // Values after the last positive weight have none, so 1 begins there.
    if let Some(last) = weights.iter().rposition(|&weight| weight > 0.0) {
        cumulative[last..].fill(1.0);
    }
    cumulative
}
