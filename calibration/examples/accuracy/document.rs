//! The document.

use std::fmt::Write as _;

use crate::case::{Figure, median};
use crate::errors::{Error, Judged};
use crate::server;

const HEAD: &str = "\
# How far off predictions are

Predictions of measurements that other people published, beside those measurements. This file is written by

```sh
FORESAIL_SHARED=… cargo run --release --example accuracy -- --out docs/accuracy.md
```

where `FORESAIL_SHARED` holds the collected results (they are not part of this repository). Every number below is the program's.

- *Built-in* is what a newcomer gets: the model's shape and the GPU's built-in figures, no fit, and nothing for the work of a
  server around the engine.
- *Held out* is predicted by a fit (`foresail_calibration::efficiency`) to other results of the same source. A fit never sees what it predicts. It
  begins with the built-in figures and changes them as far as the results ask for it.
- *Never fitted* are sources that only judge the built-in figures.
- The overheads among the built-in figures are themselves fitted: of H100 and H200 to the rate sweeps, the three closed loops, TensorRT-LLM's
  batches on H100 and the single steps; of A100 to Argonne's batches. There *built-in* has seen what it is compared with. A fit has not:
  it begins with those overheads as uncertain as a factor of 7. Splitwise, LLMServingSim and vLLM's batches on H100 were used for no
  built-in figure.
- An error is predicted / measured - 1. *Inside* counts the measured values within the 95 % interval of the prediction: draws of the
  built-in figures from their deviations, which are of the step times only; or draws of the fit, each figure besides as far off as the
  fit was where it left out what it was fitted to. Neither holds what sources do not say of their load.

For scale, what peers publish of themselves against real engines, in the median over their runs: BLIS 6.7 % (E2E mean), 17.6 % (TTFT mean),
29 % (TTFT p99), 7.1 % (ITL) on 36 held-out runs, fitted to 15 others; Vidur below 9 %; LLMServingSim below 4 % on runs like the one that
it profiled, and 18.8 % (E2E), 72.5 % (TTFT) where others used it; AISimulate within 5.3 % of the throughput on 7 of 9 points.
";

pub(crate) fn text(all: &[Judged]) -> String {
    let mut text = HEAD.to_owned();
    text.push_str("\n## All at once\n\nMedian magnitude of the errors, built-in | held out:\n\n");
    text.push_str(
        "| source | figure | measured values | built-in | held out |\n|---|---|--:|--:|--:|\n",
    );
    for judged in all.iter().filter(|judged| !is_unfitted(judged)) {
        for figure in figures(judged) {
            let held_out = of_figure(held_out(judged), figure);
            let built_in = of_figure(judged.built_in.iter(), figure);
            let size = |errors: &[&Error]| {
                percent(median(
                    errors.iter().map(|of| of.relative().abs()).collect(),
                ))
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                judged.study.title,
                figure.name(),
                held_out.len(),
                size(&built_in),
                size(&held_out)
            );
        }
    }
    unfitted(&mut text, all);
    server::section(&mut text, all);
    for judged in all {
        section(&mut text, judged);
    }
    text
}

/// Whether it only judges the built-in figures.
fn is_unfitted(judged: &Judged) -> bool {
    judged.held_out.is_empty()
}

const UNFITTED: &str = "\
## Never fitted

Sources that neither a built-in figure nor a fit has seen, predicted by the built-in figures alone: what to expect of the next published result.
What had to be assumed of each is in its section. What they have in common with the others, and what it asks of a scenario:

- Engines of 2024 (Llama-3.1-405B here, and Argonne's batches of vLLM on H100) take 1.4 times what is predicted: the built-in figures are those
  of 2025. Say more `step_overhead`, `sequence_overhead` and `layer_overhead` for old engines, or calibrate.
- Engines without a server (TensorRT-LLM's table) take less for each sequence than those that stream every token to a client: say
  `sequence_overhead = \"6us\"`. Small models in large batches feel it most.
- MLPerf's *Server* results are at the highest rate that meets the limits, nine tenths of what *Offline* reaches, where latency is steep: capacities that are
  3 % right give latencies that are a factor of 2 off. So will any prediction at the edge of saturation be.
- vLLM reads an fp8 KV cache hardly faster than one of bf16: its results with Llama-3.1-70B ask for a `kv_read` of 0.4, and its kernels take as long
  for a token of either (aiconfigurator 278bd70 `h200_sxm/generation_attention_perf.txt`). TensorRT-LLM's results do not: say it for vLLM with an fp8 cache.
- Not compared: `dynamo_h200_tp1_*` names no model; DeepSeek-R1 (latent attention) and gpt-oss (4-bit weights, sliding windows) of `aiconfigurator_silicon.csv`
  are of shapes that no scenario can say; the file has no other models than those above and Llama.

| source | figure | measured values | built-in: median | median size | largest | inside |
|---|---|--:|--:|--:|--:|--:|
";

fn unfitted(text: &mut String, all: &[Judged]) {
    text.push('\n');
    text.push_str(UNFITTED);
    for judged in all.iter().filter(|judged| is_unfitted(judged)) {
        for figure in figures(judged) {
            let errors = of_figure(judged.built_in.iter(), figure);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                judged.study.title,
                figure.name(),
                errors.len(),
                cells(&errors).replacen(", ", " | ", 2)
            );
        }
    }
}

/// Every built-in prediction, a line each.
pub(crate) fn values(all: &[Judged]) -> String {
    let mut text = String::new();
    for judged in all {
        let _ = writeln!(text, "{}", judged.study.title);
        for error in &judged.built_in {
            let _ = writeln!(
                text,
                "  {}, {}: measured {}, predicted {} ({:+.1} %)",
                judged.study.cases[error.case].name,
                error.figure.name(),
                value(error.figure, error.measured),
                value(error.figure, error.predicted),
                100.0 * error.relative()
            );
        }
    }
    text
}

fn section(text: &mut String, judged: &Judged) {
    let _ = write!(
        text,
        "\n## {}\n\n{}\n",
        judged.study.title, judged.study.about
    );
    if is_unfitted(judged) {
        return worst(text, judged);
    }
    text.push_str("\n| figure | values | built-in: median, median size, largest | inside | held out: median, median size, largest | inside |\n");
    text.push_str("|---|--:|--:|--:|--:|--:|\n");
    for figure in figures(judged) {
        let built_in = of_figure(judged.built_in.iter(), figure);
        let held_out = of_figure(held_out(judged), figure);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            figure.name(),
            held_out.len(),
            cells(&built_in),
            cells(&held_out)
        );
    }
    text.push_str("\nPredicted from the others, and what the fit changed (times what it was, with a deviation of):\n\n");
    for (fitted, errors) in &judged.held_out {
        let changed = fitted
            .fit
            .figures
            .iter()
            .filter(|figure| figure.is_identified());
        let changed = changed.map(|of| {
            format!(
                "{} {:.2} ({})",
                of.name,
                of.factor,
                percent(of.deviation).trim_start_matches('+')
            )
        });
        let changed: Vec<String> = changed.collect();
        let sizes = median(errors.iter().map(|of| of.relative().abs()).collect());
        let _ = writeln!(
            text,
            "- {}, from {} others: median size {}. Known by the fit: {}.",
            fitted.name,
            fitted.cases,
            percent(sizes),
            if changed.is_empty() {
                "nothing better than before".to_owned()
            } else {
                changed.join(", ")
            }
        );
    }
    worst(text, judged);
}

/// The largest errors, so that nobody has to look for them.
fn worst(text: &mut String, judged: &Judged) {
    let (mut all, of): (Vec<&Error>, _) = if is_unfitted(judged) {
        (judged.built_in.iter().collect(), "built-in")
    } else {
        (held_out(judged).collect(), "held-out")
    };
    all.sort_by(|left, right| right.relative().abs().total_cmp(&left.relative().abs()));
    let _ = write!(text, "\nThe largest errors of the {of} predictions:\n\n");
    for error in all.iter().take(3) {
        let _ = writeln!(
            text,
            "- {}, {}: measured {}, predicted {} ({:+.1} %)",
            judged.study.cases[error.case].name,
            error.figure.name(),
            value(error.figure, error.measured),
            value(error.figure, error.predicted),
            100.0 * error.relative()
        );
    }
}

fn held_out(judged: &Judged) -> impl Iterator<Item = &Error> {
    judged.held_out.iter().flat_map(|(_, errors)| errors)
}

fn figures(judged: &Judged) -> Vec<Figure> {
    let mut figures: Vec<Figure> = judged.built_in.iter().map(|error| error.figure).collect();
    figures.sort_unstable();
    figures.dedup();
    figures
}

fn of_figure<'a>(errors: impl Iterator<Item = &'a Error>, figure: Figure) -> Vec<&'a Error> {
    errors.filter(|error| error.figure == figure).collect()
}

fn cells(errors: &[&Error]) -> String {
    let relative: Vec<f64> = errors.iter().map(|error| error.relative()).collect();
    let sizes: Vec<f64> = relative.iter().map(|error| error.abs()).collect();
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    let inside = errors.iter().filter(|error| error.is_inside()).count();
    format!(
        "{:+.1} %, {}, {} | {inside} of {}",
        100.0 * median(relative),
        percent(median(sizes)),
        percent(largest),
        errors.len()
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn value(figure: Figure, value: f64) -> String {
    match figure {
        Figure::RequestsPerSecond => format!("{value:.1}/s"),
        _ => format!("{:.1} ms", 1e3 * value),
    }
}
