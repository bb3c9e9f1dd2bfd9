//! Measured steps as tables.

use super::Style;
use super::units::{count, counted, duration, exact_percent, number, percent, rate};
use crate::bench::{Bench, Ceilings, Engine, Figures, Flops, WholeRequests};

/// A bench as text, ending with a newline.
#[must_use]
pub fn bench(bench: &Bench, style: Style) -> String {
    let decode = bench
        .decode
        .iter()
        .map(|step| (u64::from(step.batch), step.context, &step.figures));
    let prefill = bench
        .prefill
        .iter()
        .map(|step| (u64::from(step.chunk), step.context, &step.figures));
    let decode_heading = "a token for each sequence of the batch; context is of each";
    let prefill_heading = "one chunk of one prompt; context is what it has before";
    let sections = [
        head(bench, style),
        ceilings(&bench.ceilings, style),
        table("DECODE", decode_heading, "batch", decode, style),
        running(bench, style),
        table("PREFILL", prefill_heading, "chunk", prefill, style),
        bench
            .requests
            .as_ref()
            .map(|requests| whole_requests(requests, style))
            .unwrap_or_default(),
        legend(style),
    ];
    let sections: Vec<String> = sections
        .into_iter()
        .filter(|section| !section.is_empty())
        .map(|section| section.join("\n"))
        .collect();
    sections.join("\n\n") + "\n"
}

fn head(bench: &Bench, style: Style) -> Vec<String> {
    let Engine {
        backend,
        device,
        world_size,
        is_shard_alone,
        dtype,
        kv_dtype,
        block_size,
        ..
    } = &bench.engine;
    let threads = match bench.engine.threads {
        0 => String::new(),
        threads => format!(" · {}", counted(threads.into(), "thread")),
    };
    let alone = match is_shard_alone {
        true => ", one rank alone",
        false => "",
    };
    let parameters = scaled(bench.model.parameters as f64);
    let mut lines = vec![
        format!(
            "{} · {parameters} parameters · measured {}",
            style.heading(&bench.model.name),
            bench.measured_on
        ),
        format!("{backend} ({device}){threads} · world size {world_size}{alone}"),
        format!("{dtype} weights · {kv_dtype} KV cache in blocks of {block_size} tokens"),
    ];
    if !bench.startup.is_empty() {
        lines.push(startup(bench));
    }
    lines
}

fn startup(bench: &Bench) -> String {
    let total: f64 = bench.startup.iter().map(|stage| stage.seconds).sum();
    let stages: Vec<String> = bench
        .startup
        .iter()
        .map(|stage| {
            format!(
                "{} {}",
                stage.name.replace('_', " "),
                duration(stage.seconds)
            )
        })
        .collect();
    format!("started in {}: {}", duration(total), stages.join(", "))
}

fn ceilings(ceilings: &Ceilings, style: Style) -> Vec<String> {
    vec![
        format!(
            "{}  measured just before and after, on the same {}",
            style.heading("CEILINGS"),
            match ceilings.flops_of {
                Flops::F32 => "threads",
                Flops::Bf16 => "GPU",
            }
        ),
        format!(
            "  read {} GB/s · multiply-add {} GFLOP/s in {}",
            number(ceilings.read_bytes_per_s / 1e9),
            number(ceilings.flops_per_s / 1e9),
            match ceilings.flops_of {
                Flops::F32 => "f32",
                Flops::Bf16 => "bf16",
            }
        ),
    ]
}

/// A table of steps; nothing if there are none.
fn table<'a>(
    name: &str,
    meaning: &str,
    key: &str,
    steps: impl Iterator<Item = (u64, u64, &'a Figures)>,
    style: Style,
) -> Vec<String> {
    let rows: Vec<String> = steps
        .map(|(key, context, figures)| row(key, context, figures))
        .collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let columns = format!(
        "{key:>7}{:>9}{:>9}{:>8}{:>10}{:>9}{:>7}{:>6}{:>9}{:>9}{:>6}{:>7}",
        "context",
        "time",
        "spread",
        "tokens/s",
        "bytes",
        "GB/s",
        "",
        "FLOP",
        "GFLOP/s",
        "",
        "floor"
    );
    let mut lines = vec![
        format!("{}  {meaning}", style.heading(name)),
        style.quiet(&columns),
    ];
    lines.extend(rows);
    lines
}

/// Batches that go on, beside the same steps one by one; nothing if there are none.
fn running(bench: &Bench, style: Style) -> Vec<String> {
    let rows: Vec<String> = bench
        .decode
        .iter()
        .filter_map(|step| {
            let running = step.running?;
            let idle = running.idle_share.map_or("-".to_owned(), exact_percent);
            let floor = step.figures.floor_seconds / running.seconds_mean;
            Some(format!(
                "{:>7}{:>9}{:>9}{:>8}{:>10}{:>9}{:>7}",
                count(step.batch.into()),
                count(step.context),
                duration(running.seconds_mean),
                running.steps,
                rate(f64::from(step.batch) / running.seconds_mean),
                idle,
                percent(floor),
            ))
        })
        .collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let columns = format!(
        "{:>7}{:>9}{:>9}{:>8}{:>10}{:>9}{:>7}",
        "batch", "context", "time", "steps", "tokens/s", "idle", "floor"
    );
    let heading = style.heading("RUNNING");
    let mut lines = vec![
        format!("{heading}  the same batches going on, each step a token further"),
        style.quiet(&columns),
    ];
    lines.extend(rows);
    lines
}

fn row(key: u64, context: u64, figures: &Figures) -> String {
    format!(
        "{:>7}{:>9}{:>9}{:>8}{:>10}{:>9}{:>7}{:>6}{:>9}{:>9}{:>6}{:>7}",
        count(key),
        count(context),
        duration(figures.seconds_median),
        percent(figures.spread),
        rate(figures.tokens_per_s),
        format!("{}B", scaled(figures.bytes as f64)),
        number(figures.bytes_per_s / 1e9),
        percent(figures.read_share),
        scaled(figures.flops as f64),
        number(figures.flops_per_s / 1e9),
        percent(figures.flops_share),
        percent(figures.floor_share),
    )
}

fn whole_requests(requests: &WholeRequests, style: Style) -> Vec<String> {
    vec![
        format!(
            "{}  {} at once, {} prompt and {} output tokens each, through scheduler and driver",
            style.heading("REQUESTS"),
            requests.batch,
            count(requests.prompt_tokens.into()),
            count(requests.output_tokens.into())
        ),
        format!(
            "  {} output tokens/s · {} steps took {} of {} · scheduler and driver {}",
            rate(requests.output_tokens_per_s),
            count(requests.steps),
            duration(requests.step_seconds),
            duration(requests.wall_seconds),
            exact_percent(requests.outside_share)
        ),
    ]
}

fn legend(style: Style) -> Vec<String> {
    [
        "time is the median of the repeats, spread from the shortest to the longest of them;",
        "percentages are of the ceilings; floor is the time at the ceilings as a share of the time",
    ]
    .map(|line| style.quiet(line))
    .to_vec()
}

/// Three significant digits and a decimal prefix: `269 M`.
fn scaled(value: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // The border leaves room for rounding: 999.9 k is 1.00 M.
    let unit = units.into_iter().find(|(unit, _)| value >= unit * 0.9995);
    match unit {
        Some((unit, prefix)) => format!("{} {prefix}", number(value / unit)),
        None => format!("{value} "),
    }
}

#[cfg(test)]
mod tests {
    use super::scaled;

    #[test]
    fn amounts_have_three_digits_and_a_prefix() {
        let amounts = [12.0, 999.9, 134_515_008.0, 999_900_000.0, 2.5e12];
        assert_eq!(
            amounts.map(scaled),
            ["12 ", "1.00 k", "135 M", "1.00 G", "2.50 T"]
        );
    }
}
