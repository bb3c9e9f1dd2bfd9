//! What a gate says, in each of its forms.

use std::collections::BTreeMap;

use foresail_reports::gate::{
    ExactComparison, Gate, GateReport, GateRun, expression, github, history,
};
use foresail_reports::summary::Source;
use foresail_reports::{Style, text};
use insta::assert_snapshot;

fn run(side: &str, seed: u64, values: &[(&str, f64)]) -> GateRun {
    let values = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value));
    GateRun {
        name: format!("{side}/run-{seed}"),
        seed,
        source: Source::Measured,
        scenario: "chat".to_owned(),
        workload: "Poisson arrivals at 5 req/s".to_owned(),
        offered: 300,
        completed: 300,
        values: values.collect::<BTreeMap<_, _>>(),
        histograms: BTreeMap::new(),
        objectives: Vec::new(),
        degraded: Vec::new(),
    }
}

/// Five pairs: medians as they were, a tail as loud as tails are, and tokens that
/// take 5 % longer.
fn slower() -> Gate {
    let side = |side: &'static str, slower: f64, noise: [f64; 5], tail: [f64; 5]| {
        let runs = (1..).zip(noise).zip(tail);
        runs.map(move |((seed, noise), tail)| {
            let values = [
                ("ttft.p50", 0.050 * (1.0 + 2.0 * noise)),
                ("ttft.p95", 0.080 * tail),
                ("tpot.mean", 0.010 * slower * (1.0 - noise)),
                ("throughput.output_tokens_per_s", 320.0 + noise),
                ("success_rate", 1.0),
            ];
            run(side, seed, &values)
        })
        .collect()
    };
    let (ours, theirs) = (
        [0.0, 0.004, -0.003, 0.002, -0.001],
        [-0.006, 0.005, 0.001, 0.007, -0.002],
    );
    Gate {
        baseline: side("base", 1.0, ours, [1.0, 1.1, 0.95, 1.05, 1.0]),
        candidate: side("candidate", 1.05, theirs, [1.02, 1.0, 1.1, 1.15, 0.98]),
        objectives: [
            "ttft.p50 < 60ms",
            "ttft.p95 < 85ms",
            "tpot.mean < 10ms",
            "success_rate > 99.9%",
        ]
        .map(|text| expression::objective(text).unwrap())
        .to_vec(),
        ..Gate::default()
    }
}

fn text(report: &GateReport) -> String {
    text::gate(report, Style::default())
}

#[test]
fn a_slower_candidate_as_text() {
    assert_snapshot!(text(&slower().judge()), @r"
    GATE  FAIL · chat · 5 pairs of runs, by seed

      OBJECTIVES        limit  observed            interval
    ✓ ttft.p50      ≤ 60.0 ms   50.1 ms  49.6 ms to 50.6 ms
    ? ttft.p95      ≤ 85.0 ms   83.8 ms  78.6 ms to 89.4 ms
    ✗ tpot.mean     ≤ 10.0 ms   10.5 ms  10.4 ms to 10.5 ms
    ✓ success_rate   ≥ 99.9 %     100 %      100 % to 100 %
      ttft.p95 83.8 ms (78.6 ms to 89.4 ms): the runs do not tell; 149 further runs would decide in
        four of five cases
      tpot.mean 10.5 ms (10.4 ms to 10.5 ms), and at most 10.0 ms is wanted

      CHANGES                          baseline  candidate      change           interval        limit
    ✓ ttft.p50                          50.0 ms    50.1 ms      +0.1 %     -0.7 to +1.0 %       +3.0 %
    ? ttft.p95                          81.5 ms    83.8 ms      +2.9 %      -6.0 to +13 %       +5.0 %
    ✗ tpot.mean                         10.0 ms    10.5 ms      +4.9 %     +4.5 to +5.4 %       +2.0 %
    ✓ throughput.output_tokens_per_s  320 tok/s  320 tok/s       0.0 %       0.0 to 0.0 %       -2.0 %
    ✓ success_rate                        100 %      100 %  0.0 points  0.0 to 0.0 points  -0.5 points
      ttft.p95 +2.9 % (-6.0 % to +13 %): the runs do not tell; 129 further runs a side would decide
        in four of five cases
      tpot.mean +4.9 % (+4.5 % to +5.4 %), and +2.0 % is allowed; p < 0.0001, by ranks alone 0.031
        (Wilcoxon)

    each end of an interval holds with 95 %; 4 metrics together fail by luck in at most 5 % of gates (Holm)
    ");
}

#[test]
fn a_slower_candidate_as_markdown() {
    assert_snapshot!(text::gate_markdown(&slower().judge()), @r"
    ## Gate: ❌ fail

    chat · 5 pairs of runs, by seed

    | | objective | limit | observed | interval |
    |---|---|--:|--:|--:|
    | ✅ | ttft.p50 | ≤ 60.0 ms | 50.1 ms | 49.6 ms to 50.6 ms |
    | ❔ | ttft.p95 | ≤ 85.0 ms | 83.8 ms | 78.6 ms to 89.4 ms |
    | ❌ | tpot.mean | ≤ 10.0 ms | 10.5 ms | 10.4 ms to 10.5 ms |
    | ✅ | success\_rate | ≥ 99.9 % | 100 % | 100 % to 100 % |

    | | metric | baseline | candidate | change | interval | limit |
    |---|---|--:|--:|--:|--:|--:|
    | ✅ | ttft.p50 | 50.0 ms | 50.1 ms | +0.1 % | -0.7 to +1.0 % | +3.0 % |
    | ❔ | ttft.p95 | 81.5 ms | 83.8 ms | +2.9 % | -6.0 to +13 % | +5.0 % |
    | ❌ | tpot.mean | 10.0 ms | 10.5 ms | +4.9 % | +4.5 to +5.4 % | +2.0 % |
    | ✅ | throughput.output\_tokens\_per\_s | 320 tok/s | 320 tok/s | 0.0 % | 0.0 to 0.0 % | -2.0 % |
    | ✅ | success\_rate | 100 % | 100 % | 0.0 points | 0.0 to 0.0 points | -0.5 points |

    - ttft.p95 83.8 ms (78.6 ms to 89.4 ms): the runs do not tell; 149 further runs would decide in four of five cases
    - tpot.mean 10.5 ms (10.4 ms to 10.5 ms), and at most 10.0 ms is wanted
    - ttft.p95 +2.9 % (-6.0 % to +13 %): the runs do not tell; 129 further runs a side would decide in four of five cases
    - tpot.mean +4.9 % (+4.5 % to +5.4 %), and +2.0 % is allowed; p &lt; 0.0001, by ranks alone 0.031 (Wilcoxon)
    ");
}

#[test]
fn a_slower_candidate_as_junit() {
    assert_snapshot!(slower().judge().to_junit().unwrap(), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="foresail gate" tests="9" failures="2" errors="0" skipped="2">
      <testsuite name="chat" tests="9" failures="2" errors="0" skipped="2">
        <testcase classname="objective" name="ttft.p50">
          <system-out>ttft.p50 50.1 ms (49.6 ms to 50.6 ms), at most 60.0 ms as wanted</system-out>
        </testcase>
        <testcase classname="objective" name="ttft.p95">
          <skipped message="ttft.p95 83.8 ms (78.6 ms to 89.4 ms): the runs do not tell; 149 further runs would decide in four of five cases"/>
        </testcase>
        <testcase classname="objective" name="tpot.mean">
          <failure message="tpot.mean 10.5 ms (10.4 ms to 10.5 ms), and at most 10.0 ms is wanted" type="worse"/>
        </testcase>
        <testcase classname="objective" name="success_rate">
          <system-out>success_rate 100 % (100 % to 100 %), at least 99.9 % as wanted</system-out>
        </testcase>
        <testcase classname="change" name="ttft.p50">
          <system-out>ttft.p50 +0.1 % (-0.7 % to +1.0 %), within +3.0 %</system-out>
        </testcase>
        <testcase classname="change" name="ttft.p95">
          <skipped message="ttft.p95 +2.9 % (-6.0 % to +13 %): the runs do not tell; 129 further runs a side would decide in four of five cases"/>
        </testcase>
        <testcase classname="change" name="tpot.mean">
          <failure message="tpot.mean +4.9 % (+4.5 % to +5.4 %), and +2.0 % is allowed; p &lt; 0.0001, by ranks alone 0.031 (Wilcoxon)" type="worse"/>
        </testcase>
        <testcase classname="change" name="throughput.output_tokens_per_s">
          <system-out>throughput.output_tokens_per_s 0.0 % (0.0 % to 0.0 %), within -2.0 %</system-out>
        </testcase>
        <testcase classname="change" name="success_rate">
          <system-out>success_rate 0.0 points (0.0 points to 0.0 points), within -0.5 points</system-out>
        </testcase>
      </testsuite>
    </testsuites>
    "#);
}

#[test]
fn a_slower_candidate_as_annotations() {
    assert_snapshot!(github::annotations(&slower().judge()), @r"
    ::error title=foresail gate%3A chat::tpot.mean 10.5 ms (10.4 ms to 10.5 ms), and at most 10.0 ms is wanted
    ::error title=foresail gate%3A chat::tpot.mean +4.9 %25 (+4.5 %25 to +5.4 %25), and +2.0 %25 is allowed; p < 0.0001, by ranks alone 0.031 (Wilcoxon)
    ::warning title=foresail gate%3A chat::ttft.p95 83.8 ms (78.6 ms to 89.4 ms): the runs do not tell; 149 further runs would decide in four of five cases
    ::warning title=foresail gate%3A chat::ttft.p95 +2.9 %25 (-6.0 %25 to +13 %25): the runs do not tell; 129 further runs a side would decide in four of five cases
    ");
}

#[test]
fn a_degraded_run_is_told_first() {
    let mut gate = slower();
    gate.candidate[2]
        .degraded
        .push("sends were 12 ms late; use more threads".to_owned());
    assert_snapshot!(text(&gate.judge()), @r"
    GATE  DEGRADED · chat · 5 pairs of runs, by seed

    DEGRADED  1 run not to be trusted; not judged
      candidate/run-3: sends were 12 ms late; use more threads
    ");
}

#[test]
fn simulated_runs_are_told_field_by_field() {
    let mut comparison = ExactComparison::new();
    comparison.run("seed-1");
    comparison.differs("ttft_s.p99", Some("0.25"), Some("0.31"));
    comparison.differs("requests.csv:17", None, Some("15,0.1"));
    let gate = Gate {
        exact: Some(comparison.finish()),
        objectives: Vec::new(),
        ..slower()
    };
    assert_snapshot!(text(&gate.judge()), @r"
    GATE  FAIL · chat · 5 pairs of runs, by seed

    EXACT  simulated runs, 2 differences
      seed-1 ttft_s.p99: 0.25 -> 0.31
      seed-1 requests.csv:17: (absent) -> 15,0.1
    ");
}

#[test]
fn a_line_of_history_is_what_a_change_point_detector_reads() {
    let gate = slower();
    let attributes = [("commit".to_owned(), "a3f9c12".to_owned())];
    let line = history::line(&gate.judge(), &gate.candidate, 1_711_929_600, &attributes).unwrap();
    assert_eq!(line.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["timestamp"], 1_711_929_600);
    assert_eq!(value["attributes"]["commit"], "a3f9c12");
    assert_eq!(value["attributes"]["verdict"], "fail");
    let metrics = value["metrics"].as_array().unwrap();
    assert!(
        metrics
            .iter()
            .all(|metric| metric["name"].is_string() && metric["value"].is_f64())
    );
    assert_eq!(metrics.len(), 5);
}

#[test]
fn a_verdict_reads_back_as_it_was_written() {
    let report = slower().judge();
    let read: GateReport = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(read, report);
}

#[test]
fn github_is_told_no_more_than_it_shows() {
    let mut gate = slower();
    gate.objectives = (1..=15)
        .map(|limit| expression::objective(&format!("ttft.p50 < {limit}ms")).unwrap())
        .collect();
    let annotations = github::annotations(&gate.judge());
    assert_eq!(annotations.lines().count(), 10);
    let report = gate.judge();
    let whole = github::step_summary(&report, 0);
    assert_eq!(whole, text::gate_markdown(&report));
    let cut = github::step_summary(&report, 1024 * 1024 - 100);
    assert!(cut.len() <= 100 && cut.ends_with("1 MiB)\n"), "{cut}");
    assert_eq!(github::step_summary(&report, 1024 * 1024), "");
}

#[test]
fn what_people_name_things_breaks_no_form() {
    let mut gate = slower();
    for run in &mut gate.candidate {
        run.scenario = "a|b <c> & \"d\" \u{1}%,:\n".to_owned();
    }
    let report = gate.judge();
    let junit = report.to_junit().unwrap();
    assert!(
        junit.contains("a|b &lt;c&gt; &amp; &quot;d&quot; %"),
        "{junit}"
    );
    assert!(!junit.contains('\u{1}'));
    let annotations = github::annotations(&report);
    assert!(
        annotations.starts_with("::error title=foresail gate%3A a|b"),
        "{annotations}"
    );
    assert!(text::gate_markdown(&report).contains(r"a\|b &lt;c>"));
}
