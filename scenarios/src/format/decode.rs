//! Decoders of single values: from a [`Field`] to a number, a duration, a name.

use foresail_core::time::{MILLISECOND, Nanos};

use super::node::Value;
use super::problem::Problem;
use super::reader::{Field, suggestion};
use crate::duration::{self, ParseDurationError};

pub(super) fn text(field: Field<'_>) -> Result<String, Problem> {
    match &field.node.value {
        Value::Text(text) => Ok(text.clone()),
        _ => Err(field.wrong_type("text in quotes")),
    }
}

pub(super) fn boolean(field: Field<'_>) -> Result<bool, Problem> {
    match &field.node.value {
        Value::Boolean(value) => Ok(*value),
        _ => Err(field.wrong_type("`true` or `false`")),
    }
}

/// A whole number of the type asked for.
pub(super) fn integer<T: std::str::FromStr>(field: Field<'_>) -> Result<T, Problem> {
    let Value::Integer(digits) = &field.node.value else {
        return Err(field.wrong_type("a whole number"));
    };
    digits.parse().map_err(|_| {
        let (what, label) = if digits.starts_with('-') {
            ("cannot be negative", "below 0")
        } else {
            ("is too large", "does not fit")
        };
        field
            .problem("scenario::range", what, label)
            .help("write a whole number of 0 or more")
    })
}

/// A whole number of at least 1.
pub(super) fn positive_integer<T: std::str::FromStr + PartialEq + Default>(
    field: Field<'_>,
) -> Result<T, Problem> {
    let value: T = integer(field)?;
    if value == T::default() {
        return Err(field
            .problem("scenario::range", "must be at least 1", "this is 0")
            .help("write a whole number of 1 or more"));
    }
    Ok(value)
}

/// A whole number from `least` to `most`.
pub(super) fn integer_between(field: Field<'_>, least: u32, most: u32) -> Result<u32, Problem> {
    let value: u32 = integer(field)?;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(field
        .problem(
            "scenario::range",
            &format!("must be {least} to {most}"),
            &format!("this is {value}"),
        )
        .help(format!("write a whole number from {least} to {most}")))
}

/// A finite number.
pub(super) fn number(field: Field<'_>) -> Result<f64, Problem> {
    let (Value::Integer(digits) | Value::Float(digits)) = &field.node.value else {
        return Err(field.wrong_type("a number"));
    };
    let not_finite = || {
        field
            .problem(
                "scenario::range",
                "must be a finite number",
                "this is not finite",
            )
            .help("write a decimal number such as 1.5")
    };
    digits
        .parse()
        .ok()
        .filter(|value: &f64| value.is_finite())
        .ok_or_else(not_finite)
}

/// A finite number above 0.
pub(super) fn positive_number(field: Field<'_>) -> Result<f64, Problem> {
    let value = number(field)?;
    if value > 0.0 {
        return Ok(value);
    }
    Err(field
        .problem(
            "scenario::range",
            "must be above 0",
            &format!("this is {value}"),
        )
        .help("write a number above 0"))
}

/// A finite number of at least 0.
pub(super) fn non_negative_number(field: Field<'_>) -> Result<f64, Problem> {
    let value = number(field)?;
    if value >= 0.0 {
        return Ok(value);
    }
    Err(field
        .problem(
            "scenario::range",
            "cannot be negative",
            &format!("this is {value}"),
        )
        .help("write a number of 0 or more"))
}

/// A number from `least` to `most`.
pub(super) fn number_between(field: Field<'_>, least: f64, most: f64) -> Result<f64, Problem> {
    let value = number(field)?;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(field
        .problem(
            "scenario::range",
            &format!("must be {least} to {most}"),
            &format!("this is {value}"),
        )
        .help(format!("write a number from {least} to {most}")))
}

/// A number above 0 and at most 1.
pub(super) fn share(field: Field<'_>) -> Result<f64, Problem> {
    let value = number(field)?;
    if value > 0.0 && value <= 1.0 {
        return Ok(value);
    }
    Err(field
        .problem(
            "scenario::range",
            "must be above 0 and at most 1",
            &format!("this is {value}"),
        )
        .help("write a share such as 0.8"))
}

/// The share of a GPU's peak that is reached: at least a hundredth, because
/// steps of a machine slower than that would last for days.
pub(super) fn efficiency(field: Field<'_>) -> Result<f64, Problem> {
    let value = share(field)?;
    if value >= 0.01 {
        return Ok(value);
    }
    Err(field
        .problem(
            "scenario::range",
            "must be at least 0.01",
            &format!("this is {value}"),
        )
        .help("write a share of the GPU's peak such as 0.8"))
}

/// A number of at least 0 and below 1.
pub(super) fn share_below_one(field: Field<'_>) -> Result<f64, Problem> {
    let value = number(field)?;
    if (0.0..1.0).contains(&value) {
        return Ok(value);
    }
    Err(field
        .problem(
            "scenario::range",
            "must be at least 0 and below 1",
            &format!("this is {value}"),
        )
        .help("write a share such as 0.01"))
}

/// A Go duration of at least 0.
pub(super) fn duration(field: Field<'_>) -> Result<Nanos, Problem> {
    // A bare number is a duration text too: `0` is the one that Go accepts,
    // and Go's message says what the others lack.
    let (Value::Text(text) | Value::Integer(text) | Value::Float(text)) = &field.node.value else {
        return Err(field.wrong_type("a duration such as \"30s\""));
    };
    let nanos = duration::parse(text).map_err(|error| not_a_duration(field, text, &error))?;
    u64::try_from(nanos).map_err(|_| {
        field
            .problem("scenario::duration", "cannot be negative", "below 0")
            .help(format!(
                "write `{}`, or `0` if there is none",
                duration::format(nanos).replace('-', "")
            ))
    })
}

/// A Go duration above 0.
pub(super) fn positive_duration(field: Field<'_>) -> Result<Nanos, Problem> {
    let nanos = duration(field)?;
    if nanos > 0 {
        return Ok(nanos);
    }
    Err(field
        .problem("scenario::duration", "must be longer than 0", "this is 0")
        .help("write a duration such as `30s`"))
}

/// A Go duration of at least 0 and at most `max`.
pub(super) fn duration_up_to(field: Field<'_>, max: Nanos) -> Result<Nanos, Problem> {
    let nanos = duration(field)?;
    if nanos <= max {
        return Ok(nanos);
    }
    let limit = duration::format_nanos(max);
    Err(field
        .problem(
            "scenario::duration",
            &format!("must be at most {limit}"),
            "this is longer",
        )
        .help(format!("write a duration of `{limit}` or less")))
}

/// A time between two looks at the load. Looks are events of a run, so one of
/// them every nanosecond would keep it from ever ending.
pub(super) fn tick(field: Field<'_>) -> Result<Nanos, Problem> {
    let nanos = positive_duration(field)?;
    if nanos >= MILLISECOND {
        return Ok(nanos);
    }
    Err(field
        .problem(
            "scenario::duration",
            "must be at least 1ms",
            "this is shorter",
        )
        .help("write a duration such as `100ms`"))
}

fn not_a_duration(field: Field<'_>, text: &str, error: &ParseDurationError) -> Problem {
    let problem = Problem::new("scenario::duration", format!("`{}`: {error}", field.path));
    let (label, help) = match error {
        ParseDurationError::UnknownUnit { unit, .. } => (
            "Go has no such unit".to_owned(),
            in_hours(text, unit).unwrap_or_else(|| UNITS.to_owned()),
        ),
        ParseDurationError::MissingUnit { .. } => (
            "a number needs a unit".to_owned(),
            format!("for example `{text}s`; {UNITS}"),
        ),
        ParseDurationError::Invalid { .. } => (
            "not a duration".to_owned(),
            format!("for example `1h30m`; {UNITS}"),
        ),
    };
    problem.at(field.place(), label).help(help)
}

const UNITS: &str = "the units are h, m, s, ms, us and ns; a day is `24h` and a week is `168h`";

/// The remedy for days and weeks, which people write and Go does not know.
fn in_hours(text: &str, unit: &str) -> Option<String> {
    let hours = match unit.trim() {
        "d" | "day" | "days" => 24,
        "w" | "week" | "weeks" => 168,
        _ => return None,
    };
    let count: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
    let hours = count.checked_mul(hours)?;
    Some(format!("write `{hours}h`; {UNITS}"))
}

/// One of a few names.
pub(super) fn choice<T: Copy>(
    options: &[(&'static str, T)],
) -> impl FnOnce(Field<'_>) -> Result<T, Problem> {
    move |field| {
        let written = text(field)?;
        let found = options.iter().find(|(name, _)| *name == written);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names = options.iter().map(|(name, _)| *name);
            field
                .problem(
                    "scenario::unknown_name",
                    &format!("cannot be \"{}\"", super::node::shorten(&written)),
                    "not one of the choices",
                )
                .help(suggestion(&written, names, "the choices are"))
        })
    }
}

/// Dollars as an exact number of 1e-9 dollars, from a number or a text such as "8.00".
pub(super) fn nanodollars(field: Field<'_>) -> Result<u64, Problem> {
    let (Value::Text(text) | Value::Integer(text) | Value::Float(text)) = &field.node.value else {
        return Err(field.wrong_type("an amount of US dollars such as 8.00"));
    };
    exact_nanodollars(text).ok_or_else(|| {
        field
            .problem(
                "scenario::price",
                "is not an amount of US dollars",
                "not exact, or out of range",
            )
            .help(
                "write a decimal of 0 or more with at most 9 digits after the point, such as 8.00",
            )
    })
}

/// `text * 1e9`, exactly; `None` if it is not a plain decimal or does not fit.
fn exact_nanodollars(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::exact_nanodollars;

    #[test]
    fn money_is_exact() {
        assert_eq!(exact_nanodollars("8.00"), Some(8_000_000_000));
        assert_eq!(exact_nanodollars("3.9492"), Some(3_949_200_000));
        assert_eq!(exact_nanodollars("0.000000001"), Some(1));
        assert_eq!(exact_nanodollars("18446744073.709551615"), Some(u64::MAX));
    }

    #[test]
    fn money_is_never_rounded() {
        for text in [
            "0.0000000001",
            "1e3",
            "-1",
            "+1",
            "nan",
            "",
            ".5",
            "18446744074",
        ] {
            assert_eq!(exact_nanodollars(text), None, "{text:?}");
        }
    }
}
