//! The document.

use std::fmt::Write as _;

use crate::case::{Figure, median};
use crate::errors::{Error, Judged};

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
- The overheads among the built-in figures are themselves fitted: of H100 and H200 to the rate sweeps, the three closed loops, TensorRT-LLM's
  batches on H100 and the single steps; of A100 to Argonne's batches. There *built-in* has seen what it is compared with. A fit has not:
  it begins with those overheads as uncertain as a factor of 7. Splitwise, LLMServingSim and vLLM's batches on H100 were used for no
  built-in figure.
- An error is predicted / measured - 1. *Inside* counts the measured values within the 95 % interval of the prediction: draws of the
  built-in figures from their deviations, or of the fit from its own. Intervals are of the step times only: they do not hold the noise of the
  measurements, nor what sources do not say of their load.

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
    for judged in all {
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
    for judged in all {
        section(&mut text, judged);
    }
    text
}

fn section(text: &mut String, judged: &Judged) {
    let _ = write!(
        text,
        "\n## {}\n\n{}\n",
        judged.study.title, judged.study.about
    );
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
    let mut all: Vec<&Error> = held_out(judged).collect();
    all.sort_by(|left, right| right.relative().abs().total_cmp(&left.relative().abs()));
    text.push_str("\nThe largest errors of the held-out predictions:\n\n");
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
    let mut figures: Vec<Figure> = held_out(judged).map(|error| error.figure).collect();
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
