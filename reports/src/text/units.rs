//! Numbers as people read them: three significant digits and a fitting unit.

use crate::objectives::Unit;

/// Three significant digits, no exponent.
pub(super) fn number(value: f64) -> String {
    format!("{value:.*}", decimals(value))
}

/// Decimals that leave three significant digits of a number from 1 up, after rounding.
fn decimals(value: f64) -> usize {
    match value.abs() {
        0.0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    }
}

/// Three significant digits, also of a number below 1.
pub(super) fn significant(value: f64) -> String {
    if value == 0.0 || value.abs() >= 0.9995 {
        return rate(value);
    }
    let (mut decimals, mut scaled) = (3, value.abs());
    // As in `dollars`: beyond 12 decimals it is nothing.
    while scaled < 0.09995 && decimals < 12 {
        scaled *= 10.0;
        decimals += 1;
    }
    format!("{value:.decimals$}")
}

/// A share of 1 in percent with three significant digits, never rounded to all.
pub(super) fn exact_percent(share: f64) -> String {
    match significant(share * 100.0).as_str() {
        "100" if share < 1.0 => ">99.9 %".to_owned(),
        percent => format!("{percent} %"),
    }
}

/// The unit of a duration, as the seconds it has and its name. The borders
/// leave room for rounding: 999.9 ms is 1.00 s, not 1000 ms.
fn time_unit(seconds: f64) -> (f64, &'static str) {
    match seconds.abs() {
        0.0 => (1.0, "s"),
        seconds if seconds < 0.000_999_5 => (1e-6, "µs"),
        seconds if seconds < 0.999_5 => (1e-3, "ms"),
        seconds if seconds < 119.95 => (1.0, "s"),
        seconds if seconds < 7_197.0 => (60.0, "min"),
        _ => (3_600.0, "h"),
    }
}

/// A duration: `12.3 ms`.
pub(super) fn duration(seconds: f64) -> String {
    let (unit_s, unit) = time_unit(seconds);
    format!("{} {unit}", number(seconds / unit_s))
}

/// A duration, or a dash.
pub(super) fn optional_duration(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "–".to_owned(), duration)
}

/// Time of day of the run: `00:12:30`, and days in front of it if need be. A
/// run of under two minutes is told in seconds.
pub(super) fn clock(at_s: f64, run_s: f64) -> String {
    if run_s < 120.0 {
        return duration(at_s);
    }
    let seconds = at_s as u64;
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let time = format!("{hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    if days == 0 {
        time
    } else {
        format!("{days}d {time}")
    }
}

/// A count with thousands set apart: `36,000`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun: `1 replica`, `2 replicas`.
pub(super) fn counted(value: u64, noun: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(value))
}

/// Dollars: cents from a dollar up, three significant digits below.
pub(super) fn dollars(usd: f64) -> String {
    if usd.abs() >= 0.995 || usd == 0.0 {
        let cents = (usd * 100.0).round() as u64;
        return format!("${}.{:02}", count(cents / 100), cents % 100);
    }
    let mut decimals = 3;
    let mut scaled = usd.abs();
    while scaled < 0.1 && decimals < 12 {
        scaled *= 10.0;
        decimals += 1;
    }
    format!("${usd:.decimals$}")
}

/// A share of 1 in percent.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.95 => "<1 %".to_owned(),
        percent if (99.5..100.0).contains(&percent) => ">99 %".to_owned(),
        _ => format!("{percent:.0} %"),
    }
}

/// A value with its unit.
pub(super) fn value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds => duration(value),
        Unit::RequestsPerSecond => format!("{} req/s", rate(value)),
        Unit::TokensPerSecond => format!("{} tok/s", rate(value)),
        // Not whole percents: objectives are about 99.9 and 99.99.
        Unit::Share => format!("{} %", trimmed(value * 100.0)),
        Unit::Usd => dollars(value),
        Unit::Replicas => number(value),
        Unit::Count if value.fract() == 0.0 => rate_of_whole(value),
        Unit::Count => rate(value),
        Unit::GpuSeconds => gpu_hours(value),
    }
}

/// A mean that is a whole number, without decimals.
fn rate_of_whole(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{}", count(value.abs() as u64))
}

/// GPU-time in hours, so that its states compare with each other and the price.
pub(super) fn gpu_hours(seconds: f64) -> String {
    let hours = seconds / 3_600.0;
    let text = match hours {
        0.0 => "0".to_owned(),
        hours if hours < 0.005 => "<0.01".to_owned(),
        hours => rate(hours),
    };
    format!("{text} GPU-h")
}

/// A difference as its parts, all of them in one unit and to the same digit:
/// how much without its sign, half of its interval, and the unit.
pub(super) struct Amount {
    pub(super) value: String,
    pub(super) half_width: Option<String>,
    /// With a blank before it, if there is one.
    pub(super) unit: &'static str,
}

/// The digits are those that the interval leaves any meaning to.
pub(super) fn amount(mean: f64, half_width: Option<f64>, unit: Unit) -> Amount {
    let largest = half_width.unwrap_or(0.0).max(mean.abs());
    let (scale, name) = match unit {
        Unit::Seconds => match time_unit(largest) {
            (scale, "µs") => (scale, " µs"),
            (scale, "ms") => (scale, " ms"),
            (scale, "min") => (scale, " min"),
            (scale, "h") => (scale, " h"),
            (scale, _) => (scale, " s"),
        },
        Unit::Share => (0.01, " %"),
        Unit::RequestsPerSecond => (1.0, " req/s"),
        Unit::TokensPerSecond => (1.0, " tok/s"),
        Unit::Usd => (1.0, " USD"),
        Unit::GpuSeconds => (3_600.0, " GPU-h"),
        Unit::Replicas | Unit::Count => (1.0, ""),
    };
    let (mean, half_width) = (mean.abs() / scale, half_width.map(|half| half / scale));
    let is_whole = unit == Unit::Count && mean.fract() == 0.0;
    // Nobody asks for thousandths of a percent.
    let decimals_max = if unit == Unit::Share { 2 } else { 3 };
    let decimals = match half_width.filter(|half| *half > 0.0) {
        None if is_whole => 0,
        None => decimals(mean),
        Some(half) => [(9.5, 0), (0.95, 1), (0.095, 2)]
            .into_iter()
            .find_map(|(least, decimals)| (half >= least).then_some(decimals))
            .unwrap_or(decimals_max),
    };
    let text = |value: f64| match decimals {
        0 => count(value.round() as u64),
        _ => format!("{value:.decimals$}"),
    };
    Amount {
        value: text(mean),
        half_width: half_width.map(text),
        unit: name,
    }
}

/// A mean and what it may be off by, in one unit: `1.23 ± 0.05 s`.
pub(super) fn interval(mean: f64, half_width: Option<f64>, unit: Unit) -> String {
    let Some(half_width) = half_width else {
        return value(mean, unit);
    };
    if unit == Unit::Usd {
        return format!("{} ± {}", dollars(mean), dollars(half_width));
    }
    let (scale, name) = match unit {
        Unit::Seconds => time_unit(mean),
        Unit::RequestsPerSecond => (1.0, "req/s"),
        Unit::TokensPerSecond => (1.0, "tok/s"),
        Unit::Share => (0.01, "%"),
        Unit::GpuSeconds => (3_600.0, "GPU-h"),
        Unit::Usd | Unit::Replicas | Unit::Count => (1.0, ""),
    };
    let decimals = decimals(mean / scale);
    let text = format!(
        "{:.decimals$} ± {:.decimals$} {name}",
        mean / scale,
        half_width / scale
    );
    text.trim_end().to_owned()
}

/// A rate: thousands set apart from a thousand up.
pub(super) fn rate(value: f64) -> String {
    if value < 999.5 {
        number(value)
    } else {
        count(value.round() as u64)
    }
}

/// At most three decimals, and none that say nothing.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_the_right_unit() {
        let seconds = [
            0.0,
            4.2e-7,
            0.000_999_6,
            0.0312,
            0.9999,
            1.234,
            64.0,
            300.0,
            7_200.0,
            1e6,
        ];
        assert_eq!(
            seconds.map(duration),
            [
                "0 s", "0.42 µs", "1.00 ms", "31.2 ms", "1.00 s", "1.23 s", "64.0 s", "5.00 min",
                "2.00 h", "278 h"
            ]
        );
    }

    #[test]
    fn clocks_count_days() {
        assert_eq!(clock(750.9, 3600.0), "00:12:30");
        assert_eq!(clock(93_784.0, 100_000.0), "1d 02:03:04");
        assert_eq!(clock(0.025, 0.05), "25.0 ms");
    }

    #[test]
    fn money_is_cents_or_three_digits() {
        let usd = [0.0, 0.999, 1_234_567.891, 0.12, 0.000_345_67];
        assert_eq!(
            usd.map(dollars),
            ["$0.00", "$1.00", "$1,234,567.89", "$0.120", "$0.000346"]
        );
    }

    #[test]
    fn shares_are_never_rounded_to_all_or_nothing() {
        let shares = [0.0, 0.001, 0.124, 0.999, 1.0];
        assert_eq!(
            shares.map(percent),
            ["0 %", "<1 %", "12 %", ">99 %", "100 %"]
        );
        assert_eq!(value(0.999, Unit::Share), "99.9 %");
    }

    #[test]
    fn small_rates_have_three_digits_too() {
        let values = [0.0, 0.012_34, 0.0999, 0.9426, 0.9999, 15.52, 1_234.4];
        assert_eq!(
            values.map(significant),
            ["0", "0.0123", "0.0999", "0.943", "1.00", "15.5", "1,234"]
        );
        let shares = [0.0, 0.000_12, 0.969, 0.9996, 1.0];
        assert_eq!(
            shares.map(exact_percent),
            ["0 %", "0.0120 %", "96.9 %", ">99.9 %", "100 %"]
        );
    }

    #[test]
    fn intervals_share_a_unit() {
        assert_eq!(
            interval(0.0312, Some(0.0012), Unit::Seconds),
            "31.2 ± 1.2 ms"
        );
        assert_eq!(interval(1.5, None, Unit::Seconds), "1.50 s");
        assert_eq!(interval(2.0, Some(0.25), Unit::Replicas), "2.00 ± 0.25");
        assert_eq!(interval(12.0, Some(0.5), Unit::Usd), "$12.00 ± $0.500");
    }

    #[test]
    fn amounts_have_the_digits_that_their_interval_leaves() {
        let text = |mean, half, unit| {
            let amount = amount(mean, half, unit);
            let half = amount.half_width.map(|half| format!(" ±{half}"));
            format!(
                "{}{}{}",
                amount.value,
                half.unwrap_or_default(),
                amount.unit
            )
        };
        assert_eq!(text(-0.142_3, Some(0.020_9), Unit::Share), "14.2 ±2.1 %");
        assert_eq!(text(0.1, Some(0.000_04), Unit::Share), "10.00 ±0.00 %");
        assert_eq!(text(0.005, Some(1.2), Unit::Seconds), "0.0 ±1.2 s");
        assert_eq!(text(1_234.4, Some(120.0), Unit::Count), "1,234 ±120");
        assert_eq!(text(-0.031_2, None, Unit::Seconds), "31.2 ms");
        assert_eq!(text(3.0, None, Unit::Count), "3");
        assert_eq!(text(2.0, Some(0.0), Unit::Seconds), "2.00 ±0.00 s");
        assert_eq!(
            text(7_200.0, Some(360.0), Unit::GpuSeconds),
            "2.00 ±0.10 GPU-h"
        );
    }

    #[test]
    fn counts_set_thousands_apart() {
        assert_eq!(
            [0, 999, 1_000, 36_000_000].map(count),
            ["0", "999", "1,000", "36,000,000"]
        );
        assert_eq!(counted(1, "start"), "1 start");
        assert_eq!(counted(0, "start"), "0 starts");
    }
}
