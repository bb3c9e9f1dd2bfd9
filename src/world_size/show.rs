//! The comparison for people: a table, sentences, and a picture.

use std::fmt::Write as _;

use foresail_reports::picture::{Axis, Mark, Plot, Point, Series, svg};

use super::Report;
use super::break_even::{BreakEven, Latency};
use super::probe::{Figures, Row};

/// What the columns are.
const HEADER: [&str; 9] = [
    "GPUs",
    "KV tokens",
    "TTFT idle",
    "speed-up",
    "ITL by batch",
    "req/s max",
    "per GPU",
    "saturates",
    "USD/M out",
];

pub(super) fn text(report: &Report) -> String {
    let mut text = format!(
        "{}: {} on {}, {:.0} prompt and {:.0} output tokens in the mean\n",
        report.scenario,
        report.model,
        report.gpu,
        report.prompt_tokens_mean,
        report.output_tokens_mean
    );
    let objectives = match report.objectives.as_slice() {
        [] => "none for latency: the maximum rate is saturation".to_owned(),
        objectives => objectives.join(", "),
    };
    let objectives = match report.objectives_not_judged {
        0 => objectives,
        others => format!("{objectives}; {others} more of the scenario are not judged"),
    };
    let _ = writeln!(text, "objectives: {objectives}\n");
    table(&mut text, &report.world_sizes);
    for row in &report.world_sizes {
        if let Some(why) = &row.why_not {
            let _ = writeln!(text, "world size {}: {why}", row.world_size);
        }
    }
    if !report.break_even.is_empty() {
        text.push_str("\nThe same GPUs as one replica, or as several:\n");
        for pair in &report.break_even {
            let _ = writeln!(text, "  {}", sentence(pair));
        }
    }
    text.push_str("\nThis stands on:\n");
    for fact in &report.facts {
        let _ = writeln!(text, "  {fact}");
    }
    text
}

fn table(text: &mut String, rows: &[Row]) {
    let known = rows
        .iter()
        .filter_map(|row| Some((row.world_size, row.figures.as_ref()?)));
    let mut lines: Vec<[String; 9]> = vec![HEADER.map(str::to_owned)];
    lines.extend(known.map(|(size, figures)| cells(size, figures)));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEADER.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:>width$}"))
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}

fn cells(size: u32, figures: &Figures) -> [String; 9] {
    let itl: Vec<String> = figures
        .itl
        .iter()
        .map(|itl| format!("{}: {:.1}", itl.batch, 1e3 * itl.seconds))
        .collect();
    [
        size.to_string(),
        figures.kv_tokens.to_string(),
        format!("{:.0} ms", 1e3 * figures.ttft_idle_s),
        format!("{:.2}x", figures.speed_up),
        format!("{} ms", itl.join(", ")),
        format!("{:.2}", figures.requests_per_s_max),
        figures
            .efficiency
            .map_or("-".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
        format!("{:.2}", figures.saturation_requests_per_s),
        figures
            .usd_per_million_output_tokens
            .map_or("-".to_owned(), |usd| format!("{usd:.2}")),
    ]
}

fn sentence(pair: &BreakEven) -> String {
    let BreakEven {
        world_size,
        against_world_size,
        against_replicas,
        ..
    } = pair;
    let latency = match &pair.latency {
        Latency::Always => "answers sooner at every rate that both can serve".to_owned(),
        Latency::Never => "answers sooner at no rate that both can serve".to_owned(),
        Latency::UpTo { requests_per_s } => {
            format!("answers sooner up to {requests_per_s:.2} requests/s")
        }
        Latency::From { requests_per_s } => {
            format!("answers sooner from {requests_per_s:.2} requests/s on")
        }
        Latency::Changing {
            is_one_first,
            requests_per_s,
        } => {
            let rates: Vec<String> = requests_per_s.iter().map(|it| format!("{it:.2}")).collect();
            let first = if *is_one_first { "sooner" } else { "later" };
            format!(
                "answers {first} at first, which changes at {} requests/s",
                rates.join(", ")
            )
        }
    };
    let cost = match (
        pair.cheaper_from_requests_per_s,
        pair.cheaper_to_requests_per_s,
    ) {
        (Some(from), Some(to)) => {
            format!("takes fewer GPUs within the objectives from {from:.2} to {to:.2} requests/s")
        }
        _ => "never takes fewer GPUs within the objectives".to_owned(),
    };
    format!(
        "one of {world_size} against {against_replicas} of {against_world_size}: {latency}, {cost}"
    )
}

pub(super) fn picture(report: &Report) -> String {
    let known = || {
        let rows = report.world_sizes.iter();
        rows.filter_map(|row| Some((f64::from(row.world_size), row.figures.as_ref()?)))
    };
    let line = |name: &str, of: &dyn Fn(&Figures) -> f64| {
        let points = known().map(|(size, figures)| Point::new(size, of(figures)));
        Series::new(name, Mark::Line, points.collect())
    };
    let first = known().next().map_or(1.0, |(size, _)| size);
    let ideal = known().map(|(size, _)| Point::new(size, size / first));
    let speed = Plot {
        title: format!("{}: speed-up of a lone sequence", report.scenario),
        x: Axis::log("GPUs a replica"),
        y: Axis::linear("times the smallest world size"),
        series: vec![
            line("tokens", &|figures| figures.speed_up),
            Series::new("as many times as GPUs", Mark::Line, ideal.collect()),
        ],
    };
    let rates = Plot {
        title: "Requests a second of one replica".to_owned(),
        x: Axis::log("GPUs a replica"),
        y: Axis::linear("requests/s"),
        series: vec![
            line("within the objectives", &|figures| {
                figures.requests_per_s_max
            }),
            line("saturation", &|figures| figures.saturation_requests_per_s),
        ],
    };
    let batches = known()
        .next()
        .map_or(Vec::new(), |(_, figures)| figures.itl.clone());
    let token_times = batches.iter().enumerate().map(|(index, itl)| {
        line(&format!("batch {}", itl.batch), &|figures| {
            figures.itl.get(index).map_or(0.0, |itl| 1e3 * itl.seconds)
        })
    });
    let tokens = Plot {
        title: "Time between tokens".to_owned(),
        x: Axis::log("GPUs a replica"),
        y: Axis::linear("ms"),
        series: token_times.collect(),
    };
    svg(&[speed, rates, tokens])
}
