//! What a person reads of a calibration.

use std::fmt::Write as _;

use foresail_calibration::steps::{self, CellSummary};
use foresail_core::step_time::CalibratedProfile;
use foresail_core::step_time::calibrated::{HowMeasured, TermEstimate, Terms, WorldSizeFit};

use super::measure::{Measured, MeasuredWorld};
use crate::failure::Failure;

/// The profile and its measurement as text, ending with a newline.
pub(super) fn of(profile: &CalibratedProfile, measured: &Measured) -> Result<String, Failure> {
    let mut text = head(profile);
    for world in &measured.worlds {
        let cells = steps::summary(&world.fit);
        let cells = cells.map_err(|error| Failure::Defect(format!("no fit: {error}")))?;
        text += "\n";
        text += &steps_table(world, &cells);
        text += "\n";
        text += &terms_table(&world.fit);
        text += "\n";
        text += &quality(world);
    }
    text += &not_identified(profile);
    Ok(text)
}

fn head(profile: &CalibratedProfile) -> String {
    let from = &profile.provenance;
    let threads = match from.threads {
        0 => String::new(),
        1 => " · 1 thread".to_owned(),
        threads => format!(" · {threads} threads"),
    };
    format!(
        "{} · measured {}\n{} ({}){threads}\n",
        from.model, from.measured_on, from.engine, from.device
    )
}

fn steps_table(world: &MeasuredWorld, cells: &[CellSummary]) -> String {
    let mut text = format!(
        "STEPS, world size {}{}\n",
        world.world_size,
        how(&world.fit)
    );
    let width = cells.iter().map(|cell| cell.name.chars().count()).max();
    let width = width.unwrap_or(0).max(4);
    line(
        &mut text,
        format_args!(
            "  {:<width$}  {:>10} {:>7}  {:>10} {:>7}  {:>6}  {:>6}",
            "step", "measured", "±", "fitted", "error", "busy", "rounds"
        ),
    );
    for (index, (cell, measured)) in cells.iter().zip(&world.cells.cells).enumerate() {
        let busy = cell.device_s.map_or_else(
            || "-".to_owned(),
            |busy| percent(busy / cell.measured.median_s),
        );
        let mut said = Vec::new();
        if cell.is_left_out {
            said.push("left out".to_owned());
        }
        // A step says how many tokens its sequences have together: the second with as many has long and short ones.
        if cells[..index].iter().any(|before| before.name == cell.name) {
            said.push("contexts differ".to_owned());
        }
        if cell.stalled > 0 {
            said.push(format!("{} held up", cell.stalled));
        }
        if !measured.is_tight {
            said.push("not tight".to_owned());
        }
        line(
            &mut text,
            format_args!(
                "  {:<width$}  {:>10} {:>7}  {:>10} {:>7}  {busy:>6}  {:>6}  {}",
                cell.name,
                time(cell.measured.median_s),
                percent(cell.measured.relative_half_width()),
                time(cell.fitted_s),
                signed_percent(cell.error),
                cell.repeats,
                said.join(", ")
            ),
        );
    }
    text
}

fn how(fit: &WorldSizeFit) -> &'static str {
    match fit.how {
        HowMeasured::ShardAlone => ", without exchanges between ranks",
        HowMeasured::Ranks | HowMeasured::Requests | HowMeasured::Published => "",
    }
}

fn terms_table(fit: &WorldSizeFit) -> String {
    let mut text = "TERMS, with 95 % intervals\n".to_owned();
    for term in &fit.terms {
        let TermEstimate {
            name,
            value,
            low,
            high,
            is_identified,
        } = term;
        let meaning = Terms::meaning(name).unwrap_or_default();
        let value = match is_identified {
            true => format!(
                "{:>10}  {:>10} to {:>10}",
                time(*value),
                time(*low),
                time(*high)
            ),
            false => format!("{:>10}  {:>24}", "-", "not identified"),
        };
        line(&mut text, format_args!("  {name:<17}{value}  {meaning}"));
    }
    for (name, factor, what) in [
        ("token_factor", &fit.token_factor, "matrices, by tokens"),
        (
            "kv_factor",
            &fit.kv_factor,
            "KV cache, by sequences that decode",
        ),
    ] {
        if factor.knots.is_empty() {
            continue;
        }
        let knots = factor.knots.iter();
        let knots: Vec<String> = knots
            .map(|knot| format!("{} at {}", significant(knot.factor), knot.at))
            .collect();
        line(
            &mut text,
            format_args!("  {name:<17}on {what}: {}", knots.join(", ")),
        );
    }
    if let Some(exchanges) = &fit.all_reduce {
        let ranges = exchanges.ranges.iter().map(|range| {
            let bandwidth = range.beta_bytes_per_s / 1e9;
            format!(
                "to {} bytes {} and {} GB/s",
                range.bytes_last,
                time(range.alpha_s),
                significant(bandwidth)
            )
        });
        line(
            &mut text,
            format_args!(
                "  {:<17}{} a step of {} bytes a token: {}",
                "all_reduce",
                exchanges.per_step,
                exchanges.bytes_per_token,
                ranges.collect::<Vec<_>>().join("; ")
            ),
        );
    }
    text
}

fn quality(world: &MeasuredWorld) -> String {
    let (fit, cells) = (&world.fit, &world.cells);
    let residuals = &fit.residuals;
    let mut text = "QUALITY\n".to_owned();
    let unseen = residuals
        .cross_validated_mean
        .map_or_else(|| "not known".to_owned(), percent);
    line(
        &mut text,
        format_args!(
            "  error of the fit: mean {}, largest {}; of steps that it had not seen: mean {unseen}",
            percent(residuals.mean),
            percent(residuals.max)
        ),
    );
    line(
        &mut text,
        format_args!(
            "  from run to run, all step times together vary by about {}",
            percent(fit.run_to_run)
        ),
    );
    if world.is_unsteady() {
        let told = "  that is no quiet machine: end what else runs on it, and measure again";
        line(&mut text, format_args!("{told}"));
    }
    let loose = cells.cells.iter().filter(|cell| !cell.is_tight).count();
    let reached = match loose {
        0 => "every step is known to 1 %".to_owned(),
        1 => "one step is not known to 1 %".to_owned(),
        loose => format!(
            "{loose} of {} steps are not known to 1 %",
            cells.cells.len()
        ),
    };
    line(
        &mut text,
        format_args!("  {} rounds; {reached}", cells.rounds),
    );
    for outlier in &world.outliers {
        line(&mut text, format_args!("  {outlier}"));
    }
    let spent = cells.spent;
    line(
        &mut text,
        format_args!(
            "  time: start {}, warm-up {}, timed steps {}, between them {}, fit {}",
            time(world.start_s),
            time(spent.warm_up_s),
            time(spent.timed_s),
            time(spent.between_s),
            time(world.fit_s)
        ),
    );
    text
}

fn not_identified(profile: &CalibratedProfile) -> String {
    if profile.not_identified.is_empty() {
        return String::new();
    }
    let mut text = "\nNOT IDENTIFIED\n".to_owned();
    for sentence in &profile.not_identified {
        line(&mut text, format_args!("  {sentence}"));
    }
    text
}

/// Adds a line, without blanks at its end.
fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    let mut whole = String::new();
    // Writing to a string does not fail.
    let _ = write!(whole, "{content}");
    text.push_str(whole.trim_end());
    text.push('\n');
}

/// Three digits, with the unit that suits.
fn time(seconds: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= *unit);
    match (seconds, unit) {
        (0.0, _) => "0 s".to_owned(),
        (_, Some((unit, name))) => format!("{} {name}", significant(seconds / unit)),
        (_, None) => format!("{} ps", significant(seconds / 1e-12)),
    }
}

fn significant(value: f64) -> String {
    let decimals = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn signed_percent(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_right_unit() {
        let texts = [0.0, 2.5, 0.123_4, 45.67e-6, 8e-9, 3.21e-12].map(time);
        assert_eq!(
            texts,
            ["0 s", "2.50 s", "123 ms", "45.7 us", "8.00 ns", "3.21 ps"]
        );
    }
}
