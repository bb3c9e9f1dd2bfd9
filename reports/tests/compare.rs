//! Variants side by side: the voice of the tool, reviewed as text.

mod fixture;

use fixture::compared::{comparison, variants};
use foresail_reports::compare::{Comparison, PairedLatency, PairedRequests};
use foresail_reports::{Style, text};

fn text_of(comparison: &Comparison) -> String {
    let text = text::compared(comparison, Style::default());
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert_eq!(line.trim_end(), line);
    }
    text
}

#[test]
fn the_best_comes_first_then_what_is_sure_then_a_sentence_each() {
    insta::assert_snapshot!(text_of(&comparison()), @r#"
    COMPARISON  3 variants of chat and the oracle · each under seeds 1 to 3 · simulated
    llama-3-8b on 2 × H100 a replica
    poisson 2 requests/s
    all with deployment.scale_up_window=5s

    RANKED             cost  ttft p99  cold hits  turns  wasted    met    above the oracle
     1  fireworks    $41.87    2.96 s        126   14.3    2.33    3/3    +24.7 %, +1.91 s
     2  fixed        $60.00    2.96 s          0      0       0    3/3    +78.7 %, +1.91 s
     3  ray-serve    $36.03    3.76 s        126     31    6.67    2/3    +7.35 %, +2.71 s
     –  oracle       $33.57    1.05 s       3.33   8.33       0    3/3                   –
      the baseline is fireworks; the order is by objectives met, then by cost
      oracle knows the load and cold starts to come: only letting requests wait can cost less

    DIFFERENCES  from fireworks
                           cost           ttft p99      cold hits        turns       wasted
      fixed           +43 ±16 % ▲        +3 ±57 ms ~     -126 ±79 ▼ -14.3 ±1.4 ▼  -2.3 ±1.4 ▼
      ray-serve    -13.9 ±1.8 % ▼     +803 ±150 ms ▲            0 = +16.7 ±6.3 ▲  +4.3 ±3.8 ▲
      mean of the differences seed by seed ± half of its 95 % interval (Student's t)
      ▼ lower  ▲ higher  = equal under every seed  ~ not told apart: 0 is in the interval

    IN WORDS
      fireworks: costs 24.7 % more than the oracle (±6.1 %), its p99 TTFT is 1.91 s longer (±0.79 s)
      fixed: 43 % dearer (±16 %), 126 fewer cold-start hits (±79), 14.3 fewer changes of direction
        (±1.4), 2.3 fewer wasted starts (±1.4); no clear difference in p99 TTFT; costs 79 % more
        than the oracle (±14 %), its p99 TTFT is 1.91 s longer (±0.85 s)
      ray-serve: 13.9 % cheaper (±1.8 %), p99 TTFT 803 ms longer (±150 ms), 16.7 more changes of
        direction (±6.3), 4.3 more wasted starts (±3.8); the same cold-start hits; meets its
        objectives under 2 of 3 seeds, the baseline under 3 of 3; costs 7.3 % more than the oracle
        (±4.1 %), its p99 TTFT is 2.71 s longer (±0.79 s)
    "#);
}

#[test]
fn without_the_oracle_nothing_is_said_of_it() {
    let comparison = Comparison::of(&variants()[..3], "fireworks", None).unwrap();
    let text = text_of(&comparison);
    assert!(!text.contains("oracle"), "{text}");
}

#[test]
fn one_seed_is_said_to_give_no_interval() {
    let mut variants = variants();
    variants
        .iter_mut()
        .for_each(|variant| variant.runs.truncate(1));
    let comparison = Comparison::of(&variants[..2], "fireworks", None).unwrap();
    insta::assert_snapshot!(text_of(&comparison), @r#"
    COMPARISON  2 variants of chat · each under seed 1 · simulated
    llama-3-8b on 2 × H100 a replica
    poisson 2 requests/s
    all with deployment.scale_up_window=5s

    RANKED             cost  ttft p99  cold hits  turns  wasted    met
     1  ray-serve    $35.30    3.55 s        120     31       5    1/1
     2  fireworks    $41.20    2.81 s        120     14       2    1/1
      the baseline is fireworks; the order is by objectives met, then by cost
      one seed gives no interval: any difference may be chance; give --seeds 5 or more

    DIFFERENCES  from fireworks
                           cost           ttft p99      cold hits        turns       wasted
      ray-serve         -14.3 %            +740 ms              0 =        +17           +3
      of one seed, so that there is no interval

    IN WORDS
      ray-serve: 14.3 % cheaper, p99 TTFT 740 ms longer, 17 more changes of direction, 3 more wasted
        starts; the same cold-start hits
    "#);
}

#[test]
fn without_a_price_gpu_time_stands_in_for_cost() {
    let mut variants = variants();
    let runs = variants.iter_mut().flat_map(|variant| &mut variant.runs);
    runs.for_each(|run| run.scenario.usd_per_gpu_hour = 0.0);
    let comparison = Comparison::of(&variants[..2], "fireworks", None).unwrap();
    let text = text_of(&comparison);
    for told in [
        "billed",
        "GPU-h",
        "there is no price: set price.usd_per_gpu_hour",
        "less billed GPU-time",
    ] {
        assert!(text.contains(told), "no `{told}` in:\n{text}");
    }
    assert!(!text.contains('$'), "{text}");
}

#[test]
fn a_variant_without_a_price_is_named() {
    let mut variants = variants();
    let runs = variants[1].runs.iter_mut();
    runs.for_each(|run| run.scenario.usd_per_gpu_hour = 0.0);
    let text = text_of(&Comparison::of(&variants[..2], "fireworks", None).unwrap());
    assert!(
        text.contains("no price, and so no cost: ray-serve;"),
        "{text}"
    );
}

#[test]
fn requests_that_fail_have_a_column_of_their_own() {
    let mut variants = variants();
    let runs = variants[1].runs.iter_mut();
    runs.for_each(|run| run.requests.failed += 40);
    let text = text_of(&Comparison::of(&variants, "fireworks", Some("oracle")).unwrap());
    assert!(text.contains("failed"), "{text}");
    assert!(text.contains("40 more failed requests"), "{text}");
}

#[test]
fn long_names_have_a_line_of_their_own() {
    let mut variants = variants();
    let long = "ray-serve, scale_up_window=15s, scale_down_window=20m, max_replica_count=12";
    variants[1].name = long.to_owned();
    let text = text_of(&Comparison::of(&variants, "fireworks", Some("oracle")).unwrap());
    assert!(
        text.lines().any(|line| line.trim_end().ends_with(long)),
        "{text}"
    );
}

#[test]
fn colour_changes_nothing_but_colour() {
    let coloured = Style {
        colour: true,
        ..Style::default()
    };
    let text = text::compared(&comparison(), coloured);
    let mut plain = String::new();
    let mut in_escape = false;
    for c in text.chars() {
        match c {
            '\x1b' => in_escape = true,
            'm' if in_escape => in_escape = false,
            _ if in_escape => {}
            c => plain.push(c),
        }
    }
    assert!(text.contains("\x1b[32m") && text.contains("\x1b[31m"));
    assert_eq!(plain, text::compared(&comparison(), Style::default()));
}

#[test]
fn the_same_requests_are_told_one_by_one() {
    let mut comparison = comparison();
    let latency = |name: &str, scale: f64| PairedLatency {
        name: name.to_owned(),
        pairs: 300,
        mean_s: 0.0021 * scale,
        p50_s: 0.0018 * scale,
        p5_s: -0.004 * scale,
        p95_s: 0.0123 * scale,
        slower: 0.61,
    };
    comparison.paired_requests = vec![PairedRequests {
        variant: "fixed".to_owned(),
        pairs: 300,
        not_completed: 2,
        latencies: vec![
            latency("ttft", 1.0),
            latency("tpot", 0.1),
            latency("e2e", 3.0),
        ],
    }];
    let text = text_of(&comparison);
    let section: String = text
        .split("\n\n")
        .filter(|part| part.starts_with("SAME"))
        .collect();
    insta::assert_snapshot!(section, @r"
    SAME REQUESTS  fixed less fireworks, 300 pairs, 2 others did not complete on both sides
      ttft median   +1.80 ms   p5   -4.00 ms   p95   +12.3 ms   61 % took longer
      tpot median    +180 µs   p5    -400 µs   p95   +1.23 ms   61 % took longer
      e2e  median   +5.40 ms   p5   -12.0 ms   p95   +36.9 ms   61 % took longer
    ");
}
