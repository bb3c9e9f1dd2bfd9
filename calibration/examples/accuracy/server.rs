//! What servers add to a request, beside the steps of their engines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::case::{Figure, median};
use crate::errors::Judged;

const HEAD: &str = "\
## What a server adds to a request

The time to first token of lightly loaded servers, less what the built-in figures predict of its steps: HTTP, templates, tokenizing, the
way to the engine and back, and what the prediction of the prompt is off by. All servers take more than their steps, from 15 to 45 ms in
the median, so that a built-in time to first token is too short; but they differ too much for a default, and LLMServingSim's
times, which are the engine's own, have nothing of it. Say what yours takes as `request_overhead` of `[step_time]`: `calibrate endpoint`
measures it, and 25 ms is the middle of these where nothing is known. *Off by* is the median of the signed errors.

| server | runs | measured TTFT, mean | its steps | what is left: median | least | most | off by | with 25 ms |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// What a user is told to say where nothing is known (s).
const MIDDLE_S: f64 = 0.025;

/// Of a server's runs: what was measured, and what its steps take (s).
type Runs = BTreeMap<String, (f64, f64)>;

pub(crate) fn section(text: &mut String, all: &[Judged]) {
    let mut servers: BTreeMap<&str, Runs> = BTreeMap::new();
    for judged in all {
        for error in &judged.built_in {
            let case = &judged.study.cases[error.case];
            let (Some(server), Figure::TtftMean) = (case.server, error.figure) else {
                continue;
            };
            // A study of several others has their runs again.
            let runs = servers.entry(server).or_default();
            runs.insert(case.name.clone(), (error.measured, error.predicted));
        }
    }
    text.push('\n');
    text.push_str(HEAD);
    for (server, runs) in &servers {
        let _ = writeln!(text, "| {server} | {} | {} |", runs.len(), cells(runs));
    }
}

fn cells(runs: &Runs) -> String {
    let of = |of: fn(&(f64, f64)) -> f64| runs.values().map(of).collect::<Vec<f64>>();
    let left = of(|(measured, predicted)| measured - predicted);
    let least = left.iter().copied().fold(f64::MAX, f64::min);
    let most = left.iter().copied().fold(f64::MIN, f64::max);
    let without = of(|(measured, predicted)| predicted / measured - 1.0);
    let with = of(|(measured, predicted)| (predicted + MIDDLE_S) / measured - 1.0);
    format!(
        "{:.0} ms | {:.0} ms | {:+.0} ms | {:+.0} ms | {:+.0} ms | {:+.0} % | {:+.0} %",
        1e3 * median(of(|(measured, _)| *measured)),
        1e3 * median(of(|(_, predicted)| *predicted)),
        1e3 * median(left),
        1e3 * least,
        1e3 * most,
        100.0 * median(without),
        100.0 * median(with),
    )
}
