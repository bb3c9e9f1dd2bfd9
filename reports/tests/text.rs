//! The voice of the tool, reviewed as text.

mod fixture;

use fixture::{MILLISECOND, SECOND, change, description, request, summary, summary_of};
use foresail_reports::measurements::Measurements;
use foresail_reports::records::{AdapterTotals, ChangeKind, Outcome, Parts, RecordSink, RunTotals};
use foresail_reports::seeds::Seeds;
use foresail_reports::summary::{Episode, EpisodeReplicas, Part};
use foresail_reports::{Style, Summary, text};

fn text_of(summary: &Summary) -> String {
    text::summary(summary, Style::default())
}

#[test]
fn the_verdict_comes_first_and_the_reasons_last() {
    let summary = summary("burst", 42).with_wall_s(0.0123);
    insta::assert_snapshot!(text_of(&summary), @r#"
    burst · llama-3-8b on 2 × H100 a replica · 10.2 min · 1,140 requests · simulated, seed 42
    poisson 2 requests/s
    with deployment.scale_up_window=5s

    OBJECTIVES  1 of 3 met
      ✗ ttft_p95            19.1 s  at most 2.00 s
      ✓ tpot_p99           22.0 ms  at most 50.0 ms
      ✗ success_rate      99.825 %  at least 99.9 %
      goodput 0.936/s: 49.4 % of completed requests are within every latency limit

    REQUESTS  1,140 offered
      1,138 completed · 1 failed · 1 rejected · 76 waited for a cold start
      1 rejected: longer than the context
      1 failed: cut off when the drain time ran out
      1 preemption

    LATENCY                           mean        p50        p90        p95        p99        max
      ttft  send to first token     5.71 s     2.10 s     11.0 s     19.1 s     64.1 s     75.0 s
      itl   token to token         10.0 ms    10.0 ms    10.0 ms    10.0 ms    10.0 ms    10.0 ms
      tpot  mean of a request      16.0 ms    16.0 ms    21.0 ms    22.0 ms    22.0 ms    31.1 ms
      e2e   send to last token      7.29 s     3.71 s     12.7 s     20.6 s     66.1 s     76.5 s
      queue ready to first step     3.16 s     600 ms     9.72 s     10.9 s     11.8 s     12.0 s

    REPLICAS  mean 1.80, most 3 · 3 starts, 1 wasted · 2 changes of direction
      target     ▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▇████████████████████████████████ max 3
      ready      ········▁▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▄████████████████████████ max 3
      arrivals/s ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▃██████▇▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁· max 10.0
      ttft max   ██▇▆▅▄▃▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▂▂▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁  max 75.0 s
                 00:00:00                       00:05:06                        00:10:12

    COST  $1.94 · $17.04 a million output tokens · $1.70 a thousand requests
      billed      0.49 GPU-h at $3.99 a GPU-hour (list price, 2025-11)
      busy        0.31 GPU-h   50 %, 64 % of the time they were ready
      idle        0.17 GPU-h   29 %
      starting    0.12 GPU-h   20 %, not billed
      draining    0.01 GPU-h   <1 %, billed

    WHY  █ cold start  ▓ queue  ▒ prefill  ░ preemption  · decode
      all requests               ██████████▓▓▓▓▓▓▓▓▓▓▓▓▓·······  mean 7.29 s of 1,138 requests
        cold start 34 %, queue 43 %, prefill <1 %, preemption <1 %, decode 22 %
      slowest 1 % to first token ██████████████████████████████  mean 69.5 s of 12 requests
        cold start >99 %, queue <1 %, prefill <1 %
      the 12 slowest were sent 00:00:00 - 00:00:11: waiting for a cold start (69.5 s of 69.5 s);
        the deployment woke from zero to 1 replica;
        replicas were starting for 76.0 s, the first ordered at 00:00:00

    43,210 engine steps, 2,345 events in 12.3 ms (92,683 requests/s)
    "#);
}

#[test]
fn latencies_that_know_of_no_server_say_so() {
    let mut summary = summary("burst", 42);
    let silent = text_of(&summary);
    summary.scenario.leaves_out_request_overhead = true;
    let said = text_of(&summary);
    let line = "\n  published servers add 15 to 45 ms to ttft and e2e, left out here (step_time.request_overhead)";
    assert_eq!(said.replace(line, ""), silent);
    assert_ne!(said, silent);
}

#[test]
fn a_measured_run_is_the_same_table_and_how_far_to_trust_it() {
    insta::assert_snapshot!(text_of(&fixture::measured::summary()), @r#"
    minute · llama-3-8b on 2 × H100 a replica · 62.0 s · 240 requests · measured, seed 7
    poisson 2 requests/s
    with deployment.scale_up_window=5s
    at http://127.0.0.1:8000/v1/completions, open loop · shard 1 of 1

    OBJECTIVES  2 of 3 met
      ✓ ttft_p95           62.1 ms  at most 2.00 s
      ✓ tpot_p99           5.42 ms  at most 50.0 ms
      ✗ success_rate      98.333 %  at least 99.9 %
      goodput 3.93/s: 100 % of completed requests are within every latency limit

    REQUESTS  180 offered in the window, of 240 in all
      177 completed · 2 failed · 1 rejected
      1 rejected with 429: too many requests
      1 failed: no connection could be had
      1 failed: the answer ended before its end
      1 request sent more than once: 181 attempts in all

    LATENCY                           mean        p50        p90        p95        p99        max
      ttft  send to first token    56.0 ms    56.1 ms    61.1 ms    62.1 ms    62.1 ms    62.1 ms
      itl   chunk to chunk         10.5 ms    10.5 ms    10.9 ms    11.0 ms    11.0 ms    11.0 ms
      tpot  mean of a request      5.17 ms    5.18 ms    5.37 ms    5.42 ms    5.42 ms    5.42 ms
      e2e   send to last token      403 ms     403 ms     428 ms     437 ms     444 ms     446 ms

    REPLICAS  mean 1.52, most 2 · 1 start · 0 changes of direction
      target     ▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▇████████████████████████████████████ max 2
      ready      ▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▇████████████████████████████████████ max 2
      arrivals/s ···········▅███████████████████████████████████████████████████········ max 4.00
      ttft max              ▇███▇███▇██████▇████████████████████████████████████         max 62.1 ms
                 0 s                             31.0 s                           62.0 s

    COST  $0.208 · $12.98 a million output tokens · $0.883 a thousand requests
      billed      0.05 GPU-h at $3.99 a GPU-hour (list price, 2025-11)
      ready       0.05 GPU-h  100 %
      starting       0 GPU-h    0 %, not billed
      draining       0 GPU-h    0 %, billed

    LOAD  4.00/s asked · 3.98/s sent · 3.93/s completed · 268 output tokens/s · most 2 in flight

    WINDOW  10.0 s to 55.0 s of 62.0 s
      as many ended as were in flight
      before it   40 requests in 10.0 s, not counted · ttft p50 56.1 ms, p99 62.1 ms, max 62.1 ms
      after it    20 requests in 7.00 s, not counted · ttft p50 54.0 ms, p99 62.0 ms, max 62.0 ms
      whole run   236 of 240 requests completed, 3.94/s, 268 output tokens/s
                  p50, p99: ttft 56.1 ms, 62.1 ms · tpot 5.17 ms, 5.42 ms · e2e 402 ms, 443 ms
      steady      requests in flight did not grow (p = 0.41)

    CLIENT  1 thread, the busiest at 3 % of a CPU · 2.10 s of CPU time · 21.0 MB
      sends       late p50 50.0 µs, p99 80.0 µs, max 80.0 µs
      event loop  late p50 129 µs, p99 218 µs, max 219 µs
      connections 9 opened · 229 requests over one that was open · 2 failed
      tokens      counted by the server in 173 requests, assumed in 4 · 2.00 a chunk in 6,024 chunks
      prompts     as long as was asked, by the tokenizer

    SERVER  http://127.0.0.1:8000/metrics · 61 answers, 1 missing
      running     mean 1.70, most 4
      waiting     mean 0, most 1
      KV cache    mean 2 %, most 5 %
      tokens      121,344 in prompts, 25 % of them cached, 16,000 generated in the whole run
      preemptions 0
      GPUs        busy 81 %, 412 W, 70.1 GB in use at most
    "#);
}

#[test]
fn what_cannot_be_trusted_says_so_first() {
    insta::assert_snapshot!(text_of(&fixture::measured::doubtful()), @r#"
    minute · llama-3-8b · 62.0 s · 240 requests · measured, seed 7
    poisson 2 requests/s
    with deployment.scale_up_window=5s
    at http://127.0.0.1:8000/v1/completions, closed loop of 8

    DEGRADED  do not trust these figures
      ✗ sends_late: 1 % of the requests were sent 12 ms late or more; use more threads
    INTERRUPTED  before the plan was done; the figures are of what was sent until then

    OBJECTIVES  2 of 3 met
      ✓ ttft_p95           62.1 ms  at most 2.00 s
      ✓ tpot_p99           5.42 ms  at most 50.0 ms
      ✗ success_rate      98.333 %  at least 99.9 %
      goodput 3.93/s: 100 % of completed requests are within every latency limit

    REQUESTS  180 offered in the window, of 240 in all
      177 completed · 2 failed · 1 rejected
      1 rejected with 429: too many requests
      1 failed: no connection could be had
      1 failed: the answer ended before its end
      1 request sent more than once: 181 attempts in all

    LATENCY                           mean        p50        p90        p95        p99        max
      ttft  send to first token    56.0 ms    56.1 ms    61.1 ms    62.1 ms    62.1 ms    62.1 ms
      itl   chunk to chunk         10.5 ms    10.5 ms    10.9 ms    11.0 ms    11.0 ms    11.0 ms
      tpot  mean of a request      5.17 ms    5.18 ms    5.37 ms    5.42 ms    5.42 ms    5.42 ms
      e2e   send to last token      403 ms     403 ms     428 ms     437 ms     444 ms     446 ms

    OVER TIME
      target     ▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▇████████████████████████████████████ max 2
      ready      ▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▇████████████████████████████████████ max 2
      arrivals/s ···········▅███████████████████████████████████████████████████········ max 4.00
      ttft max              ▇███▇███▇██████▇████████████████████████████████████         max 62.1 ms
                 0 s                             31.0 s                           62.0 s

    LOAD  3.98/s sent · 3.93/s completed · 268 output tokens/s · most 2 in flight

    WINDOW  10.0 s to 55.0 s of 62.0 s
      as many ended as were in flight
      before it   40 requests in 10.0 s, not counted · ttft p50 56.1 ms, p99 62.1 ms, max 62.1 ms
      after it    20 requests in 7.00 s, not counted · ttft p50 54.0 ms, p99 62.0 ms, max 62.0 ms
      whole run   236 of 240 requests completed, 3.94/s, 268 output tokens/s
                  p50, p99: ttft 56.1 ms, 62.1 ms · tpot 5.17 ms, 5.42 ms · e2e 402 ms, 443 ms
      not steady  requests in flight grew by 0.3/s

    CLIENT  1 thread, the busiest at 3 % of a CPU · 2.10 s of CPU time · 21.0 MB
      sends       late p50 50.0 µs, p99 80.0 µs, max 80.0 µs
      event loop  late p50 129 µs, p99 218 µs, max 219 µs
      connections 9 opened · 229 requests over one that was open · 2 failed
      tokens      counted by the server · 2.00 a chunk in 6,024 chunks
      prompts     of about the length that was asked: no tokenizer counted them
      clock       1 jump of the time of day, on which no figure depends
    "#);
}

#[test]
fn a_long_description_is_broken_after_commas() {
    let mut summary = summary_of(&[], &RunTotals::default());
    summary.scenario.workload =
        "poisson arrivals, 10 requests/s, spike of 3.4 times the rate, prompts of 512 tokens"
            .into();
    let style = Style {
        width: 60,
        ..Style::default()
    };
    let text = text::summary(&summary, style);
    let lines: Vec<_> = text.lines().skip(1).take(2).collect();
    assert_eq!(
        lines,
        [
            "poisson arrivals, 10 requests/s,",
            "  spike of 3.4 times the rate, prompts of 512 tokens"
        ]
    );
}

#[test]
fn a_run_without_requests_says_so() {
    let summary = summary_of(&[], &RunTotals::default());
    insta::assert_snapshot!(text_of(&summary), @r#"
    small · llama-3-8b on 2 × H100 a replica · 0 s · 0 requests · simulated, seed 1
    poisson 2 requests/s
    with deployment.scale_up_window=5s

    OBJECTIVES  0 of 3 met
      ✗ ttft_p95                 –  at most 2.00 s, but there was nothing to measure
      ✗ tpot_p99                 –  at most 50.0 ms, but there was nothing to measure
      ✗ success_rate             –  at least 99.9 %, but there was nothing to measure
      goodput 0/s: no request completed

    REQUESTS  0 offered
      0 completed · 0 failed · 0 rejected · 0 waited for a cold start

    LATENCY  no request completed

    REPLICAS  mean 0, most 0 · 0 starts, 0 wasted · 0 changes of direction

    COST  $0.00
      billed         0 GPU-h at $3.99 a GPU-hour (list price, 2025-11)

    0 engine steps, 0 events
    "#);
}

#[test]
fn one_request_is_enough() {
    let parts = Parts {
        prefill_ns: 50 * MILLISECOND,
        ..Parts::default()
    };
    let totals = RunTotals {
        offered: 1,
        end_ns: 50 * MILLISECOND,
        ..RunTotals::default()
    };
    let summary = summary_of(&[request(0, 0, parts, 1)], &totals);
    insta::assert_snapshot!(text_of(&summary), @r#"
    small · llama-3-8b on 2 × H100 a replica · 50.0 ms · 1 request · simulated, seed 1
    poisson 2 requests/s
    with deployment.scale_up_window=5s

    OBJECTIVES  2 of 3 met
      ✓ ttft_p95           50.0 ms  at most 2.00 s
      ✗ tpot_p99                 –  at most 50.0 ms, but there was nothing to measure
      ✓ success_rate         100 %  at least 99.9 %
      goodput 20.0/s: 100 % of completed requests are within every latency limit

    REQUESTS  1 offered
      1 completed · 0 failed · 0 rejected · 0 waited for a cold start

    LATENCY                           mean        p50        p90        p95        p99        max
      ttft  send to first token    50.0 ms    50.0 ms    50.0 ms    50.0 ms    50.0 ms    50.0 ms
      itl   token to token               –          –          –          –          –          –
      tpot  mean of a request            –          –          –          –          –          –
      e2e   send to last token     50.0 ms    50.0 ms    50.0 ms    50.0 ms    50.0 ms    50.0 ms
      queue ready to first step        0 s        0 s        0 s        0 s        0 s        0 s

    REPLICAS  mean 0, most 0 · 0 starts, 0 wasted · 0 changes of direction
      arrivals/s ██████████████████████▂················································ max 64.0
      ttft max   ███████████████████████                                                 max 50.0 ms
                 0 s                             25.0 ms                         50.0 ms

    COST  $0.00 · $0.00 a million output tokens · $0.00 a thousand requests
      billed         0 GPU-h at $3.99 a GPU-hour (list price, 2025-11)

    WHY  █ cold start  ▓ queue  ▒ prefill  ░ preemption  · decode
      all requests               ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  mean 50.0 ms of 1 request
        prefill 100 %
      slowest 1 % to first token ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  mean 50.0 ms of 1 request
        prefill 100 %
      the slowest request was sent at 0 s: in prefill (50.0 ms of 50.0 ms)

    0 engine steps, 0 events
    "#);
}

#[test]
fn what_was_rejected_is_shown_with_the_reason() {
    let mut rejected = request(0, SECOND, Parts::default(), 0);
    rejected.outcome = Outcome::RejectedScalingUp;
    rejected.first_token_ns = None;
    let totals = RunTotals {
        offered: 1,
        end_ns: 600 * SECOND,
        ..RunTotals::default()
    };
    let summary = summary_of(&[rejected], &totals);
    insta::assert_snapshot!(text_of(&summary), @r#"
    small · llama-3-8b on 2 × H100 a replica · 10.0 min · 1 request · simulated, seed 1
    poisson 2 requests/s
    with deployment.scale_up_window=5s

    OBJECTIVES  0 of 3 met
      ✗ ttft_p95                 –  at most 2.00 s, but there was nothing to measure
      ✗ tpot_p99                 –  at most 50.0 ms, but there was nothing to measure
      ✗ success_rate           0 %  at least 99.9 %
      goodput 0/s: no request completed

    REQUESTS  1 offered
      0 completed · 0 failed · 1 rejected · 0 waited for a cold start
      1 rejected with 503: no replica was ready

    LATENCY  no request completed

    REPLICAS  mean 0, most 0 · 0 starts, 0 wasted · 0 changes of direction
      arrivals/s █······································································ max 0.12
                 00:00:00                       00:05:00                        00:10:00

    COST  $0.00
      billed         0 GPU-h at $3.99 a GPU-hour (list price, 2025-11)

    0 engine steps, 0 events
    "#);
}

/// Crashes, starts that fail and clients that try again: told where there are any.
#[test]
fn what_went_wrong_is_told() {
    let totals = RunTotals {
        offered: 3,
        crashes: 2,
        start_failures: 7,
        starts_given_up: 1,
        waited_for_gpus: 12,
        waited_for_gpus_ns: u128::from(252 * SECOND),
        output_tokens_retried: 41,
        end_ns: 90 * SECOND,
        ..RunTotals::default()
    };
    let parts = Parts {
        retry_ns: 40 * SECOND,
        queue_ns: SECOND,
        prefill_ns: SECOND,
        decode_ns: 2 * SECOND,
        ..Parts::default()
    };
    let mut requests = [0, 1, 2].map(|id| request(id, id * SECOND, parts, 10));
    requests[0].attempts = 4;
    requests[1].attempts = 2;
    requests[1].outcome = Outcome::FailedCrash;
    requests[2].outcome = Outcome::FailedTimeout;
    let mut measurements = Measurements::new(&[]);
    let crashed = |at_s| change(at_s, ChangeKind::Crashed, 2, 1, 1);
    for change in [
        change(0, ChangeKind::Ready, 2, 0, 2),
        crashed(5),
        change(42, ChangeKind::StartFailed, 2, 1, 1),
        // After the slowest of them had its first token.
        crashed(80),
    ] {
        measurements.change(&change);
    }
    for request in &requests {
        measurements.request(request);
    }
    let text = text_of(&measurements.summary(&description("small", 1), &totals));
    let said = |beginning: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| !line.starts_with(beginning));
        let lines = lines.take_while(|line| !line.is_empty());
        lines.skip(1).map(|line| line.trim().to_owned()).collect()
    };
    insta::assert_snapshot!(said("REQUESTS").join("\n"), @r"
    1 completed · 2 failed · 0 rejected · 0 waited for a cold start
    1 failed: cut off when a replica crashed
    1 failed: given up by the client
    2 requests sent more than once: 7 attempts in all, 41 tokens generated in vain
    ");
    let replicas = &said("REPLICAS")[..2];
    let expected = [
        "2 replicas crashed · 7 failed starts · 1 replica given up",
        "12 starts waited for GPUs, 4.20 min in all",
    ];
    assert_eq!(replicas, expected);
    insta::assert_snapshot!(said("WHY")[4..].join("\n"), @r"
    the slowest request was sent at 0 s: in earlier attempts (40.0 s of 42.0 s);
    it was going from 2 ready to 2 replicas;
    replicas were starting for 85.0 s, the first ordered at 5.00 s;
    1 replica crashed, and 1 start failed
    ");
}

#[test]
fn seeds_come_with_intervals() {
    let mut runs = [
        summary("burst", 1),
        summary("burst", 2),
        summary("burst", 3),
    ];
    runs[1].cost.as_mut().unwrap().usd = 2.5;
    runs[2].ttft_s = runs[2].e2e_s;
    let mut summary = runs[0].clone();
    summary.seeds = Some(Seeds::of(&runs));
    let text = text_of(&summary);
    let seeds = text
        .split("\n\n")
        .find(|section| section.starts_with("SEEDS"))
        .unwrap();
    insta::assert_snapshot!(seeds, @r#"
    SEEDS  3 runs, objectives met in 0; mean ± half of a 95 % interval (Student's t)
      intervals are of the traffic alone: the step times are taken as exact
                               mean                  p50                  p95                  p99
      ttft            6.23 ± 2.27 s        2.64 ± 2.30 s         19.6 ± 2.3 s         64.7 ± 3.0 s
      itl             10.0 ± 0.0 ms        10.0 ± 0.0 ms        10.0 ± 0.0 ms        10.0 ± 0.0 ms
      tpot            16.0 ± 0.0 ms        16.0 ± 0.0 ms        22.0 ± 0.0 ms        22.0 ± 0.0 ms
      e2e             7.29 ± 0.00 s        3.71 ± 0.00 s         20.6 ± 0.0 s         66.1 ± 0.0 s
      queue           3.16 ± 0.00 s           600 ± 0 ms         10.9 ± 0.0 s         11.8 ± 0.0 s
      requests_per_s                      1.90 ± 0.00 req/s
      output_tokens_per_s                 190 ± 0 tok/s
      goodput_per_s                       0.94 ± 0.00 req/s
      replicas                            1.80 ± 0.00
      cost_usd                            $2.13 ± $0.804
      cost_usd_per_million_output_tokens  $17.04 ± $0.00
    "#);
}

#[test]
fn several_seeds_are_judged_together() {
    let mut runs = [summary("burst", 7), summary("burst", 8)];
    runs[1].objectives[0].met = true;
    runs[1].objectives[1].met = false;
    runs[0].objectives[2].met = true;
    runs[1].objectives[2].met = true;
    let mut summary = runs[0].clone();
    summary.seeds = Some(Seeds::of(&runs));
    let text = text_of(&summary);
    let objectives = text
        .split("\n\n")
        .find(|section| section.starts_with("OBJECTIVES"))
        .unwrap();
    insta::assert_snapshot!(objectives, @r#"
    OBJECTIVES  1 of 3 met by all 2 seeds; values of seed 7
      ✗ ttft_p95            19.1 s  at most 2.00 s, met in 1 of 2 seeds
      ✗ tpot_p99           22.0 ms  at most 50.0 ms, met in 1 of 2 seeds
      ✓ success_rate      99.825 %  at least 99.9 %, met in 2 of 2 seeds
      goodput 0.936/s: 49.4 % of completed requests are within every latency limit
    "#);
    let order = ["\nSEEDS  ", "\nSEED 7\n", "\nREQUESTS  "].map(|heading| text.find(heading));
    assert!(order[0].is_some() && order.is_sorted(), "{text}");
}

#[test]
fn episodes_tell_who_when_and_what_the_deployment_did() {
    let mut summary = summary("burst", 1);
    let woke = summary.why.as_mut().unwrap().episodes[0];
    summary.why.as_mut().unwrap().slowest = 200;
    summary.why.as_mut().unwrap().episodes.push(Episode {
        requests: 188,
        from_s: 346.0,
        until_s: 359.0,
        part: Part::Queue,
        replicas: Some(EpisodeReplicas {
            ready_at_start: 1,
            target_max: 3,
            starting_from_s: Some(330.0),
            was_at_zero: false,
            at_max: true,
            crashes: 0,
            start_failures: 0,
            ..woke.replicas.unwrap()
        }),
        ..woke
    });
    let text = text_of(&summary);
    let why = text
        .split("\n\n")
        .find(|section| section.starts_with("WHY"))
        .unwrap();
    insta::assert_snapshot!(why, @r#"
    WHY  █ cold start  ▓ queue  ▒ prefill  ░ preemption  · decode
      all requests               ██████████▓▓▓▓▓▓▓▓▓▓▓▓▓·······  mean 7.29 s of 1,138 requests
        cold start 34 %, queue 43 %, prefill <1 %, preemption <1 %, decode 22 %
      slowest 1 % to first token ██████████████████████████████  mean 69.5 s of 12 requests
        cold start >99 %, queue <1 %, prefill <1 %
      12 of the 200 slowest were sent 00:00:00 - 00:00:11: waiting for a cold start (69.5 s of 69.5 s);
        the deployment woke from zero to 1 replica;
        replicas were starting for 76.0 s, the first ordered at 00:00:00
      188 of the 200 slowest were sent 00:05:46 - 00:05:59: queueing (69.5 s of 69.5 s);
        it was going from 1 ready to 3 replicas, at max_replica_count;
        replicas were starting for 76.0 s, the first ordered at 00:05:30
    "#);
}

#[test]
fn scenarios_stand_side_by_side() {
    let (mut small, mut large) = (summary("burst", 1), summary("burst-on-demand", 1));
    small.ttft_s = None;
    large.cost.as_mut().unwrap().usd = 2.5;
    large
        .objectives
        .iter_mut()
        .for_each(|objective| objective.met = true);
    let mut seeds = large.clone();
    seeds.scenario.name = "two-seeds".into();
    seeds.seeds = Some(Seeds::of(&[small.clone(), large.clone()]));
    let text = text::comparison(&[small, large, seeds], Style::default());
    insta::assert_snapshot!(text, @r#"
    SCENARIO         met  ttft p50  ttft p95  ttft p99  tpot p95   e2e p95 replicas      cost  $/M tok
    burst              ✗         –         –         –   22.0 ms    20.6 s     1.80     $1.94   $17.04
    burst-on-demand    ✓    2.10 s    19.1 s    64.1 s   22.0 ms    20.6 s     1.80     $2.50   $17.04
    two-seeds        1/2    2.10 s    19.1 s    64.1 s   22.0 ms    20.6 s     1.80     $2.22   $17.04

    cheapest that meets its objectives: burst-on-demand
    "#);
}

#[test]
fn a_miss_that_rounding_hides_is_told() {
    let mut summary = summary("close", 1);
    summary.objectives[0].observed = Some(2.003);
    let text = text_of(&summary);
    assert!(
        text.contains("2.00 s  at most 2.00 s, missed by 1.5e-3 of it"),
        "{text}"
    );
}

#[test]
fn thousands_of_replicas_fit() {
    let mut summary = summary("fleet", 1);
    summary.replicas.as_mut().unwrap().max = 4_000;
    summary
        .series
        .target
        .iter_mut()
        .for_each(|target| *target *= 1_333.0);
    summary
        .series
        .ready
        .iter_mut()
        .for_each(|ready| *ready *= 1_333.0);
    let text = text_of(&summary);
    assert!(text.contains("max 3,999"), "{text}");
    let lines = || text.lines().filter(|line| !line.contains("sent"));
    assert!(lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn a_largest_count_is_the_reason_only_of_waiting() {
    let text_with = |part| {
        let mut summary = summary("full", 1);
        let episode = &mut summary.why.as_mut().unwrap().episodes[0];
        episode.part = part;
        episode.replicas = Some(EpisodeReplicas {
            ready_at_start: 1,
            starting_max: 0,
            target_max: 3,
            at_max: true,
            crashes: 0,
            start_failures: 0,
            ..episode.replicas.unwrap()
        });
        text_of(&summary)
    };
    let grown_out = "at max_replica_count (3 replicas) and could not grow";
    assert!(text_with(Part::Queue).contains(grown_out));
    let text = text_with(Part::Prefill);
    assert!(!text.contains(grown_out), "{text}");
    assert!(
        text.contains("1 of 3 replicas ready and none starting, at max_replica_count"),
        "{text}"
    );
}

#[test]
fn charts_follow_the_width() {
    for width in [0, 60, 80, 120] {
        let text = text::summary(
            &summary("burst", 1),
            Style {
                colour: false,
                width,
            },
        );
        let ready = text
            .lines()
            .find(|line| line.starts_with("  ready"))
            .unwrap();
        let blocks = ready.chars().count() - "  ready       max 3".len();
        assert_eq!(blocks, width.max(60) - 25, "{ready}");
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    let summary = summary("burst", 1);
    let coloured = text::summary(
        &summary,
        Style {
            colour: true,
            ..Style::default()
        },
    );
    assert!(coloured.contains("\x1b[31m✗\x1b[0m") && coloured.contains("\x1b[32m✓\x1b[0m"));
    let mut plain = coloured;
    for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, text_of(&summary));
}

/// What a run without adapters does not have is not printed; with them, one
/// line counts, and the time they cost is a part of the requests' time.
#[test]
fn adapters_are_told_of_where_there_are_some() {
    let parts = |adapter_ns| Parts {
        adapter_ns,
        prefill_ns: 50 * MILLISECOND,
        decode_ns: 100 * MILLISECOND,
        ..Parts::default()
    };
    let mut requests = [0, 0, 150 * MILLISECOND].map(|waited| request(0, 0, parts(waited), 11));
    requests[1].adapter = Some(3);
    requests[2].adapter = Some(4);
    let adapters = AdapterTotals {
        loads: 1,
        evictions: 0,
    };
    let totals = RunTotals {
        offered: 3,
        end_ns: SECOND,
        adapters: Some(adapters),
        ..RunTotals::default()
    };
    let with = text_of(&summary_of(&requests, &totals));
    let line = "  2 with an adapter, 1 waited for it · 1 adapter load, 0 evictions";
    assert!(with.lines().any(|found| found == line), "{with}");
    assert!(
        with.contains("▓ queue  ▞ adapter load  ▒ prefill"),
        "{with}"
    );
    assert!(
        with.contains(
            "the slowest request was sent at 0 s: waiting for an adapter (150 ms of 200 ms)"
        ),
        "{with}"
    );
    let without = RunTotals {
        adapters: None,
        ..totals
    };
    let without = text_of(&summary_of(&requests[..1], &without));
    assert!(!without.contains("adapter"), "{without}");
}
