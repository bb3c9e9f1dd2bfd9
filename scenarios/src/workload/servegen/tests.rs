//! Client pools as a whole: small folders written here, and the recorded ones.

use std::fmt::Write as _;
use std::time::Duration;

use foresail_core::time::{HOUR, SECOND};

use super::super::testing::{all, shared, workload};
use super::super::{Source, TraceStats, Workload};
use super::*;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn pools(folder: &Path, duration: Option<Nanos>) -> Workload {
    workload(Source::ServeGen(ServeGenSource {
        folder: folder.to_owned(),
        duration,
    }))
}

fn problem(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    match pools(folder.path(), None).open(1) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

const DATASET: &str =
    r#"{"0": {"input_tokens": "{10: 0.5, 20: 0.5}", "output_tokens": "{3: 1.0}"}}"#;

/// Windows of 600 s with these rates, Gamma with this cv; 0 is idle.
fn windows(rates: &[f64], cv: f64) -> String {
    let mut text = String::new();
    for (index, rate) in rates.iter().enumerate() {
        let law = if *rate > 0.0 {
            format!("{rate},{cv},Gamma,1,1")
        } else {
            "0,0,,0,0".to_owned()
        };
        let _ = write!(text, "{},{law}\r\n", index * 600);
    }
    text
}

#[test]
fn windows_follow_their_rates_and_idle_ones_are_silent() {
    let rates = [5.0, 0.0, 20.0];
    let folder = folder(&[
        ("chunk-3-trace.csv", &windows(&rates, 2.0)),
        ("chunk-3-dataset.json", DATASET),
        ("LICENSE", "not a client"),
    ]);
    let requests = all(&pools(folder.path(), None), 1).unwrap();
    for (index, rate) in rates.iter().enumerate() {
        let from = index as u64 * 600 * SECOND;
        let count = requests
            .iter()
            .filter(|r| (from..from + 600 * SECOND).contains(&r.due))
            .count();
        // The variance of the count is about cv^2 times its mean.
        let mean = rate * 600.0;
        assert!(
            (count as f64 - mean).abs() <= 4.0 * 2.0 * mean.sqrt(),
            "{index}: {count} of {mean}"
        );
    }
    assert!(requests.is_sorted_by_key(|request| request.due));
    assert!(
        requests
            .iter()
            .all(|r| [10, 20].contains(&r.prompt_tokens) && r.output_tokens == 3)
    );
}

#[test]
fn bursty_clients_with_few_requests_a_window_keep_their_rate() {
    // Restarting the process in each window would give about 6 + (3^2 - 1) / 2 requests instead of 6.
    let folder = folder(&[
        ("chunk-0-trace.csv", &windows(&[0.01; 2000], 3.0)),
        ("chunk-0-dataset.json", DATASET),
    ]);
    let count = all(&pools(folder.path(), None), 1).unwrap().len() as f64;
    assert!((count / 12_000.0 - 1.0).abs() < 0.1, "{count}");
}

#[test]
fn clients_without_lengths_draw_from_the_mix_by_rate() {
    let lengths = |tokens| {
        format!(
            r#"{{"0": {{"input_tokens": "{{{tokens}: 1.0}}", "output_tokens": "{{1: 1.0}}"}}}}"#
        )
    };
    let folder = folder(&[
        ("chunk-0-trace.csv", &windows(&[1.0], 1.0)),
        ("chunk-0-dataset.json", &lengths(100)),
        ("chunk-1-trace.csv", &windows(&[3.0], 1.0)),
        ("chunk-1-dataset.json", &lengths(200)),
        ("chunk-2-trace.csv", &windows(&[40.0], 1.0)),
    ]);
    let workload = pools(folder.path(), None);
    let requests = all(&workload, 1).unwrap();
    let first = requests
        .iter()
        .filter(|request| request.prompt_tokens == 100)
        .count();
    let share = first as f64 / requests.len() as f64;
    assert!((share - 0.25).abs() < 0.02, "{share}");
    let description = workload.open(1).unwrap().describe();
    assert!(
        description.contains("3 clients; 2 of them (9.1 % of the requests)"),
        "{description}"
    );
}

#[test]
fn one_client_more_leaves_the_others_as_they_were() {
    let one = folder(&[
        ("chunk-7-trace.csv", &windows(&[2.0], 1.5)),
        ("chunk-7-dataset.json", DATASET),
    ]);
    let two = folder(&[
        ("chunk-7-trace.csv", &windows(&[2.0], 1.5)),
        ("chunk-7-dataset.json", DATASET),
        ("chunk-8-trace.csv", &windows(&[2.0], 1.5)),
    ]);
    let few = all(&pools(one.path(), None), 1).unwrap();
    let many = all(&pools(two.path(), None), 1).unwrap();
    assert!(many.len() > few.len());
    assert!(few.iter().all(|request| many.contains(request)));
}

#[test]
fn what_does_not_fit_says_where_and_why() {
    let trace = windows(&[1.0], 1.0);
    let good = ("chunk-0-trace.csv", trace.as_str());
    let with = |dataset: &str| problem(&[good, ("chunk-0-dataset.json", dataset)]);
    let row = |row: &str| {
        problem(&[
            ("chunk-0-trace.csv", row),
            ("chunk-0-dataset.json", DATASET),
        ])
    };
    let cases = [
        (problem(&[]), "no chunk-<client>-trace.csv"),
        (problem(&[good]), "no chunk-<client>-dataset.json"),
        (
            problem(&[good, ("chunk-1-dataset.json", DATASET)]),
            "no chunk-1-trace.csv",
        ),
        (with("[]"), "invalid type"),
        (
            with(r#"{"1": {"input_tokens": "{}", "output_tokens": "{}"}}"#),
            "steps of 21600",
        ),
        (
            with(r#"{"0": {"input_tokens": "{1: 1.0}", "output_tokens": "{}"}}"#),
            "both empty",
        ),
        (
            with(r#"{"0": {"input_tokens": "{1: 0.5}", "output_tokens": "{}"}}"#),
            "sum to 1",
        ),
        (
            with(r#"{"0": {"input_tokens": "{0: 1.0}", "output_tokens": "{}"}}"#),
            "at least 1 token",
        ),
        (
            with(r#"{"0": {"input_tokens": "x", "output_tokens": "{}"}}"#),
            "found `x`",
        ),
        (
            with(r#"{"0": {"input_tokens": "{}", "output_tokens": "{}"}}"#),
            "window at 0 s",
        ),
        (with(r#"{"0": {"input_tokens": "{}"}}"#), "missing field"),
        (row(""), "holds no requests"),
        (
            row("0,1,1,Gamma,1,1\n1200,1,1,Gamma,1,1"),
            ":2:1: window_start_s: expected 600",
        ),
        (row("0,1,1,Pareto,1,1"), "`Gamma` or `Weibull`"),
        (row("0,1,1,,1,1"), "`Gamma` or `Weibull`"),
        (row("0,0,0,Gamma,1,1"), "the rate is 0"),
        (row("0,-1,1,Gamma,1,1"), "rate_per_s: expected a number"),
        (row("0,1,0,Gamma,1,1"), "0.001 to 1000"),
        (row("0,nan,1,Gamma,1,1"), "rate_per_s"),
        (row("0,1,1,Gamma,1"), "scale: expected a field"),
        (row("0,1,1,Gamma,1,1,1"), "no more fields"),
    ];
    for (found, expected) in cases {
        assert!(
            found.contains(expected),
            "expected {expected:?} in {found:?}"
        );
    }
}

#[test]
fn a_recorded_day_of_reasoning_has_the_recorded_rate() {
    let Some(folder) = shared("data/traces/servegen/reason/deepseek-r1") else {
        return;
    };
    let stats = TraceStats::collect(pools(&folder, None).open(1).unwrap())
        .unwrap()
        .unwrap();
    let rate = stats.requests as f64 / 86_400.0;
    assert!((rate / 16.01 - 1.0).abs() < 0.02, "{rate}");
    assert!(stats.span <= 86_400 * SECOND);
    // The recorded tables weighted by the recorded rates, summed up by an independent script.
    let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.03;
    assert!(
        near(stats.prompt_tokens.mean, 393.03),
        "{:?}",
        stats.prompt_tokens
    );
    assert!(
        near(stats.output_tokens.mean, 1867.99),
        "{:?}",
        stats.output_tokens
    );
}

#[test]
fn a_recorded_week_streams_at_a_thousandth_of_its_rate() {
    let Some(folder) = shared("data/traces/servegen/language/m-large") else {
        return;
    };
    let mut workload = pools(&folder, None);
    workload.transforms.rate_scale = 0.001;
    let requests = workload.open(1).unwrap();
    let expected = requests.len_hint().unwrap();
    assert!(
        (expected as f64 / (209.6 * 0.001 * 604_800.0) - 1.0).abs() < 0.01,
        "{expected}"
    );
    let stats = TraceStats::collect(requests).unwrap().unwrap();
    assert!(
        (stats.requests as f64 / expected as f64 - 1.0).abs() < 0.03,
        "{}",
        stats.requests
    );
    // As above: the tables weighted by the rates.
    assert!(
        (stats.prompt_tokens.mean / 843.83 - 1.0).abs() < 0.03,
        "{:?}",
        stats.prompt_tokens
    );
    assert!(
        (stats.output_tokens.mean / 164.58 - 1.0).abs() < 0.03,
        "{:?}",
        stats.output_tokens
    );
    assert!(stats.span > 604_000 * SECOND && stats.span < 604_800 * SECOND);
}

#[test]
fn an_hour_of_the_recorded_week_has_its_rate_and_ends() {
    let Some(folder) = shared("data/traces/servegen/language/m-large") else {
        return;
    };
    let requests = pools(&folder, Some(HOUR / 6)).open(1).unwrap();
    let expected = requests.len_hint().unwrap() as f64;
    let mut count = 0_u32;
    let mut last = 0;
    for request in requests {
        last = request.unwrap().due;
        count += 1;
    }
    assert!(Duration::from_nanos(last) < Duration::from_secs(600));
    assert!(
        (f64::from(count) / expected - 1.0).abs() < 0.1,
        "{count} of {expected}"
    );
}
